"""Dilated residual networks: encoders of output stride 8 whose last levels remove the gridding of dilation.

DRN-C and DRN-D of Yu, Koltun and Funkhouser, 'Dilated Residual Networks', CVPR 2017 (Figure 5): no max pooling,
levels 5 and 6 dilated by 2 and 4, and levels 7 and 8 without shortcuts, dilated by 2 and 1. Parameters carry the
names of the authors' code, so that their ImageNet weights load by name.

Shapes: b images, c channels, h and w rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .dense import Dense, LinearDecoder
from .layers import conv_norm_relu
from .resnet import BasicBlock, Bottleneck

CHANNELS = (16, 32, 64, 128, 256, 512, 512, 512)
"""Channels of levels 1 to 8 at width 64; the blocks of DRN-D give four times as many in levels 3 to 6."""
STRIDE = 8
"""Of the features."""
STRIDES = (1, 2, 2, 2, 1, 1, 1, 1)
DILATIONS = (1, 1, 1, 1, 2, 4, 2, 1)
LAYOUTS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    "c_42": (BasicBlock, (3, 4, 6, 3)),
    "d_105": (Bottleneck, (3, 4, 23, 3)),
}
"""Block type, and blocks of levels 3 to 6. The other levels have one block in C, one convolution in D."""


class PlainBlock(nn.Module):
    """Two 3x3 convolutions without a shortcut, which would carry the grid past them (section 4 of the DRN paper)."""

    def __init__(self, c_in: int, c_out: int, dilation: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act = conv_norm_relu(c_in, c_out, 3, dilation=dilation)
        self.conv2, self.bn2, _ = conv_norm_relu(c_out, c_out, 3, dilation=dilation)

    def forward(self, x_bchw: Tensor) -> Tensor:
        y_bchw = self.act(self.bn1(self.conv1(x_bchw)))
        return self.act(self.bn2(self.conv2(y_bchw)))


class DRN(nn.Module):
    """Encode images into features at stride 8.

    Parameters
    ----------
    name
        `c_42` or `d_105`.
    width
        64 in the published networks; all channels scale with it.

    Attributes
    ----------
    channels
        Channels of the features.
    """

    def __init__(self, name: str, *, width: int = 64) -> None:
        super().__init__()
        block, counts = LAYOUTS[name]
        widths = [max(1, width * channels // 64) for channels in CHANNELS]
        stem = conv_norm_relu(3, widths[0], 7)
        is_c = name.startswith("c")
        if is_c:
            self.conv1, self.bn1, self.act1 = stem
        else:
            self.layer0 = stem
        c_in = widths[0]
        for at, (c_out, stride, dilation) in enumerate(zip(widths, STRIDES, DILATIONS, strict=True)):
            if 2 <= at < 6:
                c_block = c_out * block.expansion
                first = block(c_in, c_out, stride, (dilation, dilation))
                rest = (block(c_block, c_out, 1, (dilation, dilation)) for _ in range(counts[at - 2] - 1))
                layers, c_out = [first, *rest], c_block
            elif not is_c:
                layers = conv_norm_relu(c_in, c_out, 3, stride=stride, dilation=dilation)
            else:
                layers = [BasicBlock(c_in, c_out, stride) if at < 2 else PlainBlock(c_in, c_out, dilation)]
            setattr(self, f"layer{at + 1}", nn.Sequential(*layers))
            c_in = c_out
        self.channels = (c_in,)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_bchw: Tensor) -> tuple[Tensor]:
        """Return the features at stride 8, channels last in memory.

        Parameters
        ----------
        images_bchw
            (B, 3, H, W) float, normalised; H and W multiples of 8.
        """
        x_bchw = images_bchw.contiguous(memory_format=torch.channels_last)
        for part in self.children():
            x_bchw = part(x_bchw)
        return (x_bchw,)


def drn(name: str, num_classes: int, width: int) -> Dense:
    """Return a DRN with a 1x1 head, as the authors segment with it (section 6 of the DRN paper)."""
    encoder = DRN(name, width=width)
    return Dense(encoder, LinearDecoder(encoder.channels[-1], num_classes, STRIDE))
