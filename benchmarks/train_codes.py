"""Count which splits of two-class cells are common: python -m benchmarks.train_codes [--without SET]

Prints the table of docs/format.md, section 4, as it stands in quadcodec/kernels/codes.py. QUADCODEC_TEST_DATA names
the folder of the data sets. Deterministic; borders of an image that is no multiple of 32 pixels are left out.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .label_sets import SETS, family, masks, read

LEVELS = 6
ROWS = ((0, 0), (0, 1), (0, 2), (2, 2))
"""States of the siblings beside and below (or above), up to the symmetries."""
PIXEL_SHARE = 0.8
"""Weight of the pixels' statistics where the order of codes without a composite is chosen."""
PIXELS = [sum((bits >> j & 1) * 3**j for j in range(4)) for bits in range(16)]

Dense = NDArray[Any]


def children(cells: Dense) -> Dense:
    """Return the four children of each 2x2 group of cells: (4, rows / 2, columns / 2)."""
    return np.stack([cells[y::2, x::2] for y in (0, 1) for x in (0, 1)])


def states(lows: Dense, highs: Dense, low: Dense, high: Dense) -> Dense:
    """Return 0 where a cell has the class ``low`` only, 1 where ``high`` only, else 2."""
    return np.where(lows != highs, 2, np.where(lows == low, 0, np.where(lows == high, 1, 2)))


def count(mask: Dense, cells: Dense, pixels: Dense) -> None:
    """Add the splits of a mask to ``cells`` (row, code) and, of level 1, to ``pixels``."""
    side = 1 << (LEVELS - 1)
    low = high = mask[: mask.shape[0] // side * side, : mask.shape[1] // side * side].astype(np.int32)
    two = np.ones(low.shape, np.bool_)  # one class or two
    for level in range(1, LEVELS - 1):
        lows, highs, twos = children(low), children(high), children(two)
        low, high = lows.min(axis=0), highs.max(axis=0)
        two = twos.all(axis=0) & (((lows == low) | (lows == high)) & ((highs == low) | (highs == high))).all(axis=0)
        digits = states(lows, highs, low, high)
        for own in range(4):
            y, x = own >> 1, own & 1
            beside = states(*(v[y::2, 1 - x :: 2] for v in (low, high)), low[y::2, x::2], high[y::2, x::2])
            below = states(*(v[1 - y :: 2, x::2] for v in (low, high)), low[y::2, x::2], high[y::2, x::2])
            picked = (two & (low != high))[y::2, x::2]
            add(digits[[own, own ^ 1, own ^ 2, own ^ 3], y::2, x::2][:, picked], beside[picked], below[picked],
                pixels if level == 1 else cells)  # fmt: skip


def add(digits: Dense, beside: Dense, below: Dense, counts: Dense) -> None:
    """Count splits (4, n) and, with them, their mirror images: classes exchanged, the diagonal, both."""
    for exchanged in (False, True):
        for mirrored in (False, True):
            d = digits[[0, 2, 1, 3]] if mirrored else digits
            a, b = (below, beside) if mirrored else (beside, below)
            if exchanged:
                d, a, b = (np.array([1, 0, 2])[v] for v in (d, a, b))
            for row, (first, second) in enumerate(ROWS):
                chosen = (a == first) & (b == second)
                np.add.at(counts[row], (d[:, chosen] * [[1], [3], [9], [27]]).sum(axis=0), 1)


def train(names: list[str]) -> Dense:
    """Return the codes of each row, most common first: (4, 81). Every set counts the same."""
    cells, pixels = np.zeros((4, 81)), np.zeros((4, 81))
    for name in names:
        own = np.zeros((2, 4, 81))
        for path in masks(name)[1]:
            count(read(path), *own)
        cells += own[0] / own[0].sum()
        pixels += own[1] / own[1].sum()
    for mine, theirs in zip(cells, pixels, strict=True):
        mixed = PIXEL_SHARE * theirs[PIXELS] / theirs.sum()
        mine[PIXELS] = (1 - PIXEL_SHARE) * mine[PIXELS] + mixed * mine[PIXELS].sum()
    return np.argsort(-cells, axis=1, kind="stable")


def main() -> None:
    """Print the table, two hexadecimal digits a code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", choices=sorted(SETS), help="a set to leave out, with its family")
    left_out = parser.parse_args().without
    names = [n for n in SETS if left_out is None or family(n) != family(left_out)]
    for row in train(names).astype(np.uint8):
        print(row.tobytes().hex())


if __name__ == "__main__":
    main()
