"""Models as ONNX files, for programs without torch: dense ones, and quadtree models that carry on all cells.

ONNX graphs know the shapes of their tensors beforehand. Under predicted composites the number of cells depends on the
photo: that scheme has no graph. A quadtree model is therefore written with the scheme `all`, on full grids: where
every cell goes on, its sparse layers are ordinary convolutions, of the same weights.

Shapes: b images, c, i and o channels, h and w rows and columns, k classes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qgn.errors import TrainingError
from qgn.models.decoder import Decoder, Projection, ResidualUnit, UpUnit
from qgn.models.qgn import QGN
from qgn.models.segmenter import STRIDE, Segmenter
from qgn.sparse.conv import SiteBatchNorm
from quadcodec.files import write_atomic


class PixelLogits(nn.Module):
    """Give the logits of every pixel, (B, k, H, W), whose largest is its class, and nothing else."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_bchw: Tensor) -> Tensor:
        if isinstance(self.model, QGN):
            return decode_all(self.model.decoder, self.model.encoder(images_bchw))
        return self.model(images_bchw).scores_bkhw


def decode_all(decoder: Decoder, features: Sequence[Tensor]) -> Tensor:
    """Return the class logits of the pixels, (B, k, H, W), of a decoder that carries on all cells.

    Every pixel then is a leaf: no coarser prediction counts, and the composite channel is left out.
    """
    if decoder.context is not None:
        features = [*features[:-1], decoder.context(features[-1])]
    x_bchw: Tensor | None = None
    for feats_bchw, skip, block in zip(reversed(features), decoder.skips, decoder.blocks, strict=True):
        skip_bchw = _project(skip, feats_bchw).relu()
        x_bchw = skip_bchw if x_bchw is None else x_bchw + skip_bchw
        for unit in block.units:
            x_bchw = _unit(unit, x_bchw)
        if isinstance(block.units[-1], ResidualUnit) and block is not decoder.blocks[-1]:
            x_bchw = F.interpolate(x_bchw, scale_factor=2.0)
    return _rows(x_bchw, decoder.pixel_head.weight, decoder.pixel_head.bias, 4)[:, 1:]


def _unit(unit: ResidualUnit | UpUnit, x_bihw: Tensor) -> Tensor:
    y_bihw = _norm(unit.bn1, F.conv2d(x_bihw, unit.conv1.weight, padding=1)).relu()
    if isinstance(unit, UpUnit):
        y_bohw = F.conv_transpose2d(y_bihw, unit.conv2.weight, stride=2, padding=1, output_padding=1)
    else:
        y_bohw = F.conv2d(y_bihw, unit.conv2.weight, padding=1)
    shortcut_bohw = x_bihw if unit.shortcut is None else _project(unit.shortcut, x_bihw)
    return (_norm(unit.bn2, y_bohw) + shortcut_bohw).relu()


def _project(projection: Projection, x_bihw: Tensor) -> Tensor:
    return _norm(projection.bn, _rows(x_bihw, projection.conv.weight, None, projection.children_of_row))


def _rows(x_bihw: Tensor, weight: Tensor, bias: Tensor | None, children: int) -> Tensor:
    """Return what a linear layer on the cells' rows gives, on the grid of the cells or of their four children."""
    if children == 1:
        return F.conv2d(x_bihw, weight[:, :, None, None], bias)
    # Child after child, in row-major order; pixel_shuffle wants the children of a channel together.
    weight, bias = (
        None if value is None else value.unflatten(0, (children, -1)).transpose(0, 1).flatten(0, 1)
        for value in (weight, bias)
    )
    return F.pixel_shuffle(F.conv2d(x_bihw, weight[:, :, None, None], bias), 2)


def _norm(norm: SiteBatchNorm, x_bchw: Tensor) -> Tensor:
    return F.batch_norm(x_bchw, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


@torch.no_grad()
def write_onnx(model: Segmenter, path: str | Path, size: tuple[int, int], *, overwrite: bool = False) -> None:
    """Write a model as an ONNX file: `images` (1, 3, H, W), normalised float32 -> `logits` (1, k, H, W) float32.

    Parameters
    ----------
    model
        In evaluation mode, on the CPU.
    path
        The file, written whole or not at all.
    size
        (H, W) of the photos, multiples of 32: the file is for this size alone.
    overwrite
        Replace the file if it exists.

    Raises
    ------
    TrainingError
        The sides are no multiples of 32, or the file exists or cannot be written.
    ModuleNotFoundError
        The extra `onnx` is not installed.
    """
    path = Path(path)
    if any(side % STRIDE for side in size):
        raise TrainingError(f"{path}: size {size[0]}x{size[1]}, both sides must be multiples of {STRIDE}")
    if path.exists() and not overwrite:
        raise TrainingError(f"{path}: exists already. Choose another place, or replace it with --overwrite")
    with _quiet_exporter():
        program = torch.onnx.export(
            PixelLogits(model).eval(), (torch.zeros(1, 3, *size),), input_names=["images"], output_names=["logits"],
            dynamo=True, verbose=False,
        )  # fmt: skip
    try:
        write_atomic(path, program.model_proto.SerializeToString())
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be written ({error.strerror}). Free space, or choose another place"
        ) from error


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what torch's exporter says of its own parts, such as of a torchvision that is not there."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
