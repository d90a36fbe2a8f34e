"""Label trees made the slow way from small masks, and random masks to make them of."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import quadcodec
from qgn.sparse.frontier import child_nodes, root_nodes
from qgn.sparse.sites import select_sites
from quadcodec.pyramid import COMPOSITE, OUTSIDE

VOID = 255


@dataclass
class PlainTree:
    """What `LabelBatch` reads of a linear quadtree, plus the dense pyramid it came from."""

    levels: int
    grid: tuple[int, int]
    height: int
    width: int
    origin: tuple[int, int]
    pyramid: list[np.ndarray] = field(repr=False)
    nodes: list[np.ndarray] = field(repr=False)

    def level(self, level: int) -> np.ndarray:
        return self.nodes[level]


def merge(fine: np.ndarray) -> np.ndarray:
    """Merge 2x2 cells (Eq. 2); cells outside the image agree with everything."""
    coarse = np.empty((fine.shape[0] // 2, fine.shape[1] // 2), fine.dtype)
    for y, x in np.ndindex(coarse.shape):
        inside = set(fine[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].flat) - {OUTSIDE}
        coarse[y, x] = OUTSIDE if not inside else inside.pop() if len(inside) == 1 else COMPOSITE
    return coarse


def plain_tree(mask: np.ndarray, levels: int = 6, origin: tuple[int, int] = (0, 0)) -> PlainTree:
    """Return the tree of a mask of training classes that starts at `origin` of the smallest canvas."""
    side = 2 ** (levels - 1)
    (height, width), (y0, x0) = mask.shape, origin
    canvas = np.full((-(-(y0 + height) // side) * side, -(-(x0 + width) // side) * side), OUTSIDE, np.int32)
    canvas[y0 : y0 + height, x0 : x0 + width] = mask
    pyramid = [canvas]
    for _ in range(levels - 1):
        pyramid.append(merge(pyramid[-1]))
    cells = list(np.ndindex(pyramid[-1].shape))
    nodes = [np.empty(0, np.int32)] * levels
    for level in range(levels - 1, -1, -1):
        values = [pyramid[level][cell] for cell in cells]
        nodes[level] = np.array(values, np.int32)
        split = [cell for cell, value in zip(cells, values, strict=True) if value == COMPOSITE]
        cells = [(2 * y + dy, 2 * x + dx) for y, x in split for dy in (0, 1) for dx in (0, 1)]
    return PlainTree(levels, pyramid[-1].shape, height, width, origin, pyramid, nodes)


def blobs(rng: np.random.Generator, height: int, width: int, classes: int, count: int = 4) -> np.ndarray:
    """Return a mask of overlapping rectangles, discs and a patch of void, (height, width) int64."""
    mask = np.full((height, width), rng.integers(classes))
    y, x = np.mgrid[:height, :width]
    for shape in range(count):
        cy, cx, radius = rng.integers(height), rng.integers(width), rng.integers(2, max(3, min(height, width) // 2))
        value = VOID if shape == count - 1 else rng.integers(classes)
        inside = (np.hypot(y - cy, x - cx) if shape % 2 else np.maximum(abs(y - cy), abs(x - cx))) < radius
        mask[inside] = value
    return mask


def random_descent(share, *, seed=0, grid=(2, 2, 3), labels=None):
    """Yield (nodes, sites) of levels 5..1 with a random share of active cells."""
    generator = torch.Generator().manual_seed(seed)
    nodes, sites = root_nodes(grid, 5, labels=labels), None
    for _ in range(5):
        sites = select_sites(nodes, torch.rand(len(nodes), generator=generator) < share, sites)
        yield nodes, sites
        nodes = child_nodes(nodes, sites, labels)
    yield nodes, None


def write_store(folder: Path, masks: list[np.ndarray], **values: Any) -> None:
    """Write the store `s.zarr` of masks whose photos show them; VOID is void."""
    for i, mask in enumerate(masks):
        Image.fromarray(np.repeat(mask[:, :, None], 3, axis=2)).save(folder / f"{i}.png")
    shutil.rmtree(folder / "s.zarr", ignore_errors=True)
    names = [f"{i}.png" for i in range(len(masks))]
    quadcodec.write(folder / "s.zarr", masks, images=names, image_root=str(folder), void=[VOID], **values)
