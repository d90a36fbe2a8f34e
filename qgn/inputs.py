"""What is to be predicted: photos and videos among files, below folders and in lists, one frame at a time."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from qgn.data.photos import read_photo
from qgn.errors import TrainingError

PHOTOS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
OUTPUTS = LABELS, OVERLAY, TREE = ("_labels.png", "_overlay.png", "_tree.png")
"""What the names of a prediction's files end in, after the input's own name."""
_MANY_FRAMES = frozenset({"GIF", "PNG", "TIFF", "WEBP"})
"""Pillow's names of kinds of files that hold an animation or pages."""


@dataclass(frozen=True)
class Input:
    """Name one photo, or one file of many frames.

    Attributes
    ----------
    path : the file.
    name : of its predictions, below the output folder and without an ending: 'a', or 'folder/a'.
    moving : the file has many frames; their predictions are 'NAME/000000', 'NAME/000001', ..
    """

    path: Path
    name: str
    moving: bool = False

    def frames(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Yield name and (H, W, 3) RGB of each frame: of the photo, if it is one.

        Raises
        ------
        TrainingError : the file cannot be read, at its start or later on.
        """
        if not self.moving:
            yield self.name, read_photo(self.path)
            return
        try:
            pictures = _video(self.path) if self.path.suffix.lower() in VIDEOS else _pages(self.path)
            number = -1
            for number, frame in enumerate(pictures):
                yield f"{self.name}/{number:06d}", frame
            if number < 0:
                raise ValueError("it holds no frame")
        except Exception as error:  # readers of videos raise what they like on damaged files
            raise TrainingError(f"{self.path}: the video cannot be read ({error}). Replace or leave it out") from error


def _pages(path: Path) -> Iterator[NDArray[np.uint8]]:
    with Image.open(path) as image:
        for page in ImageSequence.Iterator(image):
            yield np.asarray(page.convert("RGB"))


def _video(path: Path) -> Iterator[NDArray[np.uint8]]:
    import av

    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError("it holds no pictures")
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def read_list(data: bytes) -> list[Path]:
    """Return the paths of a list: one a line, or separated by NUL, as ``find -print0`` writes them."""
    separator = b"\0" if b"\0" in data else b"\n"
    lines = (line.removesuffix(b"\r") if separator == b"\n" else line for line in data.split(separator))
    return [Path(os.fsdecode(line)) for line in lines if line]


def find_inputs(paths: Sequence[str | Path], out: str | Path | None = None) -> list[Input]:
    """Return the photos and videos among files and below folders, those of a folder in order of name and number.

    What lies below a folder is named relative to it; the files given one by one, relative to the folder that holds
    them all.

    Parameters
    ----------
    out : folder of predictions; those that an earlier run wrote there are no photos.

    Raises
    ------
    TrainingError : no path is given, one does not exist, a folder holds nothing to predict, two inputs share a name, or
        there are videos and no library to read them.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise TrainingError("nothing to predict: the list names no file. Write one path a line")
    for path in paths:
        if not path.exists():
            raise TrainingError(f"{path}: no such file or folder. Check the path")
    files = [path.parent.resolve() for path in paths if not path.is_dir()]
    common = Path(os.path.commonpath(files)) if files else Path()
    inputs: list[Input] = []
    for path in paths:
        whole = path.parent.resolve() / path.name
        inputs.extend(_below(path, out) if path.is_dir() else [_input(path, whole.relative_to(common))])
    _check_names(inputs)
    return inputs


def _below(folder: Path, out: str | Path | None) -> list[Input]:
    kinds = PHOTOS | VIDEOS
    found = sorted((p for p in folder.rglob("*") if p.suffix.lower() in kinds and not p.is_dir()), key=_by_number)
    inputs = [_input(path, path.relative_to(folder)) for path in found]
    inputs = inputs if out is None else _without_predictions(inputs, folder, Path(out))
    if not inputs:
        raise TrainingError(f"{folder}: no photo in this folder, expected files {' '.join(sorted(kinds))}")
    return inputs


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts frame_2 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _input(path: Path, relative: Path) -> Input:
    name, suffix = relative.with_suffix("").as_posix(), path.suffix.lower()
    if suffix not in VIDEOS:
        return Input(path, name, _has_pages(path))
    if find_spec("av") is None:
        raise TrainingError(
            f"{path}: a video, and the library that reads it is missing. Install 'quadcodec[video]', or give its frames"
        )
    return Input(path, name, moving=True)


def _has_pages(path: Path) -> bool:
    """Whether a picture has several frames; one that cannot be read has not, until it is its turn."""
    try:
        with Image.open(path) as image:
            return image.format in _MANY_FRAMES and getattr(image, "n_frames", 1) > 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _without_predictions(inputs: list[Input], folder: Path, out: Path) -> list[Input]:
    """Leave out what ends like a prediction in ``out``; where that is the folder itself, only beside its photo."""
    out, folder = out.resolve(), folder.resolve()
    names = {item.name for item in inputs}
    moving = {item.name for item in inputs if item.moving}

    def is_prediction(item: Input) -> bool:
        place = item.path.resolve().parent / item.path.name
        end = next((end for end in OUTPUTS if place.name.endswith(end)), None)
        if end is None or not place.is_relative_to(out):
            return False
        of = f"{item.name}{item.path.suffix}".removesuffix(end)
        return out != folder or of in names or of.rpartition("/")[0] in moving

    return [item for item in inputs if not is_prediction(item)]


def _check_names(inputs: Sequence[Input]) -> None:
    """Refuse inputs whose predictions would be the same files."""
    names = Counter(item.name for item in inputs)
    folders = {parent.as_posix() for item in inputs for parent in Path(item.name).parents}
    for item in inputs:
        if names[item.name] > 1 or (item.moving and item.name in folders):
            raise TrainingError(
                f"{item.path}: another photo or video is named {item.name!r}, too. "
                "Predict them into folders of their own"
            )
