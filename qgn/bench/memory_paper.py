"""The paper's definition of memory, as far as its figures give it away.

The paper says 'forward pass activation memory' and no more. Its figures for encoders are met, within 1 %, by the
outputs of all convolutions and batch normalisations on the main path, shortcuts left out, every convolution of a
residual block taken at the block's output size. Those for the decoder with all cells are met, within 2 %, by the
outputs of its convolutions, of the batch normalisations of skip connections and of the first one in each unit (the
second one's sum with the shortcut taken to lie in its place), and by the logits of all levels. A dense decoder adds
its logits at every pixel. The figures with composite cells alone are met by no such rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from qgn.bench.cost import AsWithData
from qgn.models.decoder import ResidualUnit, Skip
from qgn.models.dense import DensePrediction
from qgn.models.resnet import BasicBlock, Bottleneck

FLOAT = 4
"""Bytes of a value."""


def paper_bytes(module: nn.Module, forward: Callable[[], Any]) -> int:
    """Return the bytes that a forward pass takes by the paper's definition, as fitted.

    Parameters
    ----------
    module
        Whose layers count.
    forward
        Runs it and returns what it returns.
    """
    values = 0

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal values
        values += _values(layer, inputs, output)

    hooks = [layer.register_forward_hook(count) for layer in _counted(module)]
    try:
        with torch.no_grad(), AsWithData():
            result = forward()
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(result, DensePrediction):
        values += result.scores_bkhw.numel()
    return FLOAT * values


def _counted(module: nn.Module) -> list[nn.Module]:
    """Return the layers that count, outermost first: of a block, a unit or a skip connection it is the whole."""
    if isinstance(module, BasicBlock | Bottleneck | ResidualUnit | Skip | nn.Conv2d | nn.BatchNorm2d | nn.Linear):
        return [module]
    return [layer for child in module.children() for layer in _counted(child)]


def _values(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> int:
    if isinstance(layer, BasicBlock | Bottleneck):
        channels = sum(child.out_channels for child in layer.children() if isinstance(child, nn.Conv2d))
        return 2 * channels * (output.numel() // output.shape[1])
    if isinstance(layer, ResidualUnit):
        return 2 * inputs[0].numel() + output.numel()
    return 2 * output.numel() if isinstance(layer, Skip) else output.numel()
