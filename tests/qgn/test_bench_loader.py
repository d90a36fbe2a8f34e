"""The loader's benchmark: a rival that computes the same, and every row of the report."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from PIL import Image

import quadcodec
from qgn.bench import loader as bench
from qgn.data.batch import LabelBatch
from qgn.data.classes import class_map
from qgn.data.samples import see_tree
from qgn.data.views import View
from quadcodec import TPyramid
from quadcodec_cli.qgn_bench import cli

from ..strategies import masks


@settings(deadline=None, max_examples=40)
@given(masks(130))
def test_the_rivals_levels_are_those_of_the_paper(mask):
    mask = np.pad((mask % 255).astype(np.uint8), [(0, -side % 32) for side in mask.shape], constant_values=255)
    expected = TPyramid.from_mask(mask)
    for level, dense in enumerate(bench.dense_pyramid(mask)):
        np.testing.assert_array_equal(dense, expected.level(level))


def test_the_rivals_labels_are_those_of_the_store(painted, tmp_path):
    classes = class_map(painted, [0, 1, 2, 3, 255])
    Image.fromarray(painted[1]).save(tmp_path / "1.png")
    tree = painted.quadtree(1).remap(classes.table)
    for size in ((64, 64), (128, 32), (32, 64)):  # of others, Pillow rounds ties by chance
        seen = see_tree(tree, View.whole(size))
        dense = bench.dense_labels([tmp_path / "1.png"] * 2, classes, size)
        assert all(level.dtype == np.int16 for level in dense)
        for level in range(6):
            np.testing.assert_array_equal(dense[level], np.stack([seen.to_level(level)] * 2))


def run(*arguments):
    result = CliRunner().invoke(cli, ["loader", "--runs", "1", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_command_reports_every_row(scenes, painted, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "WIDTH", 2)
    report = json.loads(run(scenes, "--size", "32x64", "--batch-size", "2", "--json"))
    assert (report["images"], report["batch_size"], report["size"]) == (2, 2, [32, 64])
    rows = {row["metric"]: row for row in report["rows"]}
    assert len(rows) == len(report["rows"]) == 10
    assert all(set(row) == {"metric", "value", "unit", "target", "holds"} for row in rows.values())
    assert all(row["value"] > 0 for row in rows.values())
    assert [row["target"] for row in rows.values() if row["holds"] is not None] == [
        "<= 2",
        "<= 5",
        "> 1",
        "> 1",
        "<= 8",
    ]
    store = quadcodec.open(scenes)
    share = rows["label bytes to the device, of the uint8 masks at their own size"]["value"]
    labels = [LabelBatch.from_trees([store.quadtree(i).remap(class_map(store, [7]).table)]) for i in range(2)]
    assert share == pytest.approx(100 * sum(len(batch.data_n) for batch in labels) / (2 * 64 * 128))
    step = report["milliseconds"]
    time = next(row for name, row in rows.items() if name.startswith("label time"))
    assert time["value"] == pytest.approx(
        100 * (step["labels, read and packed"] + step["labels, unpacked"]) / step["training step"]
    )
    assert time["holds"] == (time["value"] <= 5)


def test_the_command_without_a_store_and_without_photos(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "WIDTH", 2)
    monkeypatch.setattr(bench, "SCENES", 1)
    monkeypatch.setattr(bench, "SCENE_SIZE", (64, 128))
    text = run("--size", "32x64", "--batch-size", "2")
    assert "generated street scenes: 1 images, batches of 2" in text
    assert "samples a second of one worker" in text
    assert "not measured" not in text
    mask = np.random.default_rng(0).integers(250, 256, (40, 50)).astype(np.uint8)
    store = quadcodec.write(tmp_path / "plain.zarr", [mask])  # 255 among its ids: a class like any other here
    assert run(store.path, "--size", "32x64", "--batch-size", "2").count("not measured") == 2
