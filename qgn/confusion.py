"""Confusion matrices for the eye and for other programs: a picture, and a CSV file.

Shapes: k classes; rows are true classes, columns predicted ones.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from qgn.errors import TrainingError
from qgn.scores import Scores
from quadcodec.masks import replace_file
from quadcodec.render import check_picture, write_picture
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


def check_confusion(path: Path, *, overwrite: bool = False) -> None:
    """Say before the work starts whether matrices cannot be written to ``path``; raise TrainingError or MaskError."""
    if path.suffix.lower() == ".png":
        check_picture(path, overwrite=overwrite)
    elif path.suffix.lower() != ".csv":
        raise TrainingError(f"{path}: confusion matrices are written as PNG or CSV. Let the name end in .png or .csv")
    elif path.exists() and not overwrite:
        raise TrainingError(f"{path}: exists already. Choose another place, or replace it with --overwrite")


def write_confusion(path: Path, schemes: Mapping[str, Scores]) -> None:
    """Write the matrices of evaluated schemes, in place of an older file: a picture, or a CSV file of pixel counts.

    A CSV file has a row for each scheme and true class, and a column for each predicted one.

    Raises
    ------
    MaskError : the file cannot be written.
    """
    if path.suffix.lower() == ".png":
        write_picture(path, draw_confusion(schemes), overwrite=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(next(iter(schemes.values())).iou)
    writer.writerow(["propagation", "true class", *names])
    for scheme, scores in schemes.items():
        writer.writerows([scheme, name, *row] for name, row in zip(names, scores.counts_kk.tolist(), strict=True))
    replace_file(path, text.getvalue().encode())


def draw_confusion(schemes: Mapping[str, Scores]) -> RGB:
    """Draw matrices side by side, (H, W, 3), each row as shares of the pixels of its true class.

    A cell's colour grows with the square root of its share, so that small confusions are seen; its percentage is
    written where there is room. The row of a class without pixels is grey.
    """
    panels = []
    for scheme, scores in schemes.items():
        note = f"mIoU {scores.miou:.2f}, mean accuracy {scores.mean_accuracy:.2f}"
        panels.append(Panel(scheme, note, _draw_matrix(scores.counts_kk, list(scores.iou))))
    legend = [LegendEntry(f"{percent} % of the true class", _color(percent / 100)) for percent in _LEGEND]
    if any((scores.counts_kk.sum(1) == 0).any() for scores in schemes.values()):
        legend.append(LegendEntry("a class without pixels", _EMPTY))
    return lay_out(panels, arrange(len(panels), *panels[0].rgb.shape[:2]), legend)


def shares_of_rows(counts_kk: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return counts as shares of their rows, (k, k); nan in a row of zeros."""
    sums_k1 = counts_kk.sum(1, keepdims=True)
    return np.divide(counts_kk, sums_k1, out=np.full(counts_kk.shape, np.nan), where=sums_k1 > 0)


def _color(share: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 + (int(strong) - 255) * share**0.5) for strong in _STRONG)
    return red, green, blue


def _draw_matrix(counts_kk: NDArray[np.int64], names: list[str]) -> RGB:
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
