"""What a whole model costs: parameters, multiply-adds, what it keeps for the backward pass; counted on meta tensors.

The features are on the meta device, where a tensor has a shape and no data; the label trees and the tables made of
them are real. The model's own code runs, at any size, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from qgn.bench.measure import saved_bytes
from qgn.bench.trees import mask_tree
from qgn.data.batch import LabelBatch
from qgn.models.build import build_model
from qgn.models.qgn import QGN

GIB = 2**30


@dataclass(frozen=True)
class ModelCost:
    """Hold what one image costs.

    Attributes
    ----------
    parameters
        Number of trained values.
    macs
        Multiply-adds of an evaluation; a sparse convolution multiplies the pairs of neighbours that are there.
    kept_bytes
        Bytes that a training pass keeps for the backward pass, parameters and the image left out.
    """

    parameters: int
    macs: int
    kept_bytes: int


def outline(name: str, num_classes: int, **settings: Any) -> nn.Module:
    """Return a model of `build_model` on the meta device: it takes no memory."""
    with torch.device("meta"):
        return build_model(name, num_classes, **settings)


def cost(model: nn.Module, size: tuple[int, int], labels: LabelBatch | None = None) -> ModelCost:
    """Return what a model costs for one image.

    Parameters
    ----------
    model
        On the meta device, from `outline`.
    size
        (H, W) of the image, multiples of 32.
    labels
        One tree of this size, on the CPU. The sparse decoder carries on its composite cells, as `gtc` does, and `pc`
        where it predicts right. Without it every cell goes on.
    """
    images = torch.empty(1, 3, *size, device="meta")
    sparse = isinstance(model, QGN)
    trees = (every_cell(size) if labels is None else labels, "gtc") if sparse else ()
    model.eval()
    macs = multiply_adds(lambda: model(images, *trees))
    model.train()
    kept = kept_bytes(model, [images], lambda: model(images, *trees))
    return ModelCost(sum(parameter.numel() for parameter in model.parameters()), macs, kept)


def every_cell(size: tuple[int, int]) -> LabelBatch:
    """Return a tree of an image of (H, W) pixels whose cells are all composite: a chessboard's."""
    y, x = np.indices(size, dtype=np.uint8)
    return mask_tree((y + x) % 2)


def multiply_adds(forward: Callable[[], Any]) -> int:
    """Return the multiply-adds of a forward pass: of convolutions, matrix products and attention."""
    with torch.no_grad(), RealTables(), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops() // 2


def kept_bytes(module: nn.Module, inputs: Sequence[Tensor], forward: Callable[[], Any]) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, parameters and inputs left out."""
    with RealTables():
        return saved_bytes(module, inputs, forward)


class RealTables(TorchDispatchMode):
    """Let rows without data be added to where real tables say: torch itself refuses an index on another device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index_add_.default and args[0].device.type == "meta":
            return args[0]
        return func(*args, **(kwargs or {}))
