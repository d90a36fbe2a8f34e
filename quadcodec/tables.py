"""Tables of the small profile: its states and weights before the first decision (docs/small.md, section 5).

A table file is zlib over one byte a state (six bits of stretched probability, two of confidence) and two a
weight.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from .errors import FormatError
from .kernels.contexts import NUM_STATES, NUM_WEIGHTS
from .kernels.rangecoder import SQUASH

__all__ = ["Tables", "shipped", "untrained"]

COUNTS = np.array([0, 1, 3, 6], np.uint32)
"""Decisions that a state of each confidence counts as having seen."""
RAW_BYTES = NUM_STATES + 4 * NUM_WEIGHTS
START_WEIGHT = 40000


@dataclass(frozen=True, eq=False)
class Tables:
    """Hold the start of every tile.

    Attributes
    ----------
    states : (NUM_STATES,) uint32, probability << 10 | count.
    weights : (2 * NUM_WEIGHTS,) int32 in units of 2**-16.
    crc : CRC32C of the unpacked file, which names a table of one's own in a record.
    """

    states: NDArray[np.uint32]
    weights: NDArray[np.int32]
    crc: int

    @classmethod
    def from_bytes(cls, packed: bytes) -> Tables:
        """Read a table file.

        Raises
        ------
        FormatError : the bytes are no table of this format version.
        """
        try:
            stream = zlib.decompressobj()
            raw = stream.decompress(packed, RAW_BYTES + 1)
        except zlib.error as error:
            raise FormatError(f"tables: no zlib stream: {error}") from error
        if len(raw) != RAW_BYTES:
            raise FormatError(f"tables: found {len(raw)} bytes or more, expected {RAW_BYTES}")
        cells = np.frombuffer(raw, np.uint8, NUM_STATES)
        probability = SQUASH[64 * (cells >> 2).astype(np.int64) + 32].astype(np.uint32) << 6
        weights = np.frombuffer(raw, "<i2", 2 * NUM_WEIGHTS, NUM_STATES).astype(np.int32) * 8
        return cls(probability << 10 | COUNTS[cells & 3], weights, google_crc32c.value(raw))


def pack(levels: NDArray[Any], confidences: NDArray[Any], weights: NDArray[Any]) -> bytes:
    """Return the table file of stretched probabilities 0 .. 63, confidences 0 .. 3 and weights in 2**-16."""
    cells = (levels << 2 | confidences).astype(np.uint8)
    raw = cells.tobytes() + (np.asarray(weights) >> 3).clip(-32768, 32767).astype("<i2").tobytes()
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9)
    return packer.compress(raw) + packer.flush()


@cache
def untrained() -> Tables:
    """Return tables that know nothing."""
    return Tables(np.full(NUM_STATES, 1 << 31, np.uint32), np.full(2 * NUM_WEIGHTS, START_WEIGHT, np.int32), 0)


@cache
def shipped() -> Tables:
    """Return the tables that this package was released with."""
    return Tables.from_bytes((files(__package__) / "small_tables_0.bin").read_bytes())
