"""The fast profile: a linear quadtree as bytes, coarse to fine, and back (docs/format.md, sections 2 to 4)."""

from __future__ import annotations

import struct
from itertools import accumulate
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from . import entropy
from .errors import CorruptRecordError, FormatError, MaskError
from .header import FAST, HEADER_NBYTES, Header, read_header
from .kernels import codes, pack, unpack
from .kernels.pack import MULTI
from .kernels.unpack import COARSE, Shape
from .pyramid import COMPOSITE
from .quadtree import LinearQuadtree

__all__ = ["Layout", "decode", "encode", "read_layout"]

_CRC = struct.Struct("<I")
_VARINT_BYTES = 5


class Section(NamedTuple):
    """Describe one part of a record that can be read alone, and is followed by its checksum unless empty."""

    stage: int
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """Offset of what follows its checksum."""
        return self.offset + self.nbytes + (_CRC.size if self.nbytes else 0)


class Layout(NamedTuple):
    """Describe a record of this profile: the coarse section with the class tables, then one section a level."""

    header: Header
    num_labels: int
    num_pairs: int
    sections: tuple[Section, ...]
    """Coarse to fine; the last one is that of level 0."""

    @property
    def nbytes(self) -> int:
        """Length of the whole record."""
        return self.sections[-1].end

    def needed(self, level: int) -> tuple[Section, ...]:
        """Return the sections that `level` and all coarser ones are read from."""
        return self.sections[: max(1, len(self.sections) - level)]

    @property
    def shape(self) -> Shape:
        """What the kernels are told of the record."""
        header = self.header
        return Shape(
            header.levels, header.height, header.width, self.num_labels, self.num_pairs, header.bits // 8,
            _width(self.num_labels - 1), _width(self.num_labels + self.num_pairs),
        )  # fmt: skip


def _width(largest: int) -> int:
    """Return the bytes of a number: the smallest of 1, 2 and 4 that hold the largest one."""
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4


def encode(tree: LinearQuadtree, *, compress: bool = True) -> bytes:
    """Return the record of a tree whose image is at the origin of its canvas.

    Without ``compress`` every section is stored as it is.

    Raises
    ------
    MaskError : the tree splits a uniform cell.
    """
    packed = pack_sections(tree)
    header = Header(FAST, tree.levels, 8 * tree.mask_dtype.itemsize, tree.height, tree.width)
    stored = [entropy.compress(raw) if compress else (entropy.STORED, raw) for raw in packed.sections]
    head = header.to_bytes() + _varint(packed.num_labels) + _varint(packed.num_pairs)
    head += b"".join(_varint(2 * len(data) + stage) for stage, data in stored)
    return b"".join((head, _checksum(head), *(data + _checksum(data) for _, data in stored if data)))


class Packed(NamedTuple):
    """Hold a tree as sections before the entropy stage."""

    num_labels: int
    num_pairs: int
    multis: tuple[int, ...]
    """Number of multi composites of each level from 1 on, coarse to fine."""
    sections: tuple[bytes, ...]


def pack_sections(tree: LinearQuadtree) -> Packed:
    """Return the sections of a tree, wherever its image lies on the canvas.

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
        if (pairs[level] < MULTI).any():
            raise MaskError(f"tree: a composite of level {level} holds one class only. Merge it with tree.remap")
    table = _paired_by_symbol(tree, pairs)
    index_type, symbol_type = (f"<u{_width(n)}" for n in (len(labels) - 1, len(labels) + len(table)))

    halves = np.stack((table >> 32, table & 0xFFFFFFFF), axis=1).astype(index_type)
    symbols = np.empty(tree.counts[top], np.uint32)
    pack.pack_symbols(tree.level(top), pairs[top], index_of, table, symbols)
    coarse = [labels.astype(tree.mask_dtype.newbyteorder("<")), halves, symbols.astype(symbol_type)]
    sections = [coarse]
    multis = []
    contexts = np.full(len(pairs[top]), codes.ALONE, np.uint8)
    for level in range(top - 1, -1, -1):
        parents, parent_contexts = pairs[level + 1], contexts
        multis.append(int(np.count_nonzero(parents == MULTI)))
        symbols = np.empty(4 * multis[-1], np.uint32)
        single = len(parents) - multis[-1]
        packed = np.zeros(single if level else (single + 1) // 2, np.uint8)
        if level == 0:
            pack.pack_pixels(tree.level(0), parents, parent_contexts, index_of, symbols, packed)
        else:
            contexts = np.empty(len(pairs[level]), np.uint8)
            pack.pack_children(
                tree.level(level), parents, parent_contexts, pairs[level], index_of, table, symbols, packed, contexts
            )
        if level < COARSE:
            sections.append([])
        sections[-1] += [symbols.astype(symbol_type if level else index_type), packed]
    joined = tuple(b"".join(part.tobytes() for part in section) for section in sections)
    return Packed(len(labels), len(table), tuple(multis), joined)


def _paired_by_symbol(tree: LinearQuadtree, pairs: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the sorted pairs that are written as a symbol: those whose parent has no pair to inherit."""
    named = [pairs[-1]]
    for level in range(tree.levels - 2, 0, -1):
        parent_multi = np.repeat(pairs[level + 1] == MULTI, 4)
        named.append(pairs[level][parent_multi[tree.level(level) == COMPOSITE]])
    table = np.unique(np.concatenate(named))
    pairs_only: NDArray[np.int64] = table[table != MULTI]
    return pairs_only


