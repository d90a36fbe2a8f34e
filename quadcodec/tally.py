"""Counts over many trees: leaves by level, pixels by class and bytes, added up shard by shard.

One tree is held at a time and no raster of a store's mask is made; what is kept are sums, so that memory does not
grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MaskError
from .kernels.leaves import count_leaves
from .manifest import Source
from .masks import read_mask
from .parallel import Task, run_tasks
from .quadtree import LinearQuadtree
from .store import LabelStore, open_store

__all__ = ["FolderTask", "LabelSpaces", "ShardTask", "Tally", "count_tree", "tally"]

LabelSpaces = Mapping[str, Mapping[int, int] | None]
"""Name of a label space -> new id of each raw id, or None for the raw ids themselves."""

Key = tuple[str, str]
"""Split and label space."""


@dataclass(frozen=True, eq=False)
class Tally:
    """Hold sums over the images of one split in one label space.

    Attributes
    ----------
    leaves : (levels,) leaves of the zero-padded masks, by level.
    class_pixels : (ids,) pixels of each id inside the images; ids that are missing have none.
    ratios : sum of leaves over padded pixels of each image.
    moments : (3, levels + 1) sums over images of y * y, of x * y and of x * x, where x is the padded pixels and y
        those in leaves of a level, in the last column the number of leaves.
    stored_bytes, dense_bytes : records (or mask files of a folder), and arrays of the masks' types.
    source_bytes : the mask files; None if one of them is not there.
    """

    images: int
    pixels: int
    padded_pixels: int
    leaves: NDArray[np.int64]
    class_pixels: NDArray[np.int64]
    ratios: float
    moments: NDArray[np.float64]
    stored_bytes: int
    source_bytes: int | None
    dense_bytes: int

    @classmethod
    def of_tree(cls, tree: LinearQuadtree, stored_bytes: int, source_bytes: int | None) -> Tally:
        """Count one image."""
        leaves, class_pixels = count_tree(tree)
        padded = tree.grid[0] * tree.grid[1] << 2 * (tree.levels - 1)
        y = np.append(leaves << 2 * np.arange(tree.levels), leaves.sum()).astype(np.float64)
        pixels = tree.height * tree.width
        return cls(
            1, pixels, padded, leaves, class_pixels, y[-1] / padded,
            np.stack((y * y, padded * y, np.full_like(y, float(padded) ** 2))),
            stored_bytes, source_bytes, pixels * tree.mask_dtype.itemsize,
        )  # fmt: skip

    def __add__(self, other: Tally) -> Tally:
        known = self.source_bytes is not None and other.source_bytes is not None
        longer, shorter = sorted((self.class_pixels, other.class_pixels), key=len, reverse=True)
        class_pixels = longer.copy()
        class_pixels[: len(shorter)] += shorter
        return Tally(
            self.images + other.images,
            self.pixels + other.pixels,
            self.padded_pixels + other.padded_pixels,
            self.leaves + other.leaves,
            class_pixels,
            self.ratios + other.ratios,
            self.moments + other.moments,
            self.stored_bytes + other.stored_bytes,
            (self.source_bytes or 0) + (other.source_bytes or 0) if known else None,
            self.dense_bytes + other.dense_bytes,
        )

    @property
    def errors(self) -> NDArray[np.float64] | None:
        """Standard errors over images of the pooled fractions, (levels + 1,), the leaf ratio last; None for one image.

        That of a ratio estimator: for images of one size, the standard deviation over images by the root of
        their number.
        """
        if self.images < 2:
            return None
        y = np.append(self.leaves << 2 * np.arange(len(self.leaves)), self.leaves.sum())
        fraction = y / self.padded_pixels
        residuals = self.moments[0] - 2 * fraction * self.moments[1] + fraction**2 * self.moments[2]
        variance = np.maximum(residuals, 0) * self.images / (self.images - 1)
        errors: NDArray[np.float64] = np.sqrt(variance) / self.padded_pixels
        return errors


def count_tree(tree: LinearQuadtree) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (levels,) leaves of the mask zero-padded on its canvas (Table 5), and the (ids,) pixels of each id.

    The tree leaves cells beyond the image open; with zeros there, a leaf of another class that straddles the
    edge splits down to the edge, and cells outside are leaves of class 0. All follows from tree and size.

    Raises
    ------
    ValueError : the image is not at the origin of its canvas.
    """
    if tree.origin != (0, 0):
        raise ValueError(f"image at {tree.origin} of its canvas, expected (0, 0)")
    leaves = np.zeros(tree.levels, np.int64)
    pixels = np.zeros((4, 2 + np.iinfo(tree.mask_dtype).max + 1), np.int64)
    count_leaves(tree.nodes, np.array(tree.counts), tree.grid[1], tree.height, tree.width, leaves, pixels)
    by_id = pixels[:, 2:].sum(axis=0)
    return leaves, by_id[: int(np.flatnonzero(by_id)[-1]) + 1]


