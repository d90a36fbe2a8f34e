"""The training loss: cross entropy of every level or head, weighted and summed (Eq. 4 and 6).

Shapes: n visited nodes of a level, or pixels of a head, k channels, l levels or heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qgn.models.segmenter import Segmenter
from qgn.sparse.frontier import IGNORE_INDEX


class LossValue(NamedTuple):
    """A scalar to differentiate, and each level's or head's own loss, (l,) without gradient."""

    total: Tensor
    per_level_l: Tensor


def level_loss(logits_nk: Tensor, targets_n: Tensor) -> Tensor:
    """Return the mean cross entropy over the visited nodes of a level (Eq. 4), or the pixels of a head.

    Parameters
    ----------
    logits_nk
        (n, k) float.
    targets_n
        (n,) int64 in 0..k - 1; nodes of IGNORE_INDEX do not count. Exactly zero if none counts.
    """
    count = (targets_n != IGNORE_INDEX).sum().clamp(min=1)
    total = F.cross_entropy(logits_nk, targets_n, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / count


class HeadLoss(nn.Module):
    """Weigh and sum the losses of heads. The weights are a buffer: a checkpoint keeps them.

    Parameters
    ----------
    beta_l
        (l,) float, the weight of each head.
    """

    beta_l: Tensor

    def __init__(self, beta_l: Tensor) -> None:
        super().__init__()
        self.register_buffer("beta_l", beta_l)

    def forward(self, logits: Sequence[Tensor], targets: Sequence[Tensor]) -> LossValue:
        """Return the loss of a prediction.

        Parameters
        ----------
        logits, targets
            Of each head: a prediction's `logits` and `targets`.
        """
        losses_l = torch.stack([level_loss(*head) for head in zip(logits, targets, strict=True)])
        total = (self.beta_l.to(losses_l.dtype) * losses_l).sum()
        return LossValue(total, losses_l.detach())


class QuadtreeLoss(HeadLoss):
    """Weigh and sum the levels' losses (Eq. 6).

    Parameters
    ----------
    weighting
        `fixed`: pixels weigh 1, each coarser level gamma times the one below it (Eq. 7). `adaptive`: each level
        weighs its own running mean loss, from 1 on (Eq. 8).
    gamma
        Ratio of fixed weights.
    delta
        Inertia of adaptive weights.
    levels
        Number of levels.
    """

    def __init__(
        self,
        weighting: Literal["fixed", "adaptive"] = "adaptive",
        *,
        gamma: float = 1.0,
        delta: float = 0.99,
        levels: int = 6,
    ) -> None:
        if weighting not in ("fixed", "adaptive"):
            raise ValueError(f"unknown loss weighting {weighting!r}: choose one of fixed, adaptive")
        adaptive = weighting == "adaptive"
        super().__init__(torch.ones(levels) if adaptive else gamma ** torch.arange(levels, dtype=torch.float32))
        self.adaptive = adaptive
        self.delta = delta

    def forward(self, logits: Sequence[Tensor], targets: Sequence[Tensor]) -> LossValue:
        """Return the loss of a prediction; in training mode, adaptive weights then take their next step.

        Parameters
        ----------
        logits, targets
            Of level 0, 1, ...: `QuadtreePrediction.logits` and `.targets`.
        """
        total, per_level_l = super().forward(logits, targets)
        if self.training and self.adaptive:
            # A level without a counted node has no loss to average: its weight rests.
            counted_l = torch.stack([(level != IGNORE_INDEX).any() for level in targets])
            next_l = self.delta * self.beta_l + (1 - self.delta) * per_level_l.to(self.beta_l.dtype)
            self.beta_l = torch.where(counted_l, next_l, self.beta_l)
        return LossValue(total, per_level_l)


def criterion_of(
    model: Segmenter, weighting: Literal["fixed", "adaptive"] = "adaptive", *, gamma: float = 1.0
) -> HeadLoss:
    """Return the loss that a model is trained with: its own weights where it has them, else a `QuadtreeLoss`.

    Parameters
    ----------
    weighting, gamma
        As `QuadtreeLoss`; models with weights of their own leave them unused.
    """
    if model.loss_weights is None:
        return QuadtreeLoss(weighting, gamma=gamma)
    return HeadLoss(torch.tensor(model.loss_weights))
