"""Time and memory of a forward and a backward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


def seconds(function: Callable[[], Any], runs: int) -> float:
    """Return the CPU time of the shortest of several runs: on one thread the wall's, but for what else is running."""
    times = []
    for _ in range(runs):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return min(times)


@dataclass(frozen=True)
class Cost:
    """Hold what one pass costs: seconds without and with the backward pass, bytes saved for it, multiply-adds.

    Seconds are of CPU time. `macs` counts the forward pass; in the 3x3 convolutions only what is present is multiplied.
    """

    forward_s: float
    both_s: float
    saved_bytes: int
    macs: int

    def faster(self, other: Cost) -> Cost:
        """Return this cost with the shorter times of two measurements."""
        return replace(self, forward_s=min(self.forward_s, other.forward_s), both_s=min(self.both_s, other.both_s))


def clear(module: nn.Module, features: Iterable[Tensor]) -> None:
    """Drop all gradients."""
    module.zero_grad(set_to_none=True)
    for maps in features:
        maps.grad = None


def forward_seconds(forward: Callable[[], Any], runs: int) -> float:
    """Return the shortest time of a forward pass that saves nothing."""
    with torch.no_grad():
        return seconds(forward, runs)


def both_seconds(
    module: nn.Module, features: Sequence[Tensor], forward: Callable[[], list[Tensor]], runs: int
) -> float:
    """Return the shortest time of a forward and backward pass, gradients of the features included."""

    def run() -> None:
        logits = forward()
        torch.autograd.backward(logits, [torch.ones_like(level) for level in logits])
        del logits
        clear(module, features)

    return seconds(run, runs)


def saved_bytes(module: nn.Module, features: Sequence[Tensor], forward: Callable[[], Any]) -> int:
    """Return the bytes that a forward pass keeps for the backward pass.

    Every storage counts once and whole, on the meta device, too. Parameters and features do not count: they are there
    anyway.
    """
    # By the storage's own address: on the meta device all data lies at 0.
    known = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *features)}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(saved.values())
