"""The decoder's benchmark: rivals that compute the same, counts that are right, and every row of the report."""

import json
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from qgn.bench import decoder as bench
from qgn.bench.dense import DenseDecoder
from qgn.bench.measure import saved_bytes
from qgn.bench.trees import clustered, composite_shares, descend, mask_tree, scattered
from qgn.models.decoder import Decoder
from qgn.sparse.frontier import root_nodes
from qgn.sparse.sites import select_sites
from quadcodec_cli.qgn_bench import cli

from .helpers import blobs

SMALL = (8, 12, 16, 24, 32)


@pytest.fixture
def labels():
    return mask_tree(blobs(np.random.default_rng(3), 64, 96, 3).astype(np.uint8))


def small_features():
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(1, c, 2 * s, 3 * s, generator=generator, requires_grad=True)
        for c, s in zip(SMALL, (16, 8, 4, 2, 1), strict=True)
    ]


@torch.no_grad()
def give_weights(source, target, convolution, pixels=lambda weight: weight):
    """Copy parameters in their order; two functions lay out those of the 3x3 convolutions and of the last layer."""
    for (name, mine), theirs in zip(source.named_parameters(), target.parameters(), strict=True):
        if mine.ndim == 4:
            mine = convolution(mine)
        elif name.startswith("pixel_head"):
            mine = pixels(mine)
        theirs.copy_(mine.reshape(theirs.shape))


@pytest.mark.parametrize("recompute", [False, True])
def test_the_dense_decoder_computes_the_same_as_all(labels, recompute):
    torch.manual_seed(0)
    sparse, dense = Decoder(SMALL, 3, width=4), DenseDecoder(SMALL, 3, width=4, recompute=recompute)
    bias = sparse.pixel_head.bias.data.view(4, 4)
    bias[1:] = bias[0]  # a transposed convolution has one bias for the four pixels of a cell
    give_weights(
        sparse,
        dense,
        convolution=lambda weight: weight,
        pixels=lambda p: p.view(2, 2, 4, 4).permute(3, 2, 0, 1) if p.ndim == 2 else p[:4],
    )
    features = small_features()
    prediction, maps = sparse(features, labels, "all"), dense(features)
    for level, grid in zip(reversed(prediction.levels), maps, strict=True):
        image, y, x = level.nodes.positions()
        torch.testing.assert_close(level.logits_nk, grid[image, :, y, x], rtol=1e-4, atol=1e-4)


def test_the_spconv_decoder_computes_the_same(labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn
        pytest.importorskip("spconv", reason="spconv is not installed", exc_type=ImportError)
        from qgn.bench.spconv_decoder import SpconvDecoder
        from qgn.sparse.spconv_adapter import cpu_backward
    if torch.cuda.is_available():
        pytest.skip("this build of spconv computes on CUDA")
    torch.manual_seed(0)
    native, spconv = Decoder(SMALL, 3, width=4), SpconvDecoder(SMALL, 3, width=4)
    give_weights(native, spconv, convolution=lambda weight: weight.permute(0, 2, 3, 1))
    features = small_features()
    results = []
    for decoder, logits in (
        (native, list(reversed(native(features, labels, "gtc").logits))),
        (spconv, spconv(features, labels)),
    ):
        upstream = [torch.linspace(-1, 1, level.numel()).view_as(level) for level in logits]
        with cpu_backward():
            torch.autograd.backward(logits, upstream)
        grads = [maps.grad for maps in features]
        results.append((*logits, *grads, *(norm.grad for norm in decoder.parameters() if norm.ndim == 1)))
        for maps in features:
            maps.grad = None
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3 * float(theirs.detach().abs().max()))


def test_saved_bytes_count_each_storage_once():
    layer = torch.nn.Linear(6, 5)
    x, y = torch.ones(4, 6, requires_grad=True), torch.ones(4, 6)
    assert saved_bytes(layer, [x], lambda: layer(x)) == 0
    assert saved_bytes(layer, [x], lambda: layer((x * y[:2].repeat(2, 1)).relu() * y)) == 4 * (
        4 * 6 * 4
    )  # the repeated rows, the ReLU's result, y and the layer's input


def test_macs_of_a_full_grid_are_those_of_dense_layers():
    cells = [6 * 4**depth for depth in range(5)]
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        if isinstance(module, torch.nn.ConvTranspose2d):  # each output pixel comes of one input pixel
            counted += module.in_channels * output.numel()
        else:
            counted += module.weight[0].numel() * output.numel()

    with torch.device("meta"):
        dense = DenseDecoder(bench.ENCODER, bench.CLASSES)
        for module in dense.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.register_forward_hook(count)
        dense([torch.empty(1, c, 2 * s, 3 * s) for c, s in zip(bench.ENCODER, (16, 8, 4, 2, 1), strict=True)])
    assert bench.macs(cells, cells, [9 * count for count in cells]) == counted


@pytest.mark.parametrize("draw", [clustered, scattered])
def test_levels_of_a_chosen_share(draw):
    mask = draw((64, 96), 0.2)
    assert 0.15 < mask.mean() < 0.35
    sites = descend(mask)
    _, y, x = sites.positions()
    found = np.zeros_like(mask)
    found[y, x] = True
    assert (found == mask).all()
    flat = select_sites(root_nodes((1, 64, 96), 1), torch.from_numpy(mask.ravel()), None)
    assert sorted(sites.nbr_9m.ge(0).sum(0).tolist()) == sorted(flat.nbr_9m.ge(0).sum(0).tolist())


def test_composite_shares():
    mask = np.zeros((64, 64), np.uint8)
    mask[0, 0] = 1
    assert composite_shares(mask_tree(mask)) == (25.0, 100 / 16, 100 / 64, 100 / 256, 100 / 1024)


@pytest.mark.parametrize("given", [True, False])
def test_the_command_reports_every_row(tmp_path, monkeypatch, given):
    monkeypatch.setattr(bench, "WIDTH", 4)
    monkeypatch.setattr(bench, "ENCODER", SMALL)
    mask, plot = tmp_path / "mask.png", tmp_path / "curves.png"
    Image.fromarray(blobs(np.random.default_rng(3), 64, 96, 3).astype(np.uint8)).save(mask)
    how = ["--mask", str(mask), "--json"] if given else ["--size", "64x128", "--plot", str(plot)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spconv's imports warn
        result = CliRunner().invoke(cli, ["decoder", "--runs", "1", *how], catch_exceptions=False)
    assert result.exit_code == 0
    if not given:
        assert "GTC forward against All dense" in result.stdout
        with Image.open(plot) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 2
        return
    report = json.loads(result.stdout)
    assert report["tree"] == "given mask"
    assert len(report["rows"]) == 9
    for row in report["rows"]:
        assert set(row) == {"metric", "value", "unit", "target", "holds"}
        assert (row["value"] is None) == (row["holds"] is None)
        assert row["value"] is not None or "spconv" not in report["costs"] or "bfloat16" in row["metric"]
