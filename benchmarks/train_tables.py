"""Train the tables of the small profile: python -m benchmarks.train_tables [--without SET] OUT.bin

QUADCODEC_TEST_DATA names the folder of the data sets. Without --without, all sets are trained on: that is how
quadcodec/small_tables_0.bin was made. Deterministic: the same masks give the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadcodec import tables
from quadcodec.kernels import contexts
from quadcodec.kernels.rangecoder import SQUASH
from quadcodec.kernels.tile import encode_tile

from .label_sets import SETS, family, masks, read

SHARDS = 8
"""Runs whose states are averaged: a single state forgets what lies 128 decisions back."""
TILE = 512
KIN_WEIGHT = 4.0
"""How many decisions the mean of its kin counts for, in the start of a state."""
QUOTA = 160_000
"""Pixels beside an edge that each set gives at most, so that no set outweighs the others."""

Tile = tuple[NDArray[Any], NDArray[np.int32], int]


def training_tiles(name: str) -> list[Tile]:
    """Return tiles of a set with their palettes, in a random order that is always the same."""
    tiles = []
    for path in masks(name)[1]:
        mask = read(path)
        ids = np.unique(mask)
        index_of = np.zeros(65536, np.int32)
        index_of[ids] = np.arange(len(ids))
        for y in range(0, mask.shape[0], TILE):
            for x in range(0, mask.shape[1], TILE):
                part = np.ascontiguousarray(mask[y : y + TILE, x : x + TILE])
                if (part != part[0, 0]).any():
                    tiles.append((part, index_of, len(ids)))
    order = np.random.default_rng(0).permutation(len(tiles))
    kept, edges = [], 0
    for i in order:
        part = tiles[i][0]
        edges += np.count_nonzero(part[1:] != part[:-1]) + np.count_nonzero(part[:, 1:] != part[:, :-1])
        kept.append(tiles[i])
        if edges > QUOTA:
            break
    return kept


def run(tile: Tile, states: NDArray[np.uint32], weights: NDArray[np.int32]) -> int:
    """Encode a tile, which moves ``states`` and ``weights``; return the bytes it took."""
    part, index_of, num_labels = tile
    out = np.empty(2 * part.nbytes + 4096, np.uint8)
    end = encode_tile(part.reshape(-1), 0, part.shape[1], *part.shape, index_of, num_labels, states, weights, out)
    return int(end)


def back_off(mean: NDArray[Any], total: NDArray[Any], seen: NDArray[Any]) -> None:
    """Pull the states that have seen little towards the mean of their kin, in place.

    Kin of a line context differ in r10 - r2, then also in r8 - r2 and so on; those of a history in its
    oldest move.
    """
    groups = [(at, (3, 5, 3, 3, 3, 24), (4, 3, 2, 1)) for at in (contexts.AT_LINES_0, contexts.AT_LINES_1)]
    groups += [(contexts.AT_MOVES_0, (3,) * 8, range(6)), (contexts.AT_MOVES_1, (3,) * 7, range(5))]
    for at, shape, axes in groups:
        part = slice(at, at + int(np.prod(shape)))
        sums, counts = total[part].reshape(shape), seen[part].reshape(shape)
        levels = [(sums, counts)]
        for axis in axes:
            levels.append((levels[-1][0].sum(axis, keepdims=True), levels[-1][1].sum(axis, keepdims=True)))
        blended = np.full_like(levels[-1][0], 1 << 21)
        for sums, counts in reversed(levels):
            blended = (sums + KIN_WEIGHT * blended) / (counts + KIN_WEIGHT)
        mean[part] = np.broadcast_to(blended, shape).reshape(-1)


def train(names: list[str]) -> bytes:
    """Return the table file trained on the sets ``names``."""
    per_set = [training_tiles(name) for name in names]
    tiles = [tile for part in per_set for tile in part]
    tiles = [tiles[i] for i in np.random.default_rng(1).permutation(len(tiles))]
    blank = tables.untrained()
    weights = blank.weights.copy()
    total, seen = np.zeros(len(blank.states)), np.zeros(len(blank.states))
    for shard in range(SHARDS):
        states = blank.states.copy()
        for tile in tiles[shard::SHARDS]:
            run(tile, states, weights)
        count = (states & 1023).astype(np.float64)
        total += count * (states >> 10)
        seen += count
    mean = np.where(seen > 0, total / np.maximum(seen, 1), 1 << 21)
    back_off(mean, total, seen)
    levels = np.searchsorted(SQUASH[64 * np.arange(1, 64)].astype(np.float64) * 64, mean)
    confidences = np.searchsorted([1, 3, 8], seen, side="right")
    # The weights as they are used: each tile starts from the trained states, the weights run on.
    weights = blank.weights.copy()
    start = tables.Tables.from_bytes(tables.pack(levels, confidences, weights)).states
    for tile in tiles:
        run(tile, start.copy(), weights)
    return tables.pack(levels, confidences, weights)


def main() -> None:
    """Write a table file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", default="", help="leave this set (and its family) out")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    names = [name for name in SETS if not args.without or family(name) != family(args.without)]
    args.out.write_bytes(train(names))
    print(f"{args.out}: {args.out.stat().st_size} bytes from {len(names)} sets")


if __name__ == "__main__":
    main()
