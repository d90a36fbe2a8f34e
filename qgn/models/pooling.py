"""Pyramid pooling (Zhao et al., 2017): averages over 1, 2x2, 3x3 and 6x6 parts of an image, beside its features.

Shapes: b images, c, i and o channels, h and w rows and columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import conv_norm_relu

BINS = (1, 2, 3, 6)
"""Parts a side."""


class PyramidPooling(nn.Module):
    """Return (B, i, h, w) features and, enlarged to their size, four averages of o channels each."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), conv_norm_relu(c_in, c_out, 1)) for bins in BINS
        )

    def forward(self, x_bihw: Tensor) -> Tensor:
        size = x_bihw.shape[2:]
        averages = [
            F.interpolate(branch(x_bihw), size, mode="bilinear", align_corners=False) for branch in self.branches
        ]
        # One value enlarged loses its memory format, and all would follow it.
        return torch.cat([x_bihw, *(a.contiguous(memory_format=torch.channels_last) for a in averages)], 1)


class PoolingContext(nn.Sequential):
    """Pyramid pooling between encoder and decoder: features of the same shape that have seen the whole image.

    As the reference code's: averages of an eighth of the channels (256 for ResNet-50), and a 1x1 convolution with
    bias, without normalisation, back to them.
    """

    def __init__(self, channels: int) -> None:
        average = max(1, channels // 8)
        super().__init__(PyramidPooling(channels, average), nn.Conv2d(channels + len(BINS) * average, channels, 1))
