"""What accuracy costs: one model under many rules of propagation, and the best of them that a limit allows."""

from __future__ import annotations

import math
from collections.abc import Mapping

from qgn.evaluate import Scores

RULES = (
    "pc",
    *(f"prod>{threshold}" for threshold in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)),
    *(f"uncp>{threshold}" for threshold in (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)),
)
"""Rules without labels, from much computed to little."""


def best_rule(scores: Mapping[str, Scores], max_share: float = 20.0) -> str | None:
    """Return the rule of the highest mIoU among those that compute no more than a share of the cells.

    To be called with scores of images that are neither trained on nor tested on.

    Parameters
    ----------
    scores
        By rule. At equal mIoU the first one wins; a mIoU of nan never does.
    max_share
        Active sites over all cells, percent.

    Returns
    -------
    None where no rule stays below the limit.
    """
    allowed = {rule: s.miou for rule, s in scores.items() if s.share <= max_share and not math.isnan(s.miou)}
    return max(allowed, key=lambda rule: allowed[rule], default=None)
