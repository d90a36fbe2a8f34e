"""Node values of a level <-> the two streams of a section of the fast profile (docs/format.md, section 4).

The *kind* of a composite is the id of its class pair where its pixels hold exactly two classes, else MULTI.
A pair is written as (low << 32 | high) of two label indices, low < high.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from .merge import COMPOSITE, OUTSIDE

MULTI = -1
"""Kind of a composite of three or more classes."""

OK, BAD_SYMBOL, BAD_TRITS, BAD_BITS, BAD_OUTSIDE = 0, 1, 2, 3, 4


@numba.njit(cache=True, nogil=True)
def mark_labels(nodes: NDArray[np.integer], present: NDArray[np.bool_]) -> None:
    """Set ``present[v]`` for every class id v among ``nodes``."""
    for i in range(nodes.shape[0]):
        if nodes[i] >= 0:
            present[nodes[i]] = True


@numba.njit(cache=True, nogil=True)
def find_pairs(
    nodes: NDArray[np.integer],
    child_pairs: NDArray[np.int64],
    index_of: NDArray[np.int32],
    pairs: NDArray[np.int64],
) -> None:
    """Write to ``pairs`` the class pair (or MULTI) of each parent of ``nodes`` (4n,); below MULTI for one class.

    ``child_pairs`` holds those of the composites among ``nodes``, in order; ``index_of`` maps a class id to
    its label index.
    """
    c = 0
    for i in range(pairs.shape[0]):
        low = np.int64(-1)
        high = np.int64(-1)
        multi = False
        for child in range(4):
            value = nodes[4 * i + child]
            if value == OUTSIDE:
                continue
            if value == COMPOSITE:
                pair = child_pairs[c]
                c += 1
                if pair == MULTI:
                    multi = True
                    continue
                first = pair >> 32
                second = pair & 0xFFFFFFFF
            else:
                first = np.int64(index_of[value])
                second = first
            for label in (first, second):
                if label in (low, high):
                    continue
                if low < 0:
                    low = label
                elif high < 0:
                    high = label
                else:
                    multi = True
        if multi:
            pairs[i] = MULTI
        elif low < high:
            pairs[i] = low << 32 | high
        else:
            pairs[i] = high << 32 | low


@numba.njit(cache=True, nogil=True)
def pack_symbols(
    nodes: NDArray[np.integer],
    pairs: NDArray[np.int64],
    index_of: NDArray[np.int32],
    table: NDArray[np.int64],
    symbols: NDArray[np.unsignedinteger],
) -> None:
    """Write one symbol a node: label index, else num_labels + pair id, else (MULTI) num_labels + num_pairs.

    ``pairs`` holds the pairs of the composites among ``nodes``; ``table`` is sorted; num_labels is the
    length of ``index_of``'s image and stands in ``index_of[-1]``.
    """
    num_labels = index_of[-1]
    c = 0
    for i in range(nodes.shape[0]):
        value = nodes[i]
        if value == COMPOSITE:
            if pairs[c] == MULTI:
                symbols[i] = num_labels + table.shape[0]
            else:
                symbols[i] = num_labels + np.searchsorted(table, pairs[c])
            c += 1
        elif value == OUTSIDE:
            symbols[i] = 0
        else:
            symbols[i] = index_of[value]


@numba.njit(cache=True, nogil=True)
def pack_children(
    nodes: NDArray[np.integer],
    parent_pairs: NDArray[np.int64],
    child_pairs: NDArray[np.int64],
    index_of: NDArray[np.int32],
    table: NDArray[np.int64],
    pixels: bool,
    symbols: NDArray[np.unsignedinteger],
    packed: NDArray[np.uint8],
) -> None:
    """Write a level below the top: four symbols a MULTI parent, one item a pair parent.

    The item is a byte of four trits (0 low class, 1 high class, 2 composite; first child lowest), or for
    ``pixels`` (level 0) a nibble of four bits, two parents a byte, the first in the low nibble.
    """
    num_labels = index_of[-1]
    s = 0
    p = 0
    c = 0
    for i in range(parent_pairs.shape[0]):
        if parent_pairs[i] == MULTI:
            for child in range(4):
                value = nodes[4 * i + child]
                if value == COMPOSITE:
                    if child_pairs[c] == MULTI:
                        symbols[s] = num_labels + table.shape[0]
                    else:
                        symbols[s] = num_labels + np.searchsorted(table, child_pairs[c])
                    c += 1
                elif value == OUTSIDE:
                    symbols[s] = 0
                else:
                    symbols[s] = index_of[value]
                s += 1
            continue
        high = parent_pairs[i] & 0xFFFFFFFF
        item = 0
        weight = 1
        for child in range(4):
            value = nodes[4 * i + child]
            if value == COMPOSITE:
                item += 2 * weight
                c += 1
            elif value != OUTSIDE and index_of[value] == high:
                item += weight
            weight *= 2 if pixels else 3
        if pixels:
            packed[p >> 1] |= item << (4 * (p & 1))
        else:
            packed[p] = item
        p += 1


@numba.njit(cache=True, nogil=True)
def inside_child(cell: NDArray[np.int32], child: int, level: int, height: int, width: int) -> bool:
    """Whether a child at ``level`` of the parent cell (_, y, x) holds a pixel of the image."""
    y = np.int64(2 * cell[1] + (child >> 1)) << level
    x = np.int64(2 * cell[2] + (child & 1)) << level
    return bool(y < height and x < width)


@numba.njit(cache=True, nogil=True)
def straddles(y: int, x: int, level: int, height: int, width: int) -> bool:
    """Whether cell (y, x) of ``level`` lies partly inside the image and partly beyond its bottom or right."""
    return bool((np.int64(y + 1) << level) > height or (np.int64(x + 1) << level) > width)


@numba.njit(cache=True, nogil=True)
def unpack_top(
    symbols: NDArray[np.unsignedinteger],
    cols: int,
    level: int,
    height: int,
    width: int,
    labels: NDArray[np.integer],
    num_pairs: int,
    nodes: NDArray[np.integer],
    kinds: NDArray[np.int32],
    border: NDArray[np.int32],
) -> tuple[int, int, int]:
    """Read the coarsest level.

    ``kinds`` takes the kind of each composite; ``border`` takes (rank among the composites, y, x) of those
    that straddle the edge of the image.

    Returns
    -------
    (status, number of composites, number of border composites).
    """
    num_labels = labels.shape[0]
    c = 0
    b = 0
    for i in range(symbols.shape[0]):
        symbol = np.int64(symbols[i])
        if symbol < num_labels:
            nodes[i] = labels[symbol]
            continue
        if symbol > num_labels + num_pairs:
            return BAD_SYMBOL, 0, 0
        nodes[i] = COMPOSITE
        kinds[c] = symbol - num_labels if symbol < num_labels + num_pairs else MULTI
        if straddles(i // cols, i % cols, level, height, width):
            border[b, 0] = c
            border[b, 1] = i // cols
            border[b, 2] = i % cols
            b += 1
        c += 1
    return OK, c, b


@numba.njit(cache=True, nogil=True)
def unpack_children(
    symbols: NDArray[np.unsignedinteger],
    packed: NDArray[np.uint8],
    parent_kinds: NDArray[np.int32],
    parent_border: NDArray[np.int32],
    level: int,
    height: int,
    width: int,
    labels: NDArray[np.integer],
    pairs: NDArray[np.integer],
    nodes: NDArray[np.integer],
    kinds: NDArray[np.int32],
    border: NDArray[np.int32],
) -> tuple[int, int, int]:
    """Read a level below the top; ``pairs`` (num_pairs, 2) holds label indices. Returns as `unpack_top`."""
    num_labels = labels.shape[0]
    num_pairs = pairs.shape[0]
    s = 0
    p = 0
    c = 0
    b = 0
    next_border = 0
    for i in range(parent_kinds.shape[0]):
        kind = parent_kinds[i]
        first = c
        if kind == MULTI:
            for child in range(4):
                symbol = np.int64(symbols[s])
                s += 1
                if symbol < num_labels:
                    nodes[4 * i + child] = labels[symbol]
                    continue
                if symbol > num_labels + num_pairs or level == 0:
                    return BAD_SYMBOL, 0, 0
                nodes[4 * i + child] = COMPOSITE
                kinds[c] = symbol - num_labels if symbol < num_labels + num_pairs else MULTI
                c += 1
        else:
            low = labels[pairs[kind, 0]]
            high = labels[pairs[kind, 1]]
            if level == 0:
                item = packed[p >> 1] >> (4 * (p & 1))
                for child in range(4):
                    nodes[4 * i + child] = high if item >> child & 1 else low
            else:
                item = packed[p]
                if item > 80:
                    return BAD_TRITS, 0, 0
                for child in range(4):
                    trit = item % 3
                    item //= 3
                    if trit == 2:
                        nodes[4 * i + child] = COMPOSITE
                        kinds[c] = kind
                        c += 1
                    else:
                        nodes[4 * i + child] = high if trit else low
            p += 1
        if next_border == parent_border.shape[0] or parent_border[next_border, 0] != i:
            continue
        cell = parent_border[next_border]
        next_border += 1
        rank = first
        for child in range(4):
            composite = nodes[4 * i + child] == COMPOSITE
            if not inside_child(cell, child, level, height, width):
                if composite:
                    return BAD_OUTSIDE, 0, 0
                nodes[4 * i + child] = OUTSIDE
            elif composite:
                y = 2 * cell[1] + (child >> 1)
                x = 2 * cell[2] + (child & 1)
                if straddles(y, x, level, height, width):
                    border[b, 0] = rank
                    border[b, 1] = y
                    border[b, 2] = x
                    b += 1
                rank += 1
    if p & 1 and level == 0 and packed[p >> 1] >> 4:
        return BAD_BITS, 0, 0
    return OK, c, b
