"""Label trees drawn as pixels on their device: what networks without a tree are trained on.

Shapes: b images, h and w rows and columns of a level's full grid, n nodes of a level, m composite ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .frontier import COMPOSITE_CHANNEL, IGNORE_INDEX, Labels, child_cells


@torch.no_grad()
def rasterise(labels: Labels) -> Tensor:
    """Return the class of every pixel of the canvas, (B, H, W) int64: 0..k - 1, or IGNORE_INDEX.

    Void and what lies outside of an image is IGNORE_INDEX. The host knows all lengths beforehand: nothing waits
    for a GPU.

    Parameters
    ----------
    labels
        The batch's label trees (`LabelBatch`).
    """
    nodes_n = labels.level(labels.levels - 1)
    target_bhw = nodes_n.view(labels.grid)
    cell_n = torch.arange(len(nodes_n), device=nodes_n.device)
    for level in range(labels.levels - 2, -1, -1):
        children_n = labels.level(level)
        composite_n = nodes_n == COMPOSITE_CHANNEL
        cell_m = cell_n[torch.nonzero_static(composite_n, size=len(children_n) // 4).squeeze(1)]
        cell_n, nodes_n = child_cells(cell_m, target_bhw.shape[2]), children_n
        target_bhw = _doubled(target_bhw)
        target_bhw.view(-1)[cell_n] = nodes_n
    class_bhw = torch.where(target_bhw == IGNORE_INDEX, IGNORE_INDEX, target_bhw.long() - 1)
    return class_bhw.masked_fill_(_outside(class_bhw, labels.boxes_b4), IGNORE_INDEX) if labels.padded else class_bhw


def _doubled(map_bhw: Tensor) -> Tensor:
    """Return every cell four times, as a map of twice the sides."""
    batch, rows, cols = map_bhw.shape
    four_bhw = map_bhw.new_empty(batch, 2 * rows, 2 * cols)
    four_bhw.view(batch, rows, 2, cols, 2).copy_(map_bhw[:, :, None, :, None])
    return four_bhw


def _outside(map_bhw: Tensor, boxes_b4: Tensor) -> Tensor:
    """Return which pixels lie outside of their image, (b, h, w) bool."""
    y_h1, x_w = (torch.arange(side, device=map_bhw.device) for side in map_bhw.shape[1:])
    y_h1 = y_h1[:, None]
    top, left, bottom, right = boxes_b4.T[:, :, None, None]
    return (y_h1 < top) | (y_h1 >= bottom) | (x_w < left) | (x_w >= right)
