"""The 3x3 submanifold convolution by pairs of neighbours: what `native` runs on the CPU.

For each of the nine places: gather the sites that have a neighbour there, one matrix product, add the rows where
they belong. No product is wasted on an absent neighbour. The table is symmetric, so that places k and 8 - k share
their pairs and the gradients need no other table. Deterministic.

Shapes: n sites, p pairs of neighbours in one place, i and o channels, 9 places.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .gemm import matmul
from .sites import Sites

BLOCK = 2**19
"""Values that a block of gathered rows may have: with its product it stays in the cache."""


def forward(x_ni: Tensor, weight_9io: Tensor, sites: Sites) -> Tensor:
    """Return the convolution, (n, o)."""
    y_no = matmul(x_ni, weight_9io[4])
    for k, site_p, near_p in _blocks(sites, weight_9io):
        y_no.index_add_(0, site_p, matmul(x_ni.index_select(0, near_p), weight_9io[k]))
        y_no.index_add_(0, near_p, matmul(x_ni.index_select(0, site_p), weight_9io[8 - k]))
    return y_no


def gradients(
    x_ni: Tensor, dy_no: Tensor, weight_9io: Tensor, sites: Sites, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients with respect to the input, (n, i), and to the weight, (9, i, o), where wanted.

    That of the weight is float32 where the rows have a shorter type.
    """
    wants_x, wants_weight = wants
    dx_ni = matmul(dy_no, weight_9io[4].T) if wants_x else None
    dw: list[Tensor | None] = [None] * 9
    if wants_weight:
        dw[4] = matmul(x_ni.T, dy_no)
    for k, site_p, near_p in _blocks(sites, weight_9io):
        for place, to_p, from_p in ((k, site_p, near_p), (8 - k, near_p, site_p)):
            dy_po = dy_no.index_select(0, to_p)
            if dx_ni is not None:
                dx_ni.index_add_(0, from_p, matmul(dy_po, weight_9io[place].T))
            if wants_weight:
                product_io = matmul(x_ni.index_select(0, from_p).T, dy_po)
                dw[place] = product_io if dw[place] is None else dw[place] + product_io
    return dx_ni, _stacked(dw, weight_9io) if wants_weight else None


def _stacked(dw: list[Tensor | None], weight_9io: Tensor) -> Tensor:
    """Return the products of all places in one tensor, zeros where there is no pair."""
    dw_9io = weight_9io.new_empty(weight_9io.shape, dtype=torch.promote_types(weight_9io.dtype, torch.float32))
    for place, product_io in enumerate(dw):
        dw_9io[place] = 0 if product_io is None else product_io
    return dw_9io


def _blocks(sites: Sites, weight_9io: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the pairs of places 0 to 3 in blocks: the place, the sites and their neighbours."""
    rows = max(1, BLOCK // max(weight_9io.shape[1:]))
    for k, (site_p, near_p) in enumerate(sites.pairs):
        if len(site_p):
            for block in zip(site_p.split(rows), near_p.split(rows), strict=True):
                yield k, *block
