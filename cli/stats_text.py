"""Table 5, bytes and class frequencies as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .tables import align

if TYPE_CHECKING:
    from quadcodec.stats import StatsRow

_SHOWN = 12
"""Classes that a table of frequencies lists; the rest is added up."""

_LEGEND = (
    "Qn: percent of pixels in leaves of level n, on the zero-padded canvas; ratio: leaves over pixels, in\n"
    "percent. error: standard error over images. diff.: ours less the paper's."
)


@dataclass(frozen=True)
class _Table:
    title: str
    lines: list[list[str]]
    """Header first; the first two columns hold text, the others numbers."""


def as_text(rows: Sequence[StatsRow]) -> str:
    """Return tables for a terminal of 100 columns."""
    parts = []
    for path, group in _by_path(rows):
        tables = [f"{table.title}\n{align(table.lines, left=2)}" for table in _tables(group)]
        parts.append("\n\n".join([f"{path}: {_about(group[0])}", *tables]))
    return "\n\n\n".join(parts) + f"\n\n{_LEGEND}"


def as_markdown(rows: Sequence[StatsRow]) -> str:
    """Return the same tables in Markdown."""
    parts = []
    for path, group in _by_path(rows):
        parts.append(f"## {path}: {_about(group[0])}")
        for table in _tables(group):
            header, *lines = table.lines
            marks = ["---", "---", *["--:"] * (len(header) - 2)]
            text = "\n".join(
                "| " + " | ".join(cell.strip() for cell in line) + " |" for line in [header, marks, *lines]
            )
            parts.append(f"### {table.title}\n\n{text}")
    return "\n\n".join([*parts, _LEGEND])


def as_csv(rows: Sequence[StatsRow]) -> str:
    """Return one figure a line: percentages with their error, the paper's figure and the difference, bytes, pixels."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["path", "dataset", "split", "classes", "measure", "item", "value", "error", "paper", "difference"])
    for row in rows:
        head = [row.path, row.dataset, row.split, row.classes]
        paper, shares = row.published or {}, row.percent
        for level, share in shares.items():
            key = str(level)
            error = _plain(row.percent_error[level])
            write(
                [*head, "percent", f"Q{level}", share, error, _plain(paper.get(key)), _plain(row.difference.get(key))]
            )
        figures = [_plain(row.leaf_ratio_error), _plain(paper.get("ratio")), _plain(row.difference.get("ratio"))]
        write([*head, "percent", "ratio", row.leaf_ratio_percent, *figures])
        counts = {
            "images": row.images, "pixels": row.pixels, "padded pixels": row.padded_pixels,
            "stored bytes": row.stored_bytes, "source bytes": row.source_bytes, "dense bytes": row.dense_bytes,
        }  # fmt: skip
        for item, count in counts.items():
            write([*head, "count", item, _plain(count), "", "", ""])
        for label in row.class_percent:
            name = row.class_names.get(label, "")
            write([*head, "class pixels", f"{label} {name}".strip(), row.class_pixels[label], "", "", ""])
    return out.getvalue().rstrip("\n")


def _plain(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else str(value)


def _by_path(rows: Sequence[StatsRow]) -> Iterator[tuple[str, list[StatsRow]]]:
    return ((path, list(group)) for path, group in itertools.groupby(rows, key=lambda row: row.path))


def _about(row: StatsRow) -> str:
    return f"{row.dataset}, " + (f"store of profile {row.profile}" if row.profile else "folder of mask files")


def _tables(rows: Sequence[StatsRow]) -> Iterator[_Table]:
    yield _Table("Table 5", _sparsity(rows))
    yield _Table("Bytes, in MB", _bytes([row for row in rows if row.classes == rows[0].classes]))
    for space in dict.fromkeys(row.classes for row in rows):
        what = "raw ids" if space == "raw" else "training classes"
        yield _Table(f"Pixels by class, in percent ({what})", _classes([row for row in rows if row.classes == space]))


def _sparsity(rows: Sequence[StatsRow]) -> list[list[str]]:
    levels = range(max(len(row.leaves) for row in rows) - 1, -1, -1)
    keys = [*(str(level) for level in levels), "ratio"]
    lines = [["split", "ids", "images", *(f"Q{level}" for level in levels), "ratio"]]
    for row in rows:
        ours = {**{str(level): share for level, share in row.percent.items()}, "ratio": row.leaf_ratio_percent}
        errors = {**{str(level): error for level, error in row.percent_error.items()}, "ratio": row.leaf_ratio_error}
        lines.append([row.split, row.classes, str(row.images), *(_two(ours.get(key)) for key in keys)])
        lines.append(["  error", "", "", *(_two(errors.get(key)) for key in keys)])
        if row.published is not None:
            lines.append(["  paper", "", "", *(_two(row.published.get(key)) for key in keys)])
            lines.append(["  diff.", "", "", *(_two(row.difference.get(key), sign="+") for key in keys)])
    return lines


def _two(value: float | None, sign: str = "") -> str:
    return "-" if value is None or math.isnan(value) else f"{value:{sign}.2f}"


def _bytes(rows: Sequence[StatsRow]) -> list[list[str]]:
    lines = [["split", "", "records", "bits/pixel", "mask files", "records/files", "dense", "records/dense"]]
    for row in rows:
        files = "-" if row.source_bytes is None else f"{row.source_bytes / 1e6:.2f}"
        dense = f"{row.dense_bytes / 1e6:.2f}"
        if not row.profile:
            lines.append([row.split, "", "-", "-", files, "-", dense, "-"])
            continue
        of_files = "-" if row.source_bytes is None else f"{row.stored_bytes / row.source_bytes:.3f}"
        bits, of_dense = f"{8 * row.stored_bytes / row.pixels:.4f}", f"{row.stored_bytes / row.dense_bytes:.4f}"
        lines.append([row.split, "", f"{row.stored_bytes / 1e6:.2f}", bits, files, of_files, dense, of_dense])
    return lines


def _classes(rows: Sequence[StatsRow]) -> list[list[str]]:
    """Return the most frequent classes of all splits together, and what the others add up to."""
    pixels: dict[int, int] = {}
    for row in rows:
        for label, count in row.class_pixels.items():
            pixels[label] = pixels.get(label, 0) + count
    order = sorted(pixels, key=lambda label: (-pixels[label], label))
    shown, rest = order[:_SHOWN], order[_SHOWN:]
    lines = [["id", "name", *(row.split for row in rows)]]
    for label in shown:
        name = rows[0].class_names.get(label, "")
        lines.append(
            ["-" if label < 0 else str(label), name, *(_two(row.class_percent.get(label, 0.0)) for row in rows)]
        )
    if rest:
        shares = [sum(row.class_percent.get(label, 0.0) for label in rest) for row in rows]
        lines.append(["", f"{len(rest)} others", *(_two(share) for share in shares)])
    return lines
