"""The sparse decoder of Table 7 as one writes it with spconv: its layers and tensors, torch for the rest.

The cells of each level come from this project's frontier; spconv finds their neighbours itself, once a level.

Shapes: n visited nodes of a level, m active ones, q cells of its full grid, c, i and o channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import spconv.pytorch as spconv
import torch
import torch.nn.functional as F
from spconv.core import ConvAlgo
from torch import Tensor, nn

from qgn.models.decoder import CHANNELS, LEVELS, UNITS
from qgn.sparse.frontier import COMPOSITE_CHANNEL, Labels, child_nodes, root_nodes
from qgn.sparse.sites import select_sites


def _conv(c_in: int, c_out: int, level: int) -> spconv.SubMConv2d:
    return spconv.SubMConv2d(c_in, c_out, 3, bias=False, indice_key=f"level {level}", algo=ConvAlgo.Native)


class SpconvUnit(nn.Module):
    """Two submanifold convolutions around a shortcut."""

    def __init__(self, c_in: int, c_out: int, level: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(c_in, c_in, level), nn.BatchNorm1d(c_in)
        self.conv2, self.bn2 = _conv(c_in, c_out, level), nn.BatchNorm1d(c_out)
        self.shortcut = None
        if c_in != c_out:
            self.shortcut = nn.Sequential(nn.Linear(c_in, c_out, bias=False), nn.BatchNorm1d(c_out))

    def forward(self, x: spconv.SparseConvTensor) -> spconv.SparseConvTensor:
        shortcut_mo = x.features if self.shortcut is None else self.shortcut(x.features)
        y = self.conv1(x)
        y = self.conv2(y.replace_feature(F.relu(self.bn1(y.features), inplace=True)))
        return y.replace_feature(F.relu(self.bn2(y.features).add_(shortcut_mo), inplace=True))


class SpconvDecoder(nn.Module):
    """The decoder with ground-truth propagation; parameters stand in the order of `Decoder`'s."""

    def __init__(self, encoder_channels: Sequence[int], num_classes: int, *, width: int = 64) -> None:
        super().__init__()
        channels = [width * times for times in CHANNELS]
        coarse_to_fine = list(reversed(encoder_channels))
        self.skips = nn.ModuleList(
            nn.Sequential(nn.Linear(*widths, bias=False), nn.BatchNorm1d(widths[1]), nn.ReLU(inplace=True))
            for widths in zip(coarse_to_fine, channels[:-1], strict=True)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*(SpconvUnit(*widths, LEVELS - 1 - i) for widths in pairwise([c_in] * UNITS[i] + [c_out])))
            for i, (c_in, c_out) in enumerate(pairwise(channels))
        )
        head_channels = [coarse_to_fine[0], *channels[1:-1]]
        self.heads = nn.ModuleList(nn.Linear(c_in, num_classes + 1) for c_in in head_channels)
        self.pixel_head = nn.Linear(channels[-1], 4 * (num_classes + 1))

    def forward(self, features: Sequence[Tensor], labels: Labels) -> list[Tensor]:
        """Return the logits of levels 5 to 0, each (n, k + 1)."""
        nodes = root_nodes(labels.grid, LEVELS - 1, labels=labels, follow_truth=True)
        sites, x, logits = None, None, []
        for feats_bchw, skip, block, head in zip(reversed(features), self.skips, self.blocks, self.heads, strict=True):
            feats_qc = feats_bchw.permute(0, 2, 3, 1).flatten(0, 2)
            if x is None:
                logits.append(head(feats_qc))
                sites = select_sites(nodes, nodes.target_n == COMPOSITE_CHANNEL, None)
                x_mc = skip(feats_qc.index_select(0, sites.cell_m))
            else:
                skip_nc = skip(feats_qc.index_select(0, nodes.cell_n))
                x_nc = (x.features[:, None] + skip_nc.unflatten(0, (-1, 4))).flatten(0, 1)
                logits.append(head(x_nc))
                sites = select_sites(nodes, nodes.target_n == COMPOSITE_CHANNEL, sites)
                x_mc = x_nc.index_select(0, sites.node_m)
            indices_m3 = torch.stack(sites.positions(), 1).int().contiguous()
            x = block(spconv.SparseConvTensor(x_mc, indices_m3, list(sites.shape[1:]), sites.shape[0]))
            nodes = child_nodes(nodes, sites, labels)
        return [*logits, self.pixel_head(x.features).unflatten(1, (4, -1)).flatten(0, 1)]
