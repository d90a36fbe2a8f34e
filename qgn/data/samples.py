"""Samples and batches: photo and tree of an image, changed together, put together; no label raster anywhere.

A tree resized is built anew from nearest samples; flips and aligned crops move nodes only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from quadcodec.errors import MaskError, QuadcodecError
from quadcodec.quadtree import LinearQuadtree, resample
from quadcodec.store import LabelStore

from .batch import LabelBatch
from .classes import ClassMap
from .photos import Size, normalise, photo_path, read_photo


@dataclass(frozen=True, eq=False)
class Sample:
    """One image: its photo (H, W, 3) uint8 and its tree of training classes, of the same size.

    ``native`` is the mask at its own size, (H', W') uint8 classes with VOID, where an evaluation asked for it.
    """

    index: int
    photo: NDArray[np.uint8]
    tree: LinearQuadtree
    native: NDArray[np.uint8] | None = None

    def flipped(self) -> Sample:
        """Mirror photo and tree left to right, with the canvas."""
        return replace(self, photo=self.photo[:, ::-1], tree=self.tree.flip_horizontal())

    def cropped(self, y0: int, x0: int, size: Size) -> Sample:
        """Cut an aligned window of the canvas; the image must lie at its origin."""
        tree = self.tree.crop(y0, x0, *size)
        return replace(self, photo=self.photo[y0 : y0 + tree.height, x0 : x0 + tree.width], tree=tree)


@dataclass(frozen=True)
class Batch:
    """A batch of samples on one canvas.

    Attributes
    ----------
    images_bchw : (B, 3, H, W) float32, normalised, zero outside of the images.
    labels : their trees.
    indices : of the images in their store.
    natives : as `Sample.native`; never moved to a device.
    """

    images_bchw: Tensor
    labels: LabelBatch
    indices: tuple[int, ...]
    natives: tuple[NDArray[np.uint8] | None, ...]

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; a DataLoader calls this by name."""
        return replace(self, images_bchw=self.images_bchw.pin_memory(), labels=self.labels.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        images = self.images_bchw.to(device, non_blocking=True)
        return replace(self, images_bchw=images, labels=self.labels.to(device, non_blocking=True))


def load_sample(
    store: LabelStore, index: int, root: Path, classes: ClassMap, *, size: Size | None = None, native: bool = False
) -> Sample:
    """Read an image's photo and tree.

    Parameters
    ----------
    root : folder that the photos' paths are relative to.
    size : resize both to this (height, width).
    native : give the mask at its own size, too.

    Raises
    ------
    TrainingError : the photo is missing, damaged or of another size than the mask.
    MaskError : the tree holds an id that ``classes`` does not know.
    CorruptRecordError : the record is damaged.
    """
    try:
        tree = store.quadtree(index).remap(classes.table)
    except MaskError as error:
        raise MaskError(f"{store.path}: record {index} {store.names[index]!r}: {error}") from error
    path = photo_path(store, index, root)
    if path is None:
        raise ValueError(f"image {index} has no photo")
    photo = read_photo(path, native=(tree.height, tree.width), size=size)
    resized = tree if size is None or size == (tree.height, tree.width) else resample(tree, size)
    return Sample(index, photo, resized, tree.to_mask() if native else None)


def collate(samples: Sequence[Sample | QuadcodecError]) -> Batch | QuadcodecError:
    """Put samples of any sizes on the batch's largest canvas, each where its tree has it; pass on the first error."""
    for sample in samples:
        if isinstance(sample, QuadcodecError):
            return sample
    labels = LabelBatch.from_trees([sample.tree for sample in samples])
    batch, rows, cols = labels.grid
    cell = 1 << (labels.levels - 1)
    images = np.zeros((batch, 3, rows * cell, cols * cell), np.float32)
    for image, sample in zip(images, samples, strict=True):
        (y, x), (height, width) = sample.tree.origin, sample.photo.shape[:2]
        image[:, y : y + height, x : x + width] = normalise(sample.photo)
    return Batch(torch.from_numpy(images), labels, tuple(s.index for s in samples), tuple(s.native for s in samples))


def raising(batches: Iterable[Batch | QuadcodecError]) -> Iterator[Batch]:
    """Yield a loader's batches; raise here, in the process that asked, the error that one came as."""
    for batch in batches:
        if isinstance(batch, QuadcodecError):
            raise batch
        yield batch


@dataclass(frozen=True, eq=False)
class Samples(Dataset[Sample | QuadcodecError]):
    """Give samples of a store by (image, draw): what the training and evaluation loaders read.

    An image that cannot be read is given as the error: raised in a worker, it would reach the user as a
    DataLoader's traceback. `raising` raises it.

    Attributes
    ----------
    size : (height, width) that every image is resized to; None for its own.
    crop : (height, width) of a random aligned window of the canvas; None for all of it.
    flip : mirror half of the draws.
    seed : augmentation is a pure function of (seed, draw), whichever worker reads it.
    native : give masks at their own size, too.
    """

    store: LabelStore
    root: Path
    classes: ClassMap
    size: Size | None = None
    crop: Size | None = None
    flip: bool = False
    seed: int = 0
    native: bool = False

    def __getitem__(self, key: tuple[int, int]) -> Sample | QuadcodecError:
        try:
            return self._draw(*key)
        except QuadcodecError as error:
            return error

    def _draw(self, index: int, draw: int) -> Sample:
        sample = load_sample(self.store, index, self.root, self.classes, size=self.size, native=self.native)
        rng = np.random.default_rng([self.seed, draw])
        if self.crop is not None:
            cell = 1 << (sample.tree.levels - 1)
            rows, cols = sample.tree.grid
            y0 = cell * int(rng.integers(max(0, rows - self.crop[0] // cell) + 1))
            x0 = cell * int(rng.integers(max(0, cols - self.crop[1] // cell) + 1))
            sample = sample.cropped(y0, x0, self.crop)
        return sample.flipped() if self.flip and rng.random() < 0.5 else sample
