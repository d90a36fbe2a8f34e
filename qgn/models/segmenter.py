"""What all models have in common: an encoder, a decoder, and the names of the ways to run the decoder.

Shapes: b images, c channels, h and w rows and columns.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from qgn.sparse.frontier import Labels

STRIDE = 32
"""Pixels a side of a coarsest cell of the label trees; image sizes are multiples of it, whatever the model."""


class Segmenter(nn.Module):
    """Predict the classes of pixels from images.

    Ways to run the decoder on one batch can share the encoder: `model.decoder(model.encoder(images), labels, scheme)`.

    Attributes
    ----------
    schemes
        Propagation schemes that the decoder knows: the first is the one to train with, the last needs no labels.
    loss_weights
        Weights of the losses of a training prediction's heads. None where they are the training's choice: the
        levels of a quadtree.
    """

    schemes: ClassVar[tuple[str, ...]]
    loss_weights: tuple[float, ...] | None = None

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images_bchw: Tensor, labels: Labels | None = None, propagation: Any = None) -> Any:
        """Predict a batch.

        Parameters
        ----------
        images_bchw
            (B, 3, H, W) float, normalised and padded to multiples of 32.
        labels
            The batch's label trees (`LabelBatch`) on the same device: gives the prediction its targets, and
            `gtc` its sites.
        propagation
            Passed to the decoder; by default the last of `schemes`, which needs no labels.

        Returns
        -------
        `QuadtreePrediction` or `DensePrediction`.

        Raises
        ------
        ValueError
            Sizes are no multiples of 32, the labels' canvas differs, the scheme is unknown or lacks labels.
        """
        height, width = images_bchw.shape[2:]
        if height % STRIDE or width % STRIDE:
            raise ValueError(f"images of {height}x{width}: pad both sides to multiples of {STRIDE}")
        return self.decoder(self.encoder(images_bchw), labels, self.schemes[-1] if propagation is None else propagation)
