"""The list of models, exported checkpoints with their cards, and `qgn.load`."""

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import qgn
from qgn import zoo
from qgn.bench.cost import cost, outline
from qgn.checkpoint import load_checkpoint, save_checkpoint
from qgn.errors import TrainingError
from qgn.models.build import MODEL_NAMES
from qgn.zoo import export_checkpoint, list_models
from quadcodec_cli import qgn_zoo

from .test_cli import invoke

DOCUMENT = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
PHOTO = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)


def test_models_are_listed_with_what_they_cost(monkeypatch):
    size = (64, 128)
    monkeypatch.setattr(zoo, "MODEL_NAMES", ("qgn_resnet18", "dilated32_resnet18"))
    monkeypatch.setattr(zoo, "SIZE", size)
    code, out, err = invoke(qgn_zoo, "list", "--json", monkeypatch=monkeypatch)
    assert code == 0, err
    values = json.loads(out)
    assert (values["image"], values["classes"]) == ([64, 128], 19)
    rows = [zoo.ListedModel(**row) for row in values["rows"]]
    gtc, every, dense = rows
    assert [(m.name, m.scheme) for m in rows] == [
        ("qgn_resnet18", "gtc"), ("qgn_resnet18", "all"), ("dilated32_resnet18", "dense"),
    ]  # fmt: skip
    counted = cost(outline("dilated32_resnet18", 19), size)
    assert (dense.parameters, dense.macs, dense.kept_bytes) == (counted.parameters, counted.macs, counted.kept_bytes)
    assert gtc.parameters == every.parameters > dense.parameters
    assert gtc.macs < every.macs
    assert gtc.kept_bytes < every.kept_bytes
    lines = [line.split() for line in qgn_zoo.table(rows).splitlines()]
    assert lines[3] == [
        "dilated32_resnet18", "dense", f"{counted.parameters / 1e6:.1f}", f"{counted.macs / 1e9:.0f}",
        f"{counted.kept_bytes / 2**30:.2f}",
    ]  # fmt: skip


def test_the_document_names_every_model():
    patterns = re.findall(r"^\| `(.+?)` \|", DOCUMENT.split("## What they cost")[0], re.MULTILINE)
    names = []
    for pattern in patterns:
        parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
        names += ["".join(choice) for choice in product(*parts)]
    assert sorted(names) == sorted(MODEL_NAMES)


@pytest.mark.parametrize(("name", "scheme"), [("qgn_resnet50", "gtc"), ("drn_c_42", "dense")])
def test_the_documents_costs_are_what_is_counted(name, scheme, monkeypatch):
    monkeypatch.setattr(zoo, "MODEL_NAMES", (name,))
    counted = next(model for model in list_models() if model.scheme == scheme)
    figures = (counted.parameters / 1e6, counted.macs / 1e9, counted.kept_bytes / 2**30)
    row = "| `{}` | {} | {:.1f} | {:.0f} | {:.2f} |".format(name, scheme, *figures)
    assert row in DOCUMENT


def test_an_exported_checkpoint_predicts_the_same_and_tells_nothing_of_the_run(checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "published.safetensors"
    code, text, err = invoke(qgn_zoo, "export", checkpoint, "-o", out, monkeypatch=monkeypatch)
    assert code == 0, err
    assert text == f"{out}: weights, classes and scores; {tmp_path}/published.md: the model card\n"
    with safe_open(out, framework="pt") as file:
        assert all(name.startswith("model.") for name in file.keys())  # noqa: SIM118
        described = json.loads(file.metadata()["qgn"])
    assert str(tmp_path.parent) not in json.dumps(described)
    assert not set(described["config"]) & {"labels", "images", "work_dir", "device", "workers"}
    assert described["config"]["lr"] == 2e-3
    before, after = qgn.load(checkpoint, "cpu")(PHOTO), qgn.load(out, "cpu")(PHOTO)
    np.testing.assert_array_equal(before.classes, after.classes)
    card = (tmp_path / "published.md").read_text()
    assert card.startswith("# qgn_resnet18, 19 classes of cityscapes\n")
    assert str(checkpoint.parent) not in card
    parameters = sum(parameter.numel() for parameter in load_checkpoint(out)[1].parameters())
    for row in (
        "| trained on | cityscapes |", "| steps | 4 |", f"| parameters | {parameters:,} |", "| lr | 0.002 |",
        "| encoder started from | random weights |",
        "| 0 | road | 7 | #804080 |", "| 13 | car | 26 | #00008e |", "| photos (height x width) | 32 x 64 |",
    ):  # fmt: skip
        assert row in card
    miou = described["scores"]["pc"]["miou"]
    assert f"| mIoU, % | {miou:.2f} |" in card
    assert len(re.findall(r"^\| IoU of ", card, re.MULTILINE)) == 19


def test_a_second_export_and_unscored_weights(checkpoint, tmp_path):
    described, model = load_checkpoint(checkpoint)
    config = described.config | {"weights": "/mine/resnet18.safetensors", "dataset": "arrays"}
    save_checkpoint(tmp_path / "a.safetensors", replace(described, config=config, scores={}), model, None)
    first = export_checkpoint(tmp_path / "a.safetensors", tmp_path / "b.safetensors").read_text()
    again = export_checkpoint(tmp_path / "b.safetensors", tmp_path / "c.safetensors").read_text()
    assert again == first.replace("b.safetensors", "c.safetensors")
    for text in (
        "# qgn_resnet18, 19 classes of scenes.zarr\n", "| encoder started from | resnet18.safetensors |",
        "None: these weights were saved between evaluations",
    ):  # fmt: skip
        assert text in first


def test_nothing_is_replaced_without_being_asked(checkpoint, tmp_path):
    (tmp_path / "a.md").write_text("mine")
    with pytest.raises(TrainingError, match=r"a\.md: exists already"):
        export_checkpoint(checkpoint, tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.md"]
    export_checkpoint(checkpoint, tmp_path / "a.safetensors", overwrite=True)
    assert "mine" not in (tmp_path / "a.md").read_text()
    with pytest.raises(TrainingError, match=r"a\.safetensors: exists already"):
        export_checkpoint(checkpoint, tmp_path / "a.safetensors")


def test_the_examples_of_the_documents_run(checkpoint, tmp_path, monkeypatch):
    """Those of a model card and of docs/models.md."""
    monkeypatch.chdir(checkpoint.parent)
    card = export_checkpoint(checkpoint, tmp_path / "published.safetensors").read_text()
    for text, path in ((card, "published.safetensors"), (DOCUMENT, "runs/out/best.safetensors")):
        (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        names = {"photo": PHOTO}
        assert f'"{path}"' in example
        exec(example.replace(path, str(tmp_path / "published.safetensors")), names)
        assert names["classes"].shape == PHOTO.shape[:2]
        assert len(example.strip().splitlines()) == 4  # three, and an empty one
