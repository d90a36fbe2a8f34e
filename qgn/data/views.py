"""Augmentation: which view of an image a draw shows, settled before the photo is read or a tree is touched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]

LEVELS = 6
"""Levels of the decoder's trees."""
CELL = 1 << (LEVELS - 1)
"""Pixels a side of their coarsest cells; windows are aligned to them."""


@dataclass(frozen=True)
class View:
    """Say what is seen of an image.

    Attributes
    ----------
    size : (height, width) of the whole image, resized.
    window : (y0, x0, height, width) of what is kept of it: multiples of CELL, within the image padded to such.
    mirrored : left and right are swapped in the end.
    """

    size: Size
    window: tuple[int, int, int, int]
    mirrored: bool = False

    @classmethod
    def whole(cls, size: Size) -> View:
        """Return the view of all of an image."""
        return cls(size, (0, 0, *_padded(size)))

    @property
    def inside(self) -> tuple[int, int, int, int]:
        """The part of the window that the image covers."""
        y0, x0, height, width = self.window
        return y0, x0, min(height, self.size[0] - y0), min(width, self.size[1] - x0)


@dataclass(frozen=True)
class Views:
    """Draw views: resized, cut to a window and mirrored, in this order.

    Attributes
    ----------
    size : (height, width) that every image is resized to; None for its own.
    short_edges : lengths of the shorter side, one of which is drawn; the shape is kept. () for that of ``size``.
    scale : (low, high) of a factor that is drawn uniformly, on top of ``size`` and ``short_edges``.
    max_side : no side is resized to more than this; the other one shrinks with it.
    crop : (height, width) of a random window, multiples of CELL; None for all of the image.
    flip : mirror half of the draws.
    """

    size: Size | None = None
    short_edges: tuple[int, ...] = ()
    scale: tuple[float, float] | None = None
    max_side: int | None = None
    crop: Size | None = None
    flip: bool = False

    def draw(self, native: Size, rng: np.random.Generator) -> View:
        """Return the view of an image of ``native`` size that the generator's next numbers stand for."""
        height, width = self.size or native
        factor = 1.0
        if self.short_edges:
            factor = self.short_edges[int(rng.integers(len(self.short_edges)))] / min(height, width)
        if self.scale is not None:
            factor *= rng.uniform(*self.scale)
        if self.max_side is not None:
            factor = min(factor, self.max_side / max(height, width))
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        y0, x0, (rows, cols) = 0, 0, _padded(size)
        if self.crop is not None:
            y0 = CELL * int(rng.integers(max(0, rows - self.crop[0]) // CELL + 1))
            x0 = CELL * int(rng.integers(max(0, cols - self.crop[1]) // CELL + 1))
            rows, cols = min(rows, self.crop[0]), min(cols, self.crop[1])
        return View(size, (y0, x0, rows, cols), bool(self.flip and rng.random() < 0.5))


def _padded(size: Size) -> Size:
    return -(-size[0] // CELL) * CELL, -(-size[1] // CELL) * CELL
