"""Quadtree Generating Networks: a strided encoder and a sparse decoder."""

from __future__ import annotations

from collections.abc import Sequence

from .decoder import Decoder
from .pooling import PoolingContext
from .resnet import ResNet
from .segmenter import Segmenter

VARIANTS = ("convt", "pre_skip", "stem64")
"""Choices on which the paper and its reference code differ, where ours is the other one."""


class QGN(Segmenter):
    """Predict quadtrees from images (Figure 2).

    With the three variants and every cell carried on (`all`), this is the RGB half of RedNet (Jiang et al., 2018),
    from which the decoder comes, but for its stem of one 7x7 convolution.

    Parameters
    ----------
    depth
        Depth of the ResNet encoder: 18, 34, 50 or 101.
    num_classes
        Number of classes without the composite one.
    width
        Channels of the first encoder stage and the finest decoder block, 64 in the paper.
    variants
        Some of VARIANTS: `convt` and `pre_skip` as `Decoder`, `stem64` as `ResNet`.
    pooling
        Put a pyramid-pooling module between encoder and decoder (QGN + PSPNet in the paper).
    backend, recompute
        As `Decoder`.
    """

    schemes = ("gtc", "all", "pc")

    def __init__(
        self,
        depth: int,
        num_classes: int,
        *,
        width: int = 64,
        variants: Sequence[str] = (),
        pooling: bool = False,
        backend: str = "native",
        recompute: bool = False,
    ) -> None:
        encoder = ResNet(depth, width=width, stem64="stem64" in variants)
        decoder = Decoder(
            encoder.channels,
            num_classes,
            width=width,
            backend=backend,
            recompute=recompute,
            convt="convt" in variants,
            pre_skip="pre_skip" in variants,
            context=PoolingContext(encoder.channels[-1]) if pooling else None,
        )
        super().__init__(encoder, decoder)
