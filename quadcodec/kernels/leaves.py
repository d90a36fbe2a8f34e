"""Leaves and pixels of a tree, counted: Table 5 of the paper without a raster."""

import numba
import numpy as np
from numpy.typing import NDArray

from .merge import COMPOSITE, OUTSIDE


@numba.njit(cache=True, nogil=True)
def _split_at_edge(inside_h: np.int64, inside_w: np.int64, level: int, leaves: NDArray[np.int64]) -> None:
    """Replace a leaf whose pixels inside are ``inside_h`` x ``inside_w`` by the leaves along its edge."""
    leaves[level] -= 1
    cut = np.int64(1)  # cells of the level above that straddle the edge
    for finer in range(level - 1, -1, -1):
        step = np.int64(1) << finer
        touched = -(-inside_h // step) * -(-inside_w // step)
        straddling = touched - (inside_h // step) * (inside_w // step)
        leaves[finer] += 4 * cut - straddling
        cut = straddling


@numba.njit(cache=True, nogil=True)
def _count_border_cell(
    value: int,
    y: np.int64,
    x: np.int64,
    level: int,
    height: int,
    width: int,
    leaves: NDArray[np.int64],
    pixels: NDArray[np.int64],
) -> bool:
    """Correct the counts for one cell; return whether it is a composite that straddles the edge."""
    size = np.int64(1) << level
    inside_h = min(height - (np.int64(y) << level), size)
    inside_w = min(width - (np.int64(x) << level), size)
    if value == OUTSIDE or (inside_h == size and inside_w == size):
        return False
    if value == COMPOSITE:
        return True
    pixels[0, value + 2] -= size * size - inside_h * inside_w
    if value > 0:
        _split_at_edge(inside_h, inside_w, level, leaves)
    return False


@numba.njit(cache=True, nogil=True)
def count_leaves(
    nodes: NDArray[np.integer],
    counts: NDArray[np.int64],
    cols: int,
    height: int,
    width: int,
    leaves: NDArray[np.int64],
    pixels: NDArray[np.int64],
) -> None:
    """Add the leaves of a tree to ``leaves`` (levels,), and the pixels of each class id to ``pixels`` (4, 2 + ids).

    The pixels of id v are the sum of column v + 2, the first two mean nothing. Neighbours in memory count in
    different rows: they often have one id, and would wait for each other.

    Leaves are those of the mask padded with zeros on its canvas: OUTSIDE cells are leaves of class 0, a leaf of
    another class that straddles the edge splits along it. Pixels are those inside the image.

    ``nodes`` stand level by level, coarse to fine, ``counts`` (levels,) of them, indexed by level; the coarsest
    level has ``cols`` columns. The image of ``height`` x ``width`` pixels is at the canvas's origin.
    """
    top = counts.shape[0] - 1
    size = np.int64(1) << top
    aligned = height % size == 0 and width % size == 0
    start = np.int64(0)
    border = np.empty((0, 3), np.int32)  # straddling composites of the level above: rank among composites, y, x
    for level in range(top, -1, -1):
        area = np.int64(1) << (2 * level)
        stop = start + counts[level]
        leaves[level] += counts[level] - (counts[level - 1] >> 2 if level else 0)
        for i in range(start, stop):
            pixels[np.uint64(i & 3), np.uint64(nodes[i] + 2)] += area
        if not aligned and (level == top or border.shape[0]):
            rows = counts[level] // cols if level == top else 0
            below = np.empty((rows + cols if level == top else 4 * border.shape[0], 3), np.int32)
            b = 0
            rank = 0
            at = 0
            for i in range(start, stop):
                value = nodes[i]
                y = np.int64(-1)
                x = np.int64(-1)
                if level == top:
                    y = (i - start) // cols
                    x = (i - start) % cols
                elif at < border.shape[0] and border[at, 0] == (i - start) >> 2:
                    child = (i - start) & 3
                    y = 2 * np.int64(border[at, 1]) + (child >> 1)
                    x = 2 * np.int64(border[at, 2]) + (child & 1)
                    at += child == 3
                if y >= 0 and _count_border_cell(value, y, x, level, height, width, leaves, pixels):
                    below[b, 0] = rank
                    below[b, 1] = y
                    below[b, 2] = x
                    b += 1
                rank += value == COMPOSITE
            border = below[:b]
        start = stop
