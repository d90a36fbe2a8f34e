"""A record explained: its parts with their sizes, and the tree it holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import entropy, fast, small
from .header import SMALL, Header, read_header
from .kernels import pack
from .pyramid import OUTSIDE
from .quadtree import LinearQuadtree
from .record import SMALL_START

__all__ = ["Explanation", "LevelContent", "Part", "TileContent", "explain"]

_PALETTES = {small.LISTED: "listed", small.BITMAP: "bitmap", small.IDENTITY: "not told: labels are ids"}
_MODES = {None: "uniform", small.CHAIN: "chains", small.PLAIN: "plain"}


@dataclass(frozen=True)
class Part:
    """Describe bytes that stand together in a record.

    Attributes
    ----------
    nbytes : length in the record, checksum included.
    stage : 'stored' or 'zstd' of a section of the fast profile, else ''.
    unpacked_bytes : length without the stage; None where there is none.
    """

    name: str
    nbytes: int
    stage: str = ""
    unpacked_bytes: int | None = None


@dataclass(frozen=True)
class LevelContent:
    """Count the nodes of a level, by kind.

    Attributes
    ----------
    pairs, multi : composites whose pixels have two classes, and more.
    pixels : of the image, in leaves of the level.
    """

    level: int
    nodes: int
    leaves: int
    pairs: int
    multi: int
    outside: int
    pixels: int


@dataclass(frozen=True)
class TileContent:
    """Describe a tile of the small profile: its place in pixels, and how its stream holds it."""

    y: int
    x: int
    height: int
    width: int
    mode: str
    nbytes: int


@dataclass(frozen=True)
class Explanation:
    """Describe a record.

    Attributes
    ----------
    labels : ids that the record names.
    num_pairs : class pairs that a record of the fast profile names; None for the small profile.
    levels : coarse to fine.
    tile_side, own_tables, tiles : of the small profile: the tiles' side (0 for one tile), the checksum of the tables
        where they are not the package's, and the tiles.
    """

    profile: str
    height: int
    width: int
    bits: int
    nbytes: int
    labels: tuple[int, ...]
    num_pairs: int | None
    parts: tuple[Part, ...]
    levels: tuple[LevelContent, ...]
    tile_side: int | None = None
    own_tables: str | None = None
    tiles: tuple[TileContent, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what ``quadcodec info STORE IMAGE --json`` prints."""
        return asdict(self)


def explain(record: bytes, tree: LinearQuadtree) -> Explanation:
    """Return what a record holds, part by part.

    Parameters
    ----------
    tree : that of the record, as `LabelStore.quadtree` decodes it.

    Raises
    ------
    CorruptRecordError, UnsupportedVersionError : the record's head is damaged, or of a newer format version.
    """
    header = read_header(record)
    if header.profile == SMALL:
        return _explain_small(record, header, _levels(tree))
    layout = fast.read_layout(record)
    parts = [Part("header", layout.sections[0].offset)]
    for k, section in enumerate(layout.sections):
        finest = len(layout.sections) - 1 - k
        name = f"level {finest}" if k else f"class tables, levels {header.levels - 1} to {finest}"
        stored = record[section.offset : section.offset + section.nbytes]
        stage = "stored" if section.stage == entropy.STORED else "zstd"
        unpacked = entropy.raw_size(section.stage, stored)
        parts.append(Part(name, section.end - section.offset, stage, unpacked))
    return Explanation(
        "fast", header.height, header.width, header.bits, len(record), tuple(tree.class_pixels()),
        layout.num_pairs, tuple(parts), _levels(tree),
    )  # fmt: skip


def _explain_small(record: bytes, header: Header, levels: tuple[LevelContent, ...]) -> Explanation:
    head = small.read_head(record[SMALL_START:], header.height, header.width, header.mask_dtype)
    places = small.tile_grid(header.height, header.width, head.side)
    tiles = tuple(
        TileContent(y, x, height, width, _MODES[tile.mode], tile.nbytes)
        for tile, (y, x, height, width) in zip(head.tiles, places if head.tiles else (), strict=True)
    )
    parts = [
        Part("header", SMALL_START),
        Part(f"ids, {_PALETTES[head.palette_kind]}", head.palette_bytes),
        Part("list of tiles", head.head_bytes - head.palette_bytes),
    ]
    for mode in _MODES.values():
        sizes = [tile.nbytes for tile in tiles if tile.mode == mode]
        if sizes:
            parts.append(Part(f"tiles, {mode}: {len(sizes)}", sum(sizes)))
    return Explanation(
        "small", header.height, header.width, header.bits, len(record), tuple(int(v) for v in head.palette),
        None, tuple(parts), levels, head.side, None if head.own_tables is None else f"{head.own_tables:08x}", tiles,
    )  # fmt: skip


def _levels(tree: LinearQuadtree) -> tuple[LevelContent, ...]:
    """Count the nodes of each level by kind, coarse to fine."""
    index_of = np.arange(int(tree.nodes.max()) + 2, dtype=np.int32)
    pairs = np.empty(0, np.int64)
    found = []
    for level in range(tree.levels):
        values = tree.level(level)
        two = int(np.count_nonzero(pairs >= 0))
        leaf = values >= 0
        pixels = int(np.sum(tree.inside_areas(level) * leaf))
        outside = int(np.count_nonzero(values == OUTSIDE))
        found.append(
            LevelContent(level, len(values), int(np.count_nonzero(leaf)), two, len(pairs) - two, outside, pixels)
        )
        above = np.empty(len(values) // 4, np.int64)
        if level < tree.levels - 1:
            pack.find_pairs(values, pairs, index_of, above)
        pairs = above
    return tuple(reversed(found))
