"""The report: one page that needs nothing else, whose numbers are those of stats() and whose trees are the store's."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import quadcodec
from quadcodec.convert import convert, plan_conversion
from quadcodec.errors import StoreError
from quadcodec.pyramid import COMPOSITE, OUTSIDE
from quadcodec.quadtree import LinearQuadtree
from quadcodec.render import class_colors
from quadcodec.report import MAX_TREES, read_bench, report, write_report
from quadcodec.stats import leaf_counts, stats

from .conftest import blocks
from .test_cli import fails, invoke

VOID_TAGS = {"meta", "input", "link", "br", "img", "hr", "rect"}
HOSTILE = "</script><script>document.title='hacked'</script>{{footer}}&\"'"


class Page(HTMLParser):
    """Read a page strictly: every tag is closed in order; keep tags, text and the script of trees."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs))
        if tag not in VOID_TAGS:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text += data
            if "td" in self.open or "th" in self.open:
                self.cells[-1][-1] += data

    @property
    def trees(self):
        return json.loads(self.scripts[0])


def nodes_of(tree):
    """Return the nodes of a tree on a page, as symbols, level by level from the coarsest."""
    raw = zlib.decompress(base64.b64decode(tree["nodes"]), -15)
    return np.frombuffer(raw, f"<u{tree['bytes']}")


@pytest.fixture
def store(tmp_path):
    masks = [blocks(k, 70, 100, block=3 + 4 * k) for k in range(9)]
    masks[3][:30, :40] = 255
    infos = [quadcodec.ClassInfo(k, f"class {k}", (20 * k + 100, 50, 50)) for k in range(7)]
    quadcodec.write(
        tmp_path / "s.zarr", masks, names=[f"image {k}" for k in range(9)], classes=infos, void=[255],
        splits=["train"] * 6 + ["val"] * 3,
    )  # fmt: skip
    return tmp_path / "s.zarr"


def test_numbers_are_those_of_stats(cityscapes, tmp_path):
    convert(plan_conversion(cityscapes), tmp_path / "out.zarr")
    page = Page(report([tmp_path / "out.zarr"]))
    rows = stats(tmp_path / "out.zarr")
    expected = []
    for row in rows:
        shares = list(row.percent.values())
        paper = [row.published[str(level)] for level in range(5, -1, -1)] + [row.published["ratio"]]
        ours = [*shares, row.leaf_ratio_percent]
        error = f"{row.leaf_ratio_error:.2f}"
        expected.append([f"cityscapes {row.split}", str(row.images), *(f"{v:.2f}" for v in ours), error])
        expected.append(["paper", "", *(f"{v:.2f}" for v in paper), ""])
        expected.append(["difference", "", *(f"{a - b:+.2f}" for a, b in zip(ours, paper, strict=True)), ""])
    start = page.cells.index(expected[0])
    assert page.cells[start : start + 6] == expected
    label = next(a["aria-label"] for t, a in page.tags if t == "svg" and a.get("aria-label"))
    assert label.startswith("cityscapes train: Q5 ")
    assert f"Q0 {rows[0].percent[0]:.2f} %" in label
    store = quadcodec.open(tmp_path / "out.zarr")
    pixels = sum(np.bincount(mask.ravel(), minlength=9) for mask in store)
    for label_id in np.flatnonzero(pixels):
        share = f"{100 * pixels[label_id] / pixels.sum():.3f} %"
        assert [share] == [cells[2] for cells in page.cells if cells[0].startswith(store.classes[label_id].name)]


def test_training_classes_stand_beside_raw_ids(cityscapes, tmp_path):
    convert(plan_conversion(cityscapes), tmp_path / "out.zarr")
    page = Page(report([tmp_path / "out.zarr"], classes=["raw", "train"]))
    rows = stats(tmp_path / "out.zarr", classes=["raw", "train"])
    for row in rows:
        name = f"cityscapes {row.split}" + (", training classes" if row.classes == "train" else "")
        (cells,) = [cells for cells in page.cells if cells and cells[0] == name]
        assert cells[2:9] == [f"{v:.2f}" for v in (*row.percent.values(), row.leaf_ratio_percent)]
    colors = [a["style"] for t, a in page.tags if a.get("class") == "swatch"]
    rows_of = [cells[0] for cells in page.cells if len(cells) == 3 and cells[2].endswith("%")]
    swatches = dict(zip(rows_of, colors[-len(rows_of) :], strict=True))
    assert swatches["ignored"] == "background:#42424e"
    ignored = sum(row.class_pixels[-1] for row in rows if row.classes == "train")
    assert ["ignored", "", f"{100 * ignored / (3 * 50 * 70 + 2 * 40 * 90):.3f} %"] in page.cells


