# numba's scalars are int64 throughout; mypy would tell int and np.int64 apart at every step.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
"""Regions between the crack edges, and their labels (docs/small.md, section 6).

A run is a stretch of pixels of one row between two vertical edges. A row without a horizontal edge above it
has the runs of the row before and is not listed: its entry in ``first`` equals the next one's.
"""

import numpy as np
from numpy.typing import NDArray

from .chain import BAD_LABEL, OK
from .compiled import SPLAT_BYTES, bits_of, copy, hot, kernel, ones, splat, trailing_zeros
from .contexts import AT_LABELS
from .edges import E, N, S
from .rangecoder import get, get_state, put, put_state

TREE = AT_LABELS + 64
TREE_STATES = 1024
"""Nodes of the tree over the palette that have a state; deeper decisions cost one bit."""
RECENT = 256
"""Rows of the table of recent labels."""


@hot
def fill_run(pixels: NDArray[np.unsignedinteger], at: int, stop: int, end: int, value: int) -> None:
    """Set ``pixels[at:stop]``; what follows up to ``end`` may change, its own run comes later."""
    lanes = SPLAT_BYTES // pixels.itemsize
    begin = at
    while at < stop and at + lanes <= end:
        splat(pixels, at, value)
        at += lanes
    if at < stop and stop - begin >= lanes:
        splat(pixels, stop - lanes, value)
        return
    while at < stop:
        pixels[np.uint64(at)] = value
        at += 1


@hot
def find_root(parent: NDArray[np.int32], k: int) -> int:
    """Return the root of run ``k``, and halve the path to it."""
    up = np.int64(parent[np.uint64(k)])
    while up != k:
        top = parent[np.uint64(up)]
        parent[np.uint64(k)] = top
        k = np.int64(top)
        up = np.int64(parent[np.uint64(k)])
    return k


@hot
def unite(parent: NDArray[np.int32], k: int, m: int) -> None:
    """Join two sets of runs; the smaller root stays one."""
    a = find_root(parent, k)
    b = find_root(parent, m)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@hot
def bits_of_row(edges: NDArray[np.uint8], at: int, i: int, pitch: int, mask: int) -> np.uint64:
    """Return `bits_of` of the i-th 64 vertices of the row that begins at ``at``, without those of the next row."""
    bits = bits_of(edges, at + 64 * i, np.uint8(mask))
    left = pitch - 64 * i
    return bits if left >= 64 else bits & ((np.uint64(1) << np.uint64(left)) - np.uint64(1))


@hot
def list_ones(word: np.uint64, base: int, places: NDArray[np.int32], num: int) -> int:
    """Write ``base`` + the places of the ones of ``word`` to ``places[num:]``, and up to seven numbers more."""
    end = num + ones(word)
    while True:
        for k in range(8):
            places[np.uint64(num + k)] = base + trailing_zeros(word)
            word &= word - np.uint64(1)
        num += 8
        if num >= end:
            return end


@kernel
def link_runs(
    edges: NDArray[np.uint8],
    height: int,
    width: int,
    pitch: int,
    first: NDArray[np.int32],
    runs: NDArray[np.int32],
) -> NDArray[np.int32]:
    """List the runs of a map and join those that touch without an edge between.

    ``first`` (height + 1,) takes the first run of each row. Returns ``runs`` (3, n), or a longer array in its place:
    the first pixel of each run, a run of the same region that is not later (the region's first run: itself), and
    the run over the first pixel.
    """
    start, parent, above = runs[0], runs[1], runs[2]
    places = np.empty(width + 72, np.int32)
    blocks = (width >> 6) + 1
    num = 0
    upper = 0
    for y in range(height):
        at = y * pitch
        first[y] = num
        if y:
            level = np.uint64(0)
            for i in range(blocks):
                level |= bits_of_row(edges, at, i, pitch, E)
            if level == 0:
                continue
        count = 0
        for i in range(blocks):
            word = bits_of_row(edges, at, i, pitch, N | S)
            if word:
                count = list_ones(word, 64 * i, places, count)
        if num + count >= runs.shape[1]:
            longer = np.empty((3, 2 * (num + count + width)), np.int32)
            longer[:, :num] = runs[:, :num]
            runs = longer
            start, parent, above = runs[0], runs[1], runs[2]
        # Go along the vertices of the row: p is the run above them, k the run below.
        last = num - 1
        p = upper
        upper = num
        k = num
        start[k] = 0
        above[k] = p
        parent[k] = k if y == 0 or edges[at] & E else find_root(parent, p)
        for n in range(count):
            x = np.int64(places[np.uint64(n)])
            cell = np.int64(edges[np.uint64(at + x)])
            p = min(p + (cell >> 3 & 1), last)
            if cell & S:
                k += 1
                start[np.uint64(k)] = x
                above[np.uint64(k)] = p
                parent[np.uint64(k)] = k if y == 0 or cell & E else find_root(parent, p)
            elif not cell & E:
                unite(parent, k, p)
        num = k + 1
    first[height] = num
    return runs


