"""Trees level by level: dense cells <-> nodes, and the merging that a change of values brings.

Nodes of a level stand in the order of docs/format.md: the top level row by row, below it the four children
of each composite together, in the order (0,0) (0,1) (1,0) (1,1) of (y, x). ``cells`` are (y, x) positions on
the canvas in units of that level's cells.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from .compiled import fill, hot, kernel, put_square
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


@kernel
def paint(
    nodes: NDArray[np.integer],
    counts: NDArray[np.int64],
    cols: int,
    level: int,
    row0: int,
    col0: int,
    dense: NDArray[np.integer],
) -> None:
    """Paint a tree as the cells of ``level``, of which C-contiguous ``dense`` is a window.

    Parameters
    ----------
    nodes : of all levels, coarse to fine.
    counts : (levels,) number of nodes of each level.
    cols : columns of the coarsest level, whose nodes are a full grid.
    row0, col0 : first cell of the window. What lies outside of it is passed by.
    """
    top = counts.shape[0] - 1
    rows = counts[top] // cols
    height, width = dense.shape
    flat = dense.reshape(-1)
    shift = top - level
    first_row, last_row = row0 >> shift, min(row0 + height - 1 >> shift, rows - 1)
    first_col, last_col = col0 >> shift, min(col0 + width - 1 >> shift, cols - 1)
    # Of each composite that the window touches: the group of its children, and its row and column.
    parents = np.empty(((last_row - first_row + 1) * (last_col - first_col + 1), 3), np.int32)
    group, counted, m = 0, 0, 0
    for row in range(first_row, last_row + 1):
        for col in range(first_col, last_col + 1):
            i = row * cols + col
            _paint_cell(flat, height, width, (row << shift) - row0, (col << shift) - col0, nodes[i], shift)
            if nodes[i] == COMPOSITE:
                group += _count_composites(nodes, counted, i)
                counted = i
                parents[m, 0], parents[m, 1], parents[m, 2] = group, row, col
                m += 1
    start = counts[top]
    for below in range(top - 1, level - 1, -1):
        children = nodes[start : start + counts[below]]
        composites = np.empty((4 * m if below > level else 4, 3), np.int32)
        m = _paint_children(children, parents[:m], below - level, row0, col0, flat, height, width, composites)
        parents = composites
        start += counts[below]


@hot
def _count_composites(nodes: NDArray[np.integer], start: int, stop: int) -> int:
    count = 0
    for i in range(start, stop):
        count += nodes[i] == COMPOSITE
    return count


@kernel
def _paint_children(
    nodes: NDArray[np.integer],
    parents: NDArray[np.int32],
    shift: int,
    row0: int,
    col0: int,
    flat: NDArray[np.integer],
    height: int,
    width: int,
    composites: NDArray[np.int32],
) -> int:
    """Paint ``nodes``, the children of ``parents``; with ``shift`` > 0 list the composites that the window touches."""
    size = 1 << shift
    group, counted, m = 0, 0, 0
    for i in range(parents.shape[0]):
        first, row, col = 4 * parents[i, 0], 2 * parents[i, 1], 2 * parents[i, 2]
        if counted < first:
            group += _count_composites(nodes, counted, first)
        counted = first + 4
        y, x = row * size - row0, col * size - col0
        if y < 0 or x < 0 or y + 2 * size > height or x + 2 * size > width:
            for child in range(4):
                value, top, left = nodes[first + child], y + (child >> 1) * size, x + (child & 1) * size
                _paint_cell(flat, height, width, top, left, value, shift)
                if value == COMPOSITE and shift > 0:
                    composites[m, 0], composites[m, 1], composites[m, 2] = group, row + (child >> 1), col + (child & 1)
                    m += top < height and left < width and top + size > 0 and left + size > 0
                    group += 1
            continue
        at = y * width + x
        if shift == 0:
            put_square(flat, at, width, nodes, first)
            continue
        if shift == 1:
            _fill_group(flat, at, width, nodes, first, 1)
        elif shift == 2:
            _fill_group(flat, at, width, nodes, first, 2)
        else:
            _fill_group(flat, at, width, nodes, first, shift)
        for child in range(4):
            composites[m, 0], composites[m, 1], composites[m, 2] = group, row + (child >> 1), col + (child & 1)
            m += nodes[first + child] == COMPOSITE
            group += nodes[first + child] == COMPOSITE
    return m


@hot
def _fill_group(
    flat: NDArray[np.integer], start: int, width: int, nodes: NDArray[np.integer], first: int, shift: int
) -> None:
    """Paint four siblings. Composites are painted, too, and their children over them: a branch would cost more."""
    for child in range(4):
        at = start + ((child >> 1) * width + (child & 1) << shift)
        _fill_cell(flat, at, width, nodes[first + child], shift)


@hot
def _fill_cell(flat: NDArray[np.integer], start: int, width: int, value: int, shift: int) -> None:
    """Paint 2**shift by 2**shift entries from ``start`` on, in rows ``width`` apart."""
    if shift == 0:
        flat[start] = value
    elif shift == 1:
        for k in range(2):
            fill(flat, start + k * width, value, 2)
    elif shift == 2:
        for k in range(4):
            fill(flat, start + k * width, value, 4)
    elif shift == 3:
        for k in range(8):
            fill(flat, start + k * width, value, 8)
    elif value != COMPOSITE:
        for k in range(1 << shift):
            for part in range(0, 1 << shift, 16):
                fill(flat, start + k * width + part, value, 16)


@hot
def _paint_cell(flat: NDArray[np.integer], height: int, width: int, y: int, x: int, value: int, shift: int) -> None:
    """Paint the part inside the window of a cell of 2**shift by 2**shift entries at (y, x), unless it is OUTSIDE."""
    size = 1 << shift
    if y >= 0 and x >= 0 and y + size <= height and x + size <= width:
        _fill_cell(flat, y * width + x, width, value, shift)
    elif value != OUTSIDE:
        left, right = max(x, 0), min(x + size, width)
        for yy in range(max(y, 0), min(y + size, height)):
            for xx in range(left, right):
                flat[yy * width + xx] = value


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
