"""Batch normalisation by the statistics of all processes, each weighted by its rows; on any device and backend.

`torch.nn.SyncBatchNorm` needs a GPU, and knows no rows. What is computed here is batch normalisation of the rows of all
processes together, forward and backward; gradients of scale and shift stay those of the process, to be summed with
the others. A process without rows takes part.

Shapes: n rows, c channels, w processes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def statistics(norm: nn.modules.batchnorm._BatchNorm, x_nc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and inverse deviation of the rows of all processes, (c,), and one over the number of these rows, ().

    With fewer than two rows they are the running ones, and that number is 0; else the running ones move on.
    """
    rows_nc = x_nc.float()
    count = len(rows_nc)
    sum_c = rows_nc.sum(0)
    mean_c = sum_c / max(count, 1)
    own = torch.cat([mean_c, (rows_nc - mean_c).square_().sum(0), mean_c.new_tensor([count])])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    means_wc, squares_wc, counts_w1 = torch.stack(parts).split([x_nc.shape[1], x_nc.shape[1], 1], dim=1)
    total = counts_w1.sum()
    enough = total >= 2
    mean_c = (means_wc * counts_w1).sum(0) / total.clamp(min=1)
    squares_c = (squares_wc + counts_w1 * (means_wc - mean_c).square()).sum(0)
    if norm.track_running_stats:
        pull = norm.momentum * enough
        norm.running_mean.lerp_(mean_c.to(norm.running_mean.dtype), pull)
        norm.running_var.lerp_((squares_c / (total - 1).clamp(min=1)).to(norm.running_var.dtype), pull)
        norm.num_batches_tracked.add_(enough)
    mean_c = torch.where(enough, mean_c, norm.running_mean)
    variance_c = torch.where(enough, squares_c / total.clamp(min=1), norm.running_var)
    return mean_c, (variance_c + norm.eps).rsqrt(), enough / total.clamp(min=1)


def gradients(
    dy_nc: Tensor, x_nc: Tensor, gamma_c: Tensor, mean_c: Tensor, invstd_c: Tensor, per_row: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients with respect to the rows, and this process's part of those of scale and shift, (c,) each."""
    centred_nc = (x_nc.float() - mean_c) * invstd_c
    dy_nc = dy_nc.float()
    own_2c = torch.stack([(dy_nc * centred_nc).sum(0), dy_nc.sum(0)])
    all_2c = own_2c.clone()
    dist.all_reduce(all_2c)
    dgamma_c, dbeta_c = all_2c * per_row
    dx_nc = (gamma_c * invstd_c) * (dy_nc - dbeta_c - centred_nc * dgamma_c)
    return dx_nc.to(x_nc.dtype), own_2c[0].to(gamma_c.dtype), own_2c[1].to(gamma_c.dtype)


class _Normalise(torch.autograd.Function):
    """Batch normalisation of rows. Saves the input and the statistics."""

    @staticmethod
    def forward(
        ctx: Any, x_nc: Tensor, gamma_c: Tensor, beta_c: Tensor, norm: nn.modules.batchnorm._BatchNorm
    ) -> Tensor:
        mean_c, invstd_c, per_row = statistics(norm, x_nc)
        ctx.save_for_backward(x_nc, gamma_c, mean_c, invstd_c, per_row)
        return normalised(x_nc, gamma_c, beta_c, mean_c, invstd_c)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_nc: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        return *gradients(dy_nc, *ctx.saved_tensors), None


def normalised(x_nc: Tensor, gamma_c: Tensor, beta_c: Tensor, mean_c: Tensor, invstd_c: Tensor) -> Tensor:
    """Return normalised rows, (n, c), in their own type."""
    scale_c = gamma_c * invstd_c
    return torch.addcmul(beta_c - mean_c * scale_c, x_nc.float(), scale_c).to(x_nc.dtype)


def normalise(norm: nn.modules.batchnorm._BatchNorm, x_nc: Tensor) -> Tensor:
    """Return rows normalised by the statistics of all processes."""
    return _Normalise.apply(x_nc, norm.weight, norm.bias, norm)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the images of all processes."""

    def forward(self, x_bchw: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_bchw)
        x_bhwc = x_bchw.permute(0, 2, 3, 1)
        return normalise(self, x_bhwc.flatten(0, 2)).view(x_bhwc.shape).permute(0, 3, 1, 2)


def synchronise(model: nn.Module) -> None:
    """Let all batch normalisations of a model use the statistics of all processes."""
    for module in model.modules():
        if hasattr(module, "synchronised"):
            module.synchronised = True
        elif isinstance(module, nn.BatchNorm2d):
            module.__class__ = SyncBatchNorm2d
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise TypeError(f"{type(module).__name__} has no form that several processes share")
