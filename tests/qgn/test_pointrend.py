"""PointRend against its paper: which points are drawn, what they are taught, and the subdivision, cell by cell."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as fn

from qgn.data.batch import LabelBatch
from qgn.losses import criterion_of
from qgn.models import pointrend
from qgn.models.build import build_model
from qgn.models.pointrend import FeaturePyramid, sample, uncertain_points, uncertainty
from qgn.sparse.frontier import IGNORE_INDEX

from .helpers import VOID, blobs, plain_tree

torch.set_num_threads(1)
CLASSES = 3


def small_model(classes=CLASSES):
    torch.manual_seed(0)
    model = build_model("pointrend_resnet18", classes, width=4)
    torch.nn.init.normal_(model.decoder.points.predictor.weight)  # it starts near zero
    return model.double()


def test_uncertainty_is_the_difference_of_the_two_largest_probabilities():
    logits = torch.tensor([[[3.0, 1.0, 0.0], [1.0, 1.0, -9.0], [-5.0, 0.0, 5.0]]])
    expected = []
    for row in logits[0].tolist():
        powers = sorted((math.exp(v) for v in row), reverse=True)
        expected.append((powers[1] - powers[0]) / sum(powers))
    assert uncertainty(logits)[0].tolist() == pytest.approx(expected)
    assert uncertainty(logits[:, :, :1]).tolist() == [[0, 0, 0]]  # one class is never uncertain


def test_points_are_sampled_between_the_centres_of_cells():
    torch.manual_seed(0)
    values = torch.rand(2, 3, 4, 5)
    y, x = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(5) + 0.5) / 5, indexing="ij")
    centres = torch.stack([x, y], 2).view(1, 20, 2).expand(2, -1, -1)
    torch.testing.assert_close(sample(values, centres), values.flatten(2).transpose(1, 2))
    middle = sample(values, torch.tensor([[[0.4, 0.5]]]).expand(2, -1, -1))  # between four centres
    torch.testing.assert_close(middle[:, 0], values[:, :, 1:3, 1:3].mean((2, 3)))


def test_three_quarters_of_the_points_are_where_the_coarse_map_is_uncertain():
    torch.manual_seed(0)
    coarse = torch.zeros(2, CLASSES, 8, 16)
    coarse[0, 0, :, :8] = 9  # certain in the left half
    coarse[1, 0, :, 8:] = 9  # and in the right
    points = uncertain_points(coarse, 400)
    assert points.shape == (2, 400, 2)
    assert ((points >= 0) & (points < 1)).all()
    right = points[:, :, 0] > 0.5
    assert right[0, :300].all()
    assert not right[1, :300].any()
    assert 60 < right[:, 300:].sum() < 140  # of 200
    again = uncertain_points(coarse, 400)
    assert not torch.equal(points, again)


def test_points_are_taught_the_class_of_their_pixel(monkeypatch):
    mask = blobs(np.random.default_rng(1), 64, 50, CLASSES)
    labels, images = LabelBatch.from_trees([plain_tree(mask)]), torch.randn(1, 3, 64, 64).double()
    rng = np.random.default_rng(2)
    pixels = np.stack([rng.integers(0, 64, 16), rng.integers(0, 64, 16)], 1)  # x, y; void and outside are among them
    points = torch.from_numpy((pixels + rng.uniform(0.01, 0.99, pixels.shape)) / 64)[None]
    asked = []
    monkeypatch.setattr(pointrend, "uncertain_points", lambda coarse, count: asked.append(count) or points)
    model = small_model()
    prediction = model(images, labels)
    assert asked == [64 * 64 // 256]
    canvas = np.full((64, 64), IGNORE_INDEX)
    canvas[:, :50] = np.where(mask == VOID, IGNORE_INDEX, mask)
    assert prediction.targets[1].tolist() == [canvas[y, x] for x, y in pixels]
    assert {IGNORE_INDEX, 0, 1, 2} >= set(prediction.targets[1].tolist()) > {IGNORE_INDEX}
    assert prediction.targets[0].tolist() == canvas.ravel().tolist()
    losses = [
        fn.cross_entropy(logits, target) for logits, target in zip(prediction.logits, prediction.targets, strict=True)
    ]
    total = criterion_of(model)(prediction.logits, prediction.targets).total
    torch.testing.assert_close(total, sum(losses))
    total.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.decoder.points.parameters())


def bilinear(values_chw, x, y):
    """Return a map's value at a point in units of cells; zero lies beyond its border."""
    height, width = values_chw.shape[1:]
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    total = torch.zeros_like(values_chw[:, 0, 0])
    for row in (top, top + 1):
        for col in (left, left + 1):
            if 0 <= row < height and 0 <= col < width:
                total += values_chw[:, row, col] * (1 - abs(x - 0.5 - col)) * (1 - abs(y - 0.5 - row))
    return total


