"""Every rule, restriction and budget against a walk over dense maps in plain Python."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from qgn.data.batch import LabelBatch
from qgn.errors import TrainingError
from qgn.models.build import build_model
from qgn.sparse.budget import Costs
from qgn.sparse.frontier import child_nodes, root_nodes
from qgn.sparse.propagation import Propagation, Schedule, begin, choose_sites
from quadcodec.pyramid import COMPOSITE

from .helpers import blobs, plain_tree

torch.set_num_threads(1)
CLASSES = 3
GRID = (2, 1, 2)
COSTS = Costs(700, (0, 50, 100, 220, 410, 900), (0, 5, 10, 22, 41, 90))


def maps(seed, *, composite=1.0, spread=1.0):
    """Return random logits of the full grid of levels 0, 1, ..., (b, h, w, k + 1) float64."""
    rng = np.random.default_rng(seed)
    batch, rows, cols = GRID
    grids = []
    for level in range(6):
        scale = 2 ** (5 - level)
        logits = spread * rng.normal(size=(batch, scale * rows, scale * cols, CLASSES + 1))
        logits[..., 0] += composite
        grids.append(logits)
    return grids


def trees(seed=3):
    rng = np.random.default_rng(seed)
    made = [plain_tree(blobs(rng, 32, 64, CLASSES, count=4)) for _ in range(GRID[0])]
    return made, LabelBatch.from_trees(made)


def descend(text, logits, labels=None):
    """Return the active cells of each level, {(image, y, x)}, as the decoder's loop chooses them."""
    propagation = Propagation.parse(text)
    nodes = root_nodes(GRID, 5, labels=labels, follow_truth=propagation.follows_truth)
    path, sites, found = begin(propagation, nodes, COSTS), None, {}
    while nodes.level:
        image, y, x = nodes.positions()
        sites, path = choose_sites(
            propagation, nodes, torch.from_numpy(logits[nodes.level])[image, y, x], sites, path, COSTS
        )
        found[nodes.level] = list(zip(*(part.tolist() for part in sites.positions()), strict=True))
        assert len(set(found[nodes.level])) == len(sites)
        nodes = child_nodes(nodes, sites, labels)
    return {level: set(cells) for level, cells in found.items()}


def near(cells, cell):
    image, y, x = cell
    return [c for dy, dx in product((-1, 0, 1), repeat=2) if (c := (image, y + dy, x + dx)) in cells]


