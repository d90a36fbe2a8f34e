"""The small profile: a mask <-> a payload of independent tiles, chain-coded (docs/small.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import entropy
from .errors import CorruptRecordError, FormatError
from .kernels.merge import merge_2x2
from .kernels.rangecoder import HEAD
from .kernels.tile import decode_tiles, encode_tile
from .pyramid import MAX_LEVELS, MIN_LEVELS, TPyramid, check_mask, node_dtype
from .tables import Tables, shipped

__all__ = ["Head", "Tile", "decode", "decode_pyramid", "encode", "payload_bytes", "read_head", "tile_grid"]

MIN_TILE = 64
LISTED, BITMAP, IDENTITY = 0, 1, 2
"""How the ids of a mask are told: as gaps, as one bit an id, or not at all: labels are ids then."""
SHIPPED_TABLES, OWN_TABLES = 0, 15
CHAIN, PLAIN = 0, 1
SHORT_STREAM = 1024
"""Streams below this length have a 16-bit checksum: 32 bits would be 4 % of a typical 256 x 256 tile."""


class Tile(NamedTuple):
    """Say where a tile's stream lies; a ``mode`` of None is a tile of one label, ``label``."""

    mode: int | None
    label: int
    offset: int
    nbytes: int
    checksum: int


_Placed = tuple[Tile, tuple[int, int, int, int]]
"""A tile and its place: (y, x, height, width)."""


@dataclass(frozen=True)
class Head:
    """Describe what stands before the streams of a payload.

    Attributes
    ----------
    side : of the tiles, in pixels; 0 for one tile.
    palette_kind : LISTED, BITMAP or IDENTITY.
    palette : the ids that labels count.
    palette_bytes : length of what tells them.
    own_tables : checksum of the tables that the payload needs; None for those of the package.
    nbytes : length of the payload.
    """

    side: int
    palette_kind: int
    palette: NDArray[Any]
    palette_bytes: int
    own_tables: int | None
    tiles: list[Tile]
    nbytes: int

    @property
    def head_bytes(self) -> int:
        """Length of the head itself, its checksum included."""
        return self.tiles[0].offset if self.tiles else self.nbytes


def encode(mask: ArrayLike, *, tile: int | None = 512, tables: Tables | None = None) -> bytes:
    """Return the payload of a mask.

    Parameters
    ----------
    mask : (H, W) uint8 or uint16 class or instance ids.
    tile : side of the tiles, 64 or more; None for one tile, smallest and slowest to read a region of.
    tables : those of a store, which a reader must have too; None for those of the package.

    Raises
    ------
    MaskError : the array is not such a mask.
    ValueError : ``tile`` is too small.
    """
    mask = check_mask(mask)
    if tile is not None and tile < MIN_TILE:
        raise ValueError(f"tile is {tile}, expected {MIN_TILE} or more, or None")
    height, width = mask.shape
    side = 0 if tile is None or tile >= max(height, width) else tile
    kind, palette, told = _choose_palette(mask)
    index_of = np.zeros(1 << 8 * mask.itemsize, np.int32)
    index_of[palette] = np.arange(len(palette), dtype=np.int32)
    start = tables or shipped()

    head = bytearray([kind | (OWN_TABLES if tables else SHIPPED_TABLES) << 4])
    _put_varint(head, side)
    if tables:
        head += tables.crc.to_bytes(4, "little")
    head += told
    streams = []
    if len(palette) > 1:
        flat = mask.reshape(-1)
        for y0, x0, h, w in tile_grid(height, width, side):
            part = mask[y0 : y0 + h, x0 : x0 + w]
            if (part == part[0, 0]).all():
                _put_varint(head, 0)
                _put_varint(head, int(index_of[part[0, 0]]))
                continue
            mode, stream = _encode_tile(flat, y0 * width + x0, width, part, index_of, len(palette), start)
            _put_varint(head, 2 * len(stream) + mode)
            head += _checksum(stream).to_bytes(_checksum_bytes(len(stream)), "little")
            streams.append(stream)
    head += google_crc32c.value(bytes(head)).to_bytes(4, "little")
    return bytes(head) + b"".join(streams)


