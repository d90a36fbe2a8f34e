"""A slow codec in plain Python, written from docs/format.md and from nothing else."""

import struct

import zstandard

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


def read_sections(record):
    """Sections 2 and 3: return (levels, bits, height, width, K, P, stored sections)."""
    magic, version, profile, levels, bits, height, width, num_labels, num_pairs = struct.unpack_from("<4s4B4I", record)
    assert (magic, version, profile) == (b"QDTR", 0, 0)
    end = 24 + 9 * (levels + 1)
    assert struct.unpack_from("<I", record, end)[0] == crc32c(record[:end])
    at = end + 4
    sections = []
    for i in range(levels + 1):
        stage, length, crc = struct.unpack_from("<BII", record, 24 + 9 * i)
        stored = record[at : at + length]
        assert crc == crc32c(stored)
        sections.append(zstandard.ZstdDecompressor().decompress(stored) if stage == 1 else stored)
        at += length
    assert at == len(record)
    return levels, bits, height, width, num_labels, num_pairs, sections


def decode(record):
    """Section 4: return (nodes by level as values, mask as lists)."""
    levels, bits, height, width, num_labels, num_pairs, sections = read_sections(record)
    id_width, index_width = bits // 8, smallest(num_labels - 1)
    symbol_width = smallest(num_labels + num_pairs)
    labels = numbers(sections[0][: num_labels * id_width], id_width)
    flat = numbers(sections[0][num_labels * id_width :], index_width)
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    assert len(pairs) == num_pairs
    assert pairs == sorted(set(pairs))

    def node(symbol):
        if symbol < num_labels:
            return labels[symbol], None
        return COMPOSITE, (pairs[symbol - num_labels] if symbol < num_labels + num_pairs else "multi")

    size = 1 << (levels - 1)
    cols = -(-width // size)
    symbols = numbers(sections[1], symbol_width)
    assert len(symbols) == -(-height // size) * cols
    cells = [(i // cols, i % cols, *node(symbol)) for i, symbol in enumerate(symbols)]
    nodes = {levels - 1: [value for _, _, value, _ in cells]}
    mask = [[None] * width for _ in range(height)]
    paint(mask, cells, levels - 1)
    for level in range(levels - 2, -1, -1):
        parents = [(y, x, kind) for y, x, value, kind in cells if value == COMPOSITE]
        cells = read_level(
            sections[levels - level], parents, level, node, labels, symbol_width if level else index_width
        )
        cells = [
            (y, x, OUTSIDE, None) if y << level >= height or x << level >= width else (y, x, value, kind)
            for y, x, value, kind in cells
        ]
        nodes[level] = [value for _, _, value, _ in cells]
        paint(mask, cells, level)
    return nodes, mask


def read_level(section, parents, level, node, labels, width):
    multi = sum(kind == "multi" for _, _, kind in parents)
    symbols = iter(numbers(section[: 4 * multi * width], width))
    packed = list(section[4 * multi * width :])
    if level == 0:
        packed = [half for byte in packed for half in (byte & 15, byte >> 4)]
    items = iter(packed)
    cells = []
    for y, x, kind in parents:
        item = None if kind == "multi" else next(items)
        for dy, dx in CHILDREN:
            if kind == "multi":
                value, child = node(next(symbols))
            else:
                digit, item = (item & 1, item >> 1) if level == 0 else (item % 3, item // 3)
                value, child = (COMPOSITE, kind) if digit == 2 else (labels[kind[digit]], None)
            cells.append((2 * y + dy, 2 * x + dx, value, child))
    return cells


def paint(mask, cells, level):
    size = 1 << level
    for y, x, value, _ in cells:
        if value < 0:
            continue
        for row in mask[y * size : (y + 1) * size]:
            for at in range(x * size, min((x + 1) * size, len(row))):
                row[at] = value
