"""Confusion matrices for the eye and for other programs: a picture, and a CSV file.

Shapes: k classes; rows are true classes, columns predicted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from quadcodec.sheet import LegendEntry, Panel, arrange, lay_out

RGB = NDArray[np.uint8]

_CELL_SIDES = 14, 52
"""Least and most pixels of a cell's side."""
_MATRIX_SIDE = 900
_NUMBERS_FROM = 26
"""Cells of this side have room for their percentage."""
_LONGEST_NAME = 24
_INK, _PAPER, _LINE, _EMPTY = (25, 25, 30), (255, 255, 255), (226, 226, 232), (240, 240, 240)
_STRONG = np.array((8, 48, 107))
_LEGEND = 0, 1, 5, 10, 25, 50, 100


@dataclass(frozen=True, eq=False)
class NamedMatrix:
    """Hold a confusion matrix, (k, k) int64 pixels, its title, and what is said of it."""

    title: str
    note: str
    counts_kk: NDArray[np.int64]


def draw_confusion(matrices: Sequence[NamedMatrix], names: Sequence[str]) -> RGB:
    """Draw matrices of the same classes side by side, each row as shares of the pixels of its true class.

    A cell's colour grows with the square root of its share, so that small confusions are seen; its percentage is
    written where there is room. The row of a class without pixels is grey.
    """
    panels = [Panel(m.title, m.note, _draw_matrix(m.counts_kk, names)) for m in matrices]
    legend = [LegendEntry(f"{percent} % of the true class", _color(percent / 100)) for percent in _LEGEND]
    if any((m.counts_kk.sum(1) == 0).any() for m in matrices):
        legend.append(LegendEntry("a class without pixels", _EMPTY))
    return lay_out(panels, arrange(len(panels), *panels[0].rgb.shape[:2]), legend)


def shares_of_rows(counts_kk: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return counts as shares of their rows, (k, k); nan in a row of zeros."""
    sums_k1 = counts_kk.sum(1, keepdims=True)
    return np.divide(counts_kk, sums_k1, out=np.full(counts_kk.shape, np.nan), where=sums_k1 > 0)


def _color(share: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 + (int(strong) - 255) * share**0.5) for strong in _STRONG)
    return red, green, blue


def _draw_matrix(counts_kk: NDArray[np.int64], names: Sequence[str]) -> RGB:
    shares_kk = shares_of_rows(counts_kk)
    least, most = _CELL_SIDES
    cell = min(most, max(least, _MATRIX_SIDE // len(names)))
    font = ImageFont.load_default(min(16, cell - 2))
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    line = round(1.5 * min(16, cell - 2))
    corner = round(max(font.getlength(name) for name in names)) + 2 * line
    side = corner + cell * len(names) + 1
    picture = Image.new("RGB", (side, side), _PAPER)
    draw = ImageDraw.Draw(picture)
    _write_sideways(picture, "true class", (0, corner, line, side), font, anchor="mm")
    draw.text(((corner + side) / 2, line / 2), "predicted class", _INK, font, anchor="mm")
    for k, name in enumerate(names):
        at = corner + k * cell
        draw.text((corner - line / 3, at + cell / 2), name, _INK, font, anchor="rm")
        _write_sideways(picture, name, (at, line, at + cell, corner - line // 3), font, anchor="lm")
    for row, column in np.ndindex(shares_kk.shape):
        share = shares_kk[row, column]
        x, y = corner + column * cell, corner + row * cell
        draw.rectangle((x, y, x + cell, y + cell), _EMPTY if np.isnan(share) else _color(share), _LINE)
        if cell >= _NUMBERS_FROM and share >= 0.005:
            ink = _PAPER if share > 0.25 else _INK
            draw.text((x + cell / 2, y + cell / 2), f"{100 * share:.0f}", ink, font, anchor="mm")
    return np.asarray(picture)


def _write_sideways(
    picture: Image.Image,
    text: str,
    box: tuple[int, int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    *,
    anchor: str,
) -> None:
    """Write text from the bottom of a box upwards ('lm') or in the middle of it ('mm')."""
    left, top, right, bottom = box
    label = Image.new("RGB", (bottom - top, right - left), _PAPER)
    at = (0 if anchor == "lm" else label.width / 2, label.height / 2)
    ImageDraw.Draw(label).text(at, text, _INK, font, anchor=anchor)
    picture.paste(label.rotate(90, expand=True), (left, top))
