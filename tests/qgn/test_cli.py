import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import quadcodec
from qgn.checkpoint import load_checkpoint
from qgn.config import TrainConfig
from qgn.errors import TrainingError
from qgn.recipes import read_settings
from qgn.settings import parse
from quadcodec.repair import accept
from quadcodec.store import ClassInfo
from quadcodec_cli import qgn_eval, qgn_predict, qgn_train
from quadcodec_cli.errors import run


def invoke(module, *args, monkeypatch):
    """Run a command as its entry point does; return (exit code, stdout, stderr)."""
    import click

    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, args)])
    result = CliRunner().invoke(click.Command("whole", callback=lambda: run(module.cli)))
    return result.exit_code, result.stdout, result.stderr


def test_train_evaluate_predict(scenes, tmp_path, monkeypatch):
    work = tmp_path / "run"
    code, out, err = invoke(
        qgn_train, "--labels", scenes, "--work-dir", work, "steps=2", "width=4", "batch_size=2",
        "workers=0", "image_size=32x64", "recompute=true", monkeypatch=monkeypatch,
    )  # fmt: skip
    assert code == 0, err
    assert "road" in out
    assert "4 training images (split train), 2 validation images (split val); 32x64" in out
    assert "sparse convolutions: native (pairs of neighbours), decoder levels recomputed in the backward pass" in out
    code, _, err = invoke(qgn_train, "--labels", scenes, "--work-dir", work, monkeypatch=monkeypatch)
    assert code == 1
    assert "holds a run already" in err
    arguments = ["--checkpoint", work / "last.safetensors", "--labels", scenes, "--workers", 0]
    code, out, err = invoke(qgn_eval, *arguments, "--json", monkeypatch=monkeypatch)
    assert code == 0, err
    scores = json.loads(out)["schemes"]
    assert set(scores) == {"all", "gtc", "pc"}
    assert 0 <= scores["pc"]["miou"] <= 100
    assert set(scores["pc"]["sites"]) == {"5", "4", "3", "2", "1"}
    code, out, err = invoke(
        qgn_eval, *arguments, "--propagation", "gtc, pc,pc", "--split", "all", monkeypatch=monkeypatch
    )
    assert code == 0, err
    assert "6 images" in out
    assert [line.split()[0] for line in out.split("\n\n")[1].splitlines()] == ["scheme", "gtc", "pc"]
    assert "pixel accuracy" in out
    photos = scenes.parent / "cityscapes" / "leftImg8bit" / "val"
    arguments = [photos, "--checkpoint", work / "best.safetensors", "--out", tmp_path / "out"]
    code, out, err = invoke(qgn_predict, *arguments, monkeypatch=monkeypatch)
    assert code == 0, err
    assert len(list((tmp_path / "out" / "scenes").iterdir())) == 6
    code, _, err = invoke(qgn_predict, *arguments, monkeypatch=monkeypatch)
    assert code == 1
    assert "exists already" in err
    code, _, err = invoke(qgn_predict, *arguments, "--overwrite", monkeypatch=monkeypatch)
    assert code == 0, err


