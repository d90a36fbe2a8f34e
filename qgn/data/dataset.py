"""For training loops of one's own: a store as a map-style PyTorch data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from qgn.errors import TrainingError
from quadcodec.quadtree import LinearQuadtree
from quadcodec.store import LabelStore, open_store

from .classes import ClassMap, class_map, count_pixels
from .photos import photo_path
from .samples import load_sample


@dataclass(frozen=True, eq=False)
class SegmentationDataset(Dataset[Any]):
    """Give (photo, mask) or (photo, tree) of the images of a split that have a photo.

    >>> dataset = SegmentationDataset.open("out.zarr", "train")
    >>> photo, mask = dataset[0]  # (3, H, W) uint8, (H, W) int64 classes, 255 for void
    >>> loader = torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=2)
    """

    store: LabelStore
    indices: tuple[int, ...]
    root: Path
    classes: ClassMap
    target: Literal["mask", "tree"] = "mask"
    transform: Callable[[Any, Any], Any] | None = None
    """Called with photo and target; what it returns is the item."""

    @classmethod
    def open(
        cls,
        path: str | Path,
        split: str | None = None,
        *,
        target: Literal["mask", "tree"] = "mask",
        images: str | Path | None = None,
        void: tuple[int, ...] | None = None,
        transform: Callable[[Any, Any], Any] | None = None,
    ) -> SegmentationDataset:
        """Open a store.

        Parameters
        ----------
        path : the store.
        split : its images only; by default all.
        target : 'mask' for an (H, W) int64 tensor of classes, 'tree' for a `LinearQuadtree` of them.
        images : folder of the photos, where it is not the one that the store names.
        void : raw ids to ignore besides the store's; () for none at all.
        transform : called with photo and target.

        Raises
        ------
        StoreError : no such store or split.
        TrainingError : no image has a photo, or ids without a meaning.
        """
        store = open_store(path)
        root = Path(images if images is not None else store.info.image_root)
        indices = with_photos(store, store.indices(split).tolist(), root)
        if not indices:
            raise TrainingError(f"{path}: no image of split {split!r} has a photo below {root}. Name its folder")
        present = count_pixels(store, range(len(store)))
        return cls(store, tuple(indices), root, class_map(store, present, void), target, transform)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor | LinearQuadtree] | Any:
        sample = load_sample(self.store, self.indices[item], self.root, self.classes)
        photo = torch.from_numpy(np.ascontiguousarray(sample.photo.transpose(2, 0, 1)))
        target: Any = sample.tree
        if self.target == "mask":
            target = torch.from_numpy(sample.tree.to_mask().astype(np.int64))
        return (photo, target) if self.transform is None else self.transform(photo, target)


def with_photos(store: LabelStore, indices: list[int], root: Path) -> list[int]:
    """Return those of the images whose photo is there."""
    paths = ((index, photo_path(store, index, root)) for index in indices)
    return [index for index, path in paths if path is not None and path.is_file()]
