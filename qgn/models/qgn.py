"""Quadtree Generating Networks: a strided encoder and a sparse decoder."""

from __future__ import annotations

from .decoder import Decoder
from .resnet import ResNet
from .segmenter import Segmenter


class QGN(Segmenter):
    """Predict quadtrees from images (Figure 2).

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

    schemes = ("gtc", "all", "pc")

    def __init__(
        self, depth: int, num_classes: int, *, width: int = 64, backend: str = "native", recompute: bool = False
    ) -> None:
        encoder = ResNet(depth, width=width)
        super().__init__(
            encoder, Decoder(encoder.channels, num_classes, width=width, backend=backend, recompute=recompute)
        )
