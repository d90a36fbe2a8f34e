import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from PIL import Image

import quadcodec
from quadcodec_cli.errors import run
from quadcodec_cli.main import cli


def invoke(*args):
    """Run a command in this process; return (exit code, stdout, stderr) as a shell would see them."""
    import click

    @click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
    @click.argument("rest", nargs=-1, type=click.UNPROCESSED)
    def whole(rest):
        old, sys.argv = sys.argv, ["quadcodec", *rest]
        try:
            run(cli)
        finally:
            sys.argv = old

    result = CliRunner().invoke(whole, [str(a) for a in args])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def store(cityscapes, tmp_path):
    code, out, err = invoke("convert", cityscapes, tmp_path / "out.zarr")
    assert code == 0, err
    assert "cityscapes, train 3, val 2" in out
    assert "2 masks have no photo" in out
    return tmp_path / "out.zarr"


def fails(*args):
    """Run a command that must fail in one clear line, and return that line."""
    code, out, err = invoke(*args)
    assert code == 1
    assert out == ""
    lines = [line for line in err.splitlines() if not line.lstrip("\r").startswith(("convert:", "export:"))]
    assert len(lines) == 1, err
    assert lines[0].startswith("Error: ")
    return lines[0]


def test_convert_json(cityscapes, tmp_path):
    code, out, _ = invoke("convert", cityscapes, tmp_path / "out.zarr", "--json", "--split", "train")
    assert code == 0
    report = json.loads(out)
    assert report["splits"] == {"train": 3}
    assert report["pixels"] == 3 * 50 * 70
    assert report["stored_bytes"] > 0


def test_void_is_named_by_the_user(tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "masks" / "a.png")
    assert invoke("convert", tmp_path / "masks", tmp_path / "out.zarr", "--void", "255")[0] == 0
    assert quadcodec.open(tmp_path / "out.zarr").info.void == (255,)


def test_stats_prints_the_published_row_below_ours(store):
    code, out, _ = invoke("stats", store)
    assert code == 0
    assert "66.34" in out
    assert "diff." in out
    assert all(len(line) <= 100 for line in out.splitlines() if not line.startswith(str(store)))
    rows = json.loads(invoke("stats", store, "--json")[1])["rows"]
    keys = {
        "path", "dataset", "split", "classes", "images", "pixels", "padded_pixels", "percent", "leaf_ratio_percent",
        "leaf_ratio_mean", "stored_bytes", "stored_bits_per_pixel", "published", "profile", "percent_error",
        "leaf_ratio_error", "source_bytes", "dense_bytes", "class_frequencies", "difference",
    }  # fmt: skip
    assert all(set(row) == keys for row in rows)


def test_stats_of_several_paths_in_every_form(store, cityscapes):
    out = invoke("stats", store, cityscapes, "--classes", "raw,train", "--csv")[1]
    lines = list(csv.DictReader(out.splitlines()))
    q5 = [line for line in lines if line["item"] == "Q5"]
    assert [(line["path"], line["split"], line["classes"]) for line in q5] == [
        (str(path), split, space)
        for path in (store, cityscapes) for split in ("train", "val") for space in ("raw", "train")
    ]  # fmt: skip
    rows = json.loads(invoke("stats", store, "--json")[1])["rows"]
    assert float(q5[0]["value"]) == rows[0]["percent"]["5"]
    assert float(q5[0]["difference"]) == rows[0]["difference"]["5"]
    assert q5[0]["paper"] == "66.34"
    first = [line for line in lines if line["path"] == str(store) and line["split"] == "train"]
    pixels = [line for line in first if line["measure"] == "class pixels" and line["classes"] == "raw"]
    frequencies = {line["item"]: int(line["value"]) for line in pixels}
    assert sum(frequencies.values()) == rows[0]["pixels"]
    assert "1 ego vehicle" in frequencies
    out = invoke("stats", store, cityscapes, "--markdown")[1]
    assert f"## {store}: cityscapes, store of profile fast" in out
    tables = [line for line in out.splitlines() if line.startswith("|")]
    assert "| split | ids | images | Q5 | Q4 | Q3 | Q2 | Q1 | Q0 | ratio |" in tables
    assert "| paper |  |  | 66.34 | 14.21 | 9.18 | 5.52 | 3.02 | 1.70 | 3.07 |" in tables
    assert invoke("stats", store, "--classes", "half")[0] == 2


def test_ten_levels_fit_the_terminal(tmp_path):
    quadcodec.write(tmp_path / "deep.zarr", [np.eye(600, dtype=np.uint8)] * 2, levels=10, splits=["train", "val"])
    out = invoke("stats", tmp_path / "deep.zarr")[1]
    assert "Q9" in out
    assert all(len(line) <= 100 for line in out.splitlines() if not line.startswith(str(tmp_path)))


