"""Models side by side: all trained and evaluated under one budget, over several seeds, one row of results at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from qgn.bench.measure import saved_bytes, seconds
from qgn.config import FREE, TrainConfig
from qgn.data.samples import raising
from qgn.errors import TrainingError
from qgn.evaluate import evaluate_checkpoint
from qgn.losses import criterion_of
from qgn.models.build import QUADTREE
from qgn.run_folder import LAST, LOG
from qgn.setup import Setup, model_of, prepare, resolve
from qgn.sparse.propagation import Propagation, Schedule, checked
from qgn.train_state import fingerprint
from qgn.trainer import Step, train, training_loader
from quadcodec.files import write_atomic

OF_THE_PLAN = ("model", "propagation", "seed", "eval_every", "work_dir")
"""Settings that follow from the plans, the seeds and the folder."""
ROW = "row.json"
"""The finished row in the folder of its run."""
FIGURES = ("pixel_accuracy", "gmacs", "kept_bytes", "seconds", "step_seconds")
"""What a line holds the means of, besides mIoU."""
NO_RANKING = 2.0
"""Points of mIoU below which one row is not said to be better than another."""


@dataclass(frozen=True)
class Plan:
    """One line of the table: a model, how it propagates in training, and how in evaluation."""

    model: str
    training: str
    evaluation: str

    @property
    def name(self) -> str:
        """The line's name, fit for a folder."""
        both = self.training if self.training == self.evaluation else f"{self.training} {self.evaluation}"
        return f"{self.model} {both}".replace("/", "of")


@dataclass(frozen=True)
class Result:
    """Hold what one training came to: the last checkpoint's scores on the val split.

    Attributes
    ----------
    gmacs
        10^9 multiply-adds an image, at the cells that the evaluation computed.
    kept_bytes
        What a training step on the first batch keeps for the backward pass, an image; parameters left out. With
        the native convolutions, on the CPU.
    seconds
        Of all training steps, by the clock, reading included, evaluation left out.
    step_seconds
        CPU seconds of a forward and backward pass on that batch, on one thread, whatever else the machine does: the
        shortest of three.
    settings
        Of the training.
    data
        Digests of the images, labels and classes, as `qgn.train_state.fingerprint`.
    """

    model: str
    training: str
    evaluation: str
    seed: int
    miou: float
    pixel_accuracy: float
    gmacs: float
    kept_bytes: int
    seconds: float
    step_seconds: float
    settings: dict[str, Any]
    data: dict[str, str]


@dataclass(frozen=True)
class Line:
    """Hold a line of the table: means over its seeds.

    `miou_sd` is None for one seed. `behind` is the distance to the best line's mIoU, None below `NO_RANKING` points.
    """

    model: str
    training: str
    evaluation: str
    seeds: tuple[int, ...]
    miou: float
    miou_sd: float | None
    pixel_accuracy: float
    gmacs: float
    kept_bytes: float
    seconds: float
    step_seconds: float
    behind: float | None


def make_plans(models: Sequence[str], schemes: Sequence[str]) -> list[Plan]:
    """Return a line for every model, of quadtree models one for every scheme.

    Parameters
    ----------
    models
        Names for `build_model`; NAME:TRAINING/EVALUATION gives one its own scheme.
    schemes
        TRAINING/EVALUATION, such as gtc/pc.

    Raises
    ------
    TrainingError
        A name or scheme is unknown, or a plan is given twice.
    """
    plans = []
    for text in models:
        model, _, own = text.partition(":")
        for scheme in [own] if own else schemes if model in QUADTREE else ["dense/dense"]:
            training, slash, evaluation = scheme.rpartition("/")
            if not slash:
                raise TrainingError(f"scheme '{scheme}': expected TRAINING/EVALUATION such as gtc/pc")
            if model in QUADTREE:
                evaluation = str(Propagation.parse(evaluation))
            plans.append(Plan(model, training, evaluation))
    double = {plan.name for plan in plans if plans.count(plan) > 1}
    if double:
        raise TrainingError(f"'{min(double)}' is asked for twice. Name it once")
    return plans


def run_table(
    settings: Mapping[str, Any],
    plans: Sequence[Plan],
    seeds: Sequence[int],
    out: Path,
    *,
    say: Callable[[str], object] = lambda _: None,
    on_step: Callable[[Step], object] = lambda _: None,
) -> Iterator[Result]:
    """Yield the results of every plan and seed, seed by seed; each is written to a folder of its own below `out`.

    What is finished there is read; what was interrupted goes on from its last save.

    Parameters
    ----------
    settings
        Of `TrainConfig`, shared by all; `labels` and `device` among them.
    say
        Told which row is next.

    Raises
    ------
    TrainingError
        A setting, a name or a scheme is wrong, found before the first step; or a row there is of other settings.
    StoreError, CheckpointError
        As `prepare`, `train` and `evaluate_checkpoint`.
    """
    jobs = [(plan, _config(settings, plan, seed, out)) for seed in seeds for plan in plans]
    setups = [prepare(config) for _, config in jobs[: len(plans)]]
    for (plan, _), setup in zip(jobs, setups, strict=False):
        schemes = model_of(setup.config, 1).schemes
        Schedule.parse(plan.training, schemes)
        checked(plan.evaluation, schemes)
    if not setups or not setups[0].images.val:
        raise TrainingError(f"{settings['labels']}: has no images for validation. Set val_fraction above 0")
    for plan, config in jobs:
        say(f"{plan.name}, seed {config.seed}")
        setup = prepare(config)
        yield read_result(setup) or _run(plan, setup, on_step)


