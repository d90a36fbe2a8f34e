"""Pictures: every pixel is a leaf in exactly one panel, in its colour; lines and blends lie where they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from quadcodec.errors import MaskError
from quadcodec.manifest import find_masks, load_manifest
from quadcodec.masks import read_mask
from quadcodec.pyramid import TPyramid
from quadcodec.quadtree import LinearQuadtree
from quadcodec.render import (
    check_picture,
    class_colors,
    default_palette,
    draw_level,
    draw_mask,
    draw_tree,
    leaf_share,
    overlay,
    show_picture,
    write_picture,
)

BLACK, COVERED, DARK = (0, 0, 0), (240, 240, 240), (66, 66, 78)
STRIPES = {(215, 215, 215), (120, 120, 120)}


def panels(tree: LinearQuadtree, **options: Any) -> list[NDArray[np.uint8]]:
    """Return the pictures of the levels, coarsest first, one pixel of the image to one of theirs."""
    side = max(tree.height, tree.width)
    drawn = [draw_level(tree, level, side=side, **options) for level in range(tree.levels - 1, -1, -1)]
    for picture in drawn:
        assert picture.dtype == np.uint8
        assert picture.shape == (tree.height, tree.width, 3)
    return drawn


def colors_of(pixels: NDArray[np.uint8]) -> set[tuple[int, ...]]:
    return {tuple(int(v) for v in color) for color in np.unique(pixels.reshape(-1, 3), axis=0)}


def test_panels_of_a_known_mask():
    mask = np.full((8, 8), 3, np.uint8)
    mask[0, 0] = 5
    tree = LinearQuadtree.from_mask(mask, levels=3)
    q2, q1, q0 = panels(tree)
    three, five = (tuple(int(v) for v in default_palette()[i]) for i in (3, 5))
    assert colors_of(q2[:4, :4]) == {BLACK}
    assert colors_of(q2[4:]) == colors_of(q2[:, 4:]) == {three}
    assert colors_of(q1[:2, :2]) == {BLACK}
    assert colors_of(q1[2:4, :4]) == colors_of(q1[:4, 2:4]) == {three}
    assert colors_of(q1[4:]) == colors_of(q1[:, 4:]) == {COVERED}
    assert tuple(q0[0, 0]) == five
    assert tuple(q0[0, 1]) == tuple(q0[1, 0]) == tuple(q0[1, 1]) == three
    assert colors_of(q0[2:]) == colors_of(q0[:, 2:]) == {COVERED}
    t1 = draw_mask(tree, level=1, side=8)
    assert colors_of(t1[:2, :2]) == {BLACK}
    assert colors_of(t1[2:]) == colors_of(t1[:, 2:]) == {three}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(2, 6),
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_every_pixel_is_a_leaf_in_one_panel(height, width, levels, seed, dtype):
    rng = np.random.default_rng(seed)
    cells = rng.integers(1, 200, (-(-height // 4), -(-width // 4))).astype(dtype)
    mask = cells.repeat(4, 0).repeat(4, 1)[:height, :width].copy()
    mask[rng.random(mask.shape) < 0.02] = 201
    origin = tuple(int(v) for v in rng.integers(0, 1 << (levels - 1), 2) * (seed % 2))
    tree = LinearQuadtree.from_pyramid(TPyramid.from_mask(mask, levels, origin=origin))
    drawn = np.stack(panels(tree))
    leaf = ~((drawn == BLACK).all(-1) | (drawn == COVERED).all(-1))
    assert (leaf.sum(axis=0) == 1).all()
    np.testing.assert_array_equal((drawn * leaf[..., None]).sum(axis=0), class_colors()[mask])
    above = np.cumsum(leaf, axis=0) - leaf
    np.testing.assert_array_equal((drawn == COVERED).all(-1), above > 0)
    known = [draw_mask(tree, level=level, side=max(mask.shape)) for level in range(levels - 1, -1, -1)]
    unknown = (np.stack(known) == BLACK).all(-1)
    np.testing.assert_array_equal(unknown, ~np.cumsum(leaf, axis=0).astype(bool))
    np.testing.assert_array_equal(known[-1], class_colors()[mask])


def test_void_is_hatched_and_dark_classes_are_not_black():
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 9
    tree = LinearQuadtree.from_mask(mask, levels=6)
    panel = draw_level(tree, 5, void=[9], side=160)
    assert panel.shape == (128, 128, 3)
    assert colors_of(panel[:, :64]) == {DARK}
    assert colors_of(panel[:, 64:]) == STRIPES
    stripe = (panel[:, 64:] == (120, 120, 120)).all(-1)
    assert stripe.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(stripe[1:, :-1], stripe[:-1, 1:])
    assert colors_of(panels(tree)[0][:, 32:]) == colors_of(default_palette()[9])
    given = np.array([[0, 0, 0], [32, 0, 0], [0, 0, 96], [200, 0, 0]], np.uint8)
    assert class_colors(given).tolist() == [[66, 66, 78], [76, 44, 52], [0, 0, 96], [200, 0, 0]]
    assert given[0, 0] == 0


def test_a_short_palette_starts_over():
    mask = np.full((4, 4), 5, np.uint16)
    tree = LinearQuadtree.from_mask(mask, levels=2)
    palette = [[101, 1, 1], [102, 2, 2], [103, 3, 3]]
    assert colors_of(panels(tree, palette=palette)[0]) == {(103, 3, 3)}


def test_large_images_are_scaled_down_and_thin_lines_stay():
    mask = np.full((1000, 2050), 2, np.uint8)
    mask[:, 1001] = 7
    tree = LinearQuadtree.from_mask(mask)
    first, last = (draw_level(tree, level, side=700) for level in (5, 0))
    assert first.shape == last.shape == (334, 684, 3)
    assert colors_of(last[:, : 1000 // 3]) == {COVERED}
    both = default_palette()[[2, 7]].astype(int).sum(axis=0) // 2  # columns 1000 and 1001; 999 is covered
    assert colors_of(last[:, 1001 // 3]) == colors_of(both)
    assert colors_of(draw_level(tree, 5, void=[2], side=700)[:, : 992 // 3]) == STRIPES
    assert colors_of(first[:, : 992 // 3]) == colors_of(default_palette()[2])
    assert colors_of(first[:, 992 // 3 + 1 : 1024 // 3]) == {BLACK}


def test_small_images_are_enlarged():
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4) + 1
    tree = LinearQuadtree.from_mask(mask, 2)
    picture = draw_mask(tree, side=90)
    np.testing.assert_array_equal(picture, class_colors()[mask].repeat(22, 0).repeat(22, 1))


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 96), (100, 31)])
def test_shares_sum_to_the_image(size):
    mask = np.random.default_rng(3).integers(0, 2, size).astype(np.uint8)
    mask[: size[0] // 2] = 4
    for tree in (LinearQuadtree.from_mask(mask), LinearQuadtree.from_mask(mask).flip_horizontal()):
        assert sum(leaf_share(tree, level) for level in range(6)) == pytest.approx(100)


def test_overlay_blends():
    photo = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    mask = np.arange(30, dtype=np.uint8).reshape(5, 6)
    palette = default_palette()
    np.testing.assert_array_equal(overlay(photo, mask, alpha=0), photo)
    np.testing.assert_array_equal(overlay(photo, mask, alpha=1), palette[mask])
    half = overlay(photo, mask, palette, 0.5)
    assert half.dtype == np.uint8
    assert np.abs(half - (photo.astype(float) + palette[mask]) / 2).max() <= 0.5
    assert colors_of(overlay(photo, np.full((5, 6), 4, np.uint16), [[9, 9, 9]], 1.0)) == {(9, 9, 9)}
    for wrong in (photo[:4], photo[..., 0], photo[:, :5]):
        with pytest.raises(MaskError, match=r"the photo has shape .*expected \(5, 6, 3\)"):
            overlay(wrong, mask)


def lines_of(picture: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return how far each pixel is from a class colour towards white, 0 .. 1."""
    return (picture[..., 0].astype(float) - color[0]) / (255 - color[0])


