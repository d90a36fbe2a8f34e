"""Unpack the sections of a fast record on any device, in plain torch operations (docs/format.md, section 4).

Nothing runs from node to node: each level is prefix sums, gathers and table lookups over the level above, and the host
knows all lengths beforehand, so that nothing waits for a GPU. `quadcodec.kernels.unpack` gives the same nodes.

Shapes: n nodes of a level, m composites of the level above, K labels, P pairs, s symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from quadcodec.fast import Packed
from quadcodec.kernels import codes
from quadcodec.quadtree import LinearQuadtree


@dataclass(frozen=True)
class Packing:
    """Say how long the streams of packed trees are.

    Attributes
    ----------
    counts : number of nodes of each level, coarse to fine.
    multis : number of multi composites of each level but the pixels, coarse to fine.
    num_labels, num_pairs : K and P.
    id_width : bytes of a class id, 1 or 2.
    """

    counts: tuple[int, ...]
    multis: tuple[int, ...]
    num_labels: int
    num_pairs: int
    id_width: int

    @classmethod
    def of(cls, packed: Packed, tree: LinearQuadtree) -> Packing:
        """Return that of a tree from its sections."""
        counts, id_width = tuple(reversed(tree.counts)), tree.mask_dtype.itemsize
        return cls(counts, packed.multis, packed.num_labels, packed.num_pairs, id_width)

    @property
    def multi(self) -> int:
        """Symbol of a multi composite: the largest that is written."""
        return self.num_labels + self.num_pairs

    @property
    def outside(self) -> int:
        """Symbol of a cell outside its image: not written, implied by its position."""
        return self.multi + 1


@dataclass(frozen=True)
class Canvas:
    """Say where the cells of packed trees lie.

    Attributes
    ----------
    grid : images, rows and columns of the coarsest level of each.
    boxes_b4 : first row and column of each image in pixels, and row and column after its last, int64.
    """

    grid: tuple[int, int, int]
    boxes_b4: Tensor


def unpack(data_n: Tensor, packing: Packing, canvas: Canvas | None = None) -> tuple[Tensor, list[Tensor]]:
    """Read all levels of trees that were packed as one: their coarsest grids one below the other.

    Parameters
    ----------
    data_n
        (n,) uint8: the sections before their entropy stage, one after another.
    packing
        Lengths of their streams.
    canvas
        Where the images lie; None if no cell is outside its image.

    Returns
    -------
    labels_k : class ids, int64.
    levels : symbols of the nodes of each level, coarse to fine, (n,) int64 each: label index, K + pair,
        `Packing.multi` or `Packing.outside`.
    """
    device = data_n.device
    splits, pixel_splits = _splits(device)
    stream = _Stream(data_n)
    labels_k = stream.take(packing.num_labels, packing.id_width)
    pairs_p2 = stream.take(2 * packing.num_pairs, _width(packing.num_labels - 1)).view(-1, 2)
    # Symbols of a pair's children by their digits: low class, high class, the pair itself.
    child_s3 = torch.arange(packing.multi + 1, device=device)[:, None].repeat(1, 3)
    child_s3[packing.num_labels : packing.multi, :2] = pairs_p2

    symbols_n = stream.take(packing.counts[0], _width(packing.multi))
    cells_n3 = None if canvas is None else _coarsest_cells(canvas.grid, device)
    levels = [_trimmed(symbols_n, packing, canvas, cells_n3, len(packing.counts) - 1)]
    for depth, count in enumerate(packing.counts[1:], 1):
        level = len(packing.counts) - 1 - depth
        node_m = _positions(symbols_n >= packing.num_labels, count // 4)
        symbol_m = symbols_n[node_m]
        order_m = _orders(symbols_n, node_m, child_s3[symbol_m]) if depth > 1 else torch.full_like(node_m, codes.ALONE)
        symbols_n = _children(stream, packing, depth, symbol_m, order_m, child_s3, splits if level else pixel_splits)
        if cells_n3 is not None:
            cells_n3 = _child_cells(cells_n3[node_m])
        levels.append(_trimmed(symbols_n, packing, canvas, cells_n3, level))
    return labels_k, levels


class _Stream:
    """Numbers that are read one after another."""

    def __init__(self, data_n: Tensor) -> None:
        self._data_n = data_n
        self._at = 0

    def take(self, count: int, width: int) -> Tensor:
        """Return the next (count,) little-endian numbers of ``width`` bytes, int64."""
        start, self._at = self._at, self._at + count * width
        bytes_nw = self._data_n[start : self._at].view(-1, width).long()
        return bytes_nw @ bytes_nw.new_tensor([256**k for k in range(width)]) if width > 1 else bytes_nw.squeeze(1)


def _width(largest: int) -> int:
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4


@lru_cache(maxsize=8)
def _splits(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the digits of the four children by 81 order + place, and by 16 order + place for pixels."""
    cells = codes.DIGITS[codes.CODE_AT].reshape(-1).view(np.uint8).reshape(-1, 4)
    pixels = codes.PIXEL_DIGITS.reshape(-1).view(np.uint8).reshape(-1, 4)
    return torch.from_numpy(cells).long().to(device), torch.from_numpy(pixels).long().to(device)


