"""The tree on tensors: which cells of each level are visited, which go on, and what the labels say of them.

Level order makes all of it arithmetic: the four children of a level's i-th active cell are nodes 4i..4i+3
of the next finer level, in the order (0,0) (0,1) (1,0) (1,1) of (y, x). Under ground-truth propagation the
label's own nodes of a level are therefore its targets; under the other schemes every visited cell carries
its place in the label tree, and a cell below a leaf of that tree inherits the leaf's class (the T-pyramid
query, Eq. 5) without a raster being made.

Shapes: n visited nodes of a level, m active ones (m <= n), 9 offsets of a 3x3 neighbourhood in row-major
order, so that offset 4 is the cell itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

COMPOSITE_CHANNEL = 0
"""Channel of the composite class in logits and targets; class c is channel c + 1."""
IGNORE_INDEX = -100
"""Target of a cell that no loss and no metric counts: void, or wholly outside the image."""


class Labels(Protocol):
    """What a level needs to know of a batch of label trees (`qgn.data.batch.LabelBatch` has it)."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Batch size, rows and columns of the coarsest level."""

    def level(self, level: int) -> Tensor:
        """Targets of all the batch's nodes of one level, in level order."""


@dataclass(frozen=True)
class Nodes:
    """The visited cells of one level.

    Attributes
    ----------
    level
        0 for pixels, 5 for the coarsest.
    shape
        Batch size, rows and columns of the level's full grid.
    cell_n
        (n,) int64, position of each node in the full grid: (image * rows + y) * columns + x.
    target_n
        (n,) int64 channel (Eq. 5) or IGNORE_INDEX; None without labels.
    truth_n
        (n,) int64 index of the same cell among the label tree's nodes of this level, -1 below a leaf of that
        tree. None without labels, and where the visited nodes are the label tree's own.
    """

    level: int
    shape: tuple[int, int, int]
    cell_n: Tensor
    target_n: Tensor | None = None
    truth_n: Tensor | None = None

    def __len__(self) -> int:
        return self.cell_n.shape[0]

    def positions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return image, y and x of every node, each (n,) int64."""
        _, rows, cols = self.shape
        row_n = torch.div(self.cell_n, cols, rounding_mode="floor")
        image_n = torch.div(row_n, rows, rounding_mode="floor")
        return image_n, row_n - image_n * rows, self.cell_n - row_n * cols


@dataclass(frozen=True)
class Sites:
    """The active cells of one level, and who their neighbours are.

    Attributes
    ----------
    node_m
        (m,) int64, ascending: index of each site among the level's visited nodes.
    nbr_9m
        (9, m) int64: the site at each of the nine offsets, -1 where that cell is not active.
        nbr_9m[k, i] = j exactly if nbr_9m[8 - k, j] = i.
    """

    node_m: Tensor
    nbr_9m: Tensor

    def __len__(self) -> int:
        return self.node_m.shape[0]

    @cached_property
    def pairs(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Pairs (site, neighbour) of offsets 0 to 3; offset 8 - k holds the pairs of k the other way round."""
        pairs = []
        for nbr_m in self.nbr_9m[:4]:
            site_p = (nbr_m >= 0).nonzero().squeeze(1)
            pairs.append((site_p, nbr_m[site_p]))
        return tuple(pairs)


Choose = Callable[[Nodes, Tensor], Tensor]
"""A propagation rule: the visited nodes and their (n, k + 1) logits in, the (n,) mask of active ones out."""


def choose_all(nodes: Nodes, logits_nk: Tensor) -> Tensor:
    """Propagate every cell (scheme `all`)."""
    return torch.ones(len(nodes), dtype=torch.bool, device=logits_nk.device)


def choose_true_composites(nodes: Nodes, logits_nk: Tensor) -> Tensor:  # noqa: ARG001
    """Propagate the cells that are composite in the ground truth (scheme `gtc`)."""
    if nodes.target_n is None:
        raise ValueError("propagation 'gtc' follows the ground truth: labels are needed")
    return nodes.target_n == COMPOSITE_CHANNEL


def choose_predicted_composites(nodes: Nodes, logits_nk: Tensor) -> Tensor:  # noqa: ARG001
    """Propagate the cells predicted to be composite (scheme `pc`)."""
    return logits_nk.argmax(1) == COMPOSITE_CHANNEL


SCHEMES: dict[str, Choose] = {
    "all": choose_all,
    "gtc": choose_true_composites,
    "pc": choose_predicted_composites,
}
"""Propagation schemes by name (section 3.3 of the paper)."""
