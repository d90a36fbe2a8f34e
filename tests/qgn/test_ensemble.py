"""Averages over scales and mirror images, against distributions painted pixel by pixel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import quadcodec
from qgn import ensemble as ensemble_module
from qgn.checkpoint import Checkpoint
from qgn.data.classes import ClassMap
from qgn.data.photos import normalise, read_photo
from qgn.data.views import View
from qgn.ensemble import Ensemble, Scaled, Votes, distributions
from qgn.evaluate import evaluate_checkpoint
from qgn.models.build import build_model
from qgn.predict import Predictor, load_predictor

CLASSES = 4
NAMES = ClassMap(tuple("abcd"), {i: i for i in range(CLASSES)}, ((0, 0, 0),) * CLASSES)


@pytest.fixture(params=["qgn_resnet18", "dilated8_resnet18"])
def predictor(request):
    """A predictor of a random model whose classes vary."""
    torch.manual_seed(3)
    model = build_model(request.param, CLASSES, width=4).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
    predictor = Predictor(Checkpoint(request.param, 4, NAMES, None, 0, {}, {}), model, "cpu", model.schemes[-1])
    if request.param == "dilated8_resnet18":
        model.decoder.head.bias.data -= predict(predictor, noise(64, 96)).scores_bkhw.mean((0, 2, 3))
    return predictor


def noise(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])


def predict(predictor, photo):
    with torch.no_grad():
        return predictor.model(torch.from_numpy(normalise(photo))[None])


def painted(prediction):
    """Return the distribution of every pixel, (b, k, h, w): finer cells over coarser ones."""
    if not hasattr(prediction, "levels"):
        return prediction.scores_bkhw.softmax(1)
    batch, rows, cols = prediction.levels[-1].nodes.shape
    canvas = torch.full((batch, CLASSES, 32 * rows, 32 * cols), torch.nan)
    for level in range(5, -1, -1):
        at, side = prediction.levels[level], 1 << level
        _, height, width = at.nodes.shape
        cells = at.nodes.cell_n.tolist() if level < 5 else range(len(at.logits_nk))
        for cell, logits in zip(cells, at.logits_nk, strict=True):
            image, y, x = cell // (height * width), cell // width % height, cell % width
            leaf = logits[1:].softmax(0)
            canvas[image, :, y * side : (y + 1) * side, x * side : (x + 1) * side] = leaf[:, None, None]
    return canvas


def test_sizes_are_the_nearest_multiples_of_32():
    assert Scaled(1.0, mirrored=False).view((427, 561), None) == View.whole((416, 576))
    assert Scaled(1.0, mirrored=True).view((720, 5), None) == View((736, 32), (0, 0, 736, 32), mirrored=True)
    assert Scaled(0.75, mirrored=False).view((9, 9), (128, 256)).size == (96, 192)


def test_the_scale_nearest_to_one_comes_first():
    members = Ensemble((0.5, 1.25, 0.75), flip=True).members
    assert [(m.scale, m.mirrored) for m in members[:3]] == [(1.25, False), (1.25, True), (0.75, False)]
    assert len(members) == 6


def test_distributions_are_those_of_the_leaves(predictor):
    prediction = predict(predictor, noise(64, 96))
    rows_nk, row_bhw = distributions(prediction)
    torch.testing.assert_close(rows_nk[row_bhw].permute(0, 3, 1, 2), painted(prediction))
    assert torch.equal(rows_nk[row_bhw].argmax(3), prediction.to_pixels())


def test_a_single_member_gives_the_plain_prediction(predictor):
    photo = noise(64, 96)
    plain = predict(predictor, photo).to_pixels()
    assert len(plain.unique()) > 1
    np.testing.assert_array_equal(predictor(photo).classes, plain[0])
    twice = Votes(Ensemble((1.0, 1.0)))  # through the sum
    assert twice.add(predict(predictor, photo)) is None
    assert torch.equal(twice.add(predict(predictor, photo)), plain)


@pytest.mark.parametrize("chunk", [1, 1 << 26])
def test_members_are_averaged_at_the_size_of_the_first(predictor, chunk, monkeypatch):
    monkeypatch.setattr(ensemble_module, "_CHUNK_BYTES", chunk)
    photos = {1.0: noise(64, 96), 0.5: noise(32, 64, 1), 1.5: noise(96, 160, 2)}
    votes, total = Votes(Ensemble((0.5, 1.0, 1.5), flip=True)), torch.zeros(1, CLASSES, 64, 96)
    for scale, mirrored in ((s, m) for s in (1.0, 1.5, 0.5) for m in (False, True)):
        prediction = predict(predictor, photos[scale])
        classes = votes.add(prediction)
        one = painted(prediction)
        total += functional.interpolate(
            one.flip(3) if mirrored else one, (64, 96), mode="bilinear", align_corners=False
        )
    best, second = total.topk(2, dim=1).values.unbind(1)
    sure = best - second > 1e-4
    assert sure.float().mean() > 0.95
    assert torch.equal(classes[sure], total.argmax(1)[sure])
    assert not torch.equal(classes, predict(predictor, photos[1.0]).to_pixels())


@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.0, 1.5)])
def test_the_prediction_of_a_mirrored_photo_is_mirrored(predictor, scales):
    photo = noise(64, 96)
    assert not np.array_equal(predictor(photo[:, ::-1]).classes, predictor(photo).classes[:, ::-1])
    averaged = replace(predictor, ensemble=Ensemble(scales, flip=True))
    one, other = averaged(photo), averaged(photo[:, ::-1])
    np.testing.assert_array_equal(other.classes, one.classes[:, ::-1])
    np.testing.assert_array_equal(one.tree.to_mask(), one.classes)


def test_evaluation_scores_what_prediction_predicts(checkpoint, scenes):
    ensemble = Ensemble((0.5, 1.0), flip=True)
    averaged = evaluate_checkpoint(checkpoint, scenes, split="val", workers=0, ensemble=ensemble)
    plain = evaluate_checkpoint(checkpoint, scenes, split="val", workers=0).schemes
    store, predictor = quadcodec.open(scenes), load_predictor(checkpoint, ensemble=ensemble)
    classes = predictor.checkpoint.classes
    counts = np.zeros((19, 19), int)
    for index in store.indices("val"):
        photo = read_photo(Path(store.info.image_root) / store.columns.image[index])
        true, predicted = store.quadtree(int(index)).remap(classes.table).to_mask(), predictor(photo).classes
        np.add.at(counts, (true[true < 19], predicted[true < 19]), 1)
    np.testing.assert_array_equal(averaged.schemes["pc"].counts_kk, counts)
    assert averaged.images == 2
    gtc = Ensemble(flip=True)
    mirrored = evaluate_checkpoint(checkpoint, scenes, split="val", schemes=["gtc"], workers=0, ensemble=gtc)
    # A mirrored tree is another tree of as many composites: 32x64 pixels are whole coarsest cells.
    assert mirrored.schemes["gtc"].sites == {level: 2 * n for level, n in plain["gtc"].sites.items()}
