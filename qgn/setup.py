"""What a run needs before its first step: settings gathered and completed, data chosen, everything checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from qgn.config import TrainConfig
from qgn.data.classes import ClassMap, class_map, count_pixels
from qgn.data.photos import Size
from qgn.data.splits import Division, divide
from qgn.data.views import Views
from qgn.distributed import world
from qgn.errors import TrainingError
from qgn.learner import model_of
from qgn.models.segmenter import STRIDE
from qgn.models.weights import LoadedWeights, load_weights
from qgn.recipes import read_settings, recipe_file
from qgn.run_folder import CONFIG
from qgn.settings import parse
from qgn.sparse.propagation import Schedule
from quadcodec.store import LabelStore, open_store


@dataclass(frozen=True, eq=False)
class Setup:
    """Hold what a run trains on, checked before the first step."""

    config: TrainConfig
    store: LabelStore
    root: Path
    classes: ClassMap
    pixels: dict[int, int]
    """Raw id -> pixels, over all images of the run."""
    images: Division
    weights: LoadedWeights | None
    """What fits of the file of encoder weights, where the settings name one."""


def gather(file: Path | None, recipe: str | None, texts: Iterable[str], *, resume: bool = False) -> dict[str, Any]:
    """Return the settings of a recipe, over these of a settings file, and of ``key=value`` texts.

    What comes later in this list wins. With ``resume`` they all go over the settings of the run in the work folder, if
    there is one.

    Raises
    ------
    TrainingError : an unknown recipe, file or key, or a value of another kind.
    """
    settings = {} if recipe is None else read_settings(recipe_file(recipe))
    if file is not None:
        settings |= read_settings(file)
    settings |= parse(TrainConfig, texts)
    saved = _work_dir(settings) / CONFIG
    return read_settings(saved) | settings if resume and saved.exists() else settings


def _work_dir(settings: Mapping[str, Any]) -> Path:
    if "work_dir" not in settings and "labels" not in settings:
        raise TrainingError("no store is named. Use --labels STORE")
    return Path(settings.get("work_dir") or Path("runs") / Path(settings["labels"]).name.removesuffix(".zarr"))


def resolve(settings: Mapping[str, Any], device: str) -> TrainConfig:
    """Return the settings of a run with what depends on others, on the store or on the device filled in.

    Raises
    ------
    TrainingError : no store is named.
    StoreError : no such store, or not complete.
    """
    if "labels" not in settings:
        raise TrainingError("no store is named. Use --labels STORE")
    values: dict[str, Any] = {
        "work_dir": str(_work_dir(settings)),
        "eval_every": -(-settings.get("steps", TrainConfig.steps) // 2),
        "held_aside": 100 if settings.get("reweigh_every") else 0,
    }
    if not {"crop", "image_size", "short_edges"} & set(settings):
        values["image_size"] = default_image_size(open_store(settings["labels"]), device)
    return TrainConfig(**values | dict(settings) | {"device": device})


def default_image_size(store: LabelStore, device: str) -> Size | None:
    """Return native size on a GPU; on a CPU the size of the largest image, shrunk to 65,536 pixels or fewer."""
    height, width = (int(v) for v in store.sizes.max(axis=0))
    if device != "cpu" or height * width <= 256 * 256:
        return None
    scale = (256 * 256 / (height * width)) ** 0.5
    return tuple(max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in (height, width))  # type: ignore[return-value]


def prepare(config: TrainConfig) -> Setup:
    """Open the store, choose images and settle the classes.

    Raises
    ------
    StoreError : no such store, or not complete.
    TrainingError : no photos, classes that are not settled, or settings that do not fit.
    CheckpointError : the encoder weights cannot be read or do not fit.
    """
    store = open_store(config.labels)
    if config.dataset not in (None, store.info.dataset):
        raise TrainingError(
            f"{store.path}: is a store of {store.info.dataset!r}, but the settings are for {config.dataset!r}. "
            f"Use its store, or add dataset={store.info.dataset} to train on this one"
        )
    config = _with_scheme(config)
    if config.crop is not None and (any(side % STRIDE or side <= 0 for side in config.crop)):
        raise TrainingError(f"crop {config.crop[0]}x{config.crop[1]}: both sides must be multiples of {STRIDE}")
    if config.scale is not None and config.scale[0] > config.scale[1]:
        raise TrainingError(f"scale {config.scale[0]:g},{config.scale[1]:g}: the lowest factor comes first. Swap them")
    if config.reweigh_every and not config.held_aside:
        raise TrainingError("reweigh_every needs images to test on that are not trained on. Set held_aside above 0")
    root = Path(config.images if config.images is not None else store.info.image_root)
    images = divide(
        store, root, train_split=config.train_split, val_fraction=config.val_fraction, seed=config.seed,
        held_aside=config.held_aside,
    )  # fmt: skip
    _check_batches(config, store, images.train)
    pixels = count_pixels(store, (*images.train, *images.val, *images.held_aside))
    return Setup(config, store, root, class_map(store, pixels, config.void), pixels, images, _fitting(config))


def views_of(config: TrainConfig) -> Views:
    """Return how training images are augmented."""
    return Views(
        size=config.image_size, short_edges=config.short_edges, scale=config.scale, max_side=config.max_side,
        crop=config.crop, flip=config.flip,
    )  # fmt: skip


def _with_scheme(config: TrainConfig) -> TrainConfig:
    """Fill in the model's own scheme; raise TrainingError for a model that cannot be built, or does not know it."""
    try:
        with torch.device("meta"):
            schemes = model_of(config, num_classes=1).schemes
    except ValueError as error:
        raise TrainingError(f"{error}") from error
    if config.propagation is None:
        return replace(config, propagation=schemes[0])
    Schedule.parse(config.propagation, schemes)
    return config


def _fitting(config: TrainConfig) -> LoadedWeights | None:
    """Return what of the file of encoder weights fits the run's model, of which nothing is made."""
    if config.weights is None:
        return None
    with torch.device("meta"):
        encoder = model_of(config, num_classes=1).encoder
    return load_weights(encoder, config.weights)


def _check_batches(config: TrainConfig, store: LabelStore, images: tuple[int, ...]) -> None:
    """Refuse batches that cannot be shared, and those of one coarsest cell: nothing to normalise over there."""
    parts = world() * config.accumulate
    if config.batch_size % parts:
        raise TrainingError(
            f"batch_size={config.batch_size} cannot be split into {world()} processes x {config.accumulate} parts. "
            f"Use a multiple of {parts}"
        )
    if config.batch_size > config.accumulate:  # processes normalise together
        return
    views = views_of(config)
    for index in images:
        height, width = store.sizes[index].tolist()
        if views.smallest((height, width)) == (STRIDE, STRIDE):
            raise TrainingError(
                f"{store.path}: of image {index} {store.names[index]!r} the network sees {STRIDE} x {STRIDE} pixels or "
                "fewer, too little to normalise a batch of one image. "
                f"Use batch_size={2 * config.accumulate} or more, or larger images"
            )
