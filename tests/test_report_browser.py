"""The report in a headless Chromium: what its script draws, keys, phone and dark mode."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import quadcodec
from quadcodec.render import class_colors, draw_level, draw_mask
from quadcodec.report import report

from .browser import Browser, find_chromium
from .conftest import blocks
from .test_report import HOSTILE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with Browser(program, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    masks = [blocks(k, 70, 100, block=3 + 4 * k) for k in range(5)]
    masks[0][:30, :40] = 255
    classes = [quadcodec.ClassInfo(k, HOSTILE if k == 1 else f"a long name of class {k}") for k in range(7)]
    return quadcodec.write(
        folder / "s.zarr", masks, names=[f"a-long-name-without-any-space-{k}" * 3 for k in range(5)],
        classes=classes, void=[255],
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(store):
    path = store.path.parent / "report.html"
    bench = [{"name": "a codec of a long name", "bpp": 0.04, "encode_mpix_s": 90000.0, "decode_mpix_s": 210000.0}]
    path.write_text(report([store.path], bench=bench))
    return path


def drawn(browser, tree, level, mode):
    """Return what the page draws of a tree, one pixel of the image to one of the canvas."""
    values = browser.run(
        f"""(() => {{
          const canvas = document.createElement("canvas"), tree = trees[{tree}];
          [canvas.width, canvas.height] = [tree.width, tree.height];
          draw(canvas, tree, {level}, "{mode}", false);
          return Array.from(canvas.getContext("2d").getImageData(0, 0, tree.width, tree.height).data);
        }})()"""
    )
    return np.array(values, np.uint8).reshape(70, 100, 4)[..., :3]


def test_pictures_are_those_of_the_renderer(browser, store, page):
    browser.open(page)
    assert browser.problems() == []
    for k, name in enumerate(browser.run("trees.map((tree) => tree.name)")):
        tree = store.quadtree(store.find(name))
        for level in range(6):
            for mode, expected in (
                ("leaves", draw_level(tree, level, store.palette, side=100)),
                ("image", draw_mask(tree, store.palette, level=level, side=100)),
            ):
                picture = drawn(browser, k, level, mode)
                void = (expected == class_colors(store.palette)[255]).all(-1)
                np.testing.assert_array_equal(picture[~void], expected[~void])
                stripes = {tuple(int(v) for v in c) for c in picture[void]}
                assert stripes <= {(215, 215, 215), (120, 120, 120)}


def test_a_cell_is_told_as_the_tree_has_it(browser, store, page):
    browser.open(page)
    k, name = 2, browser.run("trees[2].name")
    tree = store.quadtree(store.find(name))
    names = {c.id: c.name for c in store.classes} | {255: "id 255"}
    for y, x in ((0, 0), (69, 99), (33, 41), (12, 77)):
        label = int(tree.to_mask()[y, x])
        level = next(level for level in range(5, -1, -1) if tree.query(level, [y >> level], [x >> level])[0] >= 0)
        told = browser.run(f"query(trees[{k}], {y}, {x})")
        assert told == f"y {y}, x {x}: {names[label]}, a leaf of Q{level} ({1 << level} px)"


def test_keys_and_controls_step_through_levels_and_images(browser, page):
    browser.open(page)
    seen = lambda: browser.run("[state.tree, state.level, byId('level-name').textContent, byId('image').value]")  # noqa: E731
    browser.run("byId('canvas').focus()")
    assert seen() == [0, 5, "Q5, cells of 32 px", "0"]
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    assert seen() == [0, 3, "Q3, cells of 8 px", "0"]
    browser.press("ArrowDown")
    browser.press("ArrowLeft")
    assert seen() == [1, 4, "Q4, cells of 16 px", "1"]
    for _ in range(6):
        browser.press("ArrowRight")
    assert seen()[1] == 0
    assert "100.00 % of the image are known" in browser.run("byId('facts').textContent")
    browser.run("byId('level').focus()")
    browser.press("Home")
    assert seen()[:2] == [1, 5]
    browser.run("document.querySelectorAll('.cards button')[3].click()")
    assert seen()[0] == 3
    assert browser.run("document.querySelector('.cards button[aria-pressed=true]').dataset.tree") == "3"
    browser.run("byId('play').click()")
    assert browser.run("state.timer !== null")
    browser.run("byId('play').click()")
    assert browser.run("state.timer === null")
    assert browser.problems() == []


def test_hostile_names_are_only_text(browser, page):
    browser.open(page)
    assert browser.run("document.title") == "Label trees of arrays"
    assert browser.run(f"document.body.innerText.includes({HOSTILE!r})".replace("\\'", "\\u0027"))
    assert browser.problems() == []


@pytest.mark.parametrize("width", [320, 390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_can_be_read(browser, page, tmp_path, width, dark):
    browser.open(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    ends = browser.run("[...document.querySelectorAll('main section')].map((s) => s.getBoundingClientRect().right)")
    assert max(ends) <= width
    colors = "(() => {const s = getComputedStyle(%s); return [s.color, s.backgroundColor];})()"
    ink, paper = browser.run(colors % "document.body")
    panel = browser.run(colors % "byId('explorer')")[1]
    quiet = browser.run(colors % "byId('facts')")[0]
    assert (luminance(paper) < 0.1) == dark
    assert min(contrast(ink, paper), contrast(quiet, paper), contrast(quiet, panel)) >= 4.5
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.width == width
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def luminance(color):
    channels = [int(v) / 255 for v in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
