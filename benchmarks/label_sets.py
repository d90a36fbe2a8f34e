"""The data sets of the small profile's tables and measurements, and which masks of them may be trained on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SETS = {
    "camvid": ("camvid/valannot", "camvid/trainannot"),
    "nyuv2_13": ("folders/nyuv2_13/masks",),
    "coco_stuff": ("folders/coco_stuff/masks",),
    "ade": ("ADEChallengeData2016/annotations",),
    "cityscapes": ("cityscapes/gtFine",),
    "junction": ("folders/cityscapes_junction/masks",),
    "voc": ("folders/voc/masks",),
    "membrane": ("folders/membrane/masks",),
    "drive": ("folders/drive/masks",),
    "rock": ("folders/rock/masks",),
    "landcover": ("folders/landcover/masks",),
    "loveda": ("folders/loveda/masks",),
    "rellis": ("folders/rellis/masks",),
}
FAMILY = {"junction": "cityscapes"}
"""Sets that are left out together."""
MAX_MEASURED, MAX_TRAINED = 32, 60


def family(name: str) -> str:
    """Return the name under which a set is left out."""
    return FAMILY.get(name, name)


def read(path: Path) -> NDArray[Any]:
    """Return a mask as (H, W) uint8 or uint16: palette indices, or the first channel of a grey RGB image."""
    with Image.open(path) as image:
        array = np.asarray(image)
    array = array[..., 0] if array.ndim == 3 else array
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    return np.ascontiguousarray(array if array.dtype == np.uint8 else array.astype(np.uint16))


def masks(name: str) -> tuple[list[Path], list[Path]]:
    """Return the masks to measure and those to train on: the same ones where there are fewer than eight."""
    root = Path(os.environ["QUADCODEC_TEST_DATA"])
    groups = [sorted(p for p in (root / folder).rglob("*.png")) for folder in SETS[name]]
    paths = [p for group in groups for p in group]
    if name == "cityscapes":
        paths = [p for p in paths if p.name.endswith("_labelIds.png")]
    if name == "camvid":
        return groups[0][::3][:MAX_MEASURED], groups[1][::8]
    if len(paths) < 8:
        return paths, paths
    return _thin(paths[::2], MAX_MEASURED), _thin(paths[1::2], MAX_TRAINED)


def _thin(paths: list[Path], count: int) -> list[Path]:
    return paths[:: max(1, len(paths) // count)][:count]
