"""Label trees of a batch as packed bytes: pinned and moved as a whole, unpacked where they are read, never a raster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from qgn.sparse.frontier import COMPOSITE_CHANNEL, IGNORE_INDEX
from quadcodec.fast import pack_sections
from quadcodec.pyramid import OUTSIDE
from quadcodec.quadtree import LinearQuadtree

from .unpack import Canvas, Packing, unpack

VOID = 255
"""Class of unlabelled cells in a tree that is remapped to training classes."""


class Tree(Protocol):
    """The part of `quadcodec.quadtree.LinearQuadtree` that a batch is made of."""

    levels: int
    grid: tuple[int, int]
    height: int
    width: int
    origin: tuple[int, int]

    def level(self, level: int) -> np.ndarray:
        """Node values of a level, in level order."""


@dataclass(frozen=True)
class LabelBatch:
    """The label trees of a batch: packed bytes that become targets, level by level, on the device they are read on.

    Attributes
    ----------
    data_n
        (n,) uint8 on any device: the trees as the sections of one record of the fast profile, without entropy
        stage: the images' coarsest grids one below the other.
    boxes_b4
        (B, 4) int64 on the same device: first row and column of each image in its canvas, and the row and
        column after its last.
    packing
        Lengths of the streams in ``data_n``.
    grid
        Batch size, rows and columns of the coarsest level. Images with a smaller canvas are padded to it at
        the bottom and right with cells outside the image.
    sizes
        Height and width of each image in pixels.
    origins
        Row and column of each image's first pixel in its canvas.
    """

    data_n: Tensor
    boxes_b4: Tensor
    packing: Packing
    grid: tuple[int, int, int]
    sizes: tuple[tuple[int, int], ...]
    origins: tuple[tuple[int, int], ...]

    @classmethod
    def from_trees(cls, trees: Sequence[Tree]) -> LabelBatch:
        """Put trees of training classes (VOID for void) into one batch. Serves as a collate function.

        Raises
        ------
        ValueError
            There is no tree, or the trees differ in their number of levels.
        """
        forest, grid = stack(trees, np.dtype(np.int16))
        packed = pack_sections(forest)
        sizes = tuple((int(tree.height), int(tree.width)) for tree in trees)
        origins = tuple((int(tree.origin[0]), int(tree.origin[1])) for tree in trees)
        boxes = [(y, x, y + h, x + w) for (y, x), (h, w) in zip(origins, sizes, strict=True)]
        return cls(
            data_n=torch.frombuffer(bytearray(b"".join(packed.sections)), dtype=torch.uint8),
            boxes_b4=torch.tensor(boxes),
            packing=Packing.of(packed, forest),
            grid=grid,
            sizes=sizes,
            origins=origins,
        )

    @cached_property
    def targets_n(self) -> Tensor:
        """The nodes of all levels, coarse to fine, and within a level image by image, (n,) int16.

        0 is composite, c + 1 is class c, IGNORE_INDEX is void or outside the image.
        """
        canvas = Canvas(self.grid, self.boxes_b4) if self.padded else None
        labels_k, levels = unpack(self.data_n, self.packing, canvas)
        target_s = labels_k.new_full((self.packing.outside + 1,), COMPOSITE_CHANNEL)
        target_s[: len(labels_k)] = torch.where(labels_k == VOID, IGNORE_INDEX, labels_k + 1)
        target_s[self.packing.outside] = IGNORE_INDEX
        return target_s.short()[torch.cat(levels)]

    @property
    def counts(self) -> tuple[int, ...]:
        """Nodes of each level, coarse to fine."""
        return self.packing.counts

    @property
    def levels(self) -> int:
        """Number of levels, 6 where the coarsest cells have 32 pixels a side."""
        return len(self.counts)

    @property
    def padded(self) -> bool:
        """Whether an image leaves a part of the batch's canvas uncovered."""
        side = 2 ** (self.levels - 1)
        return any(size != (self.grid[1] * side, self.grid[2] * side) for size in self.sizes)

    def __len__(self) -> int:
        return self.grid[0]

    def level(self, level: int) -> Tensor:
        """Return the targets of one level, a view of (n_level,) int16; level 0 is the pixels."""
        if not 0 <= level < self.levels:
            raise IndexError(f"level {level} is outside 0..{self.levels - 1}")
        end = tuple(accumulate(self.counts))[self.levels - 1 - level]
        count = self.counts[self.levels - 1 - level]
        return self.targets_n[end - count : end]

    def pin_memory(self) -> LabelBatch:
        """Return the batch in page-locked memory; a DataLoader calls this by name."""
        return replace(self, data_n=self.data_n.pin_memory(), boxes_b4=self.boxes_b4.pin_memory())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> LabelBatch:
        """Return the batch on a device: the packed bytes travel."""
        return replace(
            self,
            data_n=self.data_n.to(device, non_blocking=non_blocking),
            boxes_b4=self.boxes_b4.to(device, non_blocking=non_blocking),
        )


def stack(trees: Sequence[Tree], dtype: np.dtype) -> tuple[LinearQuadtree, tuple[int, int, int]]:
    """Return trees as one, their coarsest grids one below the other, and the grid of `LabelBatch`.

    Nodes are of ``dtype``; smaller canvases are padded with cells OUTSIDE. Errors as `LabelBatch.from_trees`.
    """
    if len({tree.levels for tree in trees}) != 1:
        found = ", ".join(map(str, sorted({tree.levels for tree in trees}))) or "none"
        raise ValueError(f"a batch needs trees of one number of levels, found {found}")
    levels = trees[0].levels
    grid = (len(trees), max(tree.grid[0] for tree in trees), max(tree.grid[1] for tree in trees))
    top = np.full(grid, OUTSIDE, dtype)
    for tree, cells in zip(trees, top, strict=True):
        rows, cols = tree.grid
        cells[:rows, :cols] = tree.level(levels - 1).reshape(rows, cols)
    parts, counts = [top.ravel()], [top.size]
    for level in range(levels - 2, -1, -1):
        nodes = [tree.level(level) for tree in trees]
        parts += nodes
        counts.append(sum(map(len, nodes)))
    side = 1 << (levels - 1)
    nodes_n = np.concatenate(parts).astype(dtype, copy=False)
    return LinearQuadtree(nodes_n, tuple(reversed(counts)), grid[0] * grid[1] * side, grid[2] * side), grid
