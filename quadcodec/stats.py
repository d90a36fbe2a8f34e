"""The sparsity of a data set: Table 5 of the paper, and the bytes that are really stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import StoreError
from .manifest import Manifest, detect_manifest, find_masks, load_manifest
from .masks import read_mask
from .pyramid import COMPOSITE
from .quadtree import LinearQuadtree
from .store import LabelStore, open_store

__all__ = ["StatsRow", "find_stores", "leaf_counts", "stats"]

PublishedRow = Mapping[str, float | None]
"""A row of the paper's Table 5: '5' .. '0' and 'ratio', in percent; None where it is unreadable."""


@dataclass(frozen=True)
class StatsRow:
    """Hold one row of Table 5: one split of one data set.

    ``percent[l]`` is the share of padded pixels in leaves of level l; ``leaf_ratio_percent`` is the number
    of leaves over the number of padded pixels, pooled over images, and ``leaf_ratio_mean`` its mean over
    images. ``stored_bytes`` are the records of a store, or the mask files of a folder.
    """

    path: str
    dataset: str
    split: str
    images: int
    pixels: int
    padded_pixels: int
    leaves: tuple[int, ...]
    leaf_ratio_mean: float
    stored_bytes: int
    published: PublishedRow | None

    @property
    def percent(self) -> dict[int, float]:
        """Share of padded pixels by level, coarse to fine, in percent."""
        levels = range(len(self.leaves) - 1, -1, -1)
        return {level: 100.0 * (self.leaves[level] << (2 * level)) / self.padded_pixels for level in levels}

    @property
    def leaf_ratio_percent(self) -> float:
        """Leaves over padded pixels, in percent: the paper's 'ratio'."""
        return 100.0 * sum(self.leaves) / self.padded_pixels

    def to_json(self) -> dict[str, Any]:
        """Return the row as ``quadcodec stats --json`` prints it."""
        return {
            "path": self.path,
            "dataset": self.dataset,
            "split": self.split,
            "classes": "raw",
            "images": self.images,
            "pixels": self.pixels,
            "padded_pixels": self.padded_pixels,
            "percent": {str(level): share for level, share in self.percent.items()},
            "leaf_ratio_percent": self.leaf_ratio_percent,
            "leaf_ratio_mean": self.leaf_ratio_mean,
            "stored_bytes": self.stored_bytes,
            "stored_bits_per_pixel": 8 * self.stored_bytes / self.pixels,
            "published": None
            if self.published is None
            else {
                "percent": {level: share for level, share in self.published.items() if level != "ratio"},
                "leaf_ratio_percent": self.published["ratio"],
            },
        }