@kernel
def new_recent() -> NDArray[np.int32]:
    """Return the table of recent labels: the last two of a neighbourhood, the last after a left one."""
    return np.full((RECENT, 3), -1, np.int32)


@kernel
def recent_row(left: int, top: int) -> int:
    """Return the row of a neighbourhood; -1 stands for the edge of the tile."""
    return ((left + 1) * 29 + (top + 1) * 101) & (RECENT - 1)


@kernel
def implied_label(left: int, top: int, num_labels: int) -> int:
    """Return the only label that differs from both neighbours, or -1."""
    if num_labels == 1:
        return 0
    if num_labels == 2 and (left >= 0 or top >= 0):
        return 1 - max(left, top)
    if num_labels == 3 and left >= 0 and top >= 0 and left != top:
        return 3 - left - top
    return -1


@kernel
def remember(recent: NDArray[np.int32], row: int, left: int, label: int) -> None:
    """Put ``label`` in front."""
    if recent[row, 0] != label:
        recent[row, 1] = recent[row, 0]
        recent[row, 0] = label
    recent[(left + 1) & (RECENT - 1), 2] = label


@kernel
def candidate(recent: NDArray[np.int32], row: int, left: int, top: int, k: int) -> int:
    """Return the k-th guess, or -1 where it is none, cannot be, or was asked for before."""
    label = recent[row, k] if k < 2 else recent[(left + 1) & (RECENT - 1), 2]
    if label == left or label == top:  # noqa: SIM109 (a tuple of unlike integers is none to numba)
        return -1
    if k == 2 and (label == recent[row, 0] or label == recent[row, 1]):
        return -1
    return np.int64(label)


@kernel
def tree_bits(num_labels: int) -> int:
    """Return the depth of the tree over the palette."""
    bits = 0
    while 1 << bits < num_labels:
        bits += 1
    return bits


@kernel
def put_label(
    out: NDArray[np.uint8],
    low: int,
    rng: int,
    pos: int,
    states: NDArray[np.uint32],
    recent: NDArray[np.int32],
    left: int,
    top: int,
    num_labels: int,
    label: int,
) -> tuple[int, int, int]:
    """Code the label of a region whose first pixel has the labels ``left`` and ``top`` beside it (or -1)."""
    implied = implied_label(left, top, num_labels)
    if implied >= 0:
        return low, rng, pos
    row = recent_row(left, top)
    place = 8 * ((left >= 0) + (top >= 0) + (left == top))
    hit = False
    for k in range(3):
        guess = candidate(recent, row, left, top, k)
        if guess < 0:
            continue
        hit = guess == label
        low, rng, pos = put_state(out, low, rng, pos, np.int64(hit), states, AT_LABELS + place + k)
        if hit:
            break
    if not hit:
        node = 1
        for i in range(tree_bits(num_labels) - 1, -1, -1):
            bit = label >> i & 1
            if node < TREE_STATES:
                low, rng, pos = put_state(out, low, rng, pos, bit, states, TREE + node)
            else:
                low, rng, pos = put(out, low, rng, pos, bit, 32768)
            node = 2 * node + bit
    remember(recent, row, left, label)
    return low, rng, pos


