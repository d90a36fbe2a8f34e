"""The tree on tensors: which cells of each level are visited, which go on, and what the labels say of them.

Level order makes all of it arithmetic: the four children of a level's i-th active cell are nodes 4i..4i+3
of the next finer level, in the order (0,0) (0,1) (1,0) (1,1) of (y, x). Under ground-truth propagation the
label's own nodes of a level are therefore its targets. Under the other schemes every visited cell carries
its place in the label tree, and a cell below a leaf of that tree inherits the leaf's class: the T-pyramid
query of Eq. 5, without a raster.

Shapes: n visited nodes of a level, m active ones, p pairs of neighbours; 9 cells of a 3x3 neighbourhood in
row-major order, so that 4 is the cell itself; 4 children of a cell.
"""

from __future__ import annotations

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
    """What the frontier asks of a batch of label trees; `qgn.data.batch.LabelBatch` answers it."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Batch size, rows and columns of the coarsest level."""

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


@dataclass(frozen=True)
class Sites:
    """The active cells of one level and their neighbours among themselves.

    Attributes
    ----------
    node_m
        (m,) int64, ascending: index of each site among the visited nodes of its level.
    nbr_9m
        (9, m) int64: the site in each of the nine places, -1 where that cell is not active. Symmetric:
        nbr_9m[k, i] = j exactly where nbr_9m[8 - k, j] = i.
    """

    node_m: Tensor
    nbr_9m: Tensor

    def __len__(self) -> int:
        return self.node_m.shape[0]

    @cached_property
    def pairs(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Pairs (site_p, neighbour_p) in places 0 to 3. Those in place 8 - k are the pairs of k, swapped."""
        pairs = []
        for nbr_m in self.nbr_9m[:4]:
            site_p = (nbr_m >= 0).nonzero().squeeze(1)
            pairs.append((site_p, nbr_m[site_p]))
        return tuple(pairs)


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


def select_sites(nodes: Nodes, active_n: Tensor, parents: Sites | None) -> Sites:
    """Return the active ones of a level's nodes, with their neighbour table.

    The table follows from the parents' one: a neighbour of a child is a sibling of it, or a child of a
    neighbour of its parent. No hashing, no sorting, no dense map.

    Parameters
    ----------
    nodes
        The visited nodes of the level.
    active_n
        (n,) bool.
    parents
        The sites whose children the nodes are; None at the coarsest level, whose nodes are the full grid.
    """
    node_m = active_n.nonzero().squeeze(1)
    site_n = torch.where(active_n, active_n.cumsum(0) - 1, -1)
    if parents is None:
        near_9m, inside_9m = _grid_neighbours(nodes.shape, node_m)
    else:
        near_9m, inside_9m = _child_neighbours(parents, node_m)
    nbr_9m = torch.where(inside_9m, site_n[near_9m.clamp(0, max(len(nodes) - 1, 0))], -1)
    return Sites(node_m, nbr_9m)


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
    cell_m = nodes.cell_n[sites.node_m]
    child_4 = torch.arange(4, device=cell_m.device)
    corner_4 = child_4 // 2 * (2 * cols) + child_4 % 2
    # Row r and column x become 2r and 2x in a grid of twice the columns.
    corner_m = 4 * cell_m - 2 * (cell_m % cols)
    cell_n = (corner_m[:, None] + corner_4).flatten()
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


def _outside(nodes: Nodes, boxes_b4: Tensor) -> Tensor:
    """Return which nodes share no pixel with their image, (n,) bool."""
    image_n, y_n, x_n = nodes.positions()
    top_n, left_n, bottom_n, right_n = boxes_b4[image_n].T
    side = 2**nodes.level
    above_or_left_n = ((y_n + 1) * side <= top_n) | ((x_n + 1) * side <= left_n)
    return above_or_left_n | (y_n * side >= bottom_n) | (x_n * side >= right_n)


def _offsets(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return y and x of the nine places, each (9,) in -1..1."""
    place_9 = torch.arange(9, device=device)
    return place_9 // 3 - 1, place_9 % 3 - 1


def _grid_neighbours(shape: tuple[int, int, int], node_m: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nodes around nodes of a full row-major grid, and whether they lie in the same image."""
    _, rows, cols = shape
    offset_y, offset_x = _offsets(node_m.device)
    y_9m = node_m // cols % rows + offset_y[:, None]
    x_9m = node_m % cols + offset_x[:, None]
    near_9m = node_m + (offset_y * cols + offset_x)[:, None]
    return near_9m, (y_9m >= 0) & (y_9m < rows) & (x_9m >= 0) & (x_9m < cols)


def _child_neighbours(parents: Sites, node_m: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nodes around children of `parents`, and whether they were visited at all."""
    offset_y, offset_x = _offsets(node_m.device)
    child_4 = torch.arange(4, device=node_m.device)
    y_94 = child_4 // 2 + offset_y[:, None]
    x_94 = child_4 % 2 + offset_x[:, None]
    # -1..2 in units of cells: the parent's place is the floored half, the place within it the rest.
    parent_place_94 = 3 * ((y_94 >> 1) + 1) + (x_94 >> 1) + 1
    child_94 = 2 * (y_94 & 1) + (x_94 & 1)
    parent_m, own_m = node_m // 4, node_m % 4
    parent_9m = parents.nbr_9m.flatten()[parent_place_94[:, own_m] * len(parents) + parent_m]
    return 4 * parent_9m + child_94[:, own_m], parent_9m >= 0
