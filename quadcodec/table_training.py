"""Training of the small profile's tables: what the decisions of a sample of masks were (docs/small.md, section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import tables
from .kernels import contexts
from .kernels.rangecoder import SQUASH
from .kernels.tile import encode_tile

__all__ = ["Tile", "count_edges", "cut", "train", "train_on_masks"]

SHARDS = 8
"""Runs whose states are averaged: a single state forgets what lies 128 decisions back."""
TILE = 512
KIN_WEIGHT = 4.0
"""How many decisions the mean of its kin counts for, in the start of a state."""
SAMPLE_EDGES, TILES_A_MASK = 2_000_000, 16
"""Bounds of the sample of a data set: edges between pixels in all, and tiles of one mask."""

Tile = tuple[NDArray[Any], NDArray[np.int32], int]
"""(pixels, label of each id, number of labels)."""


def cut(mask: NDArray[Any]) -> list[Tile]:
    """Return the tiles of a mask that hold more than one id."""
    ids = np.flatnonzero(np.bincount(mask.reshape(-1)))
    index_of = np.zeros(1 << 8 * mask.itemsize, np.int32)
    index_of[ids] = np.arange(len(ids))
    parts = [
        np.ascontiguousarray(mask[y : y + TILE, x : x + TILE])
        for y in range(0, mask.shape[0], TILE)
        for x in range(0, mask.shape[1], TILE)
    ]
    return [(part, index_of, len(ids)) for part in parts if (part != part[0, 0]).any()]


def count_edges(tile: Tile) -> int:
    """Return the number of unit edges between unlike pixels of a tile."""
    part = tile[0]
    return int(np.count_nonzero(part[1:] != part[:-1]) + np.count_nonzero(part[:, 1:] != part[:, :-1]))


def train_on_masks(masks: Iterable[NDArray[Any]]) -> tables.Tables:
    """Return tables for the data set of which ``masks`` are a sample.

    No more masks are taken than are needed. The same masks in the same order give the same tables.
    """
    return tables.Tables.from_bytes(train(list(_sample(masks))))


def _sample(masks: Iterable[NDArray[Any]]) -> Iterator[Tile]:
    rng = np.random.default_rng(0)
    edges = 0
    for mask in masks:
        tiles = cut(mask)
        for i in rng.permutation(len(tiles))[:TILES_A_MASK]:
            edges += count_edges(tiles[i])
            yield tiles[i]
        if edges > SAMPLE_EDGES:
            return


def train(tiles: list[Tile]) -> bytes:
    """Return the table file of a sample. Deterministic: the same tiles give the same bytes."""
    tiles = [tiles[i] for i in np.random.default_rng(1).permutation(len(tiles))]
    blank, weights = tables.untrained()
    total, seen = np.zeros(len(blank)), np.zeros(len(blank))
    for shard in range(SHARDS):
        states = blank.copy()
        for tile in tiles[shard::SHARDS]:
            _run(tile, states, weights)
        count = (states & 1023).astype(np.float64)
        total += count * (states >> 10)
        seen += count
    mean = np.where(seen > 0, total / np.maximum(seen, 1), 1 << 21)
    _back_off(mean, total, seen)
    levels = np.searchsorted(SQUASH[64 * np.arange(1, 64)].astype(np.float64) * 64, mean)
    confidences = np.searchsorted([1, 3, 8], seen, side="right")
    # The weights as they are used: each tile starts from the trained states, the weights run on.
    weights = tables.untrained()[1]
    start = tables.Tables.from_bytes(tables.pack(levels, confidences, weights)).states
    for tile in tiles:
        _run(tile, start.copy(), weights)
    return tables.pack(levels, confidences, weights)


def _run(tile: Tile, states: NDArray[np.uint32], weights: NDArray[np.int32]) -> None:
    """Encode a tile, which moves ``states`` and ``weights``."""
    part, index_of, num_labels = tile
    out = np.empty(2 * part.nbytes + 4096, np.uint8)
    encode_tile(part.reshape(-1), 0, part.shape[1], *part.shape, index_of, num_labels, states, weights, out)


def _back_off(mean: NDArray[Any], total: NDArray[Any], seen: NDArray[Any]) -> None:
    """Pull the states that have seen little towards the mean of their kin, in place.

    Kin of a line context differ in r10 - r2, then also in r8 - r2 and so on; those of a history in its
    oldest move.
    """
    lines, moves_0, moves_1 = (4, 3, 2, 1), range(6), range(5)
    groups: list[tuple[int, tuple[int, ...], Iterable[int]]] = [
        (contexts.AT_LINES_0, (3, 5, 3, 3, 3, 24), lines),
        (contexts.AT_LINES_1, (3, 5, 3, 3, 3, 24), lines),
        (contexts.AT_MOVES_0, (3,) * 8, moves_0),
        (contexts.AT_MOVES_1, (3,) * 7, moves_1),
    ]
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
