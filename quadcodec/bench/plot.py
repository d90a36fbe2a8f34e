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
POINT_PIXELS = 13
"""Half the side of the square around a point that no label may cover."""


_OURS: dict[str, Any] = {"marker": "o", "ms": 10, "mec": "white", "mew": 0.8}
_TUNED: dict[str, Any] = {"marker": "o", "ms": 6, "mec": "white", "mew": 0.8}
_RIVAL: dict[str, Any] = {"marker": "s", "ms": 7, "mec": "white", "mew": 0.8}
_NODES: dict[str, Any] = {"marker": "o", "ms": 8, "mfc": "white", "mec": COLORS["fast"], "mew": 1.6}


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
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
    points = []
    for row, r in report.pairs:
        if r.bpp is None or r.decode_mpix_s is None:
            continue
        points.append(_Point(r.bpp, r.decode_mpix_s, row))
        if r.nodes_mpix_s is not None and row.profile == "fast":
            axes.plot([r.bpp] * 2, [r.decode_mpix_s, r.nodes_mpix_s], color=COLORS["fast"], lw=1, ls=":", zorder=1)
            axes.plot(r.bpp, r.nodes_mpix_s, ls="", zorder=3, **_NODES)
    _draw_frontier(axes, points)
    for point in points:
        axes.plot(point.x, point.y, ls="", color=point.color, zorder=4, **point.marker)
    _finish(axes, report)
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


def _finish(axes: Axes, report: Report) -> None:
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
    axes.legend(handles=handles, loc="best", fontsize=9, frameon=True, framealpha=0.9, edgecolor="#DDDDDD")


def _place_labels(axes: Axes, canvas: FigureCanvasAgg, points: Sequence[_Point]) -> None:
    """Write each name beside its point, where it covers no point, no other name and not the legend."""
    places = axes.transData.transform([(p.x, p.y) for p in points])
    taken = [
        Bbox.from_bounds(x - POINT_PIXELS, y - POINT_PIXELS, 2 * POINT_PIXELS, 2 * POINT_PIXELS) for x, y in places
    ]
    legend = axes.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent())
    frame = axes.get_window_extent()
    for point, (px, py) in zip(points, places, strict=True):
        if point.marker is _TUNED:
            continue
        at, name = (point.x, point.y), point.row.name
        style: dict[str, Any] = {
            "color": point.color,
            "fontsize": 9.5,
            "zorder": 5,
            "path_effects": [withStroke(linewidth=3, foreground="white")],
        }
        style["weight"] = "bold" if point.row.profile else "normal"
        label = axes.annotate(name, at, **style)
        size = label.get_window_extent(canvas.get_renderer())
        best = min(_candidates(px, py, size), key=lambda spot: spot[0] + _cost(spot[1], taken, frame))
        box = best[1]
        taken.append(box)
        label.remove()
        axes.annotate(
            name, at, (box.x0 - px, box.y0 - py), textcoords="offset pixels", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": point.color, "lw": 0.6, "shrinkB": 4} if best[0] > 4 else None,
            **style,
        )  # fmt: skip


def _candidates(px: float, py: float, size: Any) -> Iterator[tuple[float, Bbox]]:
    """Yield (how far and how odd it is, box) of places around a point, the right of it first."""
    for ring, (order, (dx, dy)) in product(range(6), enumerate(_DIRECTIONS)):
        gap = POINT_PIXELS + 3 + 16 * ring
        x = px + dx * gap - size.width * (1 - np.sign(dx)) / 2
        y = py + dy * gap - size.height * (1 - np.sign(dy)) / 2
        yield 3 * ring + order / 4, Bbox.from_bounds(x, y, size.width, size.height)


_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8))


def _cost(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Return what a place costs: much for each thing that it would cover, more for leaving the frame."""
    outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
    covered = sum(bool(box.overlaps(other)) for other in taken)
    return 100.0 * covered + (1000.0 if outside else 0.0)
