"""Propagation: which visited cells of a level go on to the next one (section 3.3 of the paper, and beyond it).

A rule looks at the visited nodes of a level and marks those that go on. Only children of active cells are ever
visited, so no rule can bring a cell back whose parent stopped. Restrictions take cells away again: a level to stop
at, classes to refine, a budget for each image.

Shapes: b images, n visited nodes of a level, m active ones, k classes and the composite one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf
from typing import Any

import torch
from torch import Tensor

from qgn.errors import TrainingError

from .budget import SITES_ALONE, Costs, affordable
from .frontier import COMPOSITE_CHANNEL, Nodes
from .sites import Sites, select_sites

RULES = ("all", "gtc", "pc", "union", "prod", "uncp")
"""Names of the rules, as `Propagation` explains them."""
WITH_LABELS = ("gtc", "union")
"""Rules that follow the ground truth: they serve training, and bounds of what is possible."""
WITH_THRESHOLD = ("prod", "uncp")
"""Rules that compare a product along the path from the coarsest cell with a threshold."""


@dataclass(frozen=True)
class Propagation:
    """Say which cells go on, as a value.

    Its text is the rule, with `>` and the threshold where it has one, then options: `pc`, `prod>0.3`,
    `uncp>0.45 stop=1 classes=3+7 sites=4000`.

    Attributes
    ----------
    rule
        `all`: every cell. `gtc`: those composite in the ground truth. `pc`: those whose best channel is the
        composite one. `union`: those that `gtc` or `pc` takes. `prod`: where the product of p(composite) over a
        cell and its ancestors exceeds the threshold. `uncp`: the same with the product of 1 - p(best class).
    threshold
        Of `prod` and `uncp`, 0 to 1.
    stop
        Cells of this level and finer ones do not go on: it is the finest level that is predicted.
    classes
        Where not empty, a cell goes on only if one of these classes (0..k - 1) is among the two that it gives most
        to. Two, since a cell worth splitting holds two classes: the chosen one may be the lesser.
    sites
        Budget of each image: active cells of all levels together. Coarse levels come first; of the level where it
        ends the cells with the largest product along the path go on (that of `prod`; under `uncp` its own), at
        equal products the first ones in level order. A larger budget takes all cells of a smaller one.
    gmacs
        The same as 10^9 multiply-adds of the decoder; what a cell costs depends on its level and neighbours. The
        predictions of the coarsest level are always made, and are part of it.

    Raises
    ------
    TrainingError : a value is out of its range, or does not belong to the rule.
    """

    rule: str
    threshold: float | None = None
    stop: int = 0
    classes: tuple[int, ...] = ()
    sites: int | None = None
    gmacs: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise TrainingError(f"propagation '{self.rule}': no such rule, expected one of {', '.join(RULES)}")
        if (self.rule in WITH_THRESHOLD) != (self.threshold is not None):
            rules = " and ".join(WITH_THRESHOLD)
            raise TrainingError(
                f"propagation '{self.rule}': {rules} need a threshold, and no other rule has one; "
                "expected for example 'prod>0.3'"
            )
        budgets = [budget for budget in (self.sites, self.gmacs) if budget is not None]
        for name, right, expected in (
            ("threshold", self.threshold is None or 0 <= self.threshold <= 1, "0 to 1"),
            ("stop", 0 <= self.stop <= 5, "a level, 0 to 5"),
            ("classes", all(k >= 0 for k in self.classes), "numbers of classes"),
            (
                "budget",
                all(0 <= budget < inf for budget in budgets) and len(budgets) < 2,
                "sites or gmacs, not both, 0 or more",
            ),
        ):
            if not right:
                raise TrainingError(f"propagation '{self}': {name} out of range, expected {expected}")

    @classmethod
    def parse(cls, text: str) -> Propagation:
        """Return what a text says; raise TrainingError if it says nothing that is known."""
        match = re.fullmatch(r"([a-z]+)(?:>([\d.e-]+))?((?: +[a-z]+=[^ =]+)*)", text.strip())
        try:
            if match is None:
                raise ValueError("no rule with options")
            rule, threshold, rest = match.groups()
            limit = None if threshold is None else float(threshold)
            pairs = [option.split("=") for option in rest.split()]
            options: dict[str, Any] = {name: _OPTIONS[name](value) for name, value in pairs}
            if len(options) < len(pairs):
                raise ValueError("an option twice")
        except (KeyError, ValueError) as error:
            raise TrainingError(
                f"propagation '{text}': cannot be read ({error}), expected for example 'pc' or 'prod>0.3 stop=1'; "
                f"options are {', '.join(_OPTIONS)}"
            ) from error
        return cls(rule, limit, **options)

    def __str__(self) -> str:
        texts = [self.rule if self.threshold is None else f"{self.rule}>{self.threshold}"]
        texts += [f"stop={self.stop}"] if self.stop else []
        texts += ["classes=" + "+".join(map(str, self.classes))] if self.classes else []
        texts += [
            f"{name}={budget}" for name, budget in (("sites", self.sites), ("gmacs", self.gmacs)) if budget is not None
        ]
        return " ".join(texts)

    @property
    def follows_truth(self) -> bool:
        """Whether the sites are exactly the label tree's composites, at every level."""
        return self == Propagation("gtc")

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return self.sites is not None or self.gmacs is not None


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "stop": int,
    "classes": lambda text: tuple(map(int, text.split("+"))),
    "sites": int,
    "gmacs": float,
}


