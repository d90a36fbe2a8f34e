"""Validation: every fault of a store, named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import QuadcodecError
from .quadtree import LinearQuadtree
from .record import check_record, decode_tree
from .shard import EMPTY, read_shard_index, shard_path
from .store import LabelStore, open_store

__all__ = ["Finding", "validate"]

_FIX = "Convert the data set again"


@dataclass(frozen=True)
class Finding:
    """Name a fault: where, what was found, what mends it."""

    where: str
    found: str
    fix: str


def validate(path: str | Path, *, deep: bool = False) -> list[Finding]:
    """Return the faults of a store; an empty list means that none was found.

    Parameters
    ----------
    path : the store.
    deep : decode every record too, and check that its tree is the one that its mask gives.
    """
    try:
        store = open_store(path)
    except QuadcodecError as error:
        return [_finding(str(path), error)]
    return [*_check_index(store), *_check_shards(store, deep)]


def _finding(where: str, error: QuadcodecError) -> Finding:
    """Return an error's message as a finding: 'where: what was found. What to do.'."""
    found, _, fix = str(error).removeprefix(f"{where}: ").partition(". ")
    return Finding(where, found, _FIX if not fix or "quadcodec validate" in fix else fix)


def _check_index(store: LabelStore) -> Iterator[Finding]:
    where = f"{store.path}/index"
    pairs = list(zip(store.splits, store.names, strict=True))
    if len(set(pairs)) != len(pairs):
        twice = next(pair for pair in pairs if pairs.count(pair) > 1)
        yield Finding(f"{where}/name", f"{twice} stands more than once", _FIX)
    unknown = sorted(set(store.splits) ^ set(store.info.splits))
    if unknown:
        yield Finding(f"{where}/split", f"splits {unknown} stand only in the index or only in the attributes", _FIX)
    if (store.sizes == 0).any():
        image = int(np.flatnonzero((store.sizes == 0).any(axis=1))[0])
        yield Finding(f"{where}/size", f"image {image} has size {store.sizes[image].tolist()}", _FIX)


def _check_shards(store: LabelStore, deep: bool) -> Iterator[Finding]:
    size = store.info.shard_size
    count = -(-len(store) // size)
    expected = {shard_path(store.path, shard) for shard in range(count)}
    for stray in sorted({p for p in (store.path / "labels" / "c").rglob("*") if p.is_file()} - expected):
        yield Finding(str(stray), "is no shard of this store", "Delete it if nothing else needs it")
    for shard in range(count):
        path = shard_path(store.path, shard)
        try:
            index = read_shard_index(path, size)
        except QuadcodecError as error:
            yield _finding(str(path), error)
            continue
        images = min(size, len(store) - shard * size)
        end = 0
        for slot, (offset, nbytes) in enumerate(index.tolist()):
            if offset == EMPTY:
                continue
            if slot >= images:
                yield Finding(str(path), f"slot {slot} holds a record, but the store has no such image", _FIX)
            elif offset != end:
                yield Finding(str(path), f"record {slot} starts at byte {offset}, expected {end}", _FIX)
            end = offset + nbytes
        if path.stat().st_size != end + 16 * size + 4:
            yield Finding(str(path), f"holds {path.stat().st_size} bytes, expected {end + 16 * size + 4}", _FIX)
        for image in range(shard * size, shard * size + images):
            yield from _check_record(store, image, deep)


def _check_record(store: LabelStore, image: int, deep: bool) -> Iterator[Finding]:
    where = f"{store.path}: record {image} {store.names[image]!r}"
    try:
        record = store.record(image)
        header = check_record(record, tables=store.tables)
        height, width = store.sizes[image].tolist()
        if (header.height, header.width) != (height, width):
            yield Finding(where, f"is {header.height} x {header.width}, the index says {height} x {width}", _FIX)
        if header.bits > 8 * store.dtype.itemsize:
            yield Finding(where, f"holds {header.bits}-bit ids, the labels array {store.dtype}", _FIX)
        if header.levels != store.info.levels:
            yield Finding(where, f"has {header.levels} levels, the store says {store.info.levels}", _FIX)
        if deep:
            tree = decode_tree(record, tables=store.tables)
            canonical = LinearQuadtree.from_mask(tree.to_mask(), tree.levels)
            if not np.array_equal(tree.nodes, canonical.nodes):
                yield Finding(where, "its tree splits a uniform cell", _FIX)
    except QuadcodecError as error:
        yield _finding(where, error)
