"""Training state: all that a run needs to go on as if it had never stopped, in a safetensors file beside the weights.

A save writes ``state_STEP.safetensors``, then the weights, ``last.safetensors``; then older states go. The state holds
the SHA-256 of the weights that it belongs to: after a crash between the two, the older pair is still there and fits.
A checksum finds flipped bits. Random numbers, the order of images and the learning rate are functions of seed and step:
they need no state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from qgn.checkpoint import load_checkpoint
from qgn.config import FREE, TrainConfig
from qgn.errors import CheckpointError, TrainingError
from qgn.learner import Learner
from qgn.losses import HeadLoss
from qgn.run_folder import LAST, state_path
from qgn.setup import Setup

_KEY = "qgn_state"
_SUM = "sha256"
_VERSION = 1


@dataclass(frozen=True)
class Progress:
    """Say how far a run is.

    Attributes
    ----------
    step : steps done.
    best : score of the best checkpoint so far, None before the first one.
    log_bytes : length of the log.
    """

    step: int = 0
    best: float | None = None
    log_bytes: int = 0


def state_bytes(learner: Learner, setup: Setup, progress: Progress, weights: bytes) -> bytes:
    """Return the training state that belongs to the ``weights`` of a checkpoint file, as its file holds it."""
    state = learner.optimizer.state_dict()["state"]
    tensors = {f"optimizer.{index}.{name}": value for index, values in state.items() for name, value in values.items()}
    tensors |= {f"criterion.{name}": value for name, value in learner.criterion.state_dict().items()}
    if learner.average is not None:  # else the weights are those of the checkpoint
        tensors |= {f"model.{name}": value for name, value in learner.model.state_dict().items()}
    values = {
        "version": _VERSION, "weights": _digest(weights), "progress": asdict(progress),
        "config": setup.config.to_json(), "data": fingerprint(setup), "scaler": learner.scaler.state_dict(),
    }  # fmt: skip
    present = {name: value.detach().cpu().contiguous() for name, value in tensors.items() if value is not None}
    text = json.dumps(values)
    return safetensors.torch.save(present, metadata={_KEY: text, _SUM: _checksum(text, present)})


def resume_learner(learner: Learner, setup: Setup) -> Progress:
    """Bring a fresh learner to where the run in the work folder was saved last.

    Raises
    ------
    CheckpointError : weights or state are missing, damaged, or not of one save.
    TrainingError : the settings or the store are not those that the run began with.
    """
    work = Path(setup.config.work_dir)
    described, weights = load_checkpoint(work / LAST)
    path = state_path(work, described.step)
    values, tensors = _read(path)
    if values["weights"] != _digest((work / LAST).read_bytes()):
        raise CheckpointError(
            f"{path}: is not the state of {LAST}, which was replaced. Put back the weights that it was saved with"
        )
    _check_settings(work, values["config"], setup.config)
    _check_data(setup, values["data"])
    learner.result.load_state_dict(weights.state_dict())
    try:
        if learner.average is not None:
            learner.model.load_state_dict(_part(tensors, "model."))
        _restore_criterion(learner.criterion, _part(tensors, "criterion."))
        _restore_optimizer(learner.optimizer, _part(tensors, "optimizer."))
        learner.scaler.load_state_dict(values["scaler"])
        return Progress(**values["progress"])
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(_unreadable(path, error)) from error


def fingerprint(setup: Setup) -> dict[str, str]:
    """Return digests of the data that a run's result depends on: its images, their labels, and the classes."""
    store, images = setup.store, setup.images
    chosen = [*images.train, *images.val, *images.held_aside]
    parts = {
        "images": [[store.names[i] for i in part] for part in (images.train, images.val, images.held_aside)],
        "labels": [int(store.checksums[i]) for i in chosen],
        "classes": [setup.classes.names, sorted(setup.classes.table.items())],
    }
    return {name: _digest(json.dumps(part).encode()) for name, part in parts.items()}


def _check_settings(work: Path, old: Mapping[str, Any], config: TrainConfig) -> None:
    new = json.loads(json.dumps(config.to_json()))
    defaults = {f.name: None if f.default is MISSING else f.default for f in fields(TrainConfig)}
    other = [key for key in new if key not in FREE and new[key] != old.get(key, defaults[key])]
    if other:
        found = ", ".join(f"{key}={new[key]} where it had {old.get(key, defaults[key])}" for key in other)
        raise TrainingError(f"{work}: the run cannot go on with other settings: {found}. Leave them out to resume it")


def _check_data(setup: Setup, old: Mapping[str, str]) -> None:
    new = fingerprint(setup)
    other = [name for name in new if new[name] != old[name]]
    if other:
        raise TrainingError(
            f"{setup.store.path}: {' and '.join(other)} are not those that the run in {setup.config.work_dir} began "
            "with. Use the store and the photos that it had, or start a new run"
        )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        values = json.loads(metadata[_KEY])
        if values["version"] > _VERSION:
            raise CheckpointError(f"{path}: was written by a newer qgn. Update it")
        if metadata[_SUM] != _checksum(metadata[_KEY], tensors):
            raise ValueError("its checksum does not fit")
        return {name: values[name] for name in ("weights", "progress", "config", "data", "scaler")}, tensors
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path}: cannot be read as a training state ({error}). Without it the run cannot go on: start a new one"


def _restore_criterion(criterion: HeadLoss, tensors: dict[str, Tensor]) -> None:
    for name, value in tensors.items():  # class weights may not have been there when the loss was made
        if name not in criterion._buffers:
            raise KeyError(name)
        setattr(criterion, name, value.to(criterion.beta_l.device))


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser its moments back, laid out in memory as their parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        laid_out = torch.empty_like(like, device="cpu").copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[key] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state: its description, and the names and bytes of its tensors."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