def _choose_palette(mask: NDArray[Any]) -> tuple[int, NDArray[Any], bytes]:
    """Return (kind, ids that labels count, the bytes that tell them): the shortest, none if all are long."""
    present = np.zeros(1 << 8 * mask.itemsize, np.bool_)
    present[mask.reshape(-1)] = True
    palette = np.flatnonzero(present)
    listed = bytearray()
    _put_varint(listed, len(palette) - 1)
    for gap in np.diff(palette, prepend=-1):
        _put_varint(listed, int(gap) - 1)
    bits = np.packbits(present[: palette[-1] + 1], bitorder="little").tobytes()
    bitmap = bytearray()
    _put_varint(bitmap, len(bits) - 1)
    bitmap += bits
    kind, told = (LISTED, listed) if len(listed) <= len(bitmap) else (BITMAP, bitmap)
    if len(told) <= 16 + mask.nbytes // 128:
        return kind, palette, bytes(told)
    return IDENTITY, np.arange(len(present)), b""


def _encode_tile(
    flat: NDArray[Any],
    at: int,
    stride: int,
    part: NDArray[Any],
    index_of: NDArray[np.int32],
    num_labels: int,
    tables: Tables,
) -> tuple[int, bytes]:
    """Return (mode, stream): chains, or where they are longer plain pixels, perhaps through zstd."""
    height, width = part.shape
    out = np.empty(part.nbytes + 128, np.uint8)
    end = encode_tile(
        flat,
        at,
        stride,
        height,
        width,
        index_of,
        num_labels,
        tables.states.copy(),
        tables.weights.copy(),
        out,
    )
    # A stream of no bytes would read as a tile of one label; zeros at the end mean nothing.
    chain = (out[HEAD:end].tobytes() or b"\0") if end >= 0 else None
    if chain is not None and 8 * len(chain) <= part.size:
        return CHAIN, chain
    ids = part.astype(part.dtype.newbyteorder("<"))
    stage, stored = entropy.compress(ids.tobytes())
    plain = bytes([stage]) + stored
    return (CHAIN, chain) if chain is not None and len(chain) <= len(plain) else (PLAIN, plain)


def decode(
    payload: bytes,
    height: int,
    width: int,
    dtype: DTypeLike,
    *,
    region: tuple[int, int, int, int] | None = None,
    tables: Tables | None = None,
) -> NDArray[Any]:
    """Return the mask of a payload, or a part of it, for which only the tiles it touches are read.

    Parameters
    ----------
    payload : bytes that `encode` gave.
    height, width, dtype : shape and type (uint8 or uint16) of the mask.
    region : (y0, x0, h, w) in pixels.
    tables : those that `encode` was given.

    Raises
    ------
    CorruptRecordError : the bytes contradict their checksums or the format.
    FormatError : the payload needs other tables.
    ValueError : the region is empty or leaves the mask.
    """
    mask_dtype = np.dtype(dtype)
    top, left, rows, cols = region if region is not None else (0, 0, height, width)
    if top < 0 or left < 0 or rows < 1 or cols < 1 or top + rows > height or left + cols > width:
        raise ValueError(f"region {(top, left, rows, cols)} leaves the mask of {height} x {width} pixels")
    head = read_head(payload, height, width, mask_dtype)
    start = _start_of(head, tables)
    out = np.empty((rows, cols), mask_dtype)
    no_cells = np.empty((0, 0), node_dtype(mask_dtype))
    if len(head.palette) == 1:
        out[:] = head.palette[0]
        return out
    whole: list[_Placed] = []
    for tile, (y0, x0, h, w) in zip(head.tiles, tile_grid(height, width, head.side), strict=True):
        y1, x1 = max(y0, top), max(x0, left)
        y2, x2 = min(y0 + h, top + rows), min(x0 + w, left + cols)
        if y1 >= y2 or x1 >= x2:
            continue
        if (y2 - y1, x2 - x1) == (h, w) or tile.mode is None:
            whole.append((tile, (y1 - top, x1 - left, y2 - y1, x2 - x1)))
        else:
            part = np.empty((h, w), mask_dtype)
            _decode_tiles(payload, [(tile, (0, 0, h, w))], head.palette, start, part, no_cells)
            out[y1 - top : y2 - top, x1 - left : x2 - left] = part[y1 - y0 : y2 - y0, x1 - x0 : x2 - x0]
    _decode_tiles(payload, whole, head.palette, start, out, no_cells)
    return out


