"""ONNX files against torch: the same numbers from onnxruntime; predicted composites have no graph."""

import numpy as np
import pytest
import torch
import torch.nn.functional as fn

from qgn.data.photos import normalise
from qgn.errors import TrainingError
from qgn.models.build import build_model
from qgn.onnx import PixelLogits, write_onnx
from quadcodec_cli import qgn_zoo

from .test_cli import invoke

CLASSES, SIZE = 3, (64, 96)


def uneven(name, **values):
    """Return a model in evaluation mode whose batch normalisation has statistics of its own everywhere."""
    torch.manual_seed(0)
    model = build_model(name, CLASSES, width=4, **values)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, std=0.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
    return model.eval()


def photo():
    return torch.from_numpy(normalise(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)))[None]


@pytest.mark.parametrize("variants", [(), ("convt", "pre_skip", "stem64")])
@pytest.mark.parametrize("name", ["qgn_resnet18", "qgn_resnet18_ppm"])
def test_full_grids_compute_what_the_sparse_decoder_does_with_all_cells(name, variants):
    model, images = uneven(name, variants=variants).double(), photo().double()
    with torch.no_grad():
        prediction, logits = model(images, propagation="all"), PixelLogits(model)(images)
    assert torch.equal(logits.argmax(1), prediction.to_pixels())
    pixels = prediction.levels[0]
    image, y, x = pixels.nodes.positions()
    torch.testing.assert_close(logits[image, :, y, x], pixels.logits_nk[:, 1:])
    assert len(pixels.nodes) == SIZE[0] * SIZE[1]


SLOW = (
    "qgn_resnet18_ppm", "dilated8_resnet18", "drn_c_42", "drn_d_105", "deeplabv3_8_resnet18", "pspnet_resnet18",
    "ccnet_resnet50", "pointrend_resnet18",
)  # fmt: skip
"""A name of every other family."""


@pytest.mark.parametrize(
    "name", ["qgn_resnet18", "deeplabv3_32_resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_onnxruntime_gives_torchs_numbers(tmp_path, name):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra 'onnx')")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra 'onnx')")
    model = uneven(name)
    path = tmp_path / "model.onnx"
    write_onnx(model, path, SIZE)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": photo().numpy()})
    with torch.no_grad():
        expected = PixelLogits(model)(photo()).numpy()
        scheme = "all" if name.startswith("qgn") else "dense"
        pixels = model(photo(), propagation=scheme).to_pixels().numpy()
    assert logits.shape == (1, CLASSES, *SIZE)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.ptp(expected))
    best = np.sort(expected, 1)
    clear = best[:, -1] - best[:, -2] > 1e-3  # elsewhere rounding may decide
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(logits.argmax(1)[clear], pixels[clear])


def test_predicted_composites_have_no_graph():
    class Predicted(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images, propagation="pc").to_pixels()

    model = uneven("qgn_resnet18")
    model.decoder.heads[0].bias.data[0] += 1
    torch.manual_seed(3)
    blocks = [fn.interpolate(2 * torch.randn(1, 3, 2, 3), SIZE) for _ in range(2)]
    with torch.no_grad():
        counts = [[len(level) for level in model(image, propagation="pc").logits] for image in blocks]
        assert counts[0] != counts[1]  # shapes of the result depend on values of the photo
        with pytest.raises(RuntimeError):
            torch.export.export(Predicted(model), (photo(),))


def test_the_command(checkpoint, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra 'onnx')")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra 'onnx')")
    path = tmp_path / "a.onnx"
    code, out, err = invoke(qgn_zoo, "onnx", checkpoint, "-o", path, "--size", "32x64", monkeypatch=monkeypatch)
    assert (code, out) == (0, f"{path}: images (1, 3, 32, 64) -> logits\n"), err
    (logits,) = onnx.load(path).graph.output
    assert [d.dim_value for d in logits.type.tensor_type.shape.dim] == [1, 19, 32, 64]


def test_a_file_is_refused_before_anything_is_computed(tmp_path):
    model = uneven("qgn_resnet18")
    with pytest.raises(TrainingError, match="48x64, both sides must be multiples of 32"):
        write_onnx(model, tmp_path / "a.onnx", (48, 64))
    (tmp_path / "a.onnx").write_text("mine")
    with pytest.raises(TrainingError, match="exists already"):
        write_onnx(model, tmp_path / "a.onnx", SIZE)
    assert (tmp_path / "a.onnx").read_text() == "mine"
