"""Quadtree predictions: logits at every visited cell, and their merging into pixels.

Shapes: b images, n visited nodes of a level, k classes and the composite one, h and w rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from qgn.sparse.budget import Costs
from qgn.sparse.frontier import COMPOSITE_CHANNEL, Nodes
from qgn.sparse.sites import Sites


@dataclass(frozen=True)
class LevelPrediction:
    """What is predicted at one level.

    Attributes
    ----------
    nodes
        The visited cells, with their targets where labels were given.
    logits_nk
        (n, k + 1): channel 0 is composite, channel c + 1 is class c.
    sites
        The cells that go on to the next level; None at level 0, where none does.
    """

    nodes: Nodes
    logits_nk: Tensor
    sites: Sites | None


@dataclass(frozen=True)
class QuadtreePrediction:
    """A batch of predicted quadtrees; `levels[l]` is level l, 0 for pixels."""

    levels: tuple[LevelPrediction, ...]

    @property
    def logits(self) -> tuple[Tensor, ...]:
        """Logits of each level, (n, k + 1)."""
        return tuple(level.logits_nk for level in self.levels)

    @property
    def targets(self) -> tuple[Tensor, ...]:
        """Targets of each level, (n,) int64: channel or IGNORE_INDEX.

        Raises
        ------
        ValueError
            The prediction was made without labels.
        """
        targets = tuple(level.nodes.target_n for level in self.levels if level.nodes.target_n is not None)
        if len(targets) != len(self.levels):
            raise ValueError("the prediction has no targets: it was made without labels")
        return targets

    @property
    def active_sites(self) -> tuple[int, ...]:
        """Number of cells of each level that are propagated, 0 at level 0."""
        return tuple(0 if level.sites is None else len(level.sites) for level in self.levels)

    def macs(self, costs: Costs) -> int:
        """Return what the decoder computed for the batch, in multiply-adds: neighbours that were absent cost nothing.

        Parameters
        ----------
        costs
            `Decoder.costs`.
        """
        cells = prod(self.levels[-1].nodes.shape)
        return costs.total(cells, [(at.nodes.level, at.sites) for at in self.levels if at.sites is not None])

    @torch.no_grad()
    def to_pixels(self) -> Tensor:
        """Merge the levels into a class for every pixel of the canvas.

        Each pixel takes the class of its leaf: of the finest visited cell that holds it. At a leaf where the
        composite class wins, the second best one counts (section 3.2): the composite channel is left out.

        Returns
        -------
        Tensor
            (B, H, W) int64 classes 0..k - 1; H and W are those of the images given to the model.
        """
        *finer, coarsest = self.levels
        map_bhw = _classes(coarsest).view(coarsest.nodes.shape)
        for level in reversed(finer):
            # All four children of an active cell are visited: they cover what their parent painted.
            map_bhw = map_bhw.repeat_interleave(2, 1).repeat_interleave(2, 2)
            map_bhw.view(-1)[level.nodes.cell_n] = _classes(level)
        return map_bhw


def _classes(level: LevelPrediction) -> Tensor:
    """Return the best class of every node, (n,) int64."""
    return level.logits_nk[:, COMPOSITE_CHANNEL + 1 :].argmax(1)
