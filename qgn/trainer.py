"""Training: compressed labels straight to the sparse decoder."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from qgn.checkpoint import Checkpoint, save_checkpoint
from qgn.config import TrainConfig
from qgn.data.classes import ClassMap, class_map, count_pixels
from qgn.data.photos import Size
from qgn.data.sampler import TrainingOrder
from qgn.data.samples import Samples, collate, raising
from qgn.data.splits import Division, divide
from qgn.data.views import Views
from qgn.errors import TrainingError
from qgn.evaluate import Scores, evaluate, evaluation_loader
from qgn.losses import HeadLoss, criterion_of
from qgn.models.build import build_model
from qgn.models.segmenter import STRIDE, Segmenter
from qgn.sparse.propagation import Schedule
from quadcodec.store import LabelStore, open_store

POLY_POWER = 0.9
"""Exponent of the learning rate's decay (A.2 of the paper)."""
TAIL = 1 / 3
"""Share of the steps over which the schedule 'tail' decays."""
LOG, LAST, BEST = RUN_FILES = ("log.jsonl", "last.safetensors", "best.safetensors")
"""What a run writes to its folder."""


@dataclass(frozen=True, eq=False)
class Setup:
    """Hold what a run trains on, checked before the first step."""

    config: TrainConfig
    store: LabelStore
    root: Path
    classes: ClassMap
    pixels: dict[int, int]
    """Raw id -> pixels, over training and validation images."""
    images: Division


@dataclass(frozen=True)
class Step:
    """Report one training step. A dense model's heads count as levels, the main one as level 0."""

    step: int
    loss: float
    level_losses: tuple[float, ...]
    beta: tuple[float, ...]
    lr: float
    sites: int
    """Active sites of all levels, an image."""
    images_per_second: float


def prepare(config: TrainConfig) -> Setup:
    """Open the store, choose images and settle the classes.

    Raises
    ------
    StoreError : no such store, or not complete.
    TrainingError : no photos, classes that are not settled, or settings that do not fit.
    """
    store = open_store(config.labels)
    config = _with_scheme(config)
    if config.crop is not None and (any(side % STRIDE or side <= 0 for side in config.crop)):
        raise TrainingError(f"crop {config.crop[0]}x{config.crop[1]}: both sides must be multiples of {STRIDE}")
    root = Path(config.images if config.images is not None else store.info.image_root)
    images = divide(store, root, train_split=config.train_split, val_fraction=config.val_fraction, seed=config.seed)
    _check_batches(config, store, images.train)
    pixels = count_pixels(store, (*images.train, *images.val))
    return Setup(config, store, root, class_map(store, pixels, config.void), pixels, images)


def _with_scheme(config: TrainConfig) -> TrainConfig:
    """Fill in the model's own scheme; raise TrainingError for a model that cannot be built, or does not know it."""
    try:
        with torch.device("meta"):
            schemes = _model(config, num_classes=1).schemes
    except ValueError as error:
        raise TrainingError(f"{error}") from error
    if config.propagation is None:
        return replace(config, propagation=schemes[0])
    Schedule.parse(config.propagation, schemes)
    return config


def _model(config: TrainConfig, num_classes: int) -> Segmenter:
    return build_model(
        config.model, num_classes, width=config.width, variants=config.variants, backend=config.backend,
        recompute=config.recompute,
    )  # fmt: skip


