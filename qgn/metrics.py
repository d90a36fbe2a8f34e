"""Scores of a split, gathered batch by batch on the device.

Shapes: k classes, l levels, n visited nodes of a level.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from qgn.models.prediction import QuadtreePrediction
from qgn.sparse.frontier import COMPOSITE_CHANNEL, IGNORE_INDEX


class ConfusionMatrix:
    """Count pixels by true and predicted class.

    Parameters
    ----------
    num_classes
        k.
    device
        Where the counts live: that of the predictions.

    Attributes
    ----------
    counts_kk
        (k, k) int64: rows are true classes, columns predicted ones.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.counts_kk = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, predicted: Tensor, true: Tensor) -> Self:
        """Count pixels; where `true` lies outside 0..k - 1 it is void and does not count.

        Parameters
        ----------
        predicted
            Integer classes 0..k - 1, any shape.
        true
            Integer classes, the same shape.
        """
        num_classes = len(self.counts_kk)
        true, predicted = true.flatten().long(), predicted.flatten().long()
        known = (true >= 0) & (true < num_classes)
        pair = true[known] * num_classes + predicted[known]
        self.counts_kk += torch.bincount(pair, minlength=num_classes**2).view(num_classes, num_classes)
        return self

    def iou_k(self) -> Tensor:
        """Return each class's intersection over union, (k,) float64; nan where the union is empty."""
        counts_kk = self.counts_kk.double()
        both_k = counts_kk.diagonal()
        return both_k / (counts_kk.sum(0) + counts_kk.sum(1) - both_k)

    def miou(self) -> float:
        """Return the mean IoU over the classes whose union is not empty; nan if there is none."""
        return float(self.iou_k().nanmean())

    def accuracy_k(self) -> Tensor:
        """Return the share of each class's pixels that are right, (k,) float64; nan for a class without pixels."""
        counts_kk = self.counts_kk.double()
        return counts_kk.diagonal() / counts_kk.sum(1)

    def mean_accuracy(self) -> float:
        """Return the mean accuracy over the classes that have pixels; nan if there is none."""
        return float(self.accuracy_k().nanmean())

    def pixel_accuracy(self) -> float:
        """Return the share of counted pixels that are right; nan if there is none."""
        counts_kk = self.counts_kk.double()
        return float(counts_kk.diagonal().sum() / counts_kk.sum())


class CompositeScores:
    """Count, at every level, how well composite cells are found and how many cells are propagated.

    Only visited nodes are seen: under a scheme that stops early, recall says nothing of cells below.
    A node whose target is IGNORE_INDEX is neither right nor wrong, but it is a site if it is propagated.

    Parameters
    ----------
    levels
        Number of levels.
    device
        Where the counts live: that of the predictions.

    Attributes
    ----------
    counts_l5
        (l, 5) int64 by level: composites both predicted and true, predicted, true; active sites; cells of
        the full grid.
    """

    def __init__(self, levels: int = 6, device: torch.device | str = "cpu") -> None:
        self.counts_l5 = torch.zeros(levels, 5, dtype=torch.int64, device=device)

    def update(self, prediction: QuadtreePrediction) -> Self:
        """Count a prediction that was made with labels."""
        for level, target_n in enumerate(prediction.targets):
            at = prediction.levels[level]
            valid_n = target_n != IGNORE_INDEX
            predicted_n = (at.logits_nk.argmax(1) == COMPOSITE_CHANNEL) & valid_n
            true_n = target_n == COMPOSITE_CHANNEL
            counts = [(predicted_n & true_n).sum(), predicted_n.sum(), true_n.sum()]
            batch, rows, cols = at.nodes.shape
            known = [0 if at.sites is None else len(at.sites), batch * rows * cols]
            self.counts_l5[level] += torch.stack([*counts, *(counts[0].new_tensor(n) for n in known)])
        return self

    def precision_l(self) -> Tensor:
        """Return the share of predicted composites that are composite, (l,) float64, nan without any."""
        return self.counts_l5[:, 0].double() / self.counts_l5[:, 1]

    def recall_l(self) -> Tensor:
        """Return the share of visited true composites that are predicted, (l,) float64, nan without any."""
        return self.counts_l5[:, 0].double() / self.counts_l5[:, 2]

    def sites_l(self) -> Tensor:
        """Return the active sites of each level, (l,) int64, summed over the images."""
        return self.counts_l5[:, 3]

    def share_l(self) -> Tensor:
        """Return the active sites as a share of each level's cells, (l,) float64."""
        return self.counts_l5[:, 3].double() / self.counts_l5[:, 4]

    def share(self) -> float:
        """Return the active sites of all levels above the pixels as a share of their cells."""
        _, *above = self.counts_l5[:, 3:].double()
        sites, cells = torch.stack(above).sum(0)
        return float(sites / cells)
