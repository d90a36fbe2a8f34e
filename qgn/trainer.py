"""Training: compressed labels straight to the sparse decoder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from qgn.board import open_board
from qgn.checkpoint import Checkpoint, checkpoint_bytes, write_checkpoint
from qgn.class_weights import class_weights
from qgn.data.sampler import TrainingOrder
from qgn.data.samples import Batch, Samples, collate, raising
from qgn.distributed import rank, world
from qgn.errors import TrainingError
from qgn.evaluate import evaluate, evaluation_loader
from qgn.learner import Gradient, Learner, autocast, build_learner, differentiate, seed_step, share, update
from qgn.models.segmenter import Segmenter
from qgn.optim import rate
from qgn.run_folder import BEST, LAST, can_resume, clear_run, cut_log, kept_path, open_run, state_path, tidy, write_line
from qgn.scores import Scores
from qgn.setup import Setup, views_of
from qgn.sparse.propagation import Schedule
from qgn.train_state import Progress, resume_learner, state_bytes


@dataclass(frozen=True)
class Step:
    """Report one training step. A dense model's heads count as levels, the main one as level 0."""

    step: int
    loss: float
    level_losses: tuple[float, ...]
    beta: tuple[float, ...]
    lr: float
    grad_norm: float | None
    """Length of the gradient before clipping; None where float16 overflowed and the step was left out."""
    sites: int
    """Active sites of all levels, an image."""
    images_per_second: float


def train(
    setup: Setup,
    *,
    resume: bool = False,
    on_step: Callable[[Step], object] = lambda _: None,
    on_scores: Callable[[int, dict[str, Scores]], object] = lambda _step, _scores: None,
) -> dict[str, Scores]:
    """Run the training; write checkpoints, training state, settings and log to the work folder.

    Parameters
    ----------
    resume : go on with the run in the work folder, from its last save on; begin anew if it has none.

    Returns
    -------
    The last scores on the validation images, empty if there are none, or if no step was left to do.

    Raises
    ------
    TrainingError : the work folder is in use or cannot be written, a photo cannot be read, the loss is no number, or
        the settings or the store differ from those of the run to resume.
    CheckpointError : the disk refuses, and the older checkpoint stays intact; or there is nothing to resume from.
    """
    config, work = setup.config, Path(setup.config.work_dir)
    learner = build_learner(config, len(setup.classes))
    resumed = resume and can_resume(work)
    progress = resume_learner(learner, setup) if resumed else Progress()
    if resume and not resumed:
        clear_run(work)
    network = share(learner.model)
    propagation = Schedule.parse(config.propagation, learner.model.schemes)
    scores: dict[str, Scores] = {}
    with open_run(config, resumed=resumed) as log, open_board(setup, progress.step) as board:

        def note(line: dict[str, Any]) -> None:
            write_line(log, line)
            board.line(line)

        if resumed:
            cut_log(log, progress.log_bytes)
        else:
            write_line(log, {"config": config.to_json(), "classes": setup.classes.names})
        batches = raising(training_loader(setup, progress.step))
        for step in range(progress.step + 1, config.steps + 1):
            began = time.perf_counter()
            done = (step - 1) / config.steps
            seed_step(config.seed, step)
            parts = [batch.to(config.device) for batch in islice(batches, config.accumulate)]
            gradient = differentiate(learner, network, parts, propagation.scheme_at(done), config.precision)
            lr = config.lr * rate(config.schedule, done)
            norm = _checked_update(setup, learner, gradient, parts, step, lr)
            report = Step(
                step, gradient.loss, tuple(gradient.per_level_l.tolist()), tuple(learner.criterion.beta_l.tolist()), lr,
                norm, gradient.sites // config.batch_size, config.batch_size / (time.perf_counter() - began),
            )  # fmt: skip
            note(asdict(report))
            on_step(report)
            if _due(step, config.reweigh_every):
                note({"step": step, "class_weights": _reweigh(setup, learner)})
            evaluated = _due(step, config.eval_every) or step == config.steps
            if evaluated:
                scores = _evaluate(setup, learner.result, setup.images.val)
                on_scores(step, scores)
                note({"step": step, "scores": {scheme: s.to_json() for scheme, s in scores.items()}})
            if rank() == 0 and (evaluated or _due(step, config.save_every) or _due(step, config.keep_every)):
                progress = replace(progress, step=step, log_bytes=log.stat().st_size)
                progress = _save(setup, learner, progress, scores if evaluated else {})
            if evaluated:
                board.pictures(setup, _described(setup, step, scores), learner.result)
    return scores


