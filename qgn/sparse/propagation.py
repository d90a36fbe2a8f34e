"""Propagation schemes: which visited cells of a level go on to the next one (section 3.3 of the paper).

A rule takes the visited nodes and their logits and returns a mask. Only children of active cells are ever
visited, so no rule can bring a cell back whose parent stopped.

Shapes: n visited nodes, k classes and the composite one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .frontier import COMPOSITE_CHANNEL, Nodes


def _all(nodes: Nodes, logits_nk: Tensor) -> Tensor:
    return torch.ones(len(nodes), dtype=torch.bool, device=logits_nk.device)


def _ground_truth_composite(nodes: Nodes, logits_nk: Tensor) -> Tensor:  # noqa: ARG001
    if nodes.target_n is None:
        raise ValueError("propagation 'gtc' follows the ground truth: pass labels")
    return nodes.target_n == COMPOSITE_CHANNEL


def _predicted_composite(nodes: Nodes, logits_nk: Tensor) -> Tensor:  # noqa: ARG001
    return logits_nk.argmax(1) == COMPOSITE_CHANNEL


Rule = Callable[[Nodes, Tensor], Tensor]
RULES: dict[str, Rule] = {
    "all": _all,
    "gtc": _ground_truth_composite,
    "pc": _predicted_composite,
}
"""The rule of each scheme: (nodes, (n, k + 1) logits) -> (n,) bool, the active nodes."""