def _positions(chosen_n: Tensor, count: int) -> Tensor:
    """Return the positions of the ``count`` true entries, (count,) int64; `nonzero` would wait for the device."""
    rank_n = torch.where(chosen_n, chosen_n.cumsum(0) - 1, count)
    position_n = torch.arange(len(chosen_n), device=chosen_n.device)
    return position_n.new_empty(count + 1).scatter_(0, rank_n, position_n)[:count]


def _orders(symbols_n: Tensor, node_m: Tensor, child_m3: Tensor) -> Tensor:
    """Return which order of codes holds for each composite, from the siblings beside and above or below it."""

    def state_m(sibling_m: Tensor) -> Tensor:
        symbol_m = symbols_n[sibling_m]
        return 2 - 2 * (symbol_m == child_m3[:, 0]).long() - (symbol_m == child_m3[:, 1]).long()

    return state_m(node_m ^ 1) + 3 * state_m(node_m ^ 2) + 9 * (node_m & 3)


def _children(
    stream: _Stream, packing: Packing, depth: int, symbol_m: Tensor, order_m: Tensor, child_s3: Tensor, splits: Tensor
) -> Tensor:
    """Return the symbols of the children of composites, (4m,)."""
    pixels = depth == len(packing.counts) - 1
    multis = packing.multis[depth - 1]
    pairs = len(symbol_m) - multis
    told_m4 = stream.take(4 * multis, _width(packing.num_labels - 1 if pixels else packing.multi)).view(-1, 4)
    if pixels:
        packed_n = stream.take((pairs + 1) // 2, 1)
        place_n = torch.stack((packed_n & 15, packed_n >> 4), dim=1).flatten()
    else:
        place_n = stream.take(pairs, 1)
    is_multi_m = symbol_m == packing.multi
    rank_m = is_multi_m.cumsum(0)
    position_m = torch.arange(len(symbol_m), device=symbol_m.device)
    if pairs:
        place_m = place_n[torch.where(is_multi_m, 0, position_m - rank_m)]
        digits_m4 = splits[(16 if pixels else codes.NUM_CODES) * order_m + place_m]
        children_m4 = child_s3[symbol_m[:, None], digits_m4]
        if not multis:
            return children_m4.flatten()
        return torch.where(is_multi_m[:, None], told_m4[(rank_m - 1).clamp(min=0)], children_m4).flatten()
    return told_m4.flatten()


def _coarsest_cells(grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """Return image, y and x of the coarsest level's nodes, (n, 3)."""
    images, rows, cols = grid
    cell_n = torch.arange(images * rows * cols, device=device)
    row_n = cell_n // cols
    return torch.stack((row_n // rows, row_n % rows, cell_n % cols), dim=1)


def _child_cells(parents_m3: Tensor) -> Tensor:
    """Return image, y and x of the children of cells, (4m, 3)."""
    child_43 = parents_m3.new_tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]])
    return ((parents_m3 * parents_m3.new_tensor([1, 2, 2]))[:, None] + child_43).flatten(0, 1)


def _trimmed(symbols_n: Tensor, packing: Packing, canvas: Canvas | None, cells_n3: Tensor | None, level: int) -> Tensor:
    """Return the symbols of a level with those of cells outside their image replaced."""
    if canvas is None or cells_n3 is None:
        return symbols_n
    image_n, y_n, x_n = cells_n3.T
    top_n, left_n, bottom_n, right_n = canvas.boxes_b4[image_n].T
    side = 2**level
    above_or_left_n = ((y_n + 1) * side <= top_n) | ((x_n + 1) * side <= left_n)
    outside_n = above_or_left_n | (y_n * side >= bottom_n) | (x_n * side >= right_n)
    return torch.where(outside_n, packing.outside, symbols_n)