@dataclass(frozen=True)
class Limits:
    """What is asked of any rule at inference; `Propagation` says what each limit means.

    Attributes
    ----------
    classes
        Names.
    """

    stop: int | None = None
    classes: tuple[str, ...] = ()
    sites: int | None = None
    gmacs: float | None = None

    def on(self, text: str, names: Sequence[str]) -> str:
        """Return the text of a propagation under these limits; without any, the same text whatever it says.

        Parameters
        ----------
        names
            Of the model's classes 0..k - 1.

        Raises
        ------
        TrainingError : the text or a limit has no sense, or the model has no such class.
        """
        given: dict[str, Any] = {name: value for name, value in vars(self).items() if value not in (None, ())}
        if not given:
            return text
        if text == "dense":
            raise TrainingError(
                "the model is dense: every pixel is computed, and nothing can be limited. Leave out --stop-level, "
                "--classes, --max-sites and --budget-gmacs"
            )
        unknown = [name for name in self.classes if name not in names]
        if unknown:
            raise TrainingError(
                f"class '{unknown[0]}': the model has no such class, expected some of {', '.join(names)}"
            )
        if self.classes:
            given["classes"] = tuple(map(list(names).index, self.classes))
        return str(replace(Propagation.parse(text), **given))


@dataclass(frozen=True)
class Path:
    """What a level's choice leaves to the next level.

    Attributes
    ----------
    score_m
        (m,) product along the path of each site; None where nothing asks for it.
    left_b
        (b,) int64, what each image has left of its budget; None without one.
    """

    score_m: Tensor | None = None
    left_b: Tensor | None = None


def begin(propagation: Propagation, nodes: Nodes, costs: Costs) -> Path:
    """Return the path above the coarsest level, whose nodes are given.

    Parameters
    ----------
    costs
        Of the decoder, in multiply-adds.
    """
    if not propagation.limited:
        return Path()
    batch, rows, cols = nodes.shape
    left = propagation.sites
    if propagation.gmacs is not None:
        left = max(0, round(1e9 * propagation.gmacs) - costs.cell * rows * cols)
    return Path(left_b=torch.full((batch,), left, dtype=torch.int64, device=nodes.cell_n.device))


def choose_sites(
    propagation: Propagation, nodes: Nodes, logits_nk: Tensor, parents: Sites | None, path: Path, costs: Costs
) -> tuple[Sites, Path]:
    """Return the nodes of a level that go on, and the path for the next level.

    Parameters
    ----------
    nodes, logits_nk
        The visited cells and their (n, k + 1) logits. No gradient passes.
    parents, path
        Those of the level above; None and that of `begin` at the coarsest level.
    costs
        As in `begin`.

    Raises
    ------
    TrainingError : the rule follows the ground truth and the nodes have none, or a class is none of the model's.
    """
    logits_nk = logits_nk.detach()
    score_n = _scores(propagation, logits_nk, path)
    sites = select_sites(nodes, _active(propagation, nodes, logits_nk, score_n), parents)
    if path.left_b is None or score_n is None:
        return sites, Path(None if score_n is None else score_n[sites.node_m])
    costs = SITES_ALONE if propagation.gmacs is None else costs
    kept_m, left_b = affordable(
        sites, score_n[sites.node_m], path.left_b, site=costs.site[nodes.level], pair=costs.pair[nodes.level]
    )
    if not bool(kept_m.all()):
        active_n = torch.zeros(len(nodes), dtype=torch.bool, device=kept_m.device)
        sites = select_sites(nodes, active_n.index_fill(0, sites.node_m[kept_m], True), parents)
    return sites, Path(score_n[sites.node_m], left_b)


