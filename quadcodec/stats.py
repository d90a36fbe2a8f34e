"""The sparsity of data sets: Table 5 of the paper, class frequencies, and the bytes that are really stored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import StoreError
from .manifest import Manifest, detect_manifest, find_masks, load_manifest
from .parallel import choose_workers
from .quadtree import LinearQuadtree
from .store import LabelStore, open_store
from .tally import FolderTask, LabelSpaces, ShardTask, Tally, count_tree, tally

__all__ = ["SPACES", "StatsRow", "find_stores", "leaf_counts", "stats", "summary"]

PublishedRow = Mapping[str, float | None]
"""A row of the paper's Table 5: '5' .. '0' and 'ratio', in percent; None where it is unreadable."""

SPACES = ("raw", "train")
"""Label spaces: the ids of the mask files, and the training classes 0, 1, ... and `IGNORED`, padding included."""

IGNORED = -1
"""Training class of the pixels that take no part in training."""

_FOLDER_TASK = 16
"""Mask files that one task reads."""
_MANY_IMAGES, _MANY_FILES = 20_000, 1_000
"""From here on worker processes pay for their start."""


@dataclass(frozen=True)
class StatsRow:
    """Hold one row of Table 5: one split of one data set, in one label space.

    Attributes
    ----------
    profile : of a store; '' for a folder of mask files.
    classes : label space, of `SPACES`.
    leaves : of each level; ``percent[l]`` is the share of padded pixels in leaves of level l.
    percent_error, leaf_ratio_error : standard errors over images of the pooled percentages; NaN for one image.
    leaf_ratio_mean : mean over images; ``leaf_ratio_percent``, the paper's 'ratio', is pooled: the number of leaves
        over the number of padded pixels.
    stored_bytes : the records of a store, or the mask files of a folder.
    source_bytes : the mask files; None where they are not found any more.
    dense_bytes : arrays of the masks' types, one element a pixel.
    class_pixels : raw id or training class -> pixels, where there are any.
    class_names : raw id or training class -> name, where there is one.
    """

    path: str
    dataset: str
    profile: str
    split: str
    classes: str
    images: int
    pixels: int
    padded_pixels: int
    leaves: tuple[int, ...]
    percent_error: Mapping[int, float]
    leaf_ratio_error: float
    leaf_ratio_mean: float
    stored_bytes: int
    source_bytes: int | None
    dense_bytes: int
    class_pixels: Mapping[int, int]
    class_names: Mapping[int, str]
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

    @property
    def difference(self) -> dict[str, float]:
        """Ours less the paper's, '5' .. '0' and 'ratio', in percentage points, where the paper has a figure."""
        ours = {**{str(level): share for level, share in self.percent.items()}, "ratio": self.leaf_ratio_percent}
        paper = self.published or {}
        return {key: value - p for key, value in ours.items() if (p := paper.get(key)) is not None}

    @property
    def class_percent(self) -> dict[int, float]:
        """Share of the images' pixels by id, the most frequent first, in percent."""
        order = sorted(self.class_pixels, key=lambda label: (-self.class_pixels[label], label))
        return {label: 100.0 * self.class_pixels[label] / self.pixels for label in order}

    def to_json(self) -> dict[str, Any]:
        """Return the row as ``quadcodec stats --json`` prints it."""
        return {
            "path": self.path,
            "dataset": self.dataset,
            "profile": self.profile or None,
            "split": self.split,
            "classes": self.classes,
            "images": self.images,
            "pixels": self.pixels,
            "padded_pixels": self.padded_pixels,
            "percent": {str(level): share for level, share in self.percent.items()},
            "percent_error": {str(level): _number(error) for level, error in self.percent_error.items()},
            "leaf_ratio_percent": self.leaf_ratio_percent,
            "leaf_ratio_error": _number(self.leaf_ratio_error),
            "leaf_ratio_mean": self.leaf_ratio_mean,
            "stored_bytes": self.stored_bytes,
            "source_bytes": self.source_bytes,
            "dense_bytes": self.dense_bytes,
            "stored_bits_per_pixel": 8 * self.stored_bytes / self.pixels,
            "class_frequencies": [
                {"id": label, "name": self.class_names.get(label), "pixels": self.class_pixels[label], "percent": share}
                for label, share in self.class_percent.items()
            ],
            "published": None
            if self.published is None
            else {
                "percent": {level: share for level, share in self.published.items() if level != "ratio"},
                "leaf_ratio_percent": self.published["ratio"],
            },
            "difference": self.difference,
        }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def leaf_counts(tree: LinearQuadtree) -> NDArray[np.int64]:
    """Return the (levels,) number of leaves by level of the mask zero-padded on its canvas (Table 5).

    Raises
    ------
    ValueError : the image is not at the origin of its canvas.
    """
    return count_tree(tree)[0]


