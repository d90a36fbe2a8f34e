"""Budgets: which of a level's cells an image can afford, the best ones first.

Shapes: b images, m cells that would go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .sites import Sites


@dataclass(frozen=True)
class Costs:
    """Say what a decoder's cells cost, in any unit that is counted in whole numbers.

    Attributes
    ----------
    cell
        Of each cell of the coarsest level, active or not.
    site
        Of an active cell of level 0, 1, ..., its children's predictions included.
    pair
        Of a pair of an active cell and a neighbour that is active, the cell itself being one of its neighbours.
    """

    cell: int
    site: tuple[int, ...]
    pair: tuple[int, ...]

    def total(self, cells: int, sites: Sequence[tuple[int, Sites]]) -> int:
        """Return the cost of a batch: the number of its coarsest cells, and (level, active cells) of each level."""
        return self.cell * cells + sum(
            self.site[level] * len(own) + self.pair[level] * int((own.nbr_9m >= 0).sum()) for level, own in sites
        )


SITES_ALONE = Costs(0, (1,) * 6, (0,) * 6)
"""Every active cell costs 1."""


def affordable(sites: Sites, score_m: Tensor, left_b: Tensor, *, site: int, pair: int) -> tuple[Tensor, Tensor]:
    """Choose the cells of the highest scores until each image's budget is used up.

    Exact: a pair counts where both of its cells are chosen. Cells of equal score come in level order.

    Parameters
    ----------
    sites
        All cells that could go on.
    score_m
        (m,) float.
    left_b
        (b,) int64, what each image has left.
    site, pair
        Cost of a cell, and of a pair, as `Costs`.

    Returns
    -------
    (m,) bool, the chosen cells, and (b,) int64, what is then left: nothing where a cell was left out, so that
    a smaller budget never takes a finer cell that a larger one does not.
    """
    if not len(sites):
        return torch.ones_like(score_m, dtype=torch.bool), left_b
    image_m = sites.positions()[0]
    best_first_m = score_m.argsort(descending=True, stable=True)
    order_m = best_first_m[image_m[best_first_m].argsort(stable=True)]
    image_m = image_m[order_m]
    cost_m = torch.full_like(order_m, site)
    if pair:
        place_m = torch.empty_like(order_m)
        place_m[order_m] = torch.arange(len(order_m), device=order_m.device)
        present_9m = sites.nbr_9m >= 0
        # A pair comes in with the later of its two cells.
        later_9m = torch.maximum(place_m, place_m[sites.nbr_9m.clamp(min=0).long()])
        cost_m += pair * torch.bincount(later_9m[present_9m], minlength=len(order_m))
    spent_m = cost_m.cumsum(0)
    count_b = torch.bincount(image_m, minlength=len(left_b))
    before_b = torch.cat([spent_m.new_zeros(1), spent_m])[count_b.cumsum(0) - count_b]
    kept_m = spent_m - before_b[image_m] <= left_b[image_m]
    left_b = left_b.index_add(0, image_m, -cost_m * kept_m)
    left_b[image_m[~kept_m]] = 0
    return torch.empty_like(kept_m).index_put((order_m,), kept_m), left_b
