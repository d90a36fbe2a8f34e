"""Models by name."""

from __future__ import annotations

from .qgn import QGN
from .resnet import LAYOUTS

_DEPTHS = {f"qgn_resnet{depth}": depth for depth in LAYOUTS}
MODEL_NAMES = tuple(_DEPTHS)
"""Names that `build_model` knows."""


def build_model(
    name: str, num_classes: int, *, width: int = 64, backend: str = "native", recompute: bool = False
) -> QGN:
    """Build a model with random weights, drawn from torch's global generator.

    Parameters
    ----------
    name
        One of MODEL_NAMES.
    num_classes
        Number of classes without the composite one.
    width
        Channels of the first encoder stage and the finest decoder block, 64 in the paper.
    backend, recompute
        How the decoder computes, see `Decoder`.

    Raises
    ------
    ValueError
        No model or backend has this name, or a number is not positive.
    TrainingError
        The backend is not installed.
    """
    if name not in MODEL_NAMES:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(MODEL_NAMES)}")
    if num_classes < 1 or width < 1:
        raise ValueError(f"num_classes {num_classes} and width {width}: both must be at least 1")
    return QGN(_DEPTHS[name], num_classes, width=width, backend=backend, recompute=recompute)
