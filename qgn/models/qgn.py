"""Quadtree Generating Networks: a strided encoder and a sparse decoder.

Shapes: b images, c channels, h and w rows and columns.
"""

from __future__ import annotations

from torch import Tensor, nn

from qgn.sparse.frontier import Labels

from .decoder import Decoder
from .prediction import QuadtreePrediction
from .resnet import ResNet

STRIDE = 32
"""Pixels a side of a coarsest cell; image sizes are multiples of it."""


class QGN(nn.Module):
    """Predict quadtrees from images (Figure 2).

    Schemes tried on one batch can share the encoder: `model.decoder(model.encoder(images), labels, scheme)`.

    Parameters
    ----------
    depth
        Depth of the ResNet encoder: 18, 34, 50 or 101.
    num_classes
        Number of classes without the composite one.
    width
        Channels of the first encoder stage and the finest decoder block, 64 in the paper.
    backend, recompute
        As `Decoder`.
    """

    def __init__(
        self, depth: int, num_classes: int, *, width: int = 64, backend: str = "native", recompute: bool = False
    ) -> None:
        super().__init__()
        self.encoder = ResNet(depth, width=width)
        self.decoder = Decoder(self.encoder.channels, num_classes, width=width, backend=backend, recompute=recompute)

    def forward(self, images_bchw: Tensor, labels: Labels | None = None, propagation: str = "pc") -> QuadtreePrediction:
        """Predict a batch.

        Parameters
        ----------
        images_bchw
            (B, 3, H, W) float, normalised and padded to multiples of 32.
        labels
            The batch's label trees (`LabelBatch`) on the same device: gives the prediction its targets, and
            `gtc` its sites.
        propagation
            `all`, `gtc` or `pc` (section 3.3).

        Raises
        ------
        ValueError
            Sizes are no multiples of 32, the labels' canvas differs, the scheme is unknown or lacks labels.
        """
        height, width = images_bchw.shape[2:]
        if height % STRIDE or width % STRIDE:
            raise ValueError(f"images of {height}x{width}: pad both sides to multiples of {STRIDE}")
        return self.decoder(self.encoder(images_bchw), labels, propagation)
