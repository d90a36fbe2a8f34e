"""What `tests.fuzz` runs: for each target valid inputs, mutations that reach behind the checksums, and an oracle.

An oracle returns whether the input was accepted. It passes by an error of our family, or by a value that keeps its
promises; whatever else it raises is a finding.
"""

from __future__ import annotations

import functools
import io
import json
import struct
import tempfile
import zlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import NamedTuple

import google_crc32c
import numpy as np
import zstandard
from PIL import Image

import quadcodec
from quadcodec import LinearQuadtree, fast, small
from quadcodec.entropy import decompress, raw_size
from quadcodec.errors import FormatError, ManifestError, MaskError, QuadcodecError, StoreError
from quadcodec.header import read_header
from quadcodec.manifest import find_masks
from quadcodec.manifest_toml import parse_manifest
from quadcodec.masks import image_size, mask_form, mask_size, read_mask, write_mask
from quadcodec.record import (
    HEAD_BYTES,
    SMALL_START,
    check_record,
    decode,
    decode_tree,
    encode,
    prefix_bytes,
    record_length,
)
from quadcodec.shard import EMPTY, pack_shard, read_shard, shard_path
from quadcodec.tables import NUM_STATES, NUM_WEIGHTS, Tables
from quadcodec.tables import pack as pack_tables

from .test_corrupt import reseal

MAX_PIXELS = 2**20
BYTES_A_PIXEL = 48
"""The bound of docs/format.md."""
SHARD_SIZE = 64


class Target(NamedTuple):
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[Random, list[bytes]], bytes]
    check: Callable[[bytes, Path], bool]
    memory: int
    """Bytes that one input may take, beside what the process has."""


class BrokenError(Exception):
    """Report a value that does not keep a promise."""


def promise(kept: bool, what: str) -> None:
    if not kept:
        raise BrokenError(what)


# Mutations of plain bytes

_NUMBERS = (
    0, 1, 2, 3, 15, 16, 63, 64, 80, 81, 127, 128, 254, 255, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1,
)  # fmt: skip


