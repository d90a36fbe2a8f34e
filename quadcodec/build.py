"""Building stores: shard by shard beside their place, moved there when complete (docs/format.md, section 5)."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

from .errors import StoreError
from .files import beside, exclusive, sync_folder, sync_tree, write_atomic
from .info import COLUMNS, ClassInfo, Columns, StoreInfo
from .pyramid import check_mask
from .record import encode
from .seal import ATTRIBUTES, attributes_checksum, record_checksum
from .shard import choose_shard_size, pack_shard, read_shard, shard_path
from .store import (
    INDEX_CHUNK,
    LabelStore,
    array_checksums,
    open_store,
    partial_path,
    store_attributes,
    stored_plan,
)
from .tables import Tables
from .zarr_codec import QuadtreeCodec

__all__ = ["create", "finish", "is_label_store", "remove_store", "write", "write_records", "write_shard"]

_OURS = re.compile(
    r"(labels/|index/(\w+/)?)?zarr\.(json|\w+\.partial|json\.partial)|labels/c/\d+/0/[^/]+|index/\w+/c/[^/]+(/0)?"
)
"""Files of a store whose description never got to the disk."""


def create(
    path: Path,
    info: StoreInfo,
    columns: Columns,
    sizes: NDArray[np.uint32],
    dtype: np.dtype[Any],
    *,
    tables: Tables | None = None,
    replaces: bool = False,
) -> None:
    """Create a store without records: metadata and the list of images, not yet complete.

    Parameters
    ----------
    path : a folder that does not exist or is empty.
    sizes : (N, 2) height and width of each image.
    dtype : uint8 or uint16.
    tables : the store's own, for the small profile.
    replaces : once complete, the store takes the place of an older one.

    Raises
    ------
    StoreError : the disk refuses; nothing is left behind.
    """
    canvas = (int(sizes[:, 0].max()), int(sizes[:, 1].max()))
    attributes = {**info.to_attributes(), "complete": False, "replaces": replaces}
    try:
        group = zarr.create_group(str(path), attributes={"quadcodec": {"complete": False, "replaces": replaces}})
        group.create_array(
            "labels",
            shape=(len(columns), *canvas),
            dtype=dtype,
            chunks=(1, *canvas),
            shards=(info.shard_size, *canvas),
            serializer=QuadtreeCodec(levels=info.levels, profile=info.profile, tables=tables),
            filters=None,
            compressors=None,
            fill_value=min((v for v in info.void if v <= np.iinfo(dtype).max), default=0),
            dimension_names=("image", "y", "x"),
        )
        index = group.create_group("index")
        for column in COLUMNS:
            _write_column(index, column, np.array(getattr(columns, column), dtype=np.dtypes.StringDType()))
        _write_column(index, "size", sizes)
        sync_tree(path)
        # Last, so that a description means that all the rest is there.
        write_atomic(path / "zarr.json", root_document(path, attributes))
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(f"{path}: cannot be written ({error.strerror}). Free space or fix permissions") from error
        raise


def root_document(path: Path, attributes: Mapping[str, Any]) -> bytes:
    """Return a store's zarr.json with another description."""
    document = json.loads((path / "zarr.json").read_bytes())
    document["attributes"]["quadcodec"] = attributes
    return json.dumps(document, indent=2).encode()


def _write_column(index: zarr.Group, name: str, values: NDArray[Any]) -> None:
    chunks = (max(1, min(len(values), INDEX_CHUNK)), *values.shape[1:])
    dtype: Any = str if isinstance(values.dtype, np.dtypes.StringDType) else values.dtype
    dims = ("image", "side")[: values.ndim]
    array = index.create_array(
        name, shape=values.shape, dtype=dtype, chunks=chunks, dimension_names=dims, overwrite=True
    )
    array[...] = values


def write_shard(path: Path, shard: int, records: Sequence[bytes], shard_size: int) -> None:
    """Write one shard of a store: one object, one atomic put; raise StoreError if the disk refuses."""
    target = shard_path(path, shard)
    try:
        write_atomic(target, pack_shard(records, shard_size))
    except OSError as error:
        raise StoreError(f"{target}: cannot be written ({error.strerror}). Free space or fix permissions") from error


