"""Pictures of trees: the nodes of a level, the image as a level knows it, the cells over a photo.

Arrays in, (H, W, 3) uint8 RGB out. `quadcodec.sheet` puts captions and a legend around them.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageShow

from .errors import MaskError
from .masks import default_palette, replace_file
from .pyramid import COMPOSITE
from .quadtree import LinearQuadtree

__all__ = ["check_picture", "draw_level", "draw_mask", "draw_tree", "overlay", "show_picture", "write_picture"]

RGB = NDArray[np.uint8]

COMPOSITE_COLOR = (0, 0, 0)
COVERED_COLOR = (240, 240, 240)
HATCH_COLORS = ((215, 215, 215), (120, 120, 120))
_BLACK_CLASS_COLOR = (66, 66, 78)
_DARK = 96  # classes without a channel this bright are lifted
_ABSENT = -3
_GRID_WEIGHT, _FAINTEST, _STRONGEST, _TINT = 0.2, 0.45, 0.85, 0.6
_LINE_EVERY = 1600  # pixels of a picture's longer side for each pixel of a line's width


def class_colors(palette: ArrayLike | None = None) -> RGB:
    """Return the (n, 3) colours that pictures show: nearly black ones are lifted, since black means composite."""
    colors = _palette(palette)
    lift = np.maximum(1 - colors.max(axis=1, keepdims=True) / _DARK, 0)
    lifted: RGB = (colors + np.rint(lift * _BLACK_CLASS_COLOR)).astype(np.uint8)
    return lifted


def draw_level(
    tree: LinearQuadtree, level: int, palette: ArrayLike | None = None, void: Collection[int] = (), *, side: int
) -> RGB:
    """Draw the nodes of one level (Tables 8 and 9 of the paper).

    Leaves show their class, composites are black, void leaves are hatched, and what a leaf of a coarser level
    covers is light grey.

    Parameters
    ----------
    palette : (n, 3) uint8, colours of ids 0..n-1, by default `default_palette`; further ids start over.
        Nearly black ones are lifted (`class_colors`).
    void : ids to hatch.
    side : the picture's longer side is at most this, and more than half of it: pixels are repeated, or averaged
        over what is drawn, so that thin lines do not fade.
    """
    return _paint(_grid(tree, level), tree, level, palette, void, side)


def draw_mask(
    tree: LinearQuadtree, palette: ArrayLike | None = None, void: Collection[int] = (), *, level: int = 0, side: int
) -> RGB:
    """Draw the image as T_level knows it: the mask for level 0; above it, cells of several classes are black.

    Parameters as `draw_level`.
    """
    return _paint(_known(tree, level), tree, level, palette, void, side)


def draw_tree(photo: RGB | None, tree: LinearQuadtree, palette: ArrayLike | None = None, *, zoom: int = 1) -> RGB:
    """Draw the cells of a tree over a photo in grey and the colours of their classes.

    The borders of small cells are stronger than those of large ones, which are many and say little. Cells too small
    for lines are filled.

    Parameters
    ----------
    photo : (zoom * H, zoom * W, 3), or None to draw over the class colours alone.
    zoom : pixels of the picture for each pixel of the image, along each axis.

    Raises
    ------
    MaskError : the photo has another size.
    """
    height, width = zoom * tree.height, zoom * tree.width
    classes: RGB = class_colors(palette).take(tree.to_mask(), axis=0, mode="wrap")
    out: RGB = classes.repeat(zoom, axis=0).repeat(zoom, axis=1)
    if photo is not None:
        _check_size(photo, (height, width))
        grey = np.asarray(Image.fromarray(photo).convert("L"))[..., None]
        out = _blend(out, grey, np.full((height, width, 1), 0.5, np.float32))
    weights = _line_weights(tree, zoom, max(1, round(max(height, width) / _LINE_EVERY)))
    y0, x0 = (zoom * v for v in tree.origin)
    return _blend(out, np.full((1, 1, 1), 255, np.uint8), weights[y0 : y0 + height, x0 : x0 + width, None])


def overlay(photo: RGB, mask: NDArray[Any], palette: ArrayLike | None = None, alpha: float = 0.5) -> RGB:
    """Blend class colours over a photo: (H, W, 3) and (H, W); ``alpha`` is the share of the colours.

    Raises
    ------
    MaskError : photo and mask differ in size.
    """
    _check_size(photo, mask.shape)
    classes = _palette(palette).take(mask, axis=0, mode="wrap")
    return _blend(photo, classes, np.full((*mask.shape, 1), alpha, np.float32))


def leaf_share(tree: LinearQuadtree, level: int) -> float:
    """Return the percentage of the image's pixels that lie in leaves of a level."""
    inside = np.sum(tree.inside_areas(level) * (tree.level(level) >= 0))
    return 100 * float(inside) / (tree.height * tree.width)


