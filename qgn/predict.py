"""Prediction: photos -> classes and quadtrees, files of them, and stores of predicted trees."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import quadcodec
from qgn.checkpoint import Checkpoint, load_checkpoint
from qgn.data.classes import ClassMap
from qgn.data.photos import normalise, read_photo, resize_photo
from qgn.errors import TrainingError
from qgn.evaluate import restore
from qgn.models.prediction import QuadtreePrediction
from qgn.models.segmenter import STRIDE, Segmenter
from quadcodec.build import is_label_store, remove_store
from quadcodec.masks import write_mask
from quadcodec.pyramid import COMPOSITE
from quadcodec.quadtree import LinearQuadtree
from quadcodec.render import draw_tree, overlay, write_picture
from quadcodec.store import ClassInfo, partial_path

PICTURE_WIDTH = 1024
"""Pictures of trees are enlarged to about this width."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
OUTPUTS = LABELS, OVERLAY, TREE = ("_labels.png", "_overlay.png", "_tree.png")
"""What the names of a prediction's files end in, after the photo's own name."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Hold the prediction for one photo.

    Attributes
    ----------
    classes : (H, W) uint8 classes 0..k-1, at the photo's size.
    tree : the quadtree of the predicted classes, at the network's size.
    grown : the cells that the decoder visited, for pictures: where it stopped, and where it went on. No quadtree
        as the format has it: cells may be split that hold one class, or that lie beyond the image. A dense model
        visits no cells: for it, this is the tree.
    """

    classes: NDArray[np.uint8]
    tree: LinearQuadtree
    grown: LinearQuadtree


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predict with a checkpoint. Made by `load_predictor`."""

    checkpoint: Checkpoint
    model: Segmenter
    device: str

    @torch.no_grad()
    def __call__(self, photo: NDArray[np.uint8]) -> Prediction:
        """Predict a photo (H, W, 3) uint8, by the model's scheme that needs no labels."""
        native = photo.shape[:2]
        resized = resize_photo(photo, self.checkpoint.image_size)
        height, width = resized.shape[:2]
        canvas = torch.zeros(1, 3, -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE)
        canvas[0, :, :height, :width] = torch.from_numpy(normalise(resized))
        prediction = self.model(canvas.to(self.device))
        map_hw = prediction.to_pixels()[0]
        pixels = restore(map_hw, (0, 0), (height, width), (native[0], native[1])).to(torch.uint8).cpu().numpy()
        if isinstance(prediction, QuadtreePrediction):
            grown = grown_tree(prediction, height, width)
            return Prediction(pixels, predicted_tree(grown), grown)
        tree = LinearQuadtree.from_mask(map_hw[:height, :width].to(torch.uint8).cpu().numpy())
        return Prediction(pixels, tree, tree)


def load_predictor(path: str | Path, device: str = "cpu") -> Predictor:
    """Return a predictor of a checkpoint; errors as `load_checkpoint`."""
    checkpoint, model = load_checkpoint(path)
    return Predictor(checkpoint, model.to(device), device)


def grown_tree(prediction: QuadtreePrediction, height: int, width: int) -> LinearQuadtree:
    """Return the visited cells of a prediction for one image: active ones are composite, others their best class."""
    nodes = []
    for level in reversed(prediction.levels):
        values = level.logits_nk[:, 1:].argmax(1).to(torch.int16)
        if level.sites is not None:
            values[level.sites.node_m] = COMPOSITE
        nodes.append(values.cpu().numpy())
    return LinearQuadtree(np.concatenate(nodes), tuple(len(n) for n in reversed(nodes)), height, width)


def predicted_tree(grown: LinearQuadtree) -> LinearQuadtree:
    """Return the quadtree of what was grown: cells of one class merged, those beyond the image OUTSIDE."""
    return LinearQuadtree.from_mask(grown.to_mask(), grown.levels)


