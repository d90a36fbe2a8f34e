"""Label trees to measure on: a street scene near the Cityscapes mean, and levels with a chosen share of composites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from qgn.data.batch import LabelBatch
from qgn.data.classes import class_map, count_pixels
from qgn.models.decoder import LEVELS
from qgn.sparse.frontier import child_nodes, root_nodes
from qgn.sparse.sites import Sites, select_sites
from quadcodec import LinearQuadtree, decode_tree, encode
from quadcodec.manifest import load_manifest
from quadcodec.pyramid import COMPOSITE
from quadcodec.quadtree import relevel
from quadcodec.scenes import street_labels
from quadcodec.store import LabelStore

EVERY_CELL = (100.0,) * (LEVELS - 1)
"""Composite cells of levels 5 to 1 where none is a leaf, percent."""


def published_shares(dataset: str, split: str = "val") -> tuple[float, ...]:
    """Return the composite cells of levels 5 to 1, percent of the level's cells, from Table 5 of the paper."""
    row = load_manifest(dataset).published[split]
    return tuple(100 - sum(row[str(upper)] for upper in range(level, LEVELS)) for level in range(LEVELS - 1, 0, -1))


def composite_shares(labels: LabelBatch) -> tuple[float, ...]:
    """Return the composite cells of levels 5 to 1, percent of the level's cells."""
    batch, rows, cols = labels.grid
    cells = [batch * rows * cols * 4**depth for depth in range(LEVELS - 1)]
    counts = [int((labels.level(LEVELS - 1 - depth) == 0).sum()) for depth in range(LEVELS - 1)]
    return tuple(100 * count / all_ for count, all_ in zip(counts, cells, strict=True))


def mask_tree(mask: np.ndarray) -> LabelBatch:
    """Return a mask's tree as a batch of one."""
    tree: LinearQuadtree = decode_tree(encode(mask))
    return LabelBatch.from_trees([tree])


def street_tree(size: tuple[int, int], candidates: int = 12) -> tuple[int, LabelBatch]:
    """Return the generated scene nearest to the Cityscapes val mean: its index, and its tree as a batch of one."""
    mean_l = published_shares("cityscapes")
    found = []
    for index in range(candidates):
        labels = mask_tree(street_labels(0, size, index))
        far = sum(abs(np.log(mine / mean)) for mine, mean in zip(composite_shares(labels), mean_l, strict=True))
        found.append((far, index, labels))
    _, index, labels = min(found, key=lambda entry: entry[:2])
    return index, labels


