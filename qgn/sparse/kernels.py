"""Neighbour tables and pair lists on the CPU: arrays in, arrays out.

A cell's children stand in the order (0,0) (0,1) (1,0) (1,1) of (y, x); 3x3 neighbourhoods are numbered row by
row, so that 4 is the cell itself. Only places 0 to 3 are looked up: who has j in place k is in place 8 - k of j.

Shapes: n visited nodes of a level, m active ones, p parents, 9 places.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_njit: Any = numba.njit  # its types lack _nrt
_kernel = _njit(cache=True, nogil=True)
# Without _nrt=False numba counts references to the arrays at every call, by atomic instructions.
_hot = _njit(cache=True, nogil=True, forceinline=True, _nrt=False)


@_kernel
def _number(active_n):
    """Number the active nodes.

    Returns
    -------
    (m,) int64, the index of each active node; (4 + n,) int32: from 4 on the number of each node, -1 where it is
    not active. The first four stand for the children of parent -1: none is active.
    """
    site_n = np.empty(4 + active_n.size, np.int32)
    site_n[:4] = -1
    m = 0
    for n in range(active_n.size):
        site_n[4 + n] = m if active_n[n] else -1
        m += active_n[n]
    node_m = np.empty(m, np.int64)
    for n in range(active_n.size):
        if active_n[n]:
            node_m[site_n[4 + n]] = n
    return node_m, site_n


@_hot
def _link(nbr_9m, i, near_0, near_1, near_2, near_3):
    """Enter the neighbours of site i in places 0 to 3, and i as their neighbour in places 8 to 5."""
    nbr_9m[4, i] = i
    nbr_9m[0, i] = near_0
    nbr_9m[1, i] = near_1
    nbr_9m[2, i] = near_2
    nbr_9m[3, i] = near_3
    if near_0 >= 0:
        nbr_9m[8, near_0] = i
    if near_1 >= 0:
        nbr_9m[7, near_1] = i
    if near_2 >= 0:
        nbr_9m[6, near_2] = i
    if near_3 >= 0:
        nbr_9m[5, near_3] = i


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
    node_m, s = _number(active_n)
    nbr_9m = np.empty((9, node_m.size), np.int32)
    nbr_9m[5:] = -1
    for p in range(parent_9p.shape[1]):
        own = 4 + 4 * p
        a, b, c, d = s[own], s[own + 1], s[own + 2], s[own + 3]
        if (a & b & c & d) == -1:  # none is active
            continue
        # First children of the parents around.
        above_left, above, above_right = 4 + 4 * parent_9p[0, p], 4 + 4 * parent_9p[1, p], 4 + 4 * parent_9p[2, p]
        left, right = 4 + 4 * parent_9p[3, p], 4 + 4 * parent_9p[5, p]
        if a >= 0:
            _link(nbr_9m, a, s[above_left + 3], s[above + 2], s[above + 3], s[left + 1])
        if b >= 0:
            _link(nbr_9m, b, s[above + 2], s[above + 3], s[above_right + 2], a)
        if c >= 0:
            _link(nbr_9m, c, s[left + 1], a, b, s[left + 3])
        if d >= 0:
            _link(nbr_9m, d, a, b, s[right], c)
    return node_m, nbr_9m


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
    node_m, s = _number(active_n)
    nbr_9m = np.empty((9, node_m.size), np.int32)
    nbr_9m[5:] = -1
    for i in range(node_m.size):
        y, x = node_m[i] // cols % rows, node_m[i] % cols
        own = 4 + node_m[i]
        above, left, right = y > 0, x > 0, x < cols - 1
        _link(
            nbr_9m, i,
            s[own - cols - 1] if above and left else -1,
            s[own - cols] if above else -1,
            s[own - cols + 1] if above and right else -1,
            s[own - 1] if left else -1,
        )  # fmt: skip
    return node_m, nbr_9m


@_kernel
def pair_lists(nbr_9m):
    """Return the pairs of places 0 to 3, place after place, and where each place ends.

    Returns
    -------
    (2, pairs) int64, ascending in their sites: the site and its neighbour; and (4,) int64, the ends.
    """
    m = nbr_9m.shape[1]
    ends = np.empty(4, np.int64)
    count = 0
    for k in range(4):
        for i in range(m):
            count += nbr_9m[k, i] >= 0
        ends[k] = count
    pairs = np.empty((2, count), np.int64)
    count = 0
    for k in range(4):
        for i in range(m):
            if nbr_9m[k, i] >= 0:
                pairs[0, count] = i
                pairs[1, count] = nbr_9m[k, i]
                count += 1
    return pairs, ends
