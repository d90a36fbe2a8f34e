"""Checkpoints: safetensors files that hold weights, settings and class map; nothing is ever unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from qgn.data.batch import VOID
from qgn.data.classes import ClassMap
from qgn.errors import CheckpointError, TrainingError
from qgn.models.build import build_model
from qgn.models.segmenter import Segmenter
from qgn.sparse.propagation import without_labels
from quadcodec.files import write_atomic

_KEY = "qgn"
_VERSION = 3


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
    variants: tuple[str, ...] = ()
    """As `build_model`. A file of version 1 has none."""
    propagation: str | None = None
    """Text of the `Propagation` that it is to be used with; None for the model's own, and in files before version 3."""


def checkpoint_bytes(checkpoint: Checkpoint, model: Segmenter, beta_l: Tensor | None) -> bytes:
    """Return a checkpoint as its file holds it; ``beta_l`` as `save_checkpoint`."""
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    if beta_l is not None:
        tensors["loss.beta_l"] = beta_l
    values = asdict(checkpoint) | {"version": _VERSION}
    values["classes"]["table"] = {str(raw): k for raw, k in checkpoint.classes.table.items()}
    return safetensors.torch.save(tensors, metadata={_KEY: json.dumps(values)})


def save_checkpoint(path: Path, checkpoint: Checkpoint, model: Segmenter, beta_l: Tensor | None) -> None:
    """Write a checkpoint whole or not at all; errors as `write_checkpoint`.

    Parameters
    ----------
    beta_l : the loss's weights of the levels; None in a file that no training goes on from.
    """
    write_checkpoint(path, checkpoint_bytes(checkpoint, model, beta_l))


def write_checkpoint(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; an older one stays intact until the new one is on disk.

    Raises
    ------
    CheckpointError : the disk refuses.
    """
    try:
        write_atomic(path, data)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror}); an older checkpoint there is intact. Free space"
        ) from error


def load_checkpoint(path: str | Path) -> tuple[Checkpoint, Segmenter]:
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
        class_map = _read_classes(values.pop("classes"))
        variants = tuple(values.pop("variants", ()))
        size = values.pop("image_size")
        if size is not None:
            size = _whole_numbers(size, 2, 2**14)
            _whole_numbers([side - 1 for side in size], 2, 2**14)
        checkpoint = Checkpoint(**values, classes=class_map, image_size=size, variants=variants)
        _whole_numbers([checkpoint.width], 1, 2**16)
        with torch.device("meta"):
            outline = build_model(checkpoint.model, len(class_map), width=checkpoint.width, variants=variants)
        if checkpoint.propagation is not None:
            without_labels(checkpoint.propagation, outline.schemes)
    except (
        KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, RuntimeError, TrainingError
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"{path}: holds no description of a qgn model ({error!r}). Name a file that qgn-train wrote"
        ) from error
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    try:
        outline.load_state_dict(weights, assign=True)  # takes no memory: a few bytes can name any width
    except RuntimeError as error:
        found = shorten(str(error).splitlines()[1], 200, placeholder=" ..")
        raise CheckpointError(
            f"{path}: its weights do not fit {' '.join((checkpoint.model, *variants))} of width {checkpoint.width} "
            f"with {len(class_map)} classes ({found}). The file is damaged or was edited"
        ) from error
    model = build_model(checkpoint.model, len(class_map), width=checkpoint.width, variants=variants)
    model.load_state_dict(weights)
    return checkpoint, model.eval()


def _read_classes(values: dict[str, Any]) -> ClassMap:
    """Return the class map of a description; raise ValueError, among others, if it is none."""
    names = tuple(values["names"])
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"class names are {names}")
    table = {int(raw): k for raw, k in values["table"].items()}
    _whole_numbers(list(table), len(table), 0xFFFF)
    _whole_numbers([k for k in table.values() if k != VOID], None, len(names) - 1)
    return ClassMap(names, table, tuple(_whole_numbers(color, 3, 255) for color in values["colors"]))


def _whole_numbers(values: list[Any], count: int | None, top: int) -> tuple[Any, ...]:
    """Return a list of numbers in 0 .. ``top``; raise ValueError if it is something else."""
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value <= top for value in values):
        raise ValueError(f"found {values}, expected whole numbers in 0..{top}")
    if count is not None and len(values) != count:
        raise ValueError(f"found {values}, expected {count} numbers")
    return tuple(values)