def drawn_tree(size: tuple[int, int], shares: Sequence[float], batch: int = 1) -> LabelBatch:
    """Return trees with a chosen number of composite cells at every level, along the outlines of a random landscape.

    With the shares of Cityscapes val, 3x3 convolutions have 5.1, 4.7, 4.3, 3.5 and 2.5 neighbours a site, itself
    included, at levels 5 to 1; those of 14 masks of Cityscapes 5.4, 4.8, 4.2, 3.5 and 2.9.

    Parameters
    ----------
    size
        (H, W), multiples of 32.
    shares
        Composite cells of levels 5 to 1, percent of the level's cells; each at most that of the level above.
    batch
        Trees, all the same.
    """
    heights = [np.abs(_landscape(size))]
    for _ in range(LEVELS - 2):
        h, w = heights[-1].shape
        heights.append(heights[-1].reshape(h // 2, 2, w // 2, 2).min((1, 3)))
    cell_n = np.arange(heights[-1].size)
    nodes = []
    for height, share in zip(reversed(heights), shares, strict=True):
        lowest = np.argsort(height.ravel()[cell_n], kind="stable")[: round(share / 100 * height.size)]
        node_n = (np.arange(len(cell_n)) % 2).astype(np.int16)  # two classes: no cell could be merged
        node_n[lowest] = COMPOSITE
        nodes.append(node_n)
        row_m, col_m = np.divmod(cell_n[np.sort(lowest)], height.shape[1])
        corner_m = 4 * row_m * height.shape[1] + 2 * col_m
        cell_n = (corner_m[:, None] + [0, 1, 2 * height.shape[1], 2 * height.shape[1] + 1]).ravel()
    nodes.append((np.arange(len(cell_n)) % 2).astype(np.int16))
    tree = LinearQuadtree(np.concatenate(nodes), tuple(len(level) for level in reversed(nodes)), *size)
    return LabelBatch.from_trees([tree] * batch)


def _landscape(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return random heights of the cells of level 1, (h, w): hills a quarter of the image high, and ever smaller ones.

    Each octave has half the extent and 0.7 of the height of the one before: what makes outlines as rough as those of
    annotated scenes.
    """
    generator = torch.Generator().manual_seed(seed)
    total, extent, height = torch.zeros(1, 1, size[0] // 2, size[1] // 2), size[0] // 4, 1.0
    while extent:
        hills = torch.randn(1, 1, *(max(2, side // extent) for side in size), generator=generator)
        total += height * F.interpolate(hills, total.shape[2:], mode="bilinear")
        extent, height = extent // 2, 0.7 * height
    return total[0, 0].numpy()


def store_shares(store: LabelStore) -> tuple[float, ...]:
    """Return the composite cells of levels 5 to 1, percent of the level's cells, of a store's trees.

    Of its split 'val' where it has one; in training classes where it has them.

    Raises
    ------
    TrainingError
        The trees hold ids that the store does not name.
    """
    indices = store.indices("val" if "val" in store.info.splits else None)
    table = class_map(store, count_pixels(store, indices)).table if store.info.train_classes else None
    cells, composites = np.zeros(LEVELS - 1), np.zeros(LEVELS - 1)
    for index in indices:
        tree = store.quadtree(index)
        tree = relevel(tree if table is None else tree.remap(table), LEVELS)
        rows, cols = tree.grid
        cells += [rows * cols * 4**depth for depth in range(LEVELS - 1)]
        composites += [np.count_nonzero(tree.level(LEVELS - 1 - depth) == COMPOSITE) for depth in range(LEVELS - 1)]
    return tuple((100 * composites / cells).tolist())


def clustered(shape: tuple[int, int], share: float, seed: int = 0) -> np.ndarray:
    """Return a mask of the cells of a grid, (h, w) bool, in rings as objects' outlines are, until `share` is reached.

    A ring is a disc's edge up to 6 cells thick: most of its cells have most of their neighbours.
    """
    rng = np.random.default_rng(seed)
    height, width = shape
    mask = np.zeros(shape, bool)
    while mask.sum() < share * mask.size:
        y, x, radius = rng.integers(height), rng.integers(width), int(rng.integers(4, 24))
        top, left = max(0, y - radius), max(0, x - radius)
        yy, xx = np.ogrid[top : min(height, y + radius), left : min(width, x + radius)]
        distance = np.hypot(yy - y, xx - x)
        mask[top : y + radius, left : x + radius] |= (distance < radius) & (distance > radius - 6)
    return mask


def scattered(shape: tuple[int, int], share: float, seed: int = 0) -> np.ndarray:
    """Return a mask of the cells of a grid, (h, w) bool, each drawn by itself."""
    return np.random.default_rng(seed).random(shape) < share


def descend(mask: np.ndarray) -> Sites:
    """Return the cells of a level-1 mask as sites, reached from level 5 down through the cells that hold them."""
    pyramid = [mask]
    for _ in range(LEVELS - 2):
        fine = pyramid[-1]
        pyramid.append(fine.reshape(fine.shape[0] // 2, 2, fine.shape[1] // 2, 2).any((1, 3)))
    nodes, sites = root_nodes((1, *pyramid[-1].shape), LEVELS - 1), None
    for level in reversed(pyramid):
        if sites is not None:
            nodes = child_nodes(nodes, sites, None)
        sites = select_sites(nodes, torch.from_numpy(level.ravel())[nodes.cell_n], sites)
    return sites
