"""The 3x3 submanifold convolution by im2col: what `native` runs on CUDA.

Gather all nine neighbours of a block of sites, zeros where there is none, and multiply once. More arithmetic than by
pairs, but few launches, and nothing is added in an order that could vary.

Shapes: n sites, r rows of a block, i and o channels, q = 9i, 9 places.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .gemm import matmul
from .sites import Sites

BLOCK_BYTES = 2**28
"""Size that the gathered rows of a block may have."""


def forward(x_ni: Tensor, weight_9io: Tensor, sites: Sites) -> Tensor:
    """Return the convolution, (n, o)."""
    y_no = x_ni.new_empty(len(x_ni), weight_9io.shape[2])
    weight_qo = weight_9io.flatten(0, 1)
    for rows, x_rq in _blocks(x_ni, sites):
        y_no[rows] = matmul(x_rq, weight_qo)
    return y_no


def gradients(
    x_ni: Tensor, dy_no: Tensor, weight_9io: Tensor, sites: Sites, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients with respect to the input, (n, i), and to the weight, (9, i, o), where wanted."""
    # Who has j in place k is in place 8 - k of j: the transposed convolution is one with the weight turned round.
    dx_ni = forward(dy_no, weight_9io.flip(0).transpose(1, 2), sites) if wants[0] else None
    if not wants[1]:
        return dx_ni, None
    dw_qo = x_ni.new_zeros(9 * x_ni.shape[1], dy_no.shape[1])
    for rows, x_rq in _blocks(x_ni, sites):
        dw_qo += matmul(x_rq.T, dy_no[rows])
    return dx_ni, dw_qo.unflatten(0, (9, -1))


def _blocks(x_ni: Tensor, sites: Sites) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of rows and their neighbours' features, (r, 9i), zero where there is no neighbour."""
    n, i = x_ni.shape
    padded = F.pad(x_ni, (0, 0, 0, 1))
    from_n9 = sites.derive(_rows_of_neighbours)
    step = max(1, BLOCK_BYTES // (9 * i * x_ni.element_size()))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        yield rows, padded.index_select(0, from_n9[rows].flatten()).view(-1, 9 * i)


def _rows_of_neighbours(sites: Sites) -> Tensor:
    """Return the table site by site, (n, 9) int32, with one row past the last where there is no neighbour."""
    return torch.where(sites.nbr_9m < 0, len(sites), sites.nbr_9m).T.contiguous()
