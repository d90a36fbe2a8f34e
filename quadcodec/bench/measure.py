"""Measure rows side by side: bytes, speed, and whether every pixel comes back.

A time is the CPU time of the process, helper threads included, so that a codec with threads gains nothing by
them. Each operation runs several times on each mask, in turns with those of the other rows and with Python's
garbage collector off; its least time on a mask counts, and a speed is all pixels over the sum of these.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pyramid import TPyramid
from .row import COARSE_LEVEL, Codec, Mask, Region, Row

__all__ = ["Result", "measure"]

REGION_SIDE = 256
REGIONS = 4
"""Regions of each mask, at places that are always the same."""
TURNS = 3
CALLS = 8
"""Calls in a row in each turn: zstd's raster decodes 1.4 times as fast in the eighth as in the second, with its input
and the memory of its output in the cache."""
ENOUGH_SECONDS = 0.1
"""An operation that has taken this long on a mask is not repeated."""


@dataclass(frozen=True)
class Result:
    """Hold the figures of a row; None where its codec has no such call, or is not lossless on these masks.

    ``bpp`` is bits a pixel; a speed is in millions of pixels of the whole image a second, also where only a part
    of it is decoded. ``lossless`` is None where the codec does not take such masks; ``problem`` says why.
    """

    name: str
    bpp: float | None = None
    encode_mpix_s: float | None = None
    decode_mpix_s: float | None = None
    nodes_mpix_s: float | None = None
    coarse_mpix_s: float | None = None
    region_mpix_s: float | None = None
    lossless: bool | None = None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the figures as ``quadcodec bench --json`` prints them."""
        return {key: value for key, value in asdict(self).items() if key != "problem"}


@dataclass(frozen=True)
class _Case:
    """Hold a mask and what is asked of every codec about it."""

    mask: Mask
    name: str
    regions: list[Region]
    is_first: bool
    """Of its type: what a codec does for the first time may have to be compiled, and says nothing of its speed."""


