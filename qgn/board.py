"""The lines of a run's log as TensorBoard's scalars (extra 'tensorboard')."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qgn.config import TrainConfig
from qgn.distributed import rank


@contextmanager
def open_board(config: TrainConfig, done: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give what shows a line of the log on a board in the work folder; it does nothing unless the settings ask for it.

    What an earlier process wrote of steps after ``done`` is hidden.
    """
    if not config.tensorboard or rank():
        yield lambda _: None
        return
    from torch.utils.tensorboard import SummaryWriter  # imports the extra

    with SummaryWriter(Path(config.work_dir) / "tensorboard", purge_step=done + 1) as writer:

        def show(line: Mapping[str, Any]) -> None:
            for name, value in _scalars(line):
                if name != "step":
                    writer.add_scalar(name, value, line["step"])
            writer.flush()

        yield show


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
