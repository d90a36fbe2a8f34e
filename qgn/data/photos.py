"""Photos: files below an image root -> (H, W, 3) uint8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qgn.errors import TrainingError
from quadcodec.files import below
from quadcodec.store import LabelStore

from .views import Size

MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255
"""Mean and standard deviation of ImageNet's photos by channel, which published encoder weights expect."""
_NORMALISED = np.ascontiguousarray(((np.arange(256, dtype=np.float32)[:, None] - MEAN) / STD).T)
"""What each byte of each channel becomes, (3, 256)."""


def photo_path(store: LabelStore, index: int, root: Path) -> Path | None:
    """Return where the photo of an image should lie, None if the store knows none.

    Raises
    ------
    TrainingError : the store's path leads out of the image root.
    """
    image = store.columns.image[index]
    if not image:
        return None
    path = below(root, image)
    if path is None:
        raise TrainingError(
            f"{store.path}: photo {image!r} leads out of the image root {root}. Use photos that lie below it"
        )
    return path


def read_photo(path: Path, *, native: Size | None = None) -> NDArray[np.uint8]:
    """Read a photo as (H, W, 3) RGB.

    Parameters
    ----------
    native : the (height, width) that it must have: that of its mask.

    Raises
    ------
    TrainingError : the file is missing, damaged, or of another size.
    """
    try:
        with Image.open(path) as image:
            found = (image.height, image.width)
            if native is not None and found != native:
                raise TrainingError(
                    f"{path}: photo of {found[0]} x {found[1]} pixels (height x width), but its mask has "
                    f"{native[0]} x {native[1]}. Mend the pair and convert again"
                )
            rgb = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TrainingError(f"{path}: the photo cannot be read ({error}). Replace the file or leave it out") from error
    return np.asarray(rgb)


def resize_photo(
    photo: NDArray[np.uint8], size: Size | None, window: tuple[int, int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Return a photo (H, W, 3) at a (height, width), or a window (y0, x0, h, w) of it: all that is computed.

    Bilinear, over the whole footprint of each pixel where the photo shrinks (antialiasing). Pixel i lies at
    (i + 0.5) * old / new of the photo, as `quadcodec.quadtree.resample` has it. A size of None is the photo's own.
    """
    old = photo.shape[:2]
    height, width = old if size is None else size
    y0, x0, h, w = (0, 0, height, width) if window is None else window
    if (height, width) == old:
        return photo[y0 : y0 + h, x0 : x0 + w]
    down, along = old[0] / height, old[1] / width
    box = (x0 * along, y0 * down, min((x0 + w) * along, old[1]), min((y0 + h) * down, old[0]))
    return np.asarray(Image.fromarray(photo).resize((w, h), Image.Resampling.BILINEAR, box))


def normalise(photo: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return a photo (H, W, 3) as (3, H, W) float32 of mean 0 and deviation 1 over ImageNet, in ``out`` if given."""
    if out is None:
        out = np.empty((3, *photo.shape[:2]), np.float32)
    for values, channel, plane in zip(_NORMALISED, photo.transpose(2, 0, 1), out, strict=True):
        np.take(values, channel, out=plane, mode="clip")  # clips nothing: the other modes would copy
    return out
