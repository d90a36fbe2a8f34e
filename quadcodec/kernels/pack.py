"""Nodes -> the streams of the fast profile's sections (docs/format.md, section 4).

The *pair* of a composite whose pixels hold exactly two classes is (low << 32 | high) of two label indices,
low < high; that of any other is MULTI.
"""

import numpy as np
from numpy.typing import NDArray

from .codes import CHILD_CONTEXTS, NUM_SPLIT, PLACE_OF, PLACE_OF_BITS
from .compiled import hot, kernel
from .merge import COMPOSITE, OUTSIDE

MULTI = -1
"""Pair of a composite of three or more classes."""


@kernel
def mark_labels(nodes: NDArray[np.integer], present: NDArray[np.bool_]) -> None:
    """Set ``present[v]`` for every class id v among ``nodes``."""
    for i in range(nodes.shape[0]):
        if nodes[i] >= 0:
            present[nodes[i]] = True


@kernel
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


@kernel
def pack_symbols(
    nodes: NDArray[np.integer],
    pairs: NDArray[np.int64],
    index_of: NDArray[np.int32],
    table: NDArray[np.int64],
    symbols: NDArray[np.uint32],
) -> None:
    """Write one symbol a node: label index, else num_labels + pair id, else (MULTI) num_labels + num_pairs.

    ``pairs`` holds the pairs of the composites among ``nodes``; ``table`` is sorted; num_labels stands in
    ``index_of[-1]``.
    """
    num_labels = index_of[-1]
    c = 0
    for i in range(nodes.shape[0]):
        value = nodes[i]
        if value == COMPOSITE:
            known = table.shape[0] if pairs[c] == MULTI else np.searchsorted(table, pairs[c])
            symbols[i] = num_labels + known
            c += 1
        elif value == OUTSIDE:
            symbols[i] = 0
        else:
            symbols[i] = index_of[value]


@hot
def _digit(value: int, high: int, index_of: NDArray[np.int32]) -> int:
    """Return how a child of a pair composite is written: 0 low class or outside, 1 high class, 2 composite."""
    if value == COMPOSITE:
        return 2
    return 1 if value != OUTSIDE and index_of[value] == high else 0


@hot
def _state(value: int, low: int, high: int, index_of: NDArray[np.int32]) -> int:
    """Return the state of a sibling as it is written: 0 low class, 1 high class, else 2; OUTSIDE is label 0."""
    if value == COMPOSITE:
        return 2
    label = 0 if value == OUTSIDE else index_of[value]
    return 0 if label == low else 1 if label == high else 2


@kernel
def pack_children(
    nodes: NDArray[np.integer],
    parent_pairs: NDArray[np.int64],
    parent_contexts: NDArray[np.uint8],
    child_pairs: NDArray[np.int64],
    index_of: NDArray[np.int32],
    table: NDArray[np.int64],
    symbols: NDArray[np.uint32],
    packed: NDArray[np.uint8],
    contexts: NDArray[np.uint8],
) -> None:
    """Write a level between the coarsest and the pixels: four symbols a MULTI parent, a code's place a pair parent.

    ``contexts`` takes those of the composites.
    """
    s = 0
    p = 0
    c = 0
    for i in range(parent_pairs.shape[0]):
        group = nodes[4 * i : 4 * i + 4]
        if parent_pairs[i] == MULTI:
            first = c
            for child in range(4):
                if group[child] == COMPOSITE:
                    low, high = child_pairs[c] >> 32, child_pairs[c] & 0xFFFFFFFF
                    beside = _state(group[child ^ 1], low, high, index_of)
                    below = _state(group[child ^ 2], low, high, index_of)
                    contexts[c] = beside + 3 * below + 9 * child
                    c += 1
            pack_symbols(group, child_pairs[first:c], index_of, table, symbols[s : s + 4])
            s += 4
            continue
        high = parent_pairs[i] & 0xFFFFFFFF
        code = 0
        for child in range(3, -1, -1):
            code = 3 * code + _digit(group[child], high, index_of)
        packed[p] = PLACE_OF[parent_contexts[i], code]
        p += 1
        for child in range(NUM_SPLIT[code]):
            contexts[c] = CHILD_CONTEXTS[code] >> 8 * child & 255
            c += 1


@kernel
def pack_pixels(
    nodes: NDArray[np.integer],
    parent_pairs: NDArray[np.int64],
    parent_contexts: NDArray[np.uint8],
    index_of: NDArray[np.int32],
    symbols: NDArray[np.uint32],
    packed: NDArray[np.uint8],
) -> None:
    """Write level 0: four label indices a MULTI parent, a place in four bits a pair parent, the first in the low ones.

    ``packed`` comes filled with zeros.
    """
    s = 0
    p = 0
    for i in range(parent_pairs.shape[0]):
        if parent_pairs[i] == MULTI:
            for child in range(4):
                value = nodes[4 * i + child]
                symbols[s] = 0 if value == OUTSIDE else index_of[value]
                s += 1
            continue
        high = parent_pairs[i] & 0xFFFFFFFF
        bits = 0
        for child in range(4):
            bits |= _digit(nodes[4 * i + child], high, index_of) << child
        packed[p >> 1] |= PLACE_OF_BITS[parent_contexts[i], bits] << 4 * (p & 1)
        p += 1