def edit(rng: Random, data: bytes, others: list[bytes], *, keep_length: bool = False) -> bytes:
    """Return the bytes after one to four small changes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(5 if keep_length else 10)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.choice(_NUMBERS) & 255
        elif kind == 2:
            piece = rng.choice(_NUMBERS).to_bytes(8, "little")[: rng.choice((1, 2, 4, 8))]
            out[at : at + len(piece)] = piece[: len(out) - at]
        elif kind == 3:
            length = min(rng.randrange(1, 33), len(out) - at)
            out[at : at + length] = rng.randbytes(length)
        elif kind == 4:
            length = min(rng.randrange(1, 65), len(out) - at)
            start = rng.randrange(len(out) - length + 1)
            out[at : at + length] = out[start : start + length]
        elif kind == 5:
            del out[at:]
        elif kind == 6:
            del out[at : at + rng.randrange(1, 33)]
        elif kind == 7:
            out[at:at] = rng.randbytes(rng.randrange(1, 33))
        elif kind == 8:
            other = rng.choice(others)
            out[at:] = other[rng.randrange(len(other) + 1) :]
        else:
            out[at:at] = bytes(out[at : at + rng.randrange(1, 9)]) * rng.choice((1, 10, 2000))
    return bytes(out)


def plain(rng: Random, seeds: list[bytes]) -> bytes:
    return rng.randbytes(rng.randrange(200)) if rng.random() < 0.05 else edit(rng, rng.choice(seeds), seeds)


# Records


def corpus_masks() -> list[np.ndarray]:
    """Return masks of every kind: blocks, noise, curves, uniform, one pixel, 8 and 16 bits, few and many ids."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:100, :90]
    masks = [
        np.array([[200]], np.uint8),
        np.full((33, 65), 7, np.uint8),
        np.kron(rng.integers(0, 5, (6, 7)), np.ones((9, 8), int)).astype(np.uint8),
        rng.integers(0, 256, (20, 31)).astype(np.uint8),
        rng.integers(0, 60_000, (40, 30)).astype(np.uint16),
        ((y // 9 + x // 7 * 12) * 3).astype(np.uint16),  # more than 256 labels
        ((x - 40) ** 2 + (y - 50) ** 2 < 900).astype(np.uint8) + (y > 70),
        (np.sin(x / 6) * 9 + y > 45).astype(np.uint8) * 3 + (x * y > 4000),
        np.indices((16, 17)).sum(axis=0).__mod__(2).astype(np.uint8),
        np.kron(rng.integers(0, 3, (3, 4)), np.ones((70, 60), int)).astype(np.uint8),
    ]
    masks[-1][5:60:7, 3:200:5] = 4
    return [np.ascontiguousarray(mask, mask.dtype if mask.itemsize < 3 else np.uint8) for mask in masks]


@functools.cache
def own_tables() -> Tables:
    states = np.arange(NUM_STATES) % 64
    return Tables.from_bytes(pack_tables(states, np.ones_like(states), np.full(2 * NUM_WEIGHTS, 40000)))


def fast_seeds() -> list[bytes]:
    records = []
    for i, mask in enumerate(corpus_masks()):
        for levels in (2 + i % 9, 6):
            tree = LinearQuadtree.from_mask(mask, levels)
            records += [fast.encode(tree, compress=compress) for compress in (True, False)]
    return records


def mutate_fast(rng: Random, seeds: list[bytes]) -> bytes:
    if rng.random() < 0.15:
        return plain(rng, seeds)
    record = rng.choice(seeds)
    layout = fast.read_layout(record)
    edits = []
    for index in rng.sample(range(len(layout.sections)), rng.choice((0, 1, 1, 1, 2)) % (len(layout.sections) + 1)):
        section = layout.sections[index]
        stored = record[section.offset : section.offset + section.nbytes]
        raw = decompress(section.stage, stored, raw_size(section.stage, stored))
        raw = edit(rng, raw, seeds, keep_length=rng.random() < 0.8) if raw else rng.randbytes(rng.randrange(9))
        stage = rng.randrange(2) if raw else 0
        packed = zstandard.ZstdCompressor().compress(raw) if stage else raw
        if rng.random() < 0.05:
            packed = edit(rng, packed, seeds)
        edits.append((index, stage if packed else 0, packed))
    record = reseal(record, edits)
    fields = [2, 3, 4, 5, 6, 7, 8]
    values = (None, None, None, layout.header.levels, layout.header.bits, layout.header.height, layout.header.width,
              layout.num_labels, layout.num_pairs)  # fmt: skip
    for field in rng.sample(fields, 2) if rng.random() < 0.3 else ():
        value = near(rng, values[field] or 0)
        try:
            record = reseal(record, header_edit=(field, value % (256 if field < 5 else 2**32)))
        except QuadcodecError:  # the record of the first edit is refused already
            break
    return record


def near(rng: Random, value: int) -> int:
    return max(
        0, rng.choice((value - 1, value + 1, value * 2, value // 2, rng.choice(_NUMBERS), rng.randrange(1, 999)))
    )


def small_seeds() -> list[bytes]:
    records = []
    for mask in corpus_masks():
        records += [encode(mask, profile="small"), encode(mask, levels=3, profile="small", tables=own_tables())]
        records.append(records[-2][:SMALL_START] + small.encode(mask, tile=64))
    return records


def mutate_small(rng: Random, seeds: list[bytes]) -> bytes:
    if rng.random() < 0.15:
        return plain(rng, seeds)
    record = rng.choice(seeds)
    header = read_header(record)
    payload = record[SMALL_START:]
    head = small.read_head(payload, header.height, header.width, header.mask_dtype)
    streams = [payload[t.offset : t.offset + t.nbytes] for t in head.tiles]
    modes = [t.mode for t in head.tiles]
    labels = [t.label for t in head.tiles]
    for _ in range(rng.choice((0, 1, 1, 1, 3)) if head.tiles else 0):
        i = rng.randrange(len(head.tiles))
        kind = rng.randrange(8)
        if kind < 4 and streams[i]:
            streams[i] = edit(rng, streams[i], seeds)
        elif kind == 4:
            modes[i], streams[i] = 0, rng.randbytes(rng.randrange(1, 400))
        elif kind == 5:
            modes[i] = rng.choice((None, 0, 1))
        elif kind == 6:
            labels[i] = near(rng, labels[i])
        else:
            j = rng.randrange(len(streams))
            modes[i], streams[i] = modes[j], streams[j]
    flags = payload[0]
    side = near(rng, head.side) if rng.random() < 0.1 else head.side
    start = len(fast._varint(head.side)) + (5 if head.own_tables is not None else 1)
    palette = payload[start : start + head.palette_bytes]
    if rng.random() < 0.15:
        palette = edit(rng, palette, seeds, keep_length=rng.random() < 0.7) if palette else rng.randbytes(3)
    if rng.random() < 0.03:
        flags = rng.randrange(256)
    fields = list(struct.unpack("<BBII", record[6:16]))
    for field in rng.sample(range(4), 1) if rng.random() < 0.3 else ():
        fields[field] = near(rng, fields[field]) % (256 if field < 2 else 2**32)
    if rng.random() < 0.1:
        fields[1] = 24 - header.bits
    out = bytearray([flags]) + fast._varint(side)
    out += (head.own_tables or 0).to_bytes(4, "little") if flags >> 4 == small.OWN_TABLES else b""
    out += palette
    for mode, label, stream in zip(modes, labels, streams, strict=True):
        if mode is None or not stream:
            out += bytes(1) + fast._varint(label % 2**35)
        else:
            out += fast._varint(2 * len(stream) + mode)
            out += small._checksum(stream).to_bytes(small._checksum_bytes(len(stream)), "little")
    used = b"".join(stream for mode, stream in zip(modes, streams, strict=True) if mode is not None)
    first = record[:6] + struct.pack("<BBII", *fields)
    return first + crc(first) + bytes(out) + crc(bytes(out)) + used


def crc(data: bytes) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))


def check_decoder(record: bytes, _folder: Path) -> bool:
    tables = own_tables()
    rng = Random(zlib.crc32(record))
    try:
        mask = decode(record, tables=tables, max_pixels=MAX_PIXELS)
    except QuadcodecError:
        try:
            decode_tree(record, tables=tables, max_pixels=MAX_PIXELS)
        except QuadcodecError:
            return False
        raise BrokenError("a tree of a record without a mask") from None
    header = read_header(record)
    promise(mask.shape == (header.height, header.width), "the mask's shape is not the header's")
    promise(mask.dtype == header.mask_dtype, "the mask's type is not the header's")
    check_record(record[: record_length(record, tables=tables)], tables=tables)
    tree = decode_tree(record, tables=tables, max_pixels=MAX_PIXELS)
    promise(np.array_equal(tree.to_mask(), mask), "tree and mask differ")
    y, x = rng.randrange(header.height), rng.randrange(header.width)
    h, w = rng.randrange(1, header.height - y + 1), rng.randrange(1, header.width - x + 1)
    part = decode(record, region=(y, x, h, w), tables=tables, max_pixels=MAX_PIXELS)
    promise(np.array_equal(part, mask[y : y + h, x : x + w]), "a region is not that of the mask")
    level = rng.randrange(header.levels)
    prefix = record[: prefix_bytes(record[:HEAD_BYTES], level)]
    coarse = decode(prefix, level=level, tables=tables, max_pixels=MAX_PIXELS)
    promise(np.array_equal(coarse, tree.to_level(level)), f"level {level} of a prefix differs")
    for profile in ("fast", "small"):
        again = encode(mask, levels=header.levels, profile=profile)
        promise(np.array_equal(decode(again, max_pixels=MAX_PIXELS), mask), f"{profile} does not give it back")
    return True


# Shards


def shard_seeds() -> list[bytes]:
    return [pack_shard(_records(), SHARD_SIZE), pack_shard([*_records()[:3], None, _records()[4]], SHARD_SIZE)]


@functools.cache
def _records() -> tuple[bytes, ...]:
    return tuple(encode(mask) for mask in corpus_masks())


def mutate_shard(rng: Random, seeds: list[bytes]) -> bytes:
    data = rng.choice(seeds)
    if rng.random() < 0.3:
        return plain(rng, seeds)
    tail = SHARD_SIZE * 16 + 4
    body, index = data[:-tail], bytearray(data[-tail:-4])
    for _ in range(rng.choice((1, 1, 3))):
        slot = 16 * rng.randrange(SHARD_SIZE if rng.random() < 0.2 else len(_records()))
        half = slot + 8 * rng.randrange(2)
        value = int.from_bytes(index[half : half + 8], "little")
        value = rng.choice(
            (near(rng, value), len(body), EMPTY, 2**64 - rng.randrange(1, 9000), rng.randrange(len(data)))
        )
        index[half : half + 8] = (value % 2**64).to_bytes(8, "little")
    body = edit(rng, body, seeds) if rng.random() < 0.3 else body
    return body + bytes(index) + crc(bytes(index))


@functools.cache
def _store(folder: Path) -> quadcodec.LabelStore:
    path = quadcodec.write(folder / "out.zarr", [mask.astype(np.uint16) for mask in corpus_masks()]).path
    return quadcodec.open(path, max_pixels=MAX_PIXELS)


def check_shard(data: bytes, folder: Path) -> bool:
    store = _store(folder)
    path = store.path
    store._indexes.clear()
    promise(store.info.shard_size == SHARD_SIZE, "shards are of another size")
    shard_path(path, 0).write_bytes(data)
    sound = True
    for i in range(len(store)):
        try:
            mask = store[i]
        except (FormatError, StoreError):
            sound = False
        else:
            promise(mask.shape == tuple(store.sizes[i].tolist()), "an image of another size")
    try:
        records = read_shard(shard_path(path, 0), SHARD_SIZE)
    except StoreError:
        promise(not sound, "an image of an unreadable shard")
        return False
    promise(len(records) == SHARD_SIZE and sum(map(len, filter(None, records))) >= 0, "records are missing")
    promise(all(record is None or record in data for record in records), "a record is not of this shard")
    return True


# Manifests


def manifest_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted((Path(__file__).parent.parent / "data_manifests").glob("*.toml"))]


_VALUES = (
    b"0", b"-1", b"1.5", b"65536", b"9" * 5000, b'""', b"[]", b"{}", b"true", b"nan", b"inf", b"-0.0", b"1979-05-27",
    b"07:32:00", b'"\\u0000"', b'"../x"', b'"/abs/{name}.png"', b'"{name}"', b'"**/{name}*"', b'"{a,b}{name}[!x"',
    b"[[1, 2], 3]", b'["' + b"*/" * 50 + b'{name}.png"]', b"[" * 3000, b"{a=" * 900, b"0x10", b'"\xff"', b'"{split}"',
    b"[1]", b'"{"',
    "\u0663".encode(), b'"a\\nb"', b"99999999999999999999", b'["{name}.png"]', b"[{}]", b"1e999",
)  # fmt: skip


def mutate_manifest(rng: Random, seeds: list[bytes]) -> bytes:
    if rng.random() < 0.2:
        return plain(rng, seeds)
    lines = rng.choice(seeds).split(b"\n")
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        i = rng.randrange(len(lines))
        kind = rng.randrange(7)
        key, equals, _ = lines[i].partition(b"=")
        if kind < 3 and equals:
            lines[i] = key + b"= " + rng.choice(_VALUES)
        elif kind == 3:
            del lines[i : i + rng.choice((1, 1, 5))]
            lines = lines or [b""]
        elif kind == 4:
            lines.insert(i, rng.choice(rng.choice(seeds).split(b"\n")))
        elif kind == 5:
            lines[i] = edit(rng, lines[i], seeds[:1]) if rng.random() < 0.5 else lines[i].replace(b"{name}", b"*")
        elif equals:
            lines[i] = (
                rng.choice((b"x", b"'3'", b'"' + b"9" * 4400 + b'"', "\u0663".encode(), b"99999", b"a.b"))
                + b" ="
                + lines[i][len(key) + 1 :]
            )
    return b"\n".join(lines)


def check_manifest(data: bytes, folder: Path) -> bool:
    root = folder / "data"
    if not root.exists():
        for name in (
            "a.png",
            "gtFine/train/x/x_gtFine_labelIds.png",
            "images/training/a.jpg",
            "SegmentationClass/b.png",
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((2, 2), np.uint8)).save(root / name)
    try:
        manifest = parse_manifest("own.toml", data)
    except ManifestError as error:
        promise("\n" not in str(error), "an error of several lines")
        return False
    promise(bool(manifest.layouts and manifest.splits), "no layout or no split")
    promise(all(0 <= label <= 65535 for label in manifest.labels), "an id is out of range")
    try:
        found = find_masks(root, manifest)
        promise(
            all((root / source.mask).resolve().is_relative_to(root.resolve()) for source in found.sources), "leads out"
        )
    except ManifestError:
        pass
    return True


# PNG files


def png_seeds() -> list[bytes]:
    grey = corpus_masks()[2][:20, :23]
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for form in ("L;1", "L;2", "L;4", "L", "P;1", "P;2", "P;4", "P", "I;16", "RGB", "RGBA", "LA"):
            ids = 2 ** int(form[2:]) if form[1:2] == ";" and form[0] != "I" else 5
            write_mask(Path(folder) / "a.png", grey % np.uint8(ids), f"png:{form}")
            files.append((Path(folder) / "a.png").read_bytes())
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", optimize=True)
    return [*files, buffer.getvalue()]


_EXTRA = (
    b"tRNS",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"iCCP",
    b"zTXt",
    b"iTXt",
    b"tEXt",
    b"eXIf",
    b"gAMA",
    b"PLTE",
    b"sBIT",
    b"IDAT",
)


def mutate_png(rng: Random, seeds: list[bytes]) -> bytes:
    if rng.random() < 0.2:
        return plain(rng, seeds)
    data, at, chunks = rng.choice(seeds), 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    for _ in range(rng.choice((1, 1, 2, 4))):
        chunk = rng.choice(chunks)
        kind = rng.randrange(8)
        if kind == 0:
            chunk = chunks[0]
            fields = list(struct.unpack(">IIBBBBB", (chunk[1] + bytes(13))[:13]))
            field = rng.randrange(7)
            fields[field] = near(rng, fields[field]) % (2**32 if field < 2 else 256)
            if rng.random() < 0.4:
                fields[2:4] = rng.choice([(b, c) for b in (1, 2, 4, 8, 16) for c in (0, 2, 3, 4, 6)])
                fields[6] = rng.randrange(2)
            chunk[1] = struct.pack(">IIBBBBB", *fields)
        elif kind < 4 and any(c[0] == b"IDAT" for c in chunks):
            chunk = next(c for c in chunks if c[0] == b"IDAT")
            try:
                rows = zlib.decompressobj().decompress(chunk[1], 2**20)
            except zlib.error:
                rows = chunk[1]
            bomb = bytes(2**22) if rng.random() < 0.03 else b""
            chunk[1] = zlib.compress(edit(rng, rows, seeds, keep_length=rng.random() < 0.7) + bomb)
        elif kind == 4:
            chunk[1] = edit(rng, chunk[1], seeds)
        elif kind == 5:
            chunks.insert(rng.randrange(len(chunks) + 1), [rng.choice(_EXTRA), rng.randbytes(rng.randrange(40))])
        elif kind == 6:
            chunks.insert(rng.randrange(len(chunks) + 1), list(chunk))
        elif len(chunks) > 1:
            chunks.remove(chunk)
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def check_png(data: bytes, folder: Path) -> bool:
    path = folder / "a.png"
    path.write_bytes(data)
    for read in (image_size, mask_form):
        try:
            read(path)
        except MaskError as error:
            promise("\n" not in str(error), "an error of several lines")
    try:
        mask = read_mask(path, max_pixels=MAX_PIXELS)
    except MaskError as error:
        promise("\n" not in str(error), "an error of several lines")
        return False
    height, width, bits = mask_size(path)
    promise(mask.shape == (height, width), "the mask's shape is not the header's")
    promise(mask.dtype == f"u{bits // 8}", "the mask's type is not the header's")
    write_mask(folder / "b.png", mask, mask_form(path))
    promise(np.array_equal(read_mask(folder / "b.png"), mask), "written and read it is another")
    return True


# Checkpoints


def checkpoint_seeds() -> list[bytes]:
    import torch

    from qgn.checkpoint import Checkpoint, save_checkpoint
    from qgn.data.classes import ClassMap
    from qgn.models.build import build_model

    classes = ClassMap(("road", "car"), {0: 0, 1: 1, 9: 255}, ((1, 2, 3), (4, 5, 6)))
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for size in (None, (64, 96)):
            described = Checkpoint("qgn_resnet18", 1, classes, size, 3, {"miou": 0.5}, {"seed": 0})
            save_checkpoint(Path(folder) / "a", described, build_model("qgn_resnet18", 2, width=1), torch.ones(6))
            files.append((Path(folder) / "a").read_bytes())
    return files


_JSON = (
    0,
    1,
    2,
    -1,
    10**9,
    2**62,
    2**64,
    1e308,
    None,
    True,
    "",
    "x",
    "qgn_resnet50",
    [],
    {},
    [[1]],
    {"0": 0},
    [0, 0],
    [-1, 5],
    "F64",
    "I8",
)


def _edit_json(rng: Random, value: object) -> object:
    """Replace one value of a document, or drop it."""
    holder = value
    while True:
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        if not keys:
            return value
        key = rng.choice(keys)
        if isinstance(holder[key], dict | list) and rng.random() < 0.8:
            holder = holder[key]
            continue
        if isinstance(holder, dict) and rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = deepcopy(rng.choice(_JSON))  # a second edit may reach into it
        return value


def mutate_checkpoint(rng: Random, seeds: list[bytes]) -> bytes:
    if rng.random() < 0.2:
        return plain(rng, seeds)
    data = rng.choice(seeds)
    (length,) = struct.unpack_from("<Q", data)
    document, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kind = rng.randrange(6)
    own = json.loads(document["__metadata__"]["qgn"])
    if kind < 3:
        for _ in range(rng.choice((1, 1, 2))):
            own = _edit_json(rng, own)
        document["__metadata__"]["qgn"] = json.dumps(own)
    elif kind == 3:
        text = edit(rng, document["__metadata__"]["qgn"].encode(), seeds[:1]).decode(errors="replace")
        document["__metadata__"]["qgn"] = "[" * 10_000 if rng.random() < 0.02 else text
    elif kind == 4:
        document = _edit_json(rng, document)
    else:
        body = edit(rng, body, seeds)
    head = json.dumps(document).encode()
    return struct.pack("<Q", len(head)) + head + body


def check_checkpoint(data: bytes, folder: Path) -> bool:
    import torch

    from qgn.checkpoint import load_checkpoint, save_checkpoint
    from qgn.errors import CheckpointError

    path = folder / "a.safetensors"
    path.write_bytes(data)
    try:
        checkpoint, model = load_checkpoint(path)
    except CheckpointError as error:
        promise("\n" not in str(error), "an error of several lines")
        return False
    promise(not model.training, "the model is not in evaluation mode")
    promise(all(t.device.type == "cpu" for t in model.state_dict().values()), "weights are not on the CPU")
    promise(all(isinstance(name, str) for name in checkpoint.classes.names), "a class name is no text")
    save_checkpoint(folder / "b.safetensors", checkpoint, model, torch.ones(6))
    again, other = load_checkpoint(folder / "b.safetensors")
    promise(again == checkpoint, "written and read the description is another")
    same = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    promise(all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in same), "written and read weights are others")
    return True


_RECORDS = MAX_PIXELS * BYTES_A_PIXEL
TARGETS = {
    "fast": Target(fast_seeds, mutate_fast, check_decoder, _RECORDS),
    "small": Target(small_seeds, mutate_small, check_decoder, _RECORDS),
    "shard": Target(shard_seeds, mutate_shard, check_shard, _RECORDS),
    "manifest": Target(manifest_seeds, mutate_manifest, check_manifest, 2**24),
    "png": Target(png_seeds, mutate_png, check_png, _RECORDS),
    "checkpoint": Target(checkpoint_seeds, mutate_checkpoint, check_checkpoint, 2**25),
}