def payload_bytes(payload: bytes, height: int, width: int, dtype: DTypeLike, *, tables: Tables | None = None) -> int:
    """Return the length of a whole payload, as its head gives it; errors as `decode`."""
    head = read_head(payload, height, width, np.dtype(dtype))
    _start_of(head, tables)
    return head.nbytes


def decode_pyramid(
    payload: bytes,
    height: int,
    width: int,
    dtype: DTypeLike,
    levels: int = 6,
    *,
    tables: Tables | None = None,
) -> TPyramid:
    """Return all levels of a payload's mask; T_1 comes from the edges, which are at hand.

    Parameters and errors as `decode`; ``levels`` as `TPyramid.from_mask`.
    """
    mask_dtype = np.dtype(dtype)
    if not MIN_LEVELS <= levels <= MAX_LEVELS:
        raise ValueError(f"levels is {levels}, expected {MIN_LEVELS}..{MAX_LEVELS}")
    head = read_head(payload, height, width, mask_dtype)
    if head.side % 2 or len(head.palette) == 1:  # cells of T_1 would lie across tiles, or nothing is coded
        return TPyramid.from_mask(decode(payload, height, width, dtype, tables=tables), levels)
    start = _start_of(head, tables)
    mask = np.empty((height, width), mask_dtype)
    cells = np.empty((-(-height // 2), -(-width // 2)), node_dtype(mask_dtype))
    tiles = list(zip(head.tiles, tile_grid(height, width, head.side), strict=True))
    _decode_tiles(payload, tiles, head.palette, start, mask, cells)
    return TPyramid.from_base(mask, cells, levels)


def _start_of(head: Head, tables: Tables | None) -> Tables:
    """Return the tables that a payload needs."""
    if head.own_tables is None:
        return shipped()
    if tables is None or tables.crc != head.own_tables:
        found = "none were given" if tables is None else f"those given have {tables.crc:08x}"
        raise FormatError(
            f"record needs the tables with checksum {head.own_tables:08x}, {found}. Give those of its store"
        )
    return tables


def _decode_tiles(
    payload: bytes, tiles: list[_Placed], palette: NDArray[Any], tables: Tables, out: NDArray[Any], cells: NDArray[Any]
) -> None:
    """Read tiles into ``out``, and their T_1 into ``cells``, where that is not empty."""
    jobs = []
    for tile, (y, x, height, width) in tiles:
        if tile.mode is None:
            out[y : y + height, x : x + width] = palette[tile.label]
            cells[y // 2 : (y + height + 1) // 2, x // 2 : (x + width + 1) // 2] = palette[tile.label]
            continue
        stream = payload[tile.offset : tile.offset + tile.nbytes]
        if len(stream) != tile.nbytes:
            raise CorruptRecordError(f"tile: record ends after {len(stream)} of {tile.nbytes} bytes")
        if _checksum(stream) != tile.checksum:
            raise CorruptRecordError("tile contradicts its checksum")
        if tile.mode == CHAIN:
            jobs.append((tile.offset, tile.nbytes, y, x, height, width))
            continue
        raw = entropy.decompress(stream[0], stream[1:], height * width * out.itemsize)
        target = out[y : y + height, x : x + width]
        target[:] = np.frombuffer(raw, out.dtype.newbyteorder("<")).reshape(height, width)
        if cells.size:
            merge_2x2(target, cells[y // 2 : (y + height + 1) // 2, x // 2 : (x + width + 1) // 2], 0, 0)
    if jobs:
        status = decode_tiles(
            np.frombuffer(payload, np.uint8), np.array(jobs), palette, tables.states, tables.weights,
            out.reshape(-1), out.shape[1], cells.reshape(-1), cells.shape[1],
        )  # fmt: skip
        if status:
            raise CorruptRecordError(f"tile: the stream is none that an encoder writes (problem {status})")


def tile_grid(height: int, width: int, side: int) -> list[tuple[int, int, int, int]]:
    """Return (y0, x0, h, w) of the tiles, row by row; a side of 0 is one tile."""
    step_y, step_x = side or height, side or width
    return [
        (y, x, min(step_y, height - y), min(step_x, width - x))
        for y in range(0, height, step_y)
        for x in range(0, width, step_x)
    ]


def read_head(payload: bytes, height: int, width: int, dtype: np.dtype[Any]) -> Head:
    """Return what stands before the streams; never more tiles or labels than the mask allows; errors as `decode`."""
    reader = _Reader(payload)
    flags = reader.take(1)[0]
    if flags & 15 not in (LISTED, BITMAP, IDENTITY) or flags >> 4 not in (SHIPPED_TABLES, OWN_TABLES):
        raise CorruptRecordError(f"head begins with {flags}, which no encoder writes")
    side = reader.varint()
    if 0 < side < MIN_TILE:
        raise CorruptRecordError(f"head gives tiles of {side} pixels, expected {MIN_TILE} or more")
    own_tables = int.from_bytes(reader.take(4), "little") if flags >> 4 == OWN_TABLES else None
    start = reader.at
    palette = _read_palette(reader, flags & 15, dtype)
    palette_bytes = reader.at - start
    num_labels = len(palette)
    entries: list[tuple[int | None, int, int, int]] = []
    step = side or max(height, width)
    count = -(-height // step) * -(-width // step) if num_labels > 1 else 0
    if count > len(payload):
        raise CorruptRecordError(f"record holds {len(payload)} bytes, too few for {count} tiles")
    for _ in range(count):
        value = reader.varint()
        if value < 2:
            entries.append((None, reader.varint() if value == 0 else num_labels, 0, 0))
            if entries[-1][1] >= num_labels:
                raise CorruptRecordError("head gives a tile of a label that is not listed")
            continue
        size = _checksum_bytes(value >> 1)
        entries.append((value & 1, 0, value >> 1, int.from_bytes(reader.take(size), "little")))
    end = reader.at
    if int.from_bytes(reader.take(4), "little") != google_crc32c.value(payload[:end]):
        raise CorruptRecordError("head contradicts its checksum")
    tiles = []
    offset = reader.at
    for mode, label, nbytes, checksum in entries:
        tiles.append(Tile(mode, label, offset, nbytes, checksum))
        offset += nbytes
    if offset > len(payload):
        raise CorruptRecordError(f"record holds {len(payload)} bytes, expected {offset}")
    return Head(side, flags & 15, palette, palette_bytes, own_tables, tiles, offset)


def _read_palette(reader: _Reader, kind: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the ids that labels count, in rising order."""
    limit = 1 << 8 * dtype.itemsize
    if kind == IDENTITY:
        return np.arange(limit).astype(dtype)
    count = reader.varint() + 1
    if count > limit:
        raise CorruptRecordError(f"head gives {count} labels, more than {dtype} holds")
    if kind == LISTED:
        ids = np.cumsum([reader.varint() + 1 for _ in range(count)]) - 1
    else:
        ids = np.flatnonzero(np.unpackbits(np.frombuffer(reader.take(count), np.uint8), bitorder="little"))
    if len(ids) == 0 or ids[-1] >= limit:
        raise CorruptRecordError(f"head gives no label, or one that {dtype} does not hold")
    return ids.astype(dtype)


class _Reader:
    """Read bytes and varints in order."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise CorruptRecordError(f"record ends after {len(self.data)} bytes, inside its head")
        self.at += count
        return part

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise CorruptRecordError("head holds a number of more than five bytes")


def _put_varint(out: bytearray, value: int) -> None:
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _checksum_bytes(nbytes: int) -> int:
    return 2 if nbytes < SHORT_STREAM else 4


def _checksum(stream: bytes) -> int:
    """Return the CRC32C of a stream; of a short one its halves, XORed, which any flip of one bit changes."""
    crc: int = google_crc32c.value(stream)
    return crc if len(stream) >= SHORT_STREAM else crc >> 16 ^ crc & 0xFFFF
