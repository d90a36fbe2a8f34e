"""Label trees of a batch as one tensor: pinned and moved as a whole, read level by level, never a raster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from qgn.sparse.frontier import COMPOSITE_CHANNEL, IGNORE_INDEX
from quadcodec.pyramid import COMPOSITE, OUTSIDE

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
    """The label trees of a batch, level by level, as targets.

    Attributes
    ----------
    targets_n
        (n,) int16 on any device: the nodes of all levels, coarse to fine, and within a level image by image.
        0 is composite, c + 1 is class c, IGNORE_INDEX is void or outside the image.
    boxes_b4
        (B, 4) int64 on the same device: first row and column of each image in its canvas, and the row and
        column after its last.
    counts
        Nodes of each level, coarse to fine.
    grid
        Batch size, rows and columns of the coarsest level. Images with a smaller canvas are padded to it at
        the bottom and right with cells outside the image.
    sizes
        Height and width of each image in pixels.
    origins
        Row and column of each image's first pixel in its canvas.
    """

    targets_n: Tensor
    boxes_b4: Tensor
    counts: tuple[int, ...]
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
        if len({tree.levels for tree in trees}) != 1:
            found = ", ".join(map(str, sorted({tree.levels for tree in trees}))) or "none"
            raise ValueError(f"a batch needs trees of one number of levels, found {found}")
        levels = trees[0].levels
        grid = (len(trees), max(tree.grid[0] for tree in trees), max(tree.grid[1] for tree in trees))
        top = np.full(grid, OUTSIDE, np.int16)
        for tree, cells in zip(trees, top, strict=True):
            rows, cols = tree.grid
            cells[:rows, :cols] = tree.level(levels - 1).reshape(rows, cols)
        per_level = [top.ravel()]
        for level in range(levels - 2, -1, -1):
            per_level.append(np.concatenate([tree.level(level) for tree in trees]))
        sizes = tuple((int(tree.height), int(tree.width)) for tree in trees)
        origins = tuple((int(tree.origin[0]), int(tree.origin[1])) for tree in trees)
        boxes = [(y, x, y + h, x + w) for (y, x), (h, w) in zip(origins, sizes, strict=True)]
        return cls(
            targets_n=torch.from_numpy(_targets(np.concatenate(per_level))),
            boxes_b4=torch.tensor(boxes),
            counts=tuple(len(values) for values in per_level),
            grid=grid,
            sizes=sizes,
            origins=origins,
        )

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
        return replace(self, targets_n=self.targets_n.pin_memory(), boxes_b4=self.boxes_b4.pin_memory())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> LabelBatch:
        """Return the batch on a device."""
        return replace(
            self,
            targets_n=self.targets_n.to(device, non_blocking=non_blocking),
            boxes_b4=self.boxes_b4.to(device, non_blocking=non_blocking),
        )


def _targets(values_n: np.ndarray) -> np.ndarray:
    """Return node values as targets, (n,) int16."""
    targets_n = values_n.astype(np.int16) + np.int16(COMPOSITE_CHANNEL - COMPOSITE)
    targets_n[(values_n == VOID) | (values_n == OUTSIDE)] = IGNORE_INDEX
    return targets_n
