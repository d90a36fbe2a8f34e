"""3x3 submanifold convolution and batch normalisation on the active cells of a level (Eq. 10).

Shapes: n sites, i and o channels, 9 places of a 3x3 neighbourhood in row-major order.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from . import sync
from .backends import Backend, load_backend
from .sites import Sites


class _Convolution(torch.autograd.Function):
    """A backend's convolution. Saves the input and the weight as it is; the structure belongs to the tree."""

    @staticmethod
    def forward(ctx: Any, x_ni: Tensor, weight_9io: Tensor, sites: Sites, backend: Backend) -> Tensor:
        ctx.save_for_backward(x_ni, weight_9io)
        ctx.sites, ctx.backend = sites, backend
        return backend.forward(x_ni, weight_9io.to(x_ni.dtype), sites)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_no: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_ni, weight_9io = ctx.saved_tensors
        wants = ctx.needs_input_grad[:2]
        grads = ctx.backend.gradients(x_ni, dy_no.contiguous(), weight_9io.to(x_ni.dtype), ctx.sites, wants)
        return *grads, None, None


def subm_conv(x_ni: Tensor, weight_oi33: Tensor, sites: Sites, *, backend: str = "native") -> Tensor:
    """Convolve the active sites of a level; cells that are not active count as zero, and stay so.

    It runs in the rows' type, or under autocast, like a dense convolution, in the autocast type.

    Parameters
    ----------
    x_ni
        (n, i) features, one row a site; float32, float64, bfloat16 or float16.
    weight_oi33
        (o, i, 3, 3), as `torch.nn.Conv2d` has it.
    sites
        The level's sites.
    backend
        One of `BACKENDS`. All give the same up to rounding; native and dense are deterministic.

    Returns
    -------
    Tensor
        (n, o): what a zero-padded dense convolution gives at the active cells.

    Raises
    ------
    ValueError
        No backend has this name.
    TrainingError
        The backend is not installed.
    """
    x_ni = x_ni.to(compute_type(x_ni))
    return _Convolution.apply(x_ni, by_place(weight_oi33), sites, load_backend(backend))


def by_place(weight_oi33: Tensor) -> Tensor:
    """Return a weight as (9, i, o)."""
    o, i = weight_oi33.shape[:2]
    return weight_oi33.permute(2, 3, 1, 0).reshape(9, i, o)


def compute_type(x_ni: Tensor) -> torch.dtype:
    """Return the autocast type where there is one, else the tensor's own."""
    device = x_ni.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return x_ni.dtype
    return torch.get_autocast_dtype(device)


class SubMConv3x3(nn.Module):
    """3x3 submanifold convolution without bias.

    The weight has the shape, and the initial values' distribution, of the encoder's 3x3 convolutions; a
    checkpoint therefore fits a dense layer too. In memory it lies place by place, as the matrix products
    want it: a step saves two transpositions a layer.
    """

    def __init__(self, in_channels: int, out_channels: int, *, backend: str = "native") -> None:
        super().__init__()
        self.backend = backend
        weight_33io = torch.empty(3, 3, in_channels, out_channels)
        nn.init.normal_(weight_33io, std=math.sqrt(2 / (9 * out_channels)))
        self.weight = nn.Parameter(weight_33io.permute(3, 2, 0, 1))

    def forward(self, x_ni: Tensor, sites: Sites) -> Tensor:
        return subm_conv(x_ni, self.weight, sites, backend=self.backend)

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[:2]
        return f"{in_channels}, {out_channels}"


class Normalised(NamedTuple):
    """Normalised rows, (n, c), with the mean and inverse deviation used, (c,)."""

    y_nc: Tensor
    mean_c: Tensor
    invstd_c: Tensor
    of_batch: bool
    """The statistics are of these rows, or of the rows of all processes."""
    per_row: Tensor | None
    """Where they are of all processes: one over the number of rows, see `qgn.sparse.sync`."""


class SiteBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over rows; with fewer than two rows it uses, and keeps, its running statistics.

    Attributes
    ----------
    synchronised
        Rows are those of all processes, see `qgn.sparse.sync.synchronise`.
    """

    synchronised = False

    def of_batch(self, x_nc: Tensor) -> bool:
        """Return whether these rows are normalised by their own statistics."""
        return self.training and len(x_nc) >= 2

    def normalise(self, x_nc: Tensor) -> Normalised:
        """Normalise rows; no gradient passes."""
        if self.training and self.synchronised:
            mean_c, invstd_c, per_row = sync.statistics(self, x_nc)
            y_nc = sync.normalised(x_nc, self.weight, self.bias, mean_c, invstd_c)
            return Normalised(y_nc, mean_c, invstd_c, True, per_row)
        of_batch = self.of_batch(x_nc)
        y_nc, mean_c, invstd_c = torch.native_batch_norm(
            x_nc, self.weight, self.bias, self.running_mean, self.running_var, of_batch, self.momentum, self.eps
        )
        if of_batch:
            self.num_batches_tracked.add_(1)
            return Normalised(y_nc, mean_c, invstd_c, True, None)
        return Normalised(y_nc, self.running_mean.clone(), (self.running_var + self.eps).rsqrt(), False, None)

    def forward(self, x_nc: Tensor) -> Tensor:
        if self.training and self.synchronised:
            return sync.normalise(self, x_nc)
        if self.of_batch(x_nc) or not self.training:
            return super().forward(x_nc)
        return F.batch_norm(
            x_nc, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )
