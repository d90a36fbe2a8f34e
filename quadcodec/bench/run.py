"""From a path to a report: sample the masks, choose the rows, measure them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..tables import Tables
from .measure import Result, measure
from .ours import fast_rows, own_table_rows, small_rows
from .rivals import rival_rows, zstd_dictionary_row
from .row import Row
from .sample import Sample, take_sample

__all__ = ["Report", "bench", "environment", "rows_for"]

PACKAGES = (
    "quadcodec", "numpy", "numba", "pillow", "zstandard", "numcodecs", "imagecodecs", "crackle-codec", "compresso",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Report:
    """Hold what was measured: the rows, a result of each, and the module that each left-out rival lacks."""

    sample: Sample
    rows: tuple[Row, ...]
    results: tuple[Result, ...]
    missing: dict[str, str]

    @property
    def pairs(self) -> list[tuple[Row, Result]]:
        """Each row with its result."""
        return list(zip(self.rows, self.results, strict=True))


def bench(
    path: str | Path,
    *,
    against: Iterable[str],
    layout: str = "auto",
    megapixels: float = 8,
    tables: Tables | None = None,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Report:
    """Measure this package's codecs and rivals on the masks of a store or a folder.

    Parameters
    ----------
    path, layout, megapixels : which masks, as `take_sample`.
    against : names of `rivals.RIVALS`.
    tables : as `rows_for`.
    progress : called with 1 and the number of steps in all, after each step.

    Raises
    ------
    StoreError, ManifestError, MaskError, CorruptRecordError : what lies at ``path`` cannot be read.
    """
    sample = take_sample(path, layout=layout, megapixels=megapixels)
    rows, missing = rows_for(sample, against, tables)
    steps = len(rows) * len(sample.masks)
    results = measure(rows, sample.masks, sample.names, lambda: progress(1, steps))
    return Report(sample, tuple(rows), tuple(results), missing)


def rows_for(sample: Sample, against: Iterable[str], tables: Tables | None) -> tuple[list[Row], dict[str, str]]:
    """Return our rows, then those of the rivals that are installed, and what the other rivals lack.

    Where there are two masks or more, the small profile also gets tables of its own, and so zstd a dictionary,
    each trained on the other half of the masks. These masks bear their share of such a table's bytes: as much as
    of all masks that there are, since a store needs it once.

    Parameters
    ----------
    tables : for masks that the shipped tables were trained on: tables that never saw them. They take the place
        of the shipped ones, which get rows of their own.
    """
    masks = sample.masks
    half = len(masks) // 2
    halves = (masks[:half], masks[half:])
    share = len(masks) / sample.available
    rows = fast_rows() + small_rows(tables)
    if tables:
        rows += small_rows(None, beside=True)
    if half:
        rows += own_table_rows(halves, share)
    rivals, missing = rival_rows(against)
    for row in rivals:
        rows.append(row)
        if row.name == "zstd" and half:
            rows.append(zstd_dictionary_row(halves, share))
    return rows, missing


def environment() -> str:
    """Return the machine and the versions that figures depend on, in two lines."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}\n" + ", ".join(
        found
    )
