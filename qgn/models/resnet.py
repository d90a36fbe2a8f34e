"""ResNet encoders with a deep stem: features at strides 2, 4, 8, 16 and 32 (Table 7, left half), or dilated.

Parameters carry the names of timm's `resnet50s` family, so that published weights load by name. Three
3x3 convolutions stand in for the 7x7 one (A.1 of the paper).

Shapes: b images, c channels, h and w rows and columns; c of a stage is a multiple of `width`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2 * dilation, dilation, bias=False)


def _shortcut(c_in: int, c_out: int, stride: int) -> nn.Sequential | None:
    """Return the 1x1 projection of a block that changes its shape, or None."""
    if c_in == c_out and stride == 1:
        return None
    return nn.Sequential(_conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (ResNet-18 and -34)."""

    expansion: ClassVar[int] = 1

    def __init__(self, c_in: int, planes: int, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv1 = _conv(c_in, planes, 3, stride, dilations[0])
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, dilation=dilations[1])
        self.bn2 = nn.BatchNorm2d(planes)
        self.act = nn.ReLU(inplace=True)
        self.downsample = _shortcut(c_in, planes, stride)

    def forward(self, x_bchw: Tensor) -> Tensor:
        shortcut_bchw = x_bchw if self.downsample is None else self.downsample(x_bchw)
        y_bchw = self.act(self.bn1(self.conv1(x_bchw)))
        return self.act(self.bn2(self.conv2(y_bchw)) + shortcut_bchw)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, around a shortcut (ResNet-50 and -101)."""

    expansion: ClassVar[int] = 4

    def __init__(self, c_in: int, planes: int, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        c_out = planes * self.expansion
        self.conv1 = _conv(c_in, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, stride, dilations[0])
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, c_out, 1)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.act = nn.ReLU(inplace=True)
        self.downsample = _shortcut(c_in, c_out, stride)

    def forward(self, x_bchw: Tensor) -> Tensor:
        shortcut_bchw = x_bchw if self.downsample is None else self.downsample(x_bchw)
        y_bchw = self.act(self.bn1(self.conv1(x_bchw)))
        y_bchw = self.act(self.bn2(self.conv2(y_bchw)))
        return self.act(self.bn3(self.conv3(y_bchw)) + shortcut_bchw)


LAYOUTS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}
"""Block type and blocks a stage of each depth."""


class ResNet(nn.Module):
    """Encode images into features at five strides.

    Parameters
    ----------
    depth
        18, 34, 50 or 101.
    width
        Channels of the first stage (64 in the paper); all others scale with it.
    output_stride
        Stride of the last features: 32, or 16 or 8. Convolutions of the stages that keep their resolution then
        are dilated to see as far as before (Yu and Koltun, 2016): their first 3x3 as the stage above them, all
        others twice as wide.
    multi_grid
        Dilations of the last stage's blocks, in units of the stage's own.
    stem64
        Give the stem as many channels as the first stage has (64, Table 7), not twice as many (128, the reference
        code and timm's `resnet50s`).

    Attributes
    ----------
    channels
        Channels of the features at strides 2, 4, 8, 16 and 32, or `output_stride` where that is less.
    """

    def __init__(
        self,
        depth: int,
        *,
        width: int = 64,
        output_stride: int = 32,
        multi_grid: Sequence[int] = (1, 1, 1),
        stem64: bool = False,
    ) -> None:
        super().__init__()
        block, counts = LAYOUTS[depth]
        stem = width if stem64 else 2 * width
        self.conv1 = nn.Sequential(
            _conv(3, width, 3, 2),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            _conv(width, width, 3),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            _conv(width, stem, 3),
        )
        self.bn1 = nn.BatchNorm2d(stem)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.channels = (stem, *(width * 2**stage * block.expansion for stage in range(4)))
        for stage, (count, (c_in, c_out)) in enumerate(zip(counts, pairwise(self.channels), strict=True)):
            planes = c_out // block.expansion
            dilation = max(1, 4 * 2**stage // output_stride)
            strided = stage > 0 and dilation == 1
            grid = [dilation * unit for unit in multi_grid[:count]] if stage == 3 else [dilation] * count
            first = block(c_in, planes, 2 if strided else 1, (max(1, grid[0] // 2), grid[0]))
            rest = (block(c_out, planes, 1, (wide, wide)) for wide in grid[1:])
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *rest))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock | Bottleneck):  # every block starts as its shortcut
                nn.init.zeros_((module.bn2 if isinstance(module, BasicBlock) else module.bn3).weight)

    def forward(self, images_bchw: Tensor) -> tuple[Tensor, ...]:
        """Return the features of the stem and the four stages, channels last in memory.

        Parameters
        ----------
        images_bchw
            (B, 3, H, W) float, normalised; H and W multiples of 32.
        """
        # Channels last makes the decoder's row gathers free of copies.
        x_bchw = images_bchw.contiguous(memory_format=torch.channels_last)
        x_bchw = self.act1(self.bn1(self.conv1(x_bchw)))
        features = [x_bchw]
        x_bchw = self.maxpool(x_bchw)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x_bchw = stage(x_bchw)
            features.append(x_bchw)
        return tuple(features)