def check_picture(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Say before the work starts whether `write_picture` would refuse this name.

    Raises
    ------
    MaskError : the name is not that of a PNG, or the file exists and ``overwrite`` is not given.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise MaskError(f"{path}: pictures are written as PNG. Let the name end in .png.")
    if path.exists() and not overwrite:
        raise MaskError(f"{path}: exists already. Choose another name or use --overwrite")


def write_picture(path: str | os.PathLike[str], rgb: RGB, *, overwrite: bool = False) -> None:
    """Write an (H, W, 3) picture as PNG, in one step, over an existing file only if told to.

    Raises
    ------
    MaskError : as `check_picture`, or the file cannot be written.
    """
    check_picture(path, overwrite=overwrite)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG")
    replace_file(Path(path), buffer.getvalue())


def check_display() -> None:
    """Say before the work starts whether `show_picture` can open a window here; raise MaskError if not."""
    if sys.platform not in ("darwin", "win32") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise MaskError("no display here (DISPLAY and WAYLAND_DISPLAY are not set). Write a file with -o PICTURE.png")


def show_picture(rgb: RGB, title: str) -> None:
    """Open a picture in the system's own viewer.

    Raises
    ------
    MaskError : there is no display, or no viewer that Pillow knows.
    """
    check_display()
    if not ImageShow.show(Image.fromarray(rgb), title):
        raise MaskError("no viewer of pictures was found here. Install xdg-utils, or write a file with -o PICTURE.png")


def _line_weights(tree: LinearQuadtree, zoom: int, line: int) -> NDArray[np.float32]:
    """Return how much of each pixel of the zoomed canvas is line, 0 .. 1."""
    top = tree.levels - 1
    rows, cols = tree.grid
    weights = np.zeros((zoom * rows << top, zoom * cols << top), np.float32)
    whole = _cells(weights, zoom << top)
    whole[:, :line] = whole[:, :, :, :line] = _GRID_WEIGHT
    for level in range(top, 0, -1):
        split = (_grid(tree, level) == COMPOSITE)[:, None, :, None]
        size = zoom << level
        cells, half = _cells(weights, size), size // 2
        if half < 3 * line:
            np.maximum(cells, _TINT, out=cells, where=split)
            break
        weight = _STRONGEST - (_STRONGEST - _FAINTEST) * (level - 1) / max(1, top - 1)
        for lines in (cells[:, half : half + line], cells[:, :, :, half : half + line]):
            np.maximum(lines, weight, out=lines, where=split)
    return weights


def _cells(canvas: NDArray[Any], size: int) -> NDArray[Any]:
    """Return a view (row of cells, y, column of cells, x)."""
    return canvas.reshape(canvas.shape[0] // size, size, canvas.shape[1] // size, size)


def _blend(below: RGB, above: RGB, weight: NDArray[np.float32]) -> RGB:
    """Mix two pictures, some rows at a time: float32 copies of a large one would fill the memory."""
    out = np.empty_like(below)
    above = np.broadcast_to(above, below.shape)
    for y in range(0, len(below), 256):
        rows = slice(y, y + 256)
        out[rows] = np.rint(below[rows] * (1 - weight[rows]) + above[rows] * weight[rows])
    return out


def _palette(palette: ArrayLike | None) -> RGB:
    return default_palette() if palette is None else np.array(palette, np.uint8).reshape(-1, 3)


def _check_size(photo: RGB, size: tuple[int, ...]) -> None:
    if photo.shape != (*size, 3):
        raise MaskError(
            f"the photo has shape {photo.shape}, expected {(*size, 3)} as the mask. Resize one of them to the other."
        )


def _grid(tree: LinearQuadtree, level: int) -> NDArray[Any]:
    """Return the level's cells of the whole canvas: node values, and _ABSENT where there is no node."""
    rows, cols = tree.grid
    finer = tree.levels - 1 - level
    values = tree.level(level)
    grid = np.full((rows << finer, cols << finer), _ABSENT, values.dtype)
    y, x = tree.positions(level).T
    grid[y, x] = values
    return grid


def _known(tree: LinearQuadtree, level: int) -> NDArray[Any]:
    """Return T_level on the whole canvas: the class of a cell, or COMPOSITE; _ABSENT beyond the image."""
    rows, cols = tree.grid
    finer = tree.levels - 1 - level
    grid = np.full((rows << finer, cols << finer), _ABSENT, tree.nodes.dtype)
    values = tree.to_level(level)
    y0, x0 = (v >> level for v in tree.origin)
    grid[y0 : y0 + values.shape[0], x0 : x0 + values.shape[1]] = values
    return grid


def _paint(
    cells: NDArray[Any], tree: LinearQuadtree, level: int, palette: ArrayLike | None, void: Collection[int], side: int
) -> RGB:
    """Give the cells of a canvas their colours, and the picture of the image its size."""
    (y0, x0), size = tree.origin, 1 << level
    values = cells.repeat(size, axis=0)[y0 : y0 + tree.height].repeat(size, axis=1)[:, x0 : x0 + tree.width]
    longer = max(values.shape)
    zoom, factor = max(1, side // longer), -(-longer // side)
    values = values.repeat(zoom, axis=0).repeat(zoom, axis=1)
    colors = class_colors(palette)
    table = np.concatenate([colors, np.array([COMPOSITE_COLOR, COVERED_COLOR, COVERED_COLOR], np.uint8)])
    rgb = table[np.where(values >= 0, values % len(colors), len(colors) - 1 - values)]
    drawn, hatched = values >= COMPOSITE, np.isin(values, list(void))
    if factor > 1:
        rgb, hatched = _shrink(rgb, drawn, hatched, factor)
    return hatch(rgb, hatched)


def hatch(rgb: RGB, where: NDArray[np.bool_]) -> RGB:
    """Draw diagonal stripes over some pixels of a picture, in place; return it."""
    y, x = np.indices(where.shape)
    stripes = (y + x) % 8 < 4
    for stripe, color in zip((stripes, ~stripes), HATCH_COLORS, strict=True):
        rgb[where & stripe] = color
    return rgb


def _shrink(
    rgb: RGB, drawn: NDArray[np.bool_], hatched: NDArray[np.bool_], factor: int
) -> tuple[RGB, NDArray[np.bool_]]:
    """Average blocks of ``factor`` x ``factor`` pixels over what is drawn there, so that thin lines do not fade."""
    height, width = (-(-n // factor) for n in drawn.shape)
    pad = [(0, height * factor - drawn.shape[0]), (0, width * factor - drawn.shape[1])]

    def blocks(values: NDArray[Any]) -> NDArray[np.int32]:
        whole = np.pad(values, pad).reshape(height, factor, width, factor)
        total: NDArray[np.int32] = whole.sum(axis=(1, 3), dtype=np.int32)
        return total

    count = blocks(drawn)
    out = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        mean = blocks(rgb[..., channel] * drawn) // np.maximum(count, 1)
        out[..., channel] = np.where(count > 0, mean, COVERED_COLOR[channel])
    return out, 2 * blocks(hatched) > count