def test_a_damaged_photo_ends_in_one_line_whoever_reads_it(painted, tmp_path, monkeypatch):
    root = Path(painted.info.image_root)
    options = ["--labels", painted.path, "width=2", "steps=1", "image_size=none"]
    code, _, err = invoke(qgn_train, *options, "--work-dir", tmp_path / "good", monkeypatch=monkeypatch)
    assert code == 0, err
    for name in ("2.png", "4.png"):  # one to train on, one to validate on
        (root / name).write_bytes((root / name).read_bytes()[:-40])
    commands = {
        "qgn_train": [*options, "--work-dir", tmp_path / "run"],
        "qgn_eval": ["--checkpoint", tmp_path / "good" / "last.safetensors", "--labels", painted.path],
    }
    for module, arguments in commands.items():  # as a process of its own: a worker writes to the real stderr
        code = f"from quadcodec_cli.{module} import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "png: the photo cannot be read" in done.stderr
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_what_was_set_aside_is_said_and_scored(painted, tmp_path, monkeypatch):
    import quadcodec

    store = quadcodec.write(
        tmp_path / "all.zarr", list(painted), images=painted.columns.image, image_root=painted.info.image_root,
        splits=["test"] + ["some"] * 4, void=[255],
    )  # fmt: skip
    common = ["--labels", store.path]
    train = [*common, "--work-dir", tmp_path / "run", "workers=0", "width=2", "steps=1", "image_size=none"]
    code, out, err = invoke(qgn_train, *train, monkeypatch=monkeypatch)
    assert code == 0, err
    assert "3 training images (split some), 1 validation images (split set aside from some)" in out
    weights = ["--checkpoint", tmp_path / "run" / "last.safetensors"]
    code, out, err = invoke(qgn_eval, *common, "--workers", 0, *weights, monkeypatch=monkeypatch)
    assert code == 0, err
    assert "split val (set aside from some): 1 images" in out
    code, out, err = invoke(qgn_train, *train, "--overwrite", "train_split=test", monkeypatch=monkeypatch)
    assert code == 0, err
    assert "1 training images (split test), 0 validation images;" in out


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (qgn_train, ["--labels", "none.zarr"], "none.zarr: found nothing here"),
        (qgn_eval, ["--checkpoint", "x", "--labels", "none.zarr"], "x: cannot be read as a checkpoint"),
        (qgn_predict, ["nowhere", "--checkpoint", "x", "--out", "out"], "nowhere: no such file or folder"),
        (qgn_train, ["--labels", "none.zarr", "--device", "cuda:99"], "device 'cuda:99' cannot be used"),
    ],
)
def test_mistakes_end_in_one_line(module, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = invoke(module, *arguments, monkeypatch=monkeypatch)
    assert code == 1
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith(f"Error: {message}")


def test_ids_that_nothing_explains_end_in_one_line(painted, tmp_path, monkeypatch):
    plain = quadcodec.write(tmp_path / "plain.zarr", [np.array([[0, 255]], np.uint8)], images=["0.png"],
                            image_root=painted.info.image_root)  # fmt: skip
    code, _, err = invoke(qgn_train, "--labels", plain.path, monkeypatch=monkeypatch)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "Use void=255 if it is unlabelled, or void=none if it is a class" in err
    classes = [ClassInfo(0, "road", None, 0)]
    named = quadcodec.write(tmp_path / "named.zarr", [np.array([[0, 99]], np.uint8)], images=["0.png"],
                            image_root=painted.info.image_root, classes=classes)  # fmt: skip
    group = zarr.open_group(str(named.path), mode="r+")
    group.attrs["quadcodec"] = {**group.attrs["quadcodec"], "train_classes": ["road"]}
    accept(named.path)
    code, _, err = invoke(qgn_train, "--labels", named.path, monkeypatch=monkeypatch)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "ids [99] occur" in err


def test_settings_come_from_recipe_file_and_command_line(scenes, tmp_path, monkeypatch):
    code, out, _ = invoke(qgn_train, "--recipe", "list", monkeypatch=monkeypatch)
    assert code == 0
    assert "cityscapes_gtc_adaptive  Table 1: Cityscapes, trained with GTC" in out
    work = tmp_path / "run"
    (tmp_path / "mine.toml").write_text('model = "qgn_resnet18"\nsteps = 2\nbatch_size = 4\n')
    code, out, err = invoke(
        qgn_train, "--recipe", "cityscapes_gtc_gamma125", "--config", tmp_path / "mine.toml", "--labels", scenes,
        "--work-dir", work, "--device", "cpu", "width=2", "batch_size=2", "workers=0",
        "held_aside=1", "short_edges=64", monkeypatch=monkeypatch,
    )  # fmt: skip
    assert code == 0, err
    assert "native size" in out
    saved = read_settings(work / "config.toml")
    assert (saved["lr"], saved["gamma"], saved["steps"], saved["width"], saved["batch_size"]) == (0.02, 1.25, 2, 2, 2)
    assert saved["eval_every"] == 5000
    described, _ = load_checkpoint(work / "last.safetensors")
    assert {**saved, "labels": described.config["labels"]} == {
        key: tuple(v) if isinstance(v, list) else v for key, v in described.config.items() if key != "void"
    }


def test_every_setting_is_an_option_too(monkeypatch):
    said = []

    def gathered(file, recipe, texts, resume):
        said.extend(texts)
        raise TrainingError("enough")

    monkeypatch.setattr("qgn.setup.gather", gathered)
    options = [
        "--image-size", "192x256", "--lr", "2e-3", "--void", 255, "--void", "7", "--no-flip", "--recompute", "--native",
    ]  # fmt: skip
    code, _, err = invoke(qgn_train, "--labels", "a.zarr", *options, "steps=9", monkeypatch=monkeypatch)
    assert (code, err.splitlines()[-1].split()[-1]) == (1, "enough")
    assert sorted(said[:-2]) == [  # click gives them in another order
        "flip=false", "image_size=192x256", "labels=a.zarr", "lr=2e-3", "recompute=true", "void=255,7",
    ]  # fmt: skip
    assert said[-2:] == ["image_size=none", "steps=9"]
    assert parse(TrainConfig, said)["void"] == (255, 7)
    code, out, _ = invoke(qgn_train, "--help", monkeypatch=monkeypatch)
    assert code == 0
    assert all(f"--{field.name.replace('_', '-')} " in out for field in fields(TrainConfig))


def test_a_run_is_resumed_with_its_own_settings(scenes, tmp_path, monkeypatch):
    places = ["--labels", scenes, "--work-dir", tmp_path / "run", "--device", "cpu"]
    settings = ["width=2", "steps=1", "batch_size=2", "workers=0"]
    code, _, err = invoke(qgn_train, "--resume", *places, *settings, monkeypatch=monkeypatch)
    assert code == 0, err  # nothing to resume: it begins
    log = (tmp_path / "run" / "log.jsonl").read_text()
    code, _, err = invoke(qgn_train, "--resume", *places, monkeypatch=monkeypatch)
    assert code == 0, err
    assert (tmp_path / "run" / "log.jsonl").read_text() == log
    code, _, err = invoke(qgn_train, "--resume", *places, "lr=1", monkeypatch=monkeypatch)
    assert code == 1
    assert "other settings: lr=1.0 where it had 0.002" in err
    code, _, err = invoke(qgn_train, "--resume", "--overwrite", *places, monkeypatch=monkeypatch)
    assert code == 2
    assert "--resume goes on with the run that --overwrite deletes" in err