def slow_subdivision(head, fine, coarse, count):
    """Refine one image's coarse map cell by cell."""
    scores = coarse
    for _ in range(2):
        scores = fn.interpolate(scores[None], scale_factor=2, mode="bilinear")[0]
        height, width = scores.shape[1:]

        def gap(cell, scores=scores, width=width):
            best = sorted(scores[:, cell // width, cell % width].softmax(0).tolist())
            return best[-1] - best[-2]

        for cell in sorted(range(height * width), key=gap)[:count]:
            x, y = (cell % width + 0.5) / width, (cell // width + 0.5) / height
            own = bilinear(coarse, x * coarse.shape[2], y * coarse.shape[1])
            features = bilinear(fine, x * fine.shape[2], y * fine.shape[1])
            for layer in head.layers:
                features = (layer.weight @ torch.cat([features, own]) + layer.bias).relu()
            scores[:, cell // width, cell % width] = (
                head.predictor.weight @ torch.cat([features, own]) + head.predictor.bias
            )
    return scores


def test_subdivision_equals_one_cell_by_cell():
    model = small_model().eval()
    with torch.no_grad():
        features = model.encoder(torch.randn(2, 3, 64, 96).double())
        decoder = model.decoder
        pyramid = decoder.pyramid(features[1:])
        coarse = decoder.coarse(pyramid)
        prediction = decoder(features)
        assert coarse.shape == (2, CLASSES, 16, 24)
        for image in range(2):
            slow = slow_subdivision(decoder.points, pyramid[0][image], coarse[image].clone(), 64 * 96 // 256)
            torch.testing.assert_close(prediction.scores_bkhw[image], slow, rtol=0, atol=1e-4)  # places are float32
        plain = fn.interpolate(coarse, scale_factor=4, mode="bilinear").argmax(1)
    assert 0 < (prediction.to_pixels() != plain).sum() < 0.2 * plain.numel()
    assert torch.equal(prediction.to_pixels(), prediction.scores_bkhw.argmax(1))


def test_one_class_trains_and_predicts():
    model = small_model(classes=1)
    labels = LabelBatch.from_trees([plain_tree(np.zeros((32, 64), int))])
    prediction = model(torch.randn(1, 3, 32, 64).double(), labels)
    assert criterion_of(model)(prediction.logits, prediction.targets).total == 0
    assert (model.eval()(torch.randn(1, 3, 32, 64).double()).to_pixels() == 0).all()


def test_the_same_seed_draws_the_same_points_and_the_loss_falls():
    def history(seed):
        labels = LabelBatch.from_trees([plain_tree(blobs(np.random.default_rng(0), 64, 64, CLASSES))] * 2)
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(seed)
        model = build_model("pointrend_resnet18", CLASSES, width=8)
        optimizer, losses = torch.optim.AdamW(model.parameters(), 2e-3), []
        for _ in range(12):
            prediction = model(images, labels)
            value = criterion_of(model)(prediction.logits, prediction.targets)
            optimizer.zero_grad()
            value.total.backward()
            optimizer.step()
            losses.append(value.per_level_l.tolist())
        return losses

    first, again = history(0), history(0)
    assert first == again
    for head in range(2):
        assert first[-1][head] < 0.75 * first[0][head]


def test_layers_are_the_published_ones():
    with torch.device("meta"):
        decoder = build_model("pointrend_resnet50", 19).decoder
    channels, wide, narrow, classes = (256, 512, 1024, 2048), 256, 128, 19
    pyramid = sum(c * wide + wide for c in channels) + 4 * (wide * wide * 9 + wide)
    # One convolution at strides 4 and 8, two at 16, three at 32, each with a group normalisation.
    coarse = 4 * wide * narrow * 9 + 3 * narrow * narrow * 9 + 7 * 2 * narrow + narrow * classes + classes
    points = 3 * ((wide + classes) * wide + wide) + (wide + classes) * classes + classes
    counts = [sum(p.numel() for p in part.parameters()) for part in (decoder.pyramid, decoder.coarse, decoder.points)]
    assert counts == [pyramid, coarse, points]


def test_the_pyramid_adds_what_lies_coarser():
    torch.manual_seed(0)
    pyramid = FeaturePyramid((2, 3, 4), 5)
    features = [torch.randn(1, c, 16 // 2**level, 8 // 2**level) for level, c in enumerate((2, 3, 4))]
    first, second, third = (lateral(f) for lateral, f in zip(pyramid.lateral, features, strict=True))
    sums = [first, second, third]
    sums[0] = first + torch.kron(second, torch.ones(2, 2)) + torch.kron(third, torch.ones(4, 4))
    sums[1] = second + torch.kron(third, torch.ones(2, 2))
    for mine, output, wanted in zip(pyramid(features), pyramid.output, sums, strict=True):
        torch.testing.assert_close(mine, output(wanted))
