"""Records: a linear quadtree as bytes and back (docs/format.md, sections 2 to 4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import entropy
from .errors import CorruptRecordError, FormatError, MaskError, UnsupportedVersionError
from .kernels import pack
from .pyramid import COMPOSITE, MAX_LEVELS, MAX_SIDE, MIN_LEVELS
from .quadtree import LinearQuadtree

__all__ = [
    "FORMAT_VERSION",
    "PROFILES",
    "Header",
    "decode",
    "decode_tree",
    "encode",
    "encode_tree",
    "read_header",
]

FORMAT_VERSION = 0
MAGIC = b"QDTR"
PROFILES = {"fast": 0}
MAX_PIXELS = 2**32
"""Largest canvas that a decoder accepts, in pixels."""

_FIXED = struct.Struct("<4sBBBBIIII")  # magic, version, profile, levels, bits, height, width, labels, pairs
_SECTION = struct.Struct("<BII")  # entropy stage, stored bytes, crc32c of the stored bytes
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class Section:
    """Describe one part of a record that can be read alone."""

    stage: int
    offset: int
    nbytes: int
    crc: int


@dataclass(frozen=True)
class Header:
    """Describe a record: the class tables, then one section a level, coarse to fine."""

    profile: int
    levels: int
    bits: int
    height: int
    width: int
    num_labels: int
    num_pairs: int
    tables: Section
    sections: tuple[Section, ...]
    """Indexed by level."""

    @property
    def nbytes(self) -> int:
        """Length of the whole record."""
        return self.sections[0].offset + self.sections[0].nbytes

    @property
    def mask_dtype(self) -> np.dtype[Any]:
        """Type of the mask: uint8 or uint16."""
        return np.dtype(f"u{self.bits // 8}")

    @property
    def symbol_dtype(self) -> np.dtype[Any]:
        """Type of a symbol above level 0: the smallest that holds num_labels + num_pairs."""
        return _smallest(self.num_labels + self.num_pairs)


def _smallest(largest: int) -> np.dtype[Any]:
    return np.dtype("<u1" if largest < 1 << 8 else "<u2" if largest < 1 << 16 else "<u4")


def encode(mask: ArrayLike, *, levels: int = 6, profile: str = "fast") -> bytes:
    """Return the record of a mask.

    Parameters
    ----------
    mask : (H, W) uint8 or uint16 class ids.
    levels : 2 .. 10 quadtree levels.
    profile : 'fast'.

    Raises
    ------
    MaskError : the array is not such a mask.
    ValueError : ``levels`` or ``profile`` is none of these.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}, expected one of {sorted(PROFILES)}")
    return encode_tree(LinearQuadtree.from_mask(mask, levels))


