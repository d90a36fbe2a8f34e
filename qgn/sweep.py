"""What accuracy costs: one model under many rules of propagation, and the best of them that a limit allows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

import torch
from torch.utils.data import DataLoader

from qgn.data.classes import ClassMap
from qgn.data.samples import Batch
from qgn.evaluate import evaluate
from qgn.models.segmenter import Segmenter
from qgn.scores import Scores

RULES = (
    "pc",
    *(f"prod>{threshold}" for threshold in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)),
    *(f"uncp>{threshold}" for threshold in (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)),
)
"""Rules without labels, each family from much computed to little."""


def choose_threshold(
    model: Segmenter,
    loader: DataLoader[Batch],
    classes: ClassMap,
    rules: Sequence[str] = RULES,
    *,
    max_share: float = 20.0,
    device: torch.device | str = "cpu",
) -> str | None:
    """Return the rule of the highest mIoU over a loader's images among those that compute few enough cells.

    Parameters
    ----------
    loader : of images that are held aside from training (`qgn.data.splits.Division.held_aside`), never of those that
        the result is tested on; as `qgn.evaluate.evaluation_loader` makes it.
    rules : texts of propagations that need no labels.
    max_share : active cells over all cells, percent.

    Returns
    -------
    None where no rule stays below the limit. At equal mIoU the first rule.

    Raises
    ------
    TrainingError, MaskError, FormatError : an image cannot be read, or a rule says nothing.
    """
    return best_rule(evaluate(model, loader, classes, rules, device=device), max_share=max_share)


def best_rule(scores: Mapping[str, Scores], *, max_share: float = 20.0) -> str | None:
    """Return what `choose_threshold` does, of scores by rule."""
    allowed = {rule: s.miou for rule, s in scores.items() if s.share <= max_share and not math.isnan(s.miou)}
    return max(allowed, key=lambda rule: allowed[rule], default=None)


def csv_of(scores: Mapping[str, Scores]) -> str:
    """Return a line a rule: accuracy and what it cost."""
    columns = ("miou", "mean_accuracy", "pixel_accuracy", "boundary_miou", "share", "encoder_gmacs", "decoder_gmacs")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["propagation", *columns])
    writer.writerows([rule, *(getattr(s, column) for column in columns)] for rule, s in scores.items())
    return text.getvalue()
