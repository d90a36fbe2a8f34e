"""Sheets of pictures: panels with captions in a grid, and a legend in the room that is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .render import hatch

__all__ = ["LegendEntry", "Panel", "arrange", "lay_out"]

RGB = NDArray[np.uint8]

_GAP = 16
_ASPECT = 1.8  # of a screen
_INK, _QUIET, _PAPER, _FRAME = (25, 25, 30), (105, 105, 115), (255, 255, 255), (170, 170, 178)


@dataclass(frozen=True, eq=False)
class Panel:
    """Hold one picture of a sheet and the line above it: a title, and what is said of it."""

    title: str
    note: str
    rgb: RGB


@dataclass(frozen=True)
class LegendEntry:
    """Explain one colour, or the hatching of void; with neither, only say something."""

    name: str
    color: tuple[int, int, int] | None = None
    hatched: bool = False


def arrange(count: int, height: int, width: int) -> int:
    """Return the number of columns that brings ``count`` panels of one size nearest to the shape of a screen."""

    def distance(columns: int) -> float:
        aspect = columns * width / (-(-count // columns) * height)
        return abs(math.log(aspect / _ASPECT)) + 0.1 * (-count % columns)

    return min(range(1, count + 1), key=distance)


def lay_out(panels: Sequence[Panel], columns: int, legend: Sequence[LegendEntry]) -> RGB:
    """Return one picture of all panels, row by row, the legend in the rest of the last row or below it."""
    height, width = max(p.rgb.shape[0] for p in panels), max(p.rgb.shape[1] for p in panels)
    cell_width, sheet_width = width + _GAP, columns * (width + _GAP) + _GAP
    font = ImageFont.load_default(max(14, min(width // 26, sheet_width // 90)))
    pen = _Pen(font, round(1.5 * getattr(font, "size", 12)))
    cell_height = height + pen.line + _GAP
    rows = -(-len(panels) // columns)
    free = rows * columns - len(panels)
    room = (free or columns) * cell_width - _GAP
    blocks = _legend_columns(legend, room, height + pen.line if free else None, pen)
    below = 0 if free else max(len(block) for block in blocks) * pen.line + _GAP
    sheet = Image.new("RGB", (sheet_width, rows * cell_height + below + _GAP), _PAPER)
    for k, panel in enumerate(panels):
        _draw_panel(sheet, panel, _GAP + k % columns * cell_width, _GAP + k // columns * cell_height, pen)
    x = _GAP + (columns - free) % columns * cell_width
    y = _GAP + (rows - 1 if free else rows) * cell_height
    for block in blocks:
        for k, entry in enumerate(block):
            _draw_entry(sheet, entry, x, y + k * pen.line, room // len(blocks), pen)
        x += room // len(blocks)
    return np.asarray(sheet)


@dataclass(frozen=True, eq=False)
class _Pen:
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    line: int
    """Height of a line of text, in pixels."""

    def length(self, text: str) -> float:
        return self.font.getlength(text)

    def fit(self, text: str, width: float) -> str:
        """Shorten a text in the middle, so that names keep both ends."""
        if self.length(text) <= width:
            return text
        for kept in range(len(text) - 1, 1, -1):
            short = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
            if self.length(short) <= width:
                return short
        return ""


def _draw_panel(sheet: Image.Image, panel: Panel, x: int, y: int, pen: _Pen) -> None:
    draw = ImageDraw.Draw(sheet)
    height, width, _ = panel.rgb.shape
    title = pen.fit(panel.title, width)
    note = pen.fit(panel.note, width - pen.length(title) - pen.line)
    draw.text((x, y + pen.line // 2), title, fill=_INK, font=pen.font, anchor="lm")
    draw.text((x + width, y + pen.line // 2), note, fill=_QUIET, font=pen.font, anchor="rm")
    sheet.paste(Image.fromarray(panel.rgb), (x, y + pen.line))
    draw.rectangle((x - 1, y + pen.line - 1, x + width, y + pen.line + height), outline=_FRAME)


def _legend_columns(
    entries: Sequence[LegendEntry], room: int, height: int | None, pen: _Pen
) -> list[list[LegendEntry]]:
    """Return the entries by column: beside panels as long as the height allows, below them all of one length."""
    widest = min(14 * pen.line, max(round(pen.length(e.name)) for e in entries) + 3 * pen.line)
    columns = max(1, room // widest)
    length = -(-len(entries) // columns)
    if height is not None:
        fitting = max(1, height // pen.line)
        if length > fitting:
            kept = columns * fitting - 1
            entries = [*entries[:kept], LegendEntry(f"and {len(entries) - kept} more")]
        length = fitting
    return [list(entries[k : k + length]) for k in range(0, len(entries), length)]


def _draw_entry(sheet: Image.Image, entry: LegendEntry, x: int, y: int, width: int, pen: _Pen) -> None:
    draw = ImageDraw.Draw(sheet)
    size = round(0.7 * pen.line)
    top = y + (pen.line - size) // 2
    if entry.hatched or entry.color is not None:
        swatch = np.full((size, size, 3), entry.color or 0, np.uint8)
        if entry.hatched:
            hatch(swatch, np.ones((size, size), np.bool_))
        sheet.paste(Image.fromarray(swatch), (x, top))
        draw.rectangle((x - 1, top - 1, x + size, top + size), outline=_FRAME)
    name = pen.fit(entry.name, width - 2 * pen.line)
    draw.text((x + pen.line, y + pen.line // 2), name, fill=_INK, font=pen.font, anchor="lm")
