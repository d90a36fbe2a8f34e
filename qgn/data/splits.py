"""Which images a run trains on and which it validates on: by the store's splits, or set aside by the seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qgn.errors import TrainingError
from quadcodec.store import LabelStore

from .dataset import with_photos


@dataclass(frozen=True)
class Division:
    """Hold the images of a run; all of them have a photo.

    Attributes
    ----------
    train, val : indices in the store.
    train_split : the split that ``train`` is of.
    set_aside : ``val`` is of that split, too; else of the split 'val'.
    without_photo : images of these splits that are left out.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    train_split: str
    set_aside: bool
    without_photo: int


def divide(store: LabelStore, root: Path, *, train_split: str | None, val_fraction: float, seed: int) -> Division:
    """Choose the images of a run: a pure function of its arguments and of the photos that are there.

    Parameters
    ----------
    root : folder that the photos' paths are relative to.
    train_split : the split to train on; None for 'train', or the one that can only be meant.
    val_fraction : share of the training images to set aside where the split 'val' has no photos.

    Raises
    ------
    StoreError : no such split.
    TrainingError : several splits could be meant, or no training image has a photo.
    """
    name = _training_split(store) if train_split is None else train_split
    images = store.indices(name).tolist()
    val_images = store.indices("val").tolist() if "val" in store.info.splits and name != "val" else []
    train, val = with_photos(store, images, root), with_photos(store, val_images, root)
    if not train:
        raise TrainingError(
            f"{store.path}: none of {len(images)} training images has its photo below {root}. Name it with --images"
        )
    left_out = len(images) + len(val_images) - len(train) - len(val)
    set_aside = not val and val_fraction > 0
    if set_aside:
        count = min(max(1, round(val_fraction * len(train))), len(train) - 1)
        # Of an order of the whole split: a photo that comes or goes moves few of the others.
        order = np.random.default_rng([seed, len(images)]).permutation(images).tolist()
        val = sorted([i for i in order if i in set(train)][:count])
        train = [i for i in train if i not in set(val)]
    return Division(tuple(train), tuple(val), name, set_aside, left_out)


def _training_split(store: LabelStore) -> str:
    """Return 'train', or the only split that is neither for validation nor for a test."""
    splits = store.info.splits
    others = [name for name in splits if name != "val" and not name.lower().startswith("test")]
    if "train" not in splits and len(others) != 1:
        raise TrainingError(
            f"{store.path}: has the splits {', '.join(splits)}, and none of them is 'train'. "
            "Name the one to train on with --train-split NAME"
        )
    return "train" if "train" in splits else others[0]
