"""Models under one budget: rows that are read again, interrupted ones that go on, means and what they do not say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
from click.testing import CliRunner

from qgn.bench import table
from qgn.bench.table import Plan, Result, lines, make_plans, measure_step, run_table
from qgn.errors import TrainingError
from qgn.evaluate import evaluate_checkpoint
from qgn.models.resnet import ResNet
from qgn.run_folder import LAST, LOG
from qgn.setup import prepare, resolve
from quadcodec.convert import convert, plan_conversion
from quadcodec_cli.qgn_bench import cli

SETTINGS = {"width": 4, "batch_size": 2, "steps": 2, "workers": 0, "image_size": (32, 64), "device": "cpu"}
PLANS = [Plan("qgn_resnet18", "gtc", "pc"), Plan("dilated32_resnet18", "dense", "dense")]


def results(scenes, out, plans=PLANS, seeds=(0,), **settings):
    return list(run_table({"labels": str(scenes), **SETTINGS, **settings}, plans, seeds, out))


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("table")
    return out, results(scenes, out)


def folder(out, row):
    return next(path for path in Path(out).iterdir() if path.name.startswith(row.model))


def test_a_row_holds_the_last_checkpoint_s_scores(scenes, finished):
    out, rows = finished
    assert [(row.model, row.training, row.evaluation) for row in rows] == [
        ("qgn_resnet18", "gtc", "pc"),
        ("dilated32_resnet18", "dense", "dense"),
    ]
    for row in rows:
        scores = evaluate_checkpoint(
            folder(out, row) / LAST, scenes, split="val", schemes=[row.evaluation], workers=0
        ).schemes[row.evaluation]
        assert row.miou == scores.miou
        assert row.pixel_accuracy == scores.pixel_accuracy
        assert row.gmacs == scores.encoder_gmacs + scores.decoder_gmacs
        assert row.kept_bytes > 0
        assert row.step_seconds > 0
        steps = [json.loads(line) for line in (folder(out, row) / LOG).read_text().splitlines()]
        times = [2 / step["images_per_second"] for step in steps if "images_per_second" in step]
        assert len(times) == 2
        assert row.seconds == pytest.approx(sum(times))


def test_a_finished_row_is_read_and_an_interrupted_one_goes_on(scenes, finished, tmp_path, monkeypatch):
    out, rows = finished
    trained = []
    train = table.train
    monkeypatch.setattr(table, "train", lambda setup, **how: trained.append(setup.config.model) or train(setup, **how))
    assert results(scenes, out) == rows
    assert trained == []
    (folder(out, rows[1]) / "row.json").unlink()
    again = results(scenes, out)
    assert trained == ["dilated32_resnet18"]
    # Its last step had been saved: nothing is trained, and the log still has the times of its steps.
    assert [replace(row, step_seconds=0) for row in again] == [replace(row, step_seconds=0) for row in rows]


def test_a_row_of_other_settings_is_not_taken(scenes, finished):
    out, _ = finished
    with pytest.raises(TrainingError, match=r"row.json: was trained with lr=0.002, not 0.001. Choose another --out"):
        results(scenes, out, lr=1e-3)


def test_a_row_of_another_store_or_other_weights_is_not_taken(scenes, finished, tmp_path):
    out, _ = finished
    other = tmp_path / "other.zarr"
    convert(plan_conversion(scenes.parent / "cityscapes", splits=["train"]), other)
    with pytest.raises(TrainingError, match=r"row.json: was trained on .*scenes.zarr, whose images and labels are not"):
        list(run_table({"labels": str(other), **SETTINGS}, PLANS, (0,), out))
    weights = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(ResNet(18, width=4).state_dict(), weights)
    with pytest.raises(TrainingError, match=r"row.json: was trained with weights=None, not .*weights.safetensors"):
        results(scenes, out, weights=str(weights))


@pytest.mark.parametrize("key", ["seed", "model", "propagation", "eval_every", "work_dir"])
def test_what_the_table_sets_is_no_setting(scenes, tmp_path, key):
    with pytest.raises(TrainingError, match=f"setting '{key}': the table sets it itself"):
        results(scenes, tmp_path / "out", **{key: 1})
    assert not (tmp_path / "out").exists()


def test_a_step_is_measured_on_what_is_trained_on(scenes, tmp_path):
    def kept(**settings):
        config = resolve({"labels": str(scenes), **SETTINGS, "work_dir": str(tmp_path), **settings}, "cpu")
        return measure_step(prepare(config))[0]

    small, large = kept(image_size=(32, 32)), kept(image_size=None)
    assert kept(image_size=None, crop=(32, 32)) < 1.5 * small < large
    assert kept(image_size=(32, 32), backend="dense") == small  # any run is measured with the native convolutions


@pytest.mark.parametrize(
    ("model", "training", "evaluation", "found"),
    [
        ("resnet", "gtc", "pc", "model 'resnet' is unknown"),
        ("qgn_resnet18", "dense", "pc", "no such rule"),
        ("dilated32_resnet18", "dense", "pc", "the model knows only dense"),
    ],
)
def test_wrong_names_are_found_before_the_first_step(scenes, tmp_path, model, training, evaluation, found):
    with pytest.raises(TrainingError, match=found):
        results(scenes, tmp_path / "out", [*PLANS, Plan(model, training, evaluation)])
    assert not (tmp_path / "out").exists()


def test_models_and_schemes_make_plans():
    plans = make_plans(["qgn_resnet18", "pspnet_resnet18", "qgn_resnet18_ppm:gtc->union@2/3/pc"], ["gtc/pc", "all/all"])
    assert plans == [
        Plan("qgn_resnet18", "gtc", "pc"),
        Plan("qgn_resnet18", "all", "all"),
        Plan("pspnet_resnet18", "dense", "dense"),
        Plan("qgn_resnet18_ppm", "gtc->union@2/3", "pc"),
    ]
    assert [plan.name for plan in plans[1:]] == [
        "qgn_resnet18 all",
        "pspnet_resnet18 dense",
        "qgn_resnet18_ppm gtc->union@2of3 pc",
    ]


def test_means_over_seeds_and_no_order_below_two_points():
    def row(model, seed, miou):
        return Result(model, "dense", "dense", seed, miou, 80.0 + seed, 1.5, 1000, 60.0, 0.5, {}, {})

    found = lines([row("a", 0, 40.0), row("b", 0, 43.0), row("a", 1, 42.0), row("b", 1, 43.5), row("c", 0, 41.3)])
    assert [(line.model, line.seeds, line.miou, line.pixel_accuracy) for line in found] == [
        ("a", (0, 1), 41.0, 80.5),
        ("b", (0, 1), 43.25, 80.5),
        ("c", (0,), 41.3, 80.0),
    ]
    assert found[0].miou_sd == pytest.approx(2**0.5)
    assert found[2].miou_sd is None
    assert [line.behind for line in found] == [2.25, None, None]


def test_the_command(scenes, finished):
    out, rows = finished
    args = ["table", str(scenes), "--models", "qgn_resnet18,dilated32_resnet18", "--steps", "2", "--seeds", "0",
            "--out", str(out), "width=4", "batch_size=2", "workers=0", "image_size=32x64"]  # fmt: skip
    for form in ("--json", "--markdown"):
        result = CliRunner().invoke(cli, [*args, form], catch_exceptions=False)
        assert result.exit_code == 0
        if form == "--json":
            values = json.loads(result.stdout)
            assert [row["miou"] for row in values["rows"]] == [row.miou for row in rows]
            assert [line["seeds"] for line in values["table"]] == [[0], [0]]
        else:
            assert result.stdout.startswith("| model | trained |")
            assert f"| {rows[0].miou:.1f} |" in result.stdout
    for wrong in (["--seeds", "one"], ["--seeds", "0,00"], ["steps=3"], ["labels=x"]):
        assert CliRunner().invoke(cli, [*args, *wrong]).exit_code == 2
