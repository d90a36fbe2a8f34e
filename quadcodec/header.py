"""The first bytes of every record, whatever its profile (docs/format.md, section 2)."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .errors import CorruptRecordError, UnsupportedVersionError
from .pyramid import MAX_LEVELS, MAX_SIDE, MIN_LEVELS

__all__ = [
    "FAST",
    "FORMAT_VERSION",
    "HEADER_NBYTES",
    "MAX_CANVAS",
    "PROFILES",
    "SMALL",
    "Header",
    "check_version",
    "read_header",
]

FORMAT_VERSION = 1
MAGIC = b"QDTR"
FAST, SMALL = 0, 1
PROFILES = {"fast": FAST, "raw": FAST, "small": SMALL}
"""Id of each profile by its name; 'raw' is fast without the entropy stage."""
MAX_CANVAS = 2**32
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

    def most_nodes(self, level: int) -> int:
        """Return how many nodes a level can have: cells of the grid, or four for each cell above that holds pixels."""
        if level == self.levels - 1:
            return self.grid[0] * self.grid[1]
        size = 2 << level
        return 4 * -(-self.height // size) * -(-self.width // size)

    @property
    def mask_dtype(self) -> np.dtype[Any]:
        """Type of the mask: uint8 or uint16."""
        return np.dtype(f"u{self.bits // 8}")

    def to_bytes(self) -> bytes:
        """Return the bytes that `read_header` reads."""
        fields = (self.profile, self.levels, self.bits, self.height, self.width)
        return _STRUCT.pack(MAGIC, FORMAT_VERSION, *fields)


def check_version(version: object, what: str) -> None:
    """Raise UnsupportedVersionError unless this software reads what was written in a format version."""
    if version == 0:
        raise UnsupportedVersionError(
            f"{what}: found format version {version!r}, it came before version 1. Convert the masks again"
        )
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"{what}: found format version {version!r}, expected 1..{FORMAT_VERSION}. Update quadcodec"
        )


def read_header(record: bytes) -> Header:
    """Return the header of a record; its checksum is the profile's to check.

    Raises
    ------
    UnsupportedVersionError : the record has another format version than this software reads.
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
    check_version(version, "record")
    header = Header(profile, levels, bits, height, width)
    sides = min(height, width) >= 1 and max(height, width) <= MAX_SIDE
    if (
        profile not in PROFILES.values() or not MIN_LEVELS <= levels <= MAX_LEVELS or bits not in (8, 16)
        or not sides or header.canvas_pixels > MAX_CANVAS
    ):  # fmt: skip
        raise CorruptRecordError(
            f"header gives profile {profile}, {levels} levels, {bits} bits, {height} x {width} pixels, "
            "which no encoder writes"
        )
    return header