@dataclass(frozen=True, eq=False)
class ShardTask:
    """Count the images of one shard of a store. A worker process is sent the store's path, and opens it once."""

    store: LabelStore
    shard: int
    spaces: LabelSpaces

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.store.path, self.shard, self.spaces)

    def run(self) -> dict[Key, Tally]:
        """Return the tally of each split and label space.

        Raises
        ------
        StoreError, FormatError : the shard or a record cannot be read.
        MaskError : a mask holds an id that a label space lacks.
        """
        store, size = self.store, self.store.info.shard_size
        tallies: dict[Key, Tally] = {}
        for index in range(self.shard * size, min((self.shard + 1) * size, len(store))):
            tree = store.quadtree(index)
            try:
                _add(
                    tallies,
                    store.splits[index],
                    tree,
                    self.spaces,
                    store.stored_bytes(index),
                    _file_bytes(store, index),
                )
            except MaskError as error:
                raise MaskError(f"{store.path}: record {index} {store.names[index]!r}: {error}") from error
        return tallies


def _reopened(path: Path, shard: int, spaces: LabelSpaces) -> ShardTask:
    return ShardTask(_open_once(path), shard, spaces)


@lru_cache(maxsize=1)
def _open_once(path: Path) -> LabelStore:
    """Open a store in a worker process, which lives as long as its caller reads the store."""
    return open_store(path)


def _file_bytes(store: LabelStore, index: int) -> int | None:
    """Return the size of the mask file that a record was made from; None if it is not there any more."""
    if not store.info.image_root:
        return None
    try:
        return (Path(store.info.image_root) / store.columns.source[index]).stat().st_size
    except OSError:
        return None


@dataclass(frozen=True)
class FolderTask:
    """Count some mask files of a folder."""

    root: Path
    sources: Sequence[Source]
    colors: Mapping[tuple[int, int, int], int] | None
    spaces: LabelSpaces

    def run(self) -> dict[Key, Tally]:
        """Return the tally of each split and label space.

        Raises
        ------
        MaskError : a mask cannot be read, or holds an id that a label space lacks.
        """
        tallies: dict[Key, Tally] = {}
        for source in self.sources:
            path = self.root / source.mask
            tree = LinearQuadtree.from_mask(read_mask(path, colors=self.colors))
            nbytes = path.stat().st_size
            try:
                _add(tallies, source.split, tree, self.spaces, nbytes, nbytes)
            except MaskError as error:
                raise MaskError(f"{path}: {error}") from error
        return tallies


def _add(
    tallies: dict[Key, Tally], split: str, tree: LinearQuadtree, spaces: LabelSpaces, stored: int, source: int | None
) -> None:
    for space, table in spaces.items():
        one = Tally.of_tree(tree if table is None else tree.remap(table), stored, source)
        before = tallies.get((split, space))
        tallies[split, space] = one if before is None else before + one


def tally(
    tasks: Iterable[Task[dict[Key, Tally]]], workers: int = 1, progress: Callable[[int], object] = lambda _: None
) -> dict[Key, Tally]:
    """Run tasks, in this process or on some workers, and return the tally of each split and label space.

    Parameters
    ----------
    progress : called with the number of images done since the last call.

    Raises
    ------
    StoreError, FormatError, MaskError : as the tasks.
    """
    total: dict[Key, Tally] = {}
    for result in run_tasks(tasks, workers):
        first_space = next(iter(result))[1]
        progress(sum(part.images for (_, space), part in result.items() if space == first_space))
        for key, part in result.items():
            total[key] = part if key not in total else total[key] + part
    return total
