"""The three products of the submanifold convolution as Triton kernels for CUDA.

A kernel gathers rows through the neighbour table as it multiplies them: neither gathered rows nor pairs go to
memory. Sums are taken in float32 (float64 for float64), float32 is multiplied in full, not as TF32, and nothing is
added by atomics: the same input gives the same bits. The tile sizes are fixed and have not been tuned. The kernels
have been checked in Triton's interpreter and compiled for sm_90; they have not run on a GPU yet.

Shapes: n sites, i and o channels, 9 places of a 3x3 neighbourhood in row-major order. Neighbour tables are
(9, n) int32, -1 where there is no site, and symmetric (`Sites.nbr_9m`). Rows and weights have one dtype:
float16, bfloat16, float32 or float64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from qgn.errors import TrainingError

SITES = 64
"""Sites of a tile: the rows of a Hopper warp group's product. Larger tiles skip fewer places."""
PROGRAMS = 1024
"""Programs among which a weight gradient is split, where there are sites enough: about 8 for each of 132 processors."""


@triton.jit(do_not_specialize=["n"])
def gather_multiply(
    x_ptr, weight_ptr, nbr_ptr, y_ptr, n, i, o, place_stride, i_stride, o_stride,
    TURNED: tl.constexpr, TILE_N: tl.constexpr, TILE_I: tl.constexpr, TILE_O: tl.constexpr,
):  # fmt: skip
    """Compute a tile of y[s] = sum over places k of x[nbr[k, s]] @ weight[k], or with weight[8 - k] if TURNED."""
    site_n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    o_o = tl.program_id(1) * TILE_O + tl.arange(0, TILE_O)
    # The places where any site of the tile has a neighbour, four bits each: Triton pipelines a flat loop over these
    # and the channels, and would not pipeline one with a branch for absent places.
    places = tl.full((), 0, tl.int64)
    count = tl.full((), 0, tl.int32)
    for k in tl.static_range(9):
        nbr_n = tl.load(nbr_ptr + k * n + site_n, mask=site_n < n, other=-1)
        present = (tl.max(nbr_n, 0) >= 0).to(tl.int32)
        places |= (present * k).to(tl.int64) << (4 * count).to(tl.int64)
        count += present
    blocks = tl.cdiv(i, TILE_I)
    kind: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    sum_no = tl.zeros((TILE_N, TILE_O), kind)
    for step in range(count * blocks):
        at = ((places >> (4 * (step // blocks)).to(tl.int64)) & 15).to(tl.int32)
        i_i = (step % blocks) * TILE_I + tl.arange(0, TILE_I)
        nbr_n = tl.load(nbr_ptr + at * n + site_n, mask=site_n < n, other=-1)
        x_ptrs = x_ptr + nbr_n.to(tl.int64)[:, None] * i + i_i[None, :]
        x_ni = tl.load(x_ptrs, mask=(nbr_n >= 0)[:, None] & (i_i < i)[None, :], other=0.0)
        weight_at = 8 - at if TURNED else at
        weight_ptrs = weight_ptr + weight_at * place_stride + i_i[:, None] * i_stride + o_o[None, :] * o_stride
        weight_io = tl.load(weight_ptrs, mask=(i_i < i)[:, None] & (o_o < o)[None, :], other=0.0)
        sum_no = tl.dot(x_ni, weight_io, sum_no, input_precision="ieee", out_dtype=kind)
    y_ptrs = y_ptr + site_n.to(tl.int64)[:, None] * o + o_o[None, :]
    tl.store(y_ptrs, sum_no.to(y_ptr.dtype.element_ty), mask=(site_n < n)[:, None] & (o_o < o)[None, :])


@triton.jit(do_not_specialize=["n", "splits"])
def multiply_transposed(
    x_ptr, dy_ptr, nbr_ptr, part_ptr, n, i, o, splits,
    TILE_N: tl.constexpr, TILE_I: tl.constexpr, TILE_O: tl.constexpr,
):  # fmt: skip
    """Compute a tile of part[split, k] = sum over the split's sites s of outer(x[nbr[k, s]], dy[s])."""
    split, k = tl.program_id(0), tl.program_id(1)
    o_blocks = tl.cdiv(o, TILE_O)
    i_i = (tl.program_id(2) // o_blocks) * TILE_I + tl.arange(0, TILE_I)
    o_o = (tl.program_id(2) % o_blocks) * TILE_O + tl.arange(0, TILE_O)
    kind: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    sum_io = tl.zeros((TILE_I, TILE_O), kind)
    # Tile by tile in turn: the splits then have like shares of a level's crowded and empty parts.
    for tile in range(split, tl.cdiv(n, TILE_N), splits):
        site_n = tile * TILE_N + tl.arange(0, TILE_N)
        nbr_n = tl.load(nbr_ptr + k * n + site_n, mask=site_n < n, other=-1)
        if tl.max(nbr_n, 0) >= 0:
            here_n = nbr_n >= 0
            x_ptrs = x_ptr + nbr_n.to(tl.int64)[None, :] * i + i_i[:, None]
            x_in = tl.load(x_ptrs, mask=here_n[None, :] & (i_i < i)[:, None], other=0.0)
            dy_ptrs = dy_ptr + site_n.to(tl.int64)[:, None] * o + o_o[None, :]
            dy_no = tl.load(dy_ptrs, mask=here_n[:, None] & (o_o < o)[None, :], other=0.0)
            sum_io = tl.dot(x_in, dy_no, sum_io, input_precision="ieee", out_dtype=kind)
    part_ptrs = part_ptr + ((split * 9 + k).to(tl.int64) * i + i_i[:, None]) * o + o_o[None, :]
    tl.store(part_ptrs, sum_io, mask=(i_i < i)[:, None] & (o_o < o)[None, :])


INTERPRETED = not isinstance(gather_multiply, triton.JITFunction)
"""Whether TRITON_INTERPRET=1 was set as this was imported: the kernels then run on the CPU, very slowly.

For tests only: the interpreter of Triton 3.6 and 3.9 multiplies bfloat16 wrongly.
"""


def forward(x_ni: Tensor, weight_9io: Tensor, nbr_9n: Tensor) -> Tensor:
    """Return the convolution, (n, o).

    Raises
    ------
    TrainingError
        The tensors are not on a CUDA device.
    """
    return _gather_multiply(x_ni, weight_9io, nbr_9n, turned=False)


def input_gradient(dy_no: Tensor, weight_9io: Tensor, nbr_9n: Tensor) -> Tensor:
    """Return the gradient with respect to the input, (n, i). Raises as `forward` does."""
    # Who has j in place k is in place 8 - k of j: the transposed convolution is one with the weight turned round.
    return _gather_multiply(dy_no, weight_9io.transpose(1, 2), nbr_9n, turned=True)


def weight_gradient(x_ni: Tensor, dy_no: Tensor, nbr_9n: Tensor) -> Tensor:
    """Return the gradient with respect to the weight, (9, i, o). Raises as `forward` does."""
    _check_device(x_ni)
    (n, i), o = x_ni.shape, dy_no.shape[1]
    how = tiles(x_ni.dtype, i, o, transposed=True)
    blocks = triton.cdiv(i, how["TILE_I"]) * triton.cdiv(o, how["TILE_O"])
    splits = max(1, min(triton.cdiv(n, how["TILE_N"]), PROGRAMS // (9 * blocks)))
    kind = torch.float64 if x_ni.dtype == torch.float64 else torch.float32
    part_s9io = torch.empty(splits, 9, i, o, dtype=kind, device=x_ni.device)
    with torch.cuda.device_of(x_ni):
        multiply_transposed[splits, 9, blocks](
            x_ni.contiguous(), dy_no.contiguous(), nbr_9n.contiguous(), part_s9io, n, i, o, splits, **how
        )
    return part_s9io.sum(0).to(x_ni.dtype)


def tiles(dtype: torch.dtype, i: int, o: int, *, transposed: bool = False) -> dict[str, int]:
    """Return tile sizes and launch options for i channels in and o out: what both kernels are run with.

    Half precision fills a Hopper processor's matrix units. Wider types get what their registers hold: float32's
    weight gradient (`transposed`) spills with 64 sites a tile, not with 32.
    """
    wide = dtype.itemsize > 2
    return {
        "TILE_N": 32 if wide and transposed else SITES,
        "TILE_I": max(16, min(32 if wide else 64, triton.next_power_of_2(i))),
        "TILE_O": max(16, min(64 if wide else 128, triton.next_power_of_2(o))),
        "num_warps": 4,
        "num_stages": 3,
        "enable_fp_fusion": True,
    }


def _gather_multiply(x_ni: Tensor, weight_9io: Tensor, nbr_9n: Tensor, *, turned: bool) -> Tensor:
    _check_device(x_ni)
    (n, i), o = x_ni.shape, weight_9io.shape[2]
    y_no = x_ni.new_empty(n, o)
    if n == 0:
        return y_no  # CUDA launches no empty grid
    how = tiles(x_ni.dtype, i, o)
    with torch.cuda.device_of(x_ni):
        gather_multiply[triton.cdiv(n, how["TILE_N"]), triton.cdiv(o, how["TILE_O"])](
            x_ni.contiguous(), weight_9io, nbr_9n.contiguous(), y_no, n, i, o, *weight_9io.stride(), turned, **how
        )
    return y_no


def _check_device(x_nc: Tensor) -> None:
    if x_nc.device.type != "cuda" and not INTERPRETED:
        raise TrainingError(
            f"backend 'triton': found rows on {x_nc.device.type}, expected CUDA. Use a CUDA device, or choose 'native'"
        )
