"""A run on TensorBoard (extra 'tensorboard'): the numbers of its log, and pictures of what it predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qgn.checkpoint import Checkpoint
from qgn.data.photos import photo_path, read_photo
from qgn.distributed import rank
from qgn.errors import TrainingError
from qgn.models.segmenter import Segmenter
from qgn.predict import Predictor, tree_picture
from qgn.setup import Setup
from quadcodec.render import overlay

PICTURES = 4
"""Validation images that are drawn."""


@dataclass(frozen=True, eq=False)
class Board:
    """Show a run. Does nothing without a writer."""

    writer: Any = None

    def line(self, line: Mapping[str, Any]) -> None:
        """Show the numbers in a line of the log."""
        if self.writer is None:
            return
        with _writing():
            for name, value in _scalars(line):
                if name != "step":
                    self.writer.add_scalar(name, value, line["step"])
            self.writer.flush()

    def pictures(self, setup: Setup, described: Checkpoint, model: Segmenter) -> None:
        """Show classes and trees that a model predicts for the first validation images, over their photos.

        Raises
        ------
        TrainingError : a photo cannot be read, or the disk refuses.
        """
        if self.writer is None:
            return
        palette = np.array(setup.classes.colors, np.uint8)
        was_training = model.training
        predictor = Predictor(described, model.eval(), setup.config.device, model.schemes[-1])
        for index in setup.images.val[:PICTURES]:
            path = photo_path(setup.store, index, setup.root)
            assert path is not None, "images without a photo are left out before"
            photo = read_photo(path)
            prediction = predictor(photo)
            for name, picture in (
                ("classes", overlay(photo, prediction.classes, palette)),
                ("tree", tree_picture(photo, prediction.grown, palette)),
            ):
                with _writing():
                    self.writer.add_image(
                        f"{name}/{setup.store.names[index]}", picture, described.step, dataformats="HWC"
                    )
        model.train(was_training)
        with _writing():
            self.writer.flush()


@contextmanager
def open_board(setup: Setup, done: int) -> Iterator[Board]:
    """Open a board in the work folder, if the settings ask for one.

    What an earlier process wrote of steps after ``done`` is hidden.

    Raises
    ------
    TrainingError : the disk refuses.
    """
    if not setup.config.tensorboard or rank():
        yield Board()
        return
    from torch.utils.tensorboard import SummaryWriter  # imports the extra

    with _writing():
        writer = SummaryWriter(Path(setup.config.work_dir) / "tensorboard", purge_step=done + 1)
    try:
        yield Board(writer)
    finally:
        with suppress(OSError):  # all lines were flushed before
            writer.close()


@contextmanager
def _writing() -> Iterator[None]:
    """Raise TrainingError where the disk refuses."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"tensorboard: cannot be written ({error.strerror}). Free space or fix permissions, then run again"
        ) from error


def _scalars(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers in a line by name, such as `loss`, `beta/5` or `scores/pc/miou`."""
    if isinstance(value, Mapping):
        items: Sequence[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        if isinstance(value, int | float):
            yield name, value
        return
    for key, item in items:
        yield from _scalars(item, f"{name}/{key}" if name else str(key))
