"""Stores: a zarr v3 group of records, written shard by shard and read record by record (docs/format.md, section 5)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

from .errors import FormatError, MaskError, StoreError
from .files import write_atomic
from .info import COLUMNS, ClassInfo, Columns, StoreInfo
from .masks import default_palette
from .pyramid import TPyramid, check_mask
from .quadtree import LinearQuadtree
from .record import decode, decode_tree, encode
from .shard import EMPTY, choose_shard_size, pack_shard, read_range, read_shard_index, shard_path
from .tables import Tables
from .zarr_codec import QuadtreeCodec

__all__ = ["ClassInfo", "Columns", "LabelStore", "StoreInfo", "open_store", "write"]


@dataclass(frozen=True, eq=False)
class LabelStore:
    """Read the records of a complete store. Made by `open_store`; safe to pickle and to fork."""

    path: Path
    info: StoreInfo
    columns: Columns
    sizes: NDArray[np.uint32]
    """(N, 2): height and width of each image."""
    dtype: np.dtype[Any]
    """Of the labels array: uint16 as soon as one mask is."""
    fill_value: int
    tables: Tables | None = None
    """Of the small profile: those that its records need, where they are the store's own."""
    _indexes: dict[int, NDArray[np.uint64]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Return the exact (H, W) mask of an image, uint8 or uint16."""
        with _Naming(self, index):
            return decode(self.record(index), tables=self.tables)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each image."""
        return self.columns.name

    @property
    def splits(self) -> tuple[str, ...]:
        """Split of each image."""
        return self.columns.split

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The raw ids that have a name."""
        return self.info.classes

    @property
    def palette(self) -> NDArray[np.uint8]:
        """(256, 3) colours of the ids: the classes' own where they have one, else those of Pascal VOC."""
        palette = default_palette()
        for c in self.classes:
            if c.color is not None and c.id < len(palette):
                palette[c.id] = c.color
        return palette

    def indices(self, split: str | None = None) -> NDArray[np.int64]:
        """Return the indices of a split's images (of all without one); raise StoreError if it does not exist."""
        if split is None:
            return np.arange(len(self))
        if split not in self.info.splits:
            raise StoreError(f"{self.path}: split {split!r} does not exist, expected one of {list(self.info.splits)}")
        return np.flatnonzero(np.array(self.splits) == split)

    def find(self, image: str) -> int:
        """Return the index of an image by its name, or by its number as text; raise StoreError if there is none."""
        if self.names.count(image) == 1:
            return self.names.index(image)
        if image in self.names:
            numbers = [i for i, name in enumerate(self.names) if name == image]
            raise StoreError(
                f"{self.path}: image {image!r} is in several splits. Name it by its number, one of {numbers}"
            )
        if image.isdecimal() and int(image) < len(self):
            return int(image)
        raise StoreError(
            f"{self.path}: image {image!r} does not exist, expected a name such as {self.names[0]!r} "
            f"or a number in 0..{len(self) - 1}"
        )

    def record(self, index: int) -> bytes:
        """Return the bytes of one record: one range read, after one of its shard's index.

        Raises
        ------
        IndexError : no such image.
        StoreError : the shard is missing or its index is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: image {index} is outside 0..{len(self) - 1}")
        shard, slot = divmod(index, self.info.shard_size)
        offset, nbytes = (int(v) for v in self.shard_index(shard)[slot])
        if offset == EMPTY:
            height, width = (int(v) for v in self.sizes[index])
            return encode(np.full((height, width), self.fill_value, self.dtype), levels=self.info.levels)
        return read_range(shard_path(self.path, shard), offset, nbytes)

    def quadtree(self, index: int) -> LinearQuadtree:
        """Return the tree of an image; no raster is made."""
        with _Naming(self, index):
            return decode_tree(self.record(index), tables=self.tables)

    def pyramid(self, index: int) -> TPyramid:
        """Return all levels of an image, dense."""
        return self.quadtree(index).to_pyramid()

    def stored_bytes(self, index: int) -> int:
        """Return the length of one record."""
        shard, slot = divmod(index, self.info.shard_size)
        nbytes = int(self.shard_index(shard)[slot, 1])
        return 0 if nbytes == EMPTY else nbytes

    def shard_index(self, shard: int) -> NDArray[np.uint64]:
        """Return the (shard_size, 2) offsets and lengths of a shard's records."""
        if shard not in self._indexes:
            self._indexes[shard] = read_shard_index(shard_path(self.path, shard), self.info.shard_size)
        return self._indexes[shard]


@dataclass(frozen=True)
class _Naming:
    """Put store, record and name in front of an error about a record."""

    store: LabelStore
    index: int

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, FormatError | MaskError):
            name = self.store.names[self.index]
            raise type(error)(
                f"{self.store.path}: record {self.index} {name!r}: {error}. Run 'quadcodec validate --deep'"
            ) from error


def partial_path(path: Path) -> Path:
    """Return where a store is built until it is complete."""
    path = Path(os.path.abspath(path))  # '.' has no name  # noqa: PTH100 - links stay links
    return path.with_name(path.name + ".partial")


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
    path : a folder that does not exist.
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
        group = zarr.create_group(str(path), attributes={"quadcodec": attributes})
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
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(f"{path}: cannot be written ({error.strerror}). Free space or fix permissions") from error
        raise


