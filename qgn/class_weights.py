"""Class weights of the loss, by how well each class is known (A.2 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(iou_k: Tensor) -> Tensor:
    """Return the weight of each class: 2 for those whose IoU is below the median, 1 for all others.

    They replace earlier weights, they do not multiply them.

    Parameters
    ----------
    iou_k
        (k,) float of any unit, over the held-aside images; nan for a class that occurs neither in their labels nor in
        the predictions: it has no part in the median (the mean of the two in the middle, where they are two).

    Returns
    -------
    (k,) float32.
    """
    known_m = iou_k[~iou_k.isnan()]
    if not len(known_m):
        return torch.ones(len(iou_k), device=iou_k.device)
    return 1.0 + (iou_k < known_m.quantile(0.5)).float()