def _varint(value: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first; all bytes but the last have their top bit set."""
    groups = bytearray()
    while value > 127:
        groups.append(128 | value & 127)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _read_varints(data: bytes, start: int, count: int) -> tuple[list[int], int]:
    """Return ``count`` numbers from ``data[start]`` on, and where they end."""
    numbers = []
    value = shift = 0
    for i, byte in enumerate(data[start : start + count * _VARINT_BYTES]):
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(value)
            value = shift = 0
            if len(numbers) == count:
                return numbers, start + i + 1
        elif shift == 7 * _VARINT_BYTES:
            break
    raise CorruptRecordError(f"record holds {len(data)} bytes, which end in its header or contradict it")


def _checksum(data: bytes) -> bytes:
    crc: bytes = _CRC.pack(google_crc32c.value(data))
    return crc


def read_layout(record: bytes) -> Layout:
    """Return what stands before the sections, from any prefix of a record that holds it whole.

    Raises
    ------
    UnsupportedVersionError : the record's format version is newer than this software.
    CorruptRecordError : the bytes are no such record, or contradict their checksum.
    """
    header = read_header(record)
    numbers, at = _read_varints(record, HEADER_NBYTES, 3 + min(COARSE, header.levels - 1))
    if record[at : at + _CRC.size] != _checksum(record[:at]):
        raise CorruptRecordError("header contradicts its checksum")
    num_labels, num_pairs, *lengths = numbers
    most_pairs = min(num_labels * (num_labels - 1) // 2, header.canvas_pixels // 3)  # cells above level 0
    if header.profile != FAST or not 1 <= num_labels <= 1 << header.bits or num_pairs > most_pairs:
        raise CorruptRecordError(f"header gives {num_labels} labels and {num_pairs} pairs, which no encoder writes")
    sections = []
    at += _CRC.size
    for length in lengths:
        sections.append(Section(length & 1, at, length >> 1))
        at = sections[-1].end
    return Layout(header, num_labels, num_pairs, tuple(sections))


def read_sections(record: bytes, layout: Layout, level: int = 0) -> list[bytes]:
    """Return the sections that ``level`` and coarser ones need, without their entropy stage.

    Raises
    ------
    CorruptRecordError : a section is cut off, contradicts its checksum, or is longer than its levels can be.
    """
    header, shape = layout.header, layout.shape
    raws: list[bytes] = []
    for k, section in enumerate(layout.needed(level)):
        finest = len(layout.sections) - 1 - k
        name = f"level {finest}" if k else "coarse levels"
        stored = record[section.offset : section.offset + section.nbytes]
        if len(record) < section.end:
            raise CorruptRecordError(
                f"{name}: record ends after {len(record) - section.offset} of {section.nbytes} bytes"
            )
        if section.nbytes and record[section.offset + section.nbytes : section.end] != _checksum(stored):
            raise CorruptRecordError(f"{name} contradicts its checksum")
        # Nodes take most as symbols of their own, pixels as label indices.
        levels = range(finest, header.levels if k == 0 else finest + 1)
        most = sum(header.most_nodes(n) * (shape.symbol_width if n else shape.index_width) for n in levels)
        if k == 0:
            most += shape.num_labels * shape.id_width + 2 * shape.num_pairs * shape.index_width
        else:  # a byte tells four composites at most, and each of them has four children
            most = min(most, 16 * shape.symbol_width * len(raws[-1]))
        try:
            size = entropy.raw_size(section.stage, stored)
            if size > most:
                raise CorruptRecordError(f"section declares {size} bytes, expected {most} at most")
            raws.append(entropy.decompress(section.stage, stored, size))
        except FormatError as error:
            raise CorruptRecordError(f"{name}: {error}") from error
    return raws


def decode(record: bytes, *, level: int = 0) -> LinearQuadtree:
    """Return the tree of a record; with ``level`` > 0 only from that level up, read from a prefix.

    The finer levels of such a tree are empty: it gives T_level and coarser ones.

    Raises
    ------
    CorruptRecordError, UnsupportedVersionError : as `read_layout`, and for every section that is read.
    """
    layout = read_layout(record)
    header = layout.header
    raws = read_sections(record, layout, level)
    ends = list(accumulate(map(len, raws)))
    bytes_hold = 4 * ends[-1] + (0 if level else 4 * len(raws[-1]))
    capacity = min(bytes_hold, sum(header.most_nodes(n) for n in range(level, header.levels)))
    nodes = np.empty(capacity, np.int16 if header.bits == 8 else np.int32)
    counts = np.zeros(header.levels, np.int64)
    data = np.frombuffer(b"".join(raws), np.uint8)
    status, where = unpack.unpack(data, np.array(ends), level, layout.shape, nodes, counts)
    if status != unpack.OK:
        name = f"level {where}" if where >= 0 else "class tables"
        raise CorruptRecordError(f"{name}: {_PROBLEMS[status]}")
    sizes = tuple(counts.tolist())
    return LinearQuadtree(nodes[: sum(sizes)], sizes, header.height, header.width)


_PROBLEMS = {
    unpack.BAD_LENGTH: "the section has another length than its content",
    unpack.BAD_PAIR: "a pair is not two label indices in rising order",
    unpack.BAD_SYMBOL: "a symbol is larger than labels and pairs allow",
    unpack.BAD_PLACE: "the place of a code is larger than 80",
    unpack.BAD_BITS: "the unused bits of the last byte are not zero",
    unpack.BAD_OUTSIDE: "a cell outside the image is composite",
}
