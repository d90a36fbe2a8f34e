"""The convolution by spconv, whichever build is installed: spconv, spconv-cu120, spconv-cu126 or spconv-triton.

spconv finds the neighbours itself, once a level. Its weights lie as (o, 9, i).

Shapes: n sites, i and o channels, 9 places.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import torch
from torch import Tensor

from .sites import Sites

try:
    _LIBRARY = "spconv"
    ops = import_module("spconv.pytorch.ops")
except ModuleNotFoundError as error:
    if error.name != "spconv":
        raise
    _LIBRARY = "spconv_triton"
    ops = import_module("spconv_triton.pytorch.ops")
PAIRS = import_module(f"{_LIBRARY}.core").ConvAlgo.Native


def describe(device: str) -> str:  # noqa: ARG001
    """Return in words how it computes."""
    return f"{_LIBRARY}, gather and scatter"


def forward(x_ni: Tensor, weight_9io: Tensor, sites: Sites) -> Tensor:
    """Return the convolution, (n, o)."""
    if not len(sites):
        return x_ni.new_zeros(0, weight_9io.shape[2])
    pairs, counts = sites.derive(indice_pairs)
    return ops.indice_conv(x_ni, _filters(weight_9io), pairs, counts, len(sites), False, True, PAIRS)


def gradients(
    x_ni: Tensor,
    dy_no: Tensor,
    weight_9io: Tensor,
    sites: Sites,
    wants: tuple[bool, bool],  # noqa: ARG001 - spconv makes both at once
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients with respect to the input, (n, i), and to the weight, (9, i, o)."""
    if not len(sites):
        return torch.zeros_like(x_ni), torch.zeros_like(weight_9io)
    pairs, counts = sites.derive(indice_pairs)
    with cpu_backward():
        dx_ni, dw_o33i = ops.indice_conv_backward(x_ni, _filters(weight_9io), dy_no, pairs, counts, False, True, PAIRS)
    return dx_ni, dw_o33i.flatten(1, 2).permute(1, 2, 0)


def indice_pairs(sites: Sites) -> tuple[Tensor, Tensor]:
    """Return spconv's own pairs, (2, 9, n) int32, and their counts, (9,) int32."""
    batch, rows, cols = sites.shape
    # Strides are not looked at: without contiguous() the pairs would be wrong, silently.
    indices_n3 = torch.stack(sites.positions(), 1).int().contiguous()
    kernel = ([3, 3], [1, 1], [1, 1], [1, 1], [0, 0])
    _, pairs, counts = ops.get_indice_pairs(indices_n3, batch, [rows, cols], PAIRS, *kernel, subm=True)
    return pairs, counts


@contextmanager
def cpu_backward() -> Iterator[None]:
    """Let the CPU build's backward pass run: it asks for a CUDA stream that it does not use, and fails."""
    if torch.cuda.is_available():
        yield
        return
    asked = ops.get_current_stream
    ops.get_current_stream = lambda: 0
    try:
        yield
    finally:
        ops.get_current_stream = asked


def _filters(weight_9io: Tensor) -> Tensor:
    return weight_9io.permute(2, 0, 1).unflatten(1, (3, 3)).contiguous()
