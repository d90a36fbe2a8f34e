"""The folder of a run: settings, log and checkpoints; nothing of another run is overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qgn.config import TrainConfig
from qgn.errors import TrainingError
from qgn.settings import to_toml
from quadcodec.files import write_atomic

CONFIG, LOG, LAST, BEST = RUN_FILES = ("config.toml", "log.jsonl", "last.safetensors", "best.safetensors")
"""What a run writes to its folder."""


@contextmanager
def new_run(config: TrainConfig) -> Iterator[Path]:
    """Write the settings and an empty log, and give the log; take both away if the run ends without a checkpoint.

    Raises
    ------
    TrainingError : the folder holds a run, or cannot be written.
    """
    work = Path(config.work_dir)
    _check_folder(work)
    log, settings = work / LOG, work / CONFIG
    if any((work / name).exists() for name in RUN_FILES):
        raise TrainingError(f"{work}: holds a run already. Choose another --work-dir, or --overwrite it")
    try:
        work.mkdir(parents=True, exist_ok=True)
        log.touch(exist_ok=False)
        write_atomic(settings, to_toml(config).encode())
    except OSError as error:
        raise TrainingError(f"{work}: cannot be written ({error.strerror}). Choose another --work-dir") from error
    try:
        yield log
    except BaseException:
        if not (work / LAST).exists():
            log.unlink(missing_ok=True)
            settings.unlink(missing_ok=True)
        raise


def write_line(log: Path, values: dict[str, Any]) -> None:
    """Add a line of JSON to a log; raise TrainingError if the disk refuses."""
    try:
        with log.open("a") as file:
            file.write(json.dumps(values) + "\n")
    except OSError as error:
        raise TrainingError(
            f"{log}: cannot be written ({error.strerror}). Free space or fix permissions, then run again"
        ) from error


def clear_run(work_dir: str | Path) -> None:
    """Delete the files that an earlier run wrote to its folder, and nothing else; raise TrainingError if that fails."""
    work = Path(work_dir)
    _check_folder(work)
    try:
        for name in RUN_FILES:
            (work / name).unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"{work}: cannot be cleared ({error.strerror}). Choose another --work-dir") from error


def _check_folder(work: Path) -> None:
    if work.exists() and not work.is_dir():
        raise TrainingError(f"{work}: is a file, expected a folder or nothing. Choose another --work-dir")
