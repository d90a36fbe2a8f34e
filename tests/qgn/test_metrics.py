"""Scores against counting by hand."""

import math

import numpy as np
import pytest
import torch

from qgn.data.batch import LabelBatch
from qgn.metrics import CompositeScores, ConfusionMatrix
from qgn.models.build import build_model
from qgn.sparse.frontier import IGNORE_INDEX

from .helpers import blobs, plain_tree

torch.set_num_threads(1)


def test_confusion_matrix_equals_counting_by_hand():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 4, (2, 3, 10, 10))
    true[true == 3] = 255
    predicted[predicted == 3] = 1
    matrix = ConfusionMatrix(4)
    for image in range(3):
        matrix.update(torch.from_numpy(predicted[image]), torch.from_numpy(true[image].astype(np.uint8)))
    known = true != 255
    for row in range(4):
        for column in range(4):
            assert matrix.counts_kk[row, column] == ((true == row) & (predicted == column) & known).sum()
    expected = []
    for c in range(3):
        both = ((true == c) & (predicted == c)).sum()
        expected.append(both / (((true == c) | (predicted == c)) & known).sum())
    assert matrix.iou_k()[:3].tolist() == pytest.approx(expected)
    assert math.isnan(matrix.iou_k()[3])
    assert matrix.miou() == pytest.approx(np.mean(expected))
    assert matrix.pixel_accuracy() == pytest.approx((true == predicted)[known].mean())
    accuracies = [(predicted == c)[true == c].mean() for c in range(3)]
    assert matrix.accuracy_k()[:3].tolist() == pytest.approx(accuracies)
    assert math.isnan(matrix.accuracy_k()[3])
    assert matrix.mean_accuracy() == pytest.approx(np.mean(accuracies))


def test_void_pixels_and_empty_unions_do_not_count():
    true = torch.tensor([0, 0, 1, 255, -100, 3])
    predicted = torch.tensor([0, 1, 1, 2, 2, 0])
    matrix = ConfusionMatrix(3).update(predicted, true)
    assert matrix.iou_k()[:2].tolist() == [0.5, 0.5]
    assert matrix.miou() == 0.5  # class 2 was predicted on void alone
    assert matrix.pixel_accuracy() == pytest.approx(2 / 3)


def test_a_class_that_is_only_predicted_scores_zero():
    matrix = ConfusionMatrix(2).update(torch.tensor([1, 0]), torch.tensor([0, 0]))
    assert matrix.iou_k().tolist() == [0.5, 0.0]
    assert matrix.mean_accuracy() == 0.5  # class 1 has no pixels


def test_nothing_counted_gives_nan():
    matrix = ConfusionMatrix(2)
    assert math.isnan(matrix.miou())
    assert math.isnan(matrix.pixel_accuracy())
    assert math.isnan(matrix.mean_accuracy())


@pytest.mark.parametrize("scheme", ["all", "gtc", "pc"])
def test_composite_scores_equal_counting_by_hand(scheme):
    rng = np.random.default_rng(2)
    torch.manual_seed(1)
    model = build_model("qgn_resnet18", 3, width=4)
    for head in model.decoder.heads:
        head.bias.data[0] += 1
    scores = CompositeScores()
    expected = np.zeros((6, 5), int)
    for size in ((64, 64), (40, 90)):
        labels = LabelBatch.from_trees([plain_tree(blobs(rng, *size, classes=3)) for _ in range(2)])
        with torch.no_grad():
            prediction = model(torch.randn(2, 3, *(-(-side // 32) * 32 for side in size)), labels, scheme)
        scores.update(prediction)
        for level, at in enumerate(prediction.levels):
            for row, target in zip(at.logits_nk.tolist(), at.nodes.target_n.tolist(), strict=True):
                said, is_composite = row[0] == max(row), target == 0
                if target != IGNORE_INDEX:
                    expected[level, :3] += [said and is_composite, said, is_composite]
            expected[level, 3:] += [prediction.active_sites[level], math.prod(at.nodes.shape)]
    assert scores.counts_l5.tolist() == expected.tolist()
    hit, said, is_composite, sites, cells = expected.astype(float).T
    assert scores.precision_l()[1:].tolist() == pytest.approx(hit[1:] / said[1:])
    assert scores.recall_l()[1:].tolist() == pytest.approx(hit[1:] / is_composite[1:])
    assert math.isnan(scores.recall_l()[0])
    assert scores.sites_l().tolist() == sites.tolist()
    assert scores.share_l().tolist() == pytest.approx(sites / cells)
    if scheme == "all":
        assert scores.share_l().tolist() == [0, 1, 1, 1, 1, 1]
    if scheme == "gtc":
        assert sites[1:].tolist() == is_composite[1:].tolist()
