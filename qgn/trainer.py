"""Training: compressed labels straight to the sparse decoder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from qgn.checkpoint import Checkpoint, save_checkpoint
from qgn.data.sampler import TrainingOrder
from qgn.data.samples import Samples, collate, raising
from qgn.data.views import Views
from qgn.errors import TrainingError
from qgn.evaluate import evaluate, evaluation_loader
from qgn.losses import HeadLoss, criterion_of
from qgn.models.segmenter import Segmenter
from qgn.optim import build_optimizer, rate
from qgn.run_folder import BEST, LAST, new_run, write_line
from qgn.scores import Scores
from qgn.setup import Setup, model_of
from qgn.sparse.propagation import Schedule


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
    model = model_of(config, len(setup.classes)).to(config.device)
    propagation = Schedule.parse(config.propagation, model.schemes)
    criterion = criterion_of(model, config.loss, gamma=config.gamma).to(config.device)
    optimizer = build_optimizer(model, config)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(config.schedule, step / config.steps))
    scores: dict[str, Scores] = {}
    best = -math.inf
    with new_run(config) as log:
        write_line(log, {"config": config.to_json(), "classes": setup.classes.names})
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
            write_line(log, vars(done))
            on_step(done)
            if step % config.eval_every == 0 or step == config.steps:
                scores = _evaluate(setup, model)
                on_scores(step, scores)
                write_line(log, {"step": step, "scores": {scheme: s.to_json() for scheme, s in scores.items()}})
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
    return f"step {step}: the loss is no number ({levels}); {rest}. Lower lr or look at the images of this step"
