"""The tree on tensors: which cells of each level are visited, which go on, and what the labels say of them.

Level order makes all of it arithmetic: the four children of a level's i-th active cell are nodes 4i..4i+3
of the next finer level, in the order (0,0) (0,1) (1,0) (1,1) of (y, x). Under ground-truth propagation the
label's own nodes of a level are therefore its targets. Under the other schemes every visited cell carries
its place in the label tree, and a cell below a leaf of that tree inherits the leaf's class: the T-pyramid
query of Eq. 5, without a raster.

Shapes: n visited nodes of a level, m active ones; 4 children of a cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .sites import Sites

COMPOSITE_CHANNEL = 0
"""Channel of the composite class in logits and targets; class c is channel c + 1."""
IGNORE_INDEX = -100
"""Target of a cell that no loss and no metric counts: void, or wholly outside the image."""


class Labels(Protocol):
    """What the frontier asks of a batch of label trees; `qgn.data.batch.LabelBatch` answers it."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Batch size, rows and columns of the coarsest level."""

    @property
    def levels(self) -> int:
        """Number of levels, 6 where the coarsest cells have 32 pixels a side."""

    @property
    def padded(self) -> bool:
        """Whether an image leaves a part of the batch's canvas uncovered."""

    @property
    def boxes_b4(self) -> Tensor:
        """First row and column of each image in the canvas, row and column after its last, (B, 4)."""

    def level(self, level: int) -> Tensor:
        """Targets of all nodes of one level, in level order, as channels or IGNORE_INDEX."""


@dataclass(frozen=True)
class Nodes:
    """The visited cells of one level.

    Attributes
    ----------
    level
        0 for pixels.
    shape
        Batch size, rows and columns of the level's full grid.
    cell_n
        (n,) int64, place of each node in the full grid: (image * rows + y) * columns + x.
    target_n
        (n,) int64, channel or IGNORE_INDEX of each node (Eq. 5). None without labels.
    truth_n
        (n,) int64, index of the same cell among the label tree's nodes of this level, -1 below a leaf of
        that tree. None without labels, and where the visited nodes are the label tree's own.
    """

    level: int
    shape: tuple[int, int, int]
    cell_n: Tensor
    target_n: Tensor | None = None
    truth_n: Tensor | None = None

    def __len__(self) -> int:
        return self.cell_n.shape[0]

    def positions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image, y and x of every node, each (n,) int64."""
        _, rows, cols = self.shape
        row_n = self.cell_n // cols
        return row_n // rows, row_n % rows, self.cell_n % cols


def root_nodes(
    grid: tuple[int, int, int],
    level: int,
    *,
    labels: Labels | None = None,
    follow_truth: bool = False,
    device: torch.device | None = None,
) -> Nodes:
    """Return the coarsest level: every cell of its grid, image by image, in row-major order.

    Parameters
    ----------
    grid
        Batch size, rows and columns.
    level
        Number of the coarsest level.
    labels
        Label trees whose coarsest level has this grid, on `device`.
    follow_truth
        Promise that the sites of every level will be exactly the label tree's composite nodes; the nodes of
        each level are then the label tree's, and need no query.

    Raises
    ------
    ValueError
        The labels have another grid.
    """
    if labels is not None and labels.grid != grid:
        raise ValueError(
            f"the labels' coarsest grid is {labels.grid} (batch, rows, columns), the images' {grid}: "
            "pad the images to the labels' canvas"
        )
    batch, rows, cols = grid
    cell_n = torch.arange(batch * rows * cols, device=device)
    if labels is None:
        return Nodes(level, grid, cell_n)
    return Nodes(level, grid, cell_n, labels.level(level).long(), None if follow_truth else cell_n)


def child_nodes(nodes: Nodes, sites: Sites, labels: Labels | None) -> Nodes:
    """Return the four children of every site, in site order.

    A child of a composite label node takes its target from that node's child; any other child takes its
    parent's, or IGNORE_INDEX if it lies outside the image (Eq. 5).

    Raises
    ------
    ValueError
        `follow_truth` was promised to `root_nodes` and the sites are not the label tree's composites.
    """
    batch, rows, cols = nodes.shape
    cell_m = sites.cell_m
    cell_n = child_cells(cell_m, cols)
    level, shape = nodes.level - 1, (batch, 2 * rows, 2 * cols)
    if labels is None or nodes.target_n is None:
        return Nodes(level, shape, cell_n)
    target_n = labels.level(level).long()
    if nodes.truth_n is None:
        if len(target_n) != len(cell_n):
            raise ValueError(
                f"level {level}: the labels have {len(target_n)} nodes, the sites {len(cell_n)} children: "
                "sites that differ from the ground truth need follow_truth=False"
            )
        return Nodes(level, shape, cell_n, target_n)
    first_n = 4 * ((labels.level(nodes.level) == COMPOSITE_CHANNEL).cumsum(0) - 1)
    child_4 = torch.arange(4, device=cell_m.device)
    target_m = nodes.target_n[sites.node_m]
    split_m = target_m == COMPOSITE_CHANNEL
    split_truth = first_n[nodes.truth_n[sites.node_m][split_m]][:, None] + child_4
    target_m4 = target_m[:, None].repeat(1, 4)
    target_m4[split_m] = target_n[split_truth]
    truth_m4 = torch.full_like(target_m4, -1)
    truth_m4[split_m] = split_truth
    children = Nodes(level, shape, cell_n, target_m4.flatten(), truth_m4.flatten())
    if labels.padded:
        children.target_n[_outside(children, labels.boxes_b4)] = IGNORE_INDEX
    return children


def child_cells(cell_m: Tensor, cols: int) -> Tensor:
    """Return the places of the four children of cells of a grid of `cols` columns, in its double, (4m,) int64."""
    child_4 = torch.arange(4, device=cell_m.device)
    corner_4 = child_4 // 2 * (2 * cols) + child_4 % 2
    # Row r and column x become 2r and 2x in a grid of twice the columns.
    corner_m = 4 * cell_m - 2 * (cell_m % cols)
    return (corner_m[:, None] + corner_4).flatten()


def _outside(nodes: Nodes, boxes_b4: Tensor) -> Tensor:
    """Return which nodes share no pixel with their image, (n,) bool."""
    image_n, y_n, x_n = nodes.positions()
    top_n, left_n, bottom_n, right_n = boxes_b4[image_n].T
    side = 2**nodes.level
    above_or_left_n = ((y_n + 1) * side <= top_n) | ((x_n + 1) * side <= left_n)
    return above_or_left_n | (y_n * side >= bottom_n) | (x_n * side >= right_n)
