"""Levels of a store as ordinary zarr arrays with OME-NGFF 0.5 metadata, for readers without this package.

Chunks are written first and metadata last, so that no reader ever takes a missing chunk for fill values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from .errors import QuadcodecError, StoreError
from .files import new_folder, write_atomic
from .pyramid import COMPOSITE, OUTSIDE, node_dtype
from .pyramid_arrays import array_metadata, level_attributes, level_shape, on_canvas
from .shard import pack_shard, read_shard
from .store import LabelStore, open_store

__all__ = ["Levels", "add_levels", "check_levels", "group_metadata", "stored_levels"]

_ZSTD_LEVEL = 3
_CHUNK_CODECS = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": True}},
]
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


def check_levels(levels: Sequence[int], count: int, where: str) -> None:
    """Raise StoreError unless ``levels`` are different levels of trees that have ``count`` of them."""
    if len(set(levels)) != len(levels) or not all(0 <= level < count for level in levels):
        raise StoreError(
            f"{where}: found levels {list(levels)}, expected different ones of 0..{count - 1}. Name others"
        )


@dataclass(frozen=True)
class Levels:
    """Describe arrays FOLDER/LEVEL of shape (image, y, x).

    ``sampled`` arrays hold ids: those of the pixels in the middle of the cells. Others hold T_level, with
    COMPOSITE -1 and OUTSIDE -2.
    """

    store: LabelStore
    folder: Path
    levels: tuple[int, ...]
    sampled: bool = False

    def write(self, progress: Callable[[int], object] = lambda _: None) -> None:
        """Write all shards in threads, each an object of its own, then the metadata."""
        with ThreadPoolExecutor() as pool:  # kernels and zstd hold no lock
            for images in pool.map(self._write_shard, range(self.store.num_shards)):
                progress(images)
        self._write_metadata()

    def _write_shard(self, shard: int) -> int:
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        chunks: dict[int, list[bytes]] = {level: [] for level in self.levels}
        for image in self._images(shard):
            for level, cells in self._cells(image):
                chunks[level].append(compressor.compress(self._raw(level, cells)))
        for level, parts in chunks.items():
            write_atomic(self.folder / self._shard_name(level, shard), pack_shard(parts, self.store.info.shard_size))
        return len(self._images(shard))

    def _write_metadata(self) -> None:
        for name, document in self._documents().items():
            write_atomic(self.folder / name, json.dumps(document).encode())

    def _documents(self) -> dict[str, Any]:
        """Return the metadata by the file that holds them: the arrays', then the group's."""
        store = self.store
        documents = {}
        for level in self.levels:
            shape = self._shape(level)
            sharding = {
                "chunk_shape": [1, *shape[1:]],
                "codecs": _CHUNK_CODECS,
                "index_codecs": _INDEX_CODECS,
                "index_location": "end",
            }
            documents[f"{level}/zarr.json"] = array_metadata(
                shape,
                self._dtype,
                [{"name": "sharding_indexed", "configuration": sharding}],
                chunk_images=store.info.shard_size,
                fill_value=self._fill,
                attributes=level_attributes(store.classes, level, sampled=self.sampled),
            )
        group = group_metadata({"multiscales": [self.multiscale()], "image-label": self._image_label()})
        return {**documents, "zarr.json": group}

    def files(self) -> set[str]:
        """Return the names of all files below ``folder``."""
        shards = {self._shard_name(level, shard) for level in self.levels for shard in range(self.store.num_shards)}
        return {*self._documents(), *shards}

    def faults(self, *, deep: bool = False) -> Iterator[tuple[Path, str]]:
        """Yield the files that are missing or damaged, and how; with ``deep``, those that contradict records, too."""
        for name, document in self._documents().items():
            try:
                if json.loads((self.folder / name).read_bytes()) != document:
                    yield self.folder / name, "is not what was written"
            except (OSError, ValueError) as error:
                yield self.folder / name, f"cannot be read ({error})"
        for shard in range(self.store.num_shards):
            for level in self.levels:
                path = self.folder / self._shard_name(level, shard)
                try:
                    chunks = read_shard(path, self.store.info.shard_size)
                except StoreError:
                    yield path, "is missing or damaged"
                    continue
                for image, chunk in zip(self._images(shard), chunks, strict=False):
                    fault = self._chunk_fault(level, image, chunk, deep)
                    if fault:
                        yield path, f"image {image} {fault}"

    def _chunk_fault(self, level: int, image: int, chunk: bytes | None, deep: bool) -> str:
        nbytes = int(np.prod(self._shape(level)[1:])) * self._dtype.itemsize
        try:
            if chunk is None or zstandard.frame_content_size(chunk) != nbytes:
                return "has no chunk of its size"
            raw = zstandard.ZstdDecompressor().decompress(chunk, allow_extra_data=False)
        except zstandard.ZstdError as error:
            return f"is damaged ({error})"
        if deep and raw != self._raw(level, self.store.quadtree(image, level=level).to_level(level)):
            return "differs from its record"
        return ""

    def multiscale(self, prefix: str = "") -> dict[str, Any]:
        """Return the OME-NGFF description of the arrays, for a group that has them below ``prefix``."""
        return {
            "name": self.store.info.dataset,
            "type": "nearest" if self.sampled else "T-pyramid",
            "axes": [{"name": "image"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
            "datasets": [_dataset(f"{prefix}{level}", 1 << level) for level in sorted(self.levels)],
        }

    def _shape(self, level: int) -> tuple[int, int, int]:
        return (len(self.store), *level_shape(self.store.canvas, level))

    def _images(self, shard: int) -> range:
        size = self.store.info.shard_size
        return range(len(self.store))[shard * size : (shard + 1) * size]

    @staticmethod
    def _shard_name(level: int, shard: int) -> str:
        return f"{level}/c/{shard}/0/0"

    def _raw(self, level: int, cells: NDArray[Any]) -> bytes:
        """Return the bytes of a chunk before compression."""
        return on_canvas(cells, self._shape(level)[1:], self._dtype.newbyteorder("<"), self._fill).tobytes()

    @property
    def _dtype(self) -> np.dtype[Any]:
        return self.store.dtype if self.sampled else node_dtype(self.store.dtype)

    @property
    def _fill(self) -> int:
        return self.store.fill_value if self.sampled else OUTSIDE

    def _cells(self, image: int) -> Iterator[tuple[int, NDArray[Any]]]:
        if self.sampled:
            mask = self.store[image]
            return ((level, _middles(mask, 1 << level)) for level in self.levels)
        tree = self.store.quadtree(image, level=min(self.levels))
        return ((level, tree.to_level(level)) for level in self.levels)

    def _image_label(self) -> dict[str, Any]:
        """Return a name and a colour for each value that may occur: viewers do not draw a label without a colour."""
        store, palette = self.store, self.store.palette
        if store.dtype != np.uint8 and not store.classes:  # perhaps instances: too many ids to list
            return {}
        names = {label: str(label) for label in range(len(palette))}
        names |= dict.fromkeys(store.info.void, "void") | {c.id: c.name for c in store.classes}
        colors = {label: [*palette[label % len(palette)].tolist(), 255] for label in names}
        colors |= {c.id: [*c.color, 255] for c in store.classes if c.color is not None}
        if not self.sampled:
            names |= {COMPOSITE: "composite", OUTSIDE: "outside"}
            colors |= {COMPOSITE: [0, 0, 0, 255], OUTSIDE: [0, 0, 0, 0]}
        return {
            "colors": [{"label-value": label, "rgba": colors[label]} for label in sorted(names)],
            "properties": [{"label-value": label, "class": names[label]} for label in sorted(names)],
        }


def group_metadata(ome: dict[str, Any]) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group with OME-NGFF metadata."""
    return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", **ome}}}


