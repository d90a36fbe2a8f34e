"""Trade time for memory: run a part of a network again in the backward pass instead of saving what it computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from torch import nn
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


def recomputed(function: Callable[..., T], modules: Sequence[nn.Module], *args: Any) -> T:
    """Return `function(*args)`; only its tensor arguments are saved for the backward pass.

    Parameters
    ----------
    function
        Deterministic.
    modules
        What it runs: their buffers, such as batch norm's running statistics, do not change the second time.
    """

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _buffers_kept(modules)

    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextmanager
def _buffers_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    buffers = [buffer for module in modules for buffer in module.buffers()]
    values = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)
