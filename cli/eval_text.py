"""Scores of an evaluation as text."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from .tables import align

if TYPE_CHECKING:
    from qgn.evaluate import Evaluation
    from qgn.sweep import Choice


def evaluation_text(evaluation: Evaluation, choice: Choice | None, *, sweep: bool, as_csv: bool, as_json: bool) -> str:
    """Return what ``qgn-eval`` prints; of a sweep, totals alone."""
    from qgn.sweep import csv_of

    if as_json:
        return json.dumps(evaluation.to_json() | ({} if choice is None else {"choice": choice.to_json()}))
    if as_csv:
        return csv_of(evaluation.schemes).rstrip("\n")
    text = "\n\n".join([head(evaluation), align(totals(evaluation))]) if sweep else tables(evaluation)
    return text if choice is None else f"{choice_text(choice)}\n\n{text}"


def choice_text(choice: Choice) -> str:
    """Return which threshold was chosen, and why."""
    scores, chosen = choice.held_aside.schemes, choice.held_aside.schemes[choice.rule]
    return (
        f"chosen: {choice.rule}, the best of {len(scores)} rules that compute at most {choice.max_share:g} % of the "
        f"cells on the {choice.held_aside.images} held-aside images: mIoU {chosen.miou:.2f} at {chosen.share:.2f} %\n"
        f"to use it: qgn-predict --propagation '{choice.rule}', or qgn-zoo export --propagation '{choice.rule}'"
    )


def head(evaluation: Evaluation) -> str:
    """Return what was evaluated."""
    left_out = f" ({evaluation.without_photo} without a photo left out)" if evaluation.without_photo else ""
    aside = f" (set aside from {evaluation.set_aside_from})" if evaluation.set_aside_from else ""
    images = f"split {evaluation.split}{aside}: {evaluation.images} images{left_out}"
    scales = [f"{scale:g}" for scale in evaluation.ensemble.scales]
    shown = f"at {'scale' if len(scales) == 1 else 'scales'} {', '.join(scales)}"
    shown += " and mirrored" if evaluation.ensemble.flip else ""
    boundary = f"boundaries within {evaluation.boundary_width:g} % of the diagonal"
    return f"{evaluation.checkpoint} on {evaluation.labels}, {images}\n{shown}; {boundary}"


def totals(evaluation: Evaluation) -> list[list[str]]:
    """Return a row a scheme: accuracy and cost."""
    header = ["mIoU", "boundary mIoU", "mean accuracy", "pixel accuracy", "sites %", "encoder GMACs", "decoder GMACs"]
    rows = [["scheme", *header]]
    for name, s in evaluation.schemes.items():
        scores = (s.miou, s.boundary_miou, s.mean_accuracy, s.pixel_accuracy)
        share = "-" if math.isnan(s.share) else f"{s.share:.2f}"
        gmacs = (f"{s.encoder_gmacs:.4g}", f"{s.decoder_gmacs:.4g}")
        rows.append([name, *(f"{score:.2f}" for score in scores), share, *gmacs])
    return rows


def by_class(evaluation: Evaluation) -> list[list[str]]:
    """Return a row a class: all its scores under a single scheme, under several its IoU."""
    schemes = evaluation.schemes
    first = next(iter(schemes.values()))
    header, columns = ["IoU %", *schemes], [s.iou for s in schemes.values()]
    if len(schemes) == 1:
        header, columns = (
            ["class", "IoU %", "boundary IoU %", "accuracy %"],
            [first.iou, first.boundary_iou, first.accuracy],
        )
    return [header, *([name, *(f"{column[name]:.2f}" for column in columns)] for name in first.iou)]


def tables(evaluation: Evaluation) -> str:
    """Return the scores as text: totals, by class, composites and sites by level."""
    levels = [["scheme", "level", "active sites", "of all %", "composite precision %", "recall %"]]
    for name, s in evaluation.schemes.items():
        for level in s.sites:
            values = (s.site_share[level], s.composite_precision[level], s.composite_recall[level])
            levels.append([name, str(level), f"{s.sites[level]:.1f}", *(f"{v:.2f}" for v in values)])
    parts = [head(evaluation), align(totals(evaluation)), align(by_class(evaluation))]
    return "\n\n".join(parts if len(levels) == 1 else [*parts, align(levels, left=2)])
