"""Repair: rebuild what is damaged from the rest of a store and from its sources, and prove it by the checksums."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .build import create, remove_store, root_document, seal, write_checksums
from .convert import plan_conversion
from .errors import CorruptRecordError, FormatError, MaskError, StoreError
from .files import below, beside, exclusive, write_atomic
from .header import read_header
from .info import COLUMNS, Columns, StoreInfo
from .masks import read_mask
from .record import decode_tree, encode, record_length
from .seal import ATTRIBUTES, array_checksum, attributes_checksum, record_checksum
from .shard import pack_shard, read_shard, shard_path
from .store import array_checksums, open_store, read_columns, store_attributes, stored_plan, stored_tables
from .tables import Tables
from .validate import Finding, validate

__all__ = ["Repair", "accept", "repair"]

_MAGIC = b"QDTR"
_LOST = b""


@dataclass(frozen=True)
class Repair:
    """Say what was rebuilt, where the damaged files lie now, and what is still at fault."""

    rebuilt: tuple[str, ...]
    set_aside: str
    """Folder of the damaged files; empty where none was replaced."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Store:
    """What can be read of a damaged store."""

    path: Path
    attributes: Mapping[str, Any]
    info: StoreInfo
    columns: Mapping[str, Any]
    """The columns that can be read."""
    sound: frozenset[str]
    """Arrays whose checksums fit."""
    count: int
    tables: Tables | None
    """The store's own, where the labels' metadata can be read."""
    source: Path | None

    def shard(self, shard: int) -> Path:
        return shard_path(self.path, shard)

    def images(self, shard: int) -> range:
        """Return the images of a shard."""
        size = self.info.shard_size
        return range(shard * size, min(self.count, (shard + 1) * size))

    @property
    def num_shards(self) -> int:
        return -(-self.count // self.info.shard_size)


def repair(path: str | Path, *, source: str | Path | None = None, layout: str = "auto") -> Repair:
    """Rebuild what is damaged, as far as checksums prove the result.

    Nothing is deleted: the damaged files move to the folder STORE.damaged.

    Parameters
    ----------
    source : the data set's folder; masks whose records are lost are encoded again.
    layout : its manifest, as for `plan_conversion`; asked where a list of names is lost.

    Raises
    ------
    StoreError : no label store, its description is not the one that was written, nothing in its index is sound,
        or the disk refuses.
    UnsupportedVersionError : another format version.
    """
    path = Path(path)
    if not path.exists() or not validate(path):
        open_store(path)
        return Repair((), "", ())
    with exclusive(path):
        rebuilt = _mend_index(path)
        store = _look(path, None if source is None else Path(source))
        rebuilt += [*_mend_shards(store), *_mend_metadata(store, layout)]
        aside = beside(path, ".damaged")
        return Repair(tuple(rebuilt), str(aside) if rebuilt and aside.exists() else "", tuple(validate(path)))


def accept(path: str | Path) -> None:
    """Take description, index and records as they are now, after changes on purpose: make their checksums anew.

    Raises
    ------
    StoreError : something is missing, cannot be read, or does not fit the rest.
    CorruptRecordError : a record is damaged.
    """
    path = Path(path)
    with exclusive(path):
        attributes = store_attributes(path)
        if attributes.get("complete") is not True:
            raise StoreError(f"{path}: is not complete. Run 'quadcodec convert' again with --resume")
        info, columns, sizes = stored_plan(path)
        for shard in range(-(-len(columns) // info.shard_size)):
            _check_shard(path, shard, info, columns, sizes)
        write_atomic(path / "zarr.json", root_document(path, seal(path, attributes, columns, sizes)))


def _check_shard(path: Path, shard: int, info: StoreInfo, columns: Columns, sizes: NDArray[np.uint32]) -> None:
    """Raise CorruptRecordError if a record of a shard is damaged or does not fit the store."""
    part = slice(shard * info.shard_size, (shard + 1) * info.shard_size)
    tables = stored_tables(path)
    records = read_shard(shard_path(path, shard), info.shard_size)
    for name, size, record in zip(columns.name[part], sizes[part].tolist(), records, strict=False):
        if record is None:
            continue
        what = f"{path}: record {name!r}"
        try:
            tree = decode_tree(record, tables=tables)
        except FormatError as error:
            raise CorruptRecordError(f"{what}: {error}. Mend it with 'quadcodec repair' first") from error
        if ([tree.height, tree.width], tree.levels) != (size, info.levels):
            raise CorruptRecordError(
                f"{what}: {tree.height} x {tree.width} pixels in {tree.levels} levels, the store says {size[0]} x "
                f"{size[1]} in {info.levels}. Mend it with 'quadcodec repair' first"
            )


def _look(path: Path, source: Path | None) -> _Store:
    """Read what can be read."""
    attributes = store_attributes(path)
    info = StoreInfo.from_attributes(attributes, str(path))
    written = attributes.get("checksums")
    if attributes.get("complete") is not True or not isinstance(written, Mapping):
        raise StoreError(f"{path}: is not complete. Run 'quadcodec convert' again with --resume")
    if attributes_checksum(attributes) != written.get(ATTRIBUTES):
        raise StoreError(
            f"{path}: its description is not what was written. Undo the change in zarr.json, "
            "or take it as it is with 'quadcodec repair --accept'"
        )
    columns, sound, counts = {}, set(), set()
    for name in (*COLUMNS, "size", "checksum"):
        try:
            columns[name] = _strings(read_columns(path, [name])[name])
            if _checksum(path, f"index/{name}", columns[name]) == written.get(f"index/{name}"):
                sound.add(f"index/{name}")
                counts.add(len(columns[name]))
        except (StoreError, OSError, ValueError):  # what cannot be read is not sound
            continue
    if len(counts) != 1:
        raise StoreError(f"{path}/index: no array of it is sound. Convert the data set again")
    with suppress(OSError, ValueError):
        if _checksum(path, "labels", None) == written.get("labels"):
            sound.add("labels")
    tables = None
    with suppress(StoreError):
        tables = stored_tables(path)
    return _Store(path, attributes, info, columns, frozenset(sound), counts.pop(), tables, source)


def _strings(values: NDArray[Any]) -> Any:
    return values.astype(np.uint32) if values.dtype.kind == "u" else tuple(str(v) for v in values)


def _checksum(path: Path, array: str, values: Any) -> int:
    return array_checksum(json.loads((path / array / "zarr.json").read_bytes()), values)


def _replace(path: Path, file: Path, data: bytes) -> None:
    """Put new bytes in the place of a file, whole or not at all; the old ones move to STORE.damaged."""
    if os.path.lexists(file):
        place = beside(path, ".damaged") / file.relative_to(path)
        number = 0
        while os.path.lexists(place):
            number += 1
            place = place.with_name(f"{file.name}.{number}")
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file() and not file.is_symlink():
            shutil.copy2(file, place)
        else:
            file.rename(place)
    write_atomic(file, data)


def _mend_index(path: Path) -> list[str]:
    """Write the group of the index anew if it cannot be read; it says nothing but that it is one."""
    store_attributes(path)
    try:
        read_columns(path, [])
    except StoreError:
        group = {"attributes": {}, "zarr_format": 3, "node_type": "group"}
        _replace(path, path / "index" / "zarr.json", json.dumps(group, indent=2).encode())
        return [f"{path}/index"]
    return []


def _mend_shards(store: _Store) -> list[str]:
    """Write every damaged shard anew, of the records that can be found or made."""
    damaged = [shard for shard in range(store.num_shards) if _is_damaged(store, shard)]
    pool = {record_checksum(r): r for shard in damaged for r in _records(store, shard) if r is not None}
    rebuilt = []
    for shard in damaged:
        before = _slots(store, shard)
        if "index/checksum" in store.sound:
            after = [_find(store, image, pool) for image in store.images(shard)]
        else:
            after = _in_order(store, shard)
        made = [old if new == _LOST else new for new, old in zip(after, before or after, strict=True)]
        if made == before or not any(made):
            continue
        _replace(store.path, store.shard(shard), pack_shard(made, store.info.shard_size))
        lost = after.count(_LOST)
        rebuilt.append(f"{store.shard(shard)}" + (f" (without {lost} of {len(after)} records)" if lost else ""))
    return rebuilt


def _is_damaged(store: _Store, shard: int) -> bool:
    records = _slots(store, shard)
    if records is None:
        return True
    if "index/checksum" not in store.sound:
        return not all(record is None or _decodes(store, record) for record in records)
    expected = store.columns["checksum"][store.images(shard)].tolist()
    if [0 if r is None else record_checksum(r) for r in records] != expected:
        return True
    return pack_shard(records, store.info.shard_size) != store.shard(shard).read_bytes()


def _decodes(store: _Store, record: bytes) -> bool:
    try:
        decode_tree(record, tables=store.tables)
    except FormatError:
        return False
    return True


def _slots(store: _Store, shard: int) -> list[bytes | None] | None:
    """Return the records of a shard as its index gives them, None if that cannot be read."""
    try:
        return read_shard(store.shard(shard), store.info.shard_size)[: len(store.images(shard))]
    except StoreError:
        return None


def _records(store: _Store, shard: int) -> list[bytes | None]:
    """Return the records of a damaged shard, by its index and by a search for their heads."""
    return [*(_slots(store, shard) or ()), *_scan(store, shard)]


def _scan(store: _Store, shard: int) -> list[bytes]:
    """Return all that looks like a record in a shard's file, in its order."""
    try:
        data = store.shard(shard).read_bytes()
    except OSError:
        return []
    found, at = [], data.find(_MAGIC)
    while at >= 0:
        try:
            length = record_length(data[at:], tables=store.tables)
            found.append(data[at : at + length])
        except FormatError:
            length = len(_MAGIC)
        at = data.find(_MAGIC, at + length)
    return found


def _find(store: _Store, image: int, pool: Mapping[int, bytes]) -> bytes | None:
    """Return the record that was written for an image: found, left out by zarr, made again from its source, or lost."""
    checksum = int(store.columns["checksum"][image])
    record = pool.get(checksum)
    if record is not None or checksum == 0:
        return record
    record = _encode(store, image)
    return record if record_checksum(record) == checksum else _LOST


def _in_order(store: _Store, shard: int) -> list[bytes | None]:
    """Return a shard's records where no checksum says which they are: those that decode, the rest made again."""
    images, found = store.images(shard), _slots(store, shard)
    if found is None:
        scanned = _scan(store, shard)
        found = [*scanned] if len(scanned) == len(images) else [_LOST] * len(images)
    return [
        record if record is None or _decodes(store, record) else _encode(store, image)
        for image, record in zip(images, found, strict=True)
    ]


def _encode(store: _Store, image: int) -> bytes:
    """Return the record of an image's source file; it is lost where there is none that can be read."""
    if store.source is None or "index/source" not in store.sound:
        return _LOST
    file = below(store.source, store.columns["source"][image])
    colors = {c.color: c.id for c in store.info.classes if c.color is not None} if store.info.color_masks else None
    if file is None:
        return _LOST
    try:
        mask = read_mask(file, colors=colors)
        return encode(mask, levels=store.info.levels, profile=store.info.profile, tables=store.tables)
    except MaskError:
        return _LOST


def _mend_metadata(store: _Store, layout: str) -> list[str]:
    """Build the metadata anew in a store beside, and take from there what the checksums prove."""
    written = dict(store.attributes["checksums"])
    parts = ["labels", *(f"index/{name}" for name in (*COLUMNS, "size", "checksum"))]
    if store.sound.issuperset(parts):
        return []
    values, rebuilt = _candidates(store, layout), []
    scratch = beside(store.path, ".repair")
    columns = Columns(*(values[name] for name in COLUMNS))
    try:
        for dtype in (np.uint8, np.uint16):
            if scratch.exists():
                remove_store(scratch)
            create(scratch, store.info, columns, values["size"], np.dtype(dtype), tables=store.tables)
            write_checksums(scratch, values["checksum"])
            sums = array_checksums(scratch, columns, values["size"], values["checksum"])
            if sums["labels"] == written["labels"]:
                break
        for part in parts:
            if part in store.sound:
                continue
            if sums[part] == written.get(part):
                _take(store, scratch / part, store.path / part)
            elif _is_same(store, part, sums[part]):  # then it is the checksum that was damaged
                written[part] = sums[part]
            else:
                continue
            rebuilt.append(f"{store.path}/{part}")
        if written != store.attributes["checksums"]:
            attributes = {**store.attributes, "checksums": written}
            _replace(store.path, store.path / "zarr.json", root_document(store.path, attributes))
    finally:
        if scratch.exists():
            remove_store(scratch)
    return rebuilt


def _is_same(store: _Store, part: str, checksum: int) -> bool:
    """Whether an array is as it was just derived from the rest."""
    try:
        return _checksum(store.path, part, store.columns.get(part.removeprefix("index/"))) == checksum
    except (OSError, ValueError):
        return False


def _take(store: _Store, made: Path, place: Path) -> None:
    """Replace the files of an array, but for shards, by those of one that was made anew."""
    files = [made / "zarr.json", *(f for f in (made / "c").rglob("*") if f.is_file())]
    for file in files:
        target = place / file.relative_to(made)
        data = file.read_bytes()
        if not target.is_file() or target.is_symlink() or target.read_bytes() != data:
            _replace(store.path, target, data)


def _candidates(store: _Store, layout: str) -> dict[str, Any]:
    """Return every column: as it stands where it is sound, else derived from records and sources."""
    values = {name: store.columns[name] for name in (*COLUMNS, "size", "checksum") if f"index/{name}" in store.sound}
    if not {"size", "checksum"} <= values.keys():
        sizes, checksums = _from_records(store)
        values = {"size": sizes, "checksum": checksums, **values}
    lost = [name for name in COLUMNS if name not in values]
    if lost and store.source is not None:
        info = store.info
        plan = plan_conversion(store.source, layout=layout, splits=info.splits, void=info.void, skip_bad=True)
        left_out = [problem for problem in info.skipped if problem.path in plan.columns.source]
        planned = plan.without(left_out).columns
        if len(planned) == store.count:
            values |= {name: getattr(planned, name) for name in lost}
    # What cannot be derived gets a value that no checksum fits.
    return dict.fromkeys(lost, ("?",) * store.count) | values


def _from_records(store: _Store) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return (N, 2) sizes and (N,) checksums as the records have them; 1 and 0 where there is none."""
    sizes, checksums = np.ones((store.count, 2), np.uint32), np.zeros(store.count, np.uint32)
    for shard in range(store.num_shards):
        for image, record in zip(store.images(shard), _slots(store, shard) or (), strict=False):
            if record is not None:
                checksums[image] = record_checksum(record)
                with suppress(FormatError):
                    header = read_header(record)
                    sizes[image] = header.height, header.width
    return sizes, checksums