def walk(text, logits, made=None):
    """Return what `descend` does, cell by cell."""
    rule = Propagation.parse(text)
    limit = rule.sites if rule.gmacs is None else max(0, round(1e9 * rule.gmacs) - COSTS.cell * GRID[1] * GRID[2])
    left = [limit] * GRID[0]
    product_of = {}
    cells = [(b, y, x) for b in range(GRID[0]) for y in range(GRID[1]) for x in range(GRID[2])]
    found = {}
    for level in (5, 4, 3, 2, 1):
        taken = []
        for b, y, x in cells:
            row = [float(v) for v in logits[level][b, y, x]]
            shares = [math.exp(v) / sum(map(math.exp, row)) for v in row]
            own = 1 - max(shares[1:]) if rule.rule == "uncp" else shares[0]
            product_of[level, b, y, x] = own * product_of.get((level + 1, b, y // 2, x // 2), 1.0)
            predicted = shares[0] == max(shares)
            true = made is not None and bool(made[b].pyramid[level][y, x] == COMPOSITE)
            goes_on = {
                "all": True, "gtc": true, "pc": predicted, "union": true or predicted,
                "prod": product_of[level, b, y, x] > (rule.threshold or 0),
                "uncp": product_of[level, b, y, x] > (rule.threshold or 0),
            }[rule.rule]  # fmt: skip
            two_best = sorted(range(CLASSES), key=lambda c, row=row: -row[c + 1])[:2]
            goes_on &= level > rule.stop and (not rule.classes or bool(set(two_best) & set(rule.classes)))
            taken += [(b, y, x)] * goes_on
        if limit is not None:
            taken = afford(level, taken, product_of, left, rule.gmacs is None)
        found[level] = set(taken)
        cells = [(b, 2 * y + dy, 2 * x + dx) for b, y, x in taken for dy in (0, 1) for dx in (0, 1)]
    return found


def afford(level, taken, product_of, left, by_sites):
    """Return the cells that the images can pay, in level order; take the cost from what is left."""
    kept = set()
    for image in range(GRID[0]):
        mine = sorted((cell for cell in taken if cell[0] == image), key=lambda cell: -product_of[(level, *cell)])
        for cell in mine:
            # A new cell pairs with itself, and both ways with each neighbour that is there.
            pairs = 2 * len(near(kept, cell)) + 1
            cost = 1 if by_sites else COSTS.site[level] + COSTS.pair[level] * pairs
            if cost > left[image]:
                left[image] = 0
                break
            left[image] -= cost
            kept.add(cell)
    return [cell for cell in taken if cell in kept]


RULES = ["all", "pc", "prod>0.1", "prod>0.3", "uncp>0.2", "uncp>0.45", "gtc", "union"]
LIMITS = ["", " stop=3", " classes=1", " stop=1 classes=0+2"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("limits", LIMITS)
def test_rules_equal_a_walk_over_dense_maps(rule, limits):
    made, labels = trees()
    for seed in range(3):
        found = descend(rule + limits, maps(seed), labels)
        expected = walk(rule + limits, maps(seed), made)
        assert found == expected
        assert any(expected.values())
        if rule not in ("gtc", "union"):
            assert descend(rule + limits, maps(seed)) == expected


budgets = st.tuples(
    st.sampled_from(["pc", "all", "union", "gtc", "prod>0.05", "uncp>0.2 classes=0"]),
    st.sampled_from(["sites", "gmacs"]),
    st.integers(0, 400),
    st.integers(0, 20),
)


def text_of(budget, more=0):
    rule, unit, amount, _ = budget
    return f"{rule} {unit}={amount + more}" if unit == "sites" else f"{rule} gmacs={(900 * (amount + more)) / 1e9}"


@settings(max_examples=60, deadline=None)
@given(budgets, st.integers(0, 60))
def test_budgets_equal_buying_cell_by_cell_and_are_never_exceeded_and_nested(budget, more):
    made, labels = trees()
    logits = maps(budget[-1])
    text = text_of(budget)
    found = descend(text, logits, labels)
    assert found == walk(text, logits, made)
    for image in range(GRID[0]):
        mine = {level: {cell for cell in cells if cell[0] == image} for level, cells in found.items()}
        if budget[1] == "sites":
            assert sum(map(len, mine.values())) <= budget[2]
        else:
            pairs = {level: sum(len(near(cells, cell)) for cell in cells) for level, cells in mine.items()}
            spent = sum(COSTS.site[level] * len(mine[level]) + COSTS.pair[level] * pairs[level] for level in mine)
            assert spent == 0 or spent + COSTS.cell * GRID[1] * GRID[2] <= 900 * budget[2]
    larger = descend(text_of(budget, more), logits, labels)
    assert all(found[level] <= larger[level] for level in found)


def test_cells_of_equal_score_come_in_level_order():
    logits = [np.zeros_like(level) for level in maps(0)]
    found = descend("all sites=9", logits)
    assert [len(found[level]) for level in (5, 4, 3, 2, 1)] == [4, 14, 0, 0, 0]
    first = {(image, y, x) for image in (0, 1) for y, x in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2))}
    assert found[4] == first


def test_thresholds_at_the_extremes_take_all_or_the_coarsest_level_alone():
    logits = maps(4)
    everything = descend("all", logits)
    for rule in ("prod", "uncp"):
        assert descend(f"{rule}>0", logits) == everything
        assert not any(descend(f"{rule}>1", logits).values())
    assert descend("pc sites=100000", logits) == descend("pc", logits)
    assert not any(descend("pc sites=0", logits).values())
    assert not any(descend("pc stop=5", logits).values())


def test_union_takes_what_gtc_and_pc_take():
    made, labels = trees()
    for seed in range(3):
        logits = maps(seed, composite=0.3)
        union = descend("union", logits, labels)
        for rule in ("gtc", "pc"):
            assert all(cells <= union[level] for level, cells in descend(rule, logits, labels).items())
        truth = [tree.pyramid for tree in made]
        for level, cells in union.items():
            for image, y, x in cells:
                assert truth[image][level][y, x] == COMPOSITE or logits[level][image, y, x].argmax() == 0


@pytest.mark.parametrize("variants", [(), ("convt", "pre_skip")])
@pytest.mark.parametrize("scheme", ["gtc", "all", "pc", "prod>0.2"])
def test_costs_are_what_torch_counts(scheme, variants):
    # In float64 all products are torch's own, which it counts.
    torch.manual_seed(0)
    model = build_model("qgn_resnet18", CLASSES, width=4, variants=variants).double()
    _, labels = trees()
    with torch.no_grad():
        features = model.encoder(torch.randn(2, 3, 32, 64, dtype=torch.float64))
        with FlopCounterMode(display=False) as counter:
            prediction = model.decoder(features, labels, scheme)
    assert prediction.macs(model.decoder.costs) == counter.get_total_flops() // 2


def test_a_model_stays_within_its_budget():
    torch.manual_seed(0)
    model = build_model("qgn_resnet18", CLASSES, width=4).eval()
    for head in model.decoder.heads:
        head.bias.data[0] += 1
    images, costs = torch.randn(1, 3, 64, 64), model.decoder.costs
    with torch.no_grad():
        features = model.encoder(images)
        spent = [
            model.decoder(features, None, f"pc gmacs={budget / 1e9}").macs(costs)
            for budget in range(20_000, 2_000_000, 90_000)
        ]
        everything = model.decoder(features, None, "pc").macs(costs)
    assert spent == sorted(spent)
    assert all(macs <= 20_000 + 90_000 * i for i, macs in enumerate(spent))
    # The last cell that was left out was not affordable: less than one cell of the largest level stays unspent.
    assert spent[-1] == everything or spent[-1] > 0.9 * (20_000 + 90_000 * (len(spent) - 1))
    assert spent[-1] > 5 * spent[0]


TEXTS = ["pc", "all", "prod>0.3", "uncp>0.45 stop=1 classes=3+7 sites=4000", "gtc gmacs=0.5", "union sites=0"]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_say_the_same_again(text):
    assert str(Propagation.parse(text)) == text
    assert Propagation.parse(str(Propagation.parse(f" {text} "))) == Propagation.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "pq", "prod", "pc>0.3", "prod>2", "prod>x", "pc stop=6", "pc stop=-1", "pc stop=a", "pc sites=-1", "pc n=3",
     "pc sites=3 gmacs=2", "pc classes=", "pc classes=-1", "pc gmacs=inf", "pc gmacs=nan",
     "pc sites=2.5", "pc,all", "prod>nan", "pc stop=1 stop=2"],
)  # fmt: skip
def test_texts_without_sense_are_refused(text):
    with pytest.raises(TrainingError, match=r"^propagation '.*' ?.*expected"):
        Propagation.parse(text)