@kernel
def get_label(
    data: NDArray[np.uint32],
    code: int,
    rng: int,
    pos: int,
    states: NDArray[np.uint32],
    recent: NDArray[np.int32],
    left: int,
    top: int,
    num_labels: int,
) -> tuple[int, int, int, int]:
    """Return (label, code, rng, pos); a label from hostile bytes may be ``num_labels`` or more."""
    implied = implied_label(left, top, num_labels)
    if implied >= 0:
        return implied, code, rng, pos
    row = recent_row(left, top)
    place = 8 * ((left >= 0) + (top >= 0) + (left == top))
    label = -1
    for k in range(3):
        guess = candidate(recent, row, left, top, k)
        if guess < 0:
            continue
        bit, code, rng, pos = get_state(data, code, rng, pos, states, AT_LABELS + place + k)
        if bit:
            label = guess
            break
    if label < 0:
        node = 1
        bits = tree_bits(num_labels)
        for _ in range(bits):
            if node < TREE_STATES:
                bit, code, rng, pos = get_state(data, code, rng, pos, states, TREE + node)
            else:
                bit, code, rng, pos = get(data, code, rng, pos, 32768)
            node = 2 * node + bit
        label = node - (1 << bits)
    remember(recent, row, left, label)
    return label, code, rng, pos


@kernel
def write_labels(
    pixels: NDArray[np.unsignedinteger],
    at: int,
    stride: int,
    index_of: NDArray[np.int32],
    first: NDArray[np.int32],
    start: NDArray[np.int32],
    parent: NDArray[np.int32],
    num_labels: int,
    states: NDArray[np.uint32],
    out: NDArray[np.uint8],
    low: int,
    rng: int,
    pos: int,
) -> tuple[bool, int, int, int]:
    """Code the label of each region in the order of their first pixels. Returns (fits, low, rng, pos)."""
    recent = new_recent()
    height = first.shape[0] - 1
    room = out.shape[0] - 64
    for y in range(height):
        for k in range(first[y], first[y + 1]):
            if parent[k] != k:
                continue
            if pos > room:
                return False, low, rng, pos
            o = at + y * stride + start[k]
            left = np.int64(index_of[pixels[o - 1]]) if start[k] else -1
            top = np.int64(index_of[pixels[o - stride]]) if y else -1
            label = np.int64(index_of[pixels[o]])
            low, rng, pos = put_label(out, low, rng, pos, states, recent, left, top, num_labels, label)
    return True, low, rng, pos


@kernel
def read_labels(
    data: NDArray[np.uint32],
    code: int,
    rng: int,
    pos: int,
    first: NDArray[np.int32],
    start: NDArray[np.int32],
    parent: NDArray[np.int32],
    above: NDArray[np.int32],
    palette: NDArray[np.unsignedinteger],
    states: NDArray[np.uint32],
    pixels: NDArray[np.unsignedinteger],
    at: int,
    stride: int,
    width: int,
) -> int:
    """Read the label of each region and paint the tile whose row y begins at ``pixels[at + y * stride]``.

    Returns a status.
    """
    recent = new_recent()
    height = first.shape[0] - 1
    num_labels = palette.shape[0]
    labels = np.empty(first[height], np.int32)
    for y in range(height):
        o = at + y * stride
        if first[y] == first[y + 1]:
            copy(pixels, o, o - stride, width)
            continue
        end = first[y + 1]
        left = -1
        for k in range(first[y], end):
            if parent[k] == k:
                top = np.int64(labels[above[k]]) if y else -1
                label, code, rng, pos = get_label(data, code, rng, pos, states, recent, left, top, num_labels)
                if label >= num_labels:
                    return BAD_LABEL
            else:
                label = np.int64(labels[parent[k]])
            labels[k] = label
            left = label
            value = palette[label]
            stop = start[k + 1] if k + 1 < end else np.int32(width)
            fill_run(pixels, o + start[k], o + stop, o + width, value)
    return OK
