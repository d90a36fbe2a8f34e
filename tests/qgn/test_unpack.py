"""Trees unpacked in torch are those that the kernels decode."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qgn.data.batch import VOID, LabelBatch, stack
from qgn.data.unpack import Canvas, Packing, unpack
from qgn.sparse.frontier import IGNORE_INDEX
from quadcodec import LinearQuadtree, fast
from quadcodec.masks import read_mask
from quadcodec.pyramid import COMPOSITE, OUTSIDE

from ..strategies import levels, masks


def node_values(data, packing, canvas):
    """Return the node values of each level, coarse to fine."""
    labels_k, symbols = unpack(torch.frombuffer(bytearray(data), dtype=torch.uint8), packing, canvas)
    table = np.full(packing.outside + 1, COMPOSITE)
    table[: len(labels_k)] = labels_k
    table[packing.outside] = OUTSIDE
    return [table[symbols_n.numpy()] for symbols_n in symbols]


@settings(deadline=None, max_examples=150)
@given(masks(), levels)
def test_the_sections_of_a_record_give_its_nodes(mask, count):
    tree = LinearQuadtree.from_mask(mask, count)
    record = fast.encode(tree)
    decoded = fast.decode(record)
    sections = fast.read_sections(record, fast.read_layout(record))
    packing = Packing.of(fast.pack_sections(tree), tree)
    canvas = Canvas((1, *tree.grid), torch.tensor([[0, 0, *mask.shape]]))
    for depth, values in enumerate(node_values(b"".join(sections), packing, canvas)):
        np.testing.assert_array_equal(values, decoded.level(count - 1 - depth))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(masks(), st.booleans()), min_size=2, max_size=4), levels)
def test_a_batch_gives_the_nodes_of_its_trees(pairs, count):
    trees = [LinearQuadtree.from_mask(mask, count) for mask, _ in pairs]
    trees = [tree.flip_horizontal() if flip else tree for tree, (_, flip) in zip(trees, pairs, strict=True)]
    dtype = np.result_type(*(tree.nodes.dtype for tree in trees))
    forest, grid = stack(trees, dtype)
    packed = fast.pack_sections(forest)
    boxes = [(y, x, y + t.height, x + t.width) for t in trees for y, x in [t.origin]]
    canvas = Canvas(grid, torch.tensor(boxes))
    found = node_values(b"".join(packed.sections), Packing.of(packed, forest), canvas)
    for depth, values in enumerate(found):
        np.testing.assert_array_equal(values, forest.level(count - 1 - depth))
        if depth:
            expected = np.concatenate([tree.level(count - 1 - depth) for tree in trees])
            np.testing.assert_array_equal(values, expected)


@settings(deadline=None, max_examples=50)
@given(st.lists(masks(), min_size=1, max_size=3), levels)
def test_targets_are_channels_of_the_nodes(drawn, count):
    trees = [LinearQuadtree.from_mask((mask % 6 * 51).astype(np.uint8), count) for mask in drawn]
    batch = LabelBatch.from_trees(trees)
    for level in range(count - 1):
        values = np.concatenate([tree.level(level) for tree in trees])
        expected = np.where((values == VOID) | (values == OUTSIDE), IGNORE_INDEX, values + 1)
        np.testing.assert_array_equal(batch.level(level).numpy(), expected)


def test_no_length_depends_on_what_is_read():
    rng = np.random.default_rng(0)
    trees = [LinearQuadtree.from_mask(rng.integers(0, 3, size).astype(np.uint8)) for size in ((40, 70), (64, 33))]
    batch = LabelBatch.from_trees(trees)
    unread = batch.to("meta")  # holds shapes only: an operation that had to look at a value would fail
    for level in range(6):
        assert unread.level(level).shape == batch.level(level).shape


def test_packed_labels_of_street_scenes_are_below_two_percent_of_the_masks(real_data):
    files = sorted(real_data.glob("cityscapes/gtFine/*/*/*_labelIds.png"))[:4]
    found = [read_mask(file) for file in files]
    batch = LabelBatch.from_trees([LinearQuadtree.from_mask(mask) for mask in found])
    assert len(batch.data_n) < 0.02 * sum(mask.size for mask in found)


@pytest.mark.gpu
def test_a_gpu_unpacks_the_same():
    rng = np.random.default_rng(0)
    trees = [LinearQuadtree.from_mask(rng.integers(0, 9, size).astype(np.uint8)) for size in ((400, 700), (640, 333))]
    batch = LabelBatch.from_trees(trees)
    assert torch.equal(batch.to("cuda").targets_n.cpu(), batch.targets_n)
