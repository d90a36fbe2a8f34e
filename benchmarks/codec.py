"""Measure the codec beside its rivals on the sets of real masks: python -m benchmarks.codec [--sets A,B] OUT

`quadcodec bench` does the same for one's own masks. Here the small profile has tables that were trained
without the set ('small', 'small-whole', 'small-256': the figures that count), the shipped ones, which were
trained on other masks of the set ('-shipped'), and tables of the set alone ('-own'). Masks that are measured
were never trained on, except in sets of fewer than eight. The figures of a set go to OUT/SET.json; a set that
is there already is not measured again, so that long runs can be cut into short ones. Prints what OUT holds:
tables of ratios, and the targets with what was reached.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from quadcodec import encode
from quadcodec.bench.measure import measure
from quadcodec.bench.rivals import RIVALS
from quadcodec.bench.run import environment, rows_for
from quadcodec.bench.sample import Sample
from quadcodec.tables import Tables

from .label_sets import SETS, family, masks, read
from .train_tables import train_sets

Figures = dict[str, dict[str, Any]]
"""Row -> its figures."""


def tables_without(name: str, folder: Path) -> Tables:
    """Return tables trained on the other sets, kept in ``folder``."""
    path = folder / f"without_{family(name)}.bin"
    if not path.exists():
        path.write_bytes(train_sets([other for other in SETS if family(other) != family(name)]))
    return Tables.from_bytes(path.read_bytes())


def measure_set(name: str, folder: Path) -> dict[str, Any]:
    """Return the figures of one set against all rivals."""
    measured, trained = masks(name)
    sample = Sample(
        path=name,
        dataset=name,
        names=tuple(path.name for path in measured),
        masks=tuple(read(path) for path in measured),
        available=len({*measured, *trained}),
    )
    rows, missing = rows_for(sample, RIVALS, tables_without(name, folder))
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing.values())}. pip install 'quadcodec[bench]'")
    with tqdm(desc=name, total=len(rows) * len(sample.masks)) as bar:
        results = measure(rows, sample.masks, sample.names, lambda: bar.update(1))
    for result in results:
        if result.problem:
            print(f"{name}: {result.name}: {result.problem}")
    return {
        "masks": len(measured),
        "megapixels": sample.pixels / 1e6,
        "environment": environment(),
        "codecs": [result.to_json() for result in results],
    }


Cell = tuple[str, str, str, str, str]
"""(head, row, figure, row and figure it is divided by, or '' and '' for the figure itself)."""
SPEED = "{}_mpix_s"
RIVAL_NAMES = ("crackle", "jxl", "webp", "zstd", "compresso", "zarr-default", "png")
DEFAULT = ("zarr-default", "decode_mpix_s")
TABLES: dict[str, list[Cell]] = {
    "small in one tile, tables without the set: size": [
        ("bits/pixel", "small-whole", "bpp", "", ""),
        *((f"x {rival}", "small-whole", "bpp", rival, "bpp") for rival in RIVAL_NAMES),
    ],
    "small: tilings and tables, size": [
        ("one tile, x crackle", "small-whole", "bpp", "crackle", "bpp"),
        ("with the shipped tables", "small-whole-shipped", "bpp", "crackle", "bpp"),
        ("with tables of its own", "small-whole-own", "bpp", "crackle", "bpp"),
        ("512 tiles, x crackle", "small", "bpp", "crackle", "bpp"),
        ("256 tiles, x crackle-256", "small-256", "bpp", "crackle-256", "bpp"),
        ("zstd with a dictionary, x zstd", "zstd-own", "bpp", "zstd", "bpp"),
    ],
    "small, tables without the set: MPix/s": [
        ("encode", "small-whole", "encode_mpix_s", "", ""),
        ("decode", "small-whole", "decode_mpix_s", "", ""),
        ("512 tiles", "small", "decode_mpix_s", "", ""),
        ("its nodes", "small", "nodes_mpix_s", "", ""),
        ("its regions", "small", "region_mpix_s", "", ""),
        ("decode, x crackle", "small-whole", "decode_mpix_s", "crackle", "decode_mpix_s"),
        ("512 tiles, x crackle", "small", "decode_mpix_s", "crackle", "decode_mpix_s"),
        ("decode, x jxl", "small-whole", "decode_mpix_s", "jxl", "decode_mpix_s"),
        ("x webp", "small-whole", "decode_mpix_s", "webp", "decode_mpix_s"),
    ],
    "fast: size, MPix/s": [
        ("bits/pixel", "fast", "bpp", "", ""),
        ("x zarr-default", "fast", "bpp", "zarr-default", "bpp"),
        ("x zstd", "fast", "bpp", "zstd", "bpp"),
        ("raw, bits/pixel", "fast-raw", "bpp", "", ""),
        *((op, "fast", SPEED.format(op), "", "") for op in ("encode", "decode", "nodes", "coarse", "region")),
        ("nodes, x zarr-default decode", "fast", "nodes_mpix_s", *DEFAULT),
        ("raw nodes, x zarr-default decode", "fast-raw", "nodes_mpix_s", *DEFAULT),
        ("coarse, x zarr-default decode", "fast", "coarse_mpix_s", *DEFAULT),
        ("region, x zarr-default-256", "fast", "region_mpix_s", "zarr-default-256", "region_mpix_s"),
    ],
}  # fmt: skip


def _ratio(figures: Figures, ours: str, key: str, rival: str, rival_key: str = "") -> float:
    return float(figures[ours][key] / figures[rival][rival_key or key])


def _cell(figures: Figures, cell: Cell) -> str:
    _, row, key, rival, rival_key = cell
    if row not in figures:
        return "-"
    if rival:
        return f"{_ratio(figures, row, key, rival, rival_key):.2f}"
    return f"{figures[row][key]:.0f}" if key.endswith("s") else f"{figures[row][key]:.4g}"


def print_figures(sets: dict[str, Figures], counts: dict[str, int]) -> None:
    """Print bits a pixel and speeds, and ours as a share or multiple ('x') of a rival's."""
    for title, cells in TABLES.items():
        print(f"**{title}**\n")
        rows = [[name, str(counts[name]), *(_cell(f, cell) for cell in cells)] for name, f in sets.items()]
        _print_table(["set", "masks", *(cell[0] for cell in cells)], rows)


