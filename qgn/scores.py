"""Scores of one propagation scheme over a split, and the counts that they come from.

Shapes: b images, h and w rows and columns, k classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qgn.boundary import BoundaryCounts
from qgn.data.classes import ClassMap
from qgn.data.views import Size
from qgn.distributed import summed
from qgn.ensemble import Ensemble, Votes
from qgn.metrics import CompositeScores, ConfusionMatrix
from qgn.models.prediction import QuadtreePrediction


@dataclass(frozen=True)
class Scores:
    """Hold the scores of one scheme over a split; shares in percent, nan where there is nothing to count.

    Those by level are empty for a dense model, which has none.

    Attributes
    ----------
    miou, mean_accuracy, pixel_accuracy, iou, accuracy : from one confusion matrix over all pixels at the masks' own
        sizes, void left out; the accuracy of a class is the share of its pixels that are right.
    boundary_miou, boundary_iou : of the regions along outlines, as `qgn.boundary`.
    counts_kk : that confusion matrix: rows are true classes, columns predicted ones.
    sites : level -> mean number of active sites an image.
    site_share : level -> active sites as a share of the level's cells.
    share : active sites of all levels as a share of all levels' cells: of those that `all` computes.
    composite_precision, composite_recall : level -> of composite predictions at visited cells.
    encoder_gmacs, decoder_gmacs : 10^9 multiply-adds an image, of convolutions and matrix products; a sparse
        convolution multiplies the neighbours that are there.
    """

    miou: float
    mean_accuracy: float
    pixel_accuracy: float
    boundary_miou: float
    iou: dict[str, float]
    accuracy: dict[str, float]
    boundary_iou: dict[str, float]
    sites: dict[int, float]
    site_share: dict[int, float]
    share: float
    composite_precision: dict[int, float]
    composite_recall: dict[int, float]
    encoder_gmacs: float
    decoder_gmacs: float
    counts_kk: NDArray[np.int64] = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON holds them: null for nan, levels as text, no matrix."""
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, dict):
                values[name] = {str(key): _finite(v) for key, v in value.items()}
            elif name != "counts_kk":
                values[name] = _finite(value)
        return values


def _finite(value: float) -> float | None:
    return value if value == value else None  # nan is not equal to itself


def restore(map_hw: Tensor, native: Size) -> Tensor:
    """Return an image's classes at its ``native`` size, by nearest neighbour."""
    rows, cols = (
        (2 * torch.arange(new, device=map_hw.device) + 1) * old // (2 * new)
        for old, new in zip(map_hw.shape, native, strict=True)
    )
    return map_hw[rows[:, None], cols]


class Tally:
    """Count the predictions of one scheme, batch by batch; each batch comes once for every member of an ensemble."""

    def __init__(
        self, classes: ClassMap, ensemble: Ensemble, boundary_width: float, device: torch.device | str
    ) -> None:
        self._classes, self._ensemble, self._device = classes, ensemble, device
        self._votes = Votes(ensemble)
        self._confusion = ConfusionMatrix(len(classes))
        self._boundary = BoundaryCounts(len(classes), boundary_width)
        self._composites: CompositeScores | None = None
        self._macs = 0

    def add(self, prediction: Any, macs: int, natives: Sequence[NDArray[np.uint8]]) -> None:
        """Add the next member's prediction for a batch, and what it cost.

        Parameters
        ----------
        natives : masks at their own sizes, (h, w) classes with VOID, to be compared with after the last member.
        """
        self._macs += macs
        if isinstance(prediction, QuadtreePrediction):
            self._composites = (self._composites or CompositeScores(device=self._device)).update(prediction)
        maps_bhw = self._votes.add(prediction)
        if maps_bhw is None:
            return
        self._votes = Votes(self._ensemble)
        for map_hw, true_hw in zip(maps_bhw.to(torch.uint8).cpu(), natives, strict=True):
            restored_hw = restore(map_hw, (true_hw.shape[0], true_hw.shape[1]))
            self._confusion.update(restored_hw, torch.from_numpy(true_hw))
            self._boundary.update(restored_hw.numpy(), true_hw)

    def gather(self) -> None:
        """Add up what all processes have counted."""
        self._confusion.counts_kk = summed(self._confusion.counts_kk)
        self._boundary.counts_k3 = summed(torch.from_numpy(self._boundary.counts_k3)).numpy()
        self._macs, counted = summed(torch.tensor([self._macs, int(self._composites is not None)])).tolist()
        if counted:  # by some of them: one may have had no image
            self._composites = self._composites or CompositeScores(device=self._device)
            self._composites.counts_l5 = summed(self._composites.counts_l5)

    def scores(self, images: int, encoder_macs: int) -> Scores:
        """Return the scores of what was added: so many images, whose features cost so many multiply-adds."""
        confusion, boundary, composites = self._confusion, self._boundary, self._composites

        def by_class(values: Tensor | NDArray[np.float64]) -> dict[str, float]:
            return dict(zip(self._classes.names, (100 * values).tolist(), strict=True))

        def by_level(values: Tensor) -> dict[int, float]:
            return {level: float(values[level]) for level in range(len(values) - 1, 0, -1)}

        return Scores(
            miou=100 * confusion.miou(),
            mean_accuracy=100 * confusion.mean_accuracy(),
            pixel_accuracy=100 * confusion.pixel_accuracy(),
            boundary_miou=100 * boundary.miou(),
            iou=by_class(confusion.iou_k()),
            accuracy=by_class(confusion.accuracy_k()),
            boundary_iou=by_class(boundary.iou_k()),
            sites={} if composites is None else by_level(composites.sites_l().double() / images),
            site_share={} if composites is None else by_level(100 * composites.share_l()),
            share=math.nan if composites is None else 100 * composites.share(),
            composite_precision={} if composites is None else by_level(100 * composites.precision_l()),
            composite_recall={} if composites is None else by_level(100 * composites.recall_l()),
            encoder_gmacs=encoder_macs / images / 1e9,
            decoder_gmacs=self._macs / images / 1e9,
            counts_kk=confusion.counts_kk.numpy(),
        )
