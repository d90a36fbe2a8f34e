"""The convolution on the full grid of a level, cells that are not active set to zero: the paper's sanity check.

Shapes: n sites, b images, h and w rows and columns, i and o channels, 9 places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .sites import Sites


def describe(device: str) -> str:  # noqa: ARG001
    """Return in words how it computes."""
    return "masked dense convolution, slow"


def forward(x_ni: Tensor, weight_9io: Tensor, sites: Sites) -> Tensor:
    """Return the convolution, (n, o)."""
    return _rows(torch.conv2d(_grid(x_ni, sites), _kernel(weight_9io), padding=1), sites)


def gradients(
    x_ni: Tensor, dy_no: Tensor, weight_9io: Tensor, sites: Sites, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients with respect to the input, (n, i), and to the weight, (9, i, o), where wanted."""
    x_bihw, dy_bohw, weight_oi33 = _grid(x_ni, sites), _grid(dy_no, sites), _kernel(weight_9io)
    dx_bihw, dw_oi33, _ = torch.ops.aten.convolution_backward(
        dy_bohw, x_bihw, weight_oi33, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [*wants, False]
    )
    return (
        _rows(dx_bihw, sites) if wants[0] else None,
        dw_oi33.permute(2, 3, 1, 0).flatten(0, 1) if wants[1] else None,
    )


def _kernel(weight_9io: Tensor) -> Tensor:
    return weight_9io.unflatten(0, (3, 3)).permute(3, 2, 0, 1)


def _grid(x_nc: Tensor, sites: Sites) -> Tensor:
    """Return rows as the full grid, (b, c, h, w)."""
    batch, rows, cols = sites.shape
    x_qc = x_nc.new_zeros(batch * rows * cols, x_nc.shape[1]).index_copy(0, sites.cell_m, x_nc)
    return x_qc.view(batch, rows, cols, -1).permute(0, 3, 1, 2)


def _rows(y_bchw: Tensor, sites: Sites) -> Tensor:
    """Return the rows of the sites, (n, c)."""
    return y_bchw.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, sites.cell_m)
