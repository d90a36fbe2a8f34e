"""A slow codec in plain Python, written from docs/format.md and from nothing else."""

import re
import struct
from pathlib import Path

import zstandard

PAGE = Path(__file__).parents[1] / "docs" / "format.md"
COMPOSITE, OUTSIDE = -1, -2
CHILDREN = ((0, 0), (0, 1), (1, 0), (1, 1))


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def cell_value(mask, level, y, x):
    """Section 1: OUTSIDE, a class, or COMPOSITE, from the pixels of the cell inside the image."""
    size = 1 << level
    rows = mask[y * size : (y + 1) * size]
    values = {int(v) for row in rows for v in row[x * size : (x + 1) * size]}
    if not values:
        return OUTSIDE
    return values.pop() if len(values) == 1 else COMPOSITE


def build(mask, levels):
    """Section 1: return the nodes of each level as [(y, x, value)], indexed by level."""
    size = 1 << (levels - 1)
    rows, cols = -(-len(mask) // size), -(-len(mask[0]) // size)
    cells = [(y, x) for y in range(rows) for x in range(cols)]
    nodes = [None] * levels
    for level in range(levels - 1, -1, -1):
        nodes[level] = [(y, x, cell_value(mask, level, y, x)) for y, x in cells]
        cells = [(2 * y + dy, 2 * x + dx) for y, x, v in nodes[level] if v == COMPOSITE for dy, dx in CHILDREN]
    return nodes


def smallest(largest):
    return 1 if largest < 256 else 2 if largest < 65536 else 4


def numbers(data, width):
    return [int.from_bytes(data[i : i + width], "little") for i in range(0, len(data), width)]


def read_orders():
    """Section 4: return the orders of codes by their two states, from the page itself."""
    block = re.search(r"```\n(\(0, 0\).*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    parts = re.findall(r"\((\d), (\d)\)\n([0-9a-f\n]+)", block.group(1))
    return {(int(a), int(b)): list(bytes.fromhex(text)) for a, b, text in parts}


ORDERS = read_orders()


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def read_sections(record):
    """Sections 2 and 3: return (levels, bits, height, width, K, P, raw sections)."""
    magic, version, profile, levels, bits, height, width = struct.unpack_from("<4s4B2I", record)
    assert (magic, version, profile) == (b"QDTR", 1, 0)
    numbers, at = [], 16
    for _ in range(2 + min(3, levels - 1) + 1):
        value, at = read_varint(record, at)
        numbers.append(value)
    assert struct.unpack_from("<I", record, at)[0] == crc32c(record[:at])
    at += 4
    assert at <= 50
    sections = []
    for number in numbers[2:]:
        length, stage = number // 2, number % 2
        stored = record[at : at + length]
        at += length
        if length:
            assert struct.unpack_from("<I", record, at)[0] == crc32c(stored)
            at += 4
        sections.append(zstandard.ZstdDecompressor().decompress(stored) if stage == 1 else stored)
    assert at == len(record)
    return levels, bits, height, width, *numbers[:2], sections


class Bytes:
    """Bytes that are read from the front."""

    def __init__(self, data):
        self.data = data

    def take(self, count, width=1):
        part, self.data = self.data[: count * width], self.data[count * width :]
        assert len(part) == count * width
        return numbers(part, width)


def decode(record):
    """Section 4: return (nodes by level as values, mask as lists)."""
    levels, bits, height, width, num_labels, num_pairs, sections = read_sections(record)
    id_width, index_width = bits // 8, smallest(num_labels - 1)
    symbol_width = smallest(num_labels + num_pairs)
    streams = [Bytes(section) for section in sections]
    labels = streams[0].take(num_labels, id_width)
    flat = streams[0].take(2 * num_pairs, index_width)
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    assert pairs == sorted(set(pairs))

    size = 1 << (levels - 1)
    rows, cols = -(-height // size), -(-width // size)
    groups = [[symbol] for symbol in streams[0].take(rows * cols, symbol_width)]
    places = [[divmod(i, cols)] for i in range(rows * cols)]
    kinds, nodes, composites = [None] * len(groups), {}, []
    mask = [[None] * width for _ in range(height)]
    for level in range(levels - 1, -1, -1):
        if level < levels - 1:
            stream = streams[max(0, min(3, levels - 1) - level)]
            groups = read_level(stream, composites, level, symbol_width if level else index_width)
            places = [[(2 * y + dy, 2 * x + dx) for dy, dx in CHILDREN] for y, x, *_ in composites]
            kinds = [kind for _, _, kind, *_ in composites]
        cells, composites = [], []
        for group, kind, place in zip(groups, kinds, places, strict=True):
            for j, (symbol, (y, x)) in enumerate(zip(group, place, strict=True)):
                if symbol == COMPOSITE:
                    child_kind = kind
                elif symbol >= num_labels:
                    child_kind = pairs[symbol - num_labels] if symbol < num_labels + num_pairs else "multi"
                else:
                    child_kind = None
                value = COMPOSITE if child_kind else labels[symbol]
                if y << level >= height or x << level >= width:
                    assert value != COMPOSITE
                    value = OUTSIDE
                cells.append((y, x, value))
                if value == COMPOSITE:
                    composites.append((y, x, child_kind, j if len(group) == 4 else 0, group))
        nodes[level] = [value for _, _, value in cells]
        paint(mask, cells, level)
    assert not any(stream.data for stream in streams)
    return nodes, mask


def read_level(stream, composites, level, width):
    """Return the four children of each composite: label indices, symbols, or COMPOSITE of the same pair."""
    multi = sum(kind == "multi" for _, _, kind, *_ in composites)
    symbols = iter(stream.take(4 * multi, width))
    single = len(composites) - multi
    packed = stream.take(single if level else (single + 1) // 2)
    if level == 0:
        packed = [half for byte in packed for half in (byte & 15, byte >> 4)]
        assert not any(packed[single:])
    items = iter(packed)
    groups = []
    for _, _, kind, own, siblings in composites:
        if kind == "multi":
            groups.append([next(symbols) for _ in range(4)])
            continue
        a, b = 2, 2
        if len(siblings) == 4:
            a, b = (kind.index(siblings[own ^ k]) if siblings[own ^ k] in kind else 2 for k in (1, 2))
        digits = digits_at(next(items), own, a, b, level)
        groups.append([COMPOSITE if digit == 2 else kind[digit] for digit in digits])
    return groups


def digits_at(place, own, a, b, level):
    """Codes and places, steps 1 to 5, backwards."""
    exchange = a == 1 or (a == 2 and b == 1)
    other = {0: 1, 1: 0, 2: 2}
    if exchange:
        a, b = other[a], other[b]
    mirror = a == 2 and b == 0
    if mirror:
        a, b = b, a
    order = ORDERS[a, b]
    if level == 0:
        order = [code for code in order if all(code // 3**j % 3 < 2 for j in range(4))]
    e = [order[place] // 3**j % 3 for j in range(4)]
    if mirror:
        e[1], e[2] = e[2], e[1]
    if exchange:
        e = [other[digit] for digit in e]
    return [e[j ^ own] for j in range(4)]


def paint(mask, cells, level):
    size = 1 << level
    for y, x, value in cells:
        if value < 0:
            continue
        for row in mask[y * size : (y + 1) * size]:
            for at in range(x * size, min((x + 1) * size, len(row))):
                row[at] = value