class _Tally:
    """Add up what a row takes, mask by mask."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.nbytes = 0
        self.pixels = 0
        self.seconds: dict[str, float] = {}
        self.lossless: bool | None = True
        self.problem = ""

    def fail(self, lossless: bool | None, problem: str) -> None:
        self.lossless, self.problem = lossless, problem

    def add(self, timing: _Timing, pixels: int) -> None:
        self.pixels += pixels
        for operation, seconds in timing.best.items():
            self.seconds[operation] = self.seconds.get(operation, 0.0) + seconds

    def result(self) -> Result:
        if not self.lossless:
            return Result(self.row.name, lossless=self.lossless, problem=self.problem)
        bpp = 8 * (self.nbytes + self.row.shared_bytes) / self.pixels
        speeds: dict[str, Any] = {f"{op}_mpix_s": self.pixels / seconds / 1e6 for op, seconds in self.seconds.items()}
        return Result(self.row.name, bpp=bpp, lossless=True, **speeds)


class _Timing:
    """Keep the least time of each operation of a codec on a mask."""

    def __init__(self, calls: dict[str, tuple[Callable[[], object], int]]) -> None:
        self.calls = calls
        """Operation -> (call, how many times it does the operation)."""
        self.best = dict.fromkeys(calls, np.inf)
        self.spent = dict.fromkeys(calls, 0.0)

    def add(self, operation: str, seconds: float) -> None:
        self.spent[operation] += seconds
        self.best[operation] = min(self.best[operation], seconds / self.calls[operation][1])

    def turn(self) -> None:
        for operation, (call, _) in self.calls.items():
            for _ in range(CALLS):
                if self.spent[operation] >= ENOUGH_SECONDS:
                    break
                began = time.process_time()
                call()
                self.add(operation, time.process_time() - began)


def measure(
    rows: Sequence[Row], masks: Sequence[Mask], names: Sequence[str], progress: Callable[[], object] = lambda: None
) -> list[Result]:
    """Return the figures of each row on the same masks.

    Parameters
    ----------
    masks : (H, W) uint8 or uint16 ids each.
    names : of the masks, for messages.
    progress : called when a row is through with a mask.
    """
    tallies = [_Tally(row) for row in rows]
    places = np.random.default_rng(0)
    seen: set[np.dtype[Any]] = set()
    with _no_garbage_collection():
        for index, (mask, name) in enumerate(zip(masks, names, strict=True)):
            case = _Case(mask, name, [_place(mask, places) for _ in range(REGIONS)], mask.dtype not in seen)
            seen.add(mask.dtype)
            timed: list[tuple[_Tally, _Timing]] = []
            for tally in tallies:
                if tally.lossless:
                    timing = _check(tally, tally.row.codec(index, len(masks)), case)
                    timed += [(tally, timing)] if timing else []
                progress()
            for _ in range(TURNS):
                for _, timing in timed:
                    timing.turn()
            for tally, timing in timed:
                tally.add(timing, mask.size)
    return [tally.result() for tally in tallies]


def _check(tally: _Tally, codec: Codec, case: _Case) -> _Timing | None:
    """Encode a mask and look at everything that comes back; None, with the reason in the tally, where it is wrong."""
    mask, name = case.mask, case.name
    if 8 * mask.itemsize > tally.row.bits:
        tally.fail(None, f"takes ids of {tally.row.bits} bits, {name} has {8 * mask.itemsize}")
        return None
    try:  # rivals raise exceptions of every kind, and none of them may end the measurement of the others
        began = time.process_time()
        stored = codec.encode(mask)
        seconds = time.process_time() - began
    except Exception as error:
        tally.fail(None, f"does not encode {name}: {type(error).__name__}: {error}")
        return None
    try:
        wrong = _wrong_part(codec, stored, case)
    except Exception as error:
        tally.fail(False, f"does not decode {name}: {type(error).__name__}: {error}")
        return None
    if wrong:
        tally.fail(False, f"the {wrong} of {name} differs from the original")
        return None
    tally.nbytes += codec.nbytes(stored)
    timing = _Timing(_calls(codec, stored, case))
    if not case.is_first:
        timing.add("encode", seconds)
    return timing


def _wrong_part(codec: Codec, stored: Any, case: _Case) -> str:
    """Return what does not come back exactly, '' if all does."""
    mask = case.mask
    if not _same(codec.decode(stored, mask.shape, mask.dtype), mask):
        return "mask"
    if codec.nodes is not None and not _same(codec.nodes(stored).to_mask(), mask):
        return "tree"
    if codec.coarse is not None and not _same(codec.coarse(stored), TPyramid.from_mask(mask).level(COARSE_LEVEL)):
        return "coarse level"
    if codec.region is not None:
        for y, x, h, w in case.regions:
            if not _same(codec.region(stored, mask.shape, mask.dtype, (y, x, h, w)), mask[y : y + h, x : x + w]):
                return "region"
    return ""


def _same(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    return found.dtype == expected.dtype and np.array_equal(found, expected)


def _calls(codec: Codec, stored: Any, case: _Case) -> dict[str, tuple[Callable[[], object], int]]:
    """Return (call without arguments, operations in it) for each operation that a codec has."""
    mask = case.mask
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "encode": (partial(codec.encode, mask), 1),
        "decode": (partial(codec.decode, stored, mask.shape, mask.dtype), 1),
    }
    if codec.nodes is not None:
        calls["nodes"] = (partial(codec.nodes, stored), 1)
    if codec.coarse is not None:
        calls["coarse"] = (partial(codec.coarse, stored), 1)
    if codec.region is not None:
        decode = codec.region
        regions = case.regions
        calls["region"] = (lambda: [decode(stored, mask.shape, mask.dtype, r) for r in regions], len(regions))
    return calls


def _place(mask: Mask, rng: np.random.Generator) -> Region:
    """Return a region that lies anywhere in a mask, smaller where the mask is."""
    height, width = (min(REGION_SIDE, side) for side in mask.shape)
    y, x = (int(rng.integers(side - part + 1)) for side, part in zip(mask.shape, (height, width), strict=True))
    return y, x, height, width


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