def finish(path: Path, target: Path) -> None:
    """Seal a store with checksums, mark it complete and move it to its name, in place of an older one if begun so.

    Whatever ends this early, ``target`` is the older store, nothing, or the whole new one; run again, it goes on.

    Raises
    ------
    StoreError : a shard is missing or damaged, something else lies at ``target``, or the disk refuses.
    """
    old = replaced_path(target)
    try:
        attributes = dict(store_attributes(path))
        replaces = attributes.pop("replaces", False)
        info, columns, sizes = stored_plan(path)
        missing = [s for s in range(-(-len(columns) // info.shard_size)) if not shard_path(path, s).exists()]
        if missing:
            raise StoreError(f"{path}: shards {missing} are missing. Convert again with --resume")
        if target.exists() and not replaces:
            raise StoreError(f"{target}: exists already. Move it away, then run again with --resume")
        attributes = seal(path, {**attributes, "complete": True}, columns, sizes)
        ready = path / "zarr.json.partial"
        write_atomic(ready, root_document(path, attributes))
        sync_tree(path, skip=path / "labels" / "c")  # shards are on disk already
        # From here on there are only renames, so a full disk cannot leave the name without a store.
        if target.exists():
            if old.exists():
                remove_store(old)
            target.rename(old)
        ready.replace(path / "zarr.json")
        sync_folder(path)
        path.rename(target)
        sync_folder(target.parent)
        clear_replaced(target)
    except OSError as error:
        with suppress(OSError):
            restore_replaced(target)
        raise StoreError(f"{target}: cannot be written ({error.strerror}). Free space or fix permissions") from error


def seal(path: Path, attributes: Mapping[str, Any], columns: Columns, sizes: NDArray[np.uint32]) -> dict[str, Any]:
    """Write `index/checksum` and return the attributes with the checksums of all parts; nobody reads them yet."""
    checksums = record_checksums(path, len(columns), int(attributes["shard_size"]))
    write_checksums(path, checksums)
    arrays = array_checksums(path, columns, sizes, checksums)
    return {**attributes, "checksums": {ATTRIBUTES: attributes_checksum(attributes), **arrays}}


def write_checksums(path: Path, checksums: NDArray[np.uint32]) -> None:
    """Write the array `index/checksum` of a store."""
    index: Any = zarr.open_group(str(path), mode="r+")["index"]
    _write_column(index, "checksum", checksums)


def clear_replaced(target: Path) -> None:
    """Delete the older store that a complete one at ``target`` has replaced, where a kill left it."""
    old = replaced_path(target)
    if old.exists():
        remove_store(old)


def restore_replaced(target: Path) -> None:
    """Give an older store its name again, if a kill came just before the new one could take it."""
    old = replaced_path(target)
    if old.exists() and not target.exists():
        old.rename(target)


def replaced_path(target: Path) -> Path:
    """Return where an older store lies while the new one takes its name."""
    return beside(target, ".replaced")


def record_checksums(path: Path, count: int, shard_size: int) -> NDArray[np.uint32]:
    """Return the (N,) checksums of all records, 0 where zarr left a chunk out: one pass over the shards."""
    checksums = np.zeros(count, np.uint32)
    for shard in range(-(-count // shard_size)):
        for slot, record in enumerate(read_shard(shard_path(path, shard), shard_size)):
            if record is not None:
                checksums[shard * shard_size + slot] = record_checksum(record)
    return checksums


def is_label_store(path: Path) -> bool:
    """Whether a folder is a store of ours, complete or not, or the beginning of one that a kill cut off."""
    if path.is_symlink() or not path.is_dir():
        return False
    if path.name.endswith((".partial", ".replaced")) and not (
        (path / "zarr.json").exists() and (path / "zarr.json").stat().st_size
    ):
        files = [file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()]
        return all(_OURS.fullmatch(file) for file in files)
    try:
        return bool(store_attributes(path))
    except StoreError:
        return False


def remove_store(path: Path) -> None:
    """Delete a store, complete or not; refuse anything else with a StoreError."""
    if not is_label_store(path):
        raise StoreError(f"{path}: is not a label store, so it is not overwritten. Move it away or choose another name")
    # So that a kill in between leaves what is still ours to delete, and nothing that looks like work to go on with.
    (path / "index" / "zarr.json").unlink(missing_ok=True)
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif child.name != "zarr.json":
            child.unlink()
    shutil.rmtree(path)


def write(
    path: str | Path,
    masks: Sequence[ArrayLike],
    *,
    names: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    classes: Sequence[ClassInfo] | Mapping[int, str] = (),
    void: Sequence[int] = (),
    images: Sequence[str] | None = None,
    image_root: str = "",
    dataset: str = "arrays",
    levels: int = 6,
    profile: str = "fast",
    tables: Tables | None = None,
) -> LabelStore:
    """Write masks that are in memory as a store, and open it.

    Parameters
    ----------
    path : the store to make; nothing may exist there.
    masks : N arrays (H, W), uint8 or uint16, of any sizes.
    names, splits : one an image; by default '000000', .. and 'all'.
    classes : what the ids mean: names by id, or `ClassInfo` for colours and training classes, too.
    void : ids that are unlabelled.
    images, image_root : photo of each mask ('' for none), relative to the root.
    levels, profile, tables : as `quadcodec.encode`; the tables go into the store.

    Raises
    ------
    StoreError : the target exists, or the disk refuses.
    MaskError : a mask is no such array.
    """
    path = Path(path)
    _check_free(path)
    arrays = [check_mask(mask) for mask in masks]
    if not arrays:
        raise StoreError(f"{path}: no masks to write, expected one at least")
    count = len(arrays)
    names = tuple(names) if names is not None else tuple(f"{i:06d}" for i in range(count))
    splits = tuple(splits) if splits is not None else ("all",) * count
    images = tuple(images) if images is not None else ("",) * count
    if not len(names) == len(splits) == len(images) == count:
        raise StoreError(
            f"{path}: {count} masks, {len(names)} names, {len(splits)} splits, {len(images)} images; "
            "expected the same number of each"
        )
    if len(set(zip(splits, names, strict=True))) != count:
        raise StoreError(f"{path}: a name stands twice in a split, expected one name an image")
    if isinstance(classes, Mapping):
        classes = [ClassInfo(label, name) for label, name in sorted(classes.items())]
    info = StoreInfo(
        dataset=dataset, splits=tuple(dict.fromkeys(splits)), classes=tuple(classes), void=tuple(void),
        image_root=image_root, levels=levels, profile=profile, shard_size=choose_shard_size(count),
    )  # fmt: skip
    sizes = np.array([a.shape for a in arrays], np.uint32)
    dtype = max((a.dtype for a in arrays), key=lambda d: d.itemsize)
    sources = tuple(f"{name}.npy" for name in names)
    columns = Columns(names, splits, sources, images, tuple(f"npy:{a.dtype.str}" for a in arrays))
    records = (encode(a, levels=levels, profile=profile, tables=tables) for a in arrays)
    write_records(path, info, columns, sizes, dtype, records, tables=tables)
    return open_store(path)


def write_records(
    path: Path,
    info: StoreInfo,
    columns: Columns,
    sizes: NDArray[np.uint32],
    dtype: np.dtype[Any],
    records: Iterable[bytes],
    *,
    tables: Tables | None = None,
    overwrite: bool = False,
) -> None:
    """Write records as a store, holding those of one shard at a time. On an error, what was there stays.

    Parameters
    ----------
    path, info, columns, sizes, dtype, tables : as `create`; nothing may exist at ``path``.
    records : one an image, in the order of ``columns``.
    overwrite : a store may be there; the new one takes its place when it is complete.

    Raises
    ------
    StoreError : something is there already, or the disk refuses.
    """
    partial = partial_path(path)
    remaining = iter(records)
    with exclusive(path):
        restore_replaced(path)
        _check_free(path, overwrite=overwrite)
        if partial.exists():
            remove_store(partial)
        try:
            create(partial, info, columns, sizes, dtype, tables=tables, replaces=overwrite)
            for shard in range(-(-len(columns) // info.shard_size)):
                write_shard(partial, shard, list(islice(remaining, info.shard_size)), info.shard_size)
            finish(partial, path)
        except BaseException:
            restore_replaced(path)
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _check_free(path: Path, *, overwrite: bool = False) -> None:
    """Refuse to write where something is: anything, or with ``overwrite`` what is no store."""
    for taken in (path, partial_path(path)):
        if taken.exists() and not overwrite:
            raise StoreError(f"{taken}: exists already. Choose another name or delete it")
        if taken.exists() and not is_label_store(taken):
            raise StoreError(f"{taken}: is no store, so it is not overwritten. Move it away or choose another name")
