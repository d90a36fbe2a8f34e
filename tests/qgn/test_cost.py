"""What is counted without data: the same bytes as in a real run, and the multiply-adds of the layers' own sums."""

import pytest
import torch

from qgn.bench.cost import BATCH, cost, kept_bytes, outline, with_loss
from qgn.bench.decoder import sparse_macs
from qgn.bench.measure import saved_bytes
from qgn.bench.trees import EVERY_CELL, composite_shares, drawn_tree
from qgn.losses import criterion_of
from qgn.models.build import build_model

SIZE = (64, 96)
SHARES = (70, 45, 30, 20, 10)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("qgn_resnet50", {}), ("qgn_resnet18", {"recompute": True}), ("dilated8_resnet18", {}), ("ccnet_resnet50", {})],
)
def test_a_model_without_data_keeps_what_a_real_one_keeps(name, settings):
    labels = drawn_tree(SIZE, SHARES, BATCH)
    real, images = build_model(name, 3, width=8, **settings), torch.rand(BATCH, 3, *SIZE)
    criterion = criterion_of(real)

    def forward():
        prediction = real(images, labels, real.schemes[0])
        return criterion(prediction.logits, prediction.targets)

    # A weight of each level's loss is saved, and the number of targets that it is divided by.
    saved = saved_bytes(real, [images, criterion.beta_l], forward)
    counted = cost(outline(name, 3, width=8, **settings), SIZE, labels)
    assert counted.kept_bytes == pytest.approx(saved / BATCH, abs=100)
    assert counted.parameters == sum(p.numel() for p in real.parameters())


def test_without_labels_every_cell_goes_on():
    assert composite_shares(drawn_tree(SIZE, EVERY_CELL)) == EVERY_CELL
    real, images = build_model("qgn_resnet18", 3, width=4), torch.rand(BATCH, 3, *SIZE)
    prediction = []

    def forward():
        prediction.append(real(images, None, "all"))
        return [torch.nn.functional.cross_entropy(rows, rows.argmax(1)) for rows in prediction[0].logits]

    saved = saved_bytes(real, [images], forward)
    counted = cost(outline("qgn_resnet18", 3, width=4), SIZE)
    assert counted.kept_bytes == pytest.approx(saved / BATCH, abs=100)
    assert prediction[0].active_sites == (0, 3072, 768, 192, 48, 12)


def test_sparse_convolutions_count_the_pairs_that_are_there():
    model, labels = outline("qgn_resnet50", 19), drawn_tree(SIZE, SHARES, BATCH)
    encoder = layer_macs(model.encoder)
    with torch.no_grad():
        prediction = build_model("qgn_resnet50", 19).eval()(torch.rand(BATCH, 3, *SIZE), labels, "gtc")
    # There, all cells of level 5 predict; `sparse_macs` counts the active ones.
    silent = 6 * BATCH - len(prediction.levels[5].sites)
    assert cost(model, SIZE, labels).macs == encoder + (sparse_macs(prediction) + silent * 2048 * 20) // BATCH


def layer_macs(module):
    """Return the multiply-adds of a module's convolutions for one image, by their shapes."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        total += layer.weight[0].numel() * output.numel()

    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    module(torch.empty(1, 3, *SIZE, device="meta"))
    return total


def test_whole_is_encoder_and_decoder():
    model, labels = outline("qgn_resnet50", 3, width=8), drawn_tree(SIZE, SHARES)
    images = torch.empty(1, 3, *SIZE, device="meta")
    encoder = kept_bytes(model.encoder, [images], lambda: model.encoder(images))
    features = [maps.detach().requires_grad_() for maps in model.encoder(images)]
    decoder = kept_bytes(model.decoder, features, lambda: with_loss(model.decoder(features, labels, "gtc")))
    whole = kept_bytes(model, [images], lambda: with_loss(model(images, labels, "gtc")))
    assert whole == encoder + decoder
