"""Stores: a zarr v3 group of records, read record by record (docs/format.md, section 5)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from .errors import CorruptRecordError, FormatError, MaskError, StoreError
from .files import beside
from .info import COLUMNS, ClassInfo, Columns, StoreInfo
from .limits import MAX_PIXELS, size_problem
from .masks import default_palette
from .pyramid import OUTSIDE, TPyramid, node_dtype
from .pyramid_arrays import level_array, level_attributes, level_shape, on_canvas
from .quadtree import LinearQuadtree
from .record import HEAD_BYTES, decode, decode_tree, encode, prefix_bytes
from .seal import ATTRIBUTES, array_checksum, attributes_checksum
from .shard import EMPTY, read_range, read_shard_index, shard_path
from .tables import Tables
from .zarr_codec import QuadtreeCodec

__all__ = ["ClassInfo", "Columns", "LabelStore", "StoreInfo", "open_store"]

INDEX_CHUNK = 65536
"""Entries of an index array in one file."""


@dataclass(frozen=True, eq=False)
class LabelStore:
    """Read the records of a complete store. Made by `open_store`; safe to pickle and to fork."""

    path: Path
    info: StoreInfo
    columns: Columns
    sizes: NDArray[np.uint32]
    """(N, 2): height and width of each image."""
    checksums: NDArray[np.uint32]
    """(N,): `record_checksum` of each record."""
    dtype: np.dtype[Any]
    """Of the labels array: uint16 as soon as one mask is."""
    fill_value: int
    tables: Tables | None = None
    """Of the small profile: those that its records need, where they are the store's own."""
    max_pixels: int = MAX_PIXELS
    """Larger images are refused, as `decode` does."""
    _indexes: dict[int, NDArray[np.uint64]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Return the exact (H, W) mask of an image, uint8 or uint16."""
        with _Naming(self, index):
            mask = decode(self.record(index), tables=self.tables, max_pixels=self.max_pixels)
            self._check_size(index, mask.shape)
            return mask

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-len(self) // self.info.shard_size)

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

    def record(self, index: int, *, level: int = 0) -> bytes:
        """Return the bytes of one record: one range read, after one of its shard's index.

        With ``level`` > 0, of a fast record only the prefix that holds this level and coarser ones is read.

        Raises
        ------
        IndexError : no such image.
        StoreError : the shard is missing or its index is damaged.
        FormatError : a chunk that zarr left out has more pixels than ``max_pixels``.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: image {index} is outside 0..{len(self) - 1}")
        shard, slot = divmod(index, self.info.shard_size)
        offset, nbytes = (int(v) for v in self.shard_index(shard)[slot])
        if offset == EMPTY:
            height, width = (int(v) for v in self.sizes[index])
            if problem := size_problem(height, width, self.max_pixels):
                raise FormatError(problem)
            return encode(np.full((height, width), self.fill_value, self.dtype), levels=self.info.levels)
        path = shard_path(self.path, shard)
        if not level:
            return read_range(path, offset, nbytes)
        head = read_range(path, offset, min(nbytes, HEAD_BYTES))
        needed = prefix_bytes(head, level) or nbytes
        rest = min(needed, nbytes) - len(head)
        return head + read_range(path, offset + len(head), rest) if rest > 0 else head[:needed]

    def quadtree(self, index: int, *, level: int = 0) -> LinearQuadtree:
        """Return the tree of an image, with ``level`` > 0 as `decode_tree` does; no raster is made."""
        with _Naming(self, index):
            record = self.record(index, level=level)
            tree = decode_tree(record, level=level, tables=self.tables, max_pixels=self.max_pixels)
            self._check_size(index, (tree.height, tree.width))
            if tree.levels != self.info.levels:
                raise CorruptRecordError(f"has {tree.levels} levels, the store says {self.info.levels}")
            return tree

    def _check_size(self, index: int, size: tuple[int, ...]) -> None:
        if size != tuple(self.sizes[index].tolist()):
            height, width = self.sizes[index]
            raise CorruptRecordError(f"is {size[0]} x {size[1]}, the index says {height} x {width}")

    def pyramid(self, index: int) -> TPyramid:
        """Return all levels of an image, dense."""
        return self.quadtree(index).to_pyramid()

    @property
    def pyramid_arrays(self) -> tuple[zarr.Array[Any], ...]:
        """T_0 .. T_(levels-1) of all images, each a read-only zarr array (image, y, x) that is made from the records.

        int16, or int32 where ``dtype`` is uint16; COMPOSITE -1, OUTSIDE -2, also beyond images that are smaller than
        the largest. A chunk is one image. Nothing is stored: reading T_k of a fast record reads its prefix.
        The arrays are made anew, in a millisecond or two, each time this is asked for.
        """
        return tuple(
            level_array(
                partial(self._level_on_canvas, level),
                (len(self), *level_shape(self.canvas, level)),
                node_dtype(self.dtype),
                level_attributes(self.classes, level),
            )
            for level in range(self.info.levels)
        )

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width that hold every image: those of the labels array."""
        return int(self.sizes[:, 0].max()), int(self.sizes[:, 1].max())

    def _level_on_canvas(self, level: int, index: int) -> NDArray[Any]:
        cells = self.quadtree(index, level=level).to_level(level)
        return on_canvas(cells, level_shape(self.canvas, level), node_dtype(self.dtype), OUTSIDE)

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
    return beside(path, ".partial")


def _attributes(path: Path) -> Mapping[str, Any]:
    try:
        return dict(zarr.open_group(str(path), mode="r").attrs)
    except Exception as error:  # zarr raises many kinds here, and none of them says more than this
        raise StoreError(
            f"{path}: found no zarr v3 group ({type(error).__name__}), expected a store that 'quadcodec convert' wrote"
        ) from error


def store_attributes(path: Path) -> Mapping[str, Any]:
    """Return what a store says of itself, as it stands there; raise StoreError if it is no label store."""
    attributes = _attributes(path).get("quadcodec")
    if not isinstance(attributes, Mapping):
        raise StoreError(f"{path}: is a zarr group, but not a label store. Convert masks with 'quadcodec convert'")
    return attributes


def open_store(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> LabelStore:
    """Open a complete store for reading, after a look at the checksums of its description and index.

    Images of more than ``max_pixels`` pixels will be refused when they are read.

    Raises
    ------
    StoreError : no such store, not a label store, not complete, or its description or index is damaged.
    UnsupportedVersionError : another format version.
    """
    store, broken = load_store(Path(path), max_pixels=max_pixels)
    if broken:
        raise StoreError(
            f"{store.path}: {broken[0]} is not what was written, its checksum differs. Run 'quadcodec validate'"
        )
    return store


def load_store(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[LabelStore, list[str]]:
    """Return a store and the parts of its metadata that are not as they were written; errors as `open_store`."""
    if not path.exists():
        hint = "expected a store that 'quadcodec convert' wrote"
        if partial_path(path).exists():
            hint = "but an unfinished conversion. Run 'quadcodec convert' again with --resume"
        raise StoreError(f"{path}: found nothing here, {hint}")
    attributes = store_attributes(path)
    info, columns, sizes = stored_plan(path)
    if attributes.get("complete") is not True:
        raise StoreError(f"{path}: is not complete. Run 'quadcodec convert' again with --resume")
    written = attributes.get("checksums")
    if not isinstance(written, Mapping):
        raise StoreError(f"{path}: its attributes are not those of a label store (no checksums). Convert again")
    checksums = np.asarray(read_columns(path, ["checksum"])["checksum"], np.uint32)
    try:
        labels: Any = zarr.open_group(str(path), mode="r")["labels"]
        count, dtype, fill_value = labels.shape[0], np.dtype(labels.dtype), int(labels.fill_value)
    except Exception as error:  # as in _attributes
        raise StoreError(f"{path}/labels: cannot be read ({error}). Run 'quadcodec validate'") from error
    if not count == len(columns) == len(sizes) == len(checksums):
        raise StoreError(
            f"{path}: the index does not fit the labels ({count} labels, {len(columns)} names, {len(sizes)} sizes, "
            f"{len(checksums)} checksums). Run 'quadcodec validate'"
        )
    found = {ATTRIBUTES: attributes_checksum(attributes), **array_checksums(path, columns, sizes, checksums)}
    broken = [part for part in sorted({*found, *written}) if found.get(part) != written.get(part)]
    tables = stored_tables(path)
    return LabelStore(path, info, columns, sizes, checksums, dtype, fill_value, tables, max_pixels), broken


def array_checksums(
    path: Path, columns: Columns, sizes: NDArray[np.uint32], checksums: NDArray[np.uint32]
) -> dict[str, int]:
    """Return the checksum of each array of a store by its name: of labels the metadata, of the index all."""
    values: dict[str, Any] = {f"index/{name}": column for name, column in vars(columns).items()}
    values |= {"labels": None, "index/size": sizes, "index/checksum": checksums}
    return {
        name: array_checksum(json.loads((path / name / "zarr.json").read_bytes()), column)
        for name, column in values.items()
    }


def stored_tables(path: Path) -> Tables | None:
    """Return the tables of its own that a store has, complete or not: they stand in the codec's configuration.

    Raises
    ------
    StoreError : the labels array or its tables cannot be read.
    """
    try:
        labels: Any = zarr.open_group(str(path), mode="r")["labels"]
        codec = labels.metadata.codecs[0].codecs[0]
    except Exception as error:  # as in _attributes
        raise StoreError(f"{path}/labels: cannot be read ({error}). Run 'quadcodec validate'") from error
    return codec.tables if isinstance(codec, QuadtreeCodec) else None


def stored_plan(path: Path) -> tuple[StoreInfo, Columns, NDArray[np.uint32]]:
    """Return the description, the list of images and their sizes of a store, complete or not.

    Raises
    ------
    StoreError : they cannot be read, or are not those of a label store.
    """
    info = StoreInfo.from_attributes(store_attributes(path), str(path))
    values = read_columns(path, (*COLUMNS, "size"))
    columns = Columns(**{name: tuple(str(v) for v in values[name]) for name in COLUMNS})
    if len({len(column) for column in vars(columns).values()}) != 1:
        raise StoreError(f"{path}/index: its columns differ in length. Run 'quadcodec validate'")
    return info, columns, np.asarray(values["size"], np.uint32)


def read_columns(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return arrays of the index by name."""
    where, values = path / "index", {}
    try:
        index: Any = zarr.open_group(str(where), mode="r")
        for name in names:
            where = path / "index" / name
            array = index[name]
            rest = (2,) if name == "size" else ()
            numbers = name in ("size", "checksum")
            if array.ndim != 1 + len(rest) or array.shape[1:] != rest or (array.dtype == np.uint32) != numbers:
                raise ValueError(f"found {array.dtype} of shape {array.shape}")
            values[name] = array[...]
    except Exception as error:  # as in _attributes
        raise StoreError(f"{where}: cannot be read ({error}). Run 'quadcodec validate'") from error
    return values
