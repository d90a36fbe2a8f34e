"""Tables 2 and 6 of the paper. Its GB are GiB, its TFLOPs multiply-adds; Table 5 stands in the data sets' manifests."""

from __future__ import annotations

from dataclasses import dataclass

Figures = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Method:
    """Hold a row of Table 2: Cityscapes val, 1024x2048. Those with a star are the paper's estimates.

    Attributes
    ----------
    model
        Name for `build_model`.
    scheme
        `gtc` where the sparse decoder carries on composite cells alone; their predicted ones are taken for the
        true ones.
    memory, macs
        GiB, 10^12 multiply-adds.
    """

    name: str
    model: str
    scheme: str
    memory: float
    macs: float


@dataclass(frozen=True)
class DataSet:
    """Hold a data set of Table 6: size and classes of what is segmented, and the figures, in GiB; None for none.

    Attributes
    ----------
    name
        Of its manifest.
    size
        (H, W) of the median validation image: the figures fit it.
    shares_of
        Split whose row of Table 5 gives the composite cells.
    decoder, resnet50, resnet101
        Of the decoder alone and of the whole network: dilated encoder, all cells, composite cells.
    """

    name: str
    size: tuple[int, int]
    num_classes: int
    decoder: Figures
    resnet50: Figures
    resnet101: Figures
    shares_of: str = "val"


TABLE_2 = (
    Method("DRN-C-42", "drn_c_42", "dense", 3.77, 1.07),
    Method("DRN-D-105", "drn_d_105", "dense", 15.15, 1.91),
    Method("DeepLabv3*", "deeplabv3_8_resnet101", "dense", 14.27, 1.97),
    Method("CCNet*", "ccnet_resnet101", "dense", 14.33, 1.55),
    Method("QGN Train-All-Eval-All", "qgn_resnet50", "all", 5.85, 0.48),
    Method("QGN Train-GTC-Eval-PC", "qgn_resnet50", "gtc", 3.66, 0.25),
)
TABLE_6 = (
    DataSet("cityscapes", (1024, 2048), 19, (0.15, 2.28, 0.09), (7.52, 5.85, 3.66), (13.89, 7.44, 5.26)),
    # The row of val is unreadable in our copy of Table 5; its ratio, 4.29 %, is near that of train, 4.24 %.
    DataSet("sunrgbd13", (441, 591), 13, (0.01, 0.27, 0.02), (0.98, 0.71, 0.46), (1.72, 0.91, 0.66), "train"),
    DataSet("sunrgbd37", (441, 591), 37, (0.04, 0.31, 0.03), (1.01, 0.75, 0.47), (1.75, 0.95, 0.67)),
    DataSet("ade20k", (480, 640), 150, (0.17, 0.53, 0.08), (1.31, 1.05, 0.60), (2.18, 1.29, 0.84)),
)
DECODER_PARAMETERS = 0.12
"""GiB of the decoder's parameters over those of a 1x1 convolution, 'around 0.12GB' (section 4.4)."""
