"""The layer that heads and context modules are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that, given one value a channel, uses its running statistics and leaves them as they are.

    Features pooled over a whole image have one value a channel in a batch of one, and one value has no deviation.
    """

    def forward(self, x_bchw: Tensor) -> Tensor:
        if not self.training or x_bchw.numel() > self.num_features:
            return super().forward(x_bchw)
        return F.batch_norm(x_bchw, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def conv_norm_relu(c_in: int, c_out: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return a convolution that keeps its input's size at stride 1, batch normalisation and ReLU."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(c_in, c_out, kernel, stride, padding=padding, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, BatchNorm(c_out), nn.ReLU(inplace=True))
