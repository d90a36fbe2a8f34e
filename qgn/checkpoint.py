"""Checkpoints: safetensors files that hold weights, settings and class map; nothing is ever unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from qgn.data.classes import ClassMap
from qgn.errors import CheckpointError
from qgn.models.build import build_model
from qgn.models.qgn import QGN
from quadcodec.files import write_atomic

_KEY = "qgn"
_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """Describe a checkpoint: enough to build the model and to use it on any image."""

    model: str
    width: int
    classes: ClassMap
    image_size: tuple[int, int] | None
    step: int
    scores: dict[str, Any]
    config: dict[str, Any]
    """The training run's settings."""


def save_checkpoint(path: Path, checkpoint: Checkpoint, model: QGN, beta_l: Tensor) -> None:
    """Write a checkpoint whole or not at all; an older one stays intact until the new one is on disk.

    Raises
    ------
    CheckpointError : the disk refuses.
    """
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    values = asdict(checkpoint) | {"version": _VERSION}
    values["classes"]["table"] = {str(raw): k for raw, k in checkpoint.classes.table.items()}
    metadata = {_KEY: json.dumps(values)}
    try:
        write_atomic(path, safetensors.torch.save({**tensors, "loss.beta_l": beta_l}, metadata=metadata))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror}); an older checkpoint there is intact. Free space"
        ) from error


def load_checkpoint(path: str | Path) -> tuple[Checkpoint, QGN]:
    """Return a checkpoint and its model, in evaluation mode on the CPU.

    Raises
    ------
    CheckpointError : no such file, not a checkpoint of this project, or weights that do not fit its settings.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({error}). Name a file that qgn-train wrote"
        ) from error
    try:
        values = json.loads(metadata[_KEY])
        if values.pop("version") > _VERSION:
            raise CheckpointError(f"{path}: was written by a newer qgn. Update it")
        classes = values.pop("classes")
        table = {int(raw): int(k) for raw, k in classes["table"].items()}
        class_map = ClassMap(tuple(classes["names"]), table, tuple(tuple(c) for c in classes["colors"]))
        size = values.pop("image_size")
        checkpoint = Checkpoint(**values, classes=class_map, image_size=None if size is None else tuple(size))
        model = build_model(checkpoint.model, len(class_map), width=checkpoint.width)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: holds no description of a qgn model ({error!r}). Name a file that qgn-train wrote"
        ) from error
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its weights do not fit {checkpoint.model} of width {checkpoint.width} with {len(class_map)} "
            f"classes ({str(error).splitlines()[1].strip()}). The file is damaged or was edited"
        ) from error
    return checkpoint, model.eval()
