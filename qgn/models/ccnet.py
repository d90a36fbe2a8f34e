"""CCNet: every pixel of the features looks along its row and its column, twice, and so sees the whole image.

Huang et al., 'CCNet: Criss-Cross Attention for Semantic Segmentation', ICCV 2019, sections 3.2 and 3.3. The
attention holds H + W weights a pixel, of features of H x W; nothing of H W by H W is ever made.

Shapes: b images, c channels, d channels of queries and keys, h and w rows and columns, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .dense import Dense, DenseDecoder
from .layers import conv_norm_relu
from .resnet import ResNet

STRIDE = 8
"""Output stride of the encoder."""
DEPTHS = (50, 101)
AUXILIARY_WEIGHT = 0.4
"""Of the auxiliary head's loss."""
RECURRENCE = 2
"""Passes of the attention, with the same weights: after two, any pixel has been seen from any other."""


class CrissCrossAttention(nn.Module):
    """Add to every pixel what it attends to in its row and column (Figure 3 of the CCNet paper)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, max(1, channels // 8), 1)
        self.key = nn.Conv2d(channels, max(1, channels // 8), 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return features of the same shape."""
        query_bhwd, key_bhwd, value_bhwc = (
            layer(x_bchw).permute(0, 2, 3, 1) for layer in (self.query, self.key, self.value)
        )
        seen_bhwc = criss_cross(query_bhwd, key_bhwd, value_bhwc)
        return x_bchw + self.gamma * seen_bhwc.permute(0, 3, 1, 2)


def criss_cross(query_bhwd: Tensor, key_bhwd: Tensor, value_bhwc: Tensor) -> Tensor:
    """Return, for each pixel, the values of its row and column, weighted by the softmax of query times key.

    The pixel itself, where the two cross, counts once.
    """
    height = query_bhwd.shape[1]
    row_bhww = query_bhwd @ key_bhwd.transpose(2, 3)
    column_bwhh = query_bhwd.transpose(1, 2) @ key_bhwd.permute(0, 2, 3, 1)
    itself_hh = torch.eye(height, dtype=torch.bool, device=query_bhwd.device)
    column_bwhh = column_bwhh.masked_fill(itself_hh, -torch.inf)
    weights_bhwn = torch.cat([column_bwhh.transpose(1, 2), row_bhww], 3).softmax(3)
    from_column_bwhc = weights_bhwn[..., :height].transpose(1, 2) @ value_bhwc.transpose(1, 2)
    return from_column_bwhc.transpose(1, 2) + weights_bhwn[..., height:] @ value_bhwc


class CrissCrossDecoder(DenseDecoder):
    """Reduce the last features, let them attend twice, and classify them together with the encoder's own.

    In training, an auxiliary head classifies the features of the stage before the last.

    Parameters
    ----------
    encoder_channels
        Channels of the encoder's features, fine to coarse.
    num_classes
        Channels of the logits.
    width
        64 for the 512 channels of the paper; they scale with it.
    """

    def __init__(self, encoder_channels: Sequence[int], num_classes: int, *, width: int = 64) -> None:
        super().__init__(STRIDE)
        *_, c_before, c_in = encoder_channels
        channels = 8 * width
        self.reduce = conv_norm_relu(c_in, channels, 3)
        self.attention = CrissCrossAttention(channels)
        self.after = conv_norm_relu(channels, channels, 3)
        self.fuse = conv_norm_relu(c_in + channels, channels, 3)
        self.head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(channels, num_classes, 1))
        self.auxiliary = nn.Sequential(
            conv_norm_relu(c_before, channels, 3), nn.Dropout2d(0.1), nn.Conv2d(channels, num_classes, 1)
        )

    def maps(self, features: Sequence[Tensor]) -> list[Tensor]:
        x_bchw = self.reduce(features[-1])
        for _ in range(RECURRENCE):
            x_bchw = self.attention(x_bchw)
        x_bchw = self.fuse(torch.cat([features[-1], self.after(x_bchw)], 1))
        maps = [self.head(x_bchw)]
        return [*maps, self.auxiliary(features[-2])] if self.training else maps


def ccnet(depth: int, num_classes: int, width: int) -> Dense:
    """Return a ResNet of output stride 8 with recurrent criss-cross attention."""
    encoder = ResNet(depth, width=width, output_stride=STRIDE)
    decoder = CrissCrossDecoder(encoder.channels, num_classes, width=width)
    return Dense(encoder, decoder, loss_weights=(1.0, AUXILIARY_WEIGHT))