def _config(settings: Mapping[str, Any], plan: Plan, seed: int, out: Path) -> TrainConfig:
    taken = [key for key in OF_THE_PLAN if key in settings]
    if taken:
        raise TrainingError(
            f"setting '{taken[0]}': the table sets it itself. Leave it out; --models, --schemes, --seeds and --out "
            "say what it trains and where"
        )
    steps = settings.get("steps", TrainConfig.steps)
    own = {"model": plan.model, "propagation": plan.training, "seed": seed, "eval_every": steps}
    return resolve({**settings, **own, "work_dir": str(out / f"{plan.name} {steps} seed {seed}")}, settings["device"])


def read_result(setup: Setup) -> Result | None:
    """Return the finished row of a run's folder, None if there is none.

    Raises
    ------
    TrainingError
        It cannot be read, or was trained with other settings, other encoder weights or on other data.
    """
    path = Path(setup.config.work_dir) / ROW
    if not path.exists():
        return None
    try:
        result = Result(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path}: cannot be read as a row of a table ({error}). Delete it") from error
    here = _settings(setup.config)
    decisive = [key for key in here if key not in FREE or key == "weights"]
    other = [key for key in decisive if here[key] != result.settings.get(key)]
    if other:
        found = ", ".join(f"{key}={result.settings.get(key)}, not {here[key]}" for key in other)
        raise TrainingError(f"{path}: was trained with {found}. Choose another --out")
    strange = [name for name, digest in fingerprint(setup).items() if digest != result.data[name]]
    if strange:
        raise TrainingError(
            f"{path}: was trained on {result.settings['labels']}, whose {' and '.join(strange)} are not those of "
            f"{setup.store.path}. Choose another --out"
        )
    return result


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Return a run's settings as JSON gives them back: lists for tuples."""
    return json.loads(json.dumps(config.to_json()))


def _run(plan: Plan, setup: Setup, on_step: Callable[[Step], object]) -> Result:
    """Train, or go on with it, evaluate, and write the row."""
    config, work = setup.config, Path(setup.config.work_dir)
    kept, step_seconds = measure_step(setup)
    schemes = train(setup, resume=True, on_step=on_step)
    if plan.evaluation not in schemes:
        schemes = evaluate_checkpoint(
            work / LAST, config.labels, split="val", schemes=[plan.evaluation], images=config.images,
            batch_size=config.batch_size, workers=config.workers, device=config.device,
        ).schemes  # fmt: skip
    scores = schemes[plan.evaluation]
    result = Result(
        plan.model, plan.training, plan.evaluation, config.seed, scores.miou, scores.pixel_accuracy,
        scores.encoder_gmacs + scores.decoder_gmacs, kept, training_seconds(work / LOG, config), step_seconds,
        _settings(config), fingerprint(setup),
    )  # fmt: skip
    write_atomic(work / ROW, json.dumps(asdict(result)).encode())
    return result


def training_seconds(log: Path, config: TrainConfig) -> float:
    """Return the seconds that the steps in a run's log took."""
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return sum(config.batch_size / line["images_per_second"] for line in lines if "images_per_second" in line)


def measure_step(setup: Setup) -> tuple[int, float]:
    """Return `Result.kept_bytes` and `Result.step_seconds` of a run, measured on the CPU with fresh weights."""
    config = replace(setup.config, workers=0, device="cpu", backend="native")
    batch = next(raising(training_loader(replace(setup, config=config), 0)))
    model = model_of(config, len(setup.classes))
    criterion = criterion_of(model, config.loss, gamma=config.gamma)
    scheme = Schedule.parse(config.propagation or model.schemes[0], model.schemes).scheme_at(0)

    def forward() -> Any:
        prediction = model(batch.images_bchw, batch.labels, scheme)
        return criterion(prediction.logits, prediction.targets)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    kept = saved_bytes(model, [batch.images_bchw], forward)
    step_seconds = seconds(lambda: forward().total.backward(), 3)
    torch.set_num_threads(threads)
    return kept // len(batch.indices), step_seconds


def lines(results: Sequence[Result]) -> list[Line]:
    """Return the table of some results, in their order."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.model, result.training, result.evaluation), []).append(result)
    best = max(fmean(row.miou for row in group) for group in groups.values())
    return [_line(key, group, best) for key, group in groups.items()]


def _line(key: tuple[str, str, str], group: Sequence[Result], best: float) -> Line:
    mious = [row.miou for row in group]
    mean = fmean(mious)
    return Line(
        *key, tuple(row.seed for row in group), mean, stdev(mious) if len(group) > 1 else None,
        *(fmean(getattr(row, name) for row in group) for name in FIGURES),
        behind=best - mean if best - mean >= NO_RANKING else None,
    )  # fmt: skip
