import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import quadcodec
from qgn.boundary import BoundaryCounts
from qgn.config import TrainConfig
from qgn.data.classes import class_map, count_pixels
from qgn.errors import CheckpointError, TrainingError
from qgn.evaluate import evaluate, evaluate_checkpoint, evaluation_loader
from qgn.models.build import build_model
from qgn.predict import load_predictor
from qgn.scores import restore
from qgn.setup import prepare
from qgn.trainer import train
from quadcodec.convert import convert, plan_conversion
from quadcodec.store import ClassInfo


@pytest.fixture
def unsplit(painted, tmp_path):
    """The painted images as a store of one split 'all', and a run's settings on it."""
    store = quadcodec.write(
        tmp_path / "all.zarr", list(painted), images=painted.columns.image, image_root=painted.info.image_root,
        void=[255],
    )  # fmt: skip
    return store, TrainConfig(
        labels=str(store.path), work_dir=str(tmp_path / "run"), width=2, steps=1, workers=0, val_fraction=0.4, seed=1
    )


def test_scores_are_those_of_the_predictions_at_native_size(checkpoint, scenes):
    evaluation = evaluate_checkpoint(checkpoint, scenes, split="val", workers=0, batch_size=1)
    store, predictor = quadcodec.open(scenes), load_predictor(checkpoint)
    classes = predictor.checkpoint.classes
    counts, boundary = np.zeros((19, 19)), BoundaryCounts(19)
    for index in store.indices("val"):
        photo = np.asarray(Image.open(Path(store.info.image_root) / store.columns.image[index]))
        predicted = predictor(photo).classes
        true = store.quadtree(int(index)).remap(classes.table).to_mask()
        assert predicted.shape == true.shape == (64, 128)
        np.add.at(counts, (true[true < 19], predicted[true < 19]), 1)
        boundary.update(predicted, true)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    iou = counts.diagonal()[union > 0] / union[union > 0]
    assert evaluation.schemes["pc"].miou == pytest.approx(100 * iou.mean())
    assert evaluation.schemes["pc"].pixel_accuracy == pytest.approx(100 * counts.trace() / counts.sum())
    there = counts.sum(1) > 0
    accuracies = counts.diagonal()[there] / counts.sum(1)[there]
    assert evaluation.schemes["pc"].mean_accuracy == pytest.approx(100 * accuracies.mean())
    assert evaluation.schemes["pc"].boundary_miou == pytest.approx(100 * boundary.miou())
    np.testing.assert_array_equal(evaluation.schemes["pc"].counts_kk, counts)
    assert evaluation.images == 2
    values = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert set(values["schemes"]) == {"all", "gtc", "pc"}
    assert {"miou", "pixel_accuracy", "iou", "sites"} <= set(values["schemes"]["pc"])
    assert evaluation.schemes["all"].site_share == pytest.approx(dict.fromkeys((5, 4, 3, 2, 1), 100.0))


def test_scores_do_not_depend_on_the_stores_levels(checkpoint, scenes, tmp_path):
    other = tmp_path / "eight.zarr"
    convert(plan_conversion(Path(scenes).parent / "cityscapes", levels=8), other)
    found = [evaluate_checkpoint(checkpoint, store, split="val", workers=0).schemes for store in (scenes, other)]
    for scheme in ("all", "gtc", "pc"):
        one, two = (schemes[scheme] for schemes in found)
        np.testing.assert_array_equal(one.counts_kk, two.counts_kk)
        assert one.to_json() == two.to_json()


