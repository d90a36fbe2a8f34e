"""Train the tables of the small profile: python -m benchmarks.train_tables [--without SET] OUT.bin

QUADCODEC_TEST_DATA names the folder of the data sets. Without --without, all sets are trained on: that is how
quadcodec/small_tables_0.bin was made. Deterministic: the same masks give the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from quadcodec.table_training import Tile, count_edges, cut, train

from .label_sets import SETS, family, masks, read

QUOTA = 160_000
"""Edges between pixels that each set gives at most, so that no set outweighs the others."""


def training_tiles(name: str) -> list[Tile]:
    """Return tiles of a set with their palettes, in a random order that is always the same."""
    tiles = [tile for path in masks(name)[1] for tile in cut(read(path))]
    order = np.random.default_rng(0).permutation(len(tiles))
    kept, edges = [], 0
    for i in order:
        edges += count_edges(tiles[i])
        kept.append(tiles[i])
        if edges > QUOTA:
            break
    return kept


def train_sets(names: list[str]) -> bytes:
    """Return the table file trained on the sets ``names``."""
    return train([tile for name in names for tile in training_tiles(name)])


def main() -> None:
    """Write a table file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", default="", help="leave this set (and its family) out")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    names = [name for name in SETS if not args.without or family(name) != family(args.without)]
    args.out.write_bytes(train_sets(names))
    print(f"{args.out}: {args.out.stat().st_size} bytes from {len(names)} sets")


if __name__ == "__main__":
    main()
