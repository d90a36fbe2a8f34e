"""What training changes: a model, its loss and its optimiser; and how one step changes them.

Shapes: l levels or heads.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from qgn.config import TrainConfig
from qgn.data.samples import Batch
from qgn.distributed import rank, summed, world
from qgn.losses import HeadLoss, counted, criterion_of
from qgn.models.build import build_model
from qgn.models.segmenter import Segmenter
from qgn.models.weights import load_weights
from qgn.optim import build_optimizer
from qgn.sparse.sync import synchronise

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Type that autocast computes in, by precision."""
FIRST_SCALE = 2.0**10
"""Of float16 gradients; it grows by itself, and a step that overflows is left out."""


@dataclass(frozen=True, eq=False)
class Learner:
    """Hold what training changes.

    Attributes
    ----------
    average : moving average of the model, where the settings ask for one: what is evaluated and saved to be used.
    scaler : keeps float16 gradients from vanishing; does nothing for other precisions.
    """

    model: Segmenter
    criterion: HeadLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: Segmenter | None

    @property
    def result(self) -> Segmenter:
        """The model to evaluate and to keep."""
        return self.model if self.average is None else self.average


@dataclass(frozen=True)
class Gradient:
    """Say what a step's gradient was taken of, over all parts and processes.

    Attributes
    ----------
    loss : the weighted sum.
    per_level_l, counts_l : each level's or head's own loss, and its counted nodes.
    sites : active sites.
    """

    loss: float
    per_level_l: Tensor
    counts_l: Tensor
    sites: int


def model_of(config: TrainConfig, num_classes: int) -> Segmenter:
    """Build a run's model; errors as `build_model`."""
    return build_model(
        config.model, num_classes, width=config.width, variants=config.variants, backend=config.backend,
        recompute=config.recompute,
    )  # fmt: skip


def build_learner(config: TrainConfig, num_classes: int) -> Learner:
    """Return a fresh learner on the run's device, drawn from its seed; errors as `load_weights`."""
    torch.manual_seed(config.seed)
    model = model_of(config, num_classes)
    if config.weights is not None:
        load_weights(model.encoder, config.weights)
    model = model.to(config.device)
    return Learner(
        model=model,
        criterion=criterion_of(model, config.loss, gamma=config.gamma).to(config.device),
        optimizer=build_optimizer(model, config),
        scaler=torch.amp.GradScaler(torch.device(config.device).type, FIRST_SCALE, enabled=config.precision == "fp16"),
        average=copy.deepcopy(model).eval().requires_grad_(False) if config.ema else None,
    )


def share(model: Segmenter) -> nn.Module:
    """Return what to call in a model's place: with several processes, they share gradients and batch statistics."""
    if world() == 1:
        return model
    synchronise(model)
    return DistributedDataParallel(model)


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager[object]:
    """Return the context in which a model computes in a precision."""
    dtype = DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype)


def seed_step(seed: int, step: int) -> None:
    """Make torch's random numbers in a step a function of the seed, the step and the process."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank()]).generate_state(1, np.uint64)[0] >> 1))


def differentiate(
    learner: Learner, network: nn.Module, parts: Sequence[Batch], scheme: str, precision: str
) -> Gradient:
    """Put the gradient of one step into the model's parameters.

    It is that of the batches of all processes as one: a level's loss is divided by its counted nodes in the whole
    step. With several parts, `gtc` knows their number beforehand; other schemes see it when a part has run, and there
    each part weighs the same.

    Parameters
    ----------
    network
        The learner's model, or what shares its gradients among processes.
    parts
        Batches on the device, whose gradients add up.
    """
    learner.optimizer.zero_grad()
    known_l = summed(_nodes(parts)) if scheme == "gtc" and len(parts) > 1 else None
    loss, sites, losses_l, seen_l = 0.0, 0, 0.0, 0.0
    for index, part in enumerate(parts, 1):
        shares = isinstance(network, DistributedDataParallel) and index < len(parts)
        with network.no_sync() if shares else nullcontext():
            with autocast(precision, part.images_bchw.device):
                prediction = network(part.images_bchw, part.labels, scheme)
            counts_l = summed(counted(prediction.targets))
            divisor_l = counts_l * len(parts) if known_l is None else known_l
            value = learner.criterion([level.float() for level in prediction.logits], prediction.targets, divisor_l)
            # Processes' gradients are averaged, where a sum is meant.
            learner.scaler.scale(value.total * world()).backward()
        loss, losses_l, seen_l = loss + value.total.detach(), losses_l + value.per_level_l, seen_l + counts_l
        sites += sum(prediction.active_sites)
    totals = torch.cat([losses_l.double(), loss.double()[None], losses_l.new_tensor([sites], dtype=torch.float64)])
    *per_level, loss, sites = summed(totals).tolist()
    return Gradient(loss, losses_l.new_tensor(per_level), seen_l, int(sites))


def update(learner: Learner, gradient: Gradient, step: int, lr: float, config: TrainConfig) -> float | None:
    """Take the step that the gradient points to; return the gradient's length before it was clipped.

    None where float16 overflowed: the step is left out, and the scale halved.

    Raises
    ------
    FloatingPointError : the length is no number, and no smaller scale of gradients is left to try.
    """
    learner.scaler.unscale_(learner.optimizer)
    parameters = [p for group in learner.optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if not torch.isfinite(norm) and learner.scaler.get_scale() <= 1:  # 1 without a scaler
        raise FloatingPointError
    if config.clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, config.clip, norm)
    for group in learner.optimizer.param_groups:
        group["lr"] = lr
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.criterion.advance(gradient.per_level_l, gradient.counts_l)
    if learner.average is not None:
        _follow(learner.average, learner.model, min(config.ema, step / (step + 9)))
    return norm.item() if torch.isfinite(norm) else None


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, inertia: float) -> None:
    """Move an average towards the model; whole numbers, such as counts of steps, are copied."""
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - inertia)
        else:
            mean.copy_(value)


def _nodes(parts: Sequence[Batch]) -> Tensor:
    """Return the counted nodes of label trees by level, level 0 first, (l,)."""
    levels = range(parts[0].labels.levels)
    return torch.stack([counted([part.labels.level(level) for level in levels]) for part in parts]).sum(0)
