"""Rasters of label trees against the masks that the trees were made of."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import quadcodec
from qgn.data.batch import LabelBatch
from qgn.data.classes import class_map, count_pixels
from qgn.sparse.frontier import IGNORE_INDEX
from qgn.sparse.raster import rasterise

from .helpers import VOID, blobs, plain_tree


def canvas(masks, origins, grid):
    """Return the masks where they lie in the batch's canvas, IGNORE_INDEX around them."""
    expected = np.full((len(masks), 32 * grid[1], 32 * grid[2]), IGNORE_INDEX)
    for image, mask, (y, x) in zip(expected, masks, origins, strict=True):
        image[y : y + mask.shape[0], x : x + mask.shape[1]] = np.where(mask == VOID, IGNORE_INDEX, mask.astype(int))
    return expected


@st.composite
def images(draw):
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["blobs", "noise", "uniform", "void"]))
    if kind == "blobs":
        mask = blobs(rng, height, width, classes=5)
    elif kind == "noise":
        mask = rng.choice([0, 1, VOID], (height, width))
    else:
        mask = np.full((height, width), VOID if kind == "void" else 3)
    return mask, (draw(st.integers(0, 31)), draw(st.integers(0, 31)))


@settings(max_examples=60, deadline=None)
@given(st.lists(images(), min_size=1, max_size=3))
def test_a_raster_is_the_masks_at_their_places(drawn):
    masks, origins = zip(*drawn, strict=True)
    labels = LabelBatch.from_trees([plain_tree(mask, origin=origin) for mask, origin in drawn])
    raster = rasterise(labels)
    assert raster.dtype == torch.int64
    np.testing.assert_array_equal(raster.numpy(), canvas(masks, origins, labels.grid))


def test_rasters_of_trees_of_other_depths():
    mask = blobs(np.random.default_rng(0), 20, 13, classes=3)
    for levels in (1, 4):
        labels = LabelBatch.from_trees([plain_tree(mask, levels)])
        raster = rasterise(labels)[0, :20, :13].numpy()
        np.testing.assert_array_equal(raster, np.where(mask == VOID, IGNORE_INDEX, mask))


def test_rasters_of_flipped_and_cropped_scenes(scenes):
    store = quadcodec.open(scenes)
    classes = class_map(store, count_pixels(store, range(len(store))))
    trees = [store.quadtree(index).remap(classes.table) for index in range(4)]
    trees = [*trees[:2], trees[2].flip_horizontal().crop(32, 0, 32, 96), trees[3].crop(0, 32, 64, 64)]
    labels = LabelBatch.from_trees(trees)
    np.testing.assert_array_equal(
        rasterise(labels).numpy(), canvas([t.to_mask() for t in trees], [t.origin for t in trees], labels.grid)
    )


def test_lengths_are_known_beforehand():
    """On the meta device nothing can be asked of the data."""
    labels = LabelBatch.from_trees([plain_tree(blobs(np.random.default_rng(1), 40, 70, classes=3))] * 2).to("meta")
    assert rasterise(labels).shape == (2, 64, 96)
