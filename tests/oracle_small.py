"""A slow decoder of the small profile, written from docs/small.md and sharing no code with the package."""

from __future__ import annotations

import zlib
from pathlib import Path

import zstandard

CRC_TABLE = []
for _n in range(256):
    for _ in range(8):
        _n = _n >> 1 ^ (0x82F63B78 if _n & 1 else 0)
    CRC_TABLE.append(_n)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def clip(a: int, low: int, high: int) -> int:
    return max(low, min(high, a))


KNOTS = [
    *(22, 28, 36, 47, 60, 77, 98, 126, 162, 208, 267, 342, 439, 562, 720, 922, 1179, 1506, 1921, 2446, 3108),
    *(3938, 4971, 6249, 7812, 9702, 11955, 14595, 17625, 21025, 24743, 28693, 32768),
]
KNOTS += [65536 - KNOTS[k] for k in range(31, -1, -1)]
SQUASH = [clip((KNOTS[x >> 6] * (64 - (x & 63)) + KNOTS[(x >> 6) + 1] * (x & 63)) >> 6, 24, 65512) for x in range(4096)]
STRETCH = [clip(sum(s < 16 * q + 8 for s in SQUASH) - 2048, -2047, 2047) for q in range(4096)]
START, LABEL, TREE = 43932, 44316, 44380


