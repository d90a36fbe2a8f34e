"""Prediction: photos -> classes and quadtrees, files of them, and stores of predicted trees."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from qgn.checkpoint import Checkpoint, load_checkpoint
from qgn.data.photos import normalise, resize_photo
from qgn.ensemble import PLAIN, Ensemble, Votes
from qgn.errors import TrainingError
from qgn.inputs import LABELS, OUTPUTS, OVERLAY, TREE, Input
from qgn.models.prediction import QuadtreePrediction
from qgn.models.segmenter import Segmenter
from qgn.predicted_store import TreeSpool
from qgn.scores import restore
from qgn.sparse.propagation import Limits, without_labels
from quadcodec.build import is_label_store
from quadcodec.masks import write_mask
from quadcodec.pyramid import COMPOSITE
from quadcodec.quadtree import LinearQuadtree
from quadcodec.render import draw_tree, overlay, write_picture
from quadcodec.store import partial_path

PICTURE_WIDTH = 1024
"""Pictures of trees are enlarged to about this width."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Hold the prediction for one photo.

    Attributes
    ----------
    classes : (H, W) uint8 classes 0..k-1, at the photo's size.
    tree : the quadtree of the predicted classes, at the network's size.
    grown : the cells that the decoder visited, in an ensemble those of its first member, for pictures: where it
        stopped, and where it went on. No quadtree as the format has it: cells may be split that hold one class. A
        dense model visits no cells: for it, this is the tree.
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
    propagation: str
    ensemble: Ensemble = PLAIN

    @torch.no_grad()
    def __call__(self, photo: NDArray[np.uint8]) -> Prediction:
        """Predict a photo (H, W, 3) uint8."""
        native = photo.shape[0], photo.shape[1]
        votes, grown, maps_bhw = Votes(self.ensemble), None, None
        for member in self.ensemble.members:
            view = member.view(native, self.checkpoint.image_size)
            seen = resize_photo(photo, view.size)
            image_bchw = torch.from_numpy(normalise(seen[:, ::-1] if view.mirrored else seen))[None]
            prediction = self.model(image_bchw.to(self.device), propagation=self.propagation)
            if grown is None and isinstance(prediction, QuadtreePrediction):
                grown = grown_tree(prediction, *view.size)
            maps_bhw = votes.add(prediction)
        map_hw = maps_bhw[0].to(torch.uint8).cpu()
        tree = LinearQuadtree.from_mask(map_hw.numpy())
        return Prediction(restore(map_hw, native).numpy(), tree, grown or tree)


def load_predictor(
    path: str | Path,
    device: str = "cpu",
    *,
    propagation: str | None = None,
    limits: Limits | None = None,
    ensemble: Ensemble = PLAIN,
) -> Predictor:
    """Return a predictor of a checkpoint.

    Parameters
    ----------
    propagation : text of `Propagation`, by default the checkpoint's own, else the model's scheme that needs no labels.
    limits : on what it computes.
    ensemble : scales and mirror images whose predictions are averaged.

    Raises
    ------
    CheckpointError : as `load_checkpoint`.
    TrainingError : the model does not know the propagation, needs labels for it, or does not know a class.
    """
    checkpoint, model = load_checkpoint(path)
    text = without_labels(propagation or checkpoint.propagation or model.schemes[-1], model.schemes)
    text = (limits or Limits()).on(text, checkpoint.classes.names)
    return Predictor(checkpoint, model.to(device), device, text, ensemble)


def grown_tree(prediction: QuadtreePrediction, height: int, width: int) -> LinearQuadtree:
    """Return the visited cells of a prediction for one image: active ones are composite, others their best class."""
    nodes = []
    for level in reversed(prediction.levels):
        values = level.logits_nk[:, 1:].argmax(1).to(torch.int16)
        if level.sites is not None:
            values[level.sites.node_m] = COMPOSITE
        nodes.append(values.cpu().numpy())
    return LinearQuadtree(np.concatenate(nodes), tuple(len(n) for n in reversed(nodes)), height, width)


