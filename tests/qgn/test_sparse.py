"""The frontier against brute force, and the submanifold convolution against a masked dense one."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from qgn.data.batch import LabelBatch
from qgn.sparse.conv import SiteBatchNorm, SubMConv3x3, subm_conv3x3
from qgn.sparse.frontier import IGNORE_INDEX, child_nodes, root_nodes
from qgn.sparse.propagation import RULES
from qgn.sparse.sites import pairs_on_device, select_sites, tables_on_device
from quadcodec.pyramid import COMPOSITE, OUTSIDE

from .helpers import VOID, blobs, plain_tree

torch.set_num_threads(1)


def random_descent(share, *, seed=0, grid=(2, 2, 3), labels=None):
    """Yield (nodes, sites) of levels 5..1 with a random share of active cells."""
    generator = torch.Generator().manual_seed(seed)
    nodes, sites = root_nodes(grid, 5, labels=labels), None
    for _ in range(5):
        sites = select_sites(nodes, torch.rand(len(nodes), generator=generator) < share, sites)
        yield nodes, sites
        nodes = child_nodes(nodes, sites, labels)
    yield nodes, None


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
            sites = select_sites(nodes, RULES["gtc"](nodes, None), sites)
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


def test_gtc_without_labels_is_refused():
    with pytest.raises(ValueError, match="pass labels"):
        RULES["gtc"](root_nodes((1, 1, 1), 5), torch.zeros(1, 3))


def dense_conv(x_nc, weight, nodes, sites):
    """Scatter rows to a dense grid, convolve, read the active cells back."""
    batch, rows, cols = nodes.shape
    image, y, x = (part[sites.node_m] for part in nodes.positions())
    dense = x_nc.new_zeros(batch, rows, cols, x_nc.shape[1]).index_put((image, y, x), x_nc)
    return conv2d(dense.permute(0, 3, 1, 2), weight, padding=1)[image, :, y, x]


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_convolution_and_gradients_equal_masked_dense(share):
    torch.manual_seed(2)
    for nodes, sites in random_descent(share, seed=4):
        if sites is None:
            break
        x = torch.randn(len(sites), 3, dtype=torch.float64, requires_grad=True)
        layer = SubMConv3x3(3, 5).double()
        upstream = torch.randn(len(sites), 5, dtype=torch.float64)
        grads = []
        for y in (layer(x, sites), dense_conv(x, layer.weight, nodes, sites)):
            grads.append((y.detach(), *torch.autograd.grad(y, (x, layer.weight), upstream)))
        for sparse, dense in zip(*grads, strict=True):
            torch.testing.assert_close(sparse, dense, rtol=1e-10, atol=1e-10)


def test_convolution_passes_gradcheck():
    *_, (_, sites) = (
        level for level in random_descent(0.6, grid=(2, 1, 2)) if level[1] is not None and 0 < len(level[1]) < 12
    )
    x = torch.randn(len(sites), 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert sum(len(site_p) for site_p, _ in sites.pairs) > 0
    assert torch.autograd.gradcheck(lambda x, w: subm_conv3x3(x, w, sites), (x, weight))
    frozen = weight.detach()
    assert torch.autograd.gradcheck(lambda x: subm_conv3x3(x, frozen, sites), (x,))


def test_convolution_runs_in_the_autocast_type():
    *_, (_, sites), _ = random_descent(0.8)
    layer = SubMConv3x3(8, 8)
    x = torch.randn(len(sites), 8, requires_grad=True)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = layer(x, sites)
        assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
        results.append((y.float(), *torch.autograd.grad(y.float().square().sum(), (x, layer.weight))))
    for full, half in zip(*results, strict=True):
        assert half.dtype == torch.float32
        assert (half - full).norm() < 0.02 * full.norm()


def test_convolution_of_no_site_has_a_zero_gradient():
    nodes = root_nodes((1, 2, 2), 5)
    sites = select_sites(nodes, torch.zeros(4, dtype=torch.bool), None)
    layer = SubMConv3x3(4, 6)
    y = layer(torch.empty(0, 4), sites)
    y.sum().backward()
    assert y.shape == (0, 6)
    assert (layer.weight.grad == 0).all()


def test_a_dense_layers_checkpoint_fits():
    layer, dense = SubMConv3x3(4, 6), torch.nn.Conv2d(4, 6, 3, padding=1, bias=False)
    layer.load_state_dict(dense.state_dict())
    assert torch.equal(layer.weight, dense.weight)
    nodes = root_nodes((1, 4, 5), 5)
    sites = select_sites(nodes, torch.ones(20, dtype=torch.bool), None)
    x = torch.randn(1, 4, 4, 5)
    rows = layer(x.permute(0, 2, 3, 1).reshape(20, 4), sites)
    torch.testing.assert_close(rows.view(1, 4, 5, 6).permute(0, 3, 1, 2), dense(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [0, 1])
def test_batch_norm_of_too_few_rows_uses_running_statistics(rows):
    norm = SiteBatchNorm(3)
    norm(torch.randn(10, 3))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(rows, 3, requires_grad=True)
    y = norm(x)
    y.sum().backward()
    torch.testing.assert_close(y, norm.eval()(x))
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    assert x.grad.isfinite().all()
