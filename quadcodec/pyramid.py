"""T-pyramids: every level of a mask, dense (Eq. 2, 3 and 5 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import MaskError
from .kernels.merge import COMPOSITE, OUTSIDE, merge_2x2

__all__ = ["COMPOSITE", "OUTSIDE", "TPyramid", "check_mask", "merge_up", "node_dtype"]

MIN_LEVELS, MAX_LEVELS = 2, 10
MAX_SIDE = 2**30
"""Longest side of a mask: cell coordinates are 32-bit integers."""


@dataclass(frozen=True, eq=False)
class TPyramid:
    """Hold all levels T_0 .. T_(levels-1) of one mask.

    Attributes
    ----------
    mask : (H, W) uint8 or uint16 class ids: the pixels, level 0.
    upper : T_1, T_2, ..: int16 for 8-bit masks, int32 for 16-bit ones. A cell holds the class of its pixels
        inside the image where they agree, else COMPOSITE.
    origin : (y, x) of the image on its canvas, in pixels. (0, 0) unless the canvas was mirrored or cropped;
        the cells of a level are those of the canvas that touch the image.
    """

    mask: NDArray[Any]
    upper: tuple[NDArray[Any], ...]
    origin: tuple[int, int] = (0, 0)

    @classmethod
    def from_mask(cls, mask: ArrayLike, levels: int = 6, *, origin: tuple[int, int] = (0, 0)) -> TPyramid:
        """Merge 2x2 patches until ``levels`` levels exist (Eq. 2 and 3).

        Parameters
        ----------
        mask : (H, W) uint8 or uint16.
        levels : 2 .. 10.
        origin : (y, x) of the image on its canvas, each below 2**(levels-1).

        Raises
        ------
        MaskError : the mask is not two-dimensional, empty, or not uint8 or uint16.
        ValueError : ``levels`` or ``origin`` is out of range.
        """
        mask = check_mask(mask)
        check_level_count(levels)
        if not all(0 <= o < 1 << (levels - 1) for o in origin):
            raise ValueError(f"origin is {origin}, expected two numbers in 0..{(1 << (levels - 1)) - 1}")
        return cls(mask, tuple(merge_up(mask, levels - 1, origin)), origin)

    @classmethod
    def from_base(cls, mask: NDArray[Any], cells: NDArray[Any], levels: int = 6) -> TPyramid:
        """Return the pyramid of a checked mask whose T_1, ``cells``, is at hand."""
        return cls(mask, (cells, *merge_up(cells, levels - 2, (0, 0))))

    @property
    def levels(self) -> int:
        """Number of levels, pixels included."""
        return 1 + len(self.upper)

    def to_mask(self) -> NDArray[Any]:
        """Return the (H, W) mask."""
        return self.mask

    def level(self, level: int) -> NDArray[Any]:
        """Return T_level: ceil(H / 2**level) x ceil(W / 2**level), int16 or int32."""
        if level == 0:
            return self.mask.astype(node_dtype(self.mask.dtype))
        return self.upper[level - 1]

    def query(self, level: int, y: ArrayLike, x: ArrayLike) -> NDArray[Any]:
        """Return the values of cells (y, x) of ``level`` (Eq. 5), OUTSIDE beyond the image.

        ``y`` and ``x`` are canvas coordinates in units of the level's cells, of any (equal) shape.
        """
        cells = self.level(level)
        row, col = np.asarray(y) - (self.origin[0] >> level), np.asarray(x) - (self.origin[1] >> level)
        inside = (row >= 0) & (col >= 0) & (row < cells.shape[0]) & (col < cells.shape[1])
        values: NDArray[Any] = np.where(inside, cells[np.where(inside, row, 0), np.where(inside, col, 0)], OUTSIDE)
        return values.astype(cells.dtype)


def check_level_count(levels: int) -> None:
    """Raise ValueError if a tree cannot have so many levels."""
    if not MIN_LEVELS <= levels <= MAX_LEVELS:
        raise ValueError(f"levels is {levels}, expected {MIN_LEVELS}..{MAX_LEVELS}")


def merge_up(below: NDArray[Any], count: int, origin: tuple[int, int]) -> list[NDArray[Any]]:
    """Return ``count`` levels above a level whose first cell is ``origin`` of its canvas."""
    dtype = node_dtype(below.dtype) if below.dtype.kind == "u" else below.dtype
    upper = []
    row0, col0 = origin
    for _ in range(count):
        shape = (-(-(below.shape[0] + row0 % 2) // 2), -(-(below.shape[1] + col0 % 2) // 2))
        above = np.empty(shape, dtype)
        merge_2x2(below, above, row0 % 2, col0 % 2)
        upper.append(above)
        below, row0, col0 = above, row0 // 2, col0 // 2
    return upper


def node_dtype(mask_dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of node values for a mask type: int16 for uint8, int32 for uint16."""
    return np.dtype(np.int16 if mask_dtype == np.uint8 else np.int32)


def check_mask(mask: ArrayLike) -> NDArray[Any]:
    """Return ``mask`` as a C-contiguous array, or raise MaskError if it is no (H, W) uint8 or uint16 array."""
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype not in (np.uint8, np.uint16) or not array.size > 0:
        raise MaskError(
            f"mask: found {array.dtype} of shape {array.shape}, expected uint8 or uint16 of shape (H, W) "
            "with H, W >= 1. Convert it with mask.astype(np.uint8) or np.uint16 if its ids allow"
        )
    if max(array.shape) > MAX_SIDE:
        raise MaskError(f"mask: found shape {array.shape}, expected sides up to {MAX_SIDE}. Cut it into tiles")
    return np.ascontiguousarray(array)
