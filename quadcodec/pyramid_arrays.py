"""One level of all images as a zarr array whose chunks are made from the records when they are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from .info import ClassInfo
from .pyramid import COMPOSITE, OUTSIDE

__all__ = ["array_metadata", "level_array", "level_attributes", "level_shape", "on_canvas"]

_METADATA = "zarr.json"


def level_shape(canvas: tuple[int, int], level: int) -> tuple[int, int]:
    """Return rows and columns of a level of a canvas, given in pixels."""
    return -(-canvas[0] >> level), -(-canvas[1] >> level)


def on_canvas(cells: NDArray[Any], shape: tuple[int, int], dtype: np.dtype[Any], fill: int) -> NDArray[Any]:
    """Return a (rows, columns) array with ``cells`` at its upper left corner and ``fill`` elsewhere."""
    canvas = np.full(shape, fill, dtype)
    canvas[: cells.shape[0], : cells.shape[1]] = cells
    return canvas


def level_attributes(classes: Sequence[ClassInfo], level: int, *, sampled: bool = False) -> dict[str, Any]:
    """Return what the values of T_level, or of ids ``sampled`` at that level, mean, as the CF conventions say it."""
    names = {} if sampled else {OUTSIDE: "outside", COMPOSITE: "composite"}
    names |= {c.id: c.name for c in classes}
    return {
        "level": level,
        "cell_pixels": 1 << level,
        "flag_values": list(names),
        "flag_meanings": " ".join("_".join(name.split()) for name in names.values()),
    }


def array_metadata(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    codecs: list[dict[str, Any]],
    *,
    chunk_images: int,
    fill_value: int,
    attributes: dict[str, Any],
) -> dict[str, Any]:
    """Return the ``zarr.json`` of an array (image, y, x) in chunks of whole images."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk_images, *shape[1:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value,
        "codecs": codecs,
        "attributes": attributes,
        "dimension_names": ["image", "y", "x"],
    }


def level_array(
    read: Callable[[int], NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any], attributes: dict[str, Any]
) -> zarr.Array[Any]:
    """Return a read-only array (image, y, x) over a function that gives the (y, x) cells of an image."""
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    metadata = array_metadata(shape, dtype, codecs, chunk_images=1, fill_value=OUTSIDE, attributes=attributes)
    return zarr.open_array(_LevelStore(read, json.dumps(metadata).encode(), shape[0]), mode="r", zarr_format=3)


class _LevelStore(Store):
    """Hold one array: its metadata, and a chunk an image that is made on request."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, read: Callable[[int], NDArray[Any]], metadata: bytes, count: int) -> None:
        super().__init__(read_only=True)
        self._read, self._metadata, self._count = read, metadata, count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LevelStore) and (self._read, self._metadata) == (other._read, other._metadata)

    def __str__(self) -> str:
        return "quadcodec records"

    def _image(self, key: str) -> int | None:
        """Return the image of a chunk's key ``c/IMAGE/0/0``, None for any other key."""
        c, image, *rest = (*key.split("/"), "")
        inside = c == "c" and rest == ["0", "0", ""] and image.isdecimal() and str(int(image)) == image
        return int(image) if inside and int(image) < self._count else None

    def _value(self, key: str) -> bytes | None:
        if key == _METADATA:
            return self._metadata
        image = self._image(key)
        if image is None:
            return None
        cells = self._read(image)
        return cells.astype(cells.dtype.newbyteorder("<"), copy=False).tobytes()

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return a value, or a range of its bytes."""
        value = await asyncio.to_thread(self._value, key)
        return None if value is None else prototype.buffer.from_bytes(value[_as_slice(byte_range)])

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return ranges of values."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return key == _METADATA or self._image(key) is not None

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002
        """Refuse: there is nothing to write to."""
        self._check_writable()

    async def delete(self, key: str) -> None:  # noqa: ARG002
        """Refuse: there is nothing to delete."""
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """Yield every key."""
        yield _METADATA
        for image in range(self._count):
            yield f"c/{image}/0/0"

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin so."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield what stands directly below a prefix."""
        start = prefix.rstrip("/") + "/" if prefix else ""
        seen = set()
        async for key in self.list_prefix(start):
            name = key[len(start) :].split("/")[0]
            if name not in seen:
                seen.add(name)
                yield name


def _as_slice(part: ByteRequest | None) -> slice:
    match part:
        case RangeByteRequest(start, end):
            return slice(start, end)
        case OffsetByteRequest(offset):
            return slice(offset, None)
        case SuffixByteRequest(suffix):
            return slice(-suffix, None)
    return slice(None)