@pytest.mark.parametrize("zoom", [1, 3])
def test_tree_lines_lie_on_cell_borders(zoom):
    mask = np.zeros((128, 96), np.uint8)
    mask[40, 41] = 1  # in the cell of 32 pixels at (32, 32)
    color = (100, 100, 100)
    picture = draw_tree(None, LinearQuadtree.from_mask(mask), [color], zoom=zoom)
    assert picture.shape == (zoom * 128, zoom * 96, 3)
    weights = lines_of(picture, color)
    expected = np.zeros_like(weights, bool)
    expected[:: 32 * zoom] = True
    expected[:, :: 32 * zoom] = True
    y0, x0, size = 32 * zoom, 32 * zoom, 32 * zoom
    while size // 2 >= 3:  # the crosses of the composites on the way down to (40, 41), as long as they fit
        half = size // 2
        expected[y0 + half, x0 : x0 + size] = True
        expected[y0 : y0 + size, x0 + half] = True
        size = half
        y0, x0 = y0 + size * (y0 + size <= 40 * zoom), x0 + size * (x0 + size <= 41 * zoom)
    if size > zoom:
        expected[y0 : y0 + size, x0 : x0 + size] = True  # too small for lines: filled
    np.testing.assert_array_equal(weights > 0.01, expected)
    assert 0 < weights[0, 0] < weights[48 * zoom, 33 * zoom] < weights[44 * zoom, 41 * zoom]


