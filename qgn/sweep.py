"""What accuracy costs: one model under many rules of propagation, and the best of them that a limit allows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qgn.ensemble import PLAIN, Ensemble
from qgn.errors import TrainingError
from qgn.evaluate import HELD_ASIDE, Evaluation, evaluate_checkpoint
from qgn.scores import Scores
from qgn.sparse.propagation import Limits

RULES = (
    "pc",
    *(f"prod>{threshold}" for threshold in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)),
    *(f"uncp>{threshold}" for threshold in (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)),
)
"""Rules without labels, each family from much computed to little."""


@dataclass(frozen=True)
class Choice:
    """Say which rule was chosen, and by which scores.

    Attributes
    ----------
    rule : text of a `Propagation`.
    max_share : active cells over all cells that were allowed, percent.
    held_aside : the scores of all rules on the images that the training held aside.
    """

    rule: str
    max_share: float
    held_aside: Evaluation

    def to_json(self) -> dict[str, Any]:
        """Return the choice as ``qgn-eval --json`` prints it."""
        scores = {rule: {"miou": s.miou, "share": s.share} for rule, s in self.held_aside.schemes.items()}
        return {"rule": self.rule, "max_share": self.max_share, "images": self.held_aside.images, "held_aside": scores}


def choose_threshold(
    checkpoint: str | Path,
    labels: str | Path,
    max_share: float,
    *,
    limits: Limits | None = None,
    images: str | Path | None = None,
    ensemble: Ensemble = PLAIN,
    batch_size: int = 8,
    workers: int = 1,
    device: str = "cpu",
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Choice:
    """Return the rule of `RULES` with the highest mIoU on images that the training held aside.

    They are neither those that it was trained on nor those that its scores are reported for.

    Parameters
    ----------
    labels : the store of the training, trained with `held_aside` above 0.
    max_share : active cells over all cells that the rule may compute on these images, percent. Other images take a
        little more or less.
    limits, images, ensemble, batch_size, workers, device, progress : as `evaluate_checkpoint`.

    Raises
    ------
    TrainingError : nothing was held aside, no rule computes so little, the model is dense, or as `evaluate_checkpoint`.
    CheckpointError, StoreError : as `evaluate_checkpoint`.
    """
    held_aside = evaluate_checkpoint(
        checkpoint, labels, split=HELD_ASIDE, schemes=RULES, limits=limits, images=images, ensemble=ensemble,
        batch_size=batch_size, workers=workers, device=device, progress=progress,
    )  # fmt: skip
    rule = best_rule(held_aside.schemes, max_share)
    if rule is None:
        least = min(scores.share for scores in held_aside.schemes.values())
        raise TrainingError(
            f"{checkpoint}: no rule computes {max_share:g} % of the cells or less on the {held_aside.images} "
            f"held-aside images; the least is {least:.2f} %. Allow more"
        )
    return Choice(rule, max_share, held_aside)


def best_rule(scores: Mapping[str, Scores], max_share: float) -> str | None:
    """Return the rule of the highest mIoU among those that compute few enough cells, None if there is none.

    At equal mIoU the first rule.
    """
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
