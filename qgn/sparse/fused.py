"""Layers that save less for the backward pass than torch's own, and compute the same.

A batch normalisation with its ReLU is made anew from its input; rows that were gathered from an encoder's features
are gathered anew.

Shapes: n rows, q rows to gather from, c, i and o channels, 9 places of a 3x3 neighbourhood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import sync
from .backends import Backend, load_backend
from .conv import SiteBatchNorm, SubMConv3x3, by_place, compute_type
from .gemm import matmul
from .sites import Sites


class _NormRelu(torch.autograd.Function):
    """Batch normalisation and ReLU. Saves the input and the statistics."""

    @staticmethod
    def forward(ctx: Any, x_nc: Tensor, gamma_c: Tensor, beta_c: Tensor, norm: SiteBatchNorm) -> Tensor:
        return _normalise(ctx, norm, x_nc, gamma_c, beta_c)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_nc: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        saved = ctx.saved_tensors
        return *_normalise_backward(ctx, saved, dy_nc, _normalise_again(*saved)), None


class _NormReluConv(torch.autograd.Function):
    """Batch normalisation, ReLU and convolution. What the convolution reads is not saved but made anew."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ni: Tensor,
        gamma_i: Tensor,
        beta_i: Tensor,
        weight_9io: Tensor,
        norm: SiteBatchNorm,
        sites: Sites,
        backend: Backend,
    ) -> Tensor:
        ctx.sites, ctx.backend = sites, backend
        a_ni = _normalise(ctx, norm, x_ni, gamma_i, beta_i, weight_9io)
        return backend.forward(a_ni, weight_9io.to(a_ni.dtype), sites)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_no: Tensor) -> tuple[Tensor | None, ...]:
        *saved, weight_9io = ctx.saved_tensors
        a_ni = _normalise_again(*saved)
        wants = (True, ctx.needs_input_grad[3])
        weight_9io = weight_9io.to(a_ni.dtype)
        da_ni, dw_9io = ctx.backend.gradients(a_ni, dy_no.contiguous(), weight_9io, ctx.sites, wants)
        return *_normalise_backward(ctx, saved, da_ni, a_ni), dw_9io, None, None, None


def _normalise(ctx: Any, norm: SiteBatchNorm, x_nc: Tensor, gamma_c: Tensor, beta_c: Tensor, *saved: Tensor) -> Tensor:
    """Return the normalised, rectified rows; save what the backward pass needs, and `saved`."""
    y_nc, mean_c, invstd_c, ctx.of_batch, ctx.per_row = norm.normalise(x_nc)
    ctx.save_for_backward(x_nc, gamma_c, beta_c, mean_c, invstd_c, *saved)
    ctx.eps = norm.eps
    return y_nc.relu_()


def _normalise_again(x_nc: Tensor, gamma_c: Tensor, beta_c: Tensor, mean_c: Tensor, invstd_c: Tensor) -> Tensor:
    scale_c = gamma_c * invstd_c
    return torch.addcmul(beta_c - mean_c * scale_c, x_nc, scale_c).relu_().to(x_nc.dtype)


def _normalise_backward(
    ctx: Any, saved: Sequence[Tensor], dy_nc: Tensor, y_nc: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients with respect to the input, gamma and beta; y is what came out of the ReLU."""
    x_nc, gamma_c, _, mean_c, invstd_c = saved
    dy_nc = torch.ops.aten.threshold_backward(dy_nc, y_nc, 0)
    if ctx.per_row is not None:
        return sync.gradients(dy_nc, x_nc, gamma_c, mean_c, invstd_c, ctx.per_row)
    if ctx.of_batch:
        return torch.ops.aten.native_batch_norm_backward(
            dy_nc, x_nc, gamma_c, None, None, mean_c, invstd_c, True, ctx.eps, [True, True, True]
        )
    dx_nc = (dy_nc * (gamma_c * invstd_c)).to(x_nc.dtype)
    return dx_nc, (dy_nc * ((x_nc - mean_c) * invstd_c)).sum(0), dy_nc.sum(0, dtype=gamma_c.dtype)


class _Linear(torch.autograd.Function):
    """A product of rows, which may be gathered first, with a weight. Saves what they are gathered from."""

    @staticmethod
    def forward(ctx: Any, x_qi: Tensor, weight_oi: Tensor, row_n: Tensor | None, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x_qi, weight_oi, row_n)
        return matmul(_gather(x_qi, row_n).to(dtype), weight_oi.to(dtype).T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_no: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_qi, weight_oi, row_n = ctx.saved_tensors
        dx_qi = dw_oi = None
        if ctx.needs_input_grad[0]:
            dx_ni = matmul(dy_no, weight_oi.to(dy_no.dtype)).to(x_qi.dtype)
            dx_qi = dx_ni if row_n is None else torch.zeros_like(x_qi).index_copy_(0, row_n, dx_ni)
        if ctx.needs_input_grad[1]:
            dw_oi = matmul(dy_no.T, _gather(x_qi, row_n).to(dy_no.dtype))
        return dx_qi, dw_oi, None, None


def _gather(x_qi: Tensor, row_n: Tensor | None) -> Tensor:
    return x_qi if row_n is None else x_qi.index_select(0, row_n)


def norm_relu(x_nc: Tensor, norm: SiteBatchNorm) -> Tensor:
    """Return `relu(norm(x))`, (n, c); saves x alone."""
    return _NormRelu.apply(x_nc, norm.weight, norm.bias, norm)


def norm_relu_conv(x_ni: Tensor, norm: SiteBatchNorm, conv: SubMConv3x3, sites: Sites) -> Tensor:
    """Return `conv(relu(norm(x)), sites)`, (n, o); saves x alone."""
    x_ni = x_ni.to(compute_type(x_ni))
    weight_9io, backend = by_place(conv.weight), load_backend(conv.backend)
    return _NormReluConv.apply(x_ni, norm.weight, norm.bias, weight_9io, norm, sites, backend)


def linear(x_qi: Tensor, weight_oi: Tensor, row_n: Tensor | None = None) -> Tensor:
    """Return `x[row] @ weight.T`, (n, o), or without row_n the product of all rows; saves x as it is.

    Parameters
    ----------
    x_qi
        (q, i) rows.
    weight_oi
        (o, i).
    row_n
        (n,) int64, each row at most once.
    """
    return _Linear.apply(x_qi, weight_oi, row_n, compute_type(x_qi))
