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
from quadcodec.render import check_picture, default_palette, draw_tree, overlay, render_levels, write_picture

BLACK, COVERED, DARK = (0, 0, 0), (240, 240, 240), (66, 66, 78)
STRIPES = {(215, 215, 215), (120, 120, 120)}
GAP = 8


def panels(tree: LinearQuadtree, **options: Any) -> list[NDArray[np.uint8]]:
    """Return the panels of a strip without captions, coarsest first, one pixel of the image to one of theirs."""
    strip = render_levels(tree, captions=False, **options)
    assert strip.dtype == np.uint8
    width = (strip.shape[1] - GAP * (tree.levels - 1)) // tree.levels
    zoom = max(1, width // tree.width)
    parts = [strip[:, i * (width + GAP) :][:, :width] for i in range(tree.levels)]
    assert strip.shape == (tree.height * zoom, tree.levels * (width + GAP) - GAP, 3)
    for part in parts:
        np.testing.assert_array_equal(part, part[::zoom, ::zoom].repeat(zoom, 0).repeat(zoom, 1))
    return [part[::zoom, ::zoom] for part in parts]


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
    np.testing.assert_array_equal((drawn * leaf[..., None]).sum(axis=0), default_palette()[mask])
    above = np.cumsum(leaf, axis=0) - leaf
    np.testing.assert_array_equal((drawn == COVERED).all(-1), above > 0)


def test_void_is_hatched_and_black_classes_are_not_black():
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 9
    tree = LinearQuadtree.from_mask(mask, levels=6)
    strip = render_levels(tree, void=[9], captions=False)
    panel = strip[:, : (strip.shape[1] - 5 * GAP) // 6]
    half = panel.shape[1] // 2
    assert colors_of(panel[:, :half]) == {DARK}
    assert colors_of(panel[:, half:]) == STRIPES
    stripe = (panel[:, half:] == (120, 120, 120)).all(-1)
    assert stripe.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(stripe[1:, :-1], stripe[:-1, 1:])
    assert colors_of(panels(tree)[0][:, 32:]) == colors_of(default_palette()[9])


def test_a_short_palette_starts_over():
    mask = np.full((4, 4), 5, np.uint16)
    drawn = panels(LinearQuadtree.from_mask(mask, levels=2), palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    assert colors_of(drawn[0]) == {(3, 3, 3)}


def test_large_images_are_scaled_down_and_thin_lines_stay():
    mask = np.full((1000, 2050), 2, np.uint8)
    mask[:, 1001] = 7
    tree = LinearQuadtree.from_mask(mask)
    strip = render_levels(tree, captions=False)
    width = -(-2050 // 3)
    assert strip.shape == (334, 6 * width + 5 * GAP, 3)
    assert strip.shape[1] <= 6000
    last = strip[:, -width:]
    assert colors_of(last[:, : 1000 // 3]) == {COVERED}
    both = default_palette()[[2, 7]].astype(int).sum(axis=0) // 2  # columns 1000 and 1001; 999 is covered
    assert colors_of(last[:, 1001 // 3]) == colors_of(both)
    assert colors_of(render_levels(tree, void=[2], captions=False)[:, : 992 // 3]) == STRIPES
    first = strip[:, :width]
    assert colors_of(first[:, : 992 // 3]) == colors_of(default_palette()[2])
    assert colors_of(first[:, 992 // 3 + 1 : 1024 // 3]) == {BLACK}
    assert render_levels(tree, max_width=1000).shape[1] <= 1000


def test_captions_name_level_and_share():
    mask = np.zeros((64, 96), np.uint8)
    mask[:32, :32] = np.arange(1024).reshape(32, 32) % 7
    tree = LinearQuadtree.from_mask(mask)
    plain, named = render_levels(tree, captions=False), render_levels(tree)
    above = named.shape[0] - plain.shape[0]
    assert above >= 20
    np.testing.assert_array_equal(named[above:], plain)
    assert (named[:above] < 100).all(-1).any()
    assert (named[:above] == 255).mean() > 0.8


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 96), (100, 31)])
def test_shares_sum_to_the_image(size):
    from quadcodec.render import _share

    mask = np.random.default_rng(3).integers(0, 2, size).astype(np.uint8)
    mask[: size[0] // 2] = 4
    for tree in (LinearQuadtree.from_mask(mask), LinearQuadtree.from_mask(mask).flip_horizontal()):
        assert sum(_share(tree, level) for level in range(6)) == pytest.approx(100)


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


def test_tree_lines_lie_on_cell_borders():
    mask = np.zeros((128, 96), np.uint8)
    mask[40, 41] = 1  # in the cell of 32 pixels at (32, 32)
    photo = np.zeros((128, 96, 3), np.uint8)
    drawn = draw_tree(photo, LinearQuadtree.from_mask(mask), (200, 100, 0))
    assert drawn.shape == photo.shape
    np.testing.assert_array_equal(photo, 0)
    lines = drawn[..., 0] > 0
    expected = np.zeros_like(lines)
    expected[::32] = True
    expected[:, ::32] = True
    y0, x0, size = 32, 32, 32
    while size > 2:  # the crosses of the composites on the way down to (40, 41)
        expected[y0 + size // 2, x0 : x0 + size] = True
        expected[y0 : y0 + size, x0 + size // 2] = True
        size //= 2
        y0, x0 = y0 + size * (y0 + size <= 40), x0 + size * (x0 + size <= 41)
    expected[y0 : y0 + 2, x0 : x0 + 2] = True
    np.testing.assert_array_equal(lines, expected)
    ratio = drawn[lines][:, 1] / drawn[lines][:, 0]
    assert np.abs(ratio - 0.5).max() < 0.02
    assert drawn[0, 0, 0] > drawn[42, 43, 0] > 0


def test_tree_lines_follow_the_origin():
    mask = np.zeros((20, 40), np.uint8)
    photo = np.zeros((20, 40, 3), np.uint8)
    tree = LinearQuadtree.from_mask(mask, levels=5).flip_horizontal()
    assert tree.origin == (0, 8)
    lines = draw_tree(photo, tree)[..., 0] > 0
    assert np.flatnonzero(lines[5]).tolist() == [8, 24]
    assert np.flatnonzero(lines[:, 5]).tolist() == [0, 16]
    with pytest.raises(MaskError, match=r"expected \(20, 40, 3\)"):
        draw_tree(photo[:, :39], tree)


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


def test_real_scene(real_data):
    root = real_data / "cityscapes"
    manifest = load_manifest("cityscapes")
    source = next(s for s in find_masks(root, manifest, "val").sources if s.image)
    mask = read_mask(root / source.mask)
    tree = LinearQuadtree.from_mask(mask)
    palette = default_palette()
    for label, color in manifest.colors.items():
        palette[label] = color
    strip = render_levels(tree, palette, manifest.void)
    assert strip.shape[1] <= 6000
    assert {BLACK, COVERED, (128, 64, 128), *STRIPES} <= colors_of(strip)
    with Image.open(root / source.image) as image:
        photo = np.array(image)
    lines = (draw_tree(photo, tree) != photo).any(-1)
    assert lines[::32].mean() > 0.9
    assert lines.mean() < 0.3
    assert overlay(photo, mask, palette).shape == photo.shape
