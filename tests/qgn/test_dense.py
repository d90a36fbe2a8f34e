"""Dense rivals: what they predict, what they are trained on, and the way from training to prediction."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as fn

from qgn.checkpoint import load_checkpoint
from qgn.config import TrainConfig
from qgn.data.batch import LabelBatch
from qgn.errors import TrainingError
from qgn.evaluate import evaluate_checkpoint
from qgn.losses import HeadLoss, QuadtreeLoss, criterion_of
from qgn.models.build import build_model
from qgn.models.resnet import ResNet
from qgn.predict import load_predictor
from qgn.setup import prepare
from qgn.sparse.frontier import IGNORE_INDEX
from qgn.trainer import train

from .helpers import VOID, blobs, plain_tree

torch.set_num_threads(1)
CLASSES = 3


def test_a_dense_loss_is_that_of_the_mask():
    rng = np.random.default_rng(4)
    masks = [blobs(rng, *size, CLASSES) for size in ((64, 64), (40, 90))]
    labels = LabelBatch.from_trees([plain_tree(mask) for mask in masks])
    torch.manual_seed(0)
    model = build_model("dilated16_resnet18", CLASSES, width=4)
    prediction = model(torch.randn(2, 3, 64, 96), labels)
    target = torch.full((2, 64, 96), IGNORE_INDEX)
    for image, mask in zip(target, masks, strict=True):
        image[: mask.shape[0], : mask.shape[1]] = torch.from_numpy(mask)
    target[target == VOID] = IGNORE_INDEX
    expected = fn.cross_entropy(prediction.scores_bkhw, target, ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(criterion_of(model)(prediction.logits, prediction.targets).total, expected)
    assert torch.equal(prediction.to_pixels(), prediction.scores_bkhw.argmax(1))
    with pytest.raises(ValueError, match="made without labels"):
        _ = model(torch.randn(2, 3, 64, 96)).targets


@pytest.mark.parametrize("depth", [18, 50])
def test_a_dilated_encoder_computes_what_the_strided_one_does_and_more(depth):
    torch.manual_seed(0)
    strided = ResNet(depth, width=4).double().eval()
    for module in strided.modules():  # the blocks do start as their shortcuts
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    images = torch.randn(1, 3, 96, 128, dtype=torch.float64)  # in float32 some processors round by more than asked
    with torch.no_grad():
        expected = strided(images)
        for stride in (8, 16):
            dilated = ResNet(depth, width=4, output_stride=stride).double().eval()
            dilated.load_state_dict(strided.state_dict())
            features = dilated(images)
            assert features[-1].shape[2:] == (96 // stride, 128 // stride)
            for theirs, own, nominal in zip(features, expected, (2, 4, 8, 16, 32), strict=True):
                step = max(1, nominal // stride)
                torch.testing.assert_close(theirs[:, :, ::step, ::step], own)


def test_cells_keep_their_places_when_logits_are_enlarged():
    model = build_model("dilated32_resnet18", 2, width=2)
    with torch.no_grad():
        ramp = torch.arange(3.0)[None, None, None].expand(1, model.encoder.channels[-1], 2, 3)
        scores = model.decoder([ramp]).scores_bkhw
        low, high = model.decoder.head(ramp)[0, 0, 0, [0, 2]]
    middle = scores[0, 0, :, 16:80]  # from the centre of the first cell to that of the last
    wanted = low + (high - low) * (torch.arange(64) + 0.5) / 64
    torch.testing.assert_close(middle, wanted.expand(64, 64))


def test_every_model_has_its_criterion():
    with torch.device("meta"):
        quadtree, dense = build_model("qgn_resnet18", 2), build_model("dilated8_resnet18", 2)
    assert isinstance(criterion_of(quadtree), QuadtreeLoss)
    assert criterion_of(quadtree, "fixed", gamma=0.5).beta_l.tolist() == [0.5**level for level in range(6)]
    assert not isinstance(criterion_of(dense), QuadtreeLoss)
    assert criterion_of(dense).beta_l.tolist() == [1]
    logits = [torch.randn(4, 3), torch.randn(2, 3)]
    targets = [torch.tensor([0, 1, 2, IGNORE_INDEX]), torch.tensor([1, 1])]
    value = HeadLoss(torch.tensor([1.0, 0.4]))(logits, targets)
    parts = [fn.cross_entropy(*head).item() for head in zip(logits, targets, strict=True)]
    assert value.total == pytest.approx(parts[0] + 0.4 * parts[1])
    assert value.per_level_l.tolist() == pytest.approx(parts)


def test_dense_models_refuse_what_is_of_quadtrees():
    model = build_model("dilated8_resnet18", CLASSES, width=2).eval()
    with pytest.raises(ValueError, match="'gtc': a dense model has only 'dense'"):
        model(torch.zeros(1, 3, 32, 32), propagation="gtc")
    with pytest.raises(ValueError, match="48x64: pad"):
        model(torch.zeros(1, 3, 48, 64))
    with pytest.raises(ValueError, match="labels' canvas"):
        model(torch.zeros(1, 3, 32, 32), LabelBatch.from_trees([plain_tree(np.zeros((64, 64), int))]))
    with pytest.raises(ValueError, match="is dense and has no levels to recompute"):
        build_model("dilated8_resnet18", CLASSES, recompute=True)
    with pytest.raises(ValueError, match="variant 'u' is unknown"):
        build_model("qgn_resnet18", CLASSES, variants=("u",))


def test_training_evaluation_and_prediction_of_a_dense_model(scenes, tmp_path):
    config = TrainConfig(
        labels=str(scenes), work_dir=str(tmp_path / "run"), model="dilated8_resnet18", width=4, steps=2, batch_size=2,
        eval_every=2, workers=0, image_size=(32, 64),
    )  # fmt: skip
    scores = train(prepare(config))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [len(line["level_losses"]) for line in lines if "loss" in line] == [1, 1]
    assert [line["sites"] for line in lines if "loss" in line] == [0, 0]
    best = tmp_path / "run" / "best.safetensors"
    described, _ = load_checkpoint(best)
    assert (described.model, described.variants, described.config["propagation"]) == ("dilated8_resnet18", (), "dense")
    evaluation = evaluate_checkpoint(best, scenes, split="val", workers=0)
    assert set(evaluation.schemes) == {"dense"}
    assert evaluation.schemes["dense"].to_json() == scores["dense"].to_json()
    assert evaluation.schemes["dense"].sites == {}
    photo = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    predictor = replace(load_predictor(best), checkpoint=replace(described, image_size=None))
    prediction = predictor(photo)
    np.testing.assert_array_equal(prediction.tree.to_mask(), prediction.classes)
    assert prediction.classes.shape == (64, 96)
    assert len(set(prediction.classes.ravel())) > 1
    assert prediction.grown is prediction.tree


def test_a_scheme_of_another_model_is_refused_before_the_first_step(scenes, tmp_path):
    config = TrainConfig(labels=str(scenes), work_dir=str(tmp_path), model="dilated8_resnet18", propagation="gtc")
    with pytest.raises(TrainingError, match="'gtc': the model knows only dense"):
        prepare(config)
    with pytest.raises(TrainingError, match="'dense': no such rule, expected one of all, gtc, pc"):
        prepare(replace(config, model="qgn_resnet18", propagation="dense"))
    assert prepare(replace(config, propagation=None)).config.propagation == "dense"
    assert not list(Path(tmp_path).iterdir())
