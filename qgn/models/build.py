"""Models by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from .ccnet import DEPTHS as CCNET_DEPTHS
from .ccnet import ccnet
from .deeplab import deeplabv3
from .dense import STRIDES, Dense, dilated_resnet
from .drn import LAYOUTS as DRN_LAYOUTS
from .drn import drn
from .pointrend import pointrend
from .pspnet import pspnet
from .qgn import QGN, VARIANTS
from .resnet import LAYOUTS
from .segmenter import Segmenter

QUADTREE: dict[str, Callable[..., QGN]] = {
    **{f"qgn_resnet{depth}": partial(QGN, depth) for depth in LAYOUTS},
    **{f"qgn_resnet{depth}_ppm": partial(QGN, depth, pooling=True) for depth in LAYOUTS},
}
"""Called with the number of classes and the other arguments of `build_model`, by name."""
DENSE: dict[str, Callable[[int, int], Dense]] = {
    **{f"dilated{s}_resnet{depth}": partial(dilated_resnet, depth, s) for s in STRIDES for depth in LAYOUTS},
    **{f"drn_{name}": partial(drn, name) for name in DRN_LAYOUTS},
    **{f"deeplabv3_{s}_resnet{depth}": partial(deeplabv3, depth, s) for s in STRIDES for depth in LAYOUTS},
    **{f"ccnet_resnet{depth}": partial(ccnet, depth) for depth in CCNET_DEPTHS},
    **{f"pspnet_resnet{depth}": partial(pspnet, depth) for depth in LAYOUTS},
    **{f"pointrend_resnet{depth}": partial(pointrend, depth) for depth in LAYOUTS},
}
"""Called with the number of classes and the width."""
MODEL_NAMES = (*QUADTREE, *DENSE)
"""Names that `build_model` knows."""


def build_model(
    name: str,
    num_classes: int,
    *,
    width: int = 64,
    variants: Sequence[str] = (),
    backend: str = "native",
    recompute: bool = False,
) -> Segmenter:
    """Build a model with random weights, drawn from torch's global generator.

    Parameters
    ----------
    name
        One of MODEL_NAMES.
    num_classes
        Number of classes without the composite one.
    width
        Channels of the first encoder stage, 64 in the papers; all others scale with it.
    variants
        Some of `qgn.models.qgn.VARIANTS`, for quadtree models.
    backend, recompute
        How the sparse decoder computes, see `Decoder`. Dense models have none: `backend` is left unused.

    Raises
    ------
    ValueError
        No model, variant or backend has this name, a number is not positive, or the model has no such choice.
    TrainingError
        The backend is not installed.
    """
    if name not in MODEL_NAMES:
        raise ValueError(f"model {name!r} is unknown, expected one of {', '.join(MODEL_NAMES)}")
    if num_classes < 1 or width < 1:
        raise ValueError(f"num_classes {num_classes} and width {width}: both must be at least 1")
    unknown = [variant for variant in variants if variant not in VARIANTS]
    if unknown:
        raise ValueError(f"variant {unknown[0]!r} is unknown, expected some of {', '.join(VARIANTS)}")
    if name in QUADTREE:
        return QUADTREE[name](num_classes, width=width, variants=variants, backend=backend, recompute=recompute)
    if variants or recompute:
        what = f"variant {variants[0]!r}" if variants else "levels to recompute"
        raise ValueError(f"model {name!r} is dense and has no {what}. Leave it out, or take a qgn model")
    return DENSE[name](num_classes, width)
