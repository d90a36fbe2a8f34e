"""The submanifold convolution, by every backend, and the layers around it against plain torch."""

import sys
import types
import warnings

import pytest
import torch
import torch.nn.functional as fn
from torch.nn.functional import conv2d

from qgn.errors import TrainingError
from qgn.sparse import backends, im2col, pairs
from qgn.sparse.backends import load_backend
from qgn.sparse.conv import SiteBatchNorm, SubMConv3x3, subm_conv
from qgn.sparse.frontier import root_nodes
from qgn.sparse.fused import linear, norm_relu, norm_relu_conv
from qgn.sparse.recompute import recomputed
from qgn.sparse.sites import select_sites

from .helpers import random_descent


def levels_of(share, **how):
    return [sites for _, sites in random_descent(share, **how) if sites is not None]


def dense_conv(x_nc, weight, sites):
    """Scatter rows to a dense grid, convolve, read the active cells back."""
    batch, rows, cols = sites.shape
    image, y, x = sites.positions()
    dense = x_nc.new_zeros(batch, rows, cols, x_nc.shape[1]).index_put((image, y, x), x_nc)
    return conv2d(dense.permute(0, 3, 1, 2), weight, padding=1)[image, :, y, x]


@pytest.fixture
def im2col_here(monkeypatch):
    """What `native` runs on CUDA, under a name of its own and in blocks of few rows."""
    monkeypatch.setitem(backends._MODULES, "im2col", "im2col")
    monkeypatch.setattr(im2col, "BLOCK_BYTES", 9 * 3 * 8 * 100)


@pytest.fixture
def pairs_here(monkeypatch):
    """What `native` runs on the CPU, under a name of its own and in blocks of few rows."""
    monkeypatch.setitem(backends._MODULES, "pairs", "pairs")
    monkeypatch.setattr(pairs, "BLOCK", 100)


@pytest.fixture
def triton_here(monkeypatch):
    """The three functions of the Triton kernels, written with a gather; test_triton.py tests the kernels."""

    def gathered(x_ni, nbr_9n):
        return torch.cat([x_ni, x_ni.new_zeros(1, x_ni.shape[1])])[nbr_9n.long()]  # -1 is the row of zeros

    def forward(x_ni, weight_9io, nbr_9n):
        return torch.einsum("kni,kio->no", gathered(x_ni, nbr_9n), weight_9io)

    def input_gradient(dy_no, weight_9io, nbr_9n):
        return torch.einsum("kno,kio->ni", gathered(dy_no, nbr_9n), weight_9io.flip(0))

    def weight_gradient(x_ni, dy_no, nbr_9n):
        return torch.einsum("kni,no->kio", gathered(x_ni, nbr_9n), dy_no)

    kernels = types.ModuleType("triton_conv")
    vars(kernels).update(forward=forward, input_gradient=input_gradient, weight_gradient=weight_gradient)
    adapter = "qgn.sparse.triton_adapter"
    monkeypatch.setitem(sys.modules, "qgn.sparse.triton_conv", kernels)
    before = sys.modules.pop(adapter, None)
    yield
    sys.modules.pop(adapter, None)
    if before is not None:
        sys.modules[adapter] = before


@pytest.fixture
def spconv_here():
    pytest.importorskip("spconv", reason="spconv is not installed", exc_type=ImportError)
    if torch.cuda.is_available():
        pytest.skip("this build of spconv computes on CUDA; its agreement is tested on the CPU")
    load_backend("spconv")


WHICH = ["native", "pairs", "im2col", "triton", "dense", "spconv"]


