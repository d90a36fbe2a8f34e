"""The rows of docs/errors.md about training, evaluation and prediction; each is raised here."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

import quadcodec
from qgn.bench.table import Result, make_plans, read_result, run_table
from qgn.checkpoint import checkpoint_bytes, load_checkpoint, save_checkpoint
from qgn.config import TrainConfig
from qgn.confusion import check_confusion
from qgn.data.classes import class_map
from qgn.data.dataset import SegmentationDataset
from qgn.data.photos import read_photo
from qgn.data.splits import divide
from qgn.device import choose_device
from qgn.evaluate import evaluate_checkpoint
from qgn.inputs import Input, find_inputs
from qgn.losses import QuadtreeLoss
from qgn.models.resnet import ResNet
from qgn.models.weights import load_weights
from qgn.predict import load_predictor, predict_files
from qgn.recipes import read_settings, recipe_file
from qgn.run_folder import clear_run, state_path
from qgn.settings import parse
from qgn.setup import prepare, resolve
from qgn.sparse.backends import load_backend
from qgn.sparse.propagation import Limits
from qgn.sweep import choose_threshold
from qgn.trainer import train
from qgn.zoo import export_checkpoint
from quadcodec.errors import QuadcodecError
from quadcodec.store import ClassInfo

from ..errors_table import messages, rows

SECTIONS = ("Training, evaluation, prediction", "Masks", "Writing stores", "Reading stores")


class Place:
    """What the cases need: a folder, a store with photos and a checkpoint."""

    def __init__(self, folder, painted, checkpoint):
        self.folder, self.store, self.checkpoint = folder, painted, checkpoint

    def config(self, **values):
        defaults = {"width": 2, "steps": 1, "batch_size": 2, "workers": 0, "image_size": (32, 64)}
        return TrainConfig(labels=str(self.store.path), work_dir=str(self.folder / "run"), **defaults | values)

    def train(self, **values):
        train(prepare(self.config(**values)))

    def other(self, masks, **values):
        return quadcodec.write(self.folder / "other.zarr", masks, **values)

    def resave(self, change):
        """Load the checkpoint after a change of its description and tensors."""
        with safetensors.safe_open(self.checkpoint, framework="pt") as file:
            described = json.loads(file.metadata()["qgn"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change(described, tensors)
        path = self.folder / "changed.safetensors"
        safetensors.torch.save_file(tensors, path, metadata={"qgn": json.dumps(described)})
        load_checkpoint(path)

    def weights(self, encoder):
        safetensors.torch.save_file(encoder.state_dict(), self.folder / "weights.safetensors")
        return self.folder / "weights.safetensors"

    def photo(self, name="a.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(self.folder / name)
        return self.folder / name

    def predictor(self, **values):
        return load_predictor(self.checkpoint, **values)

    def predict(self, out, **options):
        predict_files(None, find_inputs([self.photo()]), self.folder / out, **options)


def unwritable_checkpoint(p):
    described, model = load_checkpoint(p.checkpoint)
    with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")):
        save_checkpoint(p.folder / "a.safetensors", described, model, torch.ones(6))


def numbers_for_weights(p):
    torch.save([1, 2], p.folder / "a.pth")
    load_weights(ResNet(18, width=2), p.folder / "a.pth")


def triton_missing(p):
    with mock.patch.dict(sys.modules, {"triton": None}):
        for module in ("qgn.sparse.triton_adapter", "qgn.sparse.triton_conv"):
            sys.modules.pop(module, None)
        load_backend("triton")


def triton_on_cpu(p):
    pytest.importorskip("triton", reason="triton is not installed (extra 'triton')")
    p.train(backend="triton", device="cpu")


def without_val(p):
    store = p.other([np.zeros((9, 9), np.uint8)])
    evaluate_checkpoint(p.checkpoint, store.path, split="val")


def full_log(p):
    def fill(step):
        log = p.folder / "run" / "log.jsonl"
        log.unlink()
        log.symlink_to("/dev/full")

    train(prepare(p.config()), on_step=fill)


def diverging(p):
    real = QuadtreeLoss.forward

    def forward(self, logits, targets, counts_l):
        return real(self, logits, targets, counts_l)._replace(total=logits[0].sum() * float("nan"))

    with mock.patch.object(QuadtreeLoss, "forward", forward):
        p.train()


def again(p, change=lambda work: None, **values):
    """Train, change what lies in the folder, and resume."""
    p.train()
    change(p.folder / "run")
    train(prepare(p.config(**values)), resume=True)


def lose_the_last_weights(work):
    (work / "last.safetensors").rename(work / "step_000009.safetensors")


def edited(p):
    """Return the checkpoint of the run with other weights."""
    described, model = load_checkpoint(p.folder / "run" / "last.safetensors")
    return checkpoint_bytes(described, model, torch.zeros(6))


def changed_store(p):
    p.train()
    (Path(p.store.info.image_root) / "0.png").unlink()
    train(prepare(p.config()), resume=True)


def used_folder(p):
    (p.folder / "run").mkdir()
    (p.folder / "run" / "log.jsonl").touch()
    p.train()


def file_for_folder(p):
    (p.folder / "run").touch()
    p.train()


def uncleared(p):
    (p.folder / "run" / "log.jsonl").mkdir(parents=True)
    clear_run(p.folder / "run")


def without_av(p):
    (p.folder / "a.mp4").touch()
    with mock.patch("qgn.inputs.find_spec", return_value=None):
        find_inputs([p.folder / "a.mp4"])


def broken_video(p):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(
        p.folder / "a.gif", save_all=True, append_images=[Image.new("L", (8, 8), 255)]
    )
    data = (p.folder / "a.gif").read_bytes()
    (p.folder / "a.gif").write_bytes(data[:20])
    list(Input(p.folder / "a.gif", "a", moving=True).frames())


def onto_itself(p):
    inputs = find_inputs([p.photo(), p.photo("a_labels.png")])
    predict_files(None, inputs, p.folder, overwrite=True)


def earlier_prediction(p):
    (p.folder / "out").mkdir()
    (p.folder / "out" / "a_tree.png").touch()
    p.predict("out")


def no_store(p):
    (p.folder / "x").mkdir()
    p.predict("out", store=p.folder / "x", overwrite=True)


def manifest_lacks(p):
    classes = [ClassInfo(0, "a", None, 0)]
    store = p.other([np.full((2, 2), 3, np.uint8)], classes=classes)
    named = replace(store, info=replace(store.info, train_classes=("a",)))
    class_map(named, [0, 3])


def too_many_classes(p):
    class_map(p.other([np.zeros((2, 2), np.uint8)], void=[0]), [0])


def builds_on_itself(p):
    with mock.patch("qgn.recipes.FOLDER", p.folder):
        (p.folder / "a.toml").write_text('recipe = "a"')
        read_settings(p.folder / "a.toml")


def two_splits(p):
    masks = [np.zeros((9, 9), np.uint8)] * 2
    prepare(replace(p.config(), labels=str(p.other(masks, splits=["a", "b"]).path)))


def a_row(p, values):
    """Read a row of a table with some values."""
    (p.folder / "run").mkdir()
    (p.folder / "run" / "row.json").write_text(json.dumps(values))
    read_result(prepare(p.config()))


def a_table_with_a_seed(p):
    settings = {"labels": str(p.store.path), "device": "cpu", "seed": 1}
    list(run_table(settings, make_plans(["qgn_resnet18"], ["gtc/pc"]), [0], p.folder))


def all_held_aside(p):
    divide(p.store, Path(p.store.info.image_root), train_split=None, val_fraction=0.0, seed=0, held_aside=4)


def nothing_so_cheap(p):
    p.train(held_aside=1)
    choose_threshold(p.folder / "run" / "last.safetensors", p.store.path, -1.0, workers=0)


CASES = {
    "an older checkpoint there is intact": unwritable_checkpoint,
    "cannot be read as a checkpoint": lambda p: load_checkpoint(p.folder / "none.safetensors"),
    "was written by a newer qgn": lambda p: p.resave(lambda values, _: values.update(version=99)),
    "holds no description of a qgn model": lambda p: p.resave(lambda values, _: values.pop("model")),
    "its weights do not fit": lambda p: p.resave(lambda _, tensors: tensors.pop("model.decoder.pixel_head.bias")),
    "cannot be read as weights": lambda p: load_weights(ResNet(18, width=2), p.folder / "none.pth"),
    "something else than named tensors": numbers_for_weights,
    "holds weights of": lambda p: load_weights(ResNet(18, width=2), p.weights(ResNet(34, width=2))),
    "no layer fits": lambda p: load_weights(ResNet(18, width=3), p.weights(ResNet(18, width=2))),
    "expected .safetensors": lambda p: export_checkpoint(p.checkpoint, p.folder / "a.md", overwrite=True),
    "was trained on": lambda p: evaluate_checkpoint(p.checkpoint, p.store.path),
    "training classes, expected 1..": too_many_classes,
    "does not name them": manifest_lacks,
    "nothing says what it is": lambda p: class_map(p.other([np.zeros((2, 2), np.uint8)]), [0, 255]),
    "has a photo below": lambda p: SegmentationDataset.open(p.store.path, images=p.folder / "none"),
    "the photo cannot be read": lambda p: read_photo(p.folder / "none.png"),
    "Mend the pair and convert again": lambda p: read_photo(p.photo(), native=(7, 8)),
    "has its photo below": lambda p: p.train(images="/nowhere"),
    "would be set aside for": all_held_aside,
    "is missing, and others of its run are there": lambda p: again(p, lose_the_last_weights),
    "the lowest factor comes first": lambda p: p.train(scale=(2.0, 0.5)),
    "reweigh_every needs images": lambda p: p.train(reweigh_every=1),
    "no image of it was held aside": lambda p: choose_threshold(p.checkpoint, p.store.path, 20.0),
    "Allow more": nothing_so_cheap,
    "train_split=NAME": two_splits,
    "cannot be used (": lambda p: choose_device("cuda:99"),
    "has no images for validation": without_val,
    "another photo or video is named": lambda p: find_inputs([p.photo(), p.photo("a.bmp")]),
    "the video cannot be read": broken_video,
    "the library that reads it is missing": without_av,
    "confusion matrices are written as": lambda p: check_confusion(p.folder / "a.pdf"),
    "the list names no file": lambda p: find_inputs([]),
    "--out lies there": lambda p: p.predict("x/out", store=p.folder / "x"),
    "no such file or folder": lambda p: find_inputs([p.folder / "none"]),
    "no photo in this folder": lambda p: find_inputs([p.checkpoint.parent]),
    "is one of the photos": onto_itself,
    "exists already. Choose another place": earlier_prediction,
    "only a store is replaced by one": no_store,
    "cannot be read as TOML": lambda p: read_settings(p.folder / "none.toml"),
    "is no setting": lambda p: parse(TrainConfig, ["lrr=1"]),
    ". Correct the value": lambda p: parse(TrainConfig, ["lr=x"]),
    "recipe '": lambda p: recipe_file("none"),
    "builds on itself": builds_on_itself,
    "no store is named": lambda p: resolve({}, "cpu"),
    "but the settings are for": lambda p: p.train(dataset="cityscapes"),
    "model '": lambda p: p.train(model="unet"),
    "the model knows only": lambda p: p.train(model="dilated8_resnet18", propagation="gtc"),
    "variant '": lambda p: p.train(variants=("conv",)),
    "is dense and has no": lambda p: p.train(model="dilated8_resnet18", recompute=True),
    "no such rule, expected one of": lambda p: p.predictor(propagation="dense"),
    "need a threshold, and no other": lambda p: p.predictor(propagation="pc>0.3"),
    "expected for example 'pc'": lambda p: p.predictor(propagation="pc sites"),
    "out of range, expected": lambda p: p.predictor(limits=Limits(sites=5, gmacs=1.0)),
    "no share of the steps": lambda p: p.train(propagation="gtc->pc"),
    "there are no labels": lambda p: p.predictor(propagation="gtc"),
    "the model has the classes": lambda p: p.predictor(propagation="pc classes=99")(np.zeros((32, 32, 3), np.uint8)),
    "every pixel is computed, and nothing can be limited": lambda p: Limits(stop=1).on("dense", ["road"]),
    "the model has no such class": lambda p: p.predictor(limits=Limits(classes=("unicorn",))),
    "both sides must be multiples": lambda p: p.train(crop=(33, 32)),
    "is not installed: found no module": triton_missing,
    "found rows on": triton_on_cpu,
    "holds a run already": used_folder,
    "expected a folder or nothing": file_for_folder,
    "too little to normalise": lambda p: p.train(batch_size=1, image_size=(32, 32)),
    "Choose another --work-dir": uncleared,
    "then run again": full_log,
    "is no number": diverging,
    "cannot be split into": lambda p: p.train(batch_size=3, accumulate=2),
    "cannot go on with other settings": lambda p: again(p, lr=1.0),
    "are not those that the run in": changed_store,
    "is not the state of": lambda p: again(p, lambda work: (work / "last.safetensors").write_bytes(edited(p))),
    "expected TRAINING/EVALUATION": lambda p: make_plans(["qgn_resnet18"], ["gtc"]),
    "is asked for twice": lambda p: make_plans(["qgn_resnet18"], ["gtc/pc", "gtc/pc"]),
    "the table sets it itself": lambda p: list(
        run_table(
            {"labels": str(p.store.path), "device": "cpu", "seed": 1},
            make_plans(["qgn_resnet18"], ["gtc/pc"]),
            [0],
            p.folder,
        )
    ),
    "cannot be read as a row of a table": lambda p: a_row(p, {}),
    "Choose another --out": lambda p: a_row(p, dict.fromkeys(Result.__dataclass_fields__) | {"settings": {"lr": 1.0}}),
    "cannot be read as a training state": lambda p: again(p, lambda work: state_path(work, 1).write_bytes(b"?")),
}


@pytest.mark.parametrize("row", rows(SECTIONS[0]))
def test_every_row_is_raised_as_one_line(row, tmp_path, painted, checkpoint):
    assert row in CASES, f"docs/errors.md: no case raises {row!r}. Add one"
    with pytest.raises(QuadcodecError) as caught:
        CASES[row](Place(tmp_path, painted, Path(checkpoint)))
    assert row in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_case_has_a_row():
    assert set(CASES) == set(rows(SECTIONS[0]))


def test_every_message_has_a_row():
    table = rows(*SECTIONS)
    lacking = [f"{where}: {text}" for where, text in messages("qgn") if not any(row in text for row in table)]
    assert lacking == [], "add them to docs/errors.md"
    assert len(list(messages("qgn"))) > 30