def test_restore_takes_the_nearest_pixel_of_the_image():
    map_hw = torch.arange(24).view(4, 6)
    assert restore(map_hw, (8, 3)).tolist() == [[6 * (i // 2) + x for x in (1, 3, 5)] for i in range(8)]
    assert torch.equal(restore(map_hw, (4, 6)), map_hw)


def test_a_checkpoint_of_other_classes_is_refused(checkpoint, painted, real_data, tmp_path):
    with pytest.raises(CheckpointError, match=r"trained on 19 classes .* ids \[255\]"):
        evaluate_checkpoint(checkpoint, painted.path)
    convert(plan_conversion(real_data / "camvid", splits=["val"]), tmp_path / "camvid.zarr")
    with pytest.raises(
        CheckpointError, match=r"trained on 19 classes .* has id 0 as 'sky', and the checkpoint as 'ignored'"
    ):
        evaluate_checkpoint(checkpoint, tmp_path / "camvid.zarr")


def test_another_data_set_of_as_many_classes_is_refused(painted, tmp_path):
    config = TrainConfig(labels=str(painted.path), work_dir=str(tmp_path / "run"), width=2, steps=1, workers=0)
    train(prepare(config))
    weights = tmp_path / "run" / "last.safetensors"

    def stored(name, names):
        return quadcodec.write(
            tmp_path / name, list(painted), images=painted.columns.image, image_root=painted.info.image_root,
            classes=[ClassInfo(i, name) for i, name in enumerate(names)], void=[255],
        )  # fmt: skip

    same = stored("same.zarr", ["c0", "c1", "c2", "c3"])
    assert evaluate_checkpoint(weights, same.path, split="all", workers=0, schemes=["pc"]).images == 5
    other = stored("other.zarr", ["c0", "c1", "sky", "c3"])
    with pytest.raises(CheckpointError, match="has id 2 as 'sky', and the checkpoint as 'c2'"):
        evaluate_checkpoint(weights, other.path, split="all", workers=0)


def test_ids_ignored_on_demand_are_ignored_in_evaluation(scenes, painted, tmp_path):
    for store, void in ((scenes, (7,)), (painted.path, (2,))):
        work = tmp_path / str(void[0])
        train(prepare(TrainConfig(labels=str(store), work_dir=str(work), width=2, steps=1, workers=0, void=void)))
        assert len(evaluate_checkpoint(work / "last.safetensors", store, split="val", workers=0).schemes) == 3


def test_scores_do_not_depend_on_the_batch_size(painted):
    classes = class_map(painted, count_pixels(painted, range(5)))
    torch.manual_seed(0)
    model = build_model("qgn_resnet18", 4, width=4)
    root = Path(painted.info.image_root)

    def scores(batch_size, size=None):
        loader = evaluation_loader(painted, range(5), root, classes, size=size, batch_size=batch_size, workers=0)
        batches = list(loader)
        assert sorted(i for batch in batches for i in batch.indices) == list(range(5))
        return len(batches), evaluate(model, loader, classes, ["all", "gtc", "pc"])

    (single, one), (several, four) = scores(1), scores(4)
    assert json.dumps({k: v.to_json() for k, v in one.items()}) == json.dumps({k: v.to_json() for k, v in four.items()})
    assert (single, several) == (5, 4)  # 64x64 and 50x50 are shown at one size
    assert scores(4, (40, 40))[0] == 2  # resized, all do


def test_what_training_set_aside_is_what_evaluation_scores(unsplit, tmp_path, monkeypatch):
    store, config = unsplit
    monkeypatch.chdir(tmp_path)
    setup = prepare(replace(config, labels="all.zarr"))
    trained = train(setup)
    monkeypatch.chdir("/")
    evaluation = evaluate_checkpoint(tmp_path / "run" / "last.safetensors", store.path, split="val", workers=0)
    assert (evaluation.images, evaluation.set_aside_from) == (2, "all")
    assert evaluation.to_json()["set_aside_from"] == "all"
    assert evaluation.schemes["pc"].to_json() == trained["pc"].to_json()


def test_what_was_not_set_aside_cannot_be_scored(unsplit, painted, checkpoint, tmp_path):
    store, config = unsplit
    with pytest.raises(TrainingError, match=r"its splits are all, and .* was trained on .*scenes\.zarr: .* --split"):
        evaluate_checkpoint(checkpoint, store.path, split="val", workers=0)
    train(prepare(replace(config, val_fraction=0.0)))
    weights = tmp_path / "run" / "last.safetensors"
    with pytest.raises(TrainingError, match=r"its splits are all, and .* was trained with val_fraction=0"):
        evaluate_checkpoint(weights, store.path, split="val", workers=0)
    assert evaluate_checkpoint(weights, store.path, split="all", workers=0).set_aside_from is None


def test_a_split_that_was_trained_on_is_not_scored_as_val(painted, tmp_path):
    config = TrainConfig(
        labels=str(painted.path), work_dir=str(tmp_path / "run"), width=2, steps=1, workers=0, train_split="val"
    )
    train(prepare(config))
    with pytest.raises(TrainingError, match="or on one image"):
        evaluate_checkpoint(tmp_path / "run" / "last.safetensors", painted.path, split="val", workers=0)
