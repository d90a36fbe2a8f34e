"""Sections of the fast profile -> nodes (docs/format.md, section 4).

Of the composites of a level are kept: ``symbols``, which say their kind, ``contexts``, which choose the order of
codes, and ``border``: (rank among the composites, y, x) of those that straddle the edge of the image.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .codes import ALONE, CHILD_CONTEXTS, CODE_AT, DIGITS, NUM_CODES, NUM_SPLIT, PIXEL_DIGITS
from .compiled import SPLAT_BYTES, hot, kernel, put_split, put_word, splat
from .merge import COMPOSITE, OUTSIDE

COARSE = 3
"""Finest level of the first section."""
OK, BAD_LENGTH, BAD_PAIR, BAD_SYMBOL, BAD_PLACE, BAD_BITS, BAD_OUTSIDE = range(7)

_SPARE = SPLAT_BYTES // 4
"""Entries beyond the composites that may be written to."""


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


class Tables(NamedTuple):
    """What each symbol stands for; the last one is multi."""

    multi: int
    node: NDArray[np.integer]
    """Class id or COMPOSITE."""
    low: NDArray[np.int32]
    high: NDArray[np.int32]
    """Label indices of a pair; -1 elsewhere."""
    low_node: NDArray[np.integer]
    high_node: NDArray[np.integer]
    """Their class ids."""


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
    nodes : takes the nodes, coarse to fine; 4 entries a byte of data are enough, 8 a byte of level 0.
    counts : (levels,) takes the number of nodes of each level.

    Returns
    -------
    (status, level that it is about, -1 for the class tables).
    """
    top, coarse = shape.levels - 1, min(COARSE, shape.levels - 1)
    at = shape.num_labels * shape.id_width + 2 * shape.num_pairs * shape.index_width
    if at > ends[0]:
        return BAD_LENGTH, -1
    tables, sound = _read_tables(data, shape, nodes[:0])
    if not sound:
        return BAD_PAIR, -1
    start = ((shape.height - 1 >> top) + 1) * ((shape.width - 1 >> top) + 1)
    end = at + start * shape.symbol_width
    if end > ends[0] or start > nodes.shape[0]:
        return BAD_LENGTH, top
    symbols, contexts = np.empty(start + 1, np.uint32), np.full(start, np.uint8(ALONE))
    status, c = _unpack_top(data, at, shape.symbol_width, tables, nodes[:start], symbols)
    border = _border_of_top(nodes[:start], shape)
    counts[top] = start
    section = 0
    for level in range(top - 1, last - 1, -1):
        if status != OK:
            return status, level + 1
        at, symbols, contexts = end, symbols[:c], contexts[:c]
        if level < coarse:
            if at != ends[section]:
                return BAD_LENGTH, level + 1
            section += 1
        packed, end = _streams(at, symbols, tables.multi, level, shape)
        if end > ends[section] or start + 4 * c > nodes.shape[0]:
            return BAD_LENGTH, level
        own = nodes[start : start + 4 * c]
        firsts = np.empty(c, np.int32)
        if level == 0:
            status = _unpack_pixels(data, at, packed, shape, tables, symbols, contexts, own)
        else:
            parents, orders = symbols, contexts
            symbols, contexts = np.empty(4 * c + _SPARE, np.uint32), np.empty(4 * c + _SPARE, np.uint8)
            status, c = _unpack_cells(data, at, packed, shape, tables, parents, orders, own, firsts, symbols, contexts)
        if status == OK:
            status, border = _trim(own, firsts, border, level, shape)
        counts[level] = own.shape[0]
        start += own.shape[0]
    if status == OK and last <= coarse and end != ends[section]:
        return BAD_LENGTH, last
    return status, last


@hot
def _byte(data: NDArray[np.uint8], at: int) -> int:
    """Return ``data[at]``; an unsigned index is not looked at for being negative."""
    return np.int64(data[np.uint64(at)])  # type: ignore[return-value]


@hot
def _number(data: NDArray[np.uint8], at: int, width: int) -> int:
    """Return the little-endian number of 1, 2 or 4 bytes at ``at``."""
    value: int = _byte(data, at)
    if width > 1:
        value |= _byte(data, at + 1) << 8
    if width > 2:
        value |= _byte(data, at + 2) << 16 | _byte(data, at + 3) << 24
    return value


@kernel
def _read_tables(data: NDArray[np.uint8], shape: Shape, like: NDArray[np.integer]) -> tuple[Tables, bool]:
    """Return the tables, nodes as ``like``, and whether every pair is two label indices in rising order."""
    multi = shape.num_labels + shape.num_pairs
    node = np.full(multi + 1, np.int64(COMPOSITE)).astype(like.dtype)
    low, high = np.full(multi + 1, np.int32(-1)), np.full(multi + 1, np.int32(-1))
    low_node, high_node = node.copy(), node.copy()
    for k in range(shape.num_labels):
        node[k] = _number(data, k * shape.id_width, shape.id_width)
    at = shape.num_labels * shape.id_width
    sound = True
    for symbol in range(shape.num_labels, multi):
        first = _number(data, at, shape.index_width)
        second = _number(data, at + shape.index_width, shape.index_width)
        at += 2 * shape.index_width
        if first >= second or second >= shape.num_labels:
            sound = False
            break
        low[symbol], high[symbol] = first, second
        low_node[symbol], high_node[symbol] = node[first], node[second]
    return Tables(multi, node, low, high, low_node, high_node), sound


