"""How every command ends: one line on stderr and exit 1 for what a user can mend."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

_EXTRAS = {
    "torch": "train", "safetensors": "train", "crackle": "bench", "matplotlib": "bench", "tensorboard": "tensorboard",
    "onnx": "onnx", "onnxscript": "onnx",
}  # fmt: skip


def run(command: Callable[..., Any]) -> None:
    """Run a click command; turn the project's errors into one line and exit 1."""
    try:
        command(standalone_mode=True)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        _fail(f"this command needs {error.name}. Install it with: pip install 'quadcodec[{extra}]'")
    except BrokenPipeError:
        # The reader of our output has gone, as in `quadcodec stats | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        from quadcodec.errors import QuadcodecError

        if not isinstance(error, QuadcodecError):
            raise
        _fail(str(error))


def _fail(message: str) -> None:
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)
