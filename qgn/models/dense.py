"""Networks that predict every pixel: a prediction, the decoder they share, and the dilated ResNet with a 1x1 head.

Shapes: b images, c channels, h and w rows and columns, k classes, n = b * h * w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qgn.sparse.frontier import Labels
from qgn.sparse.raster import rasterise

from .resnet import ResNet
from .segmenter import Segmenter

SCHEME = "dense"
"""The one scheme of a dense decoder: every pixel is computed."""
STRIDES = (8, 16, 32)
"""Output strides of a dilated encoder."""


@dataclass(frozen=True)
class DensePrediction:
    """A batch of predicted pixels.

    Attributes
    ----------
    scores_bkhw
        (B, k, H, W): channel c is class c.
    logits
        Of each head, the main one first, (n, k): at pixels, or at points that the head was asked for.
    truth
        Of each head, (n,) int64: class or IGNORE_INDEX. None without labels.
    """

    scores_bkhw: Tensor
    logits: tuple[Tensor, ...]
    truth: tuple[Tensor, ...] | None

    @classmethod
    def of_maps(cls, maps: Sequence[Tensor], labels: Labels | None) -> DensePrediction:
        """Return that of the (B, k, H, W) logits of one or several heads, the main one first.

        Raises
        ------
        ValueError
            The labels have another canvas.
        """
        truth = None if labels is None else (pixel_targets(maps[0], labels).flatten(),) * len(maps)
        return cls(maps[0], tuple(as_rows(map_bkhw) for map_bkhw in maps), truth)

    @property
    def targets(self) -> tuple[Tensor, ...]:
        """Targets of each head, (n,) int64: class or IGNORE_INDEX.

        Raises
        ------
        ValueError
            The prediction was made without labels.
        """
        if self.truth is None:
            raise ValueError("the prediction has no targets: it was made without labels")
        return self.truth

    @property
    def active_sites(self) -> tuple[int, ...]:
        """Nothing: there are no levels."""
        return ()

    @torch.no_grad()
    def to_pixels(self) -> Tensor:
        """Return the best class of every pixel of the canvas, (B, H, W) int64."""
        return self.scores_bkhw.argmax(1)


class DenseDecoder(nn.Module):
    """Turn features into logits of every pixel. A subclass gives `maps`.

    Parameters
    ----------
    stride
        Pixels a side of a cell of the last features.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def maps(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits of each head, the main one first, (B, k, h, w) of any resolution."""
        raise NotImplementedError

    def forward(
        self, features: Sequence[Tensor], labels: Labels | None = None, propagation: str = SCHEME
    ) -> DensePrediction:
        """Predict every pixel of a batch; logits are enlarged bilinearly, cells' centres staying in place.

        Parameters
        ----------
        features
            Encoder features, fine to coarse.
        labels
            Label trees of the batch, on the features' device: the prediction's targets are drawn from them there.
        propagation
            `dense`.

        Raises
        ------
        ValueError
            The scheme is another one, or the labels do not fit the features.
        """
        check_scheme(propagation)
        size = [self.stride * side for side in features[-1].shape[2:]]
        return DensePrediction.of_maps([enlarged(map_bkhw, size) for map_bkhw in self.maps(features)], labels)


def check_scheme(propagation: str) -> None:
    """Refuse a scheme of quadtrees; raise ValueError."""
    if propagation != SCHEME:
        raise ValueError(f"unknown propagation {propagation!r}: a dense model has only {SCHEME!r}")


def enlarged(map_bkhw: Tensor, size: Sequence[int]) -> Tensor:
    """Return a map of another size, by bilinear interpolation."""
    return F.interpolate(map_bkhw, tuple(size), mode="bilinear", align_corners=False)


def as_rows(map_bkhw: Tensor) -> Tensor:
    """Return a map as rows, (n, k); a view where it is channels last in memory."""
    return map_bkhw.permute(0, 2, 3, 1).flatten(0, 2)


def pixel_targets(map_bkhw: Tensor, labels: Labels) -> Tensor:
    """Return the class of every pixel, (B, H, W) int64, or IGNORE_INDEX; raise ValueError if it is no map of them."""
    target_bhw = rasterise(labels)
    if target_bhw.shape != (len(map_bkhw), *map_bkhw.shape[2:]):
        raise ValueError(
            f"the labels' canvas is {tuple(target_bhw.shape)} (batch, rows, columns), the images' "
            f"{(len(map_bkhw), *map_bkhw.shape[2:])}: pad the images to the labels' canvas"
        )
    return target_bhw


class Dense(Segmenter):
    """A network that predicts every pixel."""

    schemes = (SCHEME,)

    def __init__(self, encoder: nn.Module, decoder: nn.Module, loss_weights: tuple[float, ...] = (1.0,)) -> None:
        super().__init__(encoder, decoder)
        self.loss_weights = loss_weights


class LinearDecoder(DenseDecoder):
    """A 1x1 convolution on the last features."""

    def __init__(self, c_in: int, num_classes: int, stride: int) -> None:
        super().__init__(stride)
        self.head = nn.Conv2d(c_in, num_classes, 1)

    def maps(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [self.head(features[-1])]


def dilated_resnet(depth: int, stride: int, num_classes: int, width: int) -> Dense:
    """Return a ResNet dilated to a stride of 8 or 16, or plain of 32, with a 1x1 head (section 4.3 of the paper)."""
    encoder = ResNet(depth, width=width, output_stride=stride)
    return Dense(encoder, LinearDecoder(encoder.channels[-1], num_classes, stride))
