"""The 3x3 submanifold convolution in torch operations, as each device likes it best. Deterministic on all."""

from __future__ import annotations

from torch import Tensor

from . import im2col, pairs
from .sites import Sites


def describe(device: str) -> str:
    """Return in words how it computes on a device."""
    return "pairs of neighbours" if device == "cpu" else "im2col in blocks"


def forward(x_ni: Tensor, weight_9io: Tensor, sites: Sites) -> Tensor:
    """Return the convolution, (n, o)."""
    return (pairs if sites.nbr_9m.device.type == "cpu" else im2col).forward(x_ni, weight_9io, sites)


def gradients(
    x_ni: Tensor, dy_no: Tensor, weight_9io: Tensor, sites: Sites, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients with respect to the input, (n, i), and to the weight, (9, i, o), where wanted."""
    return (pairs if sites.nbr_9m.device.type == "cpu" else im2col).gradients(x_ni, dy_no, weight_9io, sites, wants)
