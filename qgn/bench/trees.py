"""Label trees to measure on: a street scene near the Cityscapes mean, and levels with a chosen share of composites."""

from __future__ import annotations

import numpy as np
import torch

from qgn.data.batch import LabelBatch
from qgn.models.decoder import LEVELS
from qgn.sparse.frontier import child_nodes, root_nodes
from qgn.sparse.sites import Sites, select_sites
from quadcodec import LinearQuadtree, decode_tree, encode
from quadcodec.scenes import street_labels

VAL_MEAN = (34.88, 20.44, 10.91, 5.06, 1.84)
"""Composite cells of levels 5 to 1 of Cityscapes val, percent of the level's cells (from Table 5 of the paper)."""


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
    found = []
    for index in range(candidates):
        labels = mask_tree(street_labels(0, size, index))
        far = sum(abs(np.log(mine / mean)) for mine, mean in zip(composite_shares(labels), VAL_MEAN, strict=True))
        found.append((far, index, labels))
    _, index, labels = min(found, key=lambda entry: entry[:2])
    return index, labels


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
