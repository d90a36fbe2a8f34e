"""DeepLabv3: a dilated ResNet and atrous spatial pyramid pooling.

Chen, Papandreou, Schroff and Adam, 'Rethinking Atrous Convolution for Semantic Image Segmentation', 2017,
section 3.3 and Figure 5.

Shapes: b images, c channels, h and w rows and columns, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .dense import Dense, DenseDecoder
from .layers import conv_norm_relu
from .resnet import ResNet

MULTI_GRID = (1, 2, 4)
"""Dilations of the three blocks of the encoder's last stage, in units of the stage's own (section 3.1)."""


def rates(stride: int) -> tuple[int, int, int]:
    """Return the dilations of the pyramid at an output stride: (6, 12, 18) at 16, twice that at 8, half at 32."""
    return (96 // stride, 192 // stride, 288 // stride)


class ASPPDecoder(DenseDecoder):
    """Pool the last features at several rates and over the whole image, and classify what comes out.

    Parameters
    ----------
    c_in
        Channels of the features.
    num_classes
        Channels of the logits.
    stride
        Of the features: 8, 16 or 32.
    width
        64 for the 256 channels of the paper; they scale with it.
    """

    def __init__(self, c_in: int, num_classes: int, stride: int, *, width: int = 64) -> None:
        super().__init__(stride)
        c_out = 4 * width
        self.point = conv_norm_relu(c_in, c_out, 1)
        self.atrous = nn.ModuleList(conv_norm_relu(c_in, c_out, 3, dilation=rate) for rate in rates(stride))
        self.image = conv_norm_relu(c_in, c_out, 1)
        self.project = conv_norm_relu(5 * c_out, c_out, 1)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Conv2d(c_out, num_classes, 1)

    def maps(self, features: Sequence[Tensor]) -> list[Tensor]:
        feats_bchw = features[-1]
        branches = [self.point(feats_bchw), *(branch(feats_bchw) for branch in self.atrous)]
        image_bc11 = self.image(feats_bchw.mean((2, 3), keepdim=True))
        branches.append(image_bc11.expand_as(branches[0]))
        return [self.head(self.dropout(self.project(torch.cat(branches, 1))))]


def deeplabv3(depth: int, stride: int, num_classes: int, width: int) -> Dense:
    """Return a ResNet of an output stride of 8, 16 or 32 with atrous spatial pyramid pooling."""
    encoder = ResNet(depth, width=width, output_stride=stride, multi_grid=MULTI_GRID)
    return Dense(encoder, ASPPDecoder(encoder.channels[-1], num_classes, stride, width=width))