def _due(step: int, every: int | None) -> bool:
    return bool(every) and step % every == 0


def _checked_update(
    setup: Setup, learner: Learner, gradient: Gradient, parts: list[Batch], step: int, lr: float
) -> float | None:
    """Take the step; raise TrainingError if loss or gradient are no numbers."""
    if not math.isfinite(gradient.loss):
        raise TrainingError(_diverged(setup, step, "loss", gradient, parts))
    try:
        return update(learner, gradient, step, lr, setup.config)
    except FloatingPointError as error:
        raise TrainingError(_diverged(setup, step, "gradient", gradient, parts)) from error


def _diverged(setup: Setup, step: int, what: str, gradient: Gradient, parts: list[Batch]) -> str:
    levels = ", ".join(f"level {index} {loss:.3g}" for index, loss in enumerate(gradient.per_level_l.tolist()))
    names = ", ".join(setup.store.names[i] for part in parts for i in part.indices)
    work = Path(setup.config.work_dir)
    kept = [name for name in (LAST, BEST) if (work / name).exists()]
    rest = f"{' and '.join(kept)} in {work} hold the last good weights" if kept else "no checkpoint was written yet"
    cure = f"Start a new run with a lower lr, or look at the images {names}"
    return f"step {step}: the {what} is no number ({levels}); {rest}. {cure}"


def _described(setup: Setup, step: int, scores: dict[str, Scores]) -> Checkpoint:
    config = setup.config
    values = {scheme: s.to_json() for scheme, s in scores.items()}
    # Absolute: an evaluation elsewhere asks whether it is given the same store. A model card names the data set.
    settings = config.to_json() | {"labels": str(setup.store.path.resolve()), "dataset": setup.store.info.dataset}
    return Checkpoint(
        config.model, config.width, setup.classes, config.image_size, step, values, settings, config.variants
    )


def _save(setup: Setup, learner: Learner, progress: Progress, scores: dict[str, Scores]) -> Progress:
    """Write state and checkpoints; return the progress with the best score so far.

    The last checkpoint comes last: what was killed before goes on from the older one, and writes the others again.
    """
    config, work = setup.config, Path(setup.config.work_dir)
    checkpoint = _described(setup, progress.step, scores)
    weights = checkpoint_bytes(checkpoint, learner.result, learner.criterion.beta_l)
    best = not setup.images.val
    if scores:
        miou = scores[learner.model.schemes[-1]].miou
        score = -1.0 if math.isnan(miou) else miou  # nothing but void: worse than anything
        best = progress.best is None or score > progress.best
        progress = replace(progress, best=score) if best else progress
    write_checkpoint(state_path(work, progress.step), state_bytes(learner, setup, progress, weights))
    if best:
        write_checkpoint(work / BEST, weights)
    if _due(progress.step, config.keep_every):
        write_checkpoint(kept_path(work, progress.step), weights)
    write_checkpoint(work / LAST, weights)
    tidy(work, progress.step)
    return progress


def training_loader(setup: Setup, done: int) -> DataLoader[Any]:
    """Return the batches of this process after ``done`` steps, each in its parts; `raising` gives them."""
    config = setup.config
    samples = Samples(setup.store, setup.root, setup.classes, views_of(config), config.seed)
    order = TrainingOrder(
        setup.images.train, config.batch_size // config.accumulate, config.steps * config.accumulate, config.seed,
        start=done * config.accumulate, rank=rank(), world=world(),
    )  # fmt: skip
    return DataLoader(
        samples, batch_sampler=order, collate_fn=collate, num_workers=config.workers,
        pin_memory=config.device.startswith("cuda"),
    )  # fmt: skip


def _evaluate(setup: Setup, model: Segmenter, images: Sequence[int]) -> dict[str, Scores]:
    """Score a model on some images, by its scheme that needs no labels."""
    if not images:
        return {}
    config = setup.config
    loader = evaluation_loader(
        setup.store, images[rank() :: world()], setup.root, setup.classes, size=config.image_size,
        batch_size=max(1, config.batch_size // (config.accumulate * world())), workers=config.workers,
    )  # fmt: skip
    with autocast(config.precision, config.device):
        return evaluate(model, loader, setup.classes, model.schemes[-1:], device=config.device)


def _reweigh(setup: Setup, learner: Learner) -> list[float]:
    """Set the class weights anew, and return them (A.2 of the paper)."""
    (scores,) = _evaluate(setup, learner.result, setup.images.held_aside).values()
    weights_c = class_weights(torch.tensor([scores.iou[name] for name in setup.classes.names]))
    learner.criterion.weigh_classes(weights_c)
    return weights_c.tolist()