def test_datasets_lists_and_explains(tmp_path):
    out = invoke("datasets")[1]
    for name in (
        "ade20k",
        "camvid",
        "cityscapes",
        "cocostuff",
        "nyuv2_13",
        "sunrgbd13",
        "sunrgbd37",
        "voc2012",
        "folder",
    ):
        assert f"\n{name} " in out
    assert "train_extra (optional)" in out
    found = json.loads(invoke("datasets", "--json")[1])["datasets"]
    assert {one["name"]: one["masks"] for one in found}["cityscapes"] == 3475
    out = invoke("datasets", "cityscapes")[1]
    for part in (
        "non-commercial",
        "gtFine_trainvaltest.zip",
        "gtFine/{split}",
        "made files",
        "66.34",
        "26  car",
        "768",
    ):
        assert part in out
    assert json.loads(invoke("datasets", "sunrgbd13", "--json")[1])["published"]["val"]["5"] is None
    assert "4.29" in invoke("datasets", "sunrgbd13")[1]
    assert "no such manifest" in fails("datasets", "imagenet")
    (tmp_path / "mine.toml").write_text("name = 3")
    assert "mine.toml: key 'splits': is missing" in fails("datasets", tmp_path / "mine.toml")


def test_stats_takes_the_only_store_here(store, monkeypatch):
    monkeypatch.chdir(store.parent)
    code, out, _ = invoke("stats")
    assert code == 0
    assert "out.zarr" in out
    store.rename(store.with_name("other"))
    code, _, err = invoke("stats")
    assert code == 2
    assert "found 0 stores" in err


def test_info_validate_export_view(store, cityscapes, tmp_path):
    code, out, _ = invoke("info", store)
    assert code == 0
    assert "5 (train 3, val 2), 40 x 90 .. 50 x 70" in out or "5 (train 3, val 2), 50 x 70 .. 40 x 90" in out
    assert json.loads(invoke("info", store, "--json")[1])["images"] == 5
    assert invoke("validate", store, "--deep")[0] == 0
    assert invoke("export", store, "--png", tmp_path / "png")[0] == 0
    name = "gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png"
    with Image.open(tmp_path / "png" / name) as ours, Image.open(cityscapes / name) as source:
        assert ours.mode == source.mode
        np.testing.assert_array_equal(np.array(ours), np.array(source))
    code, out, _ = invoke("view", store, "aachen/aachen_000000_000019", "-o", tmp_path / "levels.png")
    assert code == 0
    with Image.open(tmp_path / "levels.png") as picture:
        assert picture.mode == "RGB"
        assert picture.width > 6 * 70


def test_pyramid_and_ngff_are_ordinary_arrays(cityscapes, tmp_path):
    assert invoke("convert", cityscapes, tmp_path / "out.zarr", "--pyramid", "5,3")[0] == 0
    level = zarr.open(str(tmp_path / "out.zarr"), mode="r")["pyramid/3"]
    assert level.shape == (5, 7, 12)
    assert "road" in level.attrs["flag_meanings"].split()
    assert invoke("validate", tmp_path / "out.zarr", "--deep")[0] == 0
    assert invoke("convert", cityscapes, tmp_path / "out.zarr", "--pyramid", "5,3", "--resume")[0] == 0
    assert "lacks levels [4]" in fails("convert", cityscapes, tmp_path / "out.zarr", "--pyramid", "4", "--resume")
    code, out, _ = invoke("export", tmp_path / "out.zarr", "--ngff", tmp_path / "ngff")
    assert (code, out) == (0, f"{tmp_path / 'ngff'}: 5 masks\n")
    np.testing.assert_array_equal(
        zarr.open(str(tmp_path / "ngff"), mode="r")["labels/classes/0"][0, :50, :70],
        quadcodec.open(tmp_path / "out.zarr")[0],
    )
    assert "out.zarr2: found levels [6], expected different ones of 0..5" in fails(
        "convert", cityscapes, tmp_path / "out.zarr2", "--pyramid", "6"
    )


def test_export_wants_one_form(store, tmp_path):
    for options in ([], ["--png", tmp_path / "a", "--ngff", tmp_path / "b"]):
        code, _, err = invoke("export", store, *options)
        assert code == 2
        assert "--png FOLDER or --ngff FOLDER: choose one of them" in err


def test_validate_exits_1_and_names_the_fault(store):
    shard = store / "labels" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    code, out, _ = invoke("validate", store)
    assert code == 1
    assert "labels/c/0/0/0" in out
    findings = json.loads(invoke("validate", store, "--json")[1])["findings"]
    assert set(findings[0]) == {"where", "found", "fix"}


