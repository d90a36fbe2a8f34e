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
    held_aside : training images that are not trained on, apart from ``val`` too: class weights and thresholds are
        chosen on them.
    train_split : the split that ``train`` and ``held_aside`` are of.
    set_aside : ``val`` is of that split, too; else of the split 'val'.
    without_photo : images of these splits that are left out.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    held_aside: tuple[int, ...]
    train_split: str
    set_aside: bool
    without_photo: int


def divide(
    store: LabelStore, root: Path, *, train_split: str | None, val_fraction: float, seed: int, held_aside: int = 0
) -> Division:
    """Choose the images of a run: a pure function of its arguments and of the photos that are there.

    Parameters
    ----------
    root : folder that the photos' paths are relative to.
    train_split : the split to train on; None for 'train', or the one that can only be meant.
    val_fraction : share of the training images to set aside where the split 'val' has no photos.
    held_aside : number of training images to hold aside besides; the images of validation do not depend on it.

    Raises
    ------
    StoreError : no such split.
    TrainingError : several splits could be meant, no training image has a photo, or none would be left to train on.
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
    validating = min(max(1, round(val_fraction * len(train))), len(train) - 1) if set_aside else 0
    if held_aside and validating + held_aside >= len(train):
        raise TrainingError(
            f"{store.path}: has {len(train)} training images, and {validating + held_aside} would be set aside for "
            "validation, class weights and thresholds. Lower held_aside or val_fraction"
        )
    # Of an order of the whole split: a photo that comes or goes moves few of the others.
    there = set(train)
    order = [i for i in np.random.default_rng([seed, len(images)]).permutation(images).tolist() if i in there]
    if set_aside:
        val = sorted(order[:validating])
    held = sorted(order[validating : validating + held_aside])
    train = sorted(order[validating + held_aside :])
    return Division(tuple(train), tuple(val), tuple(held), name, set_aside, left_out)


def _training_split(store: LabelStore) -> str:
    """Return 'train', or the only split that is neither for validation nor for a test."""
    splits = store.info.splits
    others = [name for name in splits if name != "val" and not name.lower().startswith("test")]
    if "train" not in splits and len(others) != 1:
        raise TrainingError(
            f"{store.path}: has the splits {', '.join(splits)}, and none of them is 'train'. "
            "Name the one to train on with train_split=NAME"
        )
    return "train" if "train" in splits else others[0]
