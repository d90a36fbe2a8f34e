"""PointRend for semantic segmentation (Kirillov et al., 2020): a coarse map, and a point head where it is uncertain.

The published variant on an encoder of stride 32: a feature pyramid and Panoptic FPN's semantic head give logits of
stride 4; the point head reads the finest level of the pyramid and those logits. As in the paper's section 5:

- N is a point for 256 pixels of the image, in training and at each step of inference (2048 for 512x1024, 8192 for
  1024x2048).
- A point is as uncertain as the probabilities of its two most probable classes are close; the authors' later code
  takes the logits' difference.
- In training, 3N points are drawn evenly, the 0.75N most uncertain stay, 0.25N more are drawn evenly. The losses of
  the coarse map, enlarged to the pixels, and of the points are summed.
- In inference, the coarse map is enlarged twofold twice; each time the N most uncertain cells are predicted anew.

Where the authors' code is for 64 channels a first stage, all widths here scale with it; group normalisation has 32
groups, or as many of these as divide a narrower layer.

Shapes: b images, c channels, h and w rows and columns, k classes, p points of an image; points are (x, y) in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qgn.sparse.frontier import Labels

from .dense import SCHEME, Dense, DensePrediction, as_rows, check_scheme, enlarged, pixel_targets
from .resnet import ResNet

STRIDE = 4
"""Of the coarse map and the finest pyramid level."""
AREA = 256
"""Pixels of the image for one point: those of a cell of stride 16."""
OVERSAMPLING, UNCERTAIN_SHARE = 3, 0.75
"""k and beta of section 3.2."""
HIDDEN_LAYERS = 3
"""Of the point head."""


class FeaturePyramid(nn.Module):
    """Feature pyramid (Lin et al., 2017): features of all strides, each with what lies coarser added."""

    def __init__(self, encoder_channels: Sequence[int], c_out: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c_in, c_out, 1) for c_in in encoder_channels)
        self.output = nn.ModuleList(nn.Conv2d(c_out, c_out, 3, padding=1) for _ in encoder_channels)
        for conv in (*self.lateral, *self.output):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return as many maps, fine to coarse."""
        sums = [lateral(feats_bchw) for lateral, feats_bchw in zip(self.lateral, features, strict=True)]
        for level in range(len(sums) - 2, -1, -1):
            sums[level] = sums[level] + F.interpolate(sums[level + 1], scale_factor=2, mode="nearest")
        return [output(sum_bchw) for output, sum_bchw in zip(self.output, sums, strict=True)]


