"""Entropy stages of a section, by the id that stands in the record (docs/format.md, section 3)."""

from __future__ import annotations

import threading

import zstandard

from .errors import CorruptRecordError

STORED, ZSTD = 0, 1

ZSTD_LEVEL = 3


class _Contexts(threading.local):
    """Keep zstd's working memory, one a thread: making it anew costs more than a section takes to decode."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def compress(raw: bytes) -> tuple[int, bytes]:
    """Return (stage, bytes): one zstd frame where that is shorter than ``raw``, else ``raw`` itself."""
    if not raw:
        return STORED, raw
    packed = _contexts.compressor.compress(raw)
    return (ZSTD, packed) if len(packed) < len(raw) else (STORED, raw)


def raw_size(stage: int, stored: bytes) -> int:
    """Return the length that the bytes of a section declare; raise CorruptRecordError if they declare none."""
    if stage != ZSTD:
        return len(stored)
    try:
        return zstandard.frame_content_size(stored)
    except zstandard.ZstdError as error:
        raise CorruptRecordError(f"zstd frame does not decode: {error}") from error


def decompress(stage: int, stored: bytes, raw_size: int) -> bytes:
    """Return the ``raw_size`` bytes of a section; never allocate more than that.

    Raises
    ------
    CorruptRecordError : an unknown stage, or bytes that do not hold exactly ``raw_size`` bytes.
    """
    if stage == STORED:
        if len(stored) != raw_size:
            raise CorruptRecordError(f"section holds {len(stored)} bytes, expected {raw_size}")
        return stored
    if stage != ZSTD:
        raise CorruptRecordError(f"entropy stage {stage} is unknown, expected {STORED} or {ZSTD}")
    try:
        declared = zstandard.frame_content_size(stored)
        if declared != raw_size:
            raise CorruptRecordError(f"zstd frame declares {declared} bytes, expected {raw_size}")
        raw = _contexts.decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptRecordError(f"zstd frame does not decode: {error}") from error
    return raw
