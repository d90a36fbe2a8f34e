"""Encoder weights of files with timm's names: what fits is loaded, the rest is named."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from qgn.config import TrainConfig
from qgn.errors import CheckpointError
from qgn.learner import build_learner
from qgn.models.drn import DRN
from qgn.models.resnet import ResNet
from qgn.models.weights import load_weights
from qgn.setup import prepare
from quadcodec_cli.qgn_train import announce

BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STEMS = {"plain": None, "d": (32, 32, 64), "s": (64, 64, 128)}


def norm(name, channels):
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{n}": (channels,) for n in names} | {f"{name}.num_batches_tracked": ()}


def timm_shapes(depth, stem="s", width=64):
    """Return the names and shapes that timm publishes for `resnet<depth>`, `..d` and `..s`; written from its models."""
    counts, expansion = (BASIC[depth], 1) if depth in BASIC else (BOTTLENECK[depth], 4)
    if stem == "plain":
        shapes = {"conv1.weight": (width, 3, 7, 7)}
        c_in = width
    else:
        first, second, c_in = (channels * width // 64 for channels in STEMS[stem])
        shapes = {"conv1.0.weight": (first, 3, 3, 3)} | norm("conv1.1", first)
        shapes |= {"conv1.3.weight": (second, first, 3, 3)} | norm("conv1.4", second)
        shapes |= {"conv1.6.weight": (c_in, second, 3, 3)}
    shapes |= norm("bn1", c_in)
    for stage, count in enumerate(counts):
        planes = width * 2**stage
        kernels = (3, 3) if expansion == 1 else (1, 3, 1)
        for block in range(count):
            at = f"layer{stage + 1}.{block}"
            inputs = c_in
            for i, kernel in enumerate(kernels, 1):
                out = planes * (expansion if i == len(kernels) else 1)
                shapes |= {f"{at}.conv{i}.weight": (out, inputs, kernel, kernel)} | norm(f"{at}.bn{i}", out)
                inputs = out
            if block == 0 and (stage > 0 or c_in != inputs):
                places = (1, 2) if stem == "d" else (0, 1)  # the d family pools first
                shapes |= {f"{at}.downsample.{places[0]}.weight": (inputs, c_in, 1, 1)}
                shapes |= norm(f"{at}.downsample.{places[1]}", inputs)
            c_in = inputs
    return shapes | {"fc.weight": (1000, c_in), "fc.bias": (1000,)}


def made(shapes):
    """Return tensors of these shapes, different ones for different names."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=generator) if shape else torch.tensor(7) for name, shape in shapes.items()
    }


def saved(tmp_path, tensors):
    save_file(tensors, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
@pytest.mark.parametrize("output_stride", [32, 8])
def test_the_s_family_loads_whole(tmp_path, depth, output_stride):
    tensors = made(timm_shapes(depth, width=4))
    encoder = ResNet(depth, width=4, output_stride=output_stride)
    loaded = load_weights(encoder, saved(tmp_path, tensors))
    assert loaded.left_out == {}
    state = encoder.state_dict()
    values = {name for name in tensors if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}
    assert values == {name for name in state if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(state[name], tensors[name]) for name in values)
    convolutions = sum(tensor.ndim == 4 for tensor in state.values())
    assert loaded.layers == convolutions - 2  # the stem's three are one layer
    assert str(loaded).endswith(f"weights of {loaded.layers} of the encoder's {loaded.layers} layers")


def test_the_plain_family_leaves_out_the_stem_and_what_reads_it(tmp_path):
    encoder = ResNet(50, width=4)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    tensors = made(timm_shapes(50, "plain", width=4))
    loaded = load_weights(encoder, saved(tmp_path, tensors))
    assert loaded.left_out == {
        "stem": "the file has no conv1.0.weight",
        "layer1.0.conv1": "layer1.0.conv1.weight: found 4x4x1x1, expected 4x8x1x1",
        "layer1.0.downsample": "layer1.0.downsample.0.weight: found 16x4x1x1, expected 16x8x1x1",
    }
    state = encoder.state_dict()
    kept = ("conv1.", "bn1.", "layer1.0.conv1.", "layer1.0.bn1.", "layer1.0.downsample.")
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, before[name] if name.startswith(kept) else tensors[name]), name
    assert "stem starts at random (the file has no conv1.0.weight)" in str(loaded)


