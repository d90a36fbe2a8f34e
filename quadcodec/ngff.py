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

from .errors import StoreError
from .files import write_atomic
from .pyramid import COMPOSITE, OUTSIDE, node_dtype
from .pyramid_arrays import array_metadata, level_attributes, level_shape, on_canvas
from .shard import pack_shard
from .store import LabelStore

__all__ = ["Levels", "check_levels", "write_group"]

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
        shards = range(-(-len(self.store) // self.store.info.shard_size))
        with ThreadPoolExecutor() as pool:  # kernels and zstd hold no lock
            for images in pool.map(self._write_shard, shards):
                progress(images)
        self._write_metadata()

    def _write_shard(self, shard: int) -> int:
        store = self.store
        images = range(len(store))[shard * store.info.shard_size : (shard + 1) * store.info.shard_size]
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        chunks: dict[int, list[bytes]] = {level: [] for level in self.levels}
        for image in images:
            for level, cells in self._cells(image):
                padded = on_canvas(cells, level_shape(store.canvas, level), self._dtype.newbyteorder("<"), self._fill)
                chunks[level].append(compressor.compress(padded.tobytes()))
        for level, parts in chunks.items():
            path = self.folder / str(level) / "c" / str(shard) / "0" / "0"
            write_atomic(path, pack_shard(parts, store.info.shard_size))
        return len(images)

    def _write_metadata(self) -> None:
        store, size = self.store, self.store.info.shard_size
        for level in self.levels:
            shape = (len(store), *level_shape(store.canvas, level))
            sharding = {
                "chunk_shape": (1, *shape[1:]),
                "codecs": _CHUNK_CODECS,
                "index_codecs": _INDEX_CODECS,
                "index_location": "end",
            }
            metadata = array_metadata(
                shape,
                self._dtype,
                [{"name": "sharding_indexed", "configuration": sharding}],
                chunk_images=size,
                fill_value=self._fill,
                attributes=level_attributes(store.classes, level, sampled=self.sampled),
            )
            write_atomic(self.folder / str(level) / "zarr.json", metadata)
        write_group(self.folder, {"multiscales": [self.multiscale()], "image-label": self._image_label()})

    def multiscale(self, prefix: str = "") -> dict[str, Any]:
        """Return the OME-NGFF description of the arrays, for a group that has them below ``prefix``."""
        return {
            "name": self.store.info.dataset,
            "type": "nearest" if self.sampled else "T-pyramid",
            "axes": [{"name": "image"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
            "datasets": [_dataset(f"{prefix}{level}", 1 << level) for level in sorted(self.levels)],
        }

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
        colors = {label: (*palette[label % len(palette)].tolist(), 255) for label in names}
        colors |= {c.id: (*c.color, 255) for c in store.classes if c.color is not None}
        if not self.sampled:
            names |= {COMPOSITE: "composite", OUTSIDE: "outside"}
            colors |= {COMPOSITE: (0, 0, 0, 255), OUTSIDE: (0, 0, 0, 0)}
        return {
            "colors": [{"label-value": label, "rgba": colors[label]} for label in sorted(names)],
            "properties": [{"label-value": label, "class": names[label]} for label in sorted(names)],
        }


def write_group(folder: Path, ome: dict[str, Any]) -> None:
    """Write the ``zarr.json`` of a group with OME-NGFF metadata."""
    attributes = {"ome": {"version": "0.5", **ome}}
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_atomic(folder / "zarr.json", json.dumps(metadata).encode())


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
