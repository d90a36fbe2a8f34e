"""The convolution by Triton, on CUDA: an implicit product that gathers as it multiplies.

The kernels are three functions of tensors in `triton_conv`: `forward(x_ni, weight_9io, nbr_9n)`,
`input_gradient(dy_no, weight_9io, nbr_9n)` and `weight_gradient(x_ni, dy_no, nbr_9n)`.

Shapes: n sites, i and o channels, 9 places.
"""

from __future__ import annotations

from importlib import import_module

from torch import Tensor

from .sites import Sites

triton_conv = import_module("qgn.sparse.triton_conv")


def describe(device: str) -> str:  # noqa: ARG001
    """Return in words how it computes."""
    return "implicit product in Triton" + (", interpreted on the CPU, very slow" if triton_conv.INTERPRETED else "")


def forward(x_ni: Tensor, weight_9io: Tensor, sites: Sites) -> Tensor:
    """Return the convolution, (n, o)."""
    return triton_conv.forward(x_ni, weight_9io, sites.nbr_9m)


def gradients(
    x_ni: Tensor, dy_no: Tensor, weight_9io: Tensor, sites: Sites, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients with respect to the input, (n, i), and to the weight, (9, i, o), where wanted."""
    return (
        triton_conv.input_gradient(dy_no, weight_9io, sites.nbr_9m) if wants[0] else None,
        triton_conv.weight_gradient(x_ni, dy_no, sites.nbr_9m) if wants[1] else None,
    )
