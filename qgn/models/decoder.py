"""The sparse decoder of Table 7: residual blocks on the active cells of levels 5 to 1.

At each level the active cells run through their block, hand their features to their four children (nearest
upsampling, Eq. 11), a 1x1 skip connection adds the encoder's features, and a 1x1 layer predicts k + 1
channels for every child. Cells that stay inactive are dropped before the next convolution.

Shapes: b images, c, i and o channels, h and w rows and columns of an encoder feature map, q = b * h * w cells
of its full grid, n visited nodes of a level, m active ones, k classes and the composite one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from qgn.sparse.backends import load_backend
from qgn.sparse.budget import Costs
from qgn.sparse.conv import SiteBatchNorm, SubMConv3x3
from qgn.sparse.frontier import Labels, Nodes, child_nodes, root_nodes
from qgn.sparse.fused import linear, norm_relu, norm_relu_conv
from qgn.sparse.propagation import Path, Propagation, begin, choose_sites
from qgn.sparse.recompute import recomputed
from qgn.sparse.sites import Sites
from qgn.sparse.transposed import TransposedConv3x3

from .prediction import LevelPrediction, QuadtreePrediction

LEVELS = 6
"""Levels of the predicted tree: the encoder's stride is 32."""
CHANNELS = (8, 4, 2, 1, 1, 1)
"""Channels into Trans4..Trans0 and out of Trans0, in units of the width (Table 7)."""
UNITS = (6, 4, 3, 3, 3)
"""Residual units of Trans4..Trans0 (Table 7)."""


class ResidualUnit(nn.Module):
    """Two submanifold convolutions around a shortcut; the second may change the width.

    The unit starts as its shortcut, so that features pass through the 19 units of a fresh decoder unchanged.
    """

    def __init__(self, c_in: int, c_out: int, *, backend: str = "native") -> None:
        super().__init__()
        self.conv1 = SubMConv3x3(c_in, c_in, backend=backend)
        self.bn1 = SiteBatchNorm(c_in)
        self.conv2 = SubMConv3x3(c_in, c_out, backend=backend)
        self.bn2 = SiteBatchNorm(c_out)
        nn.init.zeros_(self.bn2.weight)
        self.shortcut = None if c_in == c_out else Projection(c_in, c_out)

    def forward(self, x_mi: Tensor, sites: Sites) -> Tensor:
        shortcut_mo = x_mi if self.shortcut is None else self.shortcut(x_mi)
        y_mi = self.conv1(x_mi, sites)
        y_mo = norm_relu_conv(y_mi, self.bn1, self.conv2, sites)
        return self.bn2(y_mo).add_(shortcut_mo).relu_()


class UpUnit(nn.Module):
    """A residual unit that ends in transposed convolutions: each of a cell's four children gets features of its own."""

    def __init__(self, c_in: int, c_out: int, *, backend: str = "native") -> None:
        super().__init__()
        self.conv1 = SubMConv3x3(c_in, c_in, backend=backend)
        self.bn1 = SiteBatchNorm(c_in)
        self.conv2 = TransposedConv3x3(c_in, c_out)
        self.bn2 = SiteBatchNorm(c_out)
        nn.init.zeros_(self.bn2.weight)
        self.shortcut = Projection(c_in, c_out, children=4)

    def forward(self, x_mi: Tensor, sites: Sites) -> Tensor:
        """Return the features of the four children, (m, 4, o)."""
        y_mi = norm_relu(self.conv1(x_mi, sites), self.bn1)
        y_no = self.conv2(y_mi, sites).flatten(0, 1)
        return self.bn2(y_no).add_(self.shortcut(x_mi)).relu_().unflatten(0, (-1, 4))