def stats(
    path: str | Path,
    *,
    layout: str = "auto",
    classes: Sequence[str] = ("raw",),
    workers: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> list[StatsRow]:
    """Return a row for each split and label space of a store, or of a folder of masks that a manifest describes.

    Parameters
    ----------
    path : the store or the folder.
    layout : the manifest of a folder, by name or as a TOML file; 'auto' to recognise it.
    classes : label spaces, of `SPACES`.
    workers : processes; None for one a core where there is enough to do.
    progress : called with the number of images done since the last call.

    Raises
    ------
    StoreError, ManifestError, MaskError, CorruptRecordError : what lies at ``path`` cannot be read, or has no
        training classes.
    """
    path = Path(path)
    if not path.exists() or (path / "zarr.json").exists():
        return _store_rows(open_store(path), classes, workers, progress)
    manifest = detect_manifest(path) if layout == "auto" else load_manifest(layout)
    return _folder_rows(path, manifest, classes, workers, progress)


def _store_rows(
    store: LabelStore, classes: Sequence[str], workers: int | None, progress: Callable[[int], object]
) -> list[StatsRow]:
    ignored = dict.fromkeys(store.info.void, 0)
    train = ignored | {c.id: 0 if c.train_id is None else c.train_id + 1 for c in store.classes}
    spaces = _spaces(str(store.path), classes, store.info.train_classes, train)
    tasks = (ShardTask(store, shard, spaces) for shard in range(store.num_shards))
    total = tally(tasks, choose_workers(workers, much=len(store) >= _MANY_IMAGES), progress)
    names = {"raw": {c.id: c.name for c in store.classes}, "train": _train_names(store.info.train_classes)}
    rows = []
    for split, space in itertools.product(store.info.splits, classes):
        if (split, space) not in total:
            raise StoreError(f"{store.path}: split {split!r} holds no image")
        head = (str(store.path), store.info.dataset, store.info.profile, split, space)
        rows.append(_row(head, total[split, space], names[space], store.info.published.get(split)))
    return rows


def _folder_rows(
    path: Path, manifest: Manifest, classes: Sequence[str], workers: int | None, progress: Callable[[int], object]
) -> list[StatsRow]:
    sources = find_masks(path, manifest).sources
    train = {label: manifest.class_ids.get(label, -1) + 1 for label in manifest.labels}
    spaces = _spaces(str(path), classes, manifest.class_names, train)
    parts = (sources[start : start + _FOLDER_TASK] for start in range(0, len(sources), _FOLDER_TASK))
    tasks = (FolderTask(path, part, manifest.mask_colors, spaces) for part in parts)
    total = tally(tasks, choose_workers(workers, much=len(sources) >= _MANY_FILES), progress)
    names = {"raw": manifest.labels, "train": _train_names(manifest.class_names)}
    return [
        _row(
            (str(path), manifest.name, "", split, space), total[split, space], names[space],
            manifest.published.get(split),
        )
        for split, space in itertools.product(dict.fromkeys(source.split for source in sources), classes)
    ]  # fmt: skip


def _spaces(where: str, classes: Sequence[str], train_classes: Sequence[str], train: Mapping[int, int]) -> LabelSpaces:
    if "train" in classes and not train_classes:
        raise StoreError(f"{where}: names no training classes. Count raw ids, or name classes in a manifest")
    return {space: train if space == "train" else None for space in classes}


def _train_names(train_classes: Sequence[str]) -> dict[int, str]:
    return {IGNORED: "ignored", **dict(enumerate(train_classes))}


def _row(
    head: tuple[str, str, str, str, str], total: Tally, names: Mapping[int, str], published: PublishedRow | None
) -> StatsRow:
    errors = 100.0 * total.errors if total.errors is not None else np.full(len(total.leaves) + 1, np.nan)
    levels = range(len(total.leaves) - 1, -1, -1)
    first = IGNORED if head[-1] == "train" else 0  # counted as 0, with class k as k + 1: padding is 0, too
    return StatsRow(
        *head,
        images=total.images,
        pixels=total.pixels,
        padded_pixels=total.padded_pixels,
        leaves=tuple(int(count) for count in total.leaves),
        percent_error={level: float(errors[level]) for level in levels},
        leaf_ratio_error=float(errors[-1]),
        leaf_ratio_mean=100.0 * total.ratios / total.images,
        stored_bytes=total.stored_bytes,
        source_bytes=total.source_bytes,
        dense_bytes=total.dense_bytes,
        class_pixels={first + int(i): int(total.class_pixels[i]) for i in np.flatnonzero(total.class_pixels)},
        class_names=names,
        published=published,
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
