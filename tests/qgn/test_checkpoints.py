"""Every model loads its own checkpoint, and no other's."""

import json

import pytest
import safetensors
import safetensors.torch
import torch

from qgn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from qgn.data.classes import ClassMap
from qgn.errors import CheckpointError
from qgn.models.build import MODEL_NAMES, QUADTREE, build_model
from qgn.models.qgn import VARIANTS

CLASSES = ClassMap(("a", "b"), {0: 0, 1: 1}, ((0, 0, 0), (9, 9, 9)))
MODELS = [(name, ()) for name in MODEL_NAMES] + [("qgn_resnet18", (variant,)) for variant in VARIANTS]


def saved(path, name, variants, width=2):
    torch.manual_seed(0)
    model = build_model(name, len(CLASSES), width=width, variants=variants)
    save_checkpoint(path, Checkpoint(name, width, CLASSES, None, 1, {}, {}, variants), model, torch.ones(2))
    return model.eval()


@pytest.mark.parametrize(("name", "variants"), MODELS)
def test_every_model_loads_its_own_checkpoint(name, variants, tmp_path):
    model = saved(tmp_path / "a.safetensors", name, variants)
    described, loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert (described.model, described.variants) == (name, variants)
    images = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        for mine, theirs in zip(loaded(images).logits, model(images).logits, strict=True):
            assert torch.equal(mine, theirs)


def rename(path, **values):
    """Let a checkpoint claim to be of another model."""
    with safetensors.safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["qgn"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    described.update(values)
    safetensors.torch.save_file(tensors, path, metadata={"qgn": json.dumps(described)})


@pytest.mark.parametrize(
    ("name", "variants", "claim", "found"),
    [
        ("qgn_resnet18", (), {"model": "qgn_resnet34"}, r"do not fit qgn_resnet34 of width 2"),
        ("qgn_resnet18", (), {"model": "qgn_resnet18_ppm"}, r"do not fit qgn_resnet18_ppm"),
        ("qgn_resnet18", ("convt",), {"variants": []}, r"do not fit qgn_resnet18 of width 2"),
        ("qgn_resnet18", (), {"variants": ["stem64"]}, r"do not fit qgn_resnet18 stem64 of width 2"),
        ("pspnet_resnet18", (), {"model": "pointrend_resnet18"}, r"do not fit pointrend_resnet18"),
        ("dilated8_resnet18", (), {"model": "dilated8_resnet50"}, r"do not fit dilated8_resnet50"),
        ("dilated8_resnet18", (), {"variants": ["convt"]}, r"is dense and has no variant 'convt'"),
        ("dilated8_resnet18", (), {"model": "segnet"}, r"model 'segnet' is unknown"),
        ("qgn_resnet18", (), {"variants": "convt"}, r"variant 'c' is unknown"),
    ],
)
def test_another_models_weights_are_refused_in_one_line(name, variants, claim, found, tmp_path):
    path = tmp_path / "a.safetensors"
    saved(path, name, variants)
    rename(path, **claim)
    with pytest.raises(CheckpointError, match=found) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200
    assert "holds no description" in str(caught.value) or "damaged or was edited" in str(caught.value)


def test_a_checkpoint_of_version_1_has_no_variants(tmp_path):
    path = tmp_path / "a.safetensors"
    saved(path, "qgn_resnet18", ())
    with safetensors.safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["qgn"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del described["variants"]
    safetensors.torch.save_file(tensors, path, metadata={"qgn": json.dumps(described | {"version": 1})})
    assert load_checkpoint(path)[0].variants == ()


def test_names_say_what_they_are():
    assert set(QUADTREE) == {f"qgn_resnet{depth}{end}" for depth in (18, 34, 50, 101) for end in ("", "_ppm")}
    for name in ("dilated8_resnet50", "dilated32_resnet101", "pspnet_resnet18", "pointrend_resnet50"):
        assert name in MODEL_NAMES
