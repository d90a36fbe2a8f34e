"""Pictures of trees: levels side by side as in the paper's Tables 8 and 9, masks and cells over photos.

Arrays in, (H, W, 3) uint8 RGB out; `write_picture` puts one on disk.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from .errors import MaskError
from .masks import default_palette, replace_file
from .pyramid import COMPOSITE
from .quadtree import LinearQuadtree

__all__ = ["check_picture", "default_palette", "draw_tree", "overlay", "render_levels", "write_picture"]

RGB = NDArray[np.uint8]

_MAX_WIDTH = 6000
_SMALL = 160  # smaller panels are enlarged
_GAP = 8
_ABSENT = -3
_COMPOSITE_COLOR = (0, 0, 0)
_COVERED_COLOR = (240, 240, 240)
_BLACK_CLASS_COLOR = (66, 66, 78)
_HATCH_COLORS = ((215, 215, 215), (120, 120, 120))


def render_levels(
    tree: LinearQuadtree,
    palette: ArrayLike | None = None,
    void: Collection[int] = (),
    *,
    max_width: int = _MAX_WIDTH,
    captions: bool = True,
) -> RGB:
    """Draw the nodes of each level, coarsest first, side by side (Tables 8 and 9 of the paper).

    Leaves show their class, composites are black, void leaves are hatched, and what a leaf of a coarser level
    covers is light grey. The caption of a panel gives the share of the image's pixels in leaves of that level.

    Parameters
    ----------
    palette : (n, 3) uint8, colours of ids 0..n-1, by default `default_palette`; further ids start over. A
        black class is drawn dark grey, since black means composite.
    void : ids to hatch.
    max_width : panels are scaled down by a whole number until the strip is no wider, as far as that goes.
    """
    colors = _palette(palette)
    colors[(colors == 0).all(axis=1)] = _BLACK_CLASS_COLOR
    levels = range(tree.levels - 1, -1, -1)
    room = max(1, (max_width - _GAP * (tree.levels - 1)) // tree.levels)
    factor = max(1, -(-tree.width // room))
    panels: list[RGB] = []
    for level in levels:
        panel = _level_panel(tree, level, colors, void, factor)
        if captions:
            panel = np.concatenate([_caption(tree, level, panel.shape[1]), panel])
        panels += [panel, np.full((panel.shape[0], _GAP, 3), 255, np.uint8)]
    return np.concatenate(panels[:-1], axis=1)


def overlay(photo: RGB, mask: NDArray[Any], palette: ArrayLike | None = None, alpha: float = 0.5) -> RGB:
    """Blend class colours over a photo: (H, W, 3) and (H, W); ``alpha`` is the share of the colours.

    Raises
    ------
    MaskError : photo and mask differ in size.
    """
    _check_size(photo, mask.shape)
    colors = _palette(palette)
    classes = colors[mask.astype(np.intp) % len(colors)].astype(np.float32)
    return _blend(photo, classes, np.float32(alpha))


def draw_tree(photo: RGB, tree: LinearQuadtree, color: tuple[int, int, int] = (255, 255, 0)) -> RGB:
    """Draw the borders of a tree's cells over a photo (H, W, 3), one pixel wide.

    A border belongs to the cell right of or below it. Those of 2x2 patches would hide the photo: of a patch that
    is split into pixels, the whole is tinted instead.

    Raises
    ------
    MaskError : photo and tree differ in size.
    """
    _check_size(photo, (tree.height, tree.width))
    top = tree.levels - 1
    rows, cols = tree.grid
    strength = np.zeros((rows << top, cols << top), np.float32)
    _cells(strength, top)[:, 0] = _cells(strength, top)[:, :, :, 0] = 0.75
    for level in range(top, 0, -1):
        split, cells, half = _grid(tree, level) == COMPOSITE, _cells(strength, level), 1 << (level - 1)
        if level == 1:
            np.maximum(cells, 0.5, out=cells, where=split[:, None, :, None])
        else:
            weight = 0.25 + 0.5 * level / top
            for line in (cells[:, half], cells[:, :, :, half].swapaxes(1, 2)):
                np.maximum(line, weight, out=line, where=split[:, :, None])
    y0, x0 = tree.origin
    weights = strength[y0 : y0 + tree.height, x0 : x0 + tree.width, None]
    return _blend(photo, np.array(color, np.float32), weights)


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


def _cells(canvas: NDArray[Any], level: int) -> NDArray[Any]:
    """Return a view (row of cells, y, column of cells, x)."""
    size = 1 << level
    return canvas.reshape(canvas.shape[0] // size, size, canvas.shape[1] // size, size)


def _blend(below: NDArray[Any], above: NDArray[np.float32], weight: NDArray[np.float32] | np.float32) -> RGB:
    mixed: NDArray[np.float32] = below * (1 - weight) + above * weight
    return np.rint(mixed).astype(np.uint8)


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


def _level_panel(tree: LinearQuadtree, level: int, colors: RGB, void: Collection[int], factor: int) -> RGB:
    """Draw one level, ``factor`` image pixels to one of the picture."""
    (y0, x0), size = tree.origin, 1 << level
    cells = _grid(tree, level).repeat(size, axis=0)[y0 : y0 + tree.height]
    values = cells.repeat(size, axis=1)[:, x0 : x0 + tree.width]
    zoom = max(1, _SMALL // max(tree.height, tree.width))
    values = values.repeat(zoom, axis=0).repeat(zoom, axis=1)
    table = np.concatenate([colors, np.array([_COMPOSITE_COLOR, _COVERED_COLOR, _COVERED_COLOR], np.uint8)])
    rgb = table[np.where(values >= 0, values % len(colors), len(colors) - 1 - values)]
    drawn, hatched = values >= COMPOSITE, np.isin(values, list(void))
    if factor > 1:
        rgb, hatched = _shrink(rgb, drawn, hatched, factor)
    y, x = np.indices(hatched.shape)
    stripes = (y + x) % 8 < 4
    for stripe, color in zip((stripes, ~stripes), _HATCH_COLORS, strict=True):
        rgb[hatched & stripe] = color
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
        out[..., channel] = np.where(count > 0, mean, _COVERED_COLOR[channel])
    return out, 2 * blocks(hatched) > count


def _share(tree: LinearQuadtree, level: int) -> float:
    """Return the percentage of the image's pixels that lie in leaves of a level."""
    inside = np.sum(tree.inside_areas(level) * (tree.level(level) >= 0))
    return 100 * float(inside) / (tree.height * tree.width)


def _caption(tree: LinearQuadtree, level: int, width: int) -> RGB:
    size = max(12, width // 28)
    image = Image.new("RGB", (width, 2 * size), (255, 255, 255))
    text = f"Q{level}   {_share(tree, level):.1f} %"
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text((width // 2, size), text, fill=(0, 0, 0), font=font, anchor="mm")
    return np.asarray(image)
