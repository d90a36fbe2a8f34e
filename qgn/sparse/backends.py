"""Backends of the submanifold convolution by name.

A backend is three functions: `forward(x_ni, weight_9io, sites)`, `gradients(x_ni, dy_no, weight_9io, sites,
wants)` and `describe(device)`. The first that cannot run raises; none stands in for another.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from torch import Tensor

from qgn.errors import TrainingError

from .sites import Sites

_MODULES = {"native": "native", "spconv": "spconv_adapter", "triton": "triton_adapter", "dense": "masked"}
BACKENDS = tuple(_MODULES)
"""Names that `load_backend` knows."""


class Backend(Protocol):
    """The three products of a convolution. Rows and weights have one dtype; no gradient passes through."""

    def forward(self, x_ni: Tensor, weight_9io: Tensor, sites: Sites) -> Tensor:
        """Return the convolution, (n, o)."""

    def gradients(
        self, x_ni: Tensor, dy_no: Tensor, weight_9io: Tensor, sites: Sites, wants: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients with respect to the input, (n, i), and to the weight, (9, i, o), where wanted."""

    def describe(self, device: str) -> str:
        """Return in words how it computes on a device."""


def load_backend(name: str) -> Backend:
    """Return a backend.

    Raises
    ------
    ValueError
        No backend has this name.
    TrainingError
        Its library is not installed.
    """
    if name not in _MODULES:
        raise ValueError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    try:
        return import_module(f"qgn.sparse.{_MODULES[name]}")  # type: ignore[return-value]
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"backend {name!r} is not installed: found no module {error.name}. Install it, or choose 'native'"
        ) from error
