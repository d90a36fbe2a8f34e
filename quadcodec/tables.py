"""Tables of the small profile: its states and weights before the first decision (docs/small.md, section 5).

A table file is zlib over one byte a state (six bits of stretched probability, two of confidence) and two a
weight.
"""

from __future__ import annotations

import binascii
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from .errors import FormatError
from .kernels.contexts import NUM_STATES, NUM_WEIGHTS
from .kernels.rangecoder import SQUASH

__all__ = ["Tables", "pack", "shipped", "untrained"]

COUNTS = np.array([0, 1, 3, 6], np.uint32)
"""Decisions that a state of each confidence counts as having seen."""
RAW_BYTES = NUM_STATES + 4 * NUM_WEIGHTS
START_WEIGHT = 40000


@dataclass(frozen=True)
class Tables:
    """Hold the start of every tile. Two are equal if their files are; pickled as their file.

    Attributes
    ----------
    packed : the table file.
    crc : CRC32C of the unpacked file, which names a table of one's own in a record.
    states : (NUM_STATES,) uint32, probability << 10 | count; read-only.
    weights : (2 * NUM_WEIGHTS,) int32 in units of 2**-16; read-only.
    """

    packed: bytes = field(repr=False)
    crc: int
    states: NDArray[np.uint32] = field(repr=False, compare=False)
    weights: NDArray[np.int32] = field(repr=False, compare=False)

    @classmethod
    def from_bytes(cls, packed: bytes) -> Tables:
        """Read a table file; a process that reads it again gets the same object.

        Raises
        ------
        FormatError : the bytes are no table of this format version.
        """
        return _unpack(packed)

    @classmethod
    def from_text(cls, text: str) -> Tables:
        """Read a table file in base64; errors as `from_bytes`."""
        try:
            return _unpack(b64decode(text, validate=True))
        except (binascii.Error, ValueError, TypeError) as error:
            raise FormatError(f"tables: no base64 text: {error}") from error

    def to_text(self) -> str:
        """Return the table file in base64."""
        return b64encode(self.packed).decode("ascii")

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (self.packed,)


@lru_cache(maxsize=16)
def _unpack(packed: bytes) -> Tables:
    try:
        stream = zlib.decompressobj()
        raw = stream.decompress(packed, RAW_BYTES + 1)
    except zlib.error as error:
        raise FormatError(f"tables: no zlib stream: {error}") from error
    if len(raw) != RAW_BYTES or not stream.eof or stream.unused_data:
        raise FormatError(f"tables: found {len(raw)} bytes or more, expected {RAW_BYTES} and their checksum")
    cells = np.frombuffer(raw, np.uint8, NUM_STATES)
    probability = SQUASH[64 * (cells >> 2).astype(np.int64) + 32].astype(np.uint32) << 6
    states = probability << 10 | COUNTS[cells & 3]
    weights = np.frombuffer(raw, "<i2", 2 * NUM_WEIGHTS, NUM_STATES).astype(np.int32) * 8
    states.setflags(write=False)
    weights.setflags(write=False)
    return Tables(packed, google_crc32c.value(raw), states, weights)


def pack(levels: NDArray[Any], confidences: NDArray[Any], weights: NDArray[Any]) -> bytes:
    """Return the table file of stretched probabilities 0 .. 63, confidences 0 .. 3 and weights in 2**-16."""
    cells = (levels << 2 | confidences).astype(np.uint8)
    raw = cells.tobytes() + (np.asarray(weights) >> 3).clip(-32768, 32767).astype("<i2").tobytes()
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9)
    return packer.compress(raw) + packer.flush()


def untrained() -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """Return states and weights that know nothing."""
    return np.full(NUM_STATES, 1 << 31, np.uint32), np.full(2 * NUM_WEIGHTS, START_WEIGHT, np.int32)


@cache
def shipped() -> Tables:
    """Return the tables that this package was released with."""
    return Tables.from_bytes((files(__package__) / "small_tables_0.bin").read_bytes())
