"""Records: one mask as bytes, in the profile that suits its use, and back (docs/format.md, section 2)."""

from __future__ import annotations

from typing import Any

import google_crc32c
from numpy.typing import ArrayLike, NDArray

from . import fast, small
from .errors import CorruptRecordError, FormatError, MaskError
from .header import FAST, FORMAT_VERSION, HEADER_NBYTES, MAX_CANVAS, PROFILES, SMALL, Header, read_header
from .limits import MAX_PIXELS, size_problem
from .pyramid import MAX_LEVELS, MIN_LEVELS, check_mask
from .quadtree import LinearQuadtree
from .tables import Tables

__all__ = [
    "FORMAT_VERSION",
    "HEAD_BYTES",
    "PROFILES",
    "check_record",
    "decode",
    "decode_tree",
    "encode",
    "encode_tree",
    "prefix_bytes",
    "record_length",
]

HEAD_BYTES = 4096
"""A first read of this size holds everything before the levels of a record, and often the coarse levels, too."""

SMALL_START = HEADER_NBYTES + 4
"""Offset of the payload of the small profile: after the header and its checksum."""
_OVERHEAD = 64
"""Bytes by which a tree's record may be longer than the mask; noise is written in the small profile."""


def encode(mask: ArrayLike, *, levels: int = 6, profile: str = "fast", tables: Tables | None = None) -> bytes:
    """Return the record of a mask.

    Parameters
    ----------
    mask : (H, W) uint8 or uint16 class ids.
    levels : 2 .. 10 quadtree levels.
    profile : 'fast' to read trees and levels at speed; 'raw' for the same without zstd, twice as long and faster
        still; 'small' for a quarter to a half of the bytes of 'fast'.
    tables : of the small profile: those of a store, which a reader needs too; None for those of the package.

    Raises
    ------
    MaskError : the array is not such a mask.
    ValueError : ``levels`` or ``profile`` is none of these.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}, expected one of {sorted(PROFILES)}")
    if PROFILES[profile] == SMALL:
        return _encode_small(check_mask(mask), levels, tables)
    return encode_tree(LinearQuadtree.from_mask(mask, levels), profile=profile)


def encode_tree(tree: LinearQuadtree, *, profile: str = "fast", tables: Tables | None = None) -> bytes:
    """Return the record of a tree; parameters as `encode`.

    Raises
    ------
    MaskError : the format does not hold this tree: its image is not at the origin of its canvas (it was
        mirrored or cropped), it splits a uniform cell, or its canvas has more than 2**32 pixels.
    ValueError : the profile is unknown.
    """
    if tree.origin != (0, 0):
        raise MaskError(
            f"tree: the image is at {tree.origin} of its canvas, a record needs (0, 0). Rebuild it from its mask"
        )
    if PROFILES.get(profile) != FAST:
        return encode(tree.to_mask(), levels=tree.levels, profile=profile, tables=tables)
    _check_canvas(Header(FAST, tree.levels, 8, tree.height, tree.width))
    record = fast.encode(tree, compress=profile == "fast")
    if len(record) > tree.height * tree.width * tree.mask_dtype.itemsize + _OVERHEAD:
        return min(record, _encode_small(tree.to_mask(), tree.levels, None), key=len)
    return record


def _encode_small(mask: NDArray[Any], levels: int, tables: Tables | None) -> bytes:
    if not MIN_LEVELS <= levels <= MAX_LEVELS:
        raise ValueError(f"levels is {levels}, expected {MIN_LEVELS}..{MAX_LEVELS}")
    header = Header(SMALL, levels, 8 * mask.itemsize, *mask.shape)
    _check_canvas(header)
    head = header.to_bytes()
    return head + _checksum(head) + small.encode(mask, tables=tables)


def _check_canvas(header: Header) -> None:
    if header.canvas_pixels > MAX_CANVAS:
        raise MaskError(
            f"mask: {header.height} x {header.width} pixels, a record holds {MAX_CANVAS}. Cut it into tiles"
        )


def _checksum(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return crc.to_bytes(4, "little")


def _open(record: bytes) -> Header:
    """Return the header of a record; that of the small profile is checked here, the others with their layout."""
    header = read_header(record)
    if header.profile == SMALL and record[HEADER_NBYTES:SMALL_START] != _checksum(record[:HEADER_NBYTES]):
        raise CorruptRecordError("header contradicts its checksum")
    return header


def check_record(record: bytes, *, tables: Tables | None = None) -> Header:
    """Return the header of a whole record, after a look at all checksums of its head and at its length.

    Raises
    ------
    CorruptRecordError, UnsupportedVersionError : what stands before the compressed parts is damaged, or the
        length is not the one that it gives.
    FormatError : it needs other tables.
    """
    expected = record_length(record, tables=tables)
    if len(record) != expected:
        raise CorruptRecordError(f"record holds {len(record)} bytes, its header says {expected}")
    return read_header(record)


def record_length(data: bytes, *, tables: Tables | None = None) -> int:
    """Return the length of the record that ``data`` begins with, as its head gives it; errors as `check_record`."""
    header = _open(data)
    if header.profile == SMALL:
        payload = data[SMALL_START:]
        height, width, dtype = header.height, header.width, header.mask_dtype
        return SMALL_START + small.payload_bytes(payload, height, width, dtype, tables=tables)
    return fast.read_layout(data).nbytes


def prefix_bytes(head: bytes, level: int) -> int | None:
    """Return how many bytes of a record `decode_tree` needs for ``level``; None where it needs the whole record.

    Parameters
    ----------
    head : the first `HEAD_BYTES` of the record, or all of a shorter one.
    level : 0 .. levels - 1.

    Raises
    ------
    CorruptRecordError, UnsupportedVersionError : as `decode_tree`.
    ValueError : the record has no such level.
    """
    header = _open(head)
    _check_level(header, level)
    if header.profile == SMALL:
        return None
    return fast.read_layout(head).needed(level)[-1].end


def _check_size(header: Header, max_pixels: int) -> None:
    if problem := size_problem(header.height, header.width, max_pixels):
        raise FormatError(problem)


def _check_level(header: Header, level: int) -> None:
    if not 0 <= level < header.levels:
        raise ValueError(f"level is {level}, expected 0..{header.levels - 1}")


def decode_tree(
    record: bytes, *, level: int = 0, tables: Tables | None = None, max_pixels: int = MAX_PIXELS
) -> LinearQuadtree:
    """Return the tree of a record; of a fast one with ``level`` > 0 only from that level up, read from a prefix.

    The finer levels of such a tree are empty: it gives T_level and coarser ones. ``tables`` and ``max_pixels`` as
    `decode`.

    Raises
    ------
    CorruptRecordError, UnsupportedVersionError : the bytes are damaged, or of a newer format version.
    FormatError : the record claims too many pixels, or needs other tables.
    ValueError : the record has no such level.
    """
    header = _open(record)
    _check_size(header, max_pixels)
    _check_level(header, level)
    if header.profile == SMALL:
        payload = record[SMALL_START:]
        pyramid = small.decode_pyramid(
            payload, header.height, header.width, header.mask_dtype, header.levels, tables=tables
        )
        return LinearQuadtree.from_pyramid(pyramid)
    return fast.decode(record, level=level)


def decode(
    record: bytes,
    *,
    level: int = 0,
    region: tuple[int, int, int, int] | None = None,
    tables: Tables | None = None,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[Any]:
    """Return the mask of a record, a coarser level of it, or a part.

    Parameters
    ----------
    record : bytes that `encode` gave; of a fast one, for ``level`` > 0, a prefix up to that level is enough.
    level : 0 for the (H, W) uint8 or uint16 mask; l > 0 for T_l, int16 or int32.
    region : (y0, x0, h, w) in pixels: the cells of the level that touch it.
    tables : those of the record's store, if it has some (`LabelStore.tables`).
    max_pixels : refuse a record whose mask has more: a few bytes can claim 2**32. Decoding takes at most 48 bytes of
        memory a pixel.

    Raises
    ------
    CorruptRecordError, UnsupportedVersionError : as `decode_tree`.
    FormatError : the record claims too many pixels, or needs other tables.
    ValueError : the level does not exist, or the region leaves the image.
    """
    header = _open(record)
    _check_size(header, max_pixels)
    if header.profile == SMALL and level == 0:
        payload = record[SMALL_START:]
        return small.decode(payload, header.height, header.width, header.mask_dtype, region=region, tables=tables)
    return decode_tree(record, level=level, tables=tables, max_pixels=max_pixels).to_level(level, region)