def _check_batches(config: TrainConfig, store: LabelStore, images: tuple[int, ...]) -> None:
    """Refuse batches of one coarsest cell: batch normalisation has nothing to normalise over there."""
    if config.batch_size > 1:
        return
    for index in images:
        size = config.image_size or tuple(int(v) for v in store.sizes[index])
        cells = [-(-side // STRIDE) for side in size]
        if config.crop is not None:
            cells = [min(n, side // STRIDE) for n, side in zip(cells, config.crop, strict=True)]
        if cells == [1, 1]:
            raise TrainingError(
                f"{store.path}: of image {index} {store.names[index]!r} the network sees {STRIDE} x {STRIDE} pixels or "
                "fewer, too little to normalise a batch of one image. Use --batch-size 2 or more, or larger images"
            )


def default_image_size(store: LabelStore, device: str) -> Size | None:
    """Return native size on a GPU; on a CPU the size of the largest image, shrunk to 65,536 pixels or fewer."""
    height, width = (int(v) for v in store.sizes.max(axis=0))
    if device != "cpu" or height * width <= 256 * 256:
        return None
    scale = (256 * 256 / (height * width)) ** 0.5
    return tuple(max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in (height, width))  # type: ignore[return-value]


def train(
    setup: Setup,
    *,
    on_step: Callable[[Step], object] = lambda _: None,
    on_scores: Callable[[int, dict[str, Scores]], object] = lambda _step, _scores: None,
) -> dict[str, Scores]:
    """Run the training; write ``last.safetensors``, ``best.safetensors`` and ``log.jsonl`` to the work folder.

    Returns
    -------
    The last scores on the validation images, empty if there are none.

    Raises
    ------
    TrainingError : the work folder is in use or cannot be written, a photo cannot be read, or the loss is no number.
    CheckpointError : the disk refuses; the older checkpoint stays intact.
    """
    config = setup.config
    work = Path(config.work_dir)
    torch.manual_seed(config.seed)
    model = _model(config, len(setup.classes)).to(config.device)
    propagation = Schedule.parse(config.propagation, model.schemes)
    criterion = criterion_of(model, config.loss, gamma=config.gamma).to(config.device)
    optimizer = build_optimizer(model, config)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(config.schedule, step / config.steps))
    scores: dict[str, Scores] = {}
    best = -math.inf
    with _open_log(work) as log:
        _write(log, {"config": config.to_json(), "classes": setup.classes.names})
        began = time.perf_counter()
        for step, batch in enumerate(raising(_training_loader(setup)), 1):
            batch = batch.to(config.device)
            lr = optimizer.param_groups[0]["lr"]
            prediction = model(batch.images_bchw, batch.labels, propagation.scheme_at((step - 1) / config.steps))
            loss, losses_l = criterion(prediction.logits, prediction.targets)
            if not torch.isfinite(loss):
                raise TrainingError(_diverged(step, losses_l.tolist(), work))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
            done = Step(
                step, loss.item(), tuple(losses_l.tolist()), tuple(criterion.beta_l.tolist()), lr,
                sum(prediction.active_sites) // len(batch.indices),
                len(batch.indices) / (time.perf_counter() - began),
            )  # fmt: skip
            _write(log, vars(done))
            on_step(done)
            if step % config.eval_every == 0 or step == config.steps:
                scores = _evaluate(setup, model)
                on_scores(step, scores)
                _write(log, {"step": step, "scores": {scheme: s.to_json() for scheme, s in scores.items()}})
                best = _save(setup, step, model, criterion, scores, best)
            began = time.perf_counter()
    return scores


def _save(
    setup: Setup, step: int, model: Segmenter, criterion: HeadLoss, scores: dict[str, Scores], best: float
) -> float:
    """Write the last checkpoint, and the best one where this is it; return the best score so far."""
    config = setup.config
    work = Path(config.work_dir)
    values = {scheme: s.to_json() for scheme, s in scores.items()}
    # Absolute: an evaluation elsewhere asks whether it is given the same store.
    settings = config.to_json() | {"labels": str(setup.store.path.resolve())}
    checkpoint = Checkpoint(
        config.model, config.width, setup.classes, config.image_size, step, values, settings, config.variants
    )
    save_checkpoint(work / LAST, checkpoint, model, criterion.beta_l)
    miou = scores[model.schemes[-1]].miou if scores else math.inf
    score = -1.0 if math.isnan(miou) else miou  # nothing but void: worse than anything
    if scores and score <= best:
        return best
    save_checkpoint(work / BEST, checkpoint, model, criterion.beta_l)
    return score


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser; biases and batch norm do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)


def rate(schedule: str, done: float) -> float:
    """Return the learning rate as a share of the first one, when a share ``done`` of the steps is done."""
    if schedule == "poly":
        return (1 - done) ** POLY_POWER
    return min(1.0, (1 - done) / TAIL)


def _training_loader(setup: Setup) -> DataLoader[Any]:
    config = setup.config
    views = Views(size=config.image_size, crop=config.crop, flip=True)
    samples = Samples(setup.store, setup.root, setup.classes, views, config.seed)
    order = TrainingOrder(setup.images.train, config.batch_size, config.steps, config.seed)
    return DataLoader(
        samples, batch_sampler=order, collate_fn=collate, num_workers=config.workers,
        pin_memory=config.device.startswith("cuda"),
    )  # fmt: skip


def _evaluate(setup: Setup, model: Segmenter) -> dict[str, Scores]:
    if not setup.images.val:
        return {}
    config = setup.config
    loader = evaluation_loader(
        setup.store, setup.images.val, setup.root, setup.classes,
        size=config.image_size, batch_size=config.batch_size, workers=config.workers,
    )  # fmt: skip
    return evaluate(model, loader, setup.classes, model.schemes[-1:], device=config.device)


def _diverged(step: int, losses: list[float], work: Path) -> str:
    levels = ", ".join(f"level {index} {loss:.3g}" for index, loss in enumerate(losses))
    kept = [name for name in (LAST, BEST) if (work / name).exists()]
    rest = f"{' and '.join(kept)} in {work} hold the last good weights" if kept else "no checkpoint was written yet"
    return f"step {step}: the loss is no number ({levels}); {rest}. Lower --lr or look at the images of this step"


@contextmanager
def _open_log(work: Path) -> Iterator[Path]:
    """Make an empty log; take it away again if the run fails before its first checkpoint."""
    _check_folder(work)
    log = work / LOG
    if any((work / name).exists() for name in RUN_FILES):
        raise TrainingError(f"{work}: holds a run already. Choose another --work-dir, or --overwrite it")
    try:
        work.mkdir(parents=True, exist_ok=True)
        log.touch(exist_ok=False)
    except OSError as error:
        raise TrainingError(f"{work}: cannot be written ({error.strerror}). Choose another --work-dir") from error
    try:
        yield log
    except BaseException:
        if not (work / LAST).exists():
            log.unlink(missing_ok=True)
        raise


def _write(log: Path, values: dict[str, Any]) -> None:
    try:
        with log.open("a") as file:
            file.write(json.dumps(values) + "\n")
    except OSError as error:
        raise TrainingError(
            f"{log}: cannot be written ({error.strerror}). Free space or fix permissions, then run again"
        ) from error


def clear_run(work_dir: str | Path) -> None:
    """Delete the files that an earlier run wrote to its folder, and nothing else; raise TrainingError if that fails."""
    work = Path(work_dir)
    _check_folder(work)
    try:
        for name in RUN_FILES:
            (work / name).unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"{work}: cannot be cleared ({error.strerror}). Choose another --work-dir") from error


def _check_folder(work: Path) -> None:
    if work.exists() and not work.is_dir():
        raise TrainingError(f"{work}: is a file, expected a folder or nothing. Choose another --work-dir")


def with_defaults(config: TrainConfig, store: LabelStore) -> TrainConfig:
    """Fill in what depends on the store: the image size that suits the device."""
    if config.image_size is None and config.crop is None:
        return replace(config, image_size=default_image_size(store, config.device))
    return config
