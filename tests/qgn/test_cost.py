"""What is counted without data: the same bytes as in a real run, and the multiply-adds of the layers' own sums."""

import numpy as np
import pytest
import torch

from qgn.bench.cost import cost, every_cell, kept_bytes, outline
from qgn.bench.decoder import sparse_macs
from qgn.bench.measure import saved_bytes
from qgn.bench.trees import composite_shares, mask_tree
from qgn.models.build import build_model

from .helpers import blobs

SIZE = (64, 96)


@pytest.fixture
def labels():
    return mask_tree(blobs(np.random.default_rng(3), *SIZE, 3).astype(np.uint8))


@pytest.mark.parametrize("recompute", [False, True])
def test_a_model_without_data_keeps_what_a_real_one_keeps(labels, recompute):
    real = build_model("qgn_resnet50", 3, width=8, recompute=recompute)
    images = torch.rand(1, 3, *SIZE)
    prediction = []
    saved = saved_bytes(real, [images], lambda: prediction.append(real(images, labels, "gtc")))
    counted = cost(outline("qgn_resnet50", 3, width=8, recompute=recompute), SIZE, labels)
    assert counted.kept_bytes == saved
    assert counted.parameters == sum(p.numel() for p in real.parameters())


def test_without_labels_every_cell_goes_on():
    assert composite_shares(every_cell(SIZE)) == (100.0,) * 5
    real, images = build_model("qgn_resnet18", 3, width=4), torch.rand(1, 3, *SIZE)
    prediction = []
    saved = saved_bytes(real, [images], lambda: prediction.append(real(images, None, "all")))
    counted = cost(outline("qgn_resnet18", 3, width=4), SIZE)
    assert counted.kept_bytes == saved
    sites = counted_sites(prediction[0])
    assert sites == [6, 24, 96, 384, 1536]


def counted_sites(prediction):
    return list(reversed(prediction.active_sites[1:]))


def test_sparse_convolutions_count_the_pairs_that_are_there(labels):
    model = outline("qgn_resnet50", 19)
    encoder = encoder_macs(model.encoder)
    with torch.no_grad():
        prediction = build_model("qgn_resnet50", 19).eval()(torch.rand(1, 3, *SIZE), labels, "gtc")
    sparse = sparse_macs(prediction)
    # There, all cells of level 5 predict; `sparse_macs` counts the active ones.
    silent = 6 - len(prediction.levels[5].sites)
    assert cost(model, SIZE, labels).macs == encoder + sparse + silent * 2048 * 20


def encoder_macs(encoder):
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += module.weight[0].numel() * output.numel()

    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    encoder(torch.empty(1, 3, *SIZE, device="meta"))
    return total


def test_whole_is_encoder_and_decoder(labels):
    model = outline("qgn_resnet50", 3, width=8).train()
    images = torch.empty(1, 3, *SIZE, device="meta")
    encoder = kept_bytes(model.encoder, [images], lambda: model.encoder(images))
    features = [maps.detach().requires_grad_() for maps in model.encoder(images)]
    decoder = kept_bytes(model.decoder, features, lambda: model.decoder(features, labels, "gtc"))
    assert cost(model, SIZE, labels).kept_bytes == encoder + decoder
