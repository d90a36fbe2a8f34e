# numba's scalars are int64 throughout; mypy would tell int and np.int64 apart at every step.
# mypy: disable-error-code="arg-type,assignment,return-value"
"""Crack edges of a tile: the unit edges between pixels of different labels (docs/small.md, section 2).

A map has one byte a vertex, (height + 1) rows of ``pitch`` bytes, a multiple of 8 so that eight of them are
one word. Vertex (y, x) is the top left corner of pixel (y, x).
"""

import numpy as np
from numpy.typing import NDArray

from .compiled import kernel

E, S, W, N = 1, 2, 4, 8
"""Bits of the edges that leave a vertex, by heading 0 .. 3: one turn to the right is one heading more."""
EDGES = 15
VISITED = 16
BORDER = 32
AWAITED = 64
"""A branch of a chain waits to be walked from here."""
SLACK_WORDS = 8
"""Words of a map beyond its last row: its bytes are read 64 at a time."""
WORD_EDGES = 0x0F0F0F0F0F0F0F0F


def pitch_of(width: int) -> int:
    """Return the bytes of a row of a map."""
    return (width + 8) & ~7


@kernel
def find_edges(
    pixels: NDArray[np.unsignedinteger],
    at: int,
    stride: int,
    height: int,
    width: int,
    pitch: int,
    edges: NDArray[np.uint8],
) -> None:
    """Write the edges of a tile to the map ``edges`` ((height + 1) * pitch,), all zero before.

    The tile's row y begins at ``pixels[at + y * stride]``.
    """
    for y in range(height + 1):
        row = edges[y * pitch : y * pitch + width + 1]
        if y == 0 or y == height:
            o = at + (0 if y == 0 else height - 1) * stride
            near = pixels[o : o + width]
            bit = S if y == 0 else N
            for x in range(1, width):
                row[x] = bit if near[x] != near[x - 1] else 0
            continue
        o = at + y * stride
        above = pixels[o - stride : o - stride + width]
        below = pixels[o : o + width]
        if above[0] != below[0]:
            row[0] = E
        if above[width - 1] != below[width - 1]:
            row[width] = W
        for x in range(1, width):
            nw = above[x - 1]
            ne = above[x]
            sw = below[x - 1]
            se = below[x]
            row[x] = (ne != se) * E | (sw != se) * S | (nw != sw) * W | (nw != ne) * N


@kernel
def mark_border(edges: NDArray[np.uint8], height: int, width: int, pitch: int) -> None:
    """Mark the vertices on the border of the tile; no chain leads to its corners."""
    for x in range(width + 1):
        edges[x] |= BORDER
        edges[height * pitch + x] |= BORDER
    for y in range(height + 1):
        edges[y * pitch] |= BORDER
        edges[y * pitch + width] |= BORDER
