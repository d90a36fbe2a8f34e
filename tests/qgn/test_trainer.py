import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import quadcodec
from qgn import trainer
from qgn.checkpoint import load_checkpoint
from qgn.config import TrainConfig
from qgn.errors import CheckpointError, TrainingError
from qgn.evaluate import evaluate_checkpoint, restore
from qgn.losses import LossValue, QuadtreeLoss
from qgn.predict import find_photos, load_predictor, predict_files
from qgn.trainer import default_image_size, prepare, rate, train
from quadcodec.convert import convert, plan_conversion
from quadcodec.errors import StoreError


@pytest.fixture
def config(scenes, tmp_path):
    return TrainConfig(
        labels=str(scenes), work_dir=str(tmp_path / "run"), width=4, steps=3, batch_size=2, eval_every=2, workers=0
    )


@pytest.fixture(scope="module")
def checkpoint(scenes, tmp_path_factory):
    work = tmp_path_factory.mktemp("trained") / "run"
    config = TrainConfig(
        labels=str(scenes), work_dir=str(work), width=4, steps=4, batch_size=2, eval_every=4, workers=0,
        image_size=(32, 64),
    )  # fmt: skip
    torch.set_num_threads(1)
    train(prepare(config))
    return work / "last.safetensors"


def lines(config):
    return [json.loads(line) for line in (Path(config.work_dir) / "log.jsonl").read_text().splitlines()]


