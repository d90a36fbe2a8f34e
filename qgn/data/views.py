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
        edge = self.short_edges[int(rng.integers(len(self.short_edges)))] if self.short_edges else None
        size = self._resized(native, edge, 1.0 if self.scale is None else rng.uniform(*self.scale))
        y0, x0, (rows, cols) = 0, 0, _padded(size)
        if self.crop is not None:
            y0 = CELL * int(rng.integers(max(0, rows - self.crop[0]) // CELL + 1))
            x0 = CELL * int(rng.integers(max(0, cols - self.crop[1]) // CELL + 1))
            rows, cols = min(rows, self.crop[0]), min(cols, self.crop[1])
        return View(size, (y0, x0, rows, cols), bool(self.flip and rng.random() < 0.5))

    def smallest(self, native: Size) -> Size:
        """Return height and width of the smallest canvas that a draw gives an image of ``native`` size."""
        edge = min(self.short_edges, default=None)
        canvas = _padded(self._resized(native, edge, 1.0 if self.scale is None else min(self.scale)))
        return canvas if self.crop is None else (min(canvas[0], self.crop[0]), min(canvas[1], self.crop[1]))

    def _resized(self, native: Size, short_edge: int | None, factor: float) -> Size:
        height, width = self.size or native
        if short_edge is not None:
            factor *= short_edge / min(height, width)
        if self.max_side is not None:
            factor = min(factor, self.max_side / max(height, width))
        return max(1, round(height * factor)), max(1, round(width * factor))


def _padded(size: Size) -> Size:
    return -(-size[0] // CELL) * CELL, -(-size[1] // CELL) * CELL
