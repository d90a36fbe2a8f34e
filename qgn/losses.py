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
    """A scalar to differentiate, each level's or head's own loss, and the nodes that count there, (l,) each."""

    total: Tensor
    per_level_l: Tensor
    """Without gradient."""
    counts_l: Tensor


def counted(targets: Sequence[Tensor]) -> Tensor:
    """Return the number of nodes that count of each level, (l,) int64."""
    return torch.stack([(target_n != IGNORE_INDEX).sum() for target_n in targets])


def level_loss(
    logits_nk: Tensor, targets_n: Tensor, count: Tensor | None = None, weight_k: Tensor | None = None
) -> Tensor:
    """Return the mean cross entropy over the visited nodes of a level (Eq. 4), or the pixels of a head.

    Parameters
    ----------
    logits_nk
        (n, k) float.
    targets_n
        (n,) int64 in 0..k - 1; nodes of IGNORE_INDEX do not count. Exactly zero if none counts.
    count
        What to divide the sum by, where these are not all nodes of the training step; by default those that count.
    weight_k
        (k,) float, the weight of each channel's nodes. The divisor stays their number.
    """
    count = counted([targets_n])[0] if count is None else count
    weight_k = None if weight_k is None else weight_k.to(logits_nk.dtype)
    total = F.cross_entropy(logits_nk, targets_n, weight_k, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / count.clamp(min=1)


class HeadLoss(nn.Module):
    """Weigh and sum the losses of heads. The weights are buffers: a checkpoint keeps them.

    Parameters
    ----------
    beta_l
        (l,) float, the weight of each head.
    """

    beta_l: Tensor
    weight_k: Tensor | None

    def __init__(self, beta_l: Tensor) -> None:
        super().__init__()
        self.register_buffer("beta_l", beta_l)
        self.register_buffer("weight_k", None)

    def forward(self, logits: Sequence[Tensor], targets: Sequence[Tensor], counts_l: Tensor | None = None) -> LossValue:
        """Return the loss of a prediction.

        Parameters
        ----------
        logits, targets
            Of each level or head: a prediction's `logits` and `targets`.
        counts_l
            As `level_loss`, for each level: those of a whole training step, of which this is a part.
        """
        counts_l = counted(targets) if counts_l is None else counts_l
        losses_l = torch.stack(
            [level_loss(*level, self.weight_k) for level in zip(logits, targets, counts_l, strict=True)]
        )
        total = (self.beta_l.to(losses_l.dtype) * losses_l).sum()
        return LossValue(total, losses_l.detach(), counts_l)

    def weigh_classes(self, weights_c: Tensor) -> None:
        """Weigh the classes: (c,) float, see `qgn.class_weights`."""
        self.weight_k = weights_c.to(self.beta_l)

    def advance(self, per_level_l: Tensor, counts_l: Tensor) -> None:
        """Take note of a training step: its loss and its counted nodes by level. Here the weights are fixed."""


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

    def weigh_classes(self, weights_c: Tensor) -> None:
        """Weigh the classes, (c,) float; composites weigh 1."""
        super().weigh_classes(torch.cat([weights_c.new_ones(1), weights_c]))

    def advance(self, per_level_l: Tensor, counts_l: Tensor) -> None:
        """Let adaptive weights take their next step (Eq. 8); that of a level without a counted node rests."""
        if self.adaptive:
            next_l = self.delta * self.beta_l + (1 - self.delta) * per_level_l.to(self.beta_l.dtype)
            self.beta_l = torch.where(counts_l > 0, next_l, self.beta_l)


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
