"""The rows of this package: both profiles, each in the settings that its users choose between."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import google_crc32c
import numpy as np

from .. import small
from ..header import SMALL, Header
from ..record import decode, decode_tree, encode
from ..table_training import train_on_masks
from ..tables import Tables
from .row import COARSE_LEVEL, Codec, Mask, Region, Row, Shape

__all__ = ["fast_rows", "own_table_rows", "small_rows"]

LEVELS = 6
TILES = {"small": 512, "small-whole": None, "small-256": 256}
NAMED_TABLES_BYTES = 4
"""What a payload spends on the name of tables that are not the shipped ones."""


def fast_rows() -> list[Row]:
    """Return the fast profile with and without its entropy stage."""
    return [
        Row("fast", "levels through zstd-3", (_fast_codec("fast"),), profile="fast"),
        Row("fast-raw", "without the entropy stage", (_fast_codec("raw"),), profile="fast"),
    ]


def _fast_codec(profile: str) -> Codec:
    return Codec(
        encode=partial(encode, profile=profile),
        decode=lambda record, *_: decode(record),
        nodes=decode_tree,
        coarse=partial(decode, level=COARSE_LEVEL),
        region=lambda record, _shape, _dtype, region: decode(record, region=region),
    )


def small_rows(tables: Tables | None, *, beside: bool = False) -> list[Row]:
    """Return the small profile in three tilings.

    Parameters
    ----------
    tables : those to take in place of the shipped ones, as if a release shipped them; None for the shipped ones.
    beside : whether they stand beside other tables that never saw the masks, and so did see them.
    """
    unsaid = NAMED_TABLES_BYTES if tables else 0
    suffix, setting = ("-shipped" if beside else ""), ("tables without this set" if tables else "shipped tables")
    return [
        Row(
            name + suffix, f"{_tiling(tile)}, {setting}", (_small_codec(tile, tables, unsaid),),
            profile="small", tuned=beside,
        )
        for name, tile in TILES.items()
    ]  # fmt: skip


def own_table_rows(halves: Sequence[Sequence[Mask]], share: float) -> list[Row]:
    """Return the small profile with tables of the user's own masks.

    Parameters
    ----------
    halves : the masks of each half; a half is measured with the tables of the other.
    share : how much of one table's bytes these masks bear.
    """
    tables = [train_on_masks(half) for half in reversed(halves)]
    nbytes = float(np.mean([len(t.to_text()) for t in tables])) * share
    return [
        Row(
            f"{name}-own", f"{_tiling(tile)}, tables of the other half",
            tuple(_small_codec(tile, t, 0) for t in tables), nbytes, profile="small", tuned=True,
        )
        for name, tile in TILES.items()
    ]  # fmt: skip


def _tiling(tile: int | None) -> str:
    return f"chains in tiles of {tile}" if tile else "chains in one tile"


def _small_codec(tile: int | None, tables: Tables | None, unsaid: int) -> Codec:
    def region(record: bytes, _shape: Shape, _dtype: np.dtype[Any], part: Region) -> Mask:
        return decode(record, region=part, tables=tables)

    return Codec(
        encode=partial(_small_record, tile, tables),
        decode=lambda record, *_: decode(record, tables=tables),
        nodes=lambda record: decode_tree(record, tables=tables),
        region=region if tile else None,
        nbytes=lambda record: len(record) - unsaid,
    )


def _small_record(tile: int | None, tables: Tables | None, mask: Mask) -> bytes:
    """Return a record as `quadcodec.encode` makes it, with another side of the tiles."""
    head = Header(SMALL, LEVELS, 8 * mask.itemsize, *mask.shape).to_bytes()
    crc: int = google_crc32c.value(head)
    payload: Any = small.encode(mask, tile=tile, tables=tables)
    return head + crc.to_bytes(4, "little") + bytes(payload)
