"""The folder of a run: settings, log and checkpoints; nothing of another run is overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qgn.config import TrainConfig
from qgn.distributed import rank
from qgn.errors import CheckpointError, TrainingError
from qgn.settings import to_toml
from quadcodec.files import write_atomic

CONFIG, LOG, LAST, BEST = "config.toml", "log.jsonl", "last.safetensors", "best.safetensors"
_FILES = (CONFIG, LOG, LAST, BEST, "step_*.safetensors", "state_*.safetensors", ".*.safetensors.*.partial")
"""What a run writes to its folder, as patterns."""


def state_path(work: Path, step: int) -> Path:
    """Return the training state of a step."""
    return work / f"state_{step:06d}.safetensors"


def kept_path(work: Path, step: int) -> Path:
    """Return the checkpoint that is kept of a step."""
    return work / f"step_{step:06d}.safetensors"


def can_resume(work_dir: str | Path) -> bool:
    """Whether a run in the folder has been saved.

    Raises
    ------
    CheckpointError : it has been saved more than once, and its last weights are missing: nothing of it is deleted.
    """
    work = Path(work_dir)
    if (work / LAST).exists():
        return True
    states = {path.stem.removeprefix("state_") for path in work.glob("state_*.safetensors")}
    kept = {path.stem.removeprefix("step_") for path in work.glob("step_*.safetensors")}
    if kept - states:  # a kill in the first save leaves its own step alone
        raise CheckpointError(
            f"{work / LAST}: is missing, and others of its run are there ({', '.join(sorted(kept))}). Put it back, or "
            "begin anew with --overwrite"
        )
    return False


@contextmanager
def open_run(config: TrainConfig, *, resumed: bool) -> Iterator[Path]:
    """Write the settings, and give the log: a new one, or that of the run that is resumed.

    A new run that ends without a checkpoint takes both away again. Of several processes, only the first one writes.

    Raises
    ------
    TrainingError : the folder holds another run, or cannot be written.
    """
    work = Path(config.work_dir)
    log, settings = work / LOG, work / CONFIG
    if rank():
        yield log
        return
    if not resumed:
        _check_free(work)
    try:
        work.mkdir(parents=True, exist_ok=True)
        log.touch(exist_ok=resumed)
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


def tidy(work: Path, step: int) -> None:
    """Delete what belongs to no save any more: other steps' states, and what a killed run was writing."""
    for pattern in ("state_*.safetensors", ".*.safetensors.*.partial"):
        for path in work.glob(pattern):
            if path != state_path(work, step):
                path.unlink(missing_ok=True)


def write_line(log: Path, values: dict[str, Any]) -> None:
    """Add a line of JSON to a log, in the first process; raise TrainingError if the disk refuses."""
    if rank():
        return
    try:
        with log.open("a") as file:
            file.write(json.dumps(values) + "\n")
    except OSError as error:
        raise TrainingError(
            f"{log}: cannot be written ({error.strerror}). Free space or fix permissions, then run again"
        ) from error


def cut_log(log: Path, length: int) -> None:
    """Take away the lines that a killed run wrote after its last save; raise TrainingError if that fails."""
    if rank():
        return
    try:
        with log.open("r+b") as file:
            file.truncate(min(length, log.stat().st_size))
    except OSError as error:
        raise TrainingError(f"{log}: cannot be written ({error.strerror}). Fix permissions, then run again") from error


def clear_run(work_dir: str | Path) -> None:
    """Delete the files that an earlier run wrote to its folder, and nothing else; raise TrainingError if that fails."""
    work = Path(work_dir)
    _check_folder(work)
    try:
        for path in _files(work):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"{work}: cannot be cleared ({error.strerror}). Choose another --work-dir") from error


def _files(work: Path) -> list[Path]:
    return [path for pattern in _FILES for path in work.glob(pattern)]


def _check_free(work: Path) -> None:
    """Refuse a folder that holds a run; raise TrainingError."""
    _check_folder(work)
    if _files(work):
        raise TrainingError(f"{work}: holds a run already. Choose another --work-dir, --resume it, or --overwrite it")


def _check_folder(work: Path) -> None:
    if work.exists() and not work.is_dir():
        raise TrainingError(f"{work}: is a file, expected a folder or nothing. Choose another --work-dir")
