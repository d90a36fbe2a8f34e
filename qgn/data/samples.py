"""Samples and batches: photo and tree of an image, changed together, put together; no label raster anywhere.

A tree resized is built anew from nearest samples, in the window that is kept; flips and aligned crops move nodes only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from quadcodec.errors import MaskError, QuadcodecError
from quadcodec.quadtree import LinearQuadtree, relevel, resample
from quadcodec.store import LabelStore

from .batch import LabelBatch
from .classes import ClassMap
from .photos import normalise, photo_path, read_photo, resize_photo
from .views import LEVELS, Size, View, Views


@dataclass(frozen=True, eq=False)
class Sample:
    """One image: its photo (H, W, 3) uint8 and its tree of training classes, of the same size.

    ``native`` is the mask at its own size, (H', W') uint8 classes with VOID, where an evaluation asked for it.
    """

    index: int
    photo: NDArray[np.uint8]
    tree: LinearQuadtree
    native: NDArray[np.uint8] | None = None


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
    store: LabelStore,
    index: int,
    root: Path,
    classes: ClassMap,
    look: Callable[[Size], View] = View.whole,
    *,
    native: bool = False,
) -> Sample:
    """Read what is seen of an image: its photo, and its tree of LEVELS levels whatever those of the store.

    Parameters
    ----------
    root : folder that the photos' paths are relative to.
    look : the mask's (height, width) -> the view to give.
    native : give the mask at its own size, too.

    Raises
    ------
    TrainingError : the photo is missing, damaged or of another size than the mask.
    MaskError : the tree holds an id that ``classes`` does not know.
    CorruptRecordError : the record is damaged.
    """
    try:
        tree = relevel(store.quadtree(index).remap(classes.table), LEVELS)
    except MaskError as error:
        raise MaskError(f"{store.path}: record {index} {store.names[index]!r}: {error}") from error
    path = photo_path(store, index, root)
    if path is None:
        raise ValueError(f"image {index} has no photo")
    view = look((tree.height, tree.width))
    photo = resize_photo(read_photo(path, native=(tree.height, tree.width)), view.size, view.inside)
    if view.mirrored:
        photo = photo[:, ::-1]
    return Sample(index, photo, see_tree(tree, view), tree.to_mask() if native else None)


def see_tree(tree: LinearQuadtree, view: View) -> LinearQuadtree:
    """Return the part of an image's tree that a view shows; the image must lie at its canvas's origin."""
    if view.size != (tree.height, tree.width):
        tree = resample(tree, view.size, view.inside)
    elif view.window != View.whole(view.size).window:
        tree = tree.crop(*view.window)
    return tree.flip_horizontal() if view.mirrored else tree


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
        normalise(sample.photo, image[:, y : y + height, x : x + width])
    return Batch(torch.from_numpy(images), labels, tuple(s.index for s in samples), tuple(s.native for s in samples))


def raising(batches: Iterable[Batch | QuadcodecError]) -> Iterator[Batch]:
    """Yield a loader's batches; raise here, in the process that asked, the error that one came as."""
    for batch in batches:
        if isinstance(batch, QuadcodecError):
            raise batch
        yield batch


@dataclass(frozen=True, eq=False)
class Samples(Dataset[Sample | QuadcodecError]):
    """Give samples of a store by (image, draw): what the training loader reads.

    An image that cannot be read is given as the error: raised in a worker, it would reach the user as a
    DataLoader's traceback. `raising` raises it.

    Attributes
    ----------
    views : what is drawn of each image.
    seed : augmentation is a pure function of (seed, draw), whichever worker reads it.
    """

    store: LabelStore
    root: Path
    classes: ClassMap
    views: Views
    seed: int = 0

    def __getitem__(self, key: tuple[int, int]) -> Sample | QuadcodecError:
        index, draw = key
        rng = np.random.default_rng([self.seed, draw])
        try:
            return load_sample(self.store, index, self.root, self.classes, lambda size: self.views.draw(size, rng))
        except QuadcodecError as error:
            return error