def test_shortcuts_of_the_d_family_load_and_are_mentioned(tmp_path):
    encoder = ResNet(50, width=4)
    tensors = made(timm_shapes(50, "d", width=4))
    loaded = load_weights(encoder, saved(tmp_path, tensors))
    assert loaded.averaging
    assert set(loaded.left_out) == {"stem", "layer1.0.conv1", "layer1.0.downsample"}
    state = encoder.state_dict()
    assert torch.equal(state["layer3.0.downsample.0.weight"], tensors["layer3.0.downsample.1.weight"])
    assert torch.equal(state["layer3.0.downsample.1.running_var"], tensors["layer3.0.downsample.2.running_var"])
    assert "averages of 2x2 cells" in str(loaded)


def test_pth_files_load_without_unpickling_code(tmp_path):
    tensors = made(timm_shapes(18, width=2))
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "a.pth")
    encoder = ResNet(18, width=2)
    assert load_weights(encoder, tmp_path / "a.pth").left_out == {}
    assert torch.equal(encoder.layer4[1].bn2.running_mean, tensors["layer4.1.bn2.running_mean"])

    class Mischief:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    (tmp_path / "b.pth").write_bytes(pickle.dumps(Mischief(), protocol=2))
    torch.save(Mischief(), tmp_path / "c.pth")
    torch.save([1, 2], tmp_path / "d.pth")
    for name in ("b.pth", "c.pth", "d.pth", "none.pth", "none.safetensors"):
        with pytest.raises(CheckpointError) as caught:
            load_weights(encoder, tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("found", "expected"), [(18, 34), (34, 50), (50, 34), (50, 101), (101, 50)]
)  # 34 and 50 have the same number of blocks
def test_weights_of_another_depth_are_refused_in_one_line(tmp_path, found, expected):
    encoder = ResNet(expected, width=2)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"weights of a ResNet-{found}, expected a ResNet-{expected}\. Take"):
        load_weights(encoder, saved(tmp_path, made(timm_shapes(found, width=2))))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_weights_of_another_width_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no layer fits, in layer1.0.conv1 .*found 2x4x1x1, expected 4x8x1x1"):
        load_weights(ResNet(50, width=4), saved(tmp_path, made(timm_shapes(50, width=2))))


def test_other_tensors_are_no_encoder(tmp_path):
    with pytest.raises(CheckpointError, match=r"weights of no encoder, expected a ResNet-18"):
        load_weights(ResNet(18, width=2), saved(tmp_path, {"a": torch.zeros(1)}))


@pytest.mark.parametrize("name", ["c_42", "d_105"])
def test_drn_loads_its_own_names(tmp_path, name):
    theirs, mine = DRN(name, width=4), DRN(name, width=4)
    loaded = load_weights(mine, saved(tmp_path, theirs.state_dict() | {"fc.weight": torch.zeros(1000, 32, 1, 1)}))
    assert loaded.left_out == {}
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in mine.state_dict().items())
    with pytest.raises(CheckpointError, match="expected stages of 1, 1, 3, 4"):
        load_weights(mine, saved(tmp_path, made(timm_shapes(50, width=4))))


@pytest.mark.parametrize(("depth", "stem"), [(d, s) for d in (18, 34, 50, 101) for s in STEMS])
def test_made_files_have_timms_names(depth, stem):
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=(ImportError, RuntimeError))
    if stem == "s" and depth in BASIC:
        pytest.skip("timm has no such model")
    with torch.device("meta"):
        model = timm.create_model(f"resnet{depth}{'' if stem == 'plain' else stem}")
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == timm_shapes(depth, stem)


def test_training_starts_from_the_weights_and_says_what_it_took(scenes, tmp_path):
    tensors = made(timm_shapes(18, "plain", width=4))
    path = saved(tmp_path, tensors)
    config = TrainConfig(
        labels=str(scenes), work_dir=str(tmp_path / "run"), width=4, image_size=(32, 64), ema=0.9, weights=str(path)
    )
    setup = prepare(config)
    left_out = {"stem", "layer1.0.conv1", "layer1.0.downsample"}
    assert set(setup.weights.left_out) == left_out
    assert announce(setup).count(f"{path}: weights of {setup.weights.layers - 3} of the encoder's") == 1
    learner = build_learner(config, len(setup.classes))
    for model in (learner.model, learner.average):
        state = model.encoder.state_dict()
        assert torch.equal(state["layer4.1.conv2.weight"], tensors["layer4.1.conv2.weight"])
        assert state["layer1.0.conv1.weight"].shape == (4, 8, 3, 3)
    save_file(made(timm_shapes(34, width=4)), path)
    with pytest.raises(CheckpointError, match="expected a ResNet-18"):
        prepare(config)
    assert not (tmp_path / "run").exists()