class CoarseHead(nn.Module):
    """Panoptic FPN's semantic head (Kirillov et al., 2019): bring all levels to stride 4, add them, and classify."""

    def __init__(self, c_in: int, hidden: int, num_classes: int, levels: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(self._scale(c_in, hidden, level) for level in range(levels))
        self.predictor = nn.Conv2d(hidden, num_classes, 1)

    @staticmethod
    def _scale(c_in: int, hidden: int, level: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for step in range(max(1, level)):
            conv = nn.Conv2d(hidden if step else c_in, hidden, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers += [conv, nn.GroupNorm(math.gcd(32, hidden), hidden), nn.ReLU(inplace=True)]
            if level:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        return nn.Sequential(*layers)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Return logits of stride 4, (B, k, H / 4, W / 4)."""
        maps = [scale(feats_bchw) for scale, feats_bchw in zip(self.scales, pyramid, strict=True)]
        return self.predictor(sum(maps[1:], start=maps[0]))


class PointHead(nn.Module):
    """A multilayer perceptron that every point shares; each of its layers reads the coarse logits again."""

    def __init__(self, c_fine: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        widths = [c_fine, *[hidden] * HIDDEN_LAYERS]
        self.layers = nn.ModuleList(nn.Linear(c_in + num_classes, hidden) for c_in in widths[:-1])
        self.predictor = nn.Linear(hidden + num_classes, num_classes)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, fine_bchw: Tensor, coarse_bkhw: Tensor, points_bp2: Tensor) -> Tensor:
        """Return the logits of points, (B, p, k)."""
        coarse_bpk = sample(coarse_bkhw, points_bp2)
        x_bpc = sample(fine_bchw, points_bp2)
        for layer in self.layers:
            x_bpc = F.relu(layer(torch.cat([x_bpc, coarse_bpk], 2)))
        return self.predictor(torch.cat([x_bpc, coarse_bpk], 2))


class PointRendDecoder(nn.Module):
    """Coarse logits, refined at uncertain points.

    Parameters
    ----------
    encoder_channels
        Channels of the encoder's features at strides 2, 4, 8, 16 and 32; the first is not used.
    num_classes
        k.
    width
        64 for the published widths: 256 channels in the pyramid and the point head, 128 in the coarse head.
    """

    def __init__(self, encoder_channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        used = encoder_channels[1:]
        self.pyramid = FeaturePyramid(used, 4 * width)
        self.coarse = CoarseHead(4 * width, 2 * width, num_classes, len(used))
        self.points = PointHead(4 * width, 4 * width, num_classes)

    def forward(
        self, features: Sequence[Tensor], labels: Labels | None = None, propagation: str = SCHEME
    ) -> DensePrediction:
        """Predict every pixel of a batch; in training, by the coarse map alone, and random points beside.

        Parameters
        ----------
        features
            Encoder features at strides 2, 4, 8, 16 and 32.
        labels
            Label trees of the batch, on the features' device: the prediction's targets are drawn from them there.
        propagation
            `dense`.

        Raises
        ------
        ValueError
            The scheme is another one, or the labels do not fit the features.
        """
        check_scheme(propagation)
        pyramid = self.pyramid(features[1:])
        fine_bchw, coarse_bkhw = pyramid[0], self.coarse(pyramid)
        height, width = (STRIDE * side for side in coarse_bkhw.shape[2:])
        count = max(1, height * width // AREA)
        if not self.training:
            return DensePrediction.of_maps([self._refined(fine_bchw, coarse_bkhw, count)], labels)
        scores_bkhw = enlarged(coarse_bkhw, (height, width))
        points_bp2 = uncertain_points(coarse_bkhw, count)
        point_logits = self.points(fine_bchw, coarse_bkhw, points_bp2).flatten(0, 1)
        truth = None
        if labels is not None:
            target_bhw = pixel_targets(scores_bkhw, labels)
            x_bp, y_bp = (points_bp2 * points_bp2.new_tensor([width, height])).long().unbind(2)
            truth = (target_bhw.flatten(), target_bhw.flatten(1).gather(1, y_bp * width + x_bp).flatten())
        return DensePrediction(scores_bkhw, (as_rows(scores_bkhw), point_logits), truth)

    def _refined(self, fine_bchw: Tensor, coarse_bkhw: Tensor, count: int) -> Tensor:
        """Return logits of every pixel, by adaptive subdivision of the coarse map."""
        scores_bkhw = coarse_bkhw
        for _ in range(int(math.log2(STRIDE))):
            rows, cols = (2 * side for side in scores_bkhw.shape[2:])
            scores_bkhw = enlarged(scores_bkhw, (rows, cols))
            scores_bnk = scores_bkhw.permute(0, 2, 3, 1).flatten(1, 2)
            cell_bp = uncertainty(scores_bnk).topk(min(count, rows * cols)).indices
            points_bp2 = torch.stack([(cell_bp % cols + 0.5) / cols, (cell_bp // cols + 0.5) / rows], 2)
            logits_bpk = self.points(fine_bchw, coarse_bkhw, points_bp2).to(scores_bnk.dtype)
            scores_bnk = scores_bnk.scatter(1, cell_bp[:, :, None].expand(-1, -1, logits_bpk.shape[2]), logits_bpk)
            scores_bkhw = scores_bnk.unflatten(1, (rows, cols)).permute(0, 3, 1, 2)
        return scores_bkhw


def sample(map_bchw: Tensor, points_bp2: Tensor) -> Tensor:
    """Return the values of a map at points, (B, p, c), bilinear between cells' centres; zero lies beyond its border."""
    dtype = torch.promote_types(map_bchw.dtype, torch.float32)  # places need more digits than values
    grid_bp12 = (2 * points_bp2 - 1).unsqueeze(2).to(dtype)
    return F.grid_sample(map_bchw.to(dtype), grid_bp12, mode="bilinear", align_corners=False).squeeze(3).transpose(1, 2)


@torch.no_grad()
def uncertainty(logits_bpk: Tensor) -> Tensor:
    """Return how uncertain points are, (B, p): second largest less largest probability, at most 0."""
    best_bp2 = logits_bpk.float().softmax(2).topk(min(2, logits_bpk.shape[2]), dim=2).values
    return best_bp2[:, :, -1] - best_bp2[:, :, 0]


@torch.no_grad()
def uncertain_points(coarse_bkhw: Tensor, count: int) -> Tensor:
    """Return points to train on, (B, count, 2): most of them where the coarse map is uncertain, the rest anywhere."""
    batch, device = len(coarse_bkhw), coarse_bkhw.device
    drawn_bp2 = torch.rand(batch, OVERSAMPLING * count, 2, device=device)
    chosen = int(UNCERTAIN_SHARE * count)
    best_bp = uncertainty(sample(coarse_bkhw, drawn_bp2)).topk(chosen).indices
    uncertain_bp2 = drawn_bp2.gather(1, best_bp[:, :, None].expand(-1, -1, 2))
    return torch.cat([uncertain_bp2, torch.rand(batch, count - chosen, 2, device=device)], 1)


def pointrend(depth: int, num_classes: int, width: int) -> Dense:
    """Return PointRend on a ResNet of stride 32; coarse map and points weigh 1 each."""
    encoder = ResNet(depth, width=width)
    return Dense(encoder, PointRendDecoder(encoder.channels, num_classes, width), (1.0, 1.0))
