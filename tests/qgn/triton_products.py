"""The Triton kernels' products against dense convolution. test_triton.py runs this file, in another process.

They run in Triton's interpreter under TRITON_INTERPRET=1, which must be set before Triton is imported, else on CUDA.
"""

import numpy as np
import pytest
import torch
import triton.runtime.interpreter as interpreter

from qgn.sparse import triton_conv
from qgn.sparse.conv import SubMConv3x3, subm_conv
from qgn.sparse.frontier import root_nodes
from qgn.sparse.sites import Sites, select_sites

from .test_conv import dense_conv, levels_of

pytestmark = [  # what numpy says in the interpreter: of infinities; of Triton 3.6
    pytest.mark.filterwarnings("ignore:.*in matmul:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
]

DEVICE = "cpu" if triton_conv.INTERPRETED else "cuda"
# Channels in and out: two tiles of one or the other, the second in part.
KINDS = [(torch.float64, 35, 20), (torch.float32, 20, 70), (torch.float16, 70, 20), (torch.bfloat16, 20, 130)]


@pytest.fixture(autouse=True)
def _bfloat16_products(monkeypatch):
    """Mend the interpreter, which keeps bfloat16 as uint16 and multiplies it as integers (Triton 3.6 to 3.9)."""
    create_dot = interpreter.InterpreterBuilder.create_dot

    def widened(part):
        if part.dtype.scalar != triton_conv.tl.bfloat16:
            return part
        return interpreter.TensorHandle((part.data.astype(np.uint32) << 16).view(np.float32), triton_conv.tl.float32)

    monkeypatch.setattr(
        interpreter.InterpreterBuilder,
        "create_dot",
        lambda self, a, b, *rest: create_dot(self, widened(a), widened(b), *rest),
    )


def move(sites):
    return Sites(sites.shape, sites.cell_m.to(DEVICE), sites.node_m.to(DEVICE), sites.nbr_9m.to(DEVICE))


@pytest.fixture(scope="module")
def patchwork():
    """Three tiles of sites, the last in part: an image of cells that do not touch, then one of random cells."""
    active_bhw = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.4
    active_bhw[0] = False
    active_bhw[0, ::2, ::2] = True
    nodes = root_nodes((2, 16, 16), 5)
    sites = move(select_sites(nodes, active_bhw.flatten(), None))
    assert 2 * triton_conv.SITES < len(sites) < 3 * triton_conv.SITES
    assert (sites.nbr_9m[:4, : triton_conv.SITES] < 0).all()
    return sites


def results(convolve, x, weight, upstream):
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = convolve(x, weight)
    return y.detach(), *torch.autograd.grad(y, (x, weight), upstream)


def by(backend, sites):
    return lambda x, weight: subm_conv(x, weight, sites, backend=backend)


@pytest.mark.parametrize(("dtype", "i", "o"), KINDS)
def test_products_equal_dense_and_native(dtype, i, o, patchwork):
    torch.manual_seed(0)
    shapes = (len(patchwork), i), (o, i, 3, 3), (len(patchwork), o)
    inputs = [torch.randn(shape, dtype=torch.float64, device=DEVICE).to(dtype) for shape in shapes]
    exact = results(lambda x, w: dense_conv(x, w, patchwork), *(part.double() for part in inputs))
    native = results(by("native", patchwork), *inputs)
    for mine, theirs, truth in zip(results(by("triton", patchwork), *inputs), native, exact, strict=True):
        assert mine.dtype == dtype
        assert (mine - truth).norm() < 4 * torch.finfo(dtype).eps * truth.norm()
        assert (mine - theirs).double().norm() < 6 * torch.finfo(dtype).eps * truth.norm()


def test_products_equal_dense_on_every_level_of_a_tree():
    torch.manual_seed(2)
    for sites in map(move, levels_of(0.6, seed=4, grid=(2, 1, 2))):
        layer = SubMConv3x3(3, 5, backend="triton").double().to(DEVICE)
        x, upstream = (torch.randn(len(sites), c, dtype=torch.float64, device=DEVICE) for c in (3, 5))
        exact = results(lambda x, w, sites=sites: dense_conv(x, w, sites), x, layer.weight, upstream)
        for mine, truth in zip(results(by("triton", sites), x, layer.weight, upstream), exact, strict=True):
            torch.testing.assert_close(mine, truth, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [0, 1])
def test_levels_of_one_site_and_of_none(count):
    sites = move(select_sites(root_nodes((1, 3, 3), 5), torch.arange(9) == (4 if count else 9), None))
    x, upstream = torch.randn(count, 4, device=DEVICE), torch.randn(count, 6, device=DEVICE)
    weight = torch.randn(6, 4, 3, 3, device=DEVICE)
    y, dx, dw = results(by("triton", sites), x, weight, upstream)
    torch.testing.assert_close(y, x @ weight[:, :, 1, 1].T)
    torch.testing.assert_close(dx, upstream @ weight[:, :, 1, 1])
    expected = torch.zeros_like(weight)
    expected[:, :, 1, 1] = upstream.T @ x
    torch.testing.assert_close(dw, expected)


def test_places_without_neighbours_are_skipped(patchwork):
    """An infinite weight would make NaN of the zeros that stand for absent neighbours."""
    first = slice(0, triton_conv.SITES)
    weight_9io = torch.full((9, 16, 16), torch.inf, device=DEVICE)
    weight_9io[4] = 1
    rows = torch.ones(len(patchwork), 16, device=DEVICE)
    for product in (triton_conv.forward, triton_conv.input_gradient):
        y = product(rows, weight_9io, patchwork.nbr_9m)
        torch.testing.assert_close(y[first], torch.full_like(y[first], 16.0))
        assert not y.isfinite().all()


@pytest.mark.parametrize("programs", [9, 18, 1024])
def test_weight_gradient_split_in_any_number_of_parts(programs, patchwork, monkeypatch):
    monkeypatch.setattr(triton_conv, "PROGRAMS", programs)
    rows = torch.arange(len(patchwork), dtype=torch.float64, device=DEVICE)
    x, dy = (rows[:, None] + torch.arange(c, device=DEVICE) for c in (2, 3))
    near = patchwork.nbr_9m.long()
    present = torch.cat([x, x.new_zeros(1, 2)])[near]
    expected = torch.einsum("kni,no->kio", present, dy)
    assert torch.equal(triton_conv.weight_gradient(x, dy, patchwork.nbr_9m), expected)


def test_the_same_input_gives_the_same_bits(patchwork):
    x, upstream = (torch.randn(len(patchwork), 8, device=DEVICE) for _ in range(2))
    weight = torch.randn(8, 8, 3, 3, device=DEVICE)
    runs = [results(by("triton", patchwork), x, weight, upstream) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
