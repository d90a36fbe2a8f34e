"""The 3x3 submanifold convolution by pairs of neighbours: what `native` runs on the CPU.

For each of the nine places: gather the sites that have a neighbour there, one matrix product, add the rows where
they belong. No product is wasted on an absent neighbour. The table is symmetric, so that places k and 8 - k share
their pairs and the gradients need no other table. Deterministic.

Shapes: n sites, p pairs of neighbours in one place, i and o channels, 9 places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .gemm import matmul
from .sites import Sites


def forward(x_ni: Tensor, weight_9io: Tensor, sites: Sites) -> Tensor:
    """Return the convolution, (n, o)."""
    y_no = matmul(x_ni, weight_9io[4])
    for k, (site_p, near_p) in enumerate(sites.pairs):
        if len(site_p):
            y_no.index_add_(0, site_p, matmul(x_ni.index_select(0, near_p), weight_9io[k]))
            y_no.index_add_(0, near_p, matmul(x_ni.index_select(0, site_p), weight_9io[8 - k]))
    return y_no


def gradients(
    x_ni: Tensor, dy_no: Tensor, weight_9io: Tensor, sites: Sites, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients with respect to the input, (n, i), and to the weight, (9, i, o), where wanted."""
    wants_x, wants_weight = wants
    dx_ni = matmul(dy_no, weight_9io[4].T) if wants_x else None
    dw_9io = torch.empty_like(weight_9io) if wants_weight else None
    if dw_9io is not None:
        dw_9io[4] = matmul(x_ni.T, dy_no)
    for k, (site_p, near_p) in enumerate(sites.pairs):
        for place, to_p, from_p in ((k, site_p, near_p), (8 - k, near_p, site_p)):
            if len(site_p):
                dy_po = dy_no.index_select(0, to_p)
                if dx_ni is not None:
                    dx_ni.index_add_(0, from_p, matmul(dy_po, weight_9io[place].T))
                if dw_9io is not None:
                    dw_9io[place] = matmul(x_ni.index_select(0, from_p).T, dy_po)
            elif dw_9io is not None:
                dw_9io[place] = 0
    return dx_ni, dw_9io
