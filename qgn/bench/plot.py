"""A picture of what the level-1 block costs against the share of composite cells."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qgn.bench.decoder import Report
from quadcodec.files import write_atomic


def draw_curves(report: Report, path: Path) -> None:
    """Draw seconds against the share of composite cells, the dense block as a line, and write it as PNG."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in report.curves.items():
        axes.plot([100 * p.share for p in points], [1e3 * p.seconds for p in points], "o-", label=f"sparse, {name}")
    axes.axhline(1e3 * report.dense_block_s, color="black", linestyle="--", label="dense")
    axes.set(xlabel="composite cells of level 1, %", ylabel="block of level 1, forward, ms", xlim=0, ylim=0)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomic(path, buffer.getvalue())