def test_an_unreadable_published_number_stays_empty(store, monkeypatch):
    import quadcodec.report

    published = {"5": 50.0, "4": None, "3": 1.0, "2": 1.0, "1": 1.0, "0": 1.0, "ratio": 3.0}

    def with_published(path, **options):
        return [replace(row, published=published) for row in stats(path, **options)]

    monkeypatch.setattr(quadcodec.report, "stats", with_published)
    page = Page(report([store]))
    assert [cells[3] for cells in page.cells if cells and cells[0] in ("paper", "difference")] == ["\u2013"] * 4
    assert not [a for t, a in page.tags if t == "svg" and a.get("class") == "published"]


def test_the_page_needs_nothing_else(store):
    html = report([store], command="quadcodec report s.zarr -o r.html")
    page = Page(html)
    assert not re.search(
        r"https?:|//[a-z]|@import|url\(", html.replace(page.scripts[1], "").replace(page.scripts[0], "")
    )
    assert not re.search(r"https?:|fetch\(|XMLHttp|import\(|WebSocket", page.scripts[1])
    assert not [a for _, a in page.tags if {"src", "href", "srcset", "action"} & set(a)]
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert f"Made by quadcodec {quadcodec.__version__}: quadcodec report s.zarr -o r.html" in page.text
    assert "{{" not in html
    assert html == report([store], command="quadcodec report s.zarr -o r.html")


def test_everything_has_a_label(store):
    page = Page(report([store]))
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert dict(page.tags)["html"]["lang"] == "en"
    for tag, attributes in page.tags:
        if tag == "section":
            assert attributes["aria-labelledby"] in ids
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
    assert [tag for tag, _ in page.tags if tag == "h1"] == ["h1"]


def test_names_are_escaped(tmp_path):
    folder = tmp_path / "<i>a.zarr"
    classes = [quadcodec.ClassInfo(0, HOSTILE, (9, 99, 9)), quadcodec.ClassInfo(1, HOSTILE + "1")]
    quadcodec.write(folder, [np.eye(40, dtype=np.uint8)], names=[HOSTILE], splits=[HOSTILE], classes=classes,
                    dataset=HOSTILE)  # fmt: skip
    html = report([folder], command=HOSTILE, bench=[{"name": HOSTILE, "bpp": 1.0}])
    page = Page(html)
    assert len(page.scripts) == 2
    assert html.count("<script") == 2
    assert "<i>" not in html
    assert page.text.count(HOSTILE) >= 8
    (tree,) = page.trees
    assert tree["name"] == tree["split"] == tree["names"][0] == HOSTILE


def test_densest_and_sparsest_are_chosen(store):
    opened = quadcodec.open(store)
    ratios = [100 * leaf_counts(opened.quadtree(i)).sum() / (96 * 128) for i in range(9)]
    order = np.argsort(ratios)[::-1]
    page = Page(report([store]))
    assert [t["name"] for t in page.trees] == [opened.names[i] for i in [*order[:3], *order[-3:]]]
    assert page.trees[0]["note"] == f"densest: {ratios[order[0]]:.2f} % leaves"
    assert page.trees[5]["note"] == f"sparsest: {ratios[order[8]]:.2f} % leaves"
    middle = int(order[4])
    named = Page(report([store], images=[f"image {middle}", str(order[0])])).trees
    assert [t["name"] for t in named[:2]] == [f"image {middle}", f"image {order[0]}"]
    assert len(named) == 7
    with pytest.raises(StoreError, match="image 'image 9' does not exist"):
        report([store], images=["image 9"])


def test_several_stores_share_the_page(store, tmp_path):
    quadcodec.write(tmp_path / "t.zarr", [blocks(1, 40, 50)], names=["only here"], dataset="other")
    page = Page(report([store, tmp_path / "t.zarr"], images=["only here"]))
    assert "Label trees of arrays, other" in page.text
    assert [t["store"] for t in page.trees] == ["s.zarr"] * 6 + ["t.zarr"]
    assert {"arrays train", "arrays val", "other all"} <= {cells[0] for cells in page.cells if cells}
    quadcodec.write(tmp_path / "u.zarr", [blocks(1, 40, 50)])
    same = Page(report([store, tmp_path / "u.zarr"]))
    assert {"s.zarr train", "s.zarr val", "u.zarr all"} <= {cells[0] for cells in same.cells if cells}
    many = Page(report([store] * 20)).trees
    assert len(many) == 40
    assert MAX_TREES < 40


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_trees_of_the_page_are_those_of_the_store(tmp_path, dtype):
    mask = (blocks(3, 90, 130, classes=250, block=4).astype(dtype) * (1 if dtype == np.uint8 else 257)).astype(dtype)
    void = int(mask[5, 5])
    store = quadcodec.write(tmp_path / "s.zarr", [mask], void=[void], classes={int(mask[0, 0]): "corner"})
    (tree,) = Page(report([tmp_path / "s.zarr"])).trees
    expected = store.quadtree(0)
    ids = np.unique(mask)
    symbols = nodes_of(tree).astype(int)
    values = np.array([*ids, COMPOSITE, OUTSIDE])[symbols]
    np.testing.assert_array_equal(values, expected.nodes)
    assert (tree["height"], tree["width"], tree["levels"], tree["finest"]) == (90, 130, 6, 0)
    at = {int(label): k for k, label in enumerate(ids)}
    assert tree["names"][at[int(mask[0, 0])]] == "corner"
    assert tree["void"] == [at[void]]
    r, g, b = class_colors(store.palette)[int(ids[2]) % 256]
    assert tree["colors"][2] == f"#{r:02x}{g:02x}{b:02x}"


