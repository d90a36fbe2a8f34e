"""The baselines against what was published: DRN's layers, DeepLabv3's rates, and CCNet's attention by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qgn.models.build import build_model
from qgn.models.ccnet import criss_cross
from qgn.models.deeplab import ASPPDecoder
from qgn.models.drn import DRN

CLASSES = 3


def outline(name, classes=19):
    with torch.device("meta"):
        return build_model(name, classes)


def slow_criss_cross(query, key, value):
    """Attention pixel by pixel: the softmax over the pixel's row and the rest of its column."""
    out = torch.empty_like(value)
    batch, height, width, _ = query.shape
    for b, y, x in torch.cartesian_prod(*map(torch.arange, (batch, height, width))).tolist():
        seen = [(y, column) for column in range(width)] + [(row, x) for row in range(height) if row != y]
        weights = torch.stack([query[b, y, x] @ key[b, *place] for place in seen]).softmax(0)
        out[b, y, x] = sum(weight * value[b, *place] for weight, place in zip(weights, seen, strict=True))
    return out


@pytest.mark.parametrize("size", [(3, 5), (4, 1), (1, 4), (1, 1)])
def test_criss_cross_is_exact(size):
    torch.manual_seed(0)
    inputs = [torch.randn(2, *size, channels, dtype=torch.float64, requires_grad=True) for channels in (3, 3, 4)]
    upstream = torch.randn(2, *size, 4, dtype=torch.float64)
    mine, wanted = criss_cross(*inputs), slow_criss_cross(*inputs)
    torch.testing.assert_close(mine, wanted)
    for gradient, expected in zip(
        torch.autograd.grad(mine, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(gradient, expected)


def test_two_passes_of_attention_reach_every_pixel():
    torch.manual_seed(0)
    decoder = build_model("ccnet_resnet50", CLASSES, width=2).decoder.eval()
    decoder.attention.gamma.data.fill_(1)
    x = torch.randn(1, 16, 5, 6, requires_grad=True)
    once = decoder.attention(x)
    (reach,) = torch.autograd.grad(once[0, :, 1, 2].sum(), x, retain_graph=True)
    seen = reach.abs().sum((0, 1)) > 0
    assert seen[1].all()
    assert seen[:, 2].all()
    assert seen.sum() == 5 + 6 - 1
    (reach,) = torch.autograd.grad(decoder.attention(once)[0, :, 1, 2].sum(), x)
    assert (reach.abs().sum((0, 1)) > 0).all()


def test_attention_keeps_no_square_of_the_pixels():
    height, width = 24, 40
    largest = 0

    def look(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    query = torch.randn(1, height, width, 2, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        criss_cross(query, query, query)
    assert largest == height * width * (height + width)


def test_ccnet_attends_twice_and_predicts_with_its_auxiliary_head_in_training_only():
    model = build_model("ccnet_resnet50", CLASSES, width=2)
    images = torch.randn(2, 3, 32, 64)
    passes = []
    model.decoder.attention.register_forward_hook(lambda *_: passes.append(1))
    assert len(model(images).logits) == len(model.loss_weights) == 2
    assert len(passes) == 2
    assert len(model.eval()(images).logits) == 1


@pytest.mark.parametrize(("stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))])
def test_rates_of_the_pyramid_see_the_same_pixels_at_every_stride(stride, rates):
    model = build_model(f"deeplabv3_{stride}_resnet50", CLASSES, width=2)
    assert tuple(branch[0].dilation for branch in model.decoder.atrous) == tuple((rate, rate) for rate in rates)
    stages = [getattr(model.encoder, f"layer{stage}") for stage in (3, 4)]
    dilations = [[block.conv2.dilation[0] for block in stage] for stage in stages]
    wide = 32 // stride
    assert dilations[1][1:] == [2 * wide, 4 * wide]  # the multi-grid
    assert set(dilations[0][1:]) == {max(1, wide // 2)}
    assert model.encoder(torch.zeros(1, 3, 64, 96))[-1].shape[2:] == (64 // stride, 96 // stride)


def test_every_branch_of_the_pyramid_counts():
    torch.manual_seed(0)
    decoder = ASPPDecoder(8, CLASSES, 32, width=2).eval()
    features = torch.randn(1, 8, 21, 21)
    before = decoder.maps([features])[0]
    for branch in (decoder.point, *decoder.atrous, decoder.image):
        nn.init.zeros_(branch[0].weight)
        after = decoder.maps([features])[0]
        assert not torch.equal(before, after)
        before = after
    features = torch.zeros(1, 8, 21, 21)
    torch.testing.assert_close(before, decoder.maps([features])[0])  # nothing is left that looks at them


C_42 = [("conv1", 16, 1), ("layer1", 16, 1), ("layer2", 32, 2), ("layer3", 64, 4), ("layer4", 128, 8),
        ("layer5", 256, 8), ("layer6", 512, 8), ("layer7", 512, 8), ("layer8", 512, 8)]  # fmt: skip
D_105 = [("layer0", 16, 1), ("layer1", 16, 1), ("layer2", 32, 2), ("layer3", 256, 4), ("layer4", 512, 8),
         ("layer5", 1024, 8), ("layer6", 2048, 8), ("layer7", 512, 8), ("layer8", 512, 8)]  # fmt: skip


@pytest.mark.parametrize(("name", "layers", "millions"), [("c_42", C_42, 31.2), ("d_105", D_105, 54.8)])
def test_drn_has_the_published_layers(name, layers, millions):
    with torch.device("meta"):
        encoder, images = DRN(name), torch.zeros(1, 3, 64, 128)
    shapes = {}
    for layer, _, _ in layers:
        encoder.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, out, layer=layer: shapes.update({layer: tuple(out.shape)})
        )
    encoder(images)
    assert shapes == {layer: (1, channels, 64 // s, 128 // s) for layer, channels, s in layers}
    classifier = 512 * 1000 + 1000  # of ImageNet, which the published count includes
    assert round((sum(p.numel() for p in encoder.parameters()) + classifier) / 1e6, 1) == millions
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) - sum("downsample" in n and n.endswith("0.weight") for n in encoder.state_dict()) == (
        41 if name == "c_42" else 104  # and the classifier
    )


def test_drn_dilates_levels_five_to_seven():
    with torch.device("meta"):
        encoder = DRN("d_105")
    of = {level: {m.dilation[0] for m in encoder.get_submodule(f"layer{level}").modules() if hasattr(m, "dilation")
                  and m.kernel_size == (3, 3)} for level in range(1, 9)}  # fmt: skip
    assert of == {1: {1}, 2: {1}, 3: {1}, 4: {1}, 5: {2}, 6: {4}, 7: {2}, 8: {1}}


PAPER = {"drn_c_42": 1.07, "drn_d_105": 1.91, "deeplabv3_8_resnet101": 1.97}
"""Multiply-adds of Table 2, in units of 10^12."""


@pytest.mark.parametrize("name", PAPER)
def test_multiply_adds_are_those_of_table_2(name):
    model = outline(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        model(torch.zeros(1, 3, 1024, 2048))
    assert counter.get_total_flops() / 2e12 == pytest.approx(PAPER[name], rel=0.06)


def test_a_batch_of_one_image_trains_the_image_branch():
    torch.manual_seed(0)
    decoder = build_model("deeplabv3_32_resnet18", CLASSES, width=2).decoder
    norm = decoder.image[1]
    for batch, moves in ((1, False), (2, True)):
        before = norm.running_mean.clone()
        decoder.maps([torch.randn(batch, 16, 2, 2)])[0].sum().backward()
        assert torch.equal(norm.running_mean, before) == (not moves)
        assert decoder.image[0].weight.grad.abs().sum() > 0
