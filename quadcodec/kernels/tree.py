"""Trees level by level: dense cells <-> nodes, and the merging that a change of values brings.

Nodes of a level stand in the order of docs/format.md: the top level row by row, below it the four children
of each composite together, in the order (0,0) (0,1) (1,0) (1,1) of (y, x). ``cells`` are (y, x) positions on
the canvas in units of that level's cells.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from .merge import COMPOSITE, OUTSIDE


@numba.njit(cache=True, nogil=True)
def split_cells(
    parents: NDArray[np.int32],
    below: NDArray[np.integer],
    row0: int,
    col0: int,
    nodes: NDArray[np.integer],
    composites: NDArray[np.int32],
) -> None:
    """Write the children of ``parents`` (n, 2), read from the dense level ``below``, to ``nodes`` (4n,).

    ``below`` starts at cell (row0, col0) of the canvas; children that it does not hold are OUTSIDE. The
    cells of composite children go to ``composites`` (m, 2), in order.
    """
    height, width = below.shape
    m = 0
    for i in range(parents.shape[0]):
        y = 2 * parents[i, 0] - row0
        x = 2 * parents[i, 1] - col0
        for child in range(4):
            cy = y + (child >> 1)
            cx = x + (child & 1)
            if cy < 0 or cx < 0 or cy >= height or cx >= width:
                nodes[4 * i + child] = OUTSIDE
                continue
            value = below[cy, cx]
            nodes[4 * i + child] = value
            if value == COMPOSITE:
                composites[m, 0] = cy + row0
                composites[m, 1] = cx + col0
                m += 1


@numba.njit(cache=True, nogil=True)
def paint_cells(
    nodes: NDArray[np.integer],
    parents: NDArray[np.int32],
    shift: int,
    row0: int,
    col0: int,
    dense: NDArray[np.integer],
    composites: NDArray[np.int32],
) -> None:
    """Paint the leaves among ``nodes`` (4n,), children of ``parents`` (n, 2), as blocks of ``dense``.

    A node covers 2**shift cells of ``dense`` a side; ``dense`` starts at its own cell (row0, col0) of the
    canvas, and what lies outside of it is clipped. With shift 0 composites are painted too; else their
    cells go to ``composites``, in order.
    """
    height, width = dense.shape
    size = 1 << shift
    m = 0
    for i in range(parents.shape[0]):
        for child in range(4):
            value = nodes[4 * i + child]
            cy = 2 * parents[i, 0] + (child >> 1)
            cx = 2 * parents[i, 1] + (child & 1)
            if value == OUTSIDE:
                continue
            if value == COMPOSITE and shift > 0:
                composites[m, 0] = cy
                composites[m, 1] = cx
                m += 1
                continue
            y = (cy << shift) - row0
            x = (cx << shift) - col0
            y_stop = min(y + size, height)
            x_stop = min(x + size, width)
            x = max(x, 0)
            for yy in range(max(y, 0), y_stop):
                row = dense[yy]
                for xx in range(x, x_stop):
                    row[xx] = value


@numba.njit(cache=True, nogil=True)
def paint_grid(
    nodes: NDArray[np.integer],
    cols: int,
    shift: int,
    row0: int,
    col0: int,
    dense: NDArray[np.integer],
    composites: NDArray[np.int32],
) -> None:
    """Do what `paint_cells` does for the top level: ``nodes`` of a full grid ``cols`` wide, row by row."""
    height, width = dense.shape
    size = 1 << shift
    m = 0
    for i in range(nodes.shape[0]):
        value = nodes[i]
        cy = i // cols
        cx = i % cols
        if value == OUTSIDE:
            continue
        if value == COMPOSITE and shift > 0:
            composites[m, 0] = cy
            composites[m, 1] = cx
            m += 1
            continue
        y = (cy << shift) - row0
        x = (cx << shift) - col0
        y_stop = min(y + size, height)
        x_stop = min(x + size, width)
        x = max(x, 0)
        for yy in range(max(y, 0), y_stop):
            dense[yy, x:x_stop] = value


@numba.njit(cache=True, nogil=True)
def merge_children(parents: NDArray[np.integer], children: NDArray[np.integer]) -> int:
    """Turn composites of ``parents`` whose children inside agree on a class into leaves, both in place.

    The children of those that stay composite move to the front of ``children``.

    Returns
    -------
    The number of children left.
    """
    group = 0
    kept = 0
    for i in range(parents.shape[0]):
        if parents[i] != COMPOSITE:
            continue
        merged = OUTSIDE
        for child in range(4):
            value = children[4 * group + child]
            if value == OUTSIDE:
                continue
            if value == COMPOSITE or (merged != OUTSIDE and value != merged):
                merged = COMPOSITE
                break
            merged = value
        if merged == COMPOSITE:
            for child in range(4):
                children[4 * kept + child] = children[4 * group + child]
            kept += 1
        else:
            parents[i] = merged
        group += 1
    return 4 * kept


@numba.njit(cache=True, nogil=True)
def gather_groups(
    nodes: NDArray[np.integer],
    groups: NDArray[np.int64],
    mirror: int,
    out: NDArray[np.integer],
    next_groups: NDArray[np.int64],
) -> None:
    """Copy the groups of four ``groups`` of a level to ``out``, each mirrored left to right if ``mirror`` is 1.

    ``next_groups`` takes, for each composite in ``out``, its rank among the composites of ``nodes``: the
    group of its children in the level below.
    """
    rank = np.empty(nodes.shape[0], np.int64)
    composites = 0
    for i in range(nodes.shape[0]):
        rank[i] = composites
        if nodes[i] == COMPOSITE:
            composites += 1
    m = 0
    for i in range(groups.shape[0]):
        for child in range(4):
            j = 4 * groups[i] + (child ^ mirror)
            out[4 * i + child] = nodes[j]
            if nodes[j] == COMPOSITE:
                next_groups[m] = rank[j]
                m += 1
