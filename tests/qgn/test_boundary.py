"""Boundary IoU against the authors' way: erode each class's mask, step by step."""

import math

import numpy as np
import pytest

from qgn.boundary import BoundaryCounts, boundary_distance, boundary_region

from .helpers import VOID, blobs


def eroded_boundary(mask, distance):
    """Return a mask's boundary region: what as many erosions by 3x3 take, with nothing beyond the frame."""
    inside = np.pad(mask, distance)
    for _ in range(distance):
        padded = np.pad(inside, 1)
        height, width = inside.shape
        inside = np.all([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return mask & ~inside[distance:-distance, distance:-distance]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (37, 5), (48, 61)])
@pytest.mark.parametrize("width", [0.5, 2, 9])
def test_scores_are_those_of_eroded_masks(size, width):
    rng = np.random.default_rng(size[1])
    counts, expected = BoundaryCounts(4, width), np.zeros((4, 3), int)
    for image in range(3):
        true = blobs(rng, *size, classes=3, count=4 if size[0] > 1 else 1).astype(np.uint8)
        true[0, 0] = image
        predicted = rng.integers(0, 4, size, np.uint8) if image == 2 else np.roll(true, image, 1)
        predicted[predicted == VOID] = 1
        counts.update(predicted, true)
        distance = max(1, round(width / 100 * math.hypot(*size)))
        for c in range(4):
            regions = [
                eroded_boundary(map_hw == c, distance) for map_hw in (true, np.where(true == VOID, 9, predicted))
            ]
            expected[c] += [(regions[0] & regions[1]).sum(), regions[0].sum(), regions[1].sum()]
    assert counts.counts_k3.tolist() == expected.tolist()
    union = expected[:, 1] + expected[:, 2] - expected[:, 0]
    known = union > 0
    assert counts.iou_k()[known].tolist() == pytest.approx(expected[known, 0] / union[known])
    assert np.isnan(counts.iou_k()[~known]).all()
    assert counts.miou() == pytest.approx((expected[known, 0] / union[known]).mean())


def test_a_perfect_prediction_scores_one_and_a_shifted_outline_less():
    true = np.zeros((64, 64), np.uint8)
    true[20:40, 20:40] = 1
    true[:8, :8] = 255
    assert BoundaryCounts(2).update(np.where(true == 255, 0, true).astype(np.uint8), true).miou() == 1
    shifted = BoundaryCounts(2, 1.2).update(np.roll(true, 1, 1) % 255, true).iou_k()
    assert boundary_distance((64, 64), 1.2) == 1
    # Rings of 76 pixels; shifted by one column, the horizontal sides share 19 pixels each, the vertical ones none.
    assert shifted[1] == 38 / (2 * 76 - 38)


def test_an_image_of_one_class_has_its_frame_as_region():
    region = boundary_region(np.zeros((5, 7), np.uint8), 2)
    assert region.sum() == 5 * 7 - 1 * 3
    assert not region[2, 2:5].any()


def test_nothing_counted_gives_nan():
    assert math.isnan(BoundaryCounts(2).miou())
    assert math.isnan(BoundaryCounts(1).update(np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)).miou())
