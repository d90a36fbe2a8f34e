"""Draw size against decoding speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from .row import Row
from .run import Report

__all__ = ["draw"]

DPI = 150
# Colours of Okabe and Ito, which most colour-blind people can tell apart.
COLORS = {"fast": "#D55E00", "small": "#0072B2", "": "#5F5F5F"}
TUNED, FRONTIER = "#56B4E9", "#009E73"
_HALF = 12
"""Half the side of the square around a point that no label may cover, in pixels."""


_OURS: dict[str, Any] = {"marker": "o", "ms": 10, "mec": "white", "mew": 0.8}
_TUNED: dict[str, Any] = {"marker": "o", "ms": 6, "mec": "white", "mew": 0.8}
_RIVAL: dict[str, Any] = {"marker": "s", "ms": 7, "mec": "white", "mew": 0.8}
_NODES: dict[str, Any] = {"marker": "o", "ms": 8, "mfc": "white", "mec": COLORS["fast"], "mew": 1.6}


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
    nodes: float | None
    row: Row

    @property
    def color(self) -> str:
        return TUNED if self.row.profile and self.row.tuned else COLORS[self.row.profile]

    @property
    def marker(self) -> dict[str, Any]:
        return _RIVAL if not self.row.profile else _TUNED if self.row.tuned else _OURS


def draw(report: Report) -> NDArray[np.uint8]:
    """Return an (H, W, 3) picture: bits a pixel against dense decoding speed, both on log axes, a point a codec.

    The fast profile has a second, hollow point for decoding to tree nodes, without a raster. A line joins the
    codecs than which no other is both smaller and faster. Ours with tables that know the set have no name.
    """
    figure = Figure(figsize=(10, 6.6), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    points = [
        _Point(r.bpp, r.decode_mpix_s, r.nodes_mpix_s if row.profile == "fast" else None, row)
        for row, r in report.pairs
        if r.bpp is not None and r.decode_mpix_s is not None
    ]
    _draw_frontier(axes, points)
    for point in points:
        axes.plot(point.x, point.y, ls="", color=point.color, zorder=4, **point.marker)
        if point.nodes is not None:
            axes.plot([point.x] * 2, [point.y, point.nodes], color=point.color, lw=1, ls=":", zorder=1)
            axes.plot(point.x, point.nodes, ls="", zorder=3, **_NODES)
    _finish(figure, axes, report)
    canvas.draw()
    _place_labels(axes, canvas, points)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_frontier(axes: Axes, points: Sequence[_Point]) -> None:
    frontier: list[_Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not frontier or point.y > frontier[-1].y:
            frontier.append(point)
    x, y = [p.x for p in frontier], [p.y for p in frontier]
    axes.step(x, y, where="post", color=FRONTIER, lw=5, alpha=0.25, zorder=0, solid_joinstyle="round")


def _finish(figure: Figure, axes: Axes, report: Report) -> None:
    """Set margins, ticks, titles and the legend."""
    axes.margins(0.14, 0.12)
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 4, 5, 7)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(color="#E3E3E3", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("bits per pixel   (smaller is better)", fontsize=11)
    axes.set_ylabel("decoding, megapixels a second of one thread   (higher is better)", fontsize=11)
    sample = report.sample
    axes.set_title(f"Label masks of {sample.dataset}: size against decoding speed", fontsize=14, loc="left", pad=24)
    subtitle = f"{len(sample.masks)} of {sample.available} masks, {sample.pixels / 1e6:.1f} megapixels, all lossless"
    axes.text(0, 1.018, subtitle, transform=axes.transAxes, fontsize=10, color="#555555")
    handles = [
        Line2D([], [], ls="", color=COLORS["fast"], label="quadcodec fast, to a raster", **_OURS),
        Line2D([], [], ls="", label="quadcodec fast, to tree nodes", **_NODES),
        Line2D([], [], ls="", color=COLORS["small"], label="quadcodec small, to a raster", **_OURS),
        Line2D([], [], ls="", color=TUNED, label="the same, tables that know this set", **_TUNED),
        Line2D([], [], ls="", color=COLORS[""], label="others, to a raster", **_RIVAL),
        Line2D([], [], color=FRONTIER, lw=5, alpha=0.25, label="nothing is smaller and faster"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9.5, frameon=False)


def _place_labels(axes: Axes, canvas: FigureCanvasAgg, points: Sequence[_Point]) -> None:
    """Write each name beside its point, where it covers no point and no other name."""
    places = axes.transData.transform([(p.x, p.y) for p in points])
    nodes = axes.transData.transform([(p.x, p.nodes) for p in points if p.nodes is not None]).reshape(-1, 2)
    anchors = [Bbox.from_bounds(x - _HALF, y - _HALF, 2 * _HALF, 2 * _HALF) for x, y in (*places, *nodes)]
    taken = list(anchors)
    for (x, y), (_, top) in zip(places[[p.nodes is not None for p in points]], nodes, strict=True):
        taken.append(Bbox.from_extents(x - 2, min(y, top), x + 2, max(y, top)))
    frame = axes.get_window_extent()
    for point, anchor in zip(points, anchors, strict=False):
        if point.marker is _TUNED:
            continue
        style: dict[str, Any] = {
            "color": point.color, "fontsize": 9.5, "weight": "bold" if point.row.profile else "normal",
            "zorder": 5, "va": "bottom", "path_effects": [withStroke(linewidth=3, foreground="white")],
        }  # fmt: skip
        measured = axes.annotate(point.row.name, (point.x, point.y), **style)
        size = measured.get_window_extent(canvas.get_renderer())
        measured.remove()
        others = [other for other in anchors if other is not anchor]
        far, box = min(
            _candidates(anchor, size.width, size.height),
            key=lambda spot: spot[0] + _cost(spot[1], anchor, taken, others, frame),
        )
        taken.append(box)
        offset = (box.x0 - (anchor.x0 + _HALF), box.y0 - (anchor.y0 + _HALF))
        leader = {"arrowstyle": "-", "color": point.color, "lw": 0.6, "shrinkB": 4} if far >= 3 else None
        axes.annotate(
            point.row.name, (point.x, point.y), offset, textcoords="offset pixels", arrowprops=leader, **style
        )


def _candidates(anchor: Bbox, width: float, height: float) -> Iterator[tuple[float, Bbox]]:
    """Yield (how far and how odd it is, box) of places around a point's own box, the right of it first."""
    x0, y0 = anchor.x0 + _HALF, anchor.y0 + _HALF
    directions = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
    for ring, (order, (dx, dy)) in product(range(6), enumerate(directions)):
        gap = _HALF + 1 + 16 * ring
        x, y = x0 + dx * gap - width * (1 - dx) / 2, y0 + dy * gap - height * (1 - dy) / 2
        yield 3 * ring + order / 4, Bbox.from_bounds(x, y, width, height)


def _cost(box: Bbox, anchor: Bbox, taken: Sequence[Bbox], others: Sequence[Bbox], frame: Bbox) -> float:
    """Return what a place costs: for what it would cover, for points nearer than its own, and outside the frame."""
    outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
    covered = sum(bool(box.overlaps(other)) for other in taken)
    nearer = sum(_gap(box, other) <= _gap(box, anchor) for other in others)
    return 100.0 * covered + 2.0 * nearer + (1000.0 if outside else 0.0)


def _gap(a: Bbox, b: Bbox) -> float:
    """Return how far two boxes are apart."""
    dx = max(a.x0 - b.x1, b.x0 - a.x1, 0.0)
    dy = max(a.y0 - b.y1, b.y0 - a.y1, 0.0)
    return float(np.hypot(dx, dy))
