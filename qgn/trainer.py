"""Training: compressed labels straight to the sparse decoder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from qgn.checkpoint import Checkpoint, save_checkpoint
from qgn.config import TrainConfig
from qgn.data.classes import ClassMap, class_map, count_pixels
from qgn.data.dataset import with_photos
from qgn.data.photos import Size
from qgn.data.sampler import TrainingOrder
from qgn.data.samples import Samples, collate
from qgn.errors import TrainingError
from qgn.evaluate import Scores, check_levels, evaluate, evaluation_loader
from qgn.losses import QuadtreeLoss
from qgn.models.build import MODEL_NAMES, build_model
from qgn.models.qgn import QGN, STRIDE
from quadcodec.store import LabelStore, open_store

POLY_POWER = 0.9
"""Exponent of the learning rate's decay (A.2 of the paper)."""
TAIL = 1 / 3
"""Share of the steps over which the schedule 'tail' decays."""
SCHEME = "pc"
"""The scheme by which the best checkpoint is chosen: the one that needs no labels."""


@dataclass(frozen=True, eq=False)
class Setup:
    """Hold what a run trains on, checked before the first step."""

    config: TrainConfig
    store: LabelStore
    root: Path
    classes: ClassMap
    pixels: dict[int, int]
    """Raw id -> pixels, over training and validation images."""
    train: tuple[int, ...]
    val: tuple[int, ...]
    without_photo: int


@dataclass(frozen=True)
class Step:
    """Report one training step."""

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
    check_levels(store)
    if config.model not in MODEL_NAMES:
        raise TrainingError(f"model {config.model!r} is unknown, expected one of {', '.join(MODEL_NAMES)}")
    if config.crop is not None and (any(side % STRIDE or side <= 0 for side in config.crop)):
        raise TrainingError(f"crop {config.crop[0]}x{config.crop[1]}: both sides must be multiples of {STRIDE}")
    root = Path(config.images if config.images is not None else store.info.image_root)
    train, val = _split(store)
    kept_train, kept_val = with_photos(store, train, root), with_photos(store, val, root)
    if not kept_train:
        raise TrainingError(
            f"{store.path}: none of {len(train)} training images has its photo below {root}. Name it with --images"
        )
    pixels = count_pixels(store, (*kept_train, *kept_val))
    classes = class_map(store, pixels, config.void)
    if not kept_val and config.val_fraction > 0:
        kept_train, kept_val = _set_aside(kept_train, config)
    left_out = len(train) + len(val) - len(kept_train) - len(kept_val)
    return Setup(config, store, root, classes, pixels, tuple(kept_train), tuple(kept_val), left_out)


def _split(store: LabelStore) -> tuple[list[int], list[int]]:
    """Return training and validation images: the splits of these names, else all images and none."""
    splits = store.info.splits
    if "train" not in splits:
        others = [i for i in range(len(store)) if store.splits[i] != "val"]
        return (others or list(range(len(store)))), (
            store.indices("val").tolist() if others and "val" in splits else []
        )
    return store.indices("train").tolist(), store.indices("val").tolist() if "val" in splits else []


def _set_aside(indices: list[int], config: TrainConfig) -> tuple[list[int], list[int]]:
    """Return training and validation images of a store without a val split, by the seed."""
    count = min(max(1, round(config.val_fraction * len(indices))), len(indices) - 1)
    order = np.random.default_rng([config.seed, len(indices)]).permutation(indices)
    return sorted(order[count:].tolist()), sorted(order[:count].tolist())


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
    TrainingError : the work folder is in use, a photo cannot be read, or the loss is no number.
    StoreError : the disk refuses; the older checkpoint stays intact.
    """
    config = setup.config
    work = Path(config.work_dir)
    torch.manual_seed(config.seed)
    model = build_model(config.model, len(setup.classes), width=config.width).to(config.device)
    criterion = QuadtreeLoss(config.loss, gamma=config.gamma).to(config.device)
    optimizer = build_optimizer(model, config)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(config.schedule, step / config.steps))
    scores: dict[str, Scores] = {}
    best = -1.0
    with _open_log(work) as log:
        _write(log, {"config": config.to_json(), "classes": setup.classes.names})
        began = time.perf_counter()
        for step, batch in enumerate(_training_loader(setup), 1):
            batch = batch.to(config.device)
            lr = optimizer.param_groups[0]["lr"]
            prediction = model(batch.images_bchw, batch.labels, config.propagation)
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
    setup: Setup, step: int, model: QGN, criterion: QuadtreeLoss, scores: dict[str, Scores], best: float
) -> float:
    """Write the last checkpoint, and the best one where this is it; return the best score so far."""
    config = setup.config
    work = Path(config.work_dir)
    values = {scheme: s.to_json() for scheme, s in scores.items()}
    checkpoint = Checkpoint(
        config.model, config.width, setup.classes, config.image_size, step, values, config.to_json()
    )
    save_checkpoint(work / "last.safetensors", checkpoint, model, criterion.beta_l)
    if scores and scores[SCHEME].miou <= best:
        return best
    save_checkpoint(work / "best.safetensors", checkpoint, model, criterion.beta_l)
    return scores[SCHEME].miou if scores else best


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
    samples = Samples(
        setup.store, setup.root, setup.classes, size=config.image_size, crop=config.crop, flip=True, seed=config.seed
    )
    order = TrainingOrder(setup.train, config.batch_size, config.steps, config.seed)
    return DataLoader(
        samples, batch_sampler=order, collate_fn=collate, num_workers=config.workers,
        pin_memory=config.device.startswith("cuda"),
    )  # fmt: skip


def _evaluate(setup: Setup, model: QGN) -> dict[str, Scores]:
    if not setup.val:
        return {}
    config = setup.config
    loader = evaluation_loader(
        setup.store, setup.val, setup.root, setup.classes,
        size=config.image_size, batch_size=config.batch_size, workers=config.workers,
    )  # fmt: skip
    return evaluate(model, loader, setup.classes, [SCHEME], device=config.device)


def _diverged(step: int, losses: list[float], work: Path) -> str:
    levels = ", ".join(f"level {level} {loss:.3g}" for level, loss in enumerate(losses))
    kept = [p.name for p in (work / "last.safetensors", work / "best.safetensors") if p.exists()]
    rest = f"{' and '.join(kept)} in {work} hold the last good weights" if kept else "no checkpoint was written yet"
    return f"step {step}: the loss is no number ({levels}); {rest}. Lower --lr or look at the images of this step"


@contextmanager
def _open_log(work: Path) -> Iterator[TextIO]:
    try:
        work.mkdir(parents=True, exist_ok=True)
        log = (work / "log.jsonl").open("x")
    except FileExistsError:
        raise TrainingError(f"{work}: holds a run already. Choose another --work-dir, or --overwrite it") from None
    except OSError as error:
        raise TrainingError(f"{work}: cannot be written ({error.strerror}). Choose another --work-dir") from error
    with log:
        yield log


def _write(log: TextIO, values: dict[str, Any]) -> None:
    log.write(json.dumps(values) + "\n")
    log.flush()


def clear_run(work_dir: str | Path) -> None:
    """Delete the files that an earlier run wrote to its folder, and nothing else."""
    for name in ("log.jsonl", "last.safetensors", "best.safetensors"):
        (Path(work_dir) / name).unlink(missing_ok=True)


def with_defaults(config: TrainConfig, store: LabelStore) -> TrainConfig:
    """Fill in what depends on the store: the image size that suits the device."""
    if config.image_size is None and config.crop is None:
        return replace(config, image_size=default_image_size(store, config.device))
    return config
