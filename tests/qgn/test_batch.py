"""LabelBatch holds every node of every tree, level by level, and nothing dense."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from qgn.data.batch import LabelBatch
from qgn.sparse.frontier import IGNORE_INDEX
from quadcodec.pyramid import COMPOSITE, OUTSIDE

from .helpers import VOID, blobs, plain_tree


def trees_of_three_sizes():
    rng = np.random.default_rng(3)
    trees = [plain_tree(blobs(rng, *size, classes=5)) for size in ((64, 96), (33, 40))]
    return [*trees, plain_tree(blobs(rng, 70, 25, classes=5), origin=(26, 7))]


def as_targets(values):
    return [IGNORE_INDEX if v in (VOID, OUTSIDE) else 0 if v == COMPOSITE else int(v) + 1 for v in values]


def test_levels_hold_the_trees_nodes_in_image_order():
    trees = trees_of_three_sizes()
    batch = LabelBatch.from_trees(trees)
    assert batch.targets_n.is_contiguous()
    assert batch.targets_n.dtype == torch.int16
    for level in range(5):
        expected = [target for tree in trees for target in as_targets(tree.level(level))]
        assert batch.level(level).tolist() == expected
        assert len(expected) == 4 * int((batch.level(level + 1) == 0).sum())
    assert batch.level(0).data_ptr() >= batch.targets_n.data_ptr()  # a view, not a copy
    assert sum(batch.counts) == len(batch.targets_n)
    assert batch.sizes == ((64, 96), (33, 40), (70, 25))
    assert batch.origins == ((0, 0), (0, 0), (26, 7))
    assert batch.boxes_b4.tolist() == [[0, 0, 64, 96], [0, 0, 33, 40], [26, 7, 96, 32]]
    assert batch.padded
    assert not LabelBatch.from_trees(trees[:1]).padded
    assert len(batch) == 3
    assert batch.levels == 6


def test_smaller_canvases_are_padded_with_ignored_cells():
    trees = trees_of_three_sizes()
    batch = LabelBatch.from_trees(trees)
    assert batch.grid == (3, 3, 3)
    top = batch.level(5).view(batch.grid)
    for image, tree in enumerate(trees):
        rows, cols = tree.grid
        assert top[image, :rows, :cols].flatten().tolist() == as_targets(tree.level(5))
        assert (top[image, rows:] == IGNORE_INDEX).all()
        assert (top[image, :, cols:] == IGNORE_INDEX).all()


def test_uniform_trees_have_empty_finer_levels():
    batch = LabelBatch.from_trees([plain_tree(np.full((32, 64), 2))] * 2)
    assert batch.counts == (4, 0, 0, 0, 0, 0)
    assert batch.level(5).tolist() == [3] * 4
    assert batch.level(0).shape == (0,)


def test_levels_outside_the_tree_and_mixed_trees_are_refused():
    batch = LabelBatch.from_trees([plain_tree(np.zeros((32, 32), int))])
    with pytest.raises(IndexError, match="level 6 is outside"):
        batch.level(6)
    with pytest.raises(ValueError, match="found 4, 6"):
        LabelBatch.from_trees([plain_tree(np.zeros((32, 32), int), levels) for levels in (6, 4)])
    with pytest.raises(ValueError, match="found none"):
        LabelBatch.from_trees([])


def test_a_batch_travels_as_one_tensor():
    batch = LabelBatch.from_trees(trees_of_three_sizes())
    moved = batch.to("meta", non_blocking=True)
    assert moved.targets_n.device.type == "meta"
    assert (moved.counts, moved.grid, moved.sizes) == (batch.counts, batch.grid, batch.sizes)
    again = pickle.loads(pickle.dumps(batch))
    assert torch.equal(again.targets_n, batch.targets_n)
    with pytest.raises(AttributeError):
        batch.grid = (1, 1, 1)


def test_a_data_loader_collates_trees():
    trees = trees_of_three_sizes()
    batches = list(DataLoader(trees, batch_size=2, collate_fn=LabelBatch.from_trees))
    assert [len(batch) for batch in batches] == [2, 1]


@pytest.mark.gpu
def test_a_data_loader_pins_a_batch():
    loader = DataLoader(trees_of_three_sizes(), 3, collate_fn=LabelBatch.from_trees, pin_memory=True)
    (batch,) = loader
    assert batch.targets_n.is_pinned()
