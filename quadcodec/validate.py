"""Validation: every fault of a store, named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import QuadcodecError
from .ngff import stored_levels
from .quadtree import LinearQuadtree
from .record import check_record, decode_tree
from .seal import ATTRIBUTES, record_checksum
from .shard import EMPTY, read_shard, read_shard_index, shard_path
from .store import INDEX_CHUNK, LabelStore, load_store

__all__ = ["Finding", "validate"]

_FIX = "Run 'quadcodec repair', or convert the data set again"
_CHECKSUM = "index/checksum"


@dataclass(frozen=True)
class Finding:
    """Name a fault: where, what was found, what mends it."""

    where: str
    found: str
    fix: str


def validate(path: str | Path, *, deep: bool = False) -> list[Finding]:
    """Return the faults of a store; an empty list means that none was found.

    Every byte that means something is looked at: a flipped bit in any file, records and shards that changed
    places, files that are missing or do not belong there.

    Parameters
    ----------
    path : the store.
    deep : decode every record too, and check that its tree is the one that its mask gives.
    """
    path = Path(path)
    try:
        store, broken = load_store(path)
    except QuadcodecError as error:
        where, _, _ = str(error).partition(": ")
        return [_finding(where if where.startswith(str(path)) else str(path), error)]
    findings = [Finding(f"{path}/{part}", "is not what was written: its checksum differs", _FIX) for part in broken]
    findings.extend(_check_files(store))
    if not {ATTRIBUTES, "labels"} & {*broken}:  # else sizes of shards and records may be anything
        findings.extend(_check_index(store))
        findings.extend(_check_shards(store, deep, sealed=_CHECKSUM not in broken))
        findings.extend(_check_pyramid(store, deep))
    return findings


def _finding(where: str, error: QuadcodecError) -> Finding:
    """Return an error's message as a finding: 'where: what was found. What to do.'."""
    found, _, fix = str(error).removeprefix(f"{where}: ").partition(". ")
    return Finding(where, found, _FIX if not fix or "quadcodec validate" in fix else fix)