def test_only_plain_gtc_follows_the_truth():
    assert [text for text in ("gtc", "gtc stop=1", "gtc sites=9", "union", "pc") if
            Propagation.parse(text).follows_truth] == ["gtc"]  # fmt: skip


def test_rules_that_need_labels_or_classes_that_are_not_there_are_refused():
    for rule in ("gtc", "union"):
        with pytest.raises(TrainingError, match="there are no labels"):
            descend(rule, maps(0))
    with pytest.raises(TrainingError, match=r"the model has the classes 0\.\.2"):
        descend("pc classes=3", maps(0))


def test_a_schedule_switches_where_it_says():
    schedule = Schedule.parse("gtc->union@2/3", ("gtc", "pc"))
    schemes = [schedule.scheme_at(step / 300) for step in range(300)]
    assert schemes == ["gtc"] * 200 + ["union"] * 100
    assert Schedule.parse("pc", ("gtc", "pc")).scheme_at(0.0) == "pc"
    assert Schedule.parse("gtc->pc sites=9@0.67", ("gtc", "pc")).scheme_at(0.68) == "pc sites=9"
    assert Schedule.parse("dense", ("dense",)).scheme_at(0.9) == "dense"


@pytest.mark.parametrize(
    ("text", "schemes", "message"),
    [
        ("gtc->pc", ("gtc", "pc"), "found no share of the steps"),
        ("gtc->pc@2", ("gtc", "pc"), "found no share of the steps"),
        ("gtc->pc@1/0", ("gtc", "pc"), "found no share of the steps"),
        ("gtc->uniom@0.5", ("gtc", "pc"), "'uniom': no such rule"),
        ("dense", ("gtc", "pc"), "'dense': no such rule"),
        ("gtc", ("dense",), "the model knows only dense"),
    ],
)
def test_schedules_without_sense_are_refused(text, schemes, message):
    with pytest.raises(TrainingError, match=message):
        Schedule.parse(text, schemes)
