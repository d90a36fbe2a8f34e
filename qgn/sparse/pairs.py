"""The 3x3 submanifold convolution by pairs of neighbours: what `native` runs on the CPU.

For each of the nine places: gather the sites that have a neighbour there, one matrix product, add the rows where
they belong, in float32 where they have a shorter type. No product is wasted on an absent neighbour. The table is
symmetric, so that places k and 8 - k share their pairs and the gradients need no other table. Deterministic.

Shapes: n sites, p pairs of neighbours in one place, i, o and c channels, 9 places.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from . import kernels
from .gemm import matmul
from .sites import Sites

BLOCK = 2**19
"""Values that a block of gathered rows may have: with its product it stays in the cache."""


def forward(x_ni: Tensor, weight_9io: Tensor, sites: Sites) -> Tensor:
    """Return the convolution, (n, o)."""
    y_no = matmul(x_ni, weight_9io[4]).to(_sum_type(x_ni))
    for place, site_p, near_p, _ in _blocks(sites, weight_9io):
        _add_rows(y_no, site_p, matmul(x_ni.index_select(0, near_p), weight_9io[place]))
    return y_no.to(x_ni.dtype)


def gradients(
    x_ni: Tensor, dy_no: Tensor, weight_9io: Tensor, sites: Sites, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients with respect to the input, (n, i), and to the weight, (9, i, o), where wanted.

    That of the weight is float32 where the rows have a shorter type.
    """
    kind = _sum_type(x_ni)
    dx_ni = matmul(dy_no, weight_9io[4].T).to(kind) if wants[0] else None
    dw_9io = torch.empty_like(weight_9io, dtype=kind) if wants[1] else None
    if dw_9io is not None:
        dw_9io[4] = matmul(x_ni.T, dy_no)
    for place, site_p, near_p, first in _blocks(sites, weight_9io):
        dy_po = dy_no.index_select(0, site_p)
        if dx_ni is not None:
            _add_rows(dx_ni, near_p, matmul(dy_po, weight_9io[place].T))
        if dw_9io is not None:
            dw_io, product_io = dw_9io[place], matmul(x_ni.index_select(0, near_p).T, dy_po)
            _ = dw_io.copy_(product_io) if first else dw_io.add_(product_io)
    return None if dx_ni is None else dx_ni.to(x_ni.dtype), dw_9io


def _sum_type(x_ni: Tensor) -> torch.dtype:
    return torch.promote_types(x_ni.dtype, torch.float32)


def _add_rows(sum_nc: Tensor, index_p: Tensor, rows_pc: Tensor) -> None:
    if sum_nc.is_meta:
        return  # there is nothing to add
    # numpy has no bfloat16: it gets the bits.
    rows_pc = rows_pc.view(torch.uint16) if rows_pc.dtype == torch.bfloat16 else rows_pc.to(sum_nc.dtype)
    kernels.add_rows(sum_nc.numpy(), index_p.numpy(), rows_pc.numpy())


def _blocks(sites: Sites, weight_9io: Tensor) -> Iterator[tuple[int, Tensor, Tensor, bool]]:
    """Yield the pairs of all places but 4 in blocks, at least one a place.

    A block is the place, the sites, their neighbours, and whether it is the place's first.
    """
    rows = max(1, BLOCK // max(weight_9io.shape[1:]))
    for k, (site_p, near_p) in enumerate(sites.pairs):
        for place, to_p, from_p in ((k, site_p, near_p), (8 - k, near_p, site_p)):
            for block, (to_b, from_b) in enumerate(zip(to_p.split(rows), from_p.split(rows), strict=True)):
                yield place, to_b, from_b, block == 0