def test_lines_of_large_pictures_are_wider():
    mask = np.zeros((64, 3200), np.uint8)
    tree = LinearQuadtree.from_mask(mask)
    weights = lines_of(draw_tree(None, tree, [(100, 100, 100)]), (100, 100, 100))
    assert np.flatnonzero(weights[5] > 0.01)[:4].tolist() == [0, 1, 32, 33]


def test_tree_lines_follow_the_origin():
    mask = np.ones((20, 40), np.uint8)
    tree = LinearQuadtree.from_mask(mask, levels=5).flip_horizontal()
    assert tree.origin == (0, 8)
    for zoom in (1, 2):
        weights = lines_of(draw_tree(None, tree, zoom=zoom), (128, 0, 0))
        assert np.flatnonzero(weights[5] > 0.01).tolist() == [8 * zoom, 24 * zoom]
        assert np.flatnonzero(weights[:, 5] > 0.01).tolist() == [0, 16 * zoom]


def test_a_tree_lies_over_its_photo_in_grey():
    tree = LinearQuadtree.from_mask(np.ones((32, 64), np.uint8))
    photo = np.random.default_rng(1).integers(0, 256, (64, 128, 3)).astype(np.uint8)
    drawn = draw_tree(photo, tree, [[200, 100, 0]], zoom=2)
    grey = np.asarray(Image.fromarray(photo).convert("L"), float)[..., None]
    inner = drawn[3:61, 3:61].astype(float)
    assert np.abs(inner - (grey[3:61, 3:61] + (200, 100, 0)) / 2).max() <= 1
    with pytest.raises(MaskError, match=r"expected \(64, 128, 3\)"):
        draw_tree(photo[:, :39], tree, zoom=2)


def test_pictures_are_png(tmp_path):
    rgb = np.random.default_rng(1).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    path = tmp_path / "new" / "a.png"
    for picture in (rgb, rgb[::-1]):
        check_picture(path, overwrite=True)
        write_picture(path, picture, overwrite=True)
        with Image.open(path) as image:
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.array(image), picture)
    with pytest.raises(MaskError, match=r"a\.jpg: pictures are written as PNG.*end in \.png"):
        write_picture(tmp_path / "a.jpg", rgb)
    with pytest.raises(MaskError, match="cannot be written"):
        write_picture(path / "b.png", rgb)
    assert list(tmp_path.rglob("*.*")) == [path]


def test_a_picture_that_exists_is_kept_unless_told_otherwise(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    rgb = np.zeros((2, 2, 3), np.uint8)
    message = r"a\.png: exists already\. Choose another name or use --overwrite"
    with pytest.raises(MaskError, match=message):
        check_picture(path)
    with pytest.raises(MaskError, match=message):
        write_picture(path, rgb)
    assert path.read_bytes() == b"mine"
    write_picture(path, rgb, overwrite=True)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.array(image), rgb)


def test_a_window_needs_a_display_and_a_viewer(monkeypatch):
    shown = []
    rgb = np.zeros((2, 3, 3), np.uint8)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MaskError, match=r"no display here .*-o PICTURE\.png"):
        show_picture(rgb, "a")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("PIL.ImageShow._viewers", [])
    with pytest.raises(MaskError, match="no viewer of pictures"):
        show_picture(rgb, "a")
    monkeypatch.setattr("PIL.ImageShow.show", lambda image, title: shown.append((image.size, title)) or True)
    show_picture(rgb, "a")
    assert shown == [((3, 2), "a")]


def test_real_scene(real_data):
    root = real_data / "cityscapes"
    manifest = load_manifest("cityscapes")
    source = next(s for s in find_masks(root, manifest, "val").sources if s.image)
    mask = read_mask(root / source.mask)
    tree = LinearQuadtree.from_mask(mask)
    palette = default_palette()
    for label, color in manifest.colors.items():
        palette[label] = color
    assert {BLACK, (128, 64, 128), *STRIPES} <= colors_of(draw_level(tree, 5, palette, manifest.void, side=640))
    with Image.open(root / source.image) as image:
        photo = np.array(image)
    assert draw_tree(photo, tree, palette).shape == photo.shape
    assert overlay(photo, mask, palette).shape == photo.shape
