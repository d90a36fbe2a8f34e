import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image

import quadcodec
from qgn import trainer
from qgn.checkpoint import load_checkpoint
from qgn.config import TrainConfig
from qgn.errors import CheckpointError, TrainingError
from qgn.losses import QuadtreeLoss
from qgn.models.decoder import Decoder
from qgn.optim import rate
from qgn.run_folder import clear_run, state_path
from qgn.setup import default_image_size, prepare
from qgn.trainer import train
from quadcodec.convert import convert, plan_conversion
from quadcodec.errors import StoreError


@pytest.fixture
def config(scenes, tmp_path):
    return TrainConfig(
        labels=str(scenes), work_dir=str(tmp_path / "run"), width=4, steps=3, batch_size=2, eval_every=2, workers=0
    )


def lines(config):
    return [json.loads(line) for line in (Path(config.work_dir) / "log.jsonl").read_text().splitlines()]


def test_a_run_writes_log_and_checkpoints(config):
    scores = train(prepare(config))
    log = lines(config)
    assert log[0]["config"]["steps"] == 3
    steps = [line for line in log if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert set(steps[0]) == {"step", "loss", "level_losses", "beta", "lr", "grad_norm", "sites", "images_per_second"}
    assert [line["step"] for line in log if "scores" in line] == [2, 3]
    assert [line["lr"] for line in steps] == pytest.approx([config.lr] * 3)
    assert steps[2]["beta"] != [1.0] * 6
    described, model = load_checkpoint(Path(config.work_dir) / "last.safetensors")
    assert described.step == 3
    assert described.config == json.loads(
        json.dumps(replace(config, propagation="gtc", dataset="cityscapes").to_json())
    )
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


def test_propagation_switches_in_training(config):
    asked = []
    real = Decoder.forward

    def forward(self, features, labels, propagation):
        if self.training:
            asked.append(propagation)
        return real(self, features, labels, propagation)

    with mock.patch.object(Decoder, "forward", forward):
        train(prepare(replace(config, propagation="gtc->union@2/3", eval_every=3)))
    assert asked == ["gtc", "gtc", "union"]
    assert load_checkpoint(Path(config.work_dir) / "last.safetensors")[0].config["propagation"] == "gtc->union@2/3"


def test_schedules():
    assert [rate("tail", done) for done in (0, 0.6, 2 / 3, 5 / 6, 1)] == pytest.approx([1, 1, 1, 0.5, 0])
    assert [rate("poly", done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.5**0.9, 0])


def test_training_learns(config):
    train(prepare(replace(config, steps=30, width=8, eval_every=30)))
    losses = [line["level_losses"][5] for line in lines(config) if "loss" in line]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(config, monkeypatch):
    real = QuadtreeLoss.forward

    def forward(self, logits, targets, counts_l):
        value = real(self, logits, targets, counts_l)
        forward.calls += 1
        return value._replace(total=value.total * (float("nan") if forward.calls == 3 else 1))

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

    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(path, described, model, torch.ones(6))
    assert path.read_bytes() == before


def test_images_without_photos_are_counted(cityscapes, tmp_path):
    convert(plan_conversion(cityscapes), tmp_path / "out.zarr")
    config = TrainConfig(labels=str(tmp_path / "out.zarr"), work_dir=str(tmp_path / "run"))
    setup = prepare(config)
    assert setup.images.without_photo == 2  # those of val: one of train is set aside instead
    assert (len(setup.images.train), len(setup.images.val)) == (2, 1)
    with pytest.raises(TrainingError, match="none of 3 training images has its photo below /nowhere"):
        prepare(replace(config, images="/nowhere"))


def test_a_store_without_a_val_split_sets_some_aside(painted, tmp_path):
    masks = list(painted)
    store = quadcodec.write(
        tmp_path / "all.zarr", masks, images=painted.columns.image, image_root=painted.info.image_root, void=[255]
    )
    config = TrainConfig(labels=str(store.path), work_dir=str(tmp_path / "run"), val_fraction=0.4)
    images = prepare(config).images
    assert (len(images.train), len(images.val), images.train_split) == (3, 2, "all")
    assert images.set_aside
    assert set(images.train) | set(images.val) == set(range(5))
    assert prepare(config).images == images
    assert prepare(replace(config, val_fraction=0.0)).images.val == ()


def test_bad_data_and_settings_are_one_clear_error(config, painted, tmp_path):
    with pytest.raises(TrainingError, match="model 'unet' is unknown"):
        prepare(replace(config, model="unet"))
    with pytest.raises(TrainingError, match="multiples of 32"):
        prepare(replace(config, crop=(30, 64)))
    with pytest.raises(StoreError, match="found nothing here"):
        prepare(replace(config, labels="none.zarr"))
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


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_no_checkpoint_is_unpickled(tmp_path):
    torch.save({"weights": Hostile(tmp_path / "harm")}, tmp_path / "hostile.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "hostile.safetensors")
    assert not (tmp_path / "harm").exists()
    (tmp_path / "hostile.safetensors").rename(tmp_path / "hostile.pt")
    torch.load(tmp_path / "hostile.pt", weights_only=False)  # it is hostile indeed
    assert (tmp_path / "harm").exists()


def test_a_failed_start_leaves_nothing_in_the_way(painted, tmp_path):
    run = TrainConfig(labels=str(painted.path), work_dir=str(tmp_path / "run"), width=2, steps=2, workers=0)
    photo = Path(painted.info.image_root) / "2.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[:-40])
    with pytest.raises(TrainingError, match="the photo cannot be read"):
        train(prepare(run))
    assert list((tmp_path / "run").iterdir()) == []
    photo.write_bytes(whole)
    train(prepare(run))
    (tmp_path / "run" / "log.jsonl").unlink()  # checkpoints alone are a run, too
    with pytest.raises(TrainingError, match="holds a run already"):
        train(prepare(run))


def test_a_failure_after_a_checkpoint_keeps_the_log(config, painted):
    def fail(step, scores):
        if step == 3:
            raise TrainingError("stop")

    with pytest.raises(TrainingError, match="stop"):
        train(prepare(config), on_scores=fail)
    assert [line["step"] for line in lines(config)[1:] if "loss" in line] == [1, 2, 3]


def test_a_full_disk_under_the_log_is_one_clear_error(config):
    log = Path(config.work_dir) / "log.jsonl"

    def fill(step):
        log.unlink()
        log.symlink_to("/dev/full")

    with pytest.raises(TrainingError, match=r"log\.jsonl: cannot be written \(No space left on device\)"):
        train(prepare(config), on_step=fill)


def test_a_work_folder_that_is_a_file_or_cannot_be_made(config, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("precious")
    for action in (lambda: train(prepare(replace(config, work_dir=str(taken)))), lambda: clear_run(taken)):
        with pytest.raises(TrainingError, match="taken: is a file, expected a folder"):
            action()
    with pytest.raises(TrainingError, match=r"run: cannot be written \(Not a directory\)"):
        train(prepare(replace(config, work_dir=str(taken / "run"))))
    (tmp_path / "run" / "log.jsonl").mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"run: cannot be cleared \(Is a directory\)"):
        clear_run(tmp_path / "run")
    assert taken.read_text() == "precious"


def test_scores_that_are_no_number_are_worse_than_any(config, monkeypatch):
    values = iter([float("nan"), float("nan"), 0.0, float("nan")])

    def scored(*args, **kwargs):
        return {"pc": SimpleNamespace(miou=next(values), to_json=dict)}

    monkeypatch.setattr(trainer, "evaluate", scored)
    train(prepare(replace(config, steps=4, eval_every=1)))
    assert load_checkpoint(Path(config.work_dir) / "best.safetensors")[0].step == 3


@pytest.mark.parametrize("settings", [{"crop": (32, 32)}, {"image_size": (32, 20)}])
def test_a_batch_that_cannot_be_normalised_is_refused_early(config, settings):
    with pytest.raises(TrainingError, match=r"image 0 .* 32 x 32 pixels or fewer.*Use batch_size=2"):
        prepare(replace(config, batch_size=1, **settings))
    train(prepare(replace(config, batch_size=2, steps=1, **settings)))


def test_one_image_a_batch_trains_where_it_is_large_enough(config):
    train(prepare(replace(config, batch_size=1, steps=1, crop=(32, 64))))


@pytest.mark.slow
def test_camvid_is_learnt_in_160_steps(real_data, tmp_path):
    convert(plan_conversion(real_data / "camvid"), tmp_path / "camvid.zarr")
    config = TrainConfig(
        labels=str(tmp_path / "camvid.zarr"), work_dir=str(tmp_path / "run"), image_size=(192, 256), steps=160,
        eval_every=160,
    )  # fmt: skip
    scores = trainer.train(prepare(config))
    assert scores["pc"].miou >= 31


def test_class_weights_follow_the_held_aside_images(config, monkeypatch):
    setup = prepare(replace(config, reweigh_every=2, held_aside=1, steps=2))

    def scored(model, loader, classes, *args, **kwargs):
        reweighing = {index for batch in loader.batch_sampler for index, _ in batch} == set(setup.images.held_aside)
        iou = {name: float(k) if reweighing else 0.0 for k, name in enumerate(classes.names)}
        return {"pc": SimpleNamespace(miou=0.0, iou=iou, to_json=dict)}

    monkeypatch.setattr(trainer, "evaluate", scored)
    train(setup)
    (line,) = [line for line in lines(config) if "class_weights" in line]
    assert line["step"] == 2
    assert line["class_weights"] == [2.0] * 9 + [1.0] * 10
    with safetensors.safe_open(state_path(Path(config.work_dir), 2), framework="pt") as file:
        assert file.get_tensor("criterion.weight_k").tolist() == [1.0, *line["class_weights"]]


def test_a_gradient_that_is_no_number_stops_the_run(config, monkeypatch):
    real = QuadtreeLoss.forward

    def forward(self, logits, targets, counts_l):
        value = real(self, logits, targets, counts_l)
        return value._replace(total=value.total + (logits[0].sum() - logits[0].sum().detach()) * float("inf"))

    monkeypatch.setattr(QuadtreeLoss, "forward", forward)
    with pytest.raises(
        TrainingError, match=r"step 1: the (loss|gradient) is no number .* no checkpoint was written yet"
    ):
        train(prepare(config))


def test_a_full_disk_while_saving_keeps_the_run_s_older_save(config, monkeypatch, tmp_path):
    real = trainer.write_checkpoint

    def write(path, data):
        if json.loads((path.parent / "log.jsonl").read_text().splitlines()[-1])["step"] == 3:
            with monkeypatch.context() as patch:
                patch.setattr("os.fsync", mock.Mock(side_effect=OSError(28, "No space left on device")))
                real(path, data)
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_checkpoint", write)
        with pytest.raises(CheckpointError, match=r"state_000003\.safetensors: cannot be written \(No space left"):
            train(prepare(config))
    assert load_checkpoint(Path(config.work_dir) / "last.safetensors")[0].step == 2
    train(prepare(config), resume=True)  # when there is space again
    assert load_checkpoint(Path(config.work_dir) / "last.safetensors")[0].step == 3
