"""Linear quadtrees: the nodes of a mask, level by level (Eq. 1 and 5 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import MaskError
from .kernels.pack import mark_labels
from .kernels.tree import gather_groups, merge_children, paint, split_cells
from .pyramid import COMPOSITE, OUTSIDE, TPyramid, check_level_count, merge_up

__all__ = ["LinearQuadtree", "relevel", "resample"]

_CHILD = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32)


@dataclass(frozen=True, eq=False)
class LinearQuadtree:
    """Hold the nodes of one mask in level order, coarse to fine.

    The coarsest level is the full grid of the canvas, row by row; below it the four children of each
    composite stand together, in the order (0,0) (0,1) (1,0) (1,1) of (y, x), parents in order (the paper's
    Fig. 1 runs clockwise). The canvas is the image padded to a multiple of 2**(levels-1).

    Attributes
    ----------
    nodes : (num_nodes,) int16 for 8-bit masks, int32 for 16-bit ones: a class id, COMPOSITE or OUTSIDE.
    counts : number of nodes of each level, indexed by level (0 is the pixels).
    height, width : size of the image in pixels.
    origin : (y, x) of the image on its canvas, in pixels; (0, 0) unless mirrored or cropped.
    """

    nodes: NDArray[Any]
    counts: tuple[int, ...]
    height: int
    width: int
    origin: tuple[int, int] = (0, 0)

    @classmethod
    def from_pyramid(cls, pyramid: TPyramid) -> LinearQuadtree:
        """Keep the cells that are no descendant of a uniform cell (Eq. 1)."""
        height, width = pyramid.mask.shape
        top = pyramid.upper[-1]
        nodes = [top.ravel()]
        parents = np.argwhere(top == COMPOSITE).astype(np.int32)
        for level in range(pyramid.levels - 2, -1, -1):
            below = pyramid.upper[level - 1] if level else pyramid.mask
            children = np.empty(4 * len(parents), top.dtype)
            composites = np.empty((np.count_nonzero(below == COMPOSITE) if level else 0, 2), np.int32)
            split_cells(parents, below, pyramid.origin[0] >> level, pyramid.origin[1] >> level, children, composites)
            nodes.append(children)
            parents = composites
        return cls(np.concatenate(nodes), tuple(len(n) for n in reversed(nodes)), height, width, pyramid.origin)

    @classmethod
    def from_mask(cls, mask: ArrayLike, levels: int = 6) -> LinearQuadtree:
        """Build the tree of an (H, W) uint8 or uint16 mask; errors as `TPyramid.from_mask`."""
        return cls.from_pyramid(TPyramid.from_mask(mask, levels))

    @property
    def levels(self) -> int:
        """Number of levels, pixels included."""
        return len(self.counts)

    @property
    def mask_dtype(self) -> np.dtype[Any]:
        """Type of the mask: uint8 or uint16."""
        return np.dtype(np.uint8 if self.nodes.dtype == np.int16 else np.uint16)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the coarsest level."""
        size = 1 << (self.levels - 1)
        return -(-(self.origin[0] + self.height) // size), -(-(self.origin[1] + self.width) // size)

    @cached_property
    def _offsets(self) -> tuple[int, ...]:
        """Start of each level in ``nodes``, indexed by level."""
        return tuple(sum(self.counts[level + 1 :]) for level in range(self.levels))

    def level(self, level: int) -> NDArray[Any]:
        """Return the (counts[level],) node values of a level: a view."""
        start = self._offsets[level]
        return self.nodes[start : start + self.counts[level]]

    def positions(self, level: int) -> NDArray[np.int32]:
        """Return the (counts[level], 2) canvas cells (y, x) of a level's nodes, in units of its cells."""
        rows, cols = self.grid
        cells = np.stack(np.divmod(np.arange(rows * cols, dtype=np.int32), np.int32(cols)), axis=1)
        for above in range(self.levels - 1, level, -1):
            composites = cells[self.level(above) == COMPOSITE]
            cells = (2 * composites[:, None] + _CHILD).reshape(-1, 2)
        return cells

    def leaves(self) -> NDArray[np.int32]:
        """Return the leaves as the paper's tuples (l, x, y, v) of Eq. 1: (num_leaves, 4), coarse to fine.

        x and y are canvas coordinates in units of cells of level l.
        """
        parts = []
        for level in range(self.levels - 1, -1, -1):
            values = self.level(level)
            leaf = values >= 0
            cells = self.positions(level)[leaf]
            parts.append(
                np.column_stack((np.full(len(cells), level), cells[:, 1], cells[:, 0], values[leaf])).astype(np.int32)
            )
        return np.concatenate(parts)

    def query(self, level: int, y: ArrayLike, x: ArrayLike) -> NDArray[Any]:
        """Return the values of cells (y, x) of ``level`` as the T-pyramid has them (Eq. 5).

        A cell below a leaf has the leaf's class, a cell beyond the image is OUTSIDE. ``y`` and ``x`` are
        canvas coordinates in units of the level's cells, of any (equal) shape.
        """
        y, x = np.asarray(y), np.asarray(x)
        top = self.levels - 1
        cols = self.grid[1]
        row, col = y >> (top - level), x >> (top - level)
        inside = self._inside(level, y, x)
        index = np.where(inside, row * cols + col, 0)
        values = np.where(inside, self.level(top)[index], OUTSIDE)
        for below in range(top - 1, level - 1, -1):
            descend = values == COMPOSITE
            if not descend.any():
                break
            rank = np.cumsum(self.level(below + 1) == COMPOSITE) - 1
            child = 2 * (y >> (below - level) & 1) + (x >> (below - level) & 1)
            index = np.where(descend, 4 * rank[np.where(descend, index, 0)] + child, 0)
            values = np.where(descend, self.level(below)[index], values)
        return values.astype(self.nodes.dtype)

    def _inside(self, level: int, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.bool_]:
        size = 1 << level
        (y0, x0), (h, w) = self.origin, (self.height, self.width)
        inside: NDArray[np.bool_] = (y >= y0 >> level) & (y * size < y0 + h) & (x >= x0 >> level) & (x * size < x0 + w)
        return inside

    def to_mask(self) -> NDArray[Any]:
        """Return the (H, W) mask, exactly as it went in."""
        return self.to_level(0)

    def to_level(self, level: int, region: tuple[int, int, int, int] | None = None) -> NDArray[Any]:
        """Return level 0 as the mask (uint8 or uint16), another one as T_level (int16 or int32).

        Parameters
        ----------
        level : 0 .. levels - 1.
        region : (y0, x0, h, w) in pixels of the image; the cells of ``level`` that touch it are returned.

        Raises
        ------
        ValueError : the level does not exist, or was not decoded; or the region is empty or leaves the image.
        """
        if not 0 <= level < self.levels:
            raise ValueError(f"level is {level}, expected 0..{self.levels - 1}")
        if not self.counts[level]:
            finest = next(k for k, count in enumerate(self.counts) if count)
            if level < finest and (self.level(finest) == COMPOSITE).any():
                raise ValueError(f"level is {level}, but this tree was decoded down to level {finest} only")
        y0, x0, h, w = region if region is not None else (0, 0, self.height, self.width)
        if y0 < 0 or x0 < 0 or h < 1 or w < 1 or y0 + h > self.height or x0 + w > self.width:
            raise ValueError(f"region {(y0, x0, h, w)} leaves the image of {self.height} x {self.width} pixels")
        size = 1 << level
        row0, col0 = (y0 + self.origin[0]) // size, (x0 + self.origin[1]) // size
        rows = -(-(y0 + self.origin[0] + h) // size) - row0
        cols = -(-(x0 + self.origin[1] + w) // size) - col0
        dense = np.empty((rows, cols), self.nodes.dtype if level else self.mask_dtype)
        paint(self.nodes, np.array(self.counts), self.grid[1], level, row0, col0, dense)
        return dense

    def to_pyramid(self) -> TPyramid:
        """Return all levels, dense; ``from_pyramid`` gives this tree back."""
        upper = tuple(self.to_level(level) for level in range(1, self.levels))
        return TPyramid(self.to_mask(), upper, self.origin)

    def class_pixels(self) -> dict[int, int]:
        """Return how many pixels of the image each class id covers."""
        pixels: dict[int, int] = {}
        for level in range(self.levels):
            values = self.level(level)
            areas = self.inside_areas(level)
            covered = np.bincount(values[values >= 0], areas[values >= 0] if areas.ndim else None)
            for value in np.flatnonzero(covered):
                share = int(covered[value]) * (1 if areas.ndim else 1 << (2 * level))
                pixels[int(value)] = pixels.get(int(value), 0) + share
        return dict(sorted(pixels.items()))

    def inside_areas(self, level: int) -> NDArray[np.int64]:
        """Return how many pixels of each node of a level lie inside the image.

        A scalar array stands for all nodes where every cell that is not OUTSIDE lies wholly inside.
        """
        size = 1 << level
        ends = (self.origin[0], self.origin[1], self.origin[0] + self.height, self.origin[1] + self.width)
        if not any(end % size for end in ends):
            return np.asarray(size * size)
        cells = self.positions(level).astype(np.int64) * size
        low = np.maximum(cells, ends[:2])
        high = np.minimum(cells + size, ends[2:])
        areas: NDArray[np.int64] = np.maximum(high - low, 0).prod(axis=1)
        return areas

    def remap(self, table: Mapping[int, int]) -> LinearQuadtree:
        """Replace every class id by ``table[id]``; cells that become uniform are merged.

        Parameters
        ----------
        table : old id -> new id in 0..65535. The new tree is an 8-bit one if all new ids are below 256.

        Raises
        ------
        MaskError : the tree holds ids that the table lacks (all of them are named), or a new id is out of range.
        """
        if any(not 0 <= new <= 65535 for new in table.values()):
            raise MaskError("remap: new ids must lie in 0..65535")
        marks = np.zeros(np.iinfo(self.mask_dtype).max + 1, np.bool_)
        mark_labels(self.nodes, marks)
        present = np.flatnonzero(marks)
        unknown = [int(v) for v in present if int(v) not in table]
        if unknown:
            raise MaskError(f"ids {unknown} are not in the label map {sorted(table)}. Add them to it")
        lookup = np.arange(-2, int(present[-1]) + 1, dtype=np.int32)  # value + 2 is the position
        for value in present:
            lookup[value + 2] = table[int(value)]
        dtype = np.int16 if max(table.values()) < 256 else np.int32
        mapped = [lookup[self.level(level) + 2].astype(dtype) for level in range(self.levels)]
        for level in range(1, self.levels):
            kept = merge_children(mapped[level], mapped[level - 1])
            mapped[level - 1] = mapped[level - 1][:kept]
        counts = tuple(len(m) for m in mapped)
        return LinearQuadtree(np.concatenate(mapped[::-1]), counts, self.height, self.width, self.origin)

    def flip_horizontal(self) -> LinearQuadtree:
        """Mirror the canvas left to right; the image's origin moves with it."""
        rows, cols = self.grid
        cells = np.arange(rows * cols).reshape(rows, cols)[:, ::-1]
        x0 = (cols << (self.levels - 1)) - self.origin[1] - self.width
        return self._select(cells, 1, self.height, self.width, (self.origin[0], x0))

    def crop(self, y0: int, x0: int, height: int, width: int) -> LinearQuadtree:
        """Cut a window of the canvas, given in pixels, all four multiples of 2**(levels-1).

        The window may leave the canvas at the bottom and right; what is left of the image is returned.

        Raises
        ------
        ValueError : the window is not aligned, or holds nothing of the image.
        """
        size = 1 << (self.levels - 1)
        if any(v % size for v in (y0, x0, height, width)) or min(y0, x0) < 0 or min(height, width) <= 0:
            raise ValueError(f"crop {(y0, x0, height, width)}: expected non-negative multiples of {size}")
        top, left = max(y0, self.origin[0]), max(x0, self.origin[1])
        bottom = min(y0 + height, self.origin[0] + self.height)
        right = min(x0 + width, self.origin[1] + self.width)
        if bottom <= top or right <= left:
            raise ValueError(f"crop {(y0, x0, height, width)} holds nothing of the image")
        rows, cols = self.grid
        cells = np.arange(rows * cols).reshape(rows, cols)
        cells = cells[y0 // size : (y0 + height) // size, x0 // size : (x0 + width) // size]
        return self._select(cells, 0, bottom - top, right - left, (top - y0, left - x0))

    def _select(
        self, cells: NDArray[np.int64], mirror: int, height: int, width: int, origin: tuple[int, int]
    ) -> LinearQuadtree:
        """Keep the subtrees of some cells of the coarsest level, each mirrored left to right if told to."""
        top = self.level(self.levels - 1)
        picked = top[cells.ravel()]
        groups = (np.cumsum(top == COMPOSITE) - 1)[cells.ravel()][picked == COMPOSITE]
        nodes = [picked, *self._subtrees(self.levels - 1, groups, mirror)]
        return LinearQuadtree(np.concatenate(nodes), tuple(map(len, reversed(nodes))), height, width, origin)

    def _subtrees(self, top: int, groups: NDArray[np.int64], mirror: int) -> list[NDArray[Any]]:
        """Return all that lies below some composites of level ``top``, level by level.

        ``groups`` says which they are among the composites of that level, in the order wanted.
        """
        nodes = []
        for level in range(top - 1, -1, -1):
            out = np.empty(4 * len(groups), self.nodes.dtype)
            next_groups = np.empty(self.counts[level - 1] // 4 if level else 0, np.int64)
            gather_groups(self.level(level), groups, mirror, out, next_groups)
            nodes.append(out)
            groups = next_groups[: np.count_nonzero(out == COMPOSITE)]
        return nodes


def relevel(tree: LinearQuadtree, levels: int) -> LinearQuadtree:
    """Return the tree of the same image with another number of levels, 2 .. 10; no raster is made on the way.

    Its canvas is that of its coarsest cells: what it had of rows and columns without a pixel of the image goes.

    Raises
    ------
    ValueError : ``levels`` is out of range.
    """
    check_level_count(levels)
    if levels == tree.levels:
        return tree
    shared = min(levels, tree.levels) - 1  # the coarsest level that both have
    cells = tree.to_level(shared)
    upper = [*reversed(merge_up(cells, levels - 1 - shared, (0, 0))), cells]
    nodes = [upper[0].ravel()]
    parents = np.argwhere(upper[0] == COMPOSITE).astype(np.int32)
    for below in upper[1:]:
        children = np.empty(4 * len(parents), below.dtype)
        composites = np.empty((np.count_nonzero(below == COMPOSITE), 2), np.int32)
        split_cells(parents, below, 0, 0, children, composites)
        nodes.append(children)
        parents = composites
    old = tree.positions(shared)[tree.level(shared) == COMPOSITE] - np.array(tree.origin) // (1 << shared)
    rank = np.empty(cells.shape, np.int64)
    rank[old[:, 0], old[:, 1]] = np.arange(len(old))
    nodes += tree._subtrees(shared, rank[parents[:, 0], parents[:, 1]], 0)
    origin = (tree.origin[0] % (1 << (levels - 1)), tree.origin[1] % (1 << (levels - 1)))
    return LinearQuadtree(np.concatenate(nodes), tuple(map(len, reversed(nodes))), tree.height, tree.width, origin)


def resample(
    tree: LinearQuadtree, size: tuple[int, int], window: tuple[int, int, int, int] | None = None
) -> LinearQuadtree:
    """Return the tree of the image resized to (height, width) by nearest neighbour, or of a window of it.

    Pixel i of the resized image is pixel floor((i + 0.5) * old / new) of the image, along each axis.

    Parameters
    ----------
    size : height and width of the whole image, resized.
    window : (y0, x0, h, w) in its pixels: what to keep, and all that is built. The result's canvas begins there.

    Raises
    ------
    ValueError : the size is not positive, or the window is empty or leaves the resized image.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size is {size}, expected two positive numbers")
    y0, x0, h, w = (0, 0, height, width) if window is None else window
    if min(y0, x0) < 0 or min(h, w) < 1 or y0 + h > height or x0 + w > width:
        raise ValueError(f"window {window} leaves the image of {height} x {width} pixels")
    rows = (2 * np.arange(y0, y0 + h) + 1) * tree.height // (2 * height)
    cols = (2 * np.arange(x0, x0 + w) + 1) * tree.width // (2 * width)
    top, left = int(rows[0]), int(cols[0])
    mask = tree.to_level(0, (top, left, int(rows[-1]) - top + 1, int(cols[-1]) - left + 1))
    return LinearQuadtree.from_mask(mask.take(rows - top, axis=0).take(cols - left, axis=1), tree.levels)
