"""Measure the small profile: python -m benchmarks.small_frontier [--sets A,B] [--tables DIR] [--json]

For each set: bits per pixel of one tile a mask and of 512 tiles, with tables trained without the set
('out', the figures that count) and with it ('in'), against crackle (the best of markov_model_order 0 and
5), then zstd-19, on the same masks; decode and encode speed in megapixels a second of CPU time, the best of
several, of fresh outputs. crackle gets the mask transposed in Fortran order, whose output needs no further
copy: its fastest layout ('plain' is crackle.compress(mask) as it is called first). On Cityscapes both also
work in 256 x 256 tiles. Every decode is compared with its mask.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import crackle
import numpy as np
import zstandard
from numpy.typing import NDArray

from quadcodec import small
from quadcodec.tables import Tables, shipped

from .label_sets import SETS, family, masks, read
from .train_tables import train_sets

COMPRESSOR = zstandard.ZstdCompressor(level=19)
DECOMPRESSOR = zstandard.ZstdDecompressor()
REPEATS = 5


def crackle_encode(mask: NDArray[Any]) -> bytes:
    """Return the shorter of crackle's two Markov orders, each through zstd-19."""
    volume = np.asfortranarray(mask.T[..., None])
    packed = (COMPRESSOR.compress(crackle.compress(volume, markov_model_order=k)) for k in (0, 5))
    return min(packed, key=len)


def crackle_decode(packed: bytes) -> NDArray[Any]:
    """Return the mask, C-contiguous."""
    volume: NDArray[Any] = crackle.decompress(DECOMPRESSOR.decompress(packed))
    return volume[..., 0].T


def cpu_seconds(function: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the least CPU time of the process, helper threads included."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def tables_without(name: str, folder: Path) -> Tables:
    """Return tables trained on the other sets, kept in ``folder``."""
    path = folder / f"without_{family(name)}.bin"
    if not path.exists():
        path.write_bytes(train_sets([other for other in SETS if family(other) != family(name)]))
    return Tables.from_bytes(path.read_bytes())


def tiles_of(mask: NDArray[Any], side: int) -> list[NDArray[Any]]:
    """Return the tiles of a mask, contiguous."""
    height, width = mask.shape
    return [
        np.ascontiguousarray(mask[y : y + side, x : x + side])
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def measure(name: str, folder: Path) -> dict[str, float]:
    """Return the figures of one set."""
    left_out = tables_without(name, folder)
    variants = {"out": (left_out, None), "in": (None, None), "out512": (left_out, 512)}
    if family(name) == "cityscapes":
        variants["out256"] = (left_out, 256)
    nbytes = dict.fromkeys([*variants, "crackle", "crackle256"], 0)
    seconds = dict.fromkeys(["encode", "decode", "decode512", "crackle", "plain"], 0.0)
    pixels = 0
    for path in masks(name)[0]:
        mask = read(path)
        pixels += mask.size
        for variant, (tables, tile) in variants.items():
            payload = small.encode(mask, tile=tile, tables=tables)
            shape = (*mask.shape, mask.dtype)
            assert (small.decode(payload, *shape, tables=tables) == mask).all(), (path, variant)
            # Shipped tables go without saying; tables without a set are named by four bytes.
            nbytes[variant] += len(payload) - (4 if tables else 0)
            run = partial(small.decode, payload, *shape, tables=tables)
            if variant == "out":
                seconds["encode"] += cpu_seconds(partial(small.encode, mask, tile=None, tables=tables), 3)
                seconds["decode"] += cpu_seconds(run)
            if variant == "out512":
                seconds["decode512"] += cpu_seconds(run)
        packed = crackle_encode(mask)
        assert (crackle_decode(packed) == mask).all(), path
        nbytes["crackle"] += len(packed)
        seconds["crackle"] += cpu_seconds(partial(crackle_decode, packed))
        plain = crackle.compress(mask)
        seconds["plain"] += cpu_seconds(partial(crackle.decompress, plain), 3)
        if "out256" in variants:
            nbytes["crackle256"] += sum(len(crackle_encode(part)) for part in tiles_of(mask, 256))
    rival = nbytes["crackle"]
    result = {
        "masks": len(masks(name)[0]),
        "crackle_bpp": 8 * rival / pixels,
        "bpp": 8 * nbytes["out"] / pixels,
        "ratio": nbytes["out"] / rival,
        "ratio_in": nbytes["in"] / rival,
        "ratio_512": nbytes["out512"] / rival,
        "encode_mpix_s": pixels / seconds["encode"] / 1e6,
        "decode_mpix_s": pixels / seconds["decode"] / 1e6,
        "crackle_mpix_s": pixels / seconds["crackle"] / 1e6,
        "crackle_plain_mpix_s": pixels / seconds["plain"] / 1e6,
        "speed_ratio": seconds["crackle"] / seconds["decode"],
        "speed_ratio_512": seconds["crackle"] / seconds["decode512"],
    }
    if "out256" in variants:
        result["ratio_256_tiles"] = nbytes["out256"] / nbytes["crackle256"]
    return result


def main() -> None:
    """Print one line a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS), help="sets, separated by commas")
    parser.add_argument("--tables", type=Path, default=Path("/tmp"), help="folder for tables without a set")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.tables.mkdir(exist_ok=True)
    shipped()
    results = {}
    for name in args.sets.split(","):
        results[name] = measure(name, args.tables)
        if not args.json:
            print(f"{name:11s}", " ".join(f"{k} {v:.4g}" for k, v in results[name].items()), flush=True)
    if args.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
