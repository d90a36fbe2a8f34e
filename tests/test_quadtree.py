import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadcodec import COMPOSITE, OUTSIDE, LinearQuadtree, TPyramid, resample
from quadcodec.errors import MaskError
from quadcodec.quadtree import relevel

from . import oracle
from .strategies import levels, masks


def same(a, b):
    return a.counts == b.counts and a.nodes.dtype == b.nodes.dtype and np.array_equal(a.nodes, b.nodes)


@settings(deadline=None, max_examples=60)
@given(masks(40), levels)
def test_nodes_and_positions_are_those_of_the_format(mask, count):
    tree = LinearQuadtree.from_mask(mask, count)
    for level, nodes in enumerate(oracle.build(mask.tolist(), count)):
        assert tree.level(level).tolist() == [value for _, _, value in nodes]
        assert tree.positions(level).tolist() == [[y, x] for y, x, _ in nodes]


@settings(deadline=None)
@given(masks(), levels)
def test_tree_gives_mask_and_pyramid_back(mask, count):
    pyramid = TPyramid.from_mask(mask, count)
    tree = LinearQuadtree.from_pyramid(pyramid)
    np.testing.assert_array_equal(tree.to_mask(), mask)
    assert tree.to_mask().dtype == mask.dtype
    back = tree.to_pyramid()
    for level in range(count):
        np.testing.assert_array_equal(back.level(level), pyramid.level(level))
    assert same(LinearQuadtree.from_pyramid(back), tree)


@settings(deadline=None)
@given(masks(), levels)
def test_mirror_is_the_tree_of_the_mirrored_canvas(mask, count):
    flipped = LinearQuadtree.from_mask(mask, count).flip_horizontal()
    np.testing.assert_array_equal(flipped.to_mask(), mask[:, ::-1])
    canvas = TPyramid.from_mask(np.ascontiguousarray(mask[:, ::-1]), count, origin=flipped.origin)
    assert same(LinearQuadtree.from_pyramid(canvas), flipped)
    for level in range(count):
        np.testing.assert_array_equal(flipped.to_pyramid().level(level), canvas.level(level))
    assert same(flipped.flip_horizontal(), LinearQuadtree.from_mask(mask, count))


@settings(deadline=None)
@given(masks(), st.integers(2, 6), st.booleans(), st.data())
def test_aligned_crop_is_the_crop_of_the_canvas(mask, count, flip, data):
    size = 1 << (count - 1)
    tree = LinearQuadtree.from_mask(mask, count)
    if flip:
        tree = tree.flip_horizontal()
    rows, cols = tree.grid
    y, x = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    h, w = data.draw(st.integers(1, rows)), data.draw(st.integers(1, cols))
    canvas = np.full((rows * size, cols * size), -2, np.int32)
    canvas[: tree.height, tree.origin[1] : tree.origin[1] + tree.width] = tree.to_mask()
    window = canvas[y * size : (y + h) * size, x * size : (x + w) * size]
    inside = np.argwhere(window >= 0)
    part = tree.crop(y * size, x * size, h * size, w * size)
    (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0) + 1
    assert part.origin == (top, left)
    np.testing.assert_array_equal(part.to_mask(), window[top:bottom, left:right])
    expected = TPyramid.from_mask(part.to_mask(), count, origin=part.origin)
    assert same(LinearQuadtree.from_pyramid(expected), part)


def test_a_crop_off_the_grid_or_off_the_image_is_refused():
    tree = LinearQuadtree.from_mask(np.zeros((40, 40), np.uint8))
    with pytest.raises(ValueError, match="multiples of 32"):
        tree.crop(0, 16, 32, 32)
    with pytest.raises(ValueError, match="nothing of the image"):
        tree.crop(64, 0, 32, 32)


@settings(deadline=None)
@given(masks(), levels, st.integers(1, 4))
def test_remap_is_the_tree_of_the_remapped_mask(mask, count, classes):
    table = {int(v): int(v) % classes for v in np.unique(mask)}
    remapped = LinearQuadtree.from_mask(mask, count).remap(table)
    assert same(remapped, LinearQuadtree.from_mask((mask % classes).astype(np.uint8), count))


def test_remap_names_the_ids_that_the_table_lacks():
    tree = LinearQuadtree.from_mask(np.array([[7, 8], [9, 9]], np.uint8))
    with pytest.raises(MaskError, match=r"ids \[7, 9\]"):
        tree.remap({8: 0})
    assert tree.remap({7: 300, 8: 300, 9: 300}).mask_dtype == np.uint16


@settings(deadline=None, max_examples=50)
@given(masks(), levels, st.booleans())
def test_query_agrees_with_the_pyramid(mask, count, flip):
    tree = LinearQuadtree.from_mask(mask, count)
    if flip:
        tree = tree.flip_horizontal()
    pyramid = tree.to_pyramid()
    for level in range(count):
        rows, cols = (side << (count - 1 - level) for side in tree.grid)
        y, x = np.divmod(np.arange(rows * cols), cols)
        np.testing.assert_array_equal(tree.query(level, y, x), pyramid.query(level, y, x))


