"""Sheets: panels where they belong, legends that name what is seen, photos that fit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import quadcodec
from quadcodec.errors import MaskError
from quadcodec.render import class_colors
from quadcodec.sheet import LegendEntry, Panel, arrange, lay_out
from quadcodec.view import view

from .conftest import blocks

PAPER = (255, 255, 255)


def panel(color, size=(60, 120)):
    return Panel("title", "note", np.full((*size, 3), color, np.uint8))


def boxes(sheet, color):
    """Return (y, x, height, width) of the pixels of a colour, which must fill their box."""
    y, x = np.nonzero((sheet == color).all(-1))
    box = y.min(), x.min(), y.max() - y.min() + 1, x.max() - x.min() + 1
    assert len(y) == box[2] * box[3]
    return box


@pytest.mark.parametrize(("count", "size", "columns"), [(7, (100, 200), 3), (7, (300, 400), 4), (1, (9, 9), 1)])
def test_sheets_have_the_shape_of_a_screen(count, size, columns):
    assert arrange(count, *size) == columns


def test_panels_stand_in_rows_and_the_legend_in_the_room_left():
    colors = [(10 * k + 10, 0, 0) for k in range(5)]
    entries = [LegendEntry("green", (0, 200, 0)), LegendEntry("blue", (0, 0, 200))]
    sheet = lay_out([panel(c) for c in colors], 3, entries)
    found = [boxes(sheet, c) for c in colors]
    assert all(box[2:] == (60, 120) for box in found)
    assert found[0][0] == found[1][0] == found[2][0] < found[3][0] == found[4][0]
    assert found[0][1] == found[3][1] < found[1][1] == found[4][1] < found[2][1]
    green, blue = boxes(sheet, (0, 200, 0)), boxes(sheet, (0, 0, 200))
    assert green[1] == blue[1] == found[2][1]
    assert found[2][0] + 60 < green[0] < blue[0] < found[3][0] + 60
    full = lay_out([panel(c) for c in colors[:3]], 3, entries)
    assert boxes(full, (0, 200, 0))[0] > boxes(full, colors[0])[0] + 60
    assert boxes(full, (0, 200, 0))[1] < boxes(full, (0, 0, 200))[1]


def test_a_legend_too_long_for_its_room_says_how_much_it_leaves_out():
    entries = [LegendEntry(f"class {k}", (0, 200, k)) for k in range(40)]
    sheet = lay_out([panel((9, 0, 0))] * 2, 3, entries)
    shown = [k for k in range(40) if (sheet == (0, 200, k)).all(-1).any()]
    assert shown == list(range(len(shown)))
    assert 1 <= len(shown) < 39
    below = lay_out([panel((9, 0, 0))] * 2, 2, entries)
    assert all((below == (0, 200, k)).all(-1).any() for k in range(40))


def test_captions_are_drawn_and_long_ones_stay_within_their_panel():
    long = Panel("a very long name of an image " * 4, "and a note " * 9, np.full((40, 160, 3), 7, np.uint8))
    sheet = lay_out([long, panel((8, 0, 0), (40, 160))], 2, [LegendEntry("x" * 400, (0, 99, 0))])
    above = sheet[: boxes(sheet, (7, 7, 7))[0] - 2]
    assert (above < 100).all(-1).any()
    gap = boxes(sheet, (7, 7, 7))[1] + 161
    assert (above[:, gap : gap + 12] == PAPER).all()


def test_a_note_gives_way_to_its_title():
    rgb = np.full((40, 160, 3), 7, np.uint8)
    with_note, without = (lay_out([Panel("t" * 60, note, rgb)], 1, [LegendEntry("x")]) for note in ("a note", ""))
    np.testing.assert_array_equal(with_note, without)


@pytest.fixture
def store(tmp_path):
    masks = [blocks(k, 70, 100) + np.uint8(k) for k in range(3)]
    masks[0][:40, :60] = 255
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (50, 35), (250, 250, 250)).save(tmp_path / "photos" / "a.png")
    infos = [quadcodec.ClassInfo(k, f"class\n{k}", (20 * k + 100, 50, 50)) for k in range(6)]
    return quadcodec.write(
        tmp_path / "s.zarr", masks, names=["a\nb", "c", "d"], classes=infos, void=[255],
        images=["a.png", "", "missing.png"], image_root=str(tmp_path / "photos"),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["levels", "detail", "tree"])
def test_a_sheet_of_each_kind(store, kind):
    alone = view(store, [0], kind)
    assert alone.dtype == np.uint8
    several = view(store, [0, 1], kind)
    assert several.shape != alone.shape
    for label in store.quadtree(1).class_pixels():
        if label != 255:
            assert (several == class_colors(store.palette)[label]).all(-1).any()
    hatched = (several == (215, 215, 215)).all(-1).any()
    assert hatched == (kind != "tree")


@pytest.mark.parametrize("kind", ["levels", "detail", "tree"])
def test_legends_name_classes_by_their_share_and_void_last(store, kind, monkeypatch):
    legends = []
    monkeypatch.setattr("quadcodec.view.lay_out", lambda panels, columns, legend: legends.append(legend))
    view(store, [0], kind)
    (legend,) = legends
    pixels = store.quadtree(0).class_pixels()
    shares = sorted(((100 * n / 7000, label) for label, n in pixels.items() if label != 255), reverse=True)
    texts = [f"class {label}  {share:.1f} %" for share, label in shares]
    named = legend[{"levels": 2, "detail": 1, "tree": 0}[kind] :]
    assert [entry.name for entry in named] == [*texts, f"void  {100 * pixels[255] / 7000:.1f} %"]
    assert [entry.hatched for entry in named] == [False] * len(texts) + [kind != "tree"]
    assert [entry.color for entry in named[:-1]] == [(20 * label + 100, 50, 50) for _, label in shares]


def test_levels_show_the_mask_first(store):
    sheet = view(store, [1], "levels")
    mask = class_colors(store.palette)[store[1]].repeat(6, 0).repeat(6, 1)
    strip = np.lib.stride_tricks.sliding_window_view(sheet[:, :700], mask.shape)[:, :, 0]
    assert any((strip[y, 16] == mask).all() for y in range(len(strip)))


def test_photos_lie_under_trees(store, tmp_path):
    light, flat = view(store, [0], "tree"), view(store, [1], "tree")
    assert light.mean() > flat.mean() + 20
    with pytest.raises(MaskError, match=r"missing\.png: the photo cannot be read .*--photos"):
        view(store, [2], "tree")
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (100, 70)).save(tmp_path / "elsewhere" / "missing.png")
    view(store, [2], "tree", photos=tmp_path / "elsewhere")
    view(store, [2], "levels")


def test_no_photo_outside_its_folder_is_read(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "secret.png")
    store = quadcodec.write(
        tmp_path / "s.zarr", [np.zeros((2, 3), np.uint8)], images=["../secret.png"],
        image_root=str(tmp_path / "photos"),
    )  # fmt: skip
    with pytest.raises(MaskError, match="leads out of the image root"):
        view(store, [0], "tree")


def test_ids_beyond_the_palette_are_drawn(tmp_path):
    mask = np.full((40, 40), 300, np.uint16)
    mask[:9] = 65535
    store = quadcodec.write(tmp_path / "s.zarr", [mask], void=[65535])
    for kind in ("levels", "detail", "tree"):
        assert (view(store, [0], kind) == class_colors(store.palette)[300 - 256]).all(-1).any()