def noise_excess() -> tuple[float, str]:
    """Return the worst of (record bytes - 1.02 x raster bytes) on noise of many sizes and kinds, and where."""
    rng = np.random.default_rng(0)
    worst = (-np.inf, "")
    for size in ((1, 1), (3, 5), (17, 31), (64, 64), (100, 257), (512, 512), (1000, 1000)):
        for high, dtype in ((2, np.uint8), (20, np.uint8), (256, np.uint8), (65536, np.uint16)):
            mask = rng.integers(0, high, size, dtype)
            for profile in ("fast", "raw", "small"):
                excess = len(encode(mask, profile=profile)) - 1.02 * mask.nbytes
                worst = max(worst, (excess, f"{profile}, {size[0]}x{size[1]}, {high} ids"))
    return float(worst[0]), worst[1]


def print_targets(sets: dict[str, Figures]) -> None:
    """Print each target, what was reached on the set where it is furthest off, and whether it holds."""
    decode, bpp = "decode_mpix_s", "bpp"
    everywhere, city = list(sets), [name for name in sets if name == "cityscapes"]
    targets: list[tuple[str, list[str], Any, float, float | None]] = [  # must, stretch; < 0: at most
        ("small-whole, size / crackle", everywhere, lambda f: _ratio(f, "small-whole", bpp, "crackle"), -0.80, -0.70),
        ("small-whole, decode / crackle", everywhere, lambda f: _ratio(f, "small-whole", decode, "crackle"), 1, 1.5),
        ("small-whole, decode / crackle", city, lambda f: _ratio(f, "small-whole", decode, "crackle"), 3, None),
        ("small-256, size / crackle-256", city, lambda f: _ratio(f, "small-256", bpp, "crackle-256"), -0.55, -0.45),
        ("small-whole, size / jxl", everywhere, lambda f: _ratio(f, "small-whole", bpp, "jxl"), -0.65, -0.5),
        ("small-whole, decode / jxl", everywhere, lambda f: _ratio(f, "small-whole", decode, "jxl"), 10, None),
        ("small, encode, MPix/s", city, lambda f: f["small"]["encode_mpix_s"], 150, 400),
        ("fast-raw, bits/pixel", city, lambda f: f["fast-raw"][bpp], -0.10, None),
        ("fast, size / zarr-default", city, lambda f: _ratio(f, "fast", bpp, "zarr-default"), -0.68, -0.6),
        ("fast, nodes / zarr-default decode", city,
         lambda f: _ratio(f, "fast", "nodes_mpix_s", "zarr-default", decode), 1, 2),
        ("fast, coarse / zarr-default decode", city,
         lambda f: _ratio(f, "fast", "coarse_mpix_s", "zarr-default", decode), 5, None),
        ("fast, nodes / zarr-default decode", everywhere,
         lambda f: _ratio(f, "fast", "nodes_mpix_s", "zarr-default", decode), 1, 2),
        ("fast, coarse / zarr-default decode", everywhere,
         lambda f: _ratio(f, "fast", "coarse_mpix_s", "zarr-default", decode), 5, None),
        ("fast, encode, MPix/s", city, lambda f: f["fast"]["encode_mpix_s"], 400, 800),
    ]  # fmt: skip
    rows = []
    for what, names, figure, must, stretch in targets:
        sign = -1 if must < 0 else 1
        found = {name: figure(sets[name]) for name in names}
        if not found:
            continue
        worst = min(found, key=lambda name: sign * found[name])
        holding = sum(sign * value >= must for value in found.values())
        verdict = "holds" if holding == len(found) else f"does not hold: on {holding} of {len(found)} sets"
        if stretch is not None:
            beyond = sum(sign * value >= stretch for value in found.values())
            verdict += f"; stretch {abs(stretch):g} on {beyond} of {len(found)}"
        limit = f"{'<=' if sign < 0 else '>='} {abs(must):g}"
        rows.append([what, limit, f"{found[worst]:.3g} ({worst})", verdict])
    excess, where = noise_excess()
    verdict = "holds" if excess <= 64 else "does not hold"
    rows.append(["noise, bytes above 1.02 x raster", "<= 64", f"{excess:.0f} ({where})", verdict])
    _print_table(["target", "must", "worst set", "verdict"], rows)


def _print_table(heads: list[str], rows: list[list[str]]) -> None:
    for row in [heads, ["---"] * len(heads), *rows]:
        print("| " + " | ".join(row) + " |")
    print()


def main() -> None:
    """Measure what OUT lacks of the sets, and print the tables of all that it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS), help="sets, separated by commas; '' to print only")
    parser.add_argument("out", type=Path, help="folder of results and of tables trained without a set")
    args = parser.parse_args()
    if "QUADCODEC_TEST_DATA" not in os.environ:
        raise SystemExit("no real masks here: set QUADCODEC_TEST_DATA to a folder of them, or run 'quadcodec bench'")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in filter(None, args.sets.split(",")):
        path = args.out / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(measure_set(name, args.out), indent=1))
    found = {
        name: json.loads((args.out / f"{name}.json").read_text())
        for name in SETS
        if (args.out / f"{name}.json").exists()
    }
    sets = {name: {row["name"]: row for row in result["codecs"]} for name, result in found.items()}
    for text in dict.fromkeys(result["environment"] for result in found.values()):
        print(text, end="\n\n")
    print_figures(sets, {name: result["masks"] for name, result in found.items()})
    print_targets(sets)


if __name__ == "__main__":
    main()
