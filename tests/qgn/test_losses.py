"""Eq. 4, 6, 7 and 8, by hand."""

import math

import pytest
import torch

from qgn.losses import HeadLoss, QuadtreeLoss, level_loss
from qgn.sparse.frontier import IGNORE_INDEX


def levels(*targets, classes=3, seed=0):
    """Return random logits and the given targets, level 0 first."""
    generator = torch.Generator().manual_seed(seed)
    targets = [torch.tensor(target, dtype=torch.int64) for target in targets]
    logits = [torch.randn(len(t), classes + 1, generator=generator, dtype=torch.float64) for t in targets]
    return [level.requires_grad_() for level in logits], targets


def by_hand(logits, targets):
    """Return Eq. 4 in plain Python."""
    terms = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        if target != IGNORE_INDEX:
            terms.append(math.log(sum(map(math.exp, row))) - row[target])
    return sum(terms) / len(terms) if terms else 0.0


def test_level_loss_is_the_mean_over_counted_nodes():
    (logits,), (targets,) = levels([0, 2, IGNORE_INDEX, 3, 1])
    assert level_loss(logits, targets).item() == pytest.approx(by_hand(logits, targets))


@pytest.mark.parametrize("targets", [[], [IGNORE_INDEX] * 3])
def test_a_level_without_counted_nodes_gives_exactly_zero(targets):
    (logits,), (target,) = levels(targets)
    loss = level_loss(logits, target)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("gamma", [0.75, 1.0, 1.25])
def test_fixed_weights_multiply_from_pixels_up(gamma):
    logits, targets = levels([1, 2], [0, 0, 3], [2])
    total, per_level, counts = QuadtreeLoss("fixed", gamma=gamma, levels=3)(logits, targets)
    expected = [by_hand(*level) for level in zip(logits, targets, strict=True)]
    assert per_level.tolist() == pytest.approx(expected)
    assert not per_level.requires_grad
    assert counts.tolist() == [2, 3, 1]
    assert total.item() == pytest.approx(sum(gamma**level * value for level, value in enumerate(expected)))
    total.backward()
    assert all(level.grad.abs().sum() > 0 for level in logits)


def test_adaptive_weights_are_running_means_from_one_on():
    loss = QuadtreeLoss("adaptive", delta=0.9, levels=2)
    beta = [1.0, 1.0]
    for step in range(4):
        logits, targets = levels([1, 2, 0], [0, IGNORE_INDEX], seed=step)
        values = [by_hand(*level) for level in zip(logits, targets, strict=True)]
        total, per_level, counts = loss(logits, targets)
        assert total.item() == pytest.approx(sum(b * v for b, v in zip(beta, values, strict=True)), rel=1e-6)
        loss.advance(per_level, counts)
        total.backward()  # weights move on without breaking the graph
        beta = [0.9 * b + 0.1 * v for b, v in zip(beta, values, strict=True)]
    assert loss.beta_l.tolist() == pytest.approx(beta)


def test_adaptive_weights_rest_for_levels_without_nodes():
    loss = QuadtreeLoss("adaptive", levels=2)
    logits, targets = levels([1, 2], [IGNORE_INDEX])
    value = loss(logits, targets)
    assert loss.beta_l.tolist() == [1, 1]
    loss.advance(value.per_level_l, value.counts_l)
    assert loss.beta_l[0] != 1
    assert loss.beta_l[1] == 1


def test_adaptive_weights_live_in_the_checkpoint():
    trained, fresh = QuadtreeLoss("adaptive"), QuadtreeLoss("adaptive")
    value = trained(*levels([1], [0], [2], [3], [0], [1]))
    trained.advance(value.per_level_l, value.counts_l)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.beta_l, trained.beta_l)
    assert (fresh.beta_l != 1).all()
    assert QuadtreeLoss().delta == 0.99


def test_parts_of_a_step_add_up_to_the_whole():
    logits, targets = levels([1, 2, 0, 3], [0, IGNORE_INDEX, 2, 1])
    loss = QuadtreeLoss("fixed", gamma=0.5, levels=2)
    whole = loss(logits, targets)
    parts = [loss([x[p] for x in logits], [t[p] for t in targets], whole.counts_l) for p in (slice(1), slice(1, 4))]
    torch.testing.assert_close(sum(part.total for part in parts), whole.total)
    torch.testing.assert_close(sum(part.per_level_l for part in parts), whole.per_level_l)


def test_class_weights_multiply_the_loss_of_their_nodes():
    logits, targets = levels([0, 1, 2, 2, IGNORE_INDEX])
    loss = QuadtreeLoss(levels=1)
    loss.weigh_classes(torch.tensor([1.0, 2.0, 1.0]))  # class 1 is channel 2, composites weigh 1
    doubled = [[logits[0][[0, 1, 2, 3, 2, 3]]], [targets[0][[0, 1, 2, 3, 2, 3]]]]
    assert loss(logits, targets).total.item() == pytest.approx(by_hand(doubled[0][0], doubled[1][0]) * 6 / 4)
    dense = HeadLoss(torch.ones(1))
    dense.weigh_classes(torch.tensor([1.0, 1.0, 2.0, 1.0]))
    assert torch.equal(dense.weight_k, loss.weight_k)
    assert dense(logits, targets).total == loss(logits, targets).total


def test_unknown_weightings_and_uneven_levels_are_refused():
    with pytest.raises(ValueError, match="'mean': choose one of fixed, adaptive"):
        QuadtreeLoss("mean")
    with pytest.raises(ValueError, match="shorter"):
        QuadtreeLoss(levels=2)(levels([1], [1])[0], levels([1])[1])
