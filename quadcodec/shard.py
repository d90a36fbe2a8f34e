"""Shards: the records of many images in one file, and the index at its end (docs/format.md, section 5)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from .errors import StoreError

EMPTY = 2**64 - 1
"""Offset and length of a chunk that zarr left out because it equals the fill value."""

_ENTRY = 16
_CRC = 4


def shard_path(path: Path, shard: int) -> Path:
    """Return where a shard lies."""
    return path / "labels" / "c" / str(shard) / "0" / "0"


def choose_shard_size(num_images: int) -> int:
    """Return how many images one shard holds: few objects, yet shards of megabytes."""
    return 64 if num_images < 10_000 else 256 if num_images < 250_000 else 1024


def pack_shard(records: Sequence[bytes | None], shard_size: int) -> bytes:
    """Return a shard as zarr's ``sharding_indexed`` writes it: the records, then their index and its crc32c.

    None stands for a chunk that zarr left out.
    """
    index = np.full((shard_size, 2), EMPTY, "<u8")
    offset = 0
    present = [(slot, record) for slot, record in enumerate(records) if record is not None]
    for slot, record in present:
        index[slot] = offset, len(record)
        offset += len(record)
    tail = index.tobytes()
    checksum: int = google_crc32c.value(tail)
    return b"".join(record for _, record in present) + tail + checksum.to_bytes(4, "little")


def read_shard_index(path: Path, shard_size: int) -> NDArray[np.uint64]:
    """Return the (shard_size, 2) index of a shard; raise StoreError if it is missing or damaged."""
    length = shard_size * _ENTRY + _CRC
    try:
        size = path.stat().st_size
        tail = read_range(path, size - length, length) if size >= length else b""
    except OSError as error:
        raise StoreError(f"{path}: the shard cannot be read ({error.strerror}). Run 'quadcodec validate'") from error
    if not tail or google_crc32c.value(tail[:-_CRC]) != int.from_bytes(tail[-_CRC:], "little"):
        raise StoreError(f"{path}: the shard's index is damaged. Run 'quadcodec validate' and convert again")
    index = np.frombuffer(tail[:-_CRC], "<u8").reshape(shard_size, 2)
    used = index[index[:, 0] != EMPTY].astype(object)  # Python integers: sums cannot wrap around
    if any(offset + nbytes > size - length for offset, nbytes in used):
        raise StoreError(f"{path}: the shard's index points beyond its end. Run 'quadcodec validate' and convert again")
    return index


def read_shard(path: Path, shard_size: int) -> list[bytes | None]:
    """Return the records of a shard by slot, None for what zarr left out; errors as `read_shard_index`."""
    index = read_shard_index(path, shard_size).tolist()
    data = path.read_bytes()
    return [None if offset == EMPTY else data[offset : offset + nbytes] for offset, nbytes in index]


def read_range(path: Path, offset: int, nbytes: int) -> bytes:
    """Read a range with pread, on a descriptor of its own: nothing is shared with a forked process."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data: bytes = os.pread(descriptor, nbytes, offset)
        return data
    finally:
        os.close(descriptor)