@kernel
def _streams(at: int, symbols: NDArray[np.uint32], multi: int, level: int, shape: Shape) -> tuple[int, int]:
    """Return where the symbols of a level end, which start at ``at``, and where its codes end."""
    count = 0
    for i in range(symbols.shape[0]):
        count += symbols[i] == multi
    pairs = symbols.shape[0] - count
    packed = at + 4 * count * (shape.symbol_width if level else shape.index_width)
    return packed, packed + (pairs if level else (pairs + 1) // 2)


@kernel
def _unpack_top(
    data: NDArray[np.uint8],
    at: int,
    width: int,
    tables: Tables,
    nodes: NDArray[np.integer],
    symbols: NDArray[np.uint32],
) -> tuple[int, int]:
    """Read the coarsest level, one symbol a node; return (status, number of composites)."""
    c = 0
    largest = 0
    for i in range(nodes.shape[0]):
        number = _number(data, at + i * width, width)
        largest = max(largest, number)
        symbol = min(number, tables.multi)
        node = tables.node[symbol]
        nodes[i] = node
        symbols[c] = symbol
        c += node == COMPOSITE
    return BAD_SYMBOL if largest > tables.multi else OK, c


@hot
def _state(symbol: int, low: int, high: int) -> int:
    """Return the state of a sibling: 0 low class, 1 high class, else 2."""
    return 2 - 2 * (symbol == low) - (symbol == high)


@kernel
def _unpack_cells(
    data: NDArray[np.uint8],
    at: int,
    packed: int,
    shape: Shape,
    tables: Tables,
    parents: NDArray[np.uint32],
    orders: NDArray[np.uint8],
    nodes: NDArray[np.integer],
    firsts: NDArray[np.int32],
    symbols: NDArray[np.uint32],
    contexts: NDArray[np.uint8],
) -> tuple[int, int]:
    """Read a level that is neither the coarsest nor the pixels; return (status, number of composites).

    ``at`` and ``packed`` say where its streams begin; ``parents`` and ``orders`` are the symbols and contexts of the
    level above. ``firsts`` takes the number of composites before the children of each parent.
    """
    width, num_labels = shape.symbol_width, shape.num_labels
    c = 0
    for i in range(parents.shape[0]):
        parent = parents[i]
        firsts[i] = c
        if parent != tables.multi:
            place = _byte(data, packed)
            packed += 1
            if place >= NUM_CODES:
                return BAD_PLACE, 0
            code = CODE_AT[orders[i], np.uint8(place)]
            put_split(nodes, 4 * i, tables.low_node[parent], tables.high_node[parent], DIGITS[code])
            splat(symbols, c, parent)
            put_word(contexts, c, CHILD_CONTEXTS[code])
            c += NUM_SPLIT[code]
            continue
        for j in range(4):
            symbol = _number(data, at + j * width, width)
            if symbol < num_labels:
                nodes[4 * i + j] = tables.node[symbol]
                continue
            if symbol > tables.multi:
                return BAD_SYMBOL, 0
            nodes[4 * i + j] = COMPOSITE
            symbols[c] = symbol
            if symbol < tables.multi:
                low, high = tables.low[symbol], tables.high[symbol]
                beside = _state(_number(data, at + (j ^ 1) * width, width), low, high)
                below = _state(_number(data, at + (j ^ 2) * width, width), low, high)
                contexts[c] = beside + 3 * below + 9 * j
            c += 1
        at += 4 * width
    return OK, c


@kernel
def _unpack_pixels(
    data: NDArray[np.uint8],
    at: int,
    packed: int,
    shape: Shape,
    tables: Tables,
    parents: NDArray[np.uint32],
    orders: NDArray[np.uint8],
    nodes: NDArray[np.integer],
) -> int:
    """Read level 0; arguments as `_unpack_cells`. Returns a status."""
    width = shape.index_width
    nibble = 2 * packed
    for i in range(parents.shape[0]):
        parent = parents[i]
        if parent != tables.multi:
            place = _byte(data, nibble >> 1) >> 4 * (nibble & 1) & 15
            nibble += 1
            digits = PIXEL_DIGITS[orders[i], np.uint8(place)]
            put_split(nodes, 4 * i, tables.low_node[parent], tables.high_node[parent], digits)
            continue
        for j in range(4):
            index = _number(data, at, width)
            if index >= shape.num_labels:
                return BAD_SYMBOL
            nodes[4 * i + j] = tables.node[index]
            at += width
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
