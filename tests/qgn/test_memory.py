"""The paper's Tables 2 and 6 beside what is counted: what agrees, what does not, and what fits."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import quadcodec
from qgn.bench.cost import outline
from qgn.bench.memory import COUNTED, KEPT, PAPER, count_decoder, measure_memory, padded
from qgn.bench.memory_paper import paper_bytes
from qgn.bench.memory_peak import peak_bytes
from qgn.bench.published import TABLE_2, TABLE_6
from qgn.bench.trees import composite_shares, drawn_tree, mask_tree, published_shares, store_shares
from qgn.models.build import build_model
from qgn.models.decoder import ResidualUnit
from qgn.models.qgn import QGN
from qgn.models.resnet import Bottleneck
from quadcodec_cli.qgn_bench import cli

GIB = 2**30


@pytest.fixture(scope="module")
def report():
    return measure_memory(None, None, 12 * GIB, lambda what: None)


def figures(report, definition):
    return {(r.dataset, r.architecture, r.quantity): r.ours for r in report.rows if r.definition == definition}


def test_every_figure_of_the_paper_has_its_row(report):
    held = {(r.table, r.dataset, r.architecture, r.quantity): r.paper for r in report.rows}
    for data in TABLE_6:
        for column, part, *wholes in zip(
            ("Dil", "All", "GTC"), data.decoder, data.resnet50, data.resnet101, strict=True
        ):
            assert held["6", data.name, column, "decoder"] == part
            assert [held["6", data.name, f"{depth}-{column}", "memory"] for depth in ("R50", "R101")] == wholes
    for method in TABLE_2:
        assert held["2", "cityscapes", method.name, "memory"] == method.memory
        assert held["2", "cityscapes", method.name, "multiply-adds"] == method.macs
    assert held["4.4", "cityscapes", "decoder", "parameters"] == 0.12


def test_what_agrees_with_the_paper_and_what_does_not(report):
    rows = [r for r in report.rows if r.definition in (PAPER, COUNTED)]
    assert len(rows) == 4 * 15 + 2 * len(TABLE_2) + 1
    differing = {(r.dataset, r.architecture, r.quantity) for r in rows if not r.agrees}
    assert differing == {
        ("cityscapes", "GTC", "decoder"),
        ("cityscapes", "R50-GTC", "memory"),
        ("cityscapes", "QGN Train-GTC-Eval-PC", "memory"),
        ("cityscapes", "DRN-D-105", "memory"),
        ("cityscapes", "CCNet*", "multiply-adds"),
        *((data, "R50-Dil", what) for data in ("sunrgbd13", "sunrgbd37", "ade20k") for what in ("encoder", "memory")),
        ("sunrgbd37", "GTC", "decoder"),
        ("ade20k", "GTC", "decoder"),
        ("ade20k", "R50-GTC", "memory"),
        ("ade20k", "R101-GTC", "memory"),
    }


def test_figures_at_full_size(report):
    ours, kept = figures(report, PAPER), figures(report, KEPT)
    assert ours["cityscapes", "R50-Dil", "encoder"] == pytest.approx(7.375, abs=1e-3)  # 944 values a pixel
    assert ours["cityscapes", "R101-All", "encoder"] == pytest.approx(5.172, abs=1e-3)  # 662
    assert ours["cityscapes", "All", "decoder"] == pytest.approx(2.273, abs=1e-3)
    whole = kept["cityscapes", "R50-GTC", "memory"]
    assert whole < 0.53 * kept["cityscapes", "R50-Dil", "memory"]
    assert whole > kept["cityscapes", "GTC", "decoder"] + 4
    assert figures(report, COUNTED)["cityscapes", "QGN Train-GTC-Eval-PC", "multiply-adds"] < 0.26


def test_what_fits_into_the_paper_s_gpu(report):
    """'Our proposal can process 2 or 3 frames in parallel', DeepLabv3 and CCNet none."""
    fits = {(fit.architecture, fit.definition): fit.frames for fit in report.fits}
    assert (fits["R50-All", PAPER], fits["R50-GTC", PAPER]) == (2, 3)
    assert (fits["R50-All", KEPT], fits["R50-GTC", KEPT]) == (1, 2)
    assert fits["DeepLabv3*", PAPER] == fits["CCNet*", KEPT] == 0


def test_the_fitted_rule_by_hand():
    x = torch.empty(1, 6, 8, 8)
    block = Bottleneck(6, 2, 2)
    assert paper_bytes(nn.Sequential(block), lambda: block(x)) == 4 * 16 * 2 * (2 + 2 + 8)
    layers = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())
    assert paper_bytes(layers, lambda: layers(x)) == 4 * 64 * (5 + 5)
    labels = drawn_tree((64, 96), (70, 45, 30, 20, 10))
    model = build_model("qgn_resnet18", 3, width=4).eval()
    features = model.encoder(torch.rand(1, 3, 64, 96))
    with torch.no_grad():
        prediction = model.decoder(features, labels, "gtc")
    expected = sum(level.logits_nk.numel() for level in prediction.levels)
    channels = (32, 16, 8, 4, 4, 4)
    for i, level in enumerate(reversed(prediction.levels[1:])):
        units = len([m for m in model.decoder.blocks[i].modules() if isinstance(m, ResidualUnit)])
        expected += len(level.sites) * (3 * (units - 1) * channels[i] + 2 * channels[i] + channels[i + 1])
        expected += 2 * channels[i] * (len(level.nodes) if i else len(level.sites))
    assert paper_bytes(model.decoder, lambda: model.decoder(features, labels, "gtc")) == 4 * expected


def test_shares_of_table_5_and_of_a_store(scenes):
    assert published_shares("cityscapes") == pytest.approx((34.88, 20.44, 10.91, 5.06, 1.84))
    store = quadcodec.open(scenes)
    shares = [composite_shares(mask_tree(classes_of(store, index))) for index in store.indices("val")]
    assert store_shares(store) == pytest.approx(tuple(np.mean(shares, 0)))
    drawn = drawn_tree((1024, 2048), (34.88, 20.44, 10.91, 5.06, 1.84))
    assert composite_shares(drawn) == pytest.approx((34.88, 20.44, 10.91, 5.06, 1.84), abs=0.03)


def classes_of(store, index):
    table = np.full(256, 255, np.uint8)
    for label in store.classes:
        table[label.id] = 255 if label.train_id is None else label.train_id
    return table[store[index]]


def test_the_command_takes_trees_of_a_store_at_a_size_of_its_own(scenes):
    args = ["memory", "--store", str(scenes), "--input", "64x128", "--json"]
    result = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert result.exit_code == 0
    values = json.loads(result.stdout)
    rows = [row for row in values["rows"] if row["dataset"] == "cityscapes" and row["table"] != "4.4"]
    assert {"table", "dataset", "architecture", "quantity", "paper", "ours", "definition"} <= set(rows[0])
    assert {row["paper"] for row in rows} == {None}
    assert str(scenes) in values["notes"][0]
    assert values["fits"] == []


def test_the_command_prints_both_tables_and_what_fits():
    result = CliRunner().invoke(cli, ["memory", "--input", "64x128", "--fit", "1GiB"], catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(line.split()[:4] == ["R50-All", "memory", "1.05", "1.057"] and "agrees" in line for line in lines)
    assert any("CCNet*" in line for line in lines)
    for wrong in (["--fit", "12"], ["--input", "32x2048"]):
        assert CliRunner().invoke(cli, ["memory", *wrong]).exit_code == 2


def test_a_store_of_a_plain_folder(tmp_path):
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 3, (64, 96), np.uint8) for _ in range(3)]
    masks[0][:9] = 255
    store = quadcodec.write(tmp_path / "mine.zarr", masks, void=[255])
    assert not store.classes
    report = measure_memory((64, 128), store, GIB, lambda what: None)
    mine = [row for row in report.rows if row.dataset == store.info.dataset]
    assert {row.architecture for row in mine} >= {"R50-Dil", "R101-GTC"}
    ours = figures(report, KEPT)
    three = count_decoder("dilated8_resnet50", 3, (64, 128), None).kept / GIB
    assert ours[store.info.dataset, "Dil", "decoder"] == three
    assert {(fit.dataset, fit.size) for fit in report.fits} == {(store.info.dataset, (64, 128))}
    assert {fit.architecture for fit in report.fits} == {f"R{d}-{c}" for d in (50, 101) for c in ("Dil", "All", "GTC")}


def test_a_gpu_that_is_too_small_leaves_its_peaks_out(monkeypatch):
    def peak(model, labels):
        if isinstance(model, QGN):
            return 5 * GIB
        raise torch.OutOfMemoryError

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("qgn.bench.memory.peak_bytes", peak)
    monkeypatch.setattr("qgn.bench.memory.build_model", lambda name, num_classes: outline(name, num_classes))
    monkeypatch.setattr("torch.nn.Module.cuda", lambda module: module)
    result = CliRunner().invoke(cli, ["memory", "--input", "64x128"], catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(line.split()[:2] == ["R50-GTC", "memory"] and line.split()[-1] == "5.00" for line in lines)
    assert lines[-1].startswith("No peak, since this GPU has too little memory for a batch of")
    assert "CCNet* (cityscapes)" in lines[-1]
    assert "GTC" not in lines[-1]


def test_sizes_are_padded():
    assert padded((441, 591)) == (448, 608)
    assert padded((64, 96)) == (64, 96)


@pytest.mark.gpu
def test_the_peak_is_no_less_than_what_is_kept():
    model, labels = build_model("qgn_resnet18", 3, width=32).cuda(), drawn_tree((256, 512), (50, 30, 20, 10, 5), 2)
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert peak_bytes(model, labels) > weights / 2
