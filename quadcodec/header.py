"""The first bytes of every record, whatever its profile (docs/format.md, section 2)."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .errors import CorruptRecordError, UnsupportedVersionError
from .pyramid import MAX_LEVELS, MAX_SIDE, MIN_LEVELS

__all__ = ["FAST", "FORMAT_VERSION", "HEADER_NBYTES", "MAX_PIXELS", "PROFILES", "SMALL", "Header", "read_header"]

FORMAT_VERSION = 0
MAGIC = b"QDTR"
FAST, SMALL = 0, 1
PROFILES = {"fast": FAST, "raw": FAST, "small": SMALL}
"""Id of each profile by its name; 'raw' is fast without the entropy stage."""
MAX_PIXELS = 2**32
"""Largest canvas of a record, in pixels."""

_STRUCT = struct.Struct("<4sBBBBII")  # magic, version, profile, levels, bits, height, width
HEADER_NBYTES = _STRUCT.size


class Header(NamedTuple):
    """Say what a record holds."""

    profile: int
    levels: int
    bits: int
    height: int
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the coarsest level."""
        size = 1 << (self.levels - 1)
        return -(-self.height // size), -(-self.width // size)

    @property
    def canvas_pixels(self) -> int:
        """Pixels of the padded canvas."""
        rows, cols = self.grid
        return rows * cols << 2 * (self.levels - 1)

    @property
    def mask_dtype(self) -> np.dtype[Any]:
        """Type of the mask: uint8 or uint16."""
        return np.dtype(f"u{self.bits // 8}")

    def to_bytes(self) -> bytes:
        """Return the bytes that `read_header` reads."""
        fields = (self.profile, self.levels, self.bits, self.height, self.width)
        return _STRUCT.pack(MAGIC, FORMAT_VERSION, *fields)


def read_header(record: bytes) -> Header:
    """Return the header of a record; its checksum is the profile's to check.

    Raises
    ------
    UnsupportedVersionError : the record's format version is newer than this software.
    CorruptRecordError : the bytes are no header that an encoder writes.
    """
    if len(record) < _STRUCT.size:
        raise CorruptRecordError(f"record holds {len(record)} bytes, expected a header of {_STRUCT.size} at least")
    return _parse(bytes(record[:HEADER_NBYTES]))


@lru_cache(maxsize=256)  # the masks of a store have few different headers
def _parse(data: bytes) -> Header:
    magic, version, profile, levels, bits, height, width = _STRUCT.unpack(data)
    if magic != MAGIC:
        raise CorruptRecordError(f"record starts with {magic!r}, expected {MAGIC!r}. It is not a quadcodec record")
    if version != FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"record has format version {version}, this software reads {FORMAT_VERSION}. Update quadcodec"
        )
    header = Header(profile, levels, bits, height, width)
    sides = min(height, width) >= 1 and max(height, width) <= MAX_SIDE
    if (
        profile not in PROFILES.values() or not MIN_LEVELS <= levels <= MAX_LEVELS or bits not in (8, 16)
        or not sides or header.canvas_pixels > MAX_PIXELS
    ):  # fmt: skip
        raise CorruptRecordError(
            f"header gives profile {profile}, {levels} levels, {bits} bits, {height} x {width} pixels, "
            "which no encoder writes"
        )
    return header
