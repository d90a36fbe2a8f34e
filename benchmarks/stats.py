"""Speed of Table 5's counts from a fast store, one core, beside decoding PNGs and reducing them with numpy.

    python -m benchmarks.stats [MASK.png ...]

Without masks: those of QUADCODEC_TEST_DATA, else generated street scenes. Each way gives the same leaves and the same
pixels by class, which is checked. CPU time, best of several interleaved runs; machines differ, so read the ratios.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import quadcodec
from quadcodec.masks import read_mask
from quadcodec.scenes import street_labels
from quadcodec.stats import stats
from quadcodec_cli.tables import align

RUNS = 5
COPIES = 64
"""Times that each mask stands in the store, so that opening it weighs little."""
Counts = tuple[list[int], list[int]]


def find_masks(arguments: list[str]) -> tuple[str, list[NDArray[np.uint8]]]:
    """Return where the masks are from, and the masks."""
    folder = os.environ.get("QUADCODEC_TEST_DATA")
    files = sorted(Path(folder).glob("cityscapes/gtFine/*/*/*_labelIds.png"))[:6] if folder else []
    if arguments or files:
        where = ", ".join(arguments) or f"{len(files)} Cityscapes masks"
        return where, [read_mask(file) for file in arguments or files]
    return "4 generated street scenes", [street_labels(0, (1024, 2048), index) for index in range(4)]


def png(mask: NDArray[np.uint8]) -> bytes:
    """Encode as Pillow does by default."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return buffer.getvalue()


def numpy_counts(mask: NDArray[np.uint8], levels: int = 6) -> Counts:
    """Return leaves by level and pixels by class id of a mask, with array operations only."""
    size = 1 << (levels - 1)
    pixels = np.bincount(mask.ravel(), minlength=256)
    cells: NDArray[Any] = np.pad(mask, [(0, -side % size) for side in mask.shape])
    uniform = np.ones(cells.shape, np.bool_)
    whole = [cells.size]
    for _ in range(1, levels):
        corner = cells[::2, ::2]
        same = (corner == cells[1::2, ::2]) & (corner == cells[::2, 1::2]) & (corner == cells[1::2, 1::2])
        uniform = uniform[::2, ::2] & uniform[1::2, ::2] & uniform[::2, 1::2] & uniform[1::2, 1::2] & same
        cells = corner
        whole.append(int(uniform.sum()))
    leaves = [whole[level] - (4 * whole[level + 1] if level + 1 < levels else 0) for level in range(levels)]
    return leaves, pixels.tolist()


def from_pngs(files: list[bytes]) -> Counts:
    """Decode PNGs and add up their counts."""
    leaves, pixels = np.zeros(6, np.int64), np.zeros(256, np.int64)
    for data in files:
        one, classes = numpy_counts(np.asarray(Image.open(io.BytesIO(data))))
        leaves, pixels = leaves + one, pixels + classes
    return leaves.tolist(), pixels.tolist()


def from_store(path: Path) -> Counts:
    """Ask `quadcodec.stats` for the same counts, store opened anew."""
    (row,) = stats(path, workers=1)
    return list(row.leaves), [row.class_pixels.get(label, 0) for label in range(256)]


def main() -> None:
    """Print the table."""
    where, masks = find_masks(sys.argv[1:])
    pixels = sum(mask.size for mask in masks)
    files = [png(mask) for mask in masks]
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, tuple[int, Callable[[], Counts]]] = {"PNG + numpy": (1, lambda: from_pngs(files))}
        for profile in ("fast", "small"):
            path = Path(folder) / f"{profile}.zarr"
            quadcodec.write(path, masks * COPIES, profile=profile)
            calls[f"store, {profile}"] = (COPIES, lambda path=path: from_store(path))
        expected = from_pngs(files)
        times = dict.fromkeys(calls, float("inf"))
        for _ in range(RUNS):
            for name, (copies, call) in calls.items():
                began = time.process_time()
                counts = call()
                times[name] = min(times[name], (time.process_time() - began) / copies)
                assert counts == tuple([copies * count for count in part] for part in expected), name
    base = times["PNG + numpy"]
    rows = [["Table 5 and class frequencies from", "GPix/s", "x PNG + numpy"]]
    rows += [[name, f"{pixels / seconds / 1e9:.2f}", f"{base / seconds:.1f}"] for name, seconds in times.items()]
    print(f"{where}, one process\n\n{align(rows)}")


if __name__ == "__main__":
    main()
