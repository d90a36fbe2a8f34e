"""3x3 transposed convolution of stride 2 on the active cells of a level: each cell's four children get features.

A child reads its own cell and, on the sides that it lies on, the cells to the right, below and diagonally below.
Children of cells that are not active are not made, and cells that are not active count as zero.

Shapes: m sites, i and o channels, 4 children of a cell, 9 places of a 3x3 neighbourhood in row-major order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .sites import Sites

RIGHT, BELOW, DIAGONAL = 5, 7, 8
"""Places of the neighbours that reach into a cell's children."""


def transposed_conv(x_mi: Tensor, weight_io33: Tensor, sites: Sites) -> Tensor:
    """Return the features of the children of all sites, (m, 4, o).

    They are what `torch.nn.functional.conv_transpose2d` gives on the full grid with stride 2, padding 1 and output
    padding 1, at the children of active cells.

    Parameters
    ----------
    x_mi
        (m, i) features, one row a site.
    weight_io33
        (i, o, 3, 3), as `torch.nn.ConvTranspose2d` has it.
    """
    w = weight_io33.permute(2, 3, 0, 1)
    padded_mi = torch.cat([x_mi, x_mi.new_zeros(1, x_mi.shape[1])])
    right_mi, below_mi, diagonal_mi = (
        padded_mi.index_select(0, torch.where(near_m < 0, len(x_mi), near_m))
        for near_m in sites.nbr_9m[[RIGHT, BELOW, DIAGONAL]].long()
    )
    children = (
        x_mi @ w[1, 1],
        x_mi @ w[1, 2] + right_mi @ w[1, 0],
        x_mi @ w[2, 1] + below_mi @ w[0, 1],
        x_mi @ w[2, 2] + right_mi @ w[2, 0] + below_mi @ w[0, 2] + diagonal_mi @ w[0, 0],
    )
    return torch.stack(children, 1)


class TransposedConv3x3(nn.Module):
    """3x3 transposed convolution of stride 2 without bias, on active sites."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 3, 3))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (9 * out_channels)))

    def forward(self, x_mi: Tensor, sites: Sites) -> Tensor:
        return transposed_conv(x_mi, self.weight, sites)
