"""Sheets of a store's images: the levels of their trees, levels of detail, trees over photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import MaskError
from .files import below
from .quadtree import LinearQuadtree
from .render import COMPOSITE_COLOR, COVERED_COLOR, class_colors, draw_level, draw_mask, draw_tree, leaf_share
from .sheet import LegendEntry, Panel, arrange, lay_out
from .store import LabelStore

__all__ = ["KINDS", "view"]

RGB = NDArray[np.uint8]

KINDS = ("levels", "detail", "tree")
_SIDE, _ROW_SIDE, _TREE_SIDE = 640, 320, 1600
"""Pixels of a panel's longer side: alone, in a row of many, and of a tree."""


def view(store: LabelStore, images: Sequence[int], kind: str = "levels", *, photos: Path | None = None) -> RGB:
    """Return a sheet of one or more images of a store, (H, W, 3).

    Parameters
    ----------
    images : indices; of several, each is one row, as in Tables 8 and 9 of the paper.
    kind : 'levels', the nodes of each level; 'detail', the image as each level knows it; 'tree', the cells over the
        photo, or over the class colours where the store names none.
    photos : folder of the photos, by default the store's own image root.

    Raises
    ------
    MaskError : a photo is missing, damaged, or leads out of the folder.
    """
    panels: list[Panel] = []
    pixels: dict[int, int] = {}
    for index in images:
        tree = store.quadtree(index)
        for label, count in tree.class_pixels().items():
            pixels[label] = pixels.get(label, 0) + count
        name = " ".join(store.names[index].split())
        if kind == "tree":
            panels.append(_tree_panel(store, index, tree, name, photos))
        else:
            panels += _level_panels(store, tree, name, kind, _SIDE if len(images) == 1 else _ROW_SIDE)
    if len(images) > 1 and kind != "tree":
        columns = len(panels) // len(images)
    else:
        columns = arrange(len(panels), *panels[0].rgb.shape[:2])
    return lay_out(panels, columns, _legend(store, pixels, kind))


def _level_panels(store: LabelStore, tree: LinearQuadtree, name: str, kind: str, side: int) -> list[Panel]:
    palette, void = store.palette, store.info.void
    panels = []
    if kind == "levels":
        panels.append(Panel(name, "", draw_mask(tree, palette, void, side=side)))
    known = 0.0
    for level in range(tree.levels - 1, -1, -1):
        share, size = leaf_share(tree, level), 1 << level
        known += share
        if kind == "levels":
            rgb = draw_level(tree, level, palette, void, side=side)
            panels.append(Panel(f"Q{level}", f"{share:.1f} % in cells of {size} px", rgb))
        else:
            rgb = draw_mask(tree, palette, void, level=level, side=side)
            panels.append(Panel(f"T{level}", f"cells of {size} px, {known:.1f} % known", rgb))
    return panels


def _tree_panel(store: LabelStore, index: int, tree: LinearQuadtree, name: str, photos: Path | None) -> Panel:
    zoom = max(1, round(_TREE_SIDE / max(tree.height, tree.width)))
    photo = _read_photo(store, index, photos, (zoom * tree.height, zoom * tree.width))
    leaves = sum(int(np.count_nonzero(tree.level(level) >= 0)) for level in range(tree.levels))
    note = f"{leaves:,} leaves for {tree.height * tree.width:,} pixels"
    return Panel(name, note, draw_tree(photo, tree, _tree_palette(store), zoom=zoom))


def _tree_palette(store: LabelStore) -> RGB:
    """Return the store's colours with one for all void ids: hatching would hide the cells."""
    palette = store.palette
    palette[[label for label in store.info.void if label < len(palette)]] = 0
    return palette


def _legend(store: LabelStore, pixels: dict[int, int], kind: str) -> list[LegendEntry]:
    """Return the classes by their share, after what a sheet's other colours mean."""
    names = {c.id: " ".join(c.name.split()) for c in store.classes}
    colors = class_colors(_tree_palette(store) if kind == "tree" else store.palette)
    total = sum(pixels.values())
    entries = []
    if kind != "tree":
        entries.append(LegendEntry("composite: split further", COMPOSITE_COLOR))
    if kind == "levels":
        entries.append(LegendEntry("in a coarser leaf", COVERED_COLOR))
    void = {label for label in pixels if label in store.info.void}
    for label, count in sorted(pixels.items(), key=lambda item: -item[1]):
        if label not in void:
            r, g, b = (int(v) for v in colors[label % len(colors)])
            entries.append(LegendEntry(f"{names.get(label, f'id {label}')}  {_percent(count, total)}", (r, g, b)))
    if void:
        share = _percent(sum(pixels[label] for label in void), total)
        r, g, b = (int(v) for v in class_colors(np.zeros((1, 3)))[0])
        entries.append(LegendEntry(f"void  {share}", (r, g, b), hatched=kind != "tree"))
    return entries


def _percent(count: int, total: int) -> str:
    return "< 0.1 %" if 1000 * count < total else f"{100 * count / total:.1f} %"


def _read_photo(store: LabelStore, index: int, root: Path | None, size: tuple[int, int]) -> RGB | None:
    """Return the photo of an image at a (height, width), None if the store names none."""
    image = store.columns.image[index]
    if not image:
        return None
    folder = root or Path(store.info.image_root)
    path = below(folder, image)
    if path is None:
        raise MaskError(
            f"{store.path}: photo {image!r} leads out of the image root {folder}. Use photos that lie below it"
        )
    try:
        with Image.open(path) as photo:
            return np.asarray(photo.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MaskError(
            f"{path}: the photo cannot be read ({error}). Name the folder of the photos: --photos"
        ) from error
