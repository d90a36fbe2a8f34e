"""Pictures: what the level-1 block costs against the share of composite cells, and mIoU against what it costs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qgn.bench.decoder import Report
from qgn.scores import Scores
from quadcodec.files import write_atomic


def draw_curves(report: Report, path: Path) -> None:
    """Draw seconds against the share of composite cells, the dense block as a line, and write it as PNG."""
    figure, axes = _canvas()
    for name, points in report.curves.items():
        axes.plot([100 * p.share for p in points], [1e3 * p.seconds for p in points], "o-", label=f"sparse, {name}")
    axes.axhline(1e3 * report.dense_block_s, color="black", linestyle="--", label="dense")
    axes.set(xlabel="composite cells of level 1, %", ylabel="block of level 1, forward, ms", xlim=0, ylim=0)
    _write(figure, axes, path)


def draw_sweep(scores: Mapping[str, Scores], path: Path) -> None:
    """Draw mIoU against the whole network's multiply-adds, a line for each family of rules, and write it as PNG."""
    figure, axes = _canvas()
    families: dict[str, list[tuple[float, float]]] = {}
    for rule, s in scores.items():
        # 'prod>0.3' and 'prod>0.4' are one family, and so are 'pc sites=100' and 'pc sites=200'.
        families.setdefault(rule.split(">")[0].split()[0], []).append((s.encoder_gmacs + s.decoder_gmacs, s.miou))
    for name, points in families.items():
        axes.plot(*zip(*sorted(points), strict=True), "o-", label=name)
    axes.set(xlabel="GMACs an image, encoder and decoder", ylabel="mIoU, %")
    _write(figure, axes, path)


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _write(figure: Figure, axes: Axes, path: Path) -> None:
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomic(path, buffer.getvalue())
