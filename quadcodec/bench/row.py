"""What is measured: a row of the table is a codec in one setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COARSE_LEVEL", "Codec", "Mask", "Region", "Row", "Shape", "in_tiles"]

COARSE_LEVEL = 3
"""The coarse level that is measured: cells of 8x8 pixels."""

Mask = NDArray[Any]
Region = tuple[int, int, int, int]
"""(y0, x0, h, w) in pixels."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Codec:
    """Turn a mask into something stored and back.

    Attributes
    ----------
    encode : mask -> what is stored, for most codecs bytes.
    decode : (stored, shape, dtype) -> the mask, C-contiguous and of its own memory.
    nodes : stored -> the mask's tree, without a raster; None where the codec has no such call.
    coarse : stored -> T_3, a class or -1 for each cell of 8x8 pixels, without decoding all of it; else None.
    region : (stored, shape, dtype, region) -> that part of the mask, without decoding all of it; else None.
    nbytes : length of what is stored.
    """

    encode: Callable[[Mask], Any]
    decode: Callable[[Any, Shape, np.dtype[Any]], Mask]
    nodes: Callable[[Any], Any] | None = None
    coarse: Callable[[Any], NDArray[Any]] | None = None
    region: Callable[[Any, Shape, np.dtype[Any], Region], Mask] | None = None
    nbytes: Callable[[Any], int] = len


@dataclass(frozen=True)
class Row:
    """Name a codec in one setting.

    Attributes
    ----------
    name : short and without spaces, as the JSON has it.
    setting : what it is, for people.
    codecs : one for all masks; or two, for the first count // 2 masks and for the others.
    shared_bytes : what a reader needs once for all masks beside the stored bytes.
    bits : the widest ids that it takes, 8 or 16.
    profile : 'fast' or 'small' for a codec of this package, '' for a rival.
    tuned : whether something of it was trained on masks of this set.
    """

    name: str
    setting: str
    codecs: tuple[Codec, ...]
    shared_bytes: float = 0
    bits: int = 16
    profile: str = field(default="", kw_only=True)
    tuned: bool = field(default=False, kw_only=True)

    def codec(self, index: int, count: int) -> Codec:
        """Return the codec of mask ``index`` of ``count``."""
        return self.codecs[0 if index < count // 2 else -1]


def _grid(shape: Shape, side: int) -> list[Region]:
    height, width = shape
    return [
        (y, x, min(side, height - y), min(side, width - x))
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def _encode_tiles(codec: Codec, side: int, mask: Mask) -> list[Any]:
    parts = (mask[y : y + h, x : x + w] for y, x, h, w in _grid(mask.shape, side))
    return [codec.encode(np.ascontiguousarray(part)) for part in parts]


def _decode_tiles(codec: Codec, side: int, stored: list[Any], shape: Shape, dtype: np.dtype[Any]) -> Mask:
    return _decode_region(codec, side, stored, shape, dtype, (0, 0, *shape))


def _decode_region(
    codec: Codec, side: int, stored: list[Any], shape: Shape, dtype: np.dtype[Any], region: Region | tuple[int, ...]
) -> Mask:
    top, left, rows, cols = region
    out = np.empty((rows, cols), dtype)
    for part, (y, x, h, w) in zip(stored, _grid(shape, side), strict=True):
        y0, x0, y1, x1 = max(y, top), max(x, left), min(y + h, top + rows), min(x + w, left + cols)
        if y0 < y1 and x0 < x1:
            tile = codec.decode(part, (h, w), dtype)
            out[y0 - top : y1 - top, x0 - left : x1 - left] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
    return out


def in_tiles(codec: Codec, side: int) -> Codec:
    """Return a codec that stores each tile of ``side`` pixels alone, so that a region needs few of them.

    Only the tiles' own bytes count, not the index that a reader would need, too.
    """
    return Codec(
        encode=partial(_encode_tiles, codec, side),
        decode=partial(_decode_tiles, codec, side),
        region=partial(_decode_region, codec, side),
        nbytes=lambda stored: sum(codec.nbytes(part) for part in stored),
    )
