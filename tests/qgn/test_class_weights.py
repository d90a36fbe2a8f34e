import math

import pytest
import torch

from qgn.class_weights import class_weights


@pytest.mark.parametrize(
    ("iou", "weights"),
    [
        ([0.1, 0.5, 0.9], [2, 1, 1]),
        ([0.9, 0.2, 0.4, 0.1], [1, 2, 1, 2]),
        ([0.3, 0.3, 0.3, 0.9], [1, 1, 1, 1]),
        ([0.0, math.nan, 0.7, 0.8], [2, 1, 1, 1]),
        ([math.nan, math.nan], [1, 1]),
        ([0.4], [1]),
    ],
)
def test_weights_double_below_the_median(iou, weights):
    found = class_weights(torch.tensor(iou, dtype=torch.float64))
    assert found.dtype == torch.float32
    assert found.tolist() == weights
