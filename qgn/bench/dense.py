"""The decoder of Table 7 on full grids, with torch's own layers: what the sparse one has to beat.

Shapes: b images, c, i and o channels, h and w rows and columns of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from qgn.models.decoder import CHANNELS, UNITS
from qgn.sparse.recompute import recomputed


def _conv(c_in: int, c_out: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, side, padding=side // 2, bias=False)


class DenseUnit(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(c_in, c_in, 3), nn.BatchNorm2d(c_in)
        self.conv2, self.bn2 = _conv(c_in, c_out, 3), nn.BatchNorm2d(c_out)
        self.shortcut = None if c_in == c_out else nn.Sequential(_conv(c_in, c_out, 1), nn.BatchNorm2d(c_out))

    def forward(self, x_bihw: Tensor) -> Tensor:
        shortcut_bohw = x_bihw if self.shortcut is None else self.shortcut(x_bihw)
        y_bihw = F.relu(self.bn1(self.conv1(x_bihw)), inplace=True)
        return F.relu(self.bn2(self.conv2(y_bihw)).add_(shortcut_bohw), inplace=True)


class DenseDecoder(nn.Module):
    """The decoder with propagation 'all' and no sparsity; parameters stand in the order of `Decoder`'s.

    Parameters
    ----------
    encoder_channels, num_classes, width, recompute
        As `qgn.models.decoder.Decoder`.
    """

    def __init__(
        self, encoder_channels: Sequence[int], num_classes: int, *, width: int = 64, recompute: bool = False
    ) -> None:
        super().__init__()
        self.recompute = recompute
        channels = [width * times for times in CHANNELS]
        coarse_to_fine = list(reversed(encoder_channels))
        self.skips = nn.ModuleList(
            nn.Sequential(_conv(*width, 1), nn.BatchNorm2d(width[1]), nn.ReLU(inplace=True))
            for width in zip(coarse_to_fine, channels[:-1], strict=True)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*(DenseUnit(*widths) for widths in pairwise([c_in] * units + [c_out])))
            for (c_in, c_out), units in zip(pairwise(channels), UNITS, strict=True)
        )
        head_channels = [coarse_to_fine[0], *channels[1:-1]]
        self.heads = nn.ModuleList(nn.Conv2d(c_in, num_classes + 1, 1) for c_in in head_channels)
        self.pixel_head = nn.ConvTranspose2d(channels[-1], num_classes + 1, 2, stride=2)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits of levels 5 to 0, each (B, k + 1, h, w)."""
        x_bchw: Tensor | None = None
        logits = []
        for feats_bchw, skip, block, head in zip(reversed(features), self.skips, self.blocks, self.heads, strict=True):
            level = partial(_level, skip, block, head)
            if self.recompute:
                level_logits, x_bchw = recomputed(level, (skip, block), feats_bchw, x_bchw)
            else:
                level_logits, x_bchw = level(feats_bchw, x_bchw)
            logits.append(level_logits)
        return [*logits, self.pixel_head(x_bchw)]


def _level(
    skip: nn.Module, block: nn.Module, head: nn.Module, feats_bchw: Tensor, parents_bchw: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run one level: upsampling, skip, prediction and block."""
    x_bchw = skip(feats_bchw)
    if parents_bchw is None:
        return head(feats_bchw), block(x_bchw)
    x_bchw = x_bchw + F.interpolate(parents_bchw, scale_factor=2, mode="nearest")
    return head(x_bchw), block(x_bchw)