@pytest.fixture
def backend(request):
    """The name of a backend, made ready."""
    if request.param in ("pairs", "im2col", "triton", "spconv"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # spconv's imports warn
            request.getfixturevalue(f"{request.param}_here")
    return request.param


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("backend", WHICH, indirect=True)
def test_convolution_and_gradients_equal_masked_dense(backend, share):
    torch.manual_seed(2)
    for sites in levels_of(share, seed=4):
        x = torch.randn(len(sites), 3, dtype=torch.float64, requires_grad=True)
        layer = SubMConv3x3(3, 5, backend=backend).double()
        upstream = torch.randn(len(sites), 5, dtype=torch.float64)
        grads = []
        for y in (layer(x, sites), dense_conv(x, layer.weight, sites)):
            grads.append((y.detach(), *torch.autograd.grad(y, (x, layer.weight), upstream)))
        for sparse, dense in zip(*grads, strict=True):
            torch.testing.assert_close(sparse, dense, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", WHICH, indirect=True)
@pytest.mark.parametrize("count", [0, 1])
def test_levels_of_one_site_and_of_none(backend, count):
    nodes = root_nodes((1, 3, 3), 5)
    sites = select_sites(nodes, torch.arange(9) == (4 if count else 9), None)
    x = torch.randn(count, 4, requires_grad=True)
    layer = SubMConv3x3(4, 6, backend=backend)
    y = layer(x, sites)
    y.sum().backward()
    torch.testing.assert_close(y, x @ layer.weight[:, :, 1, 1].T)
    expected = torch.zeros(6, 4, 3, 3)
    expected[:, :, 1, 1] = x.detach().sum(0)
    torch.testing.assert_close(layer.weight.grad, expected)


@pytest.mark.parametrize("backend", ["native", "im2col", "dense"], indirect=True)
def test_convolution_is_deterministic(backend):
    *_, sites = levels_of(0.7)
    x = torch.randn(len(sites), 16, requires_grad=True)
    layer = SubMConv3x3(16, 16, backend=backend)
    runs = []
    for _ in range(2):
        y = layer(x, sites)
        runs.append((y, *torch.autograd.grad(y.square().sum(), (x, layer.weight))))
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["native", "im2col"], indirect=True)
def test_convolution_in_every_type_is_near_float64(backend, dtype):
    torch.manual_seed(0)
    *_, sites = levels_of(0.8)
    inputs = [torch.randn(len(sites), 8), torch.randn(12, 8, 3, 3), torch.randn(len(sites), 12)]
    results = []
    for kind in (torch.float64, dtype):
        x, weight, upstream = (part.to(dtype).to(kind) for part in inputs)
        y = subm_conv(x.requires_grad_(), weight.requires_grad_(), sites, backend=backend)
        results.append((y.detach(), *torch.autograd.grad(y, (x, weight), upstream)))
    for exact, rounded in zip(*results, strict=True):
        assert rounded.dtype == dtype
        assert (rounded - exact).norm() < 4 * torch.finfo(dtype).eps * exact.norm()


def test_pairs_add_shorter_types_in_float32(monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK", 5)
    sites = select_sites(root_nodes((1, 20, 30), 5), torch.ones(600, dtype=torch.bool), None)
    for dtype in (torch.bfloat16, torch.float16):
        weight = torch.ones(9, 1, 1, dtype=dtype)
        ones, weight[4] = torch.ones(600, 1, dtype=dtype), 2 / torch.finfo(dtype).eps
        for sums in (pairs.forward(ones, weight, sites), pairs.gradients(ones, ones, weight, sites, (True, False))[0]):
            assert sums.dtype == dtype
            assert sums.max() == weight[4] + 8  # one at a time, each would be rounded away
        _, dw_9io = pairs.gradients(ones, ones, weight, sites, (False, True))
        assert dw_9io.dtype == torch.float32
        assert torch.equal(dw_9io.view(3, 3), torch.outer(torch.tensor([19.0, 20, 19]), torch.tensor([29.0, 30, 29])))


def test_backends_that_cannot_run_say_so(monkeypatch):
    with pytest.raises(ValueError, match="unknown backend 'cudnn': choose one of native, spconv, triton, dense"):
        load_backend("cudnn")
    for module in ("qgn.sparse.triton_adapter", "qgn.sparse.triton_conv"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(TrainingError, match=r"'triton' is not installed: found no module triton\. Install it"):
        load_backend("triton")
    assert load_backend("native").describe("cpu") == "pairs of neighbours"


def test_convolution_passes_gradcheck():
    *_, sites = (sites for sites in levels_of(0.6, grid=(2, 1, 2)) if 0 < len(sites) < 12)
    x = torch.randn(len(sites), 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert sum(len(site_p) for site_p, _ in sites.pairs) > 0
    assert torch.autograd.gradcheck(lambda x, w: subm_conv(x, w, sites), (x, weight))
    frozen = weight.detach()
    assert torch.autograd.gradcheck(lambda x: subm_conv(x, frozen, sites), (x,))


def test_convolution_runs_in_the_autocast_type():
    *_, sites = levels_of(0.8)
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


def plain_norm_relu(x, norm):
    return fn.relu(norm(x))


def agree(mine, theirs, inputs, tolerance=1e-10):
    """Compare values and gradients of two functions of the same inputs."""
    results = []
    for function in (mine, theirs):
        y = function()
        upstream = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        results.append((y.detach(), *torch.autograd.grad(y, inputs, upstream)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.7])
def test_layers_that_save_less_compute_the_same(share, training):
    torch.manual_seed(1)
    *_, sites = levels_of(share, seed=3)
    norms = [SiteBatchNorm(4).double().train(training) for _ in range(2)]
    for norm in norms:
        norm.weight.data = torch.tensor([0.5, -1.0, 1.5, 2.0], dtype=torch.float64)
        norm.bias.data = torch.linspace(-1, 1, 4, dtype=torch.float64)
        norm.running_mean += 0.3
        norm.running_var *= 2
    norms[1].weight, norms[1].bias = norms[0].weight, norms[0].bias
    conv = SubMConv3x3(4, 5).double()
    x = torch.randn(len(sites), 4, dtype=torch.float64, requires_grad=True)
    inputs = (x, norms[0].weight, norms[0].bias)
    agree(lambda: norm_relu(x, norms[0]), lambda: plain_norm_relu(x, norms[1]), inputs)
    agree(
        lambda: norm_relu_conv(x, norms[0], conv, sites),
        lambda: conv(plain_norm_relu(x, norms[1]), sites),
        (*inputs, conv.weight),
    )
    for one, other in zip(norms[0].buffers(), norms[1].buffers(), strict=True):
        torch.testing.assert_close(one, other)
    assert int(norms[0].num_batches_tracked) == (2 if training and len(sites) > 1 else 0)


def test_rows_are_gathered_as_they_are_multiplied():
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    row = torch.tensor([7, 2, 5])
    agree(lambda: linear(x, weight, row), lambda: x[row] @ weight.T, (x, weight))
    agree(lambda: linear(x, weight), lambda: x @ weight.T, (x, weight))
    assert torch.autograd.gradcheck(lambda x, weight: linear(x, weight, row), (x, weight))


@pytest.mark.parametrize("of", ["norm_relu", "norm_relu_conv", "linear"])
def test_only_the_input_is_saved(of):
    *_, sites = levels_of(0.7)
    norm, conv = SiteBatchNorm(4), SubMConv3x3(4, 4)
    x = torch.randn(2 * len(sites), 4, requires_grad=True)
    layer = {
        "norm_relu": lambda: norm_relu(x[: len(sites)], norm),
        "norm_relu_conv": lambda: norm_relu_conv(x[: len(sites)], norm, conv, sites),
        "linear": lambda: linear(x, norm.weight[None], sites.node_m),
    }[of]
    saved = []

    def keep(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer()
    rows = [tensor for tensor in saved if tensor.is_floating_point() and tensor.numel() > conv.weight.numel()]
    assert [tensor.data_ptr() for tensor in rows] == [x.data_ptr()]


def test_recomputing_keeps_running_statistics():
    layer = torch.nn.Sequential(torch.nn.Linear(3, 3), SiteBatchNorm(3)).double()
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    agree(lambda: recomputed(layer, [layer], x), lambda: layer(x), (x, *layer.parameters()))
    assert int(layer[1].num_batches_tracked) == 2