class Coder:
    """Sections 4 and 5."""

    def __init__(self, stream: bytes, tables: bytes) -> None:
        raw = zlib.decompress(tables)
        self.states = [[SQUASH[64 * (z >> 2) + 32] * 64, (0, 1, 3, 6)[z & 3]] for z in raw[:45404]]
        numbers = [int.from_bytes(raw[k : k + 2], "little", signed=True) for k in range(45404, len(raw), 2)]
        self.weights = [8 * number for number in numbers]
        self.stream, self.at = stream, 4
        self.rng, self.code = 2**32 - 1, self.word(0)

    def word(self, at: int) -> int:
        return int.from_bytes(self.stream[at : at + 4].ljust(4, b"\0"), "big")

    def decide(self, p: int) -> int:
        bound = (self.rng >> 16) * p
        bit = int(self.code < bound)
        if bit:
            self.rng = bound
        else:
            self.code -= bound
            self.rng -= bound
        if self.rng < 2**31:
            self.rng <<= 32
            self.code = self.code << 32 | self.word(self.at)
            self.at += 4
        return bit

    def learn(self, i: int, bit: int) -> None:
        p, n = self.states[i]
        self.states[i] = [p + ((bit * 2**22 - p) * (655360 // (10 * n + 16)) >> 16), min(n + 1, 127)]

    def single(self, i: int) -> int:
        bit = self.decide(clip(self.states[i][0] >> 6, 24, 65512))
        self.learn(i, bit)
        return bit

    def mixed(self, i: int, j: int, m: int) -> int:
        s, t = STRETCH[self.states[i][0] >> 10], STRETCH[self.states[j][0] >> 10]
        p = SQUASH[clip((s * self.weights[2 * m] + t * self.weights[2 * m + 1]) >> 16, -2047, 2047) + 2048]
        bit = self.decide(p)
        self.learn(i, bit)
        self.learn(j, bit)
        error = bit * 65536 - p
        self.weights[2 * m] += (error * s * 5 + 32768) >> 16
        self.weights[2 * m + 1] += (error * t * 5 + 32768) >> 16
        return bit

    def gap(self, phase: int) -> int:
        base = START + 128 * phase
        length = 0
        while length < 31 and self.single(base + length):
            length += 1
        node = 1
        for _ in range(length):
            bit = self.single(base + 32 + 3 * length + node - 1) if node < 4 else self.decide(32768)
            node = 2 * node + bit
        return node - 1


STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
Vertex = tuple[int, int]


class Walk:
    """Where a walk is, and what it remembers."""

    def __init__(self, c: Vertex, d: int, turned: int, turn: int, moves: int, runs: list[int]) -> None:
        self.c, self.d, self.turned, self.turn, self.moves, self.runs = c, d, turned, turn, moves, runs


def target(c: Vertex, d: int) -> Vertex:
    return c[0] + STEPS[d][0], c[1] + STEPS[d][1]


def contexts(kind: int, k: int, walk: Walk) -> tuple[int, int, int]:
    """Return i, j and m of section 5."""
    r = walk.runs
    if kind == 0 and k < 2:
        q = (r[2] >= 2) + (r[2] >= 8)
        e, c = clip(r[4] - r[2], -2, 2) + 2, clip(r[6] - r[2], -1, 1) + 1
        b, a = clip(r[8] - r[2], -1, 1) + 1, clip(r[10] - r[2], -1, 1) + 1
        line = (r[1] > 0) + 2 * (a + 3 * (b + 3 * (c + 3 * (e + 5 * q))))
        line = clip(r[0] - r[2], -3, 2) + 3 + 6 * (walk.turn + 2 * line)
        if k == 0:
            return line, 19440 + walk.moves, min(r[0], 7)
        return 9720 + line, 26001 + walk.moves % 2187, 8 + min(r[0], 7)
    short = (clip(r[0] - r[2], -2, 1) + 2) * 4 + (r[2] >= 1) + (r[2] >= 3) + (r[2] >= 8)
    short = short * 2 + walk.turn
    place = 6 * kind + k
    m = 16 + k + (8 if kind else 0)
    return 28188 + 32 * place + short, 40476 + 9 * place + walk.moves % 9, m


class Chains:
    """Sections 2 and 3: ``edges`` holds pairs (vertex, heading), both ways."""

    def __init__(self, coder: Coder, height: int, width: int) -> None:
        self.coder, self.height, self.width = coder, height, width
        self.edges: set[tuple[Vertex, int]] = set()
        self.visited: set[Vertex] = set()
        self.awaited: set[Vertex] = set()
        self.limit = (0, 0)
        for phase in range(3):
            self.read_phase(phase)

    def border(self, c: Vertex) -> bool:
        return c[0] in (0, self.height) or c[1] in (0, self.width)

    def join(self, c: Vertex, d: int) -> None:
        self.edges |= {(c, d), (target(c, d), (d + 2) % 4)}

    def read_phase(self, phase: int) -> None:
        pitch = (self.width + 8) // 8 * 8
        last = 0
        while True:
            gap = self.coder.gap(phase)
            end = (self.width, self.height)[phase] if phase < 2 and not gap else last + gap
            if phase < 2:
                self.visited |= {(0, k) if phase == 0 else (k, 0) for k in range(last + 1, end)}
            if not gap:
                return
            last += gap
            start = ((0, last), (last, 0), divmod(last, pitch))[phase]
            self.limit = start if phase == 2 else (0, 0)
            assert start not in self.visited
            stack = []
            if phase == 2:
                self.join(start, 1)
                self.awaited.add(target(start, 1))
                stack.append(Walk(target(start, 1), 1, 1, 0, 0, [0] * 11))
            heading = 1 if phase == 0 else 0
            self.join(start, heading)
            self.visited.add(start)
            stack.append(Walk(target(start, heading), heading, 0, 0, 0, [0] * 11))
            while stack:
                self.follow(stack.pop(), stack)

    def kind(self, c: Vertex, d: int) -> int:
        there = target(c, d)
        if there in self.visited or there < self.limit:
            return 2 if (c, d) in self.edges else 1
        return 3 if there in self.awaited else 0

    def follow(self, walk: Walk, stack: list[Walk]) -> None:
        while True:
            c, d = walk.c, walk.d
            if c in self.visited or self.border(c):
                self.visited.add(c)
                return
            headings = (d, (d + 1 + 2 * walk.turned) % 4, (d + 3 + 2 * walk.turned) % 4)
            kinds = [self.kind(c, heading) for heading in headings]
            chosen = self.read_set(kinds, walk)
            self.visited.add(c)
            branches = []
            for k in range(3):
                if not chosen >> k & 1:
                    continue
                self.join(c, headings[k])
                moves = walk.moves % 2187 * 3 + (0, 2, 1)[k]
                if k == 0:
                    runs = [min(walk.runs[0] + 1, 255), *walk.runs[1:]]
                    turned, turn = walk.turned, walk.turn
                else:
                    runs = [0, *walk.runs[:-1]]
                    turned, turn = (walk.turned, 1) if k == 1 else (1 - walk.turned, 0)
                branches.append(Walk(target(c, headings[k]), headings[k], turned, turn, moves, runs))
            if len(branches) > 1:
                assert len(stack) < 62 + self.height * self.width // 64
            for branch in branches[1:]:
                if branch.c not in self.visited:
                    self.awaited.add(branch.c)
                    stack.append(branch)
            walk = branches[0]

    def read_set(self, kinds: list[int], walk: Walk) -> int:
        options = [
            (k, s)
            for k, s in enumerate((1, 4, 2, 7, 5, 3, 6))
            if all(kinds[b] in (0, 3) or kinds[b] - 1 == s >> b & 1 for b in range(3))
        ]
        kind = kinds[0] + 4 * kinds[1] + 16 * kinds[2]
        for k, chosen in options[:-1]:
            if self.coder.mixed(*contexts(kind, k, walk)):
                return chosen
        return options[-1][1]


def read_labels(coder: Coder, chains: Chains, num_labels: int) -> list[list[int]]:
    """Section 6: return the label of each pixel."""
    height, width = chains.height, chains.width
    labels = [[-1] * width for _ in range(height)]
    recent = [[-1] * 3 for _ in range(256)]
    for y in range(height):
        for x in range(width):
            if labels[y][x] >= 0:
                continue
            left = labels[y][x - 1] if x else -1
            top = labels[y - 1][x] if y else -1
            label = read_label(coder, recent, left, top, num_labels)
            todo = [(y, x)]
            labels[y][x] = label
            while todo:
                a, b = todo.pop()
                # The side between two pixels lies on the edge from this vertex with this heading.
                for m, n, vertex, heading in (
                    (a, b + 1, (a, b + 1), 1),
                    (a, b - 1, (a, b), 1),
                    (a + 1, b, (a + 1, b), 0),
                    (a - 1, b, (a, b), 0),
                ):
                    inside = 0 <= m < height and 0 <= n < width
                    if inside and labels[m][n] < 0 and (vertex, heading) not in chains.edges:
                        labels[m][n] = label
                        todo.append((m, n))
    return labels


def read_label(coder: Coder, recent: list[list[int]], left: int, top: int, num_labels: int) -> int:
    if num_labels == 2 and (left, top) != (-1, -1):
        return 1 - max(left, top)
    if num_labels == 3 and -1 not in (left, top) and left != top:
        return 3 - left - top
    row, after = recent[(29 * (left + 1) + 101 * (top + 1)) % 256], recent[(left + 1) % 256]
    guesses = [row[0], row[1], after[2]]
    label = -1
    for k, guess in enumerate(guesses):
        if guess in (left, top, -1) or (k == 2 and guess in guesses[:2]):
            continue
        if coder.single(LABEL + 8 * ((left >= 0) + (top >= 0) + (left == top)) + k):
            label = guess
            break
    if label < 0:
        node = 1
        bits = (num_labels - 1).bit_length()
        for _ in range(bits):
            node = 2 * node + (coder.single(TREE + node) if node < 1024 else coder.decide(32768))
        label = node - 2**bits
    if row[0] != label:
        row[1], row[0] = row[0], label
    after[2] = label
    return label


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        assert self.at + count <= len(self.data)
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.number(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value


def read_palette(reader: Reader, kind: int, itemsize: int) -> list[int]:
    if kind == 2:
        return list(range(256**itemsize))
    count = reader.varint() + 1
    if kind == 1:
        bits = reader.take(count)
        return [k for k in range(8 * count) if bits[k // 8] >> k % 8 & 1]
    ids = [-1]
    for _ in range(count):
        ids.append(ids[-1] + 1 + reader.varint())
    return ids[1:]


def decode(payload: bytes, height: int, width: int, itemsize: int, tables: bytes) -> list[list[int]]:
    """Section 1: return the ids of the mask, row by row."""
    reader = Reader(payload)
    flags = reader.number(1)
    side = reader.varint()
    assert flags >> 4 in (0, 15)
    if flags >> 4 == 15:
        assert reader.number(4) == crc32c(zlib.decompress(tables))
    palette = read_palette(reader, flags & 15, itemsize)
    mask = [[palette[0]] * width for _ in range(height)]
    places = [(y, x) for y in range(0, height, side or height) for x in range(0, width, side or width)]
    entries = []
    for y, x in places if len(palette) > 1 else []:
        v = reader.varint()
        extra = reader.varint() if v == 0 else reader.number(4 if v // 2 >= 1024 else 2)
        entries.append((y, x, v, extra))
    end = reader.at
    assert reader.number(4) == crc32c(payload[:end])
    for y, x, v, extra in entries:
        h, w = min(side or height, height - y), min(side or width, width - x)
        if v == 0:
            tile = [[palette[extra]] * w for _ in range(h)]
        else:
            stream = reader.take(v // 2)
            crc = crc32c(stream)
            assert extra == (crc if len(stream) >= 1024 else (crc >> 16) ^ (crc & 65535))
            if v & 1:
                raw = zstandard.decompress(stream[1:]) if stream[0] else stream[1:]
                ids = Reader(raw)
                tile = [[ids.number(itemsize) for _ in range(w)] for _ in range(h)]
            else:
                coder = Coder(stream, tables)
                labels = read_labels(coder, Chains(coder, h, w), len(palette))
                tile = [[palette[label] for label in row] for row in labels]
        for k in range(h):
            mask[y + k][x : x + w] = tile[k]
    return mask


def shipped_tables() -> bytes:
    """Return the file that the text names."""
    return (Path(__file__).parent.parent / "quadcodec" / "small_tables_0.bin").read_bytes()