def test_a_tree_too_large_for_the_page_loses_its_finest_levels(tmp_path, monkeypatch):
    monkeypatch.setattr("quadcodec.report.MAX_TREE_CHARS", 10_000)
    noise = np.random.default_rng(0).integers(0, 60000, (64, 128)).astype(np.uint16)
    noise[:32] = 7
    store = quadcodec.write(tmp_path / "s.zarr", [noise])
    html = report([tmp_path / "s.zarr"])
    (tree,) = Page(html).trees
    assert tree["finest"] == 1
    assert len(json.dumps(tree)) <= 10_000
    assert tree["names"] == ["id 7"]
    full = store.quadtree(0)
    kept = np.concatenate([full.level(level) for level in range(5, 0, -1)])
    np.testing.assert_array_equal(np.array([7, COMPOSITE, OUTSIDE])[nodes_of(tree)], kept)
    assert isinstance(full, LinearQuadtree)


def test_size_and_speed_come_from_the_bench_file(store, tmp_path):
    file = tmp_path / "bench.json"
    codecs = [
        {"name": "ours", "bpp": 0.04, "encode_mpix_s": 900.4, "decode_mpix_s": 2100, "nodes_mpix_s": 10592,
         "lossless": True},
        {"name": "lossy", "bpp": 0.08, "encode_mpix_s": None, "decode_mpix_s": 7.0, "lossless": False},
        {"name": "failed", "bpp": None, "decode_mpix_s": None, "lossless": None},
    ]  # fmt: skip
    file.write_text(json.dumps({"codecs": codecs}))
    page = Page(report([store], bench=read_bench(file)))
    start = next(k for k, cells in enumerate(page.cells) if cells and cells[0] == "codec")
    assert page.cells[start : start + 4] == [
        ["codec", "bits/pixel", "", "encode", "decode", "nodes only"],
        ["ours", "0.0400", "", "900", "2,100", "10,592"],
        ["lossy (not lossless)", "0.0800", "", "\u2013", "7", "\u2013"],
        ["failed", *["\u2013", "", "\u2013", "\u2013", "\u2013"]],
    ]
    assert "Size and speed" not in Page(report([store])).text
    for wrong in ("{", "{}", "[]", '{"codecs": [{"name": "a"}]}', '{"codecs": [{"name": "a", "bpp": "x"}]}'):
        file.write_text(wrong)
        with pytest.raises(StoreError, match=r"bench\.json: is no result of a benchmark"):
            read_bench(file)
    with pytest.raises(StoreError, match="cannot be read"):
        read_bench(tmp_path / "none.json")


def test_pages_are_not_overwritten_unawares(tmp_path):
    with pytest.raises(StoreError, match=r"end in \.html"):
        write_report(tmp_path / "a.png", "x")
    write_report(tmp_path / "a.html", "x")
    with pytest.raises(StoreError, match="exists already"):
        write_report(tmp_path / "a.html", "y")
    assert (tmp_path / "a.html").read_text() == "x"
    write_report(tmp_path / "a.html", "y", overwrite=True)
    assert (tmp_path / "a.html").read_text() == "y"
    with pytest.raises(StoreError, match="cannot be written"):
        write_report(tmp_path / "a.html" / "b.html", "y")


def test_the_command(store, tmp_path):
    out = tmp_path / "r.html"
    code, text, _ = invoke("report", store, "-o", out, "--image", "image 4")
    assert code == 0
    assert f"{out}: " in text
    page = Page(out.read_text())
    assert f"quadcodec report {store} -o {out} --image 'image 4'" in page.text
    assert page.trees[0]["name"] == "image 4"
    assert "exists already" in fails("report", store, "-o", out)
    assert "found nothing here" in fails("report", tmp_path / "no.zarr", "-o", tmp_path / "b.html")
    assert not (tmp_path / "b.html").exists()