def _check_files(store: LabelStore) -> Iterator[Finding]:
    """Look for files and folders that are no part of the store."""
    arrays = [Path("labels"), *(Path("index", name) for name in (*vars(store.columns), "size", "checksum"))]
    files = {Path("zarr.json"), Path("index/zarr.json"), *(array / "zarr.json" for array in arrays)}
    files |= {shard_path(Path(), shard) for shard in range(store.num_shards)}
    chunks = -(-len(store) // INDEX_CHUNK)
    files |= {Path("index", name, "c", str(i)) for name in (*vars(store.columns), "checksum") for i in range(chunks)}
    files |= {Path("index/size/c", str(i), "0") for i in range(chunks)}
    files |= {Path("pyramid", name) for name in _pyramid_files(store)}
    folders = {folder for file in files for folder in file.parents}
    for folder, names, members in os.walk(store.path):
        for name in sorted([*names, *members]):
            place = Path(folder, name)
            inner = place.relative_to(store.path)
            if place.is_symlink():
                yield Finding(str(place), "is a link, expected a file or folder of the store", "Put back what it names")
            if inner not in (folders if name in names else files):
                what = "folder" if name in names else "file"
                yield Finding(str(place), f"is no part of this store: a foreign {what}", "Move it away")
        names[:] = [name for name in names if Path(folder, name).relative_to(store.path) in folders]


def _pyramid_files(store: LabelStore) -> Iterable[str]:
    try:
        levels = stored_levels(store)
    except QuadcodecError:  # `_check_pyramid` names it
        folder = store.path / "pyramid"
        return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    return levels.files() if levels is not None else ()


def _check_pyramid(store: LabelStore, deep: bool) -> Iterator[Finding]:
    """Look at the levels beside the labels, if there are any."""
    fix = "Delete the folder pyramid, then run 'quadcodec convert' with --resume and --pyramid"
    try:
        levels = stored_levels(store)
        faults = levels.faults(deep=deep) if levels is not None else ()
        yield from (Finding(str(where), found, fix) for where, found in faults)
    except QuadcodecError as error:
        where, _, found = str(error).partition(": ")
        yield Finding(where, found, fix)


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


def _check_shards(store: LabelStore, deep: bool, sealed: bool) -> Iterator[Finding]:
    size = store.info.shard_size
    expected = np.zeros((store.num_shards, size), np.uint32)
    expected.reshape(-1)[: len(store)] = store.checksums
    homes = {row.tobytes(): shard for shard, row in enumerate(expected)}
    for shard in range(store.num_shards):
        path = shard_path(store.path, shard)
        try:
            yield from _check_layout(store, shard)
            records = read_shard(path, size)
        except QuadcodecError as error:
            yield _finding(str(path), error)
            continue
        found = np.array([0 if record is None else record_checksum(record) for record in records], np.uint32)
        home = homes.get(found.tobytes(), shard)
        if sealed and home != shard:
            yield Finding(str(path), f"holds the records of shard {home}: shards changed places", _FIX)
            continue
        for slot in range(min(size, len(store) - shard * size)):
            moved = sealed and found[slot] != expected[shard, slot]
            yield from _check_record(store, shard * size + slot, records[slot], deep, moved)


def _check_layout(store: LabelStore, shard: int) -> Iterator[Finding]:
    """Look at the places of a shard's records: one after another from its first byte to its index."""
    path, size = shard_path(store.path, shard), store.info.shard_size
    end = 0
    for slot, (offset, nbytes) in enumerate(read_shard_index(path, size).tolist()):
        if offset == EMPTY:
            continue
        if shard * size + slot >= len(store):
            yield Finding(str(path), f"slot {slot} holds a record, but the store has no such image", _FIX)
        elif offset != end:
            yield Finding(str(path), f"record {slot} starts at byte {offset}, expected {end}", _FIX)
        end = offset + nbytes
    if path.stat().st_size != end + 16 * size + 4:
        yield Finding(str(path), f"holds {path.stat().st_size} bytes, expected {end + 16 * size + 4}", _FIX)


def _check_record(store: LabelStore, image: int, record: bytes | None, deep: bool, moved: bool) -> Iterator[Finding]:
    """Name the faults of a record; ``moved`` says that it is not the one that was written here."""
    where = f"{store.path}: record {image} {store.names[image]!r}"
    faults = []
    if moved:
        homes = np.flatnonzero(store.checksums == (0 if record is None else record_checksum(record)))
        if len(homes):
            home = int(homes[0])
            yield Finding(where, f"is record {home} {store.names[home]!r}: records changed places", _FIX)
            return
    if record is not None:
        try:
            faults = list(_record_faults(store, image, record, deep))
        except QuadcodecError as error:
            yield _finding(where, error)
            return
    if moved and not faults:
        faults = ["is left out, as zarr does with fill values" if record is None else "is not the one written here"]
        faults[0] += f": its checksum is not that of {_CHECKSUM}"
    yield from (Finding(where, fault, _FIX) for fault in faults)


def _record_faults(store: LabelStore, image: int, record: bytes, deep: bool) -> Iterator[str]:
    header = check_record(record, tables=store.tables)
    height, width = store.sizes[image].tolist()
    if (header.height, header.width) != (height, width):
        yield f"is {header.height} x {header.width}, the index says {height} x {width}"
    if header.bits > 8 * store.dtype.itemsize:
        yield f"holds {header.bits}-bit ids, the labels array {store.dtype}"
    if header.levels != store.info.levels:
        yield f"has {header.levels} levels, the store says {store.info.levels}"
    if deep:
        tree = decode_tree(record, tables=store.tables)
        canonical = LinearQuadtree.from_mask(tree.to_mask(), tree.levels)
        if not np.array_equal(tree.nodes, canonical.nodes):
            yield "its tree splits a uniform cell"