def add_levels(path: Path, levels: Sequence[int]) -> None:
    """Write the levels that a complete store lacks as arrays beside its labels; they appear whole or not at all.

    Raises
    ------
    StoreError : no such levels, other levels lie there, or the disk refuses.
    """
    folder = path / "pyramid"
    missing = [level for level in levels if not (folder / str(level)).exists()]
    if not missing:
        return
    if folder.exists():
        raise StoreError(f"{folder}: lacks levels {missing}. Delete this folder, then run again with --resume")
    store = open_store(path)
    check_levels(levels, store.info.levels, str(path))
    try:
        with new_folder(folder) as partial:
            Levels(store, partial, tuple(levels)).write()
    except QuadcodecError as error:
        raise type(error)(f"{error} (all masks are in {path}: add its levels with --resume)") from error


def stored_levels(store: LabelStore) -> Levels | None:
    """Return the levels that lie beside the labels of a store; raise StoreError if it cannot be told which."""
    folder = store.path / "pyramid"
    if not folder.exists():
        return None
    try:
        ome = json.loads((folder / "zarr.json").read_bytes())["attributes"]["ome"]
        levels = tuple(int(dataset["path"]) for dataset in ome["multiscales"][0]["datasets"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise StoreError(f"{folder}/zarr.json: does not say which levels there are ({error!r})") from error
    check_levels(levels, store.info.levels, f"{folder}/zarr.json")
    return Levels(store, folder, levels)


def _dataset(path: str, size: int) -> dict[str, Any]:
    """Return where an array lies and how its cells, ``size`` pixels a side, lie on the pixels."""
    middle = (size - 1) / 2
    return {
        "path": path,
        "coordinateTransformations": [
            {"type": "scale", "scale": [1.0, float(size), float(size)]},
            {"type": "translation", "translation": [0.0, middle, middle]},
        ],
    }


def _middles(mask: NDArray[Any], size: int) -> NDArray[Any]:
    """Return the pixels in the middle of the cells, ``size`` pixels a side, or next to it inside the image."""
    rows, cols = (np.minimum(np.arange(0, side, size) + size // 2, side - 1) for side in mask.shape)
    return mask[np.ix_(rows, cols)]
