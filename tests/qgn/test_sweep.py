"""What accuracy costs: scores with multiply-adds, the choice of a rule, limits at inference, and the commands."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import quadcodec
from qgn.checkpoint import load_checkpoint, save_checkpoint
from qgn.data.splits import divide
from qgn.errors import TrainingError
from qgn.evaluate import evaluate, evaluate_checkpoint, evaluation_loader
from qgn.models.build import build_model
from qgn.predict import load_predictor
from qgn.sparse.propagation import Limits
from qgn.sweep import RULES, best_rule, choose_threshold
from qgn.zoo import export_checkpoint
from quadcodec_cli import qgn_eval, qgn_predict

from .test_cli import invoke


@pytest.fixture
def greedy(checkpoint):
    """A model of the checkpoint that calls about half of its cells composite."""
    described, model = load_checkpoint(checkpoint)
    torch.manual_seed(0)
    for head in model.decoder.heads:
        torch.nn.init.normal_(head.weight, std=1.0)
        torch.nn.init.zeros_(head.bias)
        head.bias.data[0] = 4
    return described, model


@pytest.fixture
def _cpu(monkeypatch):
    """Keep the commands to one thread, as `_one_thread` does."""
    monkeypatch.setattr("qgn.device.choose_device", lambda *_: "cpu")


def loader_of(store, indices, classes):
    root = Path(store.info.image_root)
    return evaluation_loader(store, indices, root, classes, size=(32, 64), batch_size=2, workers=0)


def test_the_best_rule_is_the_most_accurate_one_that_is_cheap_enough():
    table = [
        ("pc", 50.0, 10.0), ("prod>0.3", 55.0, 20.0), ("prod>0.1", 60.0, 20.1), ("uncp>0.2", 55.0, 5.0),
        ("uncp>0.9", float("nan"), 0.0),
    ]  # fmt: skip
    scores = {rule: SimpleNamespace(miou=miou, share=share) for rule, miou, share in table}
    assert best_rule(scores, 20.0) == "prod>0.3"
    assert best_rule(scores, 30.0) == "prod>0.1"
    assert best_rule(scores, 1.0) is None


@pytest.fixture
def held(scenes, greedy, tmp_path):
    """A checkpoint of that model, whose training held two images aside, and their names."""
    described, model = greedy
    store = quadcodec.open(scenes)
    config = described.config | {"held_aside": 2}
    path = tmp_path / "held.safetensors"
    save_checkpoint(path, replace(described, config=config), model, None)
    aside = divide(
        store, Path(store.info.image_root), train_split=None, val_fraction=0.1, seed=0, held_aside=2
    ).held_aside  # fmt: skip
    return path, aside


def test_a_threshold_is_chosen_on_held_aside_images(scenes, held):
    path, aside = held
    store, (described, model) = quadcodec.open(scenes), load_checkpoint(path)
    scores = evaluate(model, loader_of(store, aside, described.classes), described.classes, RULES)
    shares = {rule: s.share for rule, s in scores.items()}
    assert len(set(shares.values())) > 8
    for family in ("prod", "uncp"):
        falling = [share for rule, share in shares.items() if rule.startswith(family)]
        assert falling == sorted(falling, reverse=True)
    limit = sorted(shares.values())[len(shares) // 2]
    choice = choose_threshold(path, scenes, limit, workers=0)
    assert choice.rule == best_rule(scores, limit)
    assert choice.held_aside.images == 2
    assert choice.held_aside.set_aside_from == "train"
    assert {rule: s.miou for rule, s in choice.held_aside.schemes.items()} == {r: s.miou for r, s in scores.items()}
    stopped = choose_threshold(path, scenes, 100.0, limits=Limits(stop=3), workers=0)
    assert stopped.rule.endswith(" stop=3")


def test_a_choice_that_cannot_be_made_is_refused(scenes, held, checkpoint, tmp_path):
    path, _ = held
    with pytest.raises(TrainingError, match=r"no rule computes 0 % of the cells or less .* the least is \d"):
        choose_threshold(path, scenes, 0.0, workers=0)
    with pytest.raises(TrainingError, match=r"was trained with held_aside=0. Train with held_aside=N"):
        choose_threshold(checkpoint, scenes, 20.0, workers=0)
    described, model = load_checkpoint(path)
    save_checkpoint(path, replace(described, config=described.config | {"labels": "/other.zarr"}), model, None)
    with pytest.raises(TrainingError, match=r"was trained on /other\.zarr\. Train with held_aside=N on this store"):
        choose_threshold(path, scenes, 20.0, workers=0)


@pytest.mark.usefixtures("_cpu")
def test_choosing_from_the_command_line(scenes, held, tmp_path, monkeypatch):
    path, _ = held
    common = ["--checkpoint", path, "--labels", scenes, "--workers", 0]
    rule = choose_threshold(path, scenes, 20.0, workers=0).rule
    code, out, err = invoke(qgn_eval, *common, "--choose", 20, monkeypatch=monkeypatch)
    assert code == 0, err
    assert out.startswith(f"chosen: {rule}, the best of 18 rules that compute at most 20 % of the cells on the 2 held")
    assert [line.split("  ")[0] for line in out.split("\n\n")[2].splitlines()] == ["scheme", "gtc", "pc", rule]
    code, out, err = invoke(
        qgn_eval, *common, "--choose", 20, "--propagation", "all", "--json", monkeypatch=monkeypatch
    )  # fmt: skip
    assert code == 0, err
    values = json.loads(out)
    assert list(values["schemes"]) == ["all", rule]
    assert (values["choice"]["rule"], values["choice"]["images"]) == (rule, 2)
    assert set(values["choice"]["held_aside"]) == set(RULES)


def test_an_exported_file_propagates_as_it_was_told(scenes, held, tmp_path):
    path, _ = held
    out = tmp_path / "published.safetensors"
    card = export_checkpoint(path, out, propagation="prod>0.30")
    assert "| cells that go on | prod>0.3 |" in card.read_text()
    photo = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    assert load_predictor(out).propagation == "prod>0.3"
    assert load_predictor(out, propagation="pc").propagation == "pc"
    told = load_predictor(path, propagation="prod>0.3")(photo)
    np.testing.assert_array_equal(load_predictor(out)(photo).grown.nodes, told.grown.nodes)
    assert list(evaluate_checkpoint(out, scenes, workers=0).schemes) == ["gtc", "all", "pc", "prod>0.3"]
    export_checkpoint(out, tmp_path / "again.safetensors")
    assert load_predictor(tmp_path / "again.safetensors").propagation == "prod>0.3"
    with pytest.raises(TrainingError, match="follows the ground truth"):
        export_checkpoint(path, tmp_path / "x.safetensors", propagation="union")
    assert not (tmp_path / "x.safetensors").exists()


def test_scores_count_cells_and_multiply_adds(scenes, greedy):
    store, (described, model) = quadcodec.open(scenes), greedy
    loader = loader_of(store, store.indices("val").tolist(), described.classes)
    scores = evaluate(model, loader, described.classes, ["all", "pc", "pc sites=9", "pc gmacs=0.0005", "pc stop=3"])
    cells = {level: 2 * 4 ** (5 - level) for level in (5, 4, 3, 2, 1)}
    for s in scores.values():
        assert s.share == pytest.approx(100 * sum(s.sites.values()) / sum(cells.values()))
        assert s.encoder_gmacs == scores["all"].encoder_gmacs > 0
    assert scores["all"].share == 100
    assert sum(scores["pc sites=9"].sites.values()) <= 9 < sum(scores["pc"].sites.values())
    assert scores["pc gmacs=0.0005"].decoder_gmacs <= 0.0005 < scores["pc"].decoder_gmacs
    assert scores["pc"].decoder_gmacs < scores["all"].decoder_gmacs
    assert [scores["pc stop=3"].sites[level] for level in (3, 2, 1)] == [0, 0, 0]
    assert scores["pc stop=3"].sites[4] == scores["pc"].sites[4] > 0


def test_a_dense_model_counts_its_head(scenes, checkpoint):
    store, (described, _) = quadcodec.open(scenes), load_checkpoint(checkpoint)
    model = build_model("dilated8_resnet18", len(described.classes), width=2)
    scores = evaluate(model, loader_of(store, [0, 1], described.classes), described.classes, ["dense"])["dense"]
    assert scores.decoder_gmacs == pytest.approx(4 * 8 * model.encoder.channels[-1] * len(described.classes) / 1e9)
    assert np.isnan(scores.share)


def test_a_context_module_is_counted(scenes, checkpoint):
    store, (described, _) = quadcodec.open(scenes), load_checkpoint(checkpoint)
    torch.manual_seed(0)
    model = build_model("qgn_resnet18_ppm", len(described.classes), width=8)
    scores = evaluate(model, loader_of(store, [0, 1], described.classes), described.classes, ["pc stop=5"])["pc stop=5"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval().decoder.context(torch.zeros(2, model.encoder.channels[-1], 1, 2))
    head = 2 * model.decoder.heads[0].weight.numel()
    assert scores.decoder_gmacs == pytest.approx((head + counter.get_total_flops() // 2 / 2) / 1e9)
    assert counter.get_total_flops() > 0


def test_limits_hold_for_every_scheme(checkpoint, scenes):
    names = load_checkpoint(checkpoint)[0].classes.names
    limits = Limits(stop=2, classes=("car", "road"), sites=3)
    evaluation = evaluate_checkpoint(checkpoint, scenes, schemes=["all", "gtc"], limits=limits, workers=0)
    numbers = f"{names.index('car')}+{names.index('road')}"
    assert list(evaluation.schemes) == [f"{rule} stop=2 classes={numbers} sites=3" for rule in ("all", "gtc")]
    for scores in evaluation.schemes.values():
        assert sum(scores.sites.values()) <= 3
    assert Limits().on("dense", names) == "dense"


def test_a_predictor_propagates_as_it_is_told(checkpoint):
    photo = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    everything = load_predictor(checkpoint, propagation="all")(photo).grown
    assert len(everything.level(0)) == 32 * 64
    stopped = load_predictor(checkpoint, propagation="all", limits=Limits(stop=3))(photo)
    assert len(stopped.grown.level(3)) == 32
    assert len(stopped.grown.level(2)) == 0
    blocks = stopped.classes.reshape(4, 8, 8, 8)
    assert (blocks == blocks[:, :1, :, :1]).all()
    few = load_predictor(checkpoint, propagation="all", limits=Limits(sites=5))(photo).grown
    assert len(few.nodes) == 2 + 4 * 5


@pytest.mark.usefixtures("_cpu")
def test_a_sweep_from_the_command_line(checkpoint, scenes, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra 'bench')")
    common = ["--checkpoint", checkpoint, "--labels", scenes, "--workers", 0]
    picture = tmp_path / "sweep.png"
    code, out, err = invoke(qgn_eval, *common, "--sweep", "--plot", picture, "--csv", monkeypatch=monkeypatch)
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["propagation"] for row in rows] == list(RULES)
    assert all(0 <= float(row["share"]) <= 100 and float(row["encoder_gmacs"]) > 0 for row in rows)
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 300
    code, _, err = invoke(qgn_eval, *common, "--sweep", "--plot", picture, monkeypatch=monkeypatch)
    assert code == 1
    assert "exists already" in err
    options = ["--sweep", "--propagation", "pc,prod>0.3", "--budget-gmacs", 0.001, "--stop-level", 1]
    code, out, err = invoke(qgn_eval, *common, *options, monkeypatch=monkeypatch)
    assert code == 0, err
    names = ["pc stop=1 gmacs=0.001", "prod>0.3 stop=1 gmacs=0.001"]
    lines = [line.split("  ")[0] for line in out.splitlines()]
    assert lines[lines.index("scheme") + 1 :] == names


@pytest.mark.usefixtures("_cpu")
def test_predicting_under_limits_from_the_command_line(checkpoint, scenes, tmp_path, monkeypatch):
    photo = next((scenes.parent / "cityscapes" / "leftImg8bit" / "val").rglob("*.png"))
    common = [photo, "--checkpoint", checkpoint, "--propagation", "all"]
    for name, limits in (("fine", []), ("coarse", ["--stop-level", 3, "--classes", "car,traffic light"])):
        code, _, err = invoke(qgn_predict, *common, *limits, "--out", tmp_path / name, monkeypatch=monkeypatch)
        assert code == 0, err
    fine, coarse = (np.asarray(Image.open(next((tmp_path / name).glob("*_labels.png")))) for name in ("fine", "coarse"))
    assert (np.diff(coarse) != 0).sum() < (np.diff(fine) != 0).sum()
    code, _, err = invoke(
        qgn_predict, *common, "--classes", "unicorn", "--out", tmp_path / "x", monkeypatch=monkeypatch
    )
    assert code == 1
    assert "the model has no such class, expected some of road" in err