def test_mistakes_end_in_one_line(store, cityscapes, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no such folder" in fails("convert", tmp_path / "nix", tmp_path / "x.zarr")
    assert "the folder is empty" in fails("convert", tmp_path / "empty", tmp_path / "x.zarr")
    assert "exists already" in fails("convert", cityscapes, store)
    assert "split 'test' is unknown" in fails("convert", cityscapes, tmp_path / "x.zarr", "--split", "test")
    assert "no such manifest" in fails("convert", cityscapes, tmp_path / "x.zarr", "--format", "cityscape")
    assert "found nothing here" in fails("stats", tmp_path / "x.zarr")
    assert "found nothing here" in fails("info", tmp_path / "x.zarr")
    assert "image '17' does not exist" in fails("view", store, "17", "-o", tmp_path / "a.png")
    assert not (tmp_path / "x.zarr").exists()
    assert not (tmp_path / "x.zarr.partial").exists()


def test_a_truncated_mask_ends_in_one_line_and_leaves_nothing(cityscapes, tmp_path):
    mask = next(cityscapes.rglob("*_labelIds.png"))
    mask.write_bytes(mask.read_bytes()[:-30])
    assert mask.name in fails("convert", cityscapes, tmp_path / "x.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cityscapes"]
    code, _, err = invoke("convert", cityscapes, tmp_path / "x.zarr", "--on-error", "skip")
    assert code == 0
    assert mask.name in err


def test_photos_and_colours_that_do_not_fit_end_in_one_line(cityscapes, tmp_path):
    photo = next(cityscapes.rglob("*_leftImg8bit.png"))
    Image.fromarray(np.zeros((51, 70, 3), np.uint8)).save(photo)
    assert "photo of 51 x 70 pixels" in fails("convert", cityscapes, tmp_path / "x.zarr")
    (tmp_path / "colour").mkdir()
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)).save(tmp_path / "colour" / "a.png")
    assert "a.png: pixel (y=0, x=0) is the colour (0, 1, 2)" in fails(
        "convert", tmp_path / "colour", tmp_path / "x.zarr"
    )
    assert not (tmp_path / "x.zarr").exists()
    assert not (tmp_path / "x.zarr.partial").exists()


def test_stores_that_cannot_be_read_end_in_one_line(store, tmp_path):
    shard = store / "labels" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 4
    shard.write_bytes(data)
    for command in (
        ["stats", store],
        ["export", store, "--png", tmp_path / "png"],
        ["view", store, "0", "-o", "a.png"],
    ):
        line = fails(*command)
        assert "out.zarr: record 0 'aachen/aachen_000000_000019'" in line
        assert "Run 'quadcodec validate --deep'" in line
    group = zarr.open_group(str(store), mode="r+")
    group.attrs["quadcodec"] = {**group.attrs["quadcodec"], "complete": False}
    assert "is not complete. Run 'quadcodec convert' again with --resume" in fails("stats", store)


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(cityscapes, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "cannot be written (No space left on device)" in fails("convert", cityscapes, tmp_path / "x.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cityscapes"]


def test_options_that_contradict_each_other_or_make_no_sense(cityscapes, tmp_path):
    for options in (
        ["--overwrite", "--resume"],
        ["--void", "-1"],
        ["--void", "65536"],
        ["--levels", "11"],
        ["--pyramid", "5;3"],
    ):
        code, _, err = invoke("convert", cityscapes, tmp_path / "x.zarr", *options)
        assert code == 2
        assert "Error" in err
    assert not (tmp_path / "x.zarr").exists()


def test_a_picture_is_not_overwritten(store, tmp_path):
    picture = tmp_path / "a.png"
    picture.write_text("precious")
    assert "exists already" in fails("view", store, "0", "-o", picture)
    assert picture.read_text() == "precious"
    assert invoke("view", store, "0", "-o", picture, "--overwrite")[0] == 0


def test_what_was_skipped_is_shown(cityscapes, tmp_path):
    mask = next(cityscapes.rglob("*_labelIds.png"))
    mask.write_bytes(b"")
    assert invoke("convert", cityscapes, tmp_path / "x.zarr", "--on-error", "skip")[0] == 0
    assert mask.name in invoke("info", tmp_path / "x.zarr")[1]


def test_a_missing_extra_is_named(monkeypatch):
    import click

    @click.command()
    def needy():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(sys, "argv", ["needy"])
    result = CliRunner().invoke(click.command()(lambda: run(needy)))
    assert result.exit_code == 1
    assert "needs torch. Install it with: pip install 'quadcodec[train]'" in result.stderr


def test_the_installed_command_runs():
    out = subprocess.run([sys.executable, "-m", "quadcodec_cli.main", "--help"], capture_output=True, text=True)
    assert out.returncode == 0
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="quadcodec")
    assert script.load().__name__ == "main"
