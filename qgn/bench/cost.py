"""What a model costs: parameters, multiply-adds, and what it keeps for the backward pass, counted on meta tensors.

The features are on the meta device, where a tensor has a shape and no data; the label trees and the tables made of
them are real. The model's own code runs, at any size, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from qgn.bench.measure import saved_bytes
from qgn.bench.trees import EVERY_CELL, drawn_tree
from qgn.data.batch import LabelBatch
from qgn.losses import level_loss
from qgn.models.build import build_model
from qgn.models.segmenter import Segmenter

GIB = 2**30
BATCH = 2
"""Images of a batch: batch normalisation of a pooled image needs two."""


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
        Bytes that the forward pass of a training step, loss included, keeps for the backward pass; parameters and the
        image are left out.
    """

    parameters: int
    macs: int
    kept_bytes: int


def outline(name: str, num_classes: int, **settings: Any) -> Segmenter:
    """Return a model of `build_model` on the meta device: it takes no memory."""
    with torch.device("meta"), AsWithData():
        return build_model(name, num_classes, **settings)


def cost(model: Segmenter, size: tuple[int, int], labels: LabelBatch | None = None) -> ModelCost:
    """Return what a model costs for one image.

    Parameters
    ----------
    model
        On the meta device, from `outline`.
    size
        (H, W) of the image, multiples of 32.
    labels
        Two trees of this size, on the CPU. A sparse decoder carries on their composite cells, as `gtc` does, and `pc`
        where it predicts right. Without them every cell goes on, as under `all`.
    """
    images = torch.empty(BATCH, 3, *size, device="meta")
    trees: tuple[Any, ...] = ()
    if "gtc" in model.schemes:
        trees = (drawn_tree(size, EVERY_CELL, BATCH) if labels is None else labels, "gtc")
    model.eval()
    macs = multiply_adds(lambda: model(images, *trees))
    model.train()
    kept = kept_bytes(model, [images], lambda: with_loss(model(images, *trees)))
    return ModelCost(sum(parameter.numel() for parameter in model.parameters()), macs // BATCH, kept // BATCH)


def multiply_adds(forward: Callable[[], Any]) -> int:
    """Return the multiply-adds of a forward pass: of convolutions, matrix products and attention."""
    with torch.no_grad(), AsWithData(), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops() // 2


def kept_bytes(module: nn.Module, inputs: Sequence[Tensor], forward: Callable[[], Any]) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, parameters and inputs left out."""
    with AsWithData():
        return saved_bytes(module, inputs, forward)


def with_loss(prediction: Any) -> list[Tensor]:
    """Return the loss of each level or head of a prediction without data; heads of one size have one target."""
    targets = {len(rows): rows.new_empty(len(rows), dtype=torch.int64) for rows in prediction.logits}
    return [level_loss(rows, targets[len(rows)]) for rows in prediction.logits]


class AsWithData(TorchDispatchMode):
    """Mend what torch does otherwise on the meta device than on a CPU or GPU, and what takes it long there.

    A convolution forgets that its input lies channels last, so that the decoder would copy all features; rows cannot
    be added by an index on the CPU, where the tables are. Batch normalisation and random weights take their detour
    through Python, a hundred operations each.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        on_meta = bool(args) and isinstance(args[0], Tensor) and args[0].device.type == "meta"
        if on_meta and func in _INTO_FIRST:
            return args[0]
        if on_meta and func is _ATEN.native_batch_norm.default:
            x, training = args[0], args[5]
            return torch.empty_like(x), *(x.new_empty(x.shape[1] if training else 0) for _ in range(2))
        result = func(*args, **(kwargs or {}))
        if on_meta and func is _ATEN.convolution.default:
            last = args[0].is_contiguous(memory_format=torch.channels_last)
            return result.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        return result


_ATEN = torch.ops.aten
_INTO_FIRST = {_ATEN.index_add_.default, _ATEN.normal_.default, _ATEN.uniform_.default}
"""Operations that return their first argument, changed."""
