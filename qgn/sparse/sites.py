"""The active cells of a level and the structure that its convolutions need: built once, used by every layer.

The table of a level follows from that of the level above it: a neighbour of a child is a sibling of it, or a
child of a neighbour of its parent. No hashing, no sorting, no dense map. On the CPU this is compiled
(kernels.py); on any other device, and in the tests, the same table comes of torch operations alone.

Shapes: n visited nodes of a level, m active ones, p pairs of neighbours; 9 cells of a 3x3 neighbourhood in
row-major order, so that 4 is the cell itself; 4 children of a cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from . import kernels

if TYPE_CHECKING:
    from .frontier import Nodes

T = TypeVar("T")
Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Sites:
    """The active cells of one level and their neighbours among themselves.

    Attributes
    ----------
    shape
        Batch size, rows and columns of the level's full grid.
    cell_m
        (m,) int64, place of each site in the full grid: (image * rows + y) * columns + x.
    node_m
        (m,) int64, ascending: index of each site among the visited nodes of its level.
    nbr_9m
        (9, m) int32, contiguous: the site in each of the nine places, -1 where that cell is not active.
        Symmetric: nbr_9m[k, i] = j exactly where nbr_9m[8 - k, j] = i.
    """

    shape: Shape
    cell_m: Tensor
    node_m: Tensor
    nbr_9m: Tensor
    _derived: dict[Callable[[Sites], Any], Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.node_m.shape[0]

    @property
    def pairs(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Pairs (site_p, neighbour_p) in places 0 to 3, each (p,) int64, ascending in their sites.

        Those in place 8 - k are the pairs of k, swapped.
        """
        return self.derive(_pairs)

    def positions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the image, y and x of every site, each (m,) int64."""
        _, rows, cols = self.shape
        row_m = self.cell_m // cols
        return row_m // rows, row_m % rows, self.cell_m % cols

    def derive(self, structure: Callable[[Sites], T]) -> T:
        """Return what a function makes of the sites; it is made once and kept for the layers to come."""
        if structure not in self._derived:
            self._derived[structure] = structure(self)
        return self._derived[structure]


def select_sites(nodes: Nodes, active_n: Tensor, parents: Sites | None) -> Sites:
    """Return the active ones of a level's nodes, with their neighbour table.

    Parameters
    ----------
    nodes
        The visited nodes of the level.
    active_n
        (n,) bool.
    parents
        The sites whose children the nodes are; None at the coarsest level, whose nodes are the full grid.
    """
    if active_n.device.type != "cpu":
        node_m, nbr_9m = tables_on_device(nodes.shape, active_n, parents)
    elif parents is None:
        node_m, nbr_9m = map(torch.from_numpy, kernels.grid_sites(active_n.numpy(), *nodes.shape[1:]))
    else:
        node_m, nbr_9m = map(torch.from_numpy, kernels.child_sites(active_n.numpy(), parents.nbr_9m.numpy()))
    return Sites(nodes.shape, nodes.cell_n[node_m], node_m, nbr_9m)


def tables_on_device(shape: Shape, active_n: Tensor, parents: Sites | None) -> tuple[Tensor, Tensor]:
    """Return node_m and nbr_9m of `Sites`, by torch operations on any device."""
    node_m = active_n.nonzero().squeeze(1)
    site_n = torch.where(active_n, active_n.cumsum(0, dtype=torch.int32) - 1, -1)
    near_9m, inside_9m = _grid_neighbours(shape, node_m) if parents is None else _child_neighbours(parents, node_m)
    nbr_9m = torch.where(inside_9m, site_n[near_9m.clamp(0, max(len(site_n) - 1, 0))], -1)
    return node_m, nbr_9m.to(torch.int32)


def _pairs(sites: Sites) -> tuple[tuple[Tensor, Tensor], ...]:
    if sites.nbr_9m.device.type == "cpu":
        site_p, near_p, ends = map(torch.from_numpy, kernels.pair_lists(sites.nbr_9m.numpy()))
        counts = ends.diff(prepend=ends.new_zeros(1)).tolist()
        return tuple(zip(site_p.split(counts), near_p.split(counts), strict=True))
    return pairs_on_device(sites)


def pairs_on_device(sites: Sites) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return `Sites.pairs` by torch operations on any device."""
    pairs = []
    for nbr_m in sites.nbr_9m[:4]:
        site_p = (nbr_m >= 0).nonzero().squeeze(1)
        pairs.append((site_p, nbr_m[site_p].long()))
    return tuple(pairs)


def _offsets(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return y and x of the nine places, each (9,) in -1..1."""
    place_9 = torch.arange(9, device=device)
    return place_9 // 3 - 1, place_9 % 3 - 1


def _grid_neighbours(shape: Shape, node_m: Tensor) -> tuple[Tensor, Tensor]:
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
    return 4 * parent_9m.long() + child_94[:, own_m], parent_9m >= 0