def tree_picture(photo: NDArray[np.uint8], tree: LinearQuadtree, palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a grown tree over its photo, enlarged to about PICTURE_WIDTH where it is smaller."""
    zoom = max(1, round(PICTURE_WIDTH / tree.width))
    size = (zoom * tree.width, zoom * tree.height)
    return draw_tree(np.asarray(Image.fromarray(photo).resize(size)), tree, palette, zoom=zoom)


def predict_files(
    predictor: Predictor,
    inputs: Sequence[Input],
    out: str | Path,
    *,
    pictures: bool = True,
    store: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> int:
    """Write, for each frame, NAME_labels.png (raw ids), NAME_overlay.png and NAME_tree.png; return how many there are.

    Frames are read, predicted and written one by one, so that any number of them takes the memory of one.

    Parameters
    ----------
    pictures : write the last two; they take longer than a small network on a GPU.
    store : also write the predictions there, as a store of trees.
    overwrite : replace files, and the store, of an earlier prediction; never a photo.
    progress : called with 1 after each frame.

    Raises
    ------
    TrainingError : a file or the store exists, which is noticed first, or a photo or video cannot be read.
    MaskError, StoreError : a file or the store cannot be written; an older store stays.
    """
    out, store = Path(out), None if store is None else Path(store)
    _check_outputs(inputs, out, OUTPUTS if pictures else (LABELS,), store, overwrite=overwrite)
    classes = predictor.checkpoint.classes
    raw_ids = np.array(classes.raw_ids)
    raw_ids = raw_ids.astype(np.uint8 if raw_ids.max() < 256 else np.uint16)
    palette = np.array(classes.colors, np.uint8)
    count = 0
    with nullcontext() if store is None else TreeSpool(store, raw_ids.dtype) as spool:
        for item in inputs:
            for name, photo in item.frames():
                prediction = predictor(photo)
                mask = raw_ids[prediction.classes]
                write_mask(out / f"{name}{LABELS}", mask, "png:L" if mask.dtype == np.uint8 else "png:I;16")
                if pictures:
                    for end, picture in (
                        (OVERLAY, overlay(photo, prediction.classes, palette)),
                        (TREE, tree_picture(photo, prediction.grown, palette)),
                    ):
                        write_picture(out / f"{name}{end}", picture, overwrite=overwrite)
                if spool is not None:
                    spool.add(name, mask, None if item.moving else item.path)
                count += 1
                progress(1)
        if spool is not None:
            spool.write(classes, overwrite=overwrite)
    return count


def _check_outputs(
    inputs: Sequence[Input], out: Path, ends: tuple[str, ...], store: Path | None, *, overwrite: bool
) -> None:
    """Refuse to write files with these endings over a photo, or over anything without ``overwrite``."""
    given = {place for item in inputs for place in (item.path.resolve(), item.path.parent.resolve() / item.path.name)}
    files = [out / f"{item.name}{end}" for item in inputs if not item.moving for end in ends]
    folders = [out / item.name for item in inputs if item.moving]
    places = {folder.resolve() for folder in folders}
    replaced = [file for file in files if file.parent.resolve() / file.name in given]
    replaced += [place for place in given if place.parent in places and place.name.endswith(ends)]
    if replaced:
        raise TrainingError(
            f"{replaced[0]}: is one of the photos, and a prediction would replace it. Choose another --out"
        )
    if store is not None and store.resolve() in (out.resolve(), *out.resolve().parents):
        raise TrainingError(f"{store}: --out lies there, and a store is a folder of its own. Choose another --store")
    stores = [] if store is None else [store, partial_path(store)]
    for path in (*files, *folders, *stores):
        if not overwrite and os.path.lexists(path):
            raise TrainingError(f"{path}: exists already. Choose another place, or replace it with --overwrite")
    for path in stores:
        if path.exists() and not is_label_store(path):
            raise TrainingError(f"{path}: is no store, and only a store is replaced by one. Choose another --store")
