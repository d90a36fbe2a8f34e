"""Checksums over what a store says of itself: they show edits, flipped bits, a stale index (docs/format.md, section 5).

All are CRC-32 as zlib, gzip and PNG have it. CRC-32C would not do for records: their parts end in their own CRC-32C,
and over such parts it is the same whatever they hold.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ATTRIBUTES", "array_checksum", "attributes_checksum", "record_checksum"]

ATTRIBUTES = "attributes"
"""The part of a store that is its description."""

_MEMBERS = (
    "shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs", "fill_value", "dimension_names",
)  # fmt: skip


def record_checksum(record: bytes) -> int:
    """Return the checksum of a record's bytes, as `index/checksum` holds it."""
    return zlib.crc32(record)


def attributes_checksum(attributes: Mapping[str, Any]) -> int:
    """Return the checksum of a store's description, which is all of the root attribute but its checksums."""
    return zlib.crc32(_bytes({k: v for k, v in attributes.items() if k != "checksums"}))


def array_checksum(document: Mapping[str, Any], values: NDArray[np.uint32] | Sequence[str] | None = None) -> int:
    """Return the checksum of an array: of what its metadata document says, and of its values if given.

    Parameters
    ----------
    document : the array's zarr.json. Its attributes and what zarr may add later do not count.
    values : u32, or strings.
    """
    checksum = zlib.crc32(_bytes({member: document.get(member) for member in _MEMBERS}))
    if values is None:
        return checksum
    if isinstance(values, np.ndarray):
        return zlib.crc32(values.astype("<u4").tobytes(), checksum)
    texts = [value.encode() for value in values]
    return zlib.crc32(b"".join(len(text).to_bytes(4, "little") + text for text in texts), checksum)


def _bytes(value: Any) -> bytes:
    return _canonical(value).encode("utf-8", "surrogatepass")  # JSON can spell surrogates without a partner


def _canonical(value: Any) -> str:
    """Return JSON in its one form: keys sorted, no spaces, no escapes but those that JSON needs, plain decimals."""
    if isinstance(value, Mapping):
        members = (f"{json.dumps(key, ensure_ascii=False)}:{_canonical(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")
    return json.dumps(value, ensure_ascii=False)
