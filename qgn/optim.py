"""The optimiser and the schedule of its learning rate."""

from __future__ import annotations

import torch
from torch import nn

from qgn.config import TrainConfig

POLY_POWER = 0.9
"""Exponent of the learning rate's decay (A.2 of the paper)."""
TAIL = 1 / 3
"""Share of the steps over which the schedule 'tail' decays."""


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser; biases and batch norm do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def rate(schedule: str, done: float) -> float:
    """Return the learning rate as a share of the first one, when a share ``done`` of the steps is done."""
    if schedule == "poly":
        return (1 - done) ** POLY_POWER
    return min(1.0, (1 - done) / TAIL)
