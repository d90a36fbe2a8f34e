"""What propagation in training is worth: CamVid at 256x192 on a CPU, three seeds, one model, data and optimiser.

    python -m benchmarks.camvid_quality CAMVID_FOLDER OUT_FOLDER [--seeds 0 1 2] [--only NAME ...]

Each line of OUT_FOLDER/rows.jsonl is one training: those that are there are not repeated. Trainings that agree over the
first two thirds of their steps share them: one core and fixed seeds make that exact. Seconds are CPU time of the steps,
on one thread, without reading data. Thresholds are chosen on 40 training images that no training sees; val is scored
once, with the last weights.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qgn.config import TrainConfig
from qgn.data.classes import ClassMap, class_map, count_pixels
from qgn.data.sampler import TrainingOrder
from qgn.data.samples import Batch, Sample, collate, load_sample
from qgn.data.splits import divide
from qgn.evaluate import Scores, evaluate, evaluation_loader
from qgn.losses import QuadtreeLoss
from qgn.models.build import build_model
from qgn.optim import build_optimizer, rate
from qgn.sparse.propagation import Schedule
from qgn.sweep import RULES, best_rule
from quadcodec.convert import convert, plan_conversion
from quadcodec.store import LabelStore, open_store

SIZE = (192, 256)
HELD_ASIDE = 40
CONFIG = TrainConfig(labels="", work_dir="", image_size=SIZE, steps=300)


@dataclass(frozen=True)
class Plan:
    """One training: its name in the table, the model, how it propagates, and how long."""

    name: str
    model: str
    propagation: str
    steps: int


PLANS = (
    Plan("gtc", "qgn_resnet18", "gtc", 300),
    Plan("gtc->pc", "qgn_resnet18", "gtc->pc@2/3", 300),
    Plan("gtc->union", "qgn_resnet18", "gtc->union@2/3", 300),
)


@dataclass(frozen=True, eq=False)
class Data:
    """The images of one seed, read and resized once."""

    store: LabelStore
    classes: ClassMap
    train: tuple[int, ...]
    held_aside: tuple[int, ...]
    val: tuple[int, ...]
    samples: dict[int, Sample]

    @classmethod
    def open(cls, store: LabelStore, seed: int) -> Data:
        root = Path(store.info.image_root)
        images = divide(store, root, train_split=None, val_fraction=0.0, seed=seed, held_aside=HELD_ASIDE)
        classes = class_map(store, count_pixels(store, (*images.train, *images.held_aside, *images.val)), None)
        samples = {i: load_sample(store, i, root, classes, size=SIZE) for i in images.train}
        return cls(store, classes, images.train, images.held_aside, images.val, samples)

    def batches(self, seed: int, start: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of steps: the images, order and flips of the trainer."""
        for draws in TrainingOrder(self.train, CONFIG.batch_size, stop, seed, start=start):
            flips = [np.random.default_rng([seed, draw]).random() < 0.5 for _, draw in draws]
            samples = [self.samples[i] for i, _ in draws]
            batch = collate([s.flipped() if flip else s for s, flip in zip(samples, flips, strict=True)])
            assert isinstance(batch, Batch)
            yield batch

    def scores(self, model: nn.Module, images: tuple[int, ...], schemes: tuple[str, ...]) -> dict[str, Scores]:
        root = Path(self.store.info.image_root)
        loader = evaluation_loader(self.store, images, root, self.classes, size=SIZE, batch_size=8, workers=0)
        return evaluate(model, loader, self.classes, schemes)


@dataclass
class Training:
    """A model on its way."""

    model: nn.Module
    criterion: nn.Module
    optimizer: torch.optim.Optimizer
    seconds: float = 0.0

    def advance(self, data: Data, plan: Plan, seed: int, start: int, stop: int) -> None:
        """Train from a step to another, as `qgn.trainer` does."""
        schedule = Schedule.parse(plan.propagation, ("gtc", "pc"))
        self.model.train()
        for step, batch in enumerate(data.batches(seed, start, stop), start):
            for group in self.optimizer.param_groups:
                group["lr"] = CONFIG.lr * rate("tail", step / plan.steps)
            began = time.process_time()
            prediction = self.model(batch.images_bchw, batch.labels, schedule.scheme_at(step / plan.steps))
            loss = self.criterion(prediction.logits, prediction.targets).total
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.seconds += time.process_time() - began
            if (step + 1) % 20 == 0:
                rest = f"loss {loss.item():.3f}, {self.seconds:.0f} s"
                print(f"{plan.name} seed {seed} step {step + 1} of {plan.steps}: {rest}", flush=True)

    def state(self) -> dict[str, Any]:
        parts = {name: part.state_dict() for name, part in vars(self).items() if name != "seconds"}
        return {**parts, "seconds": self.seconds}

    def load(self, state: dict[str, Any]) -> None:
        for name in ("model", "criterion", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.seconds = state["seconds"]


def run(data: Data, plan: Plan, seed: int, out: Path) -> dict[str, Any]:
    """Train and score once."""
    torch.manual_seed(seed)
    model = build_model(plan.model, len(data.classes), width=CONFIG.width)
    training = Training(model, QuadtreeLoss(CONFIG.loss), build_optimizer(model, CONFIG))
    cut = -(-2 * plan.steps // 3)
    trunk = out / f"{plan.model} {plan.propagation.split('->')[0]} {plan.steps} seed {seed}.pt"
    if trunk.exists():
        training.load(torch.load(trunk))
    else:
        training.advance(data, plan, seed, 0, cut)
        torch.save(training.state(), trunk)
    training.advance(data, plan, seed, cut, plan.steps)
    torch.save(training.state(), out / f"{plan.name} {plan.steps} seed {seed}.pt")
    row: dict[str, Any] = {"name": plan.name, "steps": plan.steps, "seed": seed, "seconds": training.seconds}
    held_aside = data.scores(model, data.held_aside, RULES)
    chosen = best_rule(held_aside)
    val = data.scores(model, data.val, ("gtc", "all", *RULES))
    row |= {"chosen": chosen, "held_aside": _short(held_aside), "val": _short(val)}
    return row


def _short(scores: dict[str, Scores]) -> dict[str, Any]:
    return {
        rule: {"miou": s.miou, "pixel_accuracy": s.pixel_accuracy, "share": s.share, "sites": sum(s.sites.values())}
        for rule, s in scores.items()
    }


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[plan.name for plan in PLANS], help="Names of trainings.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path, rows_file = arguments.out / "camvid.zarr", arguments.out / "rows.jsonl"
    if not path.exists():
        arguments.out.mkdir(parents=True, exist_ok=True)
        convert(plan_conversion(arguments.camvid), path)
    store = open_store(path)
    for seed in arguments.seeds:
        done = read_rows(rows_file)
        missing = [plan for plan in PLANS if plan.name in arguments.only and (plan.name, plan.steps, seed) not in done]
        if not missing:
            continue
        data = Data.open(store, seed)
        for plan in missing:
            row = run(data, plan, seed, arguments.out)
            with rows_file.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(read_rows(rows_file).keys())


def read_rows(path: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Return the rows of earlier runs by name, steps and seed."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["name"], row["steps"], row["seed"]): row for row in rows}


if __name__ == "__main__":
    main()
