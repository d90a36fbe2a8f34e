"""Measure the small profile: python -m benchmarks.small_frontier [--sets A,B] [--tables DIR] [--json]

For each set: bits per pixel of the records, decode and encode speed, against crackle + zstd-19 and JPEG XL on the same
masks in the same run, as `quadcodec bench` measures them (CPU time, turn by turn, least of several; every decode is
compared with its mask). The figures that count ('small') are of tables trained without the set; '-shipped' of those
of the package, which saw it. 'own_gain' is what tables of the other half of the masks save; with the bytes of such a
table they pay in stores of more than 'own_pays_from' bytes of records.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from quadcodec.bench.measure import Result, measure
from quadcodec.bench.ours import own_table_rows, small_rows
from quadcodec.bench.rivals import rival_rows
from quadcodec.bench.row import Row
from quadcodec.tables import Tables

from .label_sets import SETS, family, masks, read
from .train_tables import train_sets


def tables_without(name: str, folder: Path) -> Tables:
    """Return tables trained on the other sets, kept in ``folder``."""
    path = folder / f"without_{family(name)}.bin"
    if not path.exists():
        path.write_bytes(train_sets([other for other in SETS if family(other) != family(name)]))
    return Tables.from_bytes(path.read_bytes())


def figures_of(name: str, folder: Path) -> dict[str, float]:
    """Return the figures of a set: sizes as shares of the rival's, speeds as multiples of it."""
    paths = masks(name)[0]
    arrays = [read(path) for path in paths]
    rows = small_rows(tables_without(name, folder)) + small_rows(None, beside=True)
    own: list[Row] = []
    if len(arrays) > 1:
        half = len(arrays) // 2
        own = own_table_rows((arrays[:half], arrays[half:]), share=1)
    rivals, missing = rival_rows(["crackle", "jxl"])
    if missing:
        raise SystemExit(f"{', '.join(missing)}: not installed. Run: pip install '.[bench]'")
    results = {result.name: result for result in measure(rows + own + rivals, arrays, [path.name for path in paths])}
    wrong = [key for key, result in results.items() if not result.lossless]
    if wrong:
        raise SystemExit(f"{name}: {', '.join(wrong)} did not give the masks back")
    figures = {"masks": len(arrays), **_compare(results)}
    if own:
        pixels = sum(array.size for array in arrays)
        saved = 1 - ((results["small-own"].bpp or math.nan) * pixels / 8 - own[0].shared_bytes) / (
            (results["small"].bpp or math.nan) * pixels / 8
        )
        figures |= {"own_gain": saved, "own_pays_from": own[0].shared_bytes / saved if saved > 0 else math.inf}
    return figures


def _compare(results: dict[str, Result]) -> dict[str, float]:
    def size(ours: str, rival: str) -> float:
        return (results[ours].bpp or math.nan) / (results[rival].bpp or math.nan)

    def speed(ours: str, rival: str) -> float:
        return (results[ours].decode_mpix_s or math.nan) / (results[rival].decode_mpix_s or math.nan)

    whole = results["small-whole"]
    return {
        "crackle_bpp": results["crackle"].bpp or math.nan,
        "bpp": whole.bpp or math.nan,
        "size": size("small-whole", "crackle"),
        "size_shipped": size("small-whole-shipped", "crackle"),
        "size_512": size("small", "crackle"),
        "size_256": size("small-256", "crackle-256"),
        "size_jxl": size("small-whole", "jxl"),
        "decode": speed("small-whole", "crackle"),
        "decode_512": speed("small", "crackle"),
        "decode_jxl": speed("small", "jxl"),
        "decode_mpix_s": results["small"].decode_mpix_s or math.nan,
        "encode_mpix_s": results["small"].encode_mpix_s or math.nan,
    }


def main() -> None:
    """Print one line a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS), help="sets, separated by commas")
    parser.add_argument("--tables", type=Path, default=Path("/tmp"), help="folder for tables without a set")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.tables.mkdir(exist_ok=True)
    figures = {}
    for name in args.sets.split(","):
        figures[name] = figures_of(name, args.tables)
        if not args.json:
            print(f"{name:11s}", " ".join(f"{k} {v:.4g}" for k, v in figures[name].items()), flush=True)
    if args.json:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
