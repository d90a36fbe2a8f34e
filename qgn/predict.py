"""Prediction: photos -> classes and quadtrees, files of them, and stores of predicted trees."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import quadcodec
from qgn.checkpoint import Checkpoint, load_checkpoint
from qgn.data.photos import normalise, read_photo
from qgn.errors import TrainingError
from qgn.evaluate import restore
from qgn.models.prediction import QuadtreePrediction
from qgn.models.qgn import QGN, STRIDE
from quadcodec.masks import write_mask
from quadcodec.pyramid import COMPOSITE, MAX_LEVELS
from quadcodec.quadtree import LinearQuadtree
from quadcodec.render import draw_tree, overlay, write_picture
from quadcodec.store import ClassInfo

PICTURE_WIDTH = 1024
"""Pictures of trees are enlarged to about this width."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, eq=False)
class Prediction:
    """Hold the prediction for one photo.

    Attributes
    ----------
    classes : (H, W) uint8 classes 0..k-1, at the photo's size.
    tree : the quadtree that the decoder grew, at the network's size: where it stopped, and where it went on.
    """

    classes: NDArray[np.uint8]
    tree: LinearQuadtree


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predict with a checkpoint. Made by `load_predictor`."""

    checkpoint: Checkpoint
    model: QGN
    device: str

    @torch.no_grad()
    def __call__(self, photo: NDArray[np.uint8]) -> Prediction:
        """Predict a photo (H, W, 3) uint8 by predicted composites (section 3.3 of the paper)."""
        native = photo.shape[:2]
        size = self.checkpoint.image_size
        resized = photo
        if size is not None and size != native:
            resized = np.asarray(Image.fromarray(photo).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        height, width = resized.shape[:2]
        canvas = torch.zeros(1, 3, -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE)
        canvas[0, :, :height, :width] = torch.from_numpy(normalise(resized))
        prediction = self.model(canvas.to(self.device), propagation="pc")
        pixels = restore(prediction.to_pixels()[0], (0, 0), (height, width), (native[0], native[1]))
        return Prediction(pixels.to(torch.uint8).cpu().numpy(), predicted_tree(prediction, height, width))


def load_predictor(path: str | Path, device: str = "cpu") -> Predictor:
    """Return a predictor of a checkpoint; errors as `load_checkpoint`."""
    checkpoint, model = load_checkpoint(path)
    return Predictor(checkpoint, model.to(device), device)


def predicted_tree(prediction: QuadtreePrediction, height: int, width: int) -> LinearQuadtree:
    """Return the tree of a prediction for one image: active cells are composite, others their best class."""
    nodes = []
    for level in reversed(prediction.levels):
        values = level.logits_nk[:, 1:].argmax(1).to(torch.int16)
        if level.sites is not None:
            values[level.sites.node_m] = COMPOSITE
        nodes.append(values.cpu().numpy())
    return LinearQuadtree(np.concatenate(nodes), tuple(len(n) for n in reversed(nodes)), height, width)


def tree_picture(photo: NDArray[np.uint8], tree: LinearQuadtree) -> NDArray[np.uint8]:
    """Draw a predicted tree over its photo, enlarged by a power of two where its cells would hide the photo."""
    zoom = 0
    while tree.width << zoom < PICTURE_WIDTH and tree.levels + zoom < MAX_LEVELS:
        zoom += 1
    # The same nodes as cells of higher levels: each 2**zoom times as large.
    height, width = tree.height << zoom, tree.width << zoom
    larger = LinearQuadtree(tree.nodes, (0,) * zoom + tree.counts, height, width)
    return draw_tree(np.asarray(Image.fromarray(photo).resize((width, height))), larger)


def find_photos(paths: Sequence[str | Path]) -> list[Path]:
    """Return the photos among files and below folders, in order.

    Raises
    ------
    TrainingError : a path does not exist, a folder holds no photo, or two photos share a name.
    """
    photos: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise TrainingError(f"{path}: no such file or folder. Check the path")
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not found:
            raise TrainingError(f"{path}: no photo in this folder, expected files {' '.join(sorted(SUFFIXES))}")
        photos.extend(found)
    stems = [photo.stem for photo in photos]
    twice = next((photo for photo in photos if stems.count(photo.stem) > 1), None)
    if twice is not None:
        raise TrainingError(f"{twice}: another photo has this name, too. Predict them into folders of their own")
    return photos


def predict_files(
    predictor: Predictor,
    photos: Sequence[Path],
    out: str | Path,
    *,
    store: str | Path | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Write, for each photo, NAME_labels.png (raw ids), NAME_overlay.png and NAME_tree.png; return the first of each.

    Parameters
    ----------
    store : also write the predictions there, as a store of trees.

    Raises
    ------
    TrainingError : a photo cannot be read.
    MaskError, StoreError : a file cannot be written, or the store exists.
    """
    out = Path(out)
    classes = predictor.checkpoint.classes
    raw_ids = np.array(classes.raw_ids)
    raw_ids = raw_ids.astype(np.uint8 if raw_ids.max() < 256 else np.uint16)
    palette = np.array(classes.colors, np.uint8)
    written, masks = [], []
    for photo_file in photos:
        photo = read_photo(photo_file)
        prediction = predictor(photo)
        mask = raw_ids[prediction.classes]
        labels = out / f"{photo_file.stem}_labels.png"
        write_mask(labels, mask, "png:L" if mask.dtype == np.uint8 else "png:I;16")
        write_picture(out / f"{photo_file.stem}_overlay.png", overlay(photo, prediction.classes, palette))
        write_picture(out / f"{photo_file.stem}_tree.png", tree_picture(photo, prediction.tree))
        written.append(labels)
        if store is not None:
            masks.append(mask)
        progress(1)
    if store is not None:
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
    return written