def leaf_counts(tree: LinearQuadtree) -> NDArray[np.int64]:
    """Return the (levels,) number of leaves by level of the mask zero-padded on its canvas (Table 5).

    The tree leaves cells beyond the image open; with zeros there, a leaf of another class that straddles the
    edge splits down to the edge, and cells outside are leaves of class 0. All follows from tree and size.

    Raises
    ------
    ValueError : the image is not at the origin of its canvas.
    """
    if tree.origin != (0, 0):
        raise ValueError(f"image at {tree.origin} of its canvas, expected (0, 0)")
    counts = np.zeros(tree.levels, np.int64)
    for level in range(tree.levels):
        values = tree.level(level)
        counts[level] += np.count_nonzero(values != COMPOSITE)
        size = 1 << level
        if tree.height % size == 0 and tree.width % size == 0:
            continue
        cells = tree.positions(level).astype(np.int64) * size
        inside = np.minimum((tree.height, tree.width) - cells, size)
        split = (values > 0) & (inside < size).any(axis=1)
        counts[level] -= np.count_nonzero(split)
        cut = np.full(np.count_nonzero(split), 1)  # cells of the level above that straddle the edge
        for finer in range(level - 1, -1, -1):
            step = 1 << finer
            touched = -(-inside[split] // step)
            straddling = touched.prod(axis=1) - (inside[split] // step).prod(axis=1)
            counts[finer] += int((4 * cut - straddling).sum())
            cut = straddling
    return counts


def stats(path: str | Path, *, layout: str = "auto") -> list[StatsRow]:
    """Return a row for each split of a store, or of a folder of masks that a manifest describes.

    Parameters
    ----------
    path : the store or the folder.
    layout : the manifest of a folder, by name or as a TOML file; 'auto' to recognise it.

    Raises
    ------
    StoreError, ManifestError, MaskError, CorruptRecordError : what lies at ``path`` cannot be read.
    """
    path = Path(path)
    if not path.exists() or (path / "zarr.json").exists():
        return _store_rows(open_store(path), str(path))
    return _folder_rows(path, detect_manifest(path) if layout == "auto" else load_manifest(layout))


def _store_rows(store: LabelStore, path: str) -> list[StatsRow]:
    rows = []
    for split in store.info.splits:
        items = ((store.quadtree(i), store.stored_bytes(i)) for i in store.indices(split))
        rows.append(_pool(items, path, store.info.dataset, split, store.info.published.get(split)))
    return rows


def _folder_rows(path: Path, manifest: Manifest) -> list[StatsRow]:
    data = find_masks(path, manifest)
    rows = []
    for split in dict.fromkeys(source.split for source in data.sources):
        masks = (path / source.mask for source in data.sources if source.split == split)
        items = (
            (LinearQuadtree.from_mask(read_mask(mask, colors=manifest.mask_colors)), mask.stat().st_size)
            for mask in masks
        )
        rows.append(_pool(items, str(path), manifest.name, split, manifest.published.get(split)))
    return rows


def _pool(
    items: Iterable[tuple[LinearQuadtree, int]], path: str, dataset: str, split: str, published: PublishedRow | None
) -> StatsRow:
    images = pixels = padded = stored = 0
    leaves: NDArray[np.int64] = np.zeros(0, np.int64)
    ratios = 0.0
    for tree, nbytes in items:
        counts = leaf_counts(tree)
        leaves = counts if not images else leaves + counts
        size = 1 << (tree.levels - 1)
        canvas = tree.grid[0] * tree.grid[1] * size * size
        images, pixels, padded, stored = (
            images + 1, pixels + tree.height * tree.width, padded + canvas, stored + nbytes,
        )  # fmt: skip
        ratios += 100.0 * float(counts.sum()) / canvas
    if not images:
        raise StoreError(f"{path}: split {split!r} holds no image")
    return StatsRow(
        path, dataset, split, images, pixels, padded, tuple(int(c) for c in leaves), ratios / images, stored, published
    )


def find_stores(folder: str | Path = ".") -> Iterator[Path]:
    """Yield the ``*.zarr`` folders that lie in a folder, by name."""
    return (path for path in sorted(Path(folder).glob("*.zarr")) if path.is_dir())


def summary(store: LabelStore) -> dict[str, Any]:
    """Return what ``quadcodec info`` prints: what a store holds, without reading a record."""
    stored = sum(store.stored_bytes(i) for i in range(len(store)))
    pixels = int(store.sizes.astype(np.int64).prod(axis=1).sum())
    return {
        "path": str(store.path),
        "dataset": store.info.dataset,
        "images": len(store),
        "splits": {split: len(store.indices(split)) for split in store.info.splits},
        "smallest": [int(v) for v in store.sizes[store.sizes.astype(np.int64).prod(axis=1).argmin()]],
        "largest": [int(v) for v in store.sizes[store.sizes.astype(np.int64).prod(axis=1).argmax()]],
        "pixels": pixels,
        "stored_bytes": stored,
        "stored_bits_per_pixel": 8 * stored / pixels,
        "levels": store.info.levels,
        "profile": store.info.profile,
        "shards": -(-len(store) // store.info.shard_size),
        "shard_size": store.info.shard_size,
        "with_photo": sum(bool(image) for image in store.columns.image),
        "image_root": store.info.image_root,
        "classes": {str(c.id): c.name for c in store.classes},
        "train_classes": list(store.info.train_classes),
        "void": list(store.info.void),
        "skipped": [{"path": problem.path, "message": problem.message} for problem in store.info.skipped],
        "format_version": store.info.format_version,
    }
