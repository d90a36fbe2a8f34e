"""The frontier and the neighbour tables against brute force."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qgn.data.batch import LabelBatch
from qgn.sparse.frontier import COMPOSITE_CHANNEL, IGNORE_INDEX, child_nodes, root_nodes
from qgn.sparse.sites import pairs_on_device, select_sites, tables_on_device
from quadcodec.pyramid import COMPOSITE, OUTSIDE

from .helpers import VOID, blobs, plain_tree, random_descent

torch.set_num_threads(1)


def cells_of(nodes, index):
    return list(zip(*(part[index].tolist() for part in nodes.positions()), strict=True))


descents = st.fixed_dictionaries(
    {
        "share": st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.8, 1.0]),
        "seed": st.integers(0, 2**32),
        "grid": st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    }
)


@settings(max_examples=25, deadline=None)
@given(descents)
def test_neighbour_tables_equal_brute_force(descent):
    parents = None
    for nodes, sites in random_descent(**descent):
        if sites is None or nodes.level < 2:
            break
        cells = cells_of(nodes, sites.node_m)
        assert list(zip(*(part.tolist() for part in sites.positions()), strict=True)) == cells
        where = {cell: site for site, cell in enumerate(cells)}
        for k in range(9):
            dy, dx = k // 3 - 1, k % 3 - 1
            expected = [where.get((b, y + dy, x + dx), -1) for b, y, x in cells]
            assert sites.nbr_9m[k].tolist() == expected
        for k, (site_p, near_p) in enumerate(sites.pairs):
            present = [(i, j) for i, j in enumerate(sites.nbr_9m[k].tolist()) if j >= 0]
            assert list(zip(site_p.tolist(), near_p.tolist(), strict=True)) == present
        parents = sites
    assert parents is not None


@settings(max_examples=25, deadline=None)
@given(descents)
def test_the_device_path_makes_the_same_structure(descent):
    parents = None
    for nodes, sites in random_descent(**descent):
        if sites is None:
            break
        active_n = torch.zeros(len(nodes), dtype=torch.bool).index_fill(0, sites.node_m, True)
        for made, expected in zip(
            (*tables_on_device(nodes.shape, active_n, parents), *itertools.chain(*pairs_on_device(sites))),
            (sites.node_m, sites.nbr_9m, *itertools.chain(*sites.pairs)),
            strict=True,
        ):
            assert made.dtype == expected.dtype
            assert torch.equal(made, expected)
        parents = sites


def test_structure_is_made_once():
    *_, (_, sites), _ = random_descent(0.5)
    assert sites.pairs is sites.pairs


def test_children_stand_in_site_order_inside_their_parent():
    previous = None
    for nodes, sites in random_descent(0.6):
        if previous is not None:
            expected = [(b, 2 * y + dy, 2 * x + dx) for b, y, x in previous for dy in (0, 1) for dx in (0, 1)]
            assert cells_of(nodes, slice(None)) == expected
        if sites is not None:
            previous = cells_of(nodes, sites.node_m)
    assert nodes.level == 0
    assert nodes.shape == (2, 64, 96)


def test_one_lonely_site_has_no_neighbour_but_itself():
    nodes = root_nodes((1, 3, 3), 5)
    sites = select_sites(nodes, torch.arange(9) == 4, None)
    children = child_nodes(nodes, sites, None)
    below = select_sites(children, torch.tensor([False, False, True, False]), sites)
    for one in (sites, below):
        assert one.nbr_9m[:, 0].tolist() == [-1] * 4 + [0] + [-1] * 4


def batch_of_trees(seed=1):
    rng = np.random.default_rng(seed)
    masks = [blobs(rng, *size, classes=4) for size in ((64, 96), (50, 40), (20, 61))]
    trees = [plain_tree(masks[0]), plain_tree(masks[1]), plain_tree(masks[2], origin=(7, 3))]
    return trees, LabelBatch.from_trees(trees)


def query(trees, level, image, y, x):
    """Look a cell up in the dense pyramid (Eq. 5)."""
    rows, cols = trees[image].pyramid[level].shape
    value = trees[image].pyramid[level][y, x] if y < rows and x < cols else OUTSIDE
    if value in (VOID, OUTSIDE):
        return IGNORE_INDEX
    return 0 if value == COMPOSITE else value + 1


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_targets_below_leaves_equal_the_pyramid_query(share):
    trees, labels = batch_of_trees()
    for nodes, _ in random_descent(share, grid=labels.grid, labels=labels):
        expected = [query(trees, nodes.level, *cell) for cell in cells_of(nodes, slice(None))]
        assert nodes.target_n.tolist() == expected
        truth_n = nodes.truth_n
        assert torch.equal(labels.level(nodes.level)[truth_n[truth_n >= 0]].long(), nodes.target_n[truth_n >= 0])


def test_under_gtc_the_labels_nodes_are_the_targets():
    trees, labels = batch_of_trees()
    nodes, sites = root_nodes(labels.grid, 5, labels=labels, follow_truth=True), None
    for level in range(5, -1, -1):
        assert torch.equal(nodes.target_n, labels.level(level).long())
        expected = [query(trees, level, *cell) for cell in cells_of(nodes, slice(None))]
        assert nodes.target_n.tolist() == expected
        if level:
            sites = select_sites(nodes, nodes.target_n == COMPOSITE_CHANNEL, sites)
            nodes = child_nodes(nodes, sites, labels)


def test_sites_that_break_the_promise_to_follow_the_truth_are_refused():
    _, labels = batch_of_trees()
    nodes = root_nodes(labels.grid, 5, labels=labels, follow_truth=True)
    sites = select_sites(nodes, torch.ones(len(nodes), dtype=torch.bool), None)
    with pytest.raises(ValueError, match="follow_truth=False"):
        child_nodes(nodes, sites, labels)


def test_labels_of_another_grid_are_refused():
    _, labels = batch_of_trees()
    with pytest.raises(ValueError, match=r"\(3, 2, 3\).*\(3, 2, 2\)"):
        root_nodes((3, 2, 2), 5, labels=labels)
