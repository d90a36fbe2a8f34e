"""Sections of the fast profile -> nodes (docs/format.md, section 4).

The *kind* of a composite is the id of its class pair where its pixels hold exactly two classes, else MULTI.
Of the composites of a level are kept: ``kinds``, ``contexts`` (of the orders of codes), and ``border``: (rank among
the composites, y, x) of those that straddle the edge of the image.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .codes import ALONE, CHILD_CONTEXTS, CODE_AT, HIGH, NUM_CODES, NUM_SPLIT, PIXEL_HIGH, SPLIT
from .compiled import hot, kernel
from .merge import COMPOSITE, OUTSIDE

MULTI = -1
"""Kind of a composite of three or more classes."""
COARSE = 3
"""Finest level of the first section."""
OK, BAD_LENGTH, BAD_PAIR, BAD_SYMBOL, BAD_PLACE, BAD_BITS, BAD_OUTSIDE = range(7)

_SPARE = 3
"""Entries that the composites of one parent are written to and that may not count."""


class Shape(NamedTuple):
    """What the header of a record says: pixels, and bytes of an id, of a label index and of a symbol."""

    levels: int
    height: int
    width: int
    num_labels: int
    num_pairs: int
    id_width: int
    index_width: int
    symbol_width: int


@kernel
def unpack(
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
    last: int,
    shape: Shape,
    nodes: NDArray[np.integer],
    counts: NDArray[np.int64],
) -> tuple[int, int]:
    """Read the levels down to ``last``.

    Parameters
    ----------
    data : the sections' bytes, one after another.
    ends : where each section ends.
    nodes : takes the nodes, coarse to fine; 4 entries a byte of data are enough, 8 a byte of the last section.
    counts : (levels,) takes the number of nodes of each level.

    Returns
    -------
    (status, level that it is about, -1 for the class tables).
    """
    coarse = min(COARSE, shape.levels - 1)
    top, coarse = shape.levels - 1, min(COARSE, shape.levels - 1)
    at = shape.num_labels * shape.id_width + 2 * shape.num_pairs * shape.index_width
    if at > ends[0]:
        return BAD_LENGTH, -1
    labels = np.empty(shape.num_labels, nodes.dtype)
    pairs = np.empty((shape.num_pairs, 2), np.int64)
    if not _read_tables(data, shape, labels, pairs):
        return BAD_PAIR, -1
    values = np.empty((shape.num_pairs, 2), nodes.dtype)
    for pair in range(shape.num_pairs):
        values[pair, 0] = labels[pairs[pair, 0]]
        values[pair, 1] = labels[pairs[pair, 1]]

    start = ((shape.height - 1 >> top) + 1) * ((shape.width - 1 >> top) + 1)
    end = at + start * shape.symbol_width
    if end > ends[0] or start > nodes.shape[0]:
        return BAD_LENGTH, top
    kinds = np.empty(start, np.int32)
    contexts = np.full(start, np.uint8(ALONE))
    status, c = _unpack_top(data, at, shape, labels, nodes[:start], kinds)
    border = _border_of_top(nodes[:start], shape)
    counts[top] = start
    section = 0
    for level in range(top - 1, last - 1, -1):
        if status != OK:
            return status, level + 1
        kinds, contexts, at = kinds[:c], contexts[:c], end
        if level < coarse:
            if at != ends[section]:
                return BAD_LENGTH, level + 1
            section += 1
        packed, end = _streams(at, kinds, level, shape)
        if end > ends[section] or start + 4 * c > nodes.shape[0]:
            return BAD_LENGTH, level
        own = nodes[start : start + 4 * c]
        firsts = np.empty(c, np.int32)
        if level == 0:
            status = _unpack_pixels(data, at, packed, shape, labels, values, kinds, contexts, own)
        else:
            above_kinds, above_contexts = kinds, contexts
            kinds, contexts = np.empty(4 * c + _SPARE, np.int32), np.empty(4 * c + _SPARE, np.uint8)
            status, c = _unpack_cells(
                data,
                at,
                packed,
                shape,
                labels,
                pairs,
                values,
                above_kinds,
                above_contexts,
                own,
                firsts,
                kinds,
                contexts,
            )
        if status == OK:
            status, border = _trim(own, firsts, border, level, shape)
        counts[level] = own.shape[0]
        start += own.shape[0]
    if status == OK and last <= coarse and end != ends[section]:
        return BAD_LENGTH, last
    return status, last


@hot
def _number(data: NDArray[np.uint8], at: int, width: int) -> int:
    """Return the little-endian number of 1, 2 or 4 bytes at ``at``."""
    value = np.int64(data[at])
    if width > 1:
        value |= np.int64(data[at + 1]) << 8
    if width > 2:
        value |= np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24
    return int(value)


@kernel
def _read_tables(data: NDArray[np.uint8], shape: Shape, labels: NDArray[np.integer], pairs: NDArray[np.int64]) -> bool:
    """Read class ids and the label indices of pairs; False if a pair is not two of them in rising order."""
    for k in range(shape.num_labels):
        labels[k] = _number(data, k * shape.id_width, shape.id_width)
    at = shape.num_labels * shape.id_width
    for pair in range(shape.num_pairs):
        low = _number(data, at, shape.index_width)
        high = _number(data, at + shape.index_width, shape.index_width)
        if low >= high or high >= shape.num_labels:
            return False
        pairs[pair, 0] = low
        pairs[pair, 1] = high
        at += 2 * shape.index_width
    return True


@kernel
def _streams(at: int, kinds: NDArray[np.int32], level: int, shape: Shape) -> tuple[int, int]:
    """Return where the symbols of a level end, which start at ``at``, and where its codes end."""
    multi = 0
    for i in range(kinds.shape[0]):
        multi += kinds[i] == MULTI
    pairs = kinds.shape[0] - multi
    packed = at + 4 * multi * (shape.symbol_width if level else shape.index_width)
    return packed, packed + (pairs if level else (pairs + 1) // 2)


@kernel
def _unpack_top(
    data: NDArray[np.uint8],
    at: int,
    shape: Shape,
    labels: NDArray[np.integer],
    nodes: NDArray[np.integer],
    kinds: NDArray[np.int32],
) -> tuple[int, int]:
    """Read the coarsest level, one symbol a node; return (status, number of composites)."""
    multi = shape.num_labels + shape.num_pairs
    c = 0
    for i in range(nodes.shape[0]):
        symbol = _number(data, at + i * shape.symbol_width, shape.symbol_width)
        if symbol < shape.num_labels:
            nodes[i] = labels[symbol]
            continue
        if symbol > multi:
            return BAD_SYMBOL, 0
        nodes[i] = COMPOSITE
        kinds[c] = MULTI if symbol == multi else symbol - shape.num_labels
        c += 1
    return OK, c


@hot
def _state(symbol: int, low: int, high: int) -> int:
    """Return the state of a sibling: 0 low class, 1 high class, else 2."""
    return 0 if symbol == low else 1 if symbol == high else 2


@kernel
def _unpack_cells(
    data: NDArray[np.uint8],
    symbols: int,
    packed: int,
    shape: Shape,
    labels: NDArray[np.integer],
    pairs: NDArray[np.int64],
    values: NDArray[np.integer],
    above_kinds: NDArray[np.int32],
    above_contexts: NDArray[np.uint8],
    nodes: NDArray[np.integer],
    firsts: NDArray[np.int32],
    kinds: NDArray[np.int32],
    contexts: NDArray[np.uint8],
) -> tuple[int, int]:
    """Read a level that is neither the coarsest nor the pixels; return (status, number of composites).

    ``symbols`` and ``packed`` say where its streams begin; ``values`` (num_pairs, 2) holds class ids. ``firsts``
    takes the number of composites before the children of each parent.
    """
    width, multi = shape.symbol_width, shape.num_labels + shape.num_pairs
    c = 0
    for i in range(above_kinds.shape[0]):
        kind = above_kinds[i]
        firsts[i] = c
        if kind != MULTI:
            if data[packed] >= NUM_CODES:
                return BAD_PLACE, 0
            code = CODE_AT[above_contexts[i], data[packed]]
            packed += 1
            low = values[kind, 0]
            mixed = low ^ values[kind, 1]
            child_contexts = CHILD_CONTEXTS[code]
            for j in range(4):
                nodes[4 * i + j] = low ^ (mixed & HIGH[code, j]) | SPLIT[code, j]
                kinds[c + j] = kind
                contexts[c + j] = child_contexts >> 8 * j
            c += NUM_SPLIT[code]
            continue
        for j in range(4):
            symbol = _number(data, symbols + j * width, width)
            if symbol < shape.num_labels:
                nodes[4 * i + j] = labels[symbol]
                continue
            if symbol > multi:
                return BAD_SYMBOL, 0
            nodes[4 * i + j] = COMPOSITE
            kinds[c] = MULTI
            if symbol < multi:
                kinds[c] = symbol - shape.num_labels
                low, high = pairs[kinds[c], 0], pairs[kinds[c], 1]
                beside = _state(_number(data, symbols + (j ^ 1) * width, width), low, high)
                below = _state(_number(data, symbols + (j ^ 2) * width, width), low, high)
                contexts[c] = beside + 3 * below + 9 * j
            c += 1
        symbols += 4 * width
    return OK, c


@kernel
def _unpack_pixels(
    data: NDArray[np.uint8],
    symbols: int,
    packed: int,
    shape: Shape,
    labels: NDArray[np.integer],
    values: NDArray[np.integer],
    kinds: NDArray[np.int32],
    contexts: NDArray[np.uint8],
    nodes: NDArray[np.integer],
) -> int:
    """Read level 0; arguments as `_unpack_cells`. Returns a status."""
    width = shape.index_width
    nibble = 2 * packed
    for i in range(kinds.shape[0]):
        kind = kinds[i]
        if kind != MULTI:
            split = 16 * contexts[i] + (data[nibble >> 1] >> 4 * (nibble & 1) & 15)
            nibble += 1
            low = values[kind, 0]
            mixed = low ^ values[kind, 1]
            for j in range(4):
                nodes[4 * i + j] = low ^ (mixed & PIXEL_HIGH[split, j])
            continue
        for j in range(4):
            index = _number(data, symbols, width)
            if index >= shape.num_labels:
                return BAD_SYMBOL
            nodes[4 * i + j] = labels[index]
            symbols += width
    return BAD_BITS if nibble & 1 and data[nibble >> 1] >> 4 else OK


@kernel
def _border_of_top(nodes: NDArray[np.integer], shape: Shape) -> NDArray[np.int32]:
    """Return the composites of the coarsest level that straddle the edge of the image."""
    level = shape.levels - 1
    rows, cols = (shape.height - 1 >> level) + 1, (shape.width - 1 >> level) + 1
    border = np.empty((rows + cols, 3), np.int32)
    b = 0
    if shape.height != rows << level or shape.width != cols << level:
        c = 0
        for i in range(nodes.shape[0]):
            if nodes[i] != COMPOSITE:
                continue
            if _straddles(i // cols, i % cols, level, shape):
                border[b, 0], border[b, 1], border[b, 2] = c, i // cols, i % cols
                b += 1
            c += 1
    return border[:b]


@hot
def _straddles(y: int, x: int, level: int, shape: Shape) -> bool:
    """Whether cell (y, x), which holds a pixel of the image, reaches beyond its bottom or right edge."""
    return bool(y + 1 << level > shape.height or x + 1 << level > shape.width)


@kernel
def _trim(
    nodes: NDArray[np.integer], firsts: NDArray[np.int32], above: NDArray[np.int32], level: int, shape: Shape
) -> tuple[int, NDArray[np.int32]]:
    """Set the cells of a level that lie outside the image; return (status, its border composites).

    ``above`` holds the parents that straddle the edge of the image.
    """
    border = np.empty((4 * above.shape[0], 3), np.int32)
    b = 0
    for k in range(above.shape[0]):
        parent = above[k, 0]
        rank = firsts[parent]
        for j in range(4):
            y, x = 2 * above[k, 1] + (j >> 1), 2 * above[k, 2] + (j & 1)
            composite = nodes[4 * parent + j] == COMPOSITE
            if y << level >= shape.height or x << level >= shape.width:
                if composite:
                    return BAD_OUTSIDE, border
                nodes[4 * parent + j] = OUTSIDE
            elif composite:
                if _straddles(y, x, level, shape):
                    border[b, 0], border[b, 1], border[b, 2] = rank, y, x
                    b += 1
                rank += 1
    return OK, border[:b]
