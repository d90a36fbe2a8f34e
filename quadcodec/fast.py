"""The fast profile: a linear quadtree as bytes, level by level, and back (docs/format.md, sections 2 to 4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from . import entropy
from .errors import CorruptRecordError, FormatError, MaskError
from .header import FAST, Header, read_header
from .kernels import pack
from .pyramid import COMPOSITE
from .quadtree import LinearQuadtree

__all__ = ["Layout", "decode", "encode", "read_layout"]

_COUNTS = struct.Struct("<II")  # labels, pairs
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
class Layout:
    """Describe a record of this profile: the class tables, then one section a level, coarse to fine."""

    header: Header
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
    def symbol_dtype(self) -> np.dtype[Any]:
        """Type of a symbol above level 0: the smallest that holds num_labels + num_pairs."""
        return _smallest(self.num_labels + self.num_pairs)


def _smallest(largest: int) -> np.dtype[Any]:
    return np.dtype("<u1" if largest < 1 << 8 else "<u2" if largest < 1 << 16 else "<u4")


def encode(tree: LinearQuadtree) -> bytes:
    """Return the record of a tree whose image is at the origin of its canvas.

    Raises
    ------
    MaskError : the tree splits a uniform cell.
    """
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
        if (pairs[level] < pack.MULTI).any():
            raise MaskError(f"tree: a composite of level {level} holds one class only. Merge it with tree.remap")
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
    bits = 8 * tree.mask_dtype.itemsize
    header = Header(FAST, tree.levels, bits, tree.height, tree.width).to_bytes()
    header += _COUNTS.pack(len(labels), len(table))
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


def read_layout(record: bytes) -> Layout:
    """Return what stands before the sections, from any prefix of a record that holds it whole.

    Raises
    ------
    UnsupportedVersionError : the record's format version is newer than this software.
    CorruptRecordError : the bytes are no such record, or contradict their checksum.
    """
    header = read_header(record)
    start = Header.NBYTES + _COUNTS.size
    end = start + (header.levels + 1) * _SECTION.size
    if len(record) < end + _CRC.size:
        raise CorruptRecordError(f"record holds {len(record)} bytes, expected a header of {end + _CRC.size}")
    if _CRC.unpack_from(record, end)[0] != google_crc32c.value(record[:end]):
        raise CorruptRecordError("header contradicts its checksum")
    num_labels, num_pairs = _COUNTS.unpack_from(record, Header.NBYTES)
    most_pairs = min(num_labels * (num_labels - 1) // 2, header.canvas_pixels)
    if header.profile != FAST or not 1 <= num_labels <= 1 << header.bits or num_pairs > most_pairs:
        raise CorruptRecordError(f"header gives {num_labels} labels and {num_pairs} pairs, which no encoder writes")
    sections = []
    offset = end + _CRC.size
    for k in range(header.levels + 1):
        stage, nbytes, crc = _SECTION.unpack_from(record, start + k * _SECTION.size)
        sections.append(Section(stage, offset, nbytes, crc))
        offset += nbytes
    return Layout(header, num_labels, num_pairs, sections[0], tuple(reversed(sections[1:])))


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


def decode(record: bytes, *, level: int = 0) -> LinearQuadtree:
    """Return the tree of a record; with ``level`` > 0 only from that level up, read from a prefix.

    The finer levels of such a tree are empty: it gives T_level and coarser ones.

    Raises
    ------
    CorruptRecordError, UnsupportedVersionError : as `read_layout`, and for every section that is read.
    """
    layout = read_layout(record)
    header = layout.header
    labels, pairs = _read_tables(record, layout)
    rows, cols = header.grid
    symbol_dtype, pixel_dtype = layout.symbol_dtype, _smallest(layout.num_labels - 1)

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
        raw = _read_section(record, layout.sections[at], f"level {at}", num_symbols * dtype.itemsize + num_packed)
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


def _read_tables(record: bytes, layout: Layout) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the class ids as node values and the (num_pairs, 2) label indices of each pair."""
    mask_dtype = layout.header.mask_dtype
    pair_dtype = _smallest(layout.num_labels - 1)
    split = layout.num_labels * mask_dtype.itemsize
    raw = _read_section(record, layout.tables, "class tables", split + 2 * layout.num_pairs * pair_dtype.itemsize)
    labels = np.frombuffer(raw, mask_dtype.newbyteorder("<"), layout.num_labels)
    pairs = np.frombuffer(raw, pair_dtype, 2 * layout.num_pairs, split).reshape(-1, 2)
    if (pairs[:, 0] >= pairs[:, 1]).any() or (pairs >= layout.num_labels).any():
        raise CorruptRecordError("class tables: a pair is not two label indices in rising order")
    return labels.astype(np.int16 if layout.header.bits == 8 else np.int32), pairs
