"""PSPNet against its paper: what is pooled, the auxiliary loss, the layers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as fn

from qgn.data.batch import LabelBatch
from qgn.losses import criterion_of
from qgn.models.build import build_model
from qgn.models.pooling import PyramidPooling

from .helpers import blobs, plain_tree

torch.set_num_threads(1)
CLASSES = 3


def test_averages_are_those_of_the_parts():
    torch.manual_seed(0)
    pooling = PyramidPooling(2, 2).eval()
    for branch in pooling.branches:
        branch[1][0].weight.data = torch.eye(2)[:, :, None, None]
    x = torch.rand(1, 2, 6, 12)
    out = pooling(x)
    assert torch.equal(out[:, :2], x)
    for place, bins in enumerate((1, 2, 3, 6)):
        rows, cols = 6 // bins, 12 // bins
        parts = x.view(1, 2, bins, rows, bins, cols).mean((3, 5)) / (1 + 1e-5) ** 0.5
        wanted = fn.interpolate(parts, (6, 12), mode="bilinear")
        torch.testing.assert_close(out[:, 2 + 2 * place : 4 + 2 * place], wanted)


def test_the_auxiliary_loss_weighs_two_fifths_and_is_of_training_alone():
    torch.manual_seed(0)
    mask = blobs(np.random.default_rng(0), 64, 64, CLASSES, count=3)
    mask[mask == 255] = 0
    labels, images = LabelBatch.from_trees([plain_tree(mask)] * 2), torch.randn(2, 3, 64, 64)
    model = build_model("pspnet_resnet18", CLASSES, width=4)
    features = model.encoder(images)
    model.decoder.head[1].p = model.decoder.auxiliary[1].p = 0.0
    prediction = model.decoder(features, labels)
    target = torch.from_numpy(mask).expand(2, 64, 64)
    maps = (
        model.decoder.head(model.decoder.pooling(features[-1])),
        model.decoder.auxiliary(features[-2]),
    )
    losses = [fn.cross_entropy(fn.interpolate(m, (64, 64), mode="bilinear"), target) for m in maps]
    total = criterion_of(model)(prediction.logits, prediction.targets).total
    assert total.item() == pytest.approx((losses[0] + 0.4 * losses[1]).item(), rel=1e-5)
    total.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.decoder.auxiliary.parameters())
    assert len(model.eval()(images, labels).logits) == 1


def test_layers_are_the_published_ones_and_scale_with_the_width():
    with torch.device("meta"):
        full, half = build_model("pspnet_resnet50", 19), build_model("pspnet_resnet50", 19, width=32)
        encoder = build_model("dilated8_resnet50", 19).encoder
    pooling = 4 * (2048 * 512 + 2 * 512)
    head = 4096 * 512 * 9 + 2 * 512 + 512 * 19 + 19
    auxiliary = 1024 * 256 * 9 + 2 * 256 + 256 * 19 + 19
    counts = [sum(p.numel() for p in part.parameters()) for part in (full.decoder, full.encoder, encoder)]
    assert counts[0] == pooling + head + auxiliary
    assert counts[1] == counts[2]
    for ours, wanted in zip(half.parameters(), full.parameters(), strict=True):
        free = {3, 19}  # colours and classes
        assert all(a == b if b in free or b < 4 else 2 * a == b for a, b in zip(ours.shape, wanted.shape, strict=True))
