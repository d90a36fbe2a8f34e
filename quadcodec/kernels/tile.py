# numba's scalars are int64 throughout; mypy would tell int and np.int64 apart at every step.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
"""One tile <-> its bytes: edges, chains, regions and labels in turn (docs/small.md, section 1)."""

import numpy as np
from numpy.typing import NDArray

from .chain import OK, OVERFLOW, read_chains, write_chains
from .compiled import kernel
from .edges import EDGES, SLACK_WORDS, E, S, find_edges, mark_border
from .merge import COMPOSITE
from .rangecoder import HEAD, START_RANGE, flush, next_word, to_words
from .regions import link_runs, read_labels, write_labels


@kernel
def stack_size(height: int, width: int) -> int:
    """Return how many branches may wait at a time in a tile."""
    return 64 + height * width // 64


@kernel
def encode_tile(
    pixels: NDArray[np.unsignedinteger],
    at: int,
    stride: int,
    height: int,
    width: int,
    index_of: NDArray[np.int32],
    num_labels: int,
    states: NDArray[np.uint32],
    weights: NDArray[np.int32],
    out: NDArray[np.uint8],
) -> int:
    """Write the stream of a tile to ``out`` from HEAD on. Returns its end, or -1 where it does not fit.

    The tile's row y begins at ``pixels[at + y * stride]``. ``states`` and ``weights`` hold what is known
    before and learn on the way.
    """
    pitch = (width + 8) & ~7
    words = np.zeros(((height + 1) * pitch >> 3) + SLACK_WORDS, np.uint64)
    edges = words.view(np.uint8)
    find_edges(pixels, at, stride, height, width, pitch, edges)
    first = np.empty(height + 1, np.int32)
    runs = link_runs(edges, height, width, pitch, first, np.empty((3, 0), np.int32))
    start, parent = runs[0], runs[1]
    mark_border(edges, height, width, pitch)
    stack = np.empty((stack_size(height, width), 3), np.int64)
    status, low, rng, pos = write_chains(
        edges, words, height, width, pitch, states, weights, stack, out, 0, START_RANGE, 0
    )
    if status == OVERFLOW:
        return -1
    fits, low, rng, pos = write_labels(
        pixels, at, stride, index_of, first, start, parent, num_labels, states, out, low, rng, pos
    )
    if not fits:
        return -1
    return max(flush(out, low, rng, pos), HEAD)


@kernel
def pool_cells(
    edges: NDArray[np.uint8],
    pitch: int,
    pixels: NDArray[np.unsignedinteger],
    at: int,
    stride: int,
    height: int,
    width: int,
    cells: NDArray[np.signedinteger],
    cells_at: int,
    cells_stride: int,
) -> None:
    """Write T_1 of a tile: a cell of 2 x 2 pixels is composite exactly if an edge meets the vertex inside it.

    Rows of cells begin at ``cells[cells_at + i * cells_stride]``. Cells at the bottom or right of an odd tile
    hold two pixels, between which one edge decides, or one.
    """
    for i in range((height + 1) // 2):
        full = 2 * i + 1 < height
        v = (2 * i + full) * pitch
        row = edges[v : v + width + 1]
        bits = EDGES if full else S
        o = at + 2 * i * stride
        values = pixels[o : o + width]
        o = cells_at + i * cells_stride
        out = cells[o : o + (width + 1) // 2]
        for j in range(width // 2):
            out[j] = COMPOSITE if row[2 * j + 1] & bits else values[2 * j]
        if width & 1:
            out[width // 2] = COMPOSITE if full and row[width - 1] & E else values[width - 1]


@kernel
def decode_tiles(
    payload: NDArray[np.uint8],
    jobs: NDArray[np.int64],
    palette: NDArray[np.unsignedinteger],
    states: NDArray[np.uint32],
    weights: NDArray[np.int32],
    pixels: NDArray[np.unsignedinteger],
    stride: int,
    cells: NDArray[np.signedinteger],
    cells_stride: int,
) -> int:
    """Read tiles into a raster whose rows begin every ``stride`` pixels.

    ``jobs`` (n, 6) tells of each tile: offset and length of its stream in ``payload``, first row, first column, height
    and width. T_1 goes to ``cells``, where that is not empty, as `pool_cells` says. ``states`` and ``weights`` are the
    start of each tile. Returns a status.
    """
    area = 0
    waiting = 0
    for job in jobs:
        area = max(area, (job[4] + 1) * ((job[5] + 8) & ~7))
        waiting = max(waiting, stack_size(job[4], job[5]))
    words = np.zeros((area >> 3) + SLACK_WORDS, np.uint64)
    stack = np.empty((waiting, 3), np.int64)
    runs = np.empty((3, 0), np.int32)
    own_states, own_weights = states.copy(), weights.copy()
    for n in range(jobs.shape[0]):
        offset, nbytes, y, x, height, width = jobs[n]
        pitch = (width + 8) & ~7
        if n:
            words[: area >> 3] = 0
            own_states[:] = states
            own_weights[:] = weights
        edges = words.view(np.uint8)
        mark_border(edges, height, width, pitch)
        data = to_words(payload[offset : offset + nbytes])
        status, code, rng, pos = read_chains(
            data, next_word(data, 0), START_RANGE, 1, height, width, pitch,
            own_states, own_weights, stack[: stack_size(height, width)], edges,
        )  # fmt: skip
        if status != OK:
            return status
        first = np.empty(height + 1, np.int32)
        runs = link_runs(edges, height, width, pitch, first, runs)
        at = y * stride + x
        status = read_labels(
            data, code, rng, pos, first, runs[0], runs[1], runs[2], palette, own_states, pixels, at, stride, width
        )
        if status != OK:
            return status
        if cells.shape[0] > 0:
            cells_at = y // 2 * cells_stride + x // 2
            pool_cells(edges, pitch, pixels, at, stride, height, width, cells, cells_at, cells_stride)
    return OK
