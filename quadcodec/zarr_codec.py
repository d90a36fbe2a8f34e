"""The zarr v3 codec ``quadcodec.quadtree``: one mask a chunk, written as a record.

zarr finds it through the entry point group ``zarr.codecs``, so ``zarr.open("out.zarr")["labels"][i]`` gives
the mask wherever this package is installed, without an import of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec

from .errors import FormatError, StoreError
from .header import PROFILES, read_header
from .record import decode, encode
from .tables import Tables

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

__all__ = ["QuadtreeCodec"]


@dataclass(frozen=True)
class QuadtreeCodec(ArrayBytesCodec):
    """Encode chunks (1, H, W) of uint8 or uint16 ids as records (docs/format.md, section 6).

    A record may be smaller than its chunk: the rest is the array's fill value.
    """

    is_fixed_size = False

    levels: int = 6
    profile: str = "fast"
    tables: Tables | None = field(default=None, repr=False)
    """Those of the array itself, for the small profile; None for those of the package."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read the codec's metadata; raise ValueError on settings that this software does not know."""
        configuration = dict(data.get("configuration") or {})
        if configuration.get("tables") is not None:
            try:
                configuration["tables"] = Tables.from_text(configuration["tables"])
            except FormatError as error:
                raise ValueError(f"quadcodec.quadtree: {error}. Restore the array's zarr.json") from error
        codec = cls(**configuration)
        if codec.profile not in PROFILES:
            raise ValueError(f"quadcodec.quadtree: profile {codec.profile!r}, expected one of {sorted(PROFILES)}")
        return codec

    def to_dict(self) -> dict[str, Any]:
        """Return the codec's metadata."""
        configuration: dict[str, Any] = {"levels": self.levels, "profile": self.profile}
        if self.tables is not None:
            configuration["tables"] = self.tables.to_text()
        return {"name": "quadcodec.quadtree", "configuration": configuration}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse an array that is not (image, y, x) of uint8 or uint16, or whose chunks hold several images."""
        native = dtype.to_native_dtype()
        chunk = getattr(chunk_grid, "chunk_shape", (1,))  # zarr 3.4 has irregular grids, too
        if len(shape) != 3 or native not in (np.uint8, np.uint16) or chunk[0] != 1:
            raise ValueError(
                f"quadcodec.quadtree: found {native} of shape {shape} in chunks {chunk}, expected uint8 or uint16 "
                "of (image, y, x) in chunks of one image"
            )

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        record = chunk_bytes.to_bytes()
        header = read_header(record)
        canvas = chunk_spec.shape
        if canvas[0] != 1 or header.height > canvas[1] or header.width > canvas[2]:
            raise StoreError(
                f"labels: a record of {header.height} x {header.width} pixels lies in a chunk of shape {canvas}. "
                "Run 'quadcodec validate'"
            )
        dtype = chunk_spec.dtype.to_native_dtype()
        if header.bits > 8 * dtype.itemsize:
            raise StoreError(
                f"labels: a record of {header.bits}-bit ids lies in an array of {dtype}. Run 'quadcodec validate'"
            )
        mask = decode(record, tables=self.tables, max_pixels=canvas[1] * canvas[2])
        if mask.shape == canvas[1:]:
            chunk = mask[None].astype(dtype, copy=False)
        else:
            chunk = np.full(canvas, chunk_spec.fill_value, dtype)
            chunk[0, : header.height, : header.width] = mask
        return chunk_spec.prototype.nd_buffer.from_numpy_array(chunk)

    def _encode_sync(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        chunk = chunk_array.as_numpy_array()
        if chunk.shape[0] != 1:
            raise ValueError(f"quadcodec.quadtree: found a chunk of shape {chunk.shape}, expected one image a chunk")
        record = encode(chunk[0], levels=self.levels, profile=self.profile, tables=self.tables)
        return chunk_spec.prototype.buffer.from_bytes(record)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_array, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise: a record's length depends on the mask."""
        raise NotImplementedError("quadcodec.quadtree: the size of a record is not known before it is encoded")