def test_query_beyond_the_canvas_is_outside():
    tree = LinearQuadtree.from_mask(np.zeros((4, 4), np.uint8), 2)
    assert tree.query(0, [-1, 0, 9], [0, 4, 0]).tolist() == [OUTSIDE] * 3


@settings(deadline=None, max_examples=50)
@given(masks(), levels)
def test_leaves_tile_the_image(mask, count):
    leaves = LinearQuadtree.from_mask(mask, count).leaves()
    painted = np.full(mask.shape, -1, np.int64)
    for level, x, y, value in leaves.tolist():
        cell = painted[y << level : (y + 1) << level, x << level : (x + 1) << level]
        assert (cell == -1).all()
        cell[...] = value
    np.testing.assert_array_equal(painted, mask)


@settings(deadline=None, max_examples=50)
@given(masks(), st.integers(1, 90), st.integers(1, 90))
def test_resample_takes_the_nearest_pixel(mask, height, width):
    out = resample(LinearQuadtree.from_mask(mask), (height, width)).to_mask()
    rows = [int((i + 0.5) * mask.shape[0] / height + 1e-9) for i in range(height)]
    cols = [int((i + 0.5) * mask.shape[1] / width + 1e-9) for i in range(width)]
    np.testing.assert_array_equal(out, mask[np.ix_(rows, cols)])


@settings(deadline=None, max_examples=50)
@given(masks(), st.integers(1, 90), st.integers(1, 90), levels, st.data())
def test_a_resampled_window_is_a_part_of_the_resampled_image(mask, height, width, count, data):
    tree = LinearQuadtree.from_mask(mask, count)
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    h, w = data.draw(st.integers(1, height - y0)), data.draw(st.integers(1, width - x0))
    part = resample(tree, (height, width), (y0, x0, h, w))
    whole = resample(tree, (height, width)).to_mask()
    assert same(part, LinearQuadtree.from_mask(whole[y0 : y0 + h, x0 : x0 + w], count))


def test_a_window_beyond_the_resized_image_is_refused():
    tree = LinearQuadtree.from_mask(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="leaves the image of 8 x 6 pixels"):
        resample(tree, (8, 6), (0, 0, 8, 7))
    with pytest.raises(ValueError, match="expected two positive numbers"):
        resample(tree, (0, 6))


@settings(deadline=None, max_examples=100)
@given(masks(), levels, levels, st.booleans())
def test_a_releveled_tree_is_that_of_the_mask(mask, old, new, flip):
    tree = LinearQuadtree.from_mask(mask, old)
    if flip:
        tree = tree.flip_horizontal()
    releveled = relevel(tree, new)
    assert releveled.origin == tuple(o % (1 << (new - 1)) for o in tree.origin)
    canvas = TPyramid.from_mask(tree.to_mask(), new, origin=releveled.origin)
    assert same(releveled, LinearQuadtree.from_pyramid(canvas))
    if not flip:
        assert same(releveled, LinearQuadtree.from_mask(mask, new))


def test_levels_that_no_tree_has_are_refused():
    with pytest.raises(ValueError, match=r"levels is 11, expected 2\.\.10"):
        relevel(LinearQuadtree.from_mask(np.zeros((4, 4), np.uint8)), 11)


@settings(deadline=None, max_examples=50)
@given(masks(), levels, st.booleans())
def test_class_pixels_are_those_of_the_mask(mask, count, flip):
    tree = LinearQuadtree.from_mask(mask, count)
    if flip:
        tree = tree.flip_horizontal()
    ids, pixels = np.unique(mask, return_counts=True)
    assert tree.class_pixels() == dict(zip(ids.tolist(), pixels.tolist(), strict=True))


@settings(deadline=None, max_examples=50)
@given(masks(), levels, st.data())
def test_a_region_is_a_part_of_its_level(mask, count, data):
    tree = LinearQuadtree.from_mask(mask, count)
    level = data.draw(st.integers(0, count - 1))
    y0 = data.draw(st.integers(0, mask.shape[0] - 1))
    x0 = data.draw(st.integers(0, mask.shape[1] - 1))
    h = data.draw(st.integers(1, mask.shape[0] - y0))
    w = data.draw(st.integers(1, mask.shape[1] - x0))
    size = 1 << level
    whole = tree.to_level(level)[y0 // size : -(-(y0 + h) // size), x0 // size : -(-(x0 + w) // size)]
    np.testing.assert_array_equal(tree.to_level(level, (y0, x0, h, w)), whole)


def test_a_region_beyond_the_image_is_refused():
    tree = LinearQuadtree.from_mask(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="leaves the image of 4 x 4"):
        tree.to_level(0, (0, 0, 5, 1))


def test_composites_have_four_children_in_reading_order():
    tree = LinearQuadtree.from_mask(np.array([[1, 2], [3, 4]], np.uint8), 2)
    assert tree.level(1).tolist() == [COMPOSITE]
    assert tree.level(0).tolist() == [1, 2, 3, 4]
