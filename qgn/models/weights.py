"""Published encoder weights from a local file, by the names of their parameters.

timm's ResNets come with three stems, all under the names `conv1` and `bn1`: one 7x7 convolution (`resnet50`), or three
3x3 ones of 32, 32 and 64 channels (`resnet50d`) or of 64, 64 and 128 (`resnet50s`, the paper's). A layer is a
convolution with its batch normalisation, the stem is one as a whole; a layer is loaded if all of it fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from qgn.errors import CheckpointError

from .resnet import LAYOUTS, Bottleneck

STEM = "stem"


@dataclass(frozen=True)
class LoadedWeights:
    """Report what was loaded.

    Attributes
    ----------
    path : the file.
    layers : number of the encoder's layers, the stem as one.
    left_out : layer that keeps its random start -> why.
    averaging : whether the shortcuts were trained to project an average of 2x2 cells (timm's `resnet50d`), where
        this encoder's project every second cell.
    """

    path: Path
    layers: int
    left_out: dict[str, str]
    averaging: bool

    def __str__(self) -> str:
        text = f"{self.path}: weights of {self.layers - len(self.left_out)} of the encoder's {self.layers} layers"
        if self.left_out:
            text += f"; {', '.join(f'{layer} starts at random ({why})' for layer, why in self.left_out.items())}"
        if self.averaging:
            text += "; its shortcuts were trained on averages of 2x2 cells, here they take every second cell"
        return text


@torch.no_grad()
def load_weights(encoder: nn.Module, path: str | Path) -> LoadedWeights:
    """Load an encoder's weights from a safetensors file, or from a .pth file without unpickling code.

    A classifier in the file (`fc`) is not used.

    Raises
    ------
    CheckpointError : the file cannot be read, is of another architecture, or nothing in it fits.
    """
    path = Path(path)
    found, averaging = _plain_shortcuts(_read(path))
    own = encoder.state_dict()
    found_layers, own_layers = _layers(found), _layers(own)
    if _body(found_layers) != _body(own_layers):
        raise CheckpointError(
            f"{path}: holds weights of {_describe(found_layers)}, expected {_describe(own_layers)}. Take a file of "
            "the same architecture"
        )
    left_out = {}
    for layer, names in own_layers.items():
        why = next((text for name in names if (text := _misfit(name, found, own))), None)
        if why is not None:
            left_out[layer] = why
            continue
        for name in names:
            own[name].copy_(found[name])
    if len(left_out) == len(own_layers):
        raise CheckpointError(
            f"{path}: no layer fits, in {min(left_out)} {left_out[min(left_out)]}. Published weights need --width 64"
        )
    return LoadedWeights(path, len(own_layers), left_out, averaging)


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle makes torch raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path}: cannot be read as weights ({reason}). Name a safetensors file, or a .pth file of tensors alone"
        ) from error
    if isinstance(values, dict) and isinstance(values.get("state_dict"), dict):
        values = values["state_dict"]
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise CheckpointError(f"{path}: holds something else than named tensors. Name a file with a state dict")
    return values


def _plain_shortcuts(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Name the shortcuts of timm's `d` family, average pooling first, as those without it are named."""
    if not any(name.endswith("downsample.2.weight") for name in found):
        return dict(found), False
    shift = {"1": "0", "2": "1"}
    return {
        re.sub(r"(downsample\.)([12])", lambda match: match[1] + shift[match[2]], name): tensor
        for name, tensor in found.items()
    }, True


def _layers(names: Iterable[str]) -> dict[str, list[str]]:
    """Return layer -> names of its parameters and statistics; whatever is in no block counts as the stem's."""
    layers: dict[str, list[str]] = {}
    for name in names:
        if name.endswith("num_batches_tracked"):
            continue
        if match := re.match(r"(layer\d+\.\d+)\.(?:conv|bn)(\d+)\.", name):
            layer = f"{match[1]}.conv{match[2]}"
        elif match := re.match(r"(layer\d+\.\d+\.downsample|layer[1-9]\d*)\.", name):
            layer = match[1]
        else:
            layer = STEM
        layers.setdefault(layer, []).append(name)
    return layers


def _body(layers: Iterable[str]) -> set[str]:
    """Return the layers that every variant of an architecture has: not the stem, and no shortcut."""
    return {layer for layer in layers if layer != STEM and not layer.endswith("downsample")}


def _describe(layers: Iterable[str]) -> str:
    """Return the name of an architecture, or how many blocks its stages have."""
    body = _body(layers)
    blocks = {tuple(layer.split(".")[:2]) for layer in body}
    counts = tuple(sum(stage == b[0] for b in blocks) for stage in sorted({b[0] for b in blocks}))
    for depth, (block, expected) in LAYOUTS.items():
        if counts == expected and ("layer1.0.conv3" in body) == (block is Bottleneck):
            return f"a ResNet-{depth}"
    return f"stages of {', '.join(map(str, counts))} blocks" if counts else "no encoder"


def _misfit(name: str, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """Return why a tensor cannot be loaded, None if it can."""
    if name not in found:
        return f"the file has no {name}"
    if found[name].shape == own[name].shape:
        return None
    shapes = ("x".join(map(str, tensor.shape)) for tensor in (found[name], own[name]))
    return "{}: found {}, expected {}".format(name, *shapes)
