import json
import sys

import pytest
from click.testing import CliRunner

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
        qgn_train, "--labels", scenes, "--work-dir", work, "--steps", 2, "--width", 4, "--batch-size", 2,
        "--workers", 0, "--image-size", "32x64", monkeypatch=monkeypatch,
    )  # fmt: skip
    assert code == 0, err
    assert "road" in out
    assert "4 training images, 2 validation images; 32x64" in out
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
    code, out, err = invoke(qgn_eval, *arguments, "--propagation", "pc", "--split", "all", monkeypatch=monkeypatch)
    assert code == 0, err
    assert "6 images" in out
    assert "pixel accuracy" in out
    photos = scenes.parent / "cityscapes" / "leftImg8bit" / "val"
    code, out, err = invoke(
        qgn_predict,
        photos,
        "--checkpoint",
        work / "best.safetensors",
        "--out",
        tmp_path / "out",
        monkeypatch=monkeypatch,
    )
    assert code == 0, err
    assert len(list((tmp_path / "out").iterdir())) == 6


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


@pytest.mark.parametrize("size", ["192", "0x5", "axb"])
def test_sizes_are_checked(size, tmp_path, monkeypatch):
    code, _, err = invoke(qgn_train, "--labels", "x", "--image-size", size, monkeypatch=monkeypatch)
    assert code == 2
    assert "expected HEIGHTxWIDTH such as 192x256" in err