def _write_column(index: zarr.Group, name: str, values: NDArray[Any]) -> None:
    chunks = (max(1, min(len(values), 65536)), *values.shape[1:])
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
    """Mark a store complete and move it to its name, in place of an older store if it was begun so.

    Raises
    ------
    StoreError : a shard is missing, something else lies at ``target``, or the disk refuses.
    """
    try:
        group = zarr.open_group(str(path), mode="r+")
        attributes = dict(_quadcodec_attributes(path))
        replaces = attributes.pop("replaces", False)
        count, shard_size = len(stored_plan(path)[1]), int(attributes["shard_size"])
        missing = [s for s in range(-(-count // shard_size)) if not shard_path(path, s).exists()]
        if missing:
            raise StoreError(f"{path}: shards {missing} are missing. Convert again with --resume")
        if target.exists() and not replaces:
            raise StoreError(f"{target}: exists already. Move it away, then run again with --resume")
        group.attrs["quadcodec"] = {**attributes, "complete": True, "replaces": replaces}
        # The old store keeps its bytes until the new one has its name.
        old = target.with_name(target.name + ".old")
        if target.exists():
            if old.exists():
                remove_store(old)
            target.rename(old)
        path.rename(target)
        zarr.open_group(str(target), mode="r+").attrs["quadcodec"] = {**attributes, "complete": True}
        if replaces and old.exists():
            remove_store(old)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written ({error.strerror}). Free space or fix permissions") from error


def is_label_store(path: Path) -> bool:
    """Whether a folder is a store of ours, complete or not, or the beginning of one that a kill cut off."""
    if path.is_symlink() or not path.is_dir():
        return False
    if path.name.endswith(".partial") and not (path / "zarr.json").exists():
        # A worker may have outlived the run: shards then, and nothing but shards.
        files = [file.relative_to(path) for file in path.rglob("*") if not file.is_dir()]
        return all(file.match("labels/c/*/0/*") or file.match("zarr.*.partial") for file in files)
    try:
        return bool(_quadcodec_attributes(path))
    except StoreError:
        return False


def remove_store(path: Path) -> None:
    """Delete a store, complete or not; refuse anything else with a StoreError."""
    if not is_label_store(path):
        raise StoreError(f"{path}: is not a label store, so it is not overwritten. Move it away or choose another name")
    shutil.rmtree(path)


def _attributes(path: Path) -> Mapping[str, Any]:
    try:
        return dict(zarr.open_group(str(path), mode="r").attrs)
    except Exception as error:  # zarr raises many kinds here, and none of them says more than this
        raise StoreError(
            f"{path}: found no zarr v3 group ({type(error).__name__}), expected a store that 'quadcodec convert' wrote"
        ) from error


def _quadcodec_attributes(path: Path) -> Mapping[str, Any]:
    attributes = _attributes(path).get("quadcodec")
    if not isinstance(attributes, Mapping):
        raise StoreError(f"{path}: is a zarr group, but not a label store. Convert masks with 'quadcodec convert'")
    return attributes


def open_store(path: str | Path) -> LabelStore:
    """Open a complete store for reading.

    Raises
    ------
    StoreError : no such store, not a label store, or not complete.
    UnsupportedVersionError : a newer format version.
    """
    path = Path(path)
    if not path.exists():
        hint = "expected a store that 'quadcodec convert' wrote"
        if partial_path(path).exists():
            hint = "but an unfinished conversion. Run 'quadcodec convert' again with --resume"
        raise StoreError(f"{path}: found nothing here, {hint}")
    attributes = _quadcodec_attributes(path)
    if attributes.get("complete") is not True:
        raise StoreError(f"{path}: is not complete. Run 'quadcodec convert' again with --resume")
    info, columns, sizes = stored_plan(path)
    try:
        labels: Any = zarr.open_group(str(path), mode="r")["labels"]
        if not len(columns) == len(sizes) == labels.shape[0]:
            raise ValueError(f"{labels.shape[0]} labels, {len(columns)} names, {len(sizes)} sizes")
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise StoreError(f"{path}: the index does not fit the labels ({error}). Run 'quadcodec validate'") from error
    return LabelStore(path, info, columns, sizes, np.dtype(labels.dtype), int(labels.fill_value), stored_tables(path))


def stored_tables(path: Path) -> Tables | None:
    """Return the tables of its own that a store has, complete or not: they stand in the codec's configuration.

    Raises
    ------
    StoreError : the labels array or its tables cannot be read.
    """
    try:
        labels: Any = zarr.open_group(str(path), mode="r")["labels"]
        codec = labels.metadata.codecs[0].codecs[0]
        return codec.tables if isinstance(codec, QuadtreeCodec) else None
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, OSError) as error:
        raise StoreError(f"{path}/labels: {error}. Convert again") from error


def stored_plan(path: Path) -> tuple[StoreInfo, Columns, NDArray[np.uint32]]:
    """Return the description, the list of images and their sizes of a store, complete or not.

    Raises
    ------
    StoreError : they cannot be read, or are not those of a label store.
    """
    info = StoreInfo.from_attributes(_quadcodec_attributes(path), str(path))
    try:
        group = zarr.open_group(str(path), mode="r")
        columns = Columns(**{c: tuple(str(v) for v in _column(group, c)) for c in COLUMNS})
        return info, columns, np.asarray(_column(group, "size"), np.uint32)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise StoreError(f"{path}: the index cannot be read ({error}). Run 'quadcodec validate'") from error


def _column(group: zarr.Group, name: str) -> Any:
    array: Any = group["index"][name]  # type: ignore[index]
    return array[...]


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
    for taken in (path, partial_path(path)):
        if taken.exists():
            raise StoreError(f"{taken}: exists already. Choose another name or delete it")
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
    partial = partial_path(path)
    create(partial, info, columns, sizes, dtype, tables=tables)
    try:
        for shard in range(-(-count // info.shard_size)):
            part = arrays[shard * info.shard_size : (shard + 1) * info.shard_size]
            records = [encode(a, levels=levels, profile=profile, tables=tables) for a in part]
            write_shard(partial, shard, records, info.shard_size)
        finish(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return open_store(path)
