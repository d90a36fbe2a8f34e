"""Several views of an image at test time: scales and mirror images, and the average of what is predicted for them.

An image is rescaled to the nearest multiples of 32 (A.2 of the paper), times each scale. Every pixel of a view has a
distribution over the classes: in a quadtree that of its leaf, without the composite class. The views' distributions are
brought to one size by bilinear interpolation and summed; the class with the largest sum wins.

Shapes: b images, h and w rows and columns, k classes, n rows of distributions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from qgn.data.classes import ClassMap
from qgn.data.samples import Sample, load_sample
from qgn.data.views import Size, View
from qgn.models.prediction import QuadtreePrediction
from qgn.models.segmenter import STRIDE
from quadcodec.errors import QuadcodecError
from quadcodec.store import LabelStore

_CHUNK_BYTES = 1 << 26
"""Distributions of pixels that are gathered at once; whole only their sum is kept."""


@dataclass(frozen=True)
class Scaled:
    """Say how the model is shown an image: at which scale, and whether left and right are swapped."""

    scale: float
    mirrored: bool

    def view(self, native: Size, size: Size | None) -> View:
        """Return the view of an image whose sides are the nearest multiples of 32, one at least.

        Parameters
        ----------
        native : the image's (height, width).
        size : that of training, in place of its own; None if training kept it.
        """
        height, width = (
            STRIDE * max(1, math.floor(self.scale * side / STRIDE + 0.5)) for side in (native if size is None else size)
        )
        return View((height, width), (0, 0, height, width), self.mirrored)


@dataclass(frozen=True)
class Ensemble:
    """Name the scales at which an image is predicted, and whether each is predicted mirrored, too."""

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @property
    def members(self) -> tuple[Scaled, ...]:
        """What is predicted, that of the scale nearest to 1 first: predictions are brought to its size."""
        scales = sorted(self.scales, key=lambda scale: abs(math.log(scale)))
        return tuple(Scaled(scale, mirrored) for scale in scales for mirrored in (False, True)[: 1 + self.flip])


PLAIN = Ensemble()


@dataclass(frozen=True, eq=False)
class EnsembleSamples(Dataset[Sample | QuadcodecError]):
    """Give samples of a store by (image, number of the ensemble's member), the last with the mask at its own size.

    An image that cannot be read is given as the error, as in `qgn.data.samples.Samples`.

    Attributes
    ----------
    size : (height, width) of training; None if it kept each image's own.
    """

    store: LabelStore
    root: Path
    classes: ClassMap
    size: Size | None
    ensemble: Ensemble

    def __getitem__(self, key: tuple[int, int]) -> Sample | QuadcodecError:
        index, number = key
        members = self.ensemble.members
        try:
            return load_sample(
                self.store, index, self.root, self.classes, lambda native: members[number].view(native, self.size),
                native=number == len(members) - 1,
            )  # fmt: skip
        except QuadcodecError as error:
            return error

    def batches(self, indices: Sequence[int], batch_size: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the keys of batches: those of all members follow each other, each of images of one size.

        Padding would count as visited cells, and scores would depend on the batch size.
        """
        members = self.ensemble.members
        groups: dict[tuple[Size, ...], list[int]] = {}
        for index in indices:
            native = int(self.store.sizes[index][0]), int(self.store.sizes[index][1])
            groups.setdefault(tuple(member.view(native, self.size).size for member in members), []).append(index)
        for group in groups.values():
            for at in range(0, len(group), batch_size):
                for number in range(len(members)):
                    yield [(index, number) for index in group[at : at + batch_size]]


class Votes:
    """Average the predictions for one batch of images, member by member of an ensemble.

    Memory is that of the sum, k floats a pixel, and of one prediction; for a single member, there is no sum.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self._waiting = list(ensemble.members)
        self._single = len(self._waiting) == 1
        self._sum_bhwk: Tensor | None = None

    def add(self, prediction: Any) -> Tensor | None:
        """Add the next member's prediction; after the last, return the classes, (b, h, w) int64, at the first's size.

        Parameters
        ----------
        prediction : a `QuadtreePrediction` or `DensePrediction` of images without padding.
        """
        member = self._waiting.pop(0)
        if self._single:
            classes_bhw: Tensor = prediction.to_pixels()
            return classes_bhw
        rows_nk, row_bhw = distributions(prediction)
        if member.mirrored:
            row_bhw = row_bhw.flip(2)
        if self._sum_bhwk is None:
            self._sum_bhwk = rows_nk.new_zeros(*row_bhw.shape, rows_nk.shape[1])
        _add_bilinear(rows_nk, row_bhw, self._sum_bhwk)
        return None if self._waiting else self._sum_bhwk.argmax(3)


def distributions(prediction: Any) -> tuple[Tensor, Tensor]:
    """Return distributions over the classes, (n, k), and the row of each pixel's, (b, h, w) int64.

    The pixels of a leaf share a row: those of a quadtree are far fewer than its pixels.
    """
    if not isinstance(prediction, QuadtreePrediction):
        scores_bkhw = prediction.scores_bkhw
        batch, _, height, width = scores_bkhw.shape
        rows_nk = scores_bkhw.permute(0, 2, 3, 1).flatten(0, 2).softmax(1)
        return rows_nk, torch.arange(len(rows_nk), device=rows_nk.device).view(batch, height, width)
    *finer, coarsest = prediction.levels
    row_bhw = torch.arange(len(coarsest.logits_nk), device=coarsest.logits_nk.device).view(coarsest.nodes.shape)
    rows, count = [coarsest.logits_nk], len(coarsest.logits_nk)
    for level in reversed(finer):
        row_bhw = row_bhw.repeat_interleave(2, 1).repeat_interleave(2, 2)
        end = count + len(level.logits_nk)
        row_bhw.view(-1)[level.nodes.cell_n] = torch.arange(count, end, device=row_bhw.device)
        rows.append(level.logits_nk)
        count = end
    return torch.cat(rows)[:, 1:].softmax(1), row_bhw


def _add_bilinear(rows_nk: Tensor, row_bhw: Tensor, sum_bhwk: Tensor) -> None:
    """Add each pixel's distribution to a sum of another size, some rows of pixels at a time."""
    batch, height, width, classes = sum_bhwk.shape
    band = max(1, _CHUNK_BYTES // (4 * width * classes))
    upper_h, lower_h, below_h = _neighbours(height, row_bhw.shape[1], rows_nk)
    left_w, right_w, beyond_w = _neighbours(width, row_bhw.shape[2], rows_nk)
    for image in range(batch):
        for top in range(0, height, band):
            part = slice(top, top + band)
            sum_hwk = sum_bhwk[image, part]
            for rows_h, weight_h in ((upper_h, 1 - below_h), (lower_h, below_h)):
                for cols_w, weight_w in ((left_w, 1 - beyond_w), (right_w, beyond_w)):
                    if weight_h.any() and weight_w.any():
                        weight_hw1 = (weight_h[part, None] * weight_w)[..., None]
                        sum_hwk += weight_hw1 * rows_nk[row_bhw[image][rows_h[part, None], cols_w]]


def _neighbours(new: int, old: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for each of ``new`` pixels, the two of ``old`` beside its centre, and the weight of the second."""
    at = (torch.arange(new, device=like.device, dtype=torch.float64) + 0.5) * old / new - 0.5
    at = at.clamp(0, old - 1)
    first = at.floor().long()
    return first, (first + 1).clamp(max=old - 1), (at - first).to(like.dtype)