def test_a_run_writes_log_and_checkpoints(config):
    scores = train(prepare(config))
    log = lines(config)
    assert log[0]["config"]["steps"] == 3
    steps = [line for line in log if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert set(steps[0]) == {"step", "loss", "level_losses", "beta", "lr", "sites", "images_per_second"}
    assert [line["step"] for line in log if "scores" in line] == [2, 3]
    assert [line["lr"] for line in steps] == pytest.approx([config.lr] * 3)
    assert steps[2]["beta"] != [1.0] * 6
    described, model = load_checkpoint(Path(config.work_dir) / "last.safetensors")
    assert described.step == 3
    assert described.config == json.loads(json.dumps(config.to_json()))
    assert described.classes.names[0] == "road"
    assert described.scores["pc"]["miou"] == pytest.approx(scores["pc"].miou)
    assert not model.training
    best, _ = load_checkpoint(Path(config.work_dir) / "best.safetensors")
    assert best.step in (2, 3)


def test_the_same_seed_gives_the_same_losses_whatever_reads_the_data(config, tmp_path):
    train(prepare(config))
    again = replace(config, work_dir=str(tmp_path / "again"), workers=1)
    train(prepare(again))
    other = replace(config, work_dir=str(tmp_path / "other"), seed=1)
    train(prepare(other))
    losses = [[line["loss"] for line in lines(c) if "loss" in line] for c in (config, again, other)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("scheme", ["all", "gtc", "pc"])
def test_every_scheme_trains(config, scheme):
    train(prepare(replace(config, propagation=scheme, steps=1, loss="fixed", gamma=0.75, optimizer="sgd")))
    assert lines(config)[1]["beta"] == pytest.approx([0.75**level for level in range(6)])


def test_schedules():
    assert [rate("tail", done) for done in (0, 0.6, 2 / 3, 5 / 6, 1)] == pytest.approx([1, 1, 1, 0.5, 0])
    assert [rate("poly", done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.5**0.9, 0])


def test_training_learns(config):
    train(prepare(replace(config, steps=30, width=8, eval_every=30)))
    losses = [line["level_losses"][5] for line in lines(config) if "loss" in line]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(config, monkeypatch):
    real = QuadtreeLoss.forward

    def forward(self, logits, targets):
        value = real(self, logits, targets)
        forward.calls += 1
        return LossValue(value.total * (float("nan") if forward.calls == 3 else 1), value.per_level_l)

    forward.calls = 0
    monkeypatch.setattr(QuadtreeLoss, "forward", forward)
    with pytest.raises(TrainingError, match=r"step 3: the loss is no number .*last\.safetensors and best\.safetensors"):
        train(prepare(config))
    assert load_checkpoint(Path(config.work_dir) / "last.safetensors")[0].step == 2


def test_a_run_is_not_overwritten(config):
    Path(config.work_dir).mkdir()
    (Path(config.work_dir) / "log.jsonl").write_text("precious")
    with pytest.raises(TrainingError, match="holds a run already"):
        train(prepare(config))
    assert (Path(config.work_dir) / "log.jsonl").read_text() == "precious"


def test_a_full_disk_keeps_the_older_checkpoint(config, monkeypatch):
    train(prepare(config))
    path = Path(config.work_dir) / "last.safetensors"
    before = path.read_bytes()
    described, model = load_checkpoint(path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    from qgn.checkpoint import save_checkpoint

    with pytest.raises(StoreError, match="No space left on device"):
        save_checkpoint(path, described, model, torch.ones(6))
    assert path.read_bytes() == before


def test_images_without_photos_are_counted(cityscapes, tmp_path):
    convert(plan_conversion(cityscapes), tmp_path / "out.zarr")
    config = TrainConfig(labels=str(tmp_path / "out.zarr"), work_dir=str(tmp_path / "run"))
    setup = prepare(config)
    assert setup.without_photo == 2  # those of val: one of train is set aside instead
    assert (len(setup.train), len(setup.val)) == (2, 1)
    with pytest.raises(TrainingError, match="none of 3 training images has its photo below /nowhere"):
        prepare(replace(config, images="/nowhere"))


def test_a_store_without_a_val_split_sets_some_aside(painted, tmp_path):
    masks = list(painted)
    store = quadcodec.write(
        tmp_path / "all.zarr", masks, images=painted.columns.image, image_root=painted.info.image_root, void=[255]
    )
    config = TrainConfig(labels=str(store.path), work_dir=str(tmp_path / "run"), val_fraction=0.4)
    setup = prepare(config)
    assert (len(setup.train), len(setup.val)) == (3, 2)
    assert set(setup.train) | set(setup.val) == set(range(5))
    assert prepare(config).val == setup.val
    assert prepare(replace(config, val_fraction=0.0)).val == ()


def test_bad_data_and_settings_are_one_clear_error(config, painted, tmp_path):
    with pytest.raises(TrainingError, match="model 'unet' is unknown"):
        prepare(replace(config, model="unet"))
    with pytest.raises(TrainingError, match="multiples of 32"):
        prepare(replace(config, crop=(30, 64)))
    with pytest.raises(StoreError, match="found nothing here"):
        prepare(replace(config, labels="none.zarr"))
    four = quadcodec.write(tmp_path / "four.zarr", [np.zeros((4, 4), np.uint8)], levels=4)
    with pytest.raises(TrainingError, match=r"trees of 4 levels, the decoder needs 6\. Convert again with --levels 6"):
        prepare(replace(config, labels=str(four.path)))
    photo = Path(painted.info.image_root) / "2.png"
    photo.write_bytes(photo.read_bytes()[:-40])
    run = TrainConfig(labels=str(painted.path), work_dir=str(tmp_path / "p"), width=2, steps=2, workers=0)
    with pytest.raises(TrainingError, match=r"2\.png: the photo cannot be read"):
        train(prepare(run))
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(photo)
    with pytest.raises(TrainingError, match=r"2\.png: photo of 9 x 9 pixels .* mask has 33 x 95"):
        train(prepare(replace(run, work_dir=str(tmp_path / "q"))))


def test_an_incomplete_store_is_refused(painted, config):
    import zarr

    group = zarr.open_group(str(painted.path), mode="r+")
    group.attrs["quadcodec"] = {**group.attrs["quadcodec"], "complete": False}
    with pytest.raises(StoreError, match="is not complete"):
        prepare(replace(config, labels=str(painted.path)))


def test_default_sizes(painted, scenes):
    assert default_image_size(quadcodec.open(scenes), "cpu") is None  # 64 x 128 is small
    store = quadcodec.write(Path(painted.path).with_name("big.zarr"), [np.zeros((1024, 2048), np.uint8)])
    assert default_image_size(store, "cpu") == (192, 352)
    assert default_image_size(store, "cuda") is None


def test_scores_are_those_of_the_predictions_at_native_size(checkpoint, scenes):
    evaluation = evaluate_checkpoint(checkpoint, scenes, split="val", workers=0, batch_size=1)
    store, predictor = quadcodec.open(scenes), load_predictor(checkpoint)
    classes = predictor.checkpoint.classes
    counts = np.zeros((19, 19))
    for index in store.indices("val"):
        photo = np.asarray(Image.open(Path(store.info.image_root) / store.columns.image[index]))
        predicted = predictor(photo).classes
        true = store.quadtree(int(index)).remap(classes.table).to_mask()
        assert predicted.shape == true.shape == (64, 128)
        np.add.at(counts, (true[true < 19], predicted[true < 19]), 1)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    iou = counts.diagonal()[union > 0] / union[union > 0]
    assert evaluation.schemes["pc"].miou == pytest.approx(100 * iou.mean())
    assert evaluation.schemes["pc"].pixel_accuracy == pytest.approx(100 * counts.trace() / counts.sum())
    assert evaluation.images == 2
    values = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert set(values["schemes"]) == {"all", "gtc", "pc"}
    assert {"miou", "pixel_accuracy", "iou", "sites"} <= set(values["schemes"]["pc"])
    assert evaluation.schemes["all"].site_share == pytest.approx(dict.fromkeys((5, 4, 3, 2, 1), 100.0))


def test_restore_takes_the_nearest_pixel_of_the_image():
    canvas = torch.arange(64).view(8, 8)
    part = restore(canvas, (0, 2), (4, 6), (8, 3))
    assert part.tolist() == [[8 * (i // 2) + 2 + x for x in (1, 3, 5)] for i in range(8)]
    assert torch.equal(restore(canvas, (0, 0), (8, 8), (8, 8)), canvas)


def test_predictions_are_written_as_labels_pictures_and_trees(checkpoint, scenes, tmp_path):
    store = quadcodec.open(scenes)
    folder = Path(store.info.image_root) / "leftImg8bit" / "val"
    photos = find_photos([folder])
    assert len(photos) == 2
    written = predict_files(load_predictor(checkpoint), photos, tmp_path / "out", store=tmp_path / "preds.zarr")
    trees = quadcodec.open(tmp_path / "preds.zarr")
    ids = {c.id for c in store.classes if c.train_id is not None}
    for index, (photo, labels) in enumerate(zip(photos, written, strict=True)):
        mask = np.asarray(Image.open(labels))
        assert mask.shape == (64, 128)
        assert set(np.unique(mask)) <= ids
        np.testing.assert_array_equal(trees[index], mask)
        assert (Path(trees.info.image_root) / trees.columns.image[index]).samefile(photo)
        for kind in ("overlay", "tree"):
            with Image.open(tmp_path / "out" / f"{photo.stem}_{kind}.png") as picture:
                assert picture.mode == "RGB"
                assert picture.size == ((128, 64) if kind == "overlay" else (1024, 512))


def test_the_predicted_tree_stops_where_the_decoder_stopped(checkpoint):
    photo = np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8)
    predictor = load_predictor(checkpoint)
    tree = predictor(photo).tree
    assert tree.counts[5] == 2
    for level in range(1, 6):
        assert tree.counts[level - 1] == 4 * np.count_nonzero(tree.level(level) == -1)
    assert (tree.to_mask() < 19).all()


def test_what_is_no_checkpoint_is_refused(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04pickle" * 20)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "bad.safetensors")
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="holds no description of a qgn model"):
        load_checkpoint(tmp_path / "other.safetensors")
    with safetensors.safe_open(checkpoint, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors.pop("model.decoder.pixel_head.bias")
    safetensors.torch.save_file(tensors, tmp_path / "cut.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match="its weights do not fit qgn_resnet18 of width 4"):
        load_checkpoint(tmp_path / "cut.safetensors")


def test_a_checkpoint_of_other_classes_is_refused(checkpoint, painted, real_data, tmp_path):
    with pytest.raises(CheckpointError, match=r"trained on 19 classes .* ids \[255\]"):
        evaluate_checkpoint(checkpoint, painted.path)
    convert(plan_conversion(real_data / "camvid", splits=["val"]), tmp_path / "camvid.zarr")
    with pytest.raises(CheckpointError, match=r"trained on 19 classes .* has 11 classes"):
        evaluate_checkpoint(checkpoint, tmp_path / "camvid.zarr")


def test_photos_to_predict_must_exist(tmp_path):
    with pytest.raises(TrainingError, match="no such file or folder"):
        find_photos([tmp_path / "none.jpg"])
    with pytest.raises(TrainingError, match="no photo in this folder"):
        find_photos([tmp_path])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / folder / "x.png")
    with pytest.raises(TrainingError, match="another photo has this name"):
        find_photos([tmp_path])


@pytest.mark.slow
def test_camvid_is_learnt_in_160_steps(real_data, tmp_path):
    convert(plan_conversion(real_data / "camvid"), tmp_path / "camvid.zarr")
    config = TrainConfig(
        labels=str(tmp_path / "camvid.zarr"), work_dir=str(tmp_path / "run"), image_size=(192, 256), steps=160,
        eval_every=160,
    )  # fmt: skip
    scores = trainer.train(prepare(config))
    assert scores["pc"].miou >= 31
