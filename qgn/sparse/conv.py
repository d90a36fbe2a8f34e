"""3x3 submanifold convolution and batch normalisation on the active cells of a level (Eq. 10).

'Pairs': for each of the nine places, gather the sites that have an active neighbour there, one matrix
product, add the rows where they belong. The place of the cell itself needs no gather. The table is
symmetric, so places k and 8 - k share their pairs and the backward pass needs no other table.

Shapes: n sites, p pairs of neighbours in one place, i and o channels, 9 places in row-major order.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .gemm import matmul
from .sites import Sites


class _PairsConv(torch.autograd.Function):
    """The convolution and its gradients. Saves the input and the weight; the pairs belong to the tree."""

    @staticmethod
    def forward(ctx: Any, x_ni: Tensor, weight_9io: Tensor, sites: Sites) -> Tensor:
        ctx.save_for_backward(x_ni, weight_9io)
        ctx.sites = sites
        y_no = matmul(x_ni, weight_9io[4])
        for k, (site_p, near_p) in enumerate(sites.pairs):
            if len(site_p):
                y_no.index_add_(0, site_p, matmul(x_ni.index_select(0, near_p), weight_9io[k]))
                y_no.index_add_(0, near_p, matmul(x_ni.index_select(0, site_p), weight_9io[8 - k]))
        return y_no

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_no: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_ni, weight_9io = ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        dx_ni = matmul(dy_no, weight_9io[4].T) if wants_x else None
        dw_9io = torch.zeros_like(weight_9io) if wants_weight else None
        if dw_9io is not None:
            dw_9io[4] = matmul(x_ni.T, dy_no)
        for k, (site_p, near_p) in enumerate(ctx.sites.pairs):
            if not len(site_p):
                continue
            for place, to_p, from_p in ((k, site_p, near_p), (8 - k, near_p, site_p)):
                dy_po = dy_no.index_select(0, to_p)
                if dx_ni is not None:
                    dx_ni.index_add_(0, from_p, matmul(dy_po, weight_9io[place].T))
                if dw_9io is not None:
                    dw_9io[place] = matmul(x_ni.index_select(0, from_p).T, dy_po)
        return dx_ni, dw_9io, None


def subm_conv3x3(x_ni: Tensor, weight_oi33: Tensor, sites: Sites) -> Tensor:
    """Convolve the active sites of a level; cells that are not active count as zero, and stay so.

    Under autocast it runs, like a dense convolution, in the autocast type.

    Parameters
    ----------
    x_ni
        (n, i) features, one row a site.
    weight_oi33
        (o, i, 3, 3), as `torch.nn.Conv2d` has it.
    sites
        The level's sites.

    Returns
    -------
    Tensor
        (n, o): what a zero-padded dense convolution gives at the active cells.
    """
    device = x_ni.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x_ni, weight_oi33 = x_ni.to(dtype), weight_oi33.to(dtype)
    o, i = weight_oi33.shape[:2]
    return _PairsConv.apply(x_ni, weight_oi33.permute(2, 3, 1, 0).reshape(9, i, o), sites)


class SubMConv3x3(nn.Module):
    """3x3 submanifold convolution without bias.

    The weight has the shape, and the initial values' distribution, of the encoder's 3x3 convolutions; a
    checkpoint therefore fits a dense layer too. In memory it lies place by place, as the matrix products
    want it: a step saves two transpositions a layer.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        weight_33io = torch.empty(3, 3, in_channels, out_channels)
        nn.init.normal_(weight_33io, std=math.sqrt(2 / (9 * out_channels)))
        self.weight = nn.Parameter(weight_33io.permute(3, 2, 0, 1))

    def forward(self, x_ni: Tensor, sites: Sites) -> Tensor:
        return subm_conv3x3(x_ni, self.weight, sites)

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[:2]
        return f"{in_channels}, {out_channels}"


class SiteBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over rows; with fewer than two rows it uses, and keeps, its running statistics."""

    def forward(self, x_nc: Tensor) -> Tensor:
        if self.training and len(x_nc) < 2:
            return F.batch_norm(
                x_nc,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=False,
                eps=self.eps,
            )
        return super().forward(x_nc)