class Projection(nn.Module):
    """A 1x1 convolution and batch normalisation on rows; or on rows' children, a 2x2 transposed one."""

    def __init__(self, c_in: int, c_out: int, *, children: int = 1) -> None:
        super().__init__()
        self.children_of_row = children
        self.conv = nn.Linear(c_in, children * c_out, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn = SiteBatchNorm(c_out)

    def forward(self, x_ni: Tensor) -> Tensor:
        y_no = linear(x_ni, self.conv.weight)
        return self.bn(y_no.unflatten(1, (self.children_of_row, -1)).flatten(0, 1))


class Skip(Projection):
    """The encoder's features at some cells, projected and rectified."""

    def forward(self, feats_qi: Tensor, cell_n: Tensor) -> Tensor:
        return norm_relu(linear(feats_qi, self.conv.weight, cell_n), self.bn)


class Block(nn.Module):
    """The residual units of one level; the last one changes the width, and with `up` makes features of children."""

    def __init__(self, c_in: int, c_out: int, units: int, *, up: bool = False, backend: str = "native") -> None:
        super().__init__()
        kinds = [ResidualUnit] * (units - 1) + [UpUnit if up else ResidualUnit]
        widths = pairwise([c_in] * units + [c_out])
        self.units = nn.ModuleList(kind(*width, backend=backend) for kind, width in zip(kinds, widths, strict=True))

    def forward(self, x_mi: Tensor, sites: Sites) -> Tensor:
        for unit in self.units:
            x_mi = unit(x_mi, sites)
        return x_mi


class Decoder(nn.Module):
    """Turn encoder features into a quadtree, coarse to fine.

    Parameters
    ----------
    encoder_channels
        Channels of the features at strides 2, 4, 8, 16 and 32.
    num_classes
        k; every prediction has one channel more, for composite cells.
    width
        Channels of the finest block, 64 in the paper.
    backend
        What computes the 3x3 convolutions, one of `qgn.sparse.backends.BACKENDS`.
    recompute
        Save no more than the features between levels for the backward pass, and run each level again there.
    convt
        Upsample to levels 4 to 1 by transposed convolutions in the last unit of a block (3x3, in its shortcut 2x2),
        not by nearest neighbour.
    pre_skip
        Predict levels 4 to 1 from what comes of the level above alone, before the skip connection; the skip is then
        computed at active sites only.
    context
        What the coarsest features pass through first, keeping their shape.

    Raises
    ------
    ValueError, TrainingError
        The backend is unknown, or not installed.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        num_classes: int,
        *,
        width: int = 64,
        backend: str = "native",
        recompute: bool = False,
        convt: bool = False,
        pre_skip: bool = False,
        context: nn.Module | None = None,
    ) -> None:
        super().__init__()
        load_backend(backend)
        self.recompute = recompute
        self.pre_skip = pre_skip
        self.context = context
        channels = [width * times for times in CHANNELS]
        coarse_to_fine = list(reversed(encoder_channels))
        self.skips = nn.ModuleList(Skip(c_in, c_out) for c_in, c_out in zip(coarse_to_fine, channels[:-1], strict=True))
        self.blocks = nn.ModuleList(
            Block(c_in, c_out, units, up=convt and level > 1, backend=backend)
            for (c_in, c_out), units, level in zip(pairwise(channels), UNITS, range(LEVELS - 1, 0, -1), strict=True)
        )
        # The coarsest prediction reads the encoder itself, the others their level's features.
        head_channels = [coarse_to_fine[0], *channels[1:-1]]
        self.heads = nn.ModuleList(nn.Linear(c_in, num_classes + 1) for c_in in head_channels)
        # A 2x2 transposed convolution: nearest upsampling would give the four pixels of a cell equal logits.
        self.pixel_head = nn.Linear(channels[-1], 4 * (num_classes + 1))
        self.costs = _costs(self)

    def forward(
        self, features: Sequence[Tensor], labels: Labels | None = None, propagation: Propagation | str = "pc"
    ) -> QuadtreePrediction:
        """Predict the quadtrees of a batch.

        Parameters
        ----------
        features
            Encoder features at strides 2, 4, 8, 16 and 32, each (B, C, H / stride, W / stride).
        labels
            Label trees of the batch, on the features' device; needed by `gtc` and `union`, optional otherwise.
        propagation
            Which cells go on, or its text.

        Raises
        ------
        TrainingError
            The propagation is unknown, or needs labels.
        ValueError
            The labels do not fit the features.
        """
        if isinstance(propagation, str):
            propagation = Propagation.parse(propagation)
        if self.context is not None:
            features = [*features[:-1], self.context(features[-1])]
        batch, _, rows, cols = features[-1].shape
        nodes = root_nodes(
            (batch, rows, cols),
            LEVELS - 1,
            labels=labels,
            follow_truth=propagation.follows_truth,
            device=features[-1].device,
        )
        choose = partial(choose_sites, propagation, costs=self.costs)
        path = begin(propagation, nodes, self.costs)
        sites: Sites | None = None
        x_mc: Tensor | None = None
        levels: list[LevelPrediction] = []
        for feats_bchw, skip, block, head in zip(reversed(features), self.skips, self.blocks, self.heads, strict=True):
            feats_qc = feats_bchw.permute(0, 2, 3, 1).flatten(0, 2)
            level = partial(_level, skip, block, head, choose, nodes, sites, path, self.pre_skip)
            if self.recompute and torch.is_grad_enabled():
                logits_nk, sites, path, x_mc = recomputed(level, (skip, block), feats_qc, x_mc)
            else:
                logits_nk, sites, path, x_mc = level(feats_qc, x_mc)
            levels.append(LevelPrediction(nodes, logits_nk, sites))
            nodes = child_nodes(nodes, sites, labels)
        logits_nk = self.pixel_head(x_mc).unflatten(1, (4, -1)).flatten(0, 1)
        levels.append(LevelPrediction(nodes, logits_nk, None))
        return QuadtreePrediction(tuple(reversed(levels)))


def _level(
    skip: Skip,
    block: Block,
    head: nn.Linear,
    choose: Callable[[Nodes, Tensor, Sites | None, Path], tuple[Sites, Path]],
    nodes: Nodes,
    parents: Sites | None,
    path: Path,
    pre_skip: bool,
    feats_qc: Tensor,
    parents_mc: Tensor | None,
) -> tuple[Tensor, Sites, Path, Tensor]:
    """Run one level: upsampling, skip, prediction, and the block on the cells that go on.

    Features of the parents are (m, c) for all four children, or (m, 4, c) for each.

    Returns
    -------
    Logits of the nodes (n, k + 1), the sites, the path for the next level, and the sites' features after the
    block (m, o) or (m, 4, o).
    """
    if parents_mc is None:
        logits_nk = head(feats_qc)
        sites, path = choose(nodes, logits_nk, None, path)
        return logits_nk, sites, path, block(skip(feats_qc, sites.cell_m), sites)
    parents_mfc = parents_mc if parents_mc.ndim == 3 else parents_mc[:, None]
    if pre_skip:
        x_nc = parents_mfc.expand(-1, 4, -1).flatten(0, 1)
        logits_nk = head(x_nc)
        sites, path = choose(nodes, logits_nk, parents, path)
        x_mc = x_nc.index_select(0, sites.node_m) + skip(feats_qc, sites.cell_m)
        return logits_nk, sites, path, block(x_mc, sites)
    skip_nc = skip(feats_qc, nodes.cell_n)
    x_nc = (parents_mfc + skip_nc.unflatten(0, (-1, 4))).flatten(0, 1)
    logits_nk = head(x_nc)
    sites, path = choose(nodes, logits_nk, parents, path)
    return logits_nk, sites, path, block(x_nc.index_select(0, sites.node_m), sites)


def _costs(decoder: Decoder) -> Costs:
    """Return the multiply-adds of what a decoder computes for a cell.

    A context module is left out: it costs the same whatever goes on.
    """
    site, pair = [0] * LEVELS, [0] * LEVELS
    for depth, (skip, block) in enumerate(zip(decoder.skips, decoder.blocks, strict=True)):
        level = LEVELS - 1 - depth
        units = list(block.units)
        convs = [conv for unit in units for conv in (unit.conv1, unit.conv2)]
        pair[level] = sum(prod(c.weight.shape[:2]) for c in convs if isinstance(c, SubMConv3x3))
        # A transposed convolution multiplies absent neighbours, too.
        site[level] += sum(c.weight.numel() for c in convs if isinstance(c, TransposedConv3x3))
        site[level] += sum(unit.shortcut.conv.weight.numel() for unit in units if unit.shortcut is not None)
        # Skips and predictions of a level are made for the four children of each cell of the level above; the
        # coarsest level, and all levels that predict before it, skip for their active cells alone.
        if depth > 0:
            site[level + 1] += 4 * decoder.heads[depth].weight.numel()
        if depth == 0 or decoder.pre_skip:
            site[level] += skip.conv.weight.numel()
        else:
            site[level + 1] += 4 * skip.conv.weight.numel()
    site[1] += decoder.pixel_head.weight.numel()
    return Costs(decoder.heads[0].weight.numel(), tuple(site), tuple(pair))
