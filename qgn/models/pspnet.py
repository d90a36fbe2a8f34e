"""PSPNet (Zhao et al., 2017): pyramid pooling on features of stride 8, with an auxiliary loss in training.

As the authors' PyTorch code: averages of a quarter of the channels, a 3x3 convolution to as many, dropout of 0.1, and
a second head on the third stage whose loss weighs 0.4. Unlike there, sides are multiples of 32 and cells' centres
stay in place when maps are enlarged, and the first convolution of a dilated stage is dilated as the stage before it.

Shapes: b images, c channels, h and w rows and columns, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .dense import Dense, DenseDecoder
from .layers import conv_norm_relu
from .pooling import BINS, PyramidPooling
from .resnet import ResNet

STRIDE = 8
AUXILIARY_WEIGHT = 0.4
"""Weight of the second head's loss."""


class PSPDecoder(DenseDecoder):
    """Pyramid pooling and a head; in training, also a head on the features before the last.

    Parameters
    ----------
    encoder_channels
        Channels of the encoder's features, fine to coarse.
    num_classes
        k.
    """

    def __init__(self, encoder_channels: Sequence[int], num_classes: int) -> None:
        super().__init__(STRIDE)
        *_, before, last = encoder_channels
        average = max(1, last // len(BINS))
        self.pooling = PyramidPooling(last, average)
        self.head = _head(last + len(BINS) * average, average, num_classes)
        self.auxiliary = _head(before, max(1, before // 4), num_classes)

    def maps(self, features: Sequence[Tensor]) -> list[Tensor]:
        main_bkhw = self.head(self.pooling(features[-1]))
        return [main_bkhw, self.auxiliary(features[-2])] if self.training else [main_bkhw]


def _head(c_in: int, hidden: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(conv_norm_relu(c_in, hidden, 3), nn.Dropout2d(0.1), nn.Conv2d(hidden, num_classes, 1))


def pspnet(depth: int, num_classes: int, width: int) -> Dense:
    """Return PSPNet on a ResNet dilated to stride 8."""
    encoder = ResNet(depth, width=width, output_stride=STRIDE)
    return Dense(encoder, PSPDecoder(encoder.channels, num_classes), (1.0, AUXILIARY_WEIGHT))