def _scores(propagation: Propagation, logits_nk: Tensor, path: Path) -> Tensor | None:
    """Return the products along the path, (n,), where the rule or a budget asks for them."""
    if propagation.rule not in WITH_THRESHOLD and not propagation.limited:
        return None
    shares_nk = logits_nk.softmax(1, dtype=torch.promote_types(logits_nk.dtype, torch.float32))
    if propagation.rule == "uncp":
        score_n = 1 - shares_nk[:, COMPOSITE_CHANNEL + 1 :].amax(1)
    else:
        score_n = shares_nk[:, COMPOSITE_CHANNEL]
    return score_n if path.score_m is None else score_n * path.score_m.repeat_interleave(4)


def _active(propagation: Propagation, nodes: Nodes, logits_nk: Tensor, score_n: Tensor | None) -> Tensor:
    """Return the nodes that the rule takes and no level or class takes away, (n,) bool."""
    if nodes.level <= propagation.stop:
        return torch.zeros(len(nodes), dtype=torch.bool, device=logits_nk.device)
    if propagation.rule in WITH_LABELS and nodes.target_n is None:
        raise TrainingError(f"propagation '{propagation}': follows the ground truth, and there are no labels. Use 'pc'")
    if propagation.rule == "all":
        active_n = torch.ones(len(nodes), dtype=torch.bool, device=logits_nk.device)
    elif propagation.rule == "gtc":
        active_n = nodes.target_n == COMPOSITE_CHANNEL
    elif propagation.rule == "pc":
        active_n = logits_nk.argmax(1) == COMPOSITE_CHANNEL
    elif propagation.rule == "union":
        active_n = (nodes.target_n == COMPOSITE_CHANNEL) | (logits_nk.argmax(1) == COMPOSITE_CHANNEL)
    else:
        active_n = score_n > propagation.threshold
    if not propagation.classes:
        return active_n
    class_nk = logits_nk[:, COMPOSITE_CHANNEL + 1 :]
    if max(propagation.classes) >= class_nk.shape[1]:
        raise TrainingError(f"propagation '{propagation}': the model has the classes 0..{class_nk.shape[1] - 1}")
    best_n2 = class_nk.topk(min(2, class_nk.shape[1]), 1).indices
    return active_n & torch.isin(best_n2, best_n2.new_tensor(propagation.classes)).any(1)


def checked(text: str, schemes: Sequence[str]) -> str:
    """Return the text of a propagation; raise TrainingError if it says nothing that the model knows.

    Parameters
    ----------
    schemes
        Names that the model knows. One that knows `pc` knows all that `Propagation` can say.
    """
    if "pc" in schemes:
        return str(Propagation.parse(text))
    if text not in schemes:
        raise TrainingError(
            f"propagation '{text}': the model knows only {', '.join(schemes)}. Choose that, or leave propagation, "
            "--sweep and --choose out"
        )
    return text


def without_labels(text: str, schemes: Sequence[str]) -> str:
    """Return what `checked` does; raise TrainingError, too, if the propagation follows the ground truth."""
    text = checked(text, schemes)
    if text.split()[0] in WITH_LABELS:
        raise TrainingError(f"propagation '{text}': follows the ground truth, and there are no labels. Use 'pc'")
    return text


@dataclass(frozen=True)
class Schedule:
    """Say how training propagates: one way, or two with a switch.

    Its text is that of a propagation, or two of them as in `gtc->union@2/3`.

    Attributes
    ----------
    first, then
        Texts of propagations.
    switch
        Share of the steps that is trained with the first one.
    """

    first: str
    then: str
    switch: float

    @classmethod
    def parse(cls, text: str, schemes: Sequence[str]) -> Schedule:
        """Return what a text says of a model that knows `schemes`; raise TrainingError if that is nothing."""
        first, arrow, rest = text.partition("->")
        then, _, share = rest.partition("@") if arrow else (first, "", "1")
        try:
            switch = float(Fraction(share))
        except (ValueError, ZeroDivisionError):
            switch = -1.0
        if not 0 <= switch <= 1:
            raise TrainingError(
                f"propagation '{text}': found no share of the steps to switch at, expected for example 'gtc->union@2/3'"
            )
        return cls(checked(first, schemes), checked(then, schemes), switch)

    def scheme_at(self, done: float) -> str:
        """Return the propagation of the step before which a share `done` of the steps is done."""
        return self.first if done < self.switch else self.then
