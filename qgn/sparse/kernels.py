"""Neighbour tables, pair lists and sums by pairs on the CPU: arrays in, arrays out.

A cell's children stand in the order (0,0) (0,1) (1,0) (1,1) of (y, x); 3x3 neighbourhoods are numbered row by
row, so that 4 is the cell itself. Only places 0 to 3 are looked up: who has j in place k is in place 8 - k of j.

Shapes: n visited nodes of a level, m active ones, p parents, 9 places.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

_njit: Any = numba.njit  # its types lack _nrt
_kernel = _njit(cache=True, nogil=True)
# Without _nrt=False numba counts references to the arrays at every call, by atomic instructions.
# No branch depends on the data: what is active, and who has a neighbour, cannot be predicted.
_hot = _njit(cache=True, nogil=True, forceinline=True, _nrt=False)

_CHILD_Y, _CHILD_X = np.divmod(np.arange(4)[:, None], 2)
_PLACE_Y, _PLACE_X = np.divmod(np.arange(4)[None, :], 3)
# Where place k of child c lies, -1..2 in cells from the parent's corner: the floored half is the parent's
# neighbour, the rest the child of that one.
_Y, _X = _CHILD_Y + _PLACE_Y - 1, _CHILD_X + _PLACE_X - 1
_PARENT_PLACE = 3 * ((_Y >> 1) + 1) + (_X >> 1) + 1
_CHILD = 2 * (_Y & 1) + (_X & 1)


@_kernel
def _number(active_n):
    """Number the active nodes.

    Returns
    -------
    (m,) int64, the index of each active node; (4 + n,) int32: from 4 on the number of each node, -1 where it is
    not active. The first four stand for the children of parent -1: none is active.
    """
    node_m = np.empty(active_n.size + 1, np.int64)
    site_n = np.empty(4 + active_n.size, np.int32)
    site_n[:4] = -1
    m = 0
    for n in range(active_n.size):
        node_m[m] = n  # stays if the node is active
        site_n[4 + n] = m if active_n[n] else -1
        m += active_n[n]
    return node_m[:m].copy(), site_n


@_kernel
def _empty_table(m):
    """Return room for a table of (9, m) and one value more, which takes what has no place in it."""
    table = np.empty(9 * m + 1, np.int32)
    table[5 * m :] = -1
    return table


@_hot
def _link(table, m, i, k, near):
    """Enter a neighbour of site i in place k, and i as its neighbour in place 8 - k."""
    table[k * m + i] = near
    table[(8 - k) * m + near if near >= 0 else 9 * m] = i


@_kernel
def child_sites(active_n, parent_9p):
    """Return the active ones of the children of p parents, and their neighbours.

    Parameters
    ----------
    active_n
        (4p,) bool, the children in the order of their parents.
    parent_9p
        (9, p) int32, the parents' own table.

    Returns
    -------
    (m,) int64 indices of the active children and (9, m) int32: the site in each place, -1 where there is none.
    """
    node_m, site_n = _number(active_n)
    m = node_m.size
    table = _empty_table(m)
    for i in range(m):
        parent, child = node_m[i] >> 2, node_m[i] & 3
        table[4 * m + i] = i
        for k in range(4):
            near = parent_9p[_PARENT_PLACE[child, k], parent]
            _link(table, m, i, k, site_n[4 * near + 4 + _CHILD[child, k]])
    return node_m, table[: 9 * m].reshape(9, m)


@_kernel
def grid_sites(active_n, rows, cols):
    """Return the active nodes of full grids, one an image in row-major order, and their neighbours.

    Parameters
    ----------
    active_n
        (images * rows * cols,) bool.
    rows, cols
        Size of a grid.

    Returns
    -------
    As `child_sites`.
    """
    node_m, site_n = _number(active_n)
    m = node_m.size
    table = _empty_table(m)
    for i in range(m):
        y, x = node_m[i] // cols % rows, node_m[i] % cols
        own = 4 + node_m[i]
        above, left, right = y > 0, x > 0, x < cols - 1
        table[4 * m + i] = i
        _link(table, m, i, 0, site_n[own - cols - 1] if above and left else -1)
        _link(table, m, i, 1, site_n[own - cols] if above else -1)
        _link(table, m, i, 2, site_n[own - cols + 1] if above and right else -1)
        _link(table, m, i, 3, site_n[own - 1] if left else -1)
    return node_m, table[: 9 * m].reshape(9, m)


@_kernel
def pair_lists(nbr_9m):
    """Return the pairs of places 0 to 3, place after place, and where each place ends.

    Returns
    -------
    The site and its neighbour of each pair, (pairs,) int64, ascending in their sites; and (4,) int64, the ends.
    """
    m = nbr_9m.shape[1]
    site_p, near_p = np.empty(4 * m + 1, np.int64), np.empty(4 * m + 1, np.int64)
    ends = np.empty(4, np.int64)
    count = 0
    for k in range(4):
        for i in range(m):
            site_p[count] = i  # stays if there is a neighbour
            near_p[count] = nbr_9m[k, i]
            count += nbr_9m[k, i] >= 0
        ends[k] = count
    return site_p[:count].copy(), near_p[:count].copy(), ends


def _widen(value):
    """Return a number as it is, but the float32 of a bfloat16, whose bits come as uint16."""
    raise NotImplementedError


@overload(_widen, inline="always")
def _widen_compiled(value):
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@_kernel
def add_rows(sum_nc, index_p, rows_pc):
    """Add rows, (p, c) floats or bfloat16 as uint16, to the rows of (n, c) floats that (p,) indices name.

    Where torch's `index_add_` adds bfloat16 to bfloat16, which rounds each sum, this takes 0.55 of its time.
    """
    for p in range(index_p.size):
        n = index_p[p]
        for c in range(rows_pc.shape[1]):
            sum_nc[n, c] += _widen(rows_pc[p, c])