def encode_tree(tree: LinearQuadtree) -> bytes:
    """Return the record of a tree.

    Raises
    ------
    MaskError : the tree's image is not at the origin of its canvas (it was mirrored or cropped), which the
        format does not hold.
    """
    if tree.origin != (0, 0):
        raise MaskError(
            f"tree: the image is at {tree.origin} of its canvas, a record needs (0, 0). Rebuild it from its mask"
        )
    top = tree.levels - 1
    present = np.zeros(256 if tree.mask_dtype == np.uint8 else 65536, np.bool_)
    pack.mark_labels(tree.nodes, present)
    labels = np.flatnonzero(present)
    index_of = np.zeros(len(present) + 1, np.int32)
    index_of[labels] = np.arange(len(labels))
    index_of[-1] = len(labels)

    pairs = [np.empty(0, np.int64)]  # of the composites of each level
    for level in range(1, tree.levels):
        pairs.append(np.empty(tree.counts[level - 1] // 4, np.int64))
        pack.find_pairs(tree.level(level - 1), pairs[level - 1], index_of, pairs[level])
    table = _paired_by_symbol(tree, pairs)
    symbol_dtype = _smallest(len(labels) + len(table))
    pair_dtype = _smallest(len(labels) - 1)

    halves = np.stack((table >> 32, table & 0xFFFFFFFF), axis=1).astype(pair_dtype)
    raws = [labels.astype(tree.mask_dtype.newbyteorder("<")).tobytes() + halves.tobytes()]
    symbols = np.empty(tree.counts[top], symbol_dtype)
    pack.pack_symbols(tree.level(top), pairs[top], index_of, table, symbols)
    raws.append(symbols.tobytes())
    for level in range(top - 1, -1, -1):
        parents = pairs[level + 1]
        multi = int(np.count_nonzero(parents == pack.MULTI))
        symbols = np.empty(4 * multi, symbol_dtype if level else pair_dtype)
        single = len(parents) - multi
        packed = np.zeros(single if level else (single + 1) // 2, np.uint8)
        pack.pack_children(tree.level(level), parents, pairs[level], index_of, table, level == 0, symbols, packed)
        raws.append(symbols.tobytes() + packed.tobytes())
    header = _FIXED.pack(
        MAGIC, FORMAT_VERSION, PROFILES["fast"], tree.levels, 8 * tree.mask_dtype.itemsize,
        tree.height, tree.width, len(labels), len(table),
    )  # fmt: skip
    stored = [entropy.compress(raw) for raw in raws]
    header += b"".join(_SECTION.pack(stage, len(s), google_crc32c.value(s)) for stage, s in stored)
    return header + _CRC.pack(google_crc32c.value(header)) + b"".join(s for _, s in stored)


def _paired_by_symbol(tree: LinearQuadtree, pairs: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the sorted pairs that are written as a symbol: those whose parent has no pair to inherit."""
    named = [pairs[-1]]
    for level in range(tree.levels - 2, 0, -1):
        parent_multi = np.repeat(pairs[level + 1] == pack.MULTI, 4)
        named.append(pairs[level][parent_multi[tree.level(level) == COMPOSITE]])
    table = np.unique(np.concatenate(named))
    pairs_only: NDArray[np.int64] = table[table != pack.MULTI]
    return pairs_only


def read_header(record: bytes) -> Header:
    """Return the header of a record, from any prefix that holds it whole.

    Raises
    ------
    UnsupportedVersionError : the record's format version is newer than this software.
    CorruptRecordError : the bytes are no header, or contradict their checksum.
    """
    if len(record) < _FIXED.size:
        raise CorruptRecordError(f"record holds {len(record)} bytes, expected a header of {_FIXED.size} at least")
    magic, version, profile, levels, bits, height, width, num_labels, num_pairs = _FIXED.unpack_from(record)
    if magic != MAGIC:
        raise CorruptRecordError(f"record starts with {magic!r}, expected {MAGIC!r}. It is not a quadcodec record")
    if version != FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"record has format version {version}, this software reads {FORMAT_VERSION}. Update quadcodec"
        )
    if not MIN_LEVELS <= levels <= MAX_LEVELS:
        raise CorruptRecordError(f"header gives {levels} levels, expected {MIN_LEVELS}..{MAX_LEVELS}")
    end = _FIXED.size + (levels + 1) * _SECTION.size
    if len(record) < end + _CRC.size:
        raise CorruptRecordError(f"record holds {len(record)} bytes, expected a header of {end + _CRC.size}")
    if _CRC.unpack_from(record, end)[0] != google_crc32c.value(record[:end]):
        raise CorruptRecordError("header contradicts its checksum")
    size = 1 << (levels - 1)
    canvas = (-(-height // size) * size) * (-(-width // size) * size)
    pair_bound = num_labels * (num_labels - 1) // 2
    if (
        profile not in PROFILES.values() or bits not in (8, 16) or not min(height, width) >= 1
        or max(height, width) > MAX_SIDE or canvas > MAX_PIXELS
        or not 1 <= num_labels <= 1 << bits or num_pairs > min(pair_bound, canvas)
    ):  # fmt: skip
        raise CorruptRecordError(
            f"header gives profile {profile}, {bits} bits, {height} x {width} pixels, {num_labels} labels, "
            f"{num_pairs} pairs, which no encoder writes"
        )
    sections = []
    offset = end + _CRC.size
    for k in range(levels + 1):
        stage, nbytes, crc = _SECTION.unpack_from(record, _FIXED.size + k * _SECTION.size)
        sections.append(Section(stage, offset, nbytes, crc))
        offset += nbytes
    return Header(
        profile,
        levels,
        bits,
        height,
        width,
        num_labels,
        num_pairs,
        sections[0],
        tuple(reversed(sections[1:])),
    )


def _read_section(record: bytes, section: Section, name: str, raw_size: int) -> bytes:
    stored = record[section.offset : section.offset + section.nbytes]
    if len(stored) != section.nbytes:
        raise CorruptRecordError(f"{name}: record ends after {len(stored)} of {section.nbytes} bytes")
    if google_crc32c.value(stored) != section.crc:
        raise CorruptRecordError(f"{name} contradicts its checksum")
    try:
        return entropy.decompress(section.stage, stored, raw_size)
    except FormatError as error:
        raise CorruptRecordError(f"{name}: {error}") from error


def decode_tree(record: bytes, *, level: int = 0) -> LinearQuadtree:
    """Return the tree of a record; with ``level`` > 0 only from that level up, read from a prefix.

    The finer levels of such a tree are empty: it gives T_level and coarser ones.

    Raises
    ------
    CorruptRecordError, UnsupportedVersionError : as `read_header`, and for every section that is read.
    ValueError : the record has no such level.
    """
    header = read_header(record)
    if not 0 <= level < header.levels:
        raise ValueError(f"level is {level}, expected 0..{header.levels - 1}")
    labels, pairs = _read_tables(record, header)
    size = 1 << (header.levels - 1)
    rows, cols = -(-header.height // size), -(-header.width // size)
    symbol_dtype, pixel_dtype = header.symbol_dtype, _smallest(header.num_labels - 1)

    parts: list[NDArray[Any]] = []
    kinds, border = np.empty(0, np.int32), np.empty((0, 3), np.int32)
    for at in range(header.levels - 1, level - 1, -1):
        top = at == header.levels - 1
        parents = kinds
        multi = int(np.count_nonzero(parents == pack.MULTI))
        num_symbols = rows * cols if top else 4 * multi
        single = len(parents) - multi
        num_packed = single if at else (single + 1) // 2
        dtype = symbol_dtype if at else pixel_dtype
        raw = _read_section(record, header.sections[at], f"level {at}", num_symbols * dtype.itemsize + num_packed)
        symbols = np.frombuffer(raw, dtype, num_symbols)
        packed = np.frombuffer(raw, np.uint8, num_packed, num_symbols * dtype.itemsize)
        nodes = np.empty(rows * cols if top else 4 * len(parents), labels.dtype)
        kinds = np.empty(len(nodes) if at else 0, np.int32)
        if top:
            above, border = border, np.empty((rows + cols, 3), np.int32)
            status, c, b = pack.unpack_top(
                symbols, cols, at, header.height, header.width, labels, len(pairs), nodes, kinds, border
            )
        else:
            above, border = border, np.empty((4 * len(border), 3), np.int32)
            status, c, b = pack.unpack_children(
                symbols,
                packed,
                parents,
                above,
                at,
                header.height,
                header.width,
                labels,
                pairs,
                nodes,
                kinds,
                border,
            )
        if status != pack.OK:
            raise CorruptRecordError(f"level {at}: {_PROBLEMS[status]}")
        kinds, border = kinds[:c], border[:b]
        parts.append(nodes)
    counts = (0,) * level + tuple(len(part) for part in reversed(parts))
    return LinearQuadtree(np.concatenate(parts), counts, header.height, header.width)


_PROBLEMS = {
    pack.BAD_SYMBOL: "a symbol is larger than labels and pairs allow",
    pack.BAD_TRITS: "a byte of four trits is larger than 80",
    pack.BAD_BITS: "the unused bits of the last byte are not zero",
    pack.BAD_OUTSIDE: "a cell outside the image is composite",
}


def _read_tables(record: bytes, header: Header) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the class ids as node values and the (num_pairs, 2) label indices of each pair."""
    pair_dtype = _smallest(header.num_labels - 1)
    split = header.num_labels * header.mask_dtype.itemsize
    raw = _read_section(record, header.tables, "class tables", split + 2 * header.num_pairs * pair_dtype.itemsize)
    labels = np.frombuffer(raw, header.mask_dtype.newbyteorder("<"), header.num_labels)
    pairs = np.frombuffer(raw, pair_dtype, 2 * header.num_pairs, split).reshape(-1, 2)
    if (pairs[:, 0] >= pairs[:, 1]).any() or (pairs >= header.num_labels).any():
        raise CorruptRecordError("class tables: a pair is not two label indices in rising order")
    return labels.astype(np.int16 if header.bits == 8 else np.int32), pairs


def decode(record: bytes, *, level: int = 0, region: tuple[int, int, int, int] | None = None) -> NDArray[Any]:
    """Return the mask of a record, a coarser level of it, or a part.

    Parameters
    ----------
    record : bytes that `encode` gave; for ``level`` > 0 a prefix up to that level is enough.
    level : 0 for the (H, W) uint8 or uint16 mask; l > 0 for T_l, int16 or int32.
    region : (y0, x0, h, w) in pixels: the cells of the level that touch it.

    Raises
    ------
    CorruptRecordError, UnsupportedVersionError : as `decode_tree`.
    ValueError : the level does not exist, or the region leaves the image.
    """
    return decode_tree(record, level=level).to_level(level, region)