def tree_picture(photo: NDArray[np.uint8], tree: LinearQuadtree, palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a grown tree over its photo, enlarged to about PICTURE_WIDTH where it is smaller."""
    zoom = max(1, round(PICTURE_WIDTH / tree.width))
    size = (zoom * tree.width, zoom * tree.height)
    return draw_tree(np.asarray(Image.fromarray(photo).resize(size)), tree, palette, zoom=zoom)


def find_photos(paths: Sequence[str | Path], out: str | Path | None = None) -> list[Path]:
    """Return the photos among files and below folders, in order.

    Parameters
    ----------
    out : folder of predictions; those that an earlier run wrote there are no photos.

    Raises
    ------
    TrainingError : a path does not exist, a folder holds no photo, or two photos share a name.
    """
    photos: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise TrainingError(f"{path}: no such file or folder. Check the path")
        found = [path]
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            found = found if out is None else _without_predictions(found, path, Path(out))
        if not found:
            raise TrainingError(f"{path}: no photo in this folder, expected files {' '.join(sorted(SUFFIXES))}")
        photos.extend(found)
    stems = [photo.stem for photo in photos]
    twice = next((photo for photo in photos if stems.count(photo.stem) > 1), None)
    if twice is not None:
        raise TrainingError(f"{twice}: another photo has this name, too. Predict them into folders of their own")
    return photos


def _without_predictions(photos: list[Path], folder: Path, out: Path) -> list[Path]:
    """Leave out what ends like a prediction in ``out``; where that is the folder itself, only beside its photo."""
    out = out.resolve()
    stems = {photo.stem for photo in photos}

    def is_prediction(path: Path) -> bool:
        end = next((end for end in OUTPUTS if path.name.endswith(end)), None)
        if end is None or path.parent.resolve() != out:
            return False
        return out != folder.resolve() or path.name.removesuffix(end) in stems

    return [photo for photo in photos if not is_prediction(photo)]


def _check_outputs(photos: Sequence[Path], out: Path, store: Path | None, *, overwrite: bool) -> None:
    """Refuse to write over a photo, or over anything without ``overwrite``."""
    inputs = {place for p in photos for place in (p.resolve(), p.parent.resolve() / p.name)}
    files = [out / f"{photo.stem}{end}" for photo in photos for end in OUTPUTS]
    stores = [] if store is None else [store, partial_path(store)]
    for file in files:
        if out.resolve() / file.name in inputs:
            raise TrainingError(
                f"{file}: is one of the photos, and a prediction would replace it. Choose another --out"
            )
    if store is not None and store.resolve() in (out.resolve(), *out.resolve().parents):
        raise TrainingError(f"{store}: --out lies there, and a store is a folder of its own. Choose another --store")
    for path in (*files, *stores):
        if not overwrite and os.path.lexists(path):
            raise TrainingError(f"{path}: exists already. Choose another place, or replace it with --overwrite")
    for path in stores:
        if path.exists() and not is_label_store(path):
            raise TrainingError(f"{path}: is no store, and only a store is replaced by one. Choose another --store")


def predict_files(
    predictor: Predictor,
    photos: Sequence[Path],
    out: str | Path,
    *,
    store: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Write, for each photo, NAME_labels.png (raw ids), NAME_overlay.png and NAME_tree.png; return the first of each.

    Parameters
    ----------
    store : also write the predictions there, as a store of trees.
    overwrite : replace files, and the store, of an earlier prediction; never a photo.

    Raises
    ------
    TrainingError : a file or the store exists, which is noticed first, or a photo cannot be read.
    MaskError, StoreError : a file or the store cannot be written.
    """
    out, store = Path(out), None if store is None else Path(store)
    _check_outputs(photos, out, store, overwrite=overwrite)
    classes = predictor.checkpoint.classes
    raw_ids = np.array(classes.raw_ids)
    raw_ids = raw_ids.astype(np.uint8 if raw_ids.max() < 256 else np.uint16)
    palette = np.array(classes.colors, np.uint8)
    written, masks = [], []
    for photo_file in photos:
        photo = read_photo(photo_file)
        prediction = predictor(photo)
        mask = raw_ids[prediction.classes]
        labels = out / f"{photo_file.stem}{LABELS}"
        write_mask(labels, mask, "png:L" if mask.dtype == np.uint8 else "png:I;16")
        write_picture(
            out / f"{photo_file.stem}{OVERLAY}", overlay(photo, prediction.classes, palette), overwrite=overwrite
        )
        write_picture(
            out / f"{photo_file.stem}{TREE}", tree_picture(photo, prediction.grown, palette), overwrite=overwrite
        )
        written.append(labels)
        if store is not None:
            masks.append(mask)
        progress(1)
    if store is not None:
        _write_store(store, masks, photos, classes)
    return written


def _write_store(store: Path, masks: list[NDArray[Any]], photos: Sequence[Path], classes: ClassMap) -> None:
    """Write predicted masks as a store, in place of an older one."""
    for older in (store, partial_path(store)):
        if older.exists():
            remove_store(older)
    infos = [
        ClassInfo(raw, name, color, k)
        for k, (raw, name, color) in enumerate(zip(classes.raw_ids, classes.names, classes.colors, strict=True))
    ]
    resolved = [photo.resolve() for photo in photos]
    root = os.path.commonpath([photo.parent for photo in resolved])
    quadcodec.write(
        store, masks, names=[p.stem for p in photos], classes=infos, dataset="predictions",
        images=[p.relative_to(root).as_posix() for p in resolved], image_root=root,
    )  # fmt: skip
