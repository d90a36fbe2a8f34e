"""Evaluation: mIoU, pixel accuracy, composite scores and active sites, by propagation scheme."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from qgn.checkpoint import Checkpoint, load_checkpoint
from qgn.data.batch import LabelBatch
from qgn.data.classes import ClassMap, class_map, count_pixels
from qgn.data.dataset import with_photos
from qgn.data.photos import Size
from qgn.data.samples import Batch, Samples, collate, raising
from qgn.data.splits import divide
from qgn.data.views import Views
from qgn.errors import CheckpointError, TrainingError
from qgn.metrics import CompositeScores, ConfusionMatrix
from qgn.models.prediction import QuadtreePrediction
from qgn.models.qgn import QGN
from qgn.models.segmenter import STRIDE, Segmenter
from qgn.sparse.propagation import Limits, checked
from quadcodec.store import LabelStore, open_store


@dataclass(frozen=True)
class Scores:
    """Hold the scores of one scheme over a split; shares in percent, nan where there is nothing to count.

    Those by level are empty for a dense model, which has none.

    Attributes
    ----------
    miou, pixel_accuracy, iou : from one confusion matrix over all pixels at the masks' own sizes, void left out.
    sites : level -> mean number of active sites an image.
    site_share : level -> active sites as a share of the level's cells.
    share : active sites of all levels as a share of all levels' cells: of those that `all` computes.
    composite_precision, composite_recall : level -> of composite predictions at visited cells.
    encoder_gmacs, decoder_gmacs : 10^9 multiply-adds an image, of convolutions and matrix products; a sparse
        convolution multiplies the neighbours that are there.
    """

    miou: float
    pixel_accuracy: float
    iou: dict[str, float]
    sites: dict[int, float]
    site_share: dict[int, float]
    share: float
    composite_precision: dict[int, float]
    composite_recall: dict[int, float]
    encoder_gmacs: float
    decoder_gmacs: float

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON holds them: null for nan, levels as text."""
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, dict):
                values[name] = {str(key): _finite(v) for key, v in value.items()}
            else:
                values[name] = _finite(value)
        return values


def _finite(value: float) -> float | None:
    return value if value == value else None  # nan is not equal to itself


def restore(map_hw: Tensor, origin: tuple[int, int], size: Size, native: Size) -> Tensor:
    """Return an image's part of a canvas, (h, w) at ``origin``, brought to its ``native`` size by nearest neighbour."""
    device = map_hw.device
    rows, cols = (
        start + (2 * torch.arange(new, device=device) + 1) * old // (2 * new)
        for start, old, new in zip(origin, size, native, strict=True)
    )
    return map_hw[rows[:, None], cols]


@torch.no_grad()
def evaluate(
    model: Segmenter,
    loader: DataLoader[Batch],
    classes: ClassMap,
    schemes: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] = lambda _: None,
) -> dict[str, Scores]:
    """Score a model under several propagation schemes; they share one pass of the encoder.

    Parameters
    ----------
    loader : batches whose samples hold their native masks.
    progress : called with the number of images done since the last call.

    Raises
    ------
    TrainingError, MaskError, FormatError : an image cannot be read.
    """
    was_training = model.training
    model.eval()
    confusion = {scheme: ConfusionMatrix(len(classes)) for scheme in schemes}
    composites: dict[str, CompositeScores] = {}
    macs = dict.fromkeys(schemes, 0)
    encoder_macs = images = 0
    for cpu_batch in raising(loader):
        batch = cpu_batch.to(device)
        with FlopCounterMode(display=False) as counter:
            features = model.encoder(batch.images_bchw)
        encoder_macs += counter.get_total_flops() // 2
        for scheme in schemes:
            prediction, decoder_macs = _decode(model, features, batch.labels, scheme)
            macs[scheme] += decoder_macs
            if isinstance(prediction, QuadtreePrediction):
                composites.setdefault(scheme, CompositeScores(device=device)).update(prediction)
            maps_bhw = prediction.to_pixels().to(torch.uint8).cpu()
            for map_hw, native, origin, size in zip(
                maps_bhw, batch.natives, batch.labels.origins, batch.labels.sizes, strict=True
            ):
                true = torch.from_numpy(native)
                confusion[scheme].update(restore(map_hw, origin, size, (true.shape[0], true.shape[1])), true)
        images += len(batch.indices)
        progress(len(batch.indices))
    model.train(was_training)
    return {
        scheme: _scores(
            confusion[scheme], composites.get(scheme), classes, images, macs=(encoder_macs, macs[scheme])
        )
        for scheme in schemes
    }  # fmt: skip


def _decode(model: Segmenter, features: Any, labels: LabelBatch, scheme: str) -> tuple[Any, int]:
    """Return a prediction and its multiply-adds."""
    if isinstance(model, QGN) and model.decoder.context is None:
        prediction = model.decoder(features, labels, scheme)
        return prediction, prediction.macs(model.decoder.costs)
    with FlopCounterMode(display=False) as counter:
        prediction = model.decoder(features, labels, scheme)
    if not isinstance(model, QGN):
        return prediction, counter.get_total_flops() // 2
    # Torch does not see the sparse products, which go to oneDNN directly.
    context = sum(counter.get_flop_counts()["Decoder.context"].values()) // 2
    return prediction, prediction.macs(model.decoder.costs) + context


def _scores(
    confusion: ConfusionMatrix, composites: CompositeScores | None, classes: ClassMap, images: int,
    *, macs: tuple[int, int],
) -> Scores:  # fmt: skip
    def by_level(values: Tensor) -> dict[int, float]:
        return {level: float(values[level]) for level in range(len(values) - 1, 0, -1)}

    return Scores(
        miou=100 * confusion.miou(),
        pixel_accuracy=100 * confusion.pixel_accuracy(),
        iou=dict(zip(classes.names, (100 * confusion.iou_k()).tolist(), strict=True)),
        sites={} if composites is None else by_level(composites.sites_l().double() / images),
        site_share={} if composites is None else by_level(100 * composites.share_l()),
        share=math.nan if composites is None else 100 * composites.share(),
        composite_precision={} if composites is None else by_level(100 * composites.precision_l()),
        composite_recall={} if composites is None else by_level(100 * composites.recall_l()),
        encoder_gmacs=macs[0] / images / 1e9,
        decoder_gmacs=macs[1] / images / 1e9,
    )


def evaluation_loader(
    store: LabelStore,
    indices: Sequence[int],
    root: Path,
    classes: ClassMap,
    *,
    size: Size | None,
    batch_size: int,
    workers: int,
) -> DataLoader[Batch]:
    """Return a loader of batches with native masks.

    The images of a batch have canvases of one size: padding would count as visited cells, and scores would depend
    on the batch size.
    """
    samples = Samples(store, root, classes, Views(size=size), native=True)
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for index in indices:
        canvas = tuple(-(-int(side) // STRIDE) for side in (store.sizes[index] if size is None else size))
        groups.setdefault(canvas, []).append((index, 0))
    batches = [group[at : at + batch_size] for group in groups.values() for at in range(0, len(group), batch_size)]
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate, num_workers=workers)


@dataclass(frozen=True)
class Evaluation:
    """Say what was evaluated, and the scores by scheme."""

    checkpoint: str
    labels: str
    split: str | None
    set_aside_from: str | None
    """The split that the training set these images aside from, where the store has no 'val' of its own."""
    images: int
    without_photo: int
    schemes: dict[str, Scores]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as ``qgn-eval --json`` prints it."""
        return {**vars(self), "schemes": {name: scores.to_json() for name, scores in self.schemes.items()}}


def evaluate_checkpoint(
    checkpoint: str | Path,
    labels: str | Path,
    *,
    split: str | None = None,
    schemes: Sequence[str] | None = None,
    limits: Limits | None = None,
    images: str | Path | None = None,
    batch_size: int = 8,
    workers: int = 1,
    device: str = "cpu",
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Evaluation:
    """Score a checkpoint on a split of a store (of all its images without one).

    In a store without a split 'val', 'val' is what the checkpoint's training set aside of it.

    Parameters
    ----------
    schemes : by default all that the model knows by name.
    limits : of every scheme.

    Raises
    ------
    CheckpointError : the checkpoint cannot be read, or its classes are not those of the store.
    StoreError : no such store or split.
    TrainingError : nothing was set aside, no image has a photo, a photo cannot be read, or the model does not know
        a scheme.
    """
    described, model = load_checkpoint(checkpoint)
    asked = limits or Limits()
    names = described.classes.names
    schemes = [asked.on(checked(s, model.schemes), names) for s in schemes or model.schemes]
    store = open_store(labels)
    root = Path(images if images is not None else store.info.image_root)
    chosen, set_aside_from = _choose(store, split, checkpoint, described, root)
    indices = with_photos(store, chosen, root)
    if not indices:
        raise TrainingError(f"{labels}: none of {len(chosen)} images has its photo below {root}. Name it with --images")
    _check_classes(checkpoint, described, store, indices)
    loader = evaluation_loader(
        store, indices, root, described.classes, size=described.image_size, batch_size=batch_size, workers=workers
    )
    scores = evaluate(
        model.to(device), loader, described.classes, schemes, device=device,
        progress=lambda done: progress(done, len(indices)),
    )  # fmt: skip
    left_out = len(chosen) - len(indices)
    return Evaluation(str(checkpoint), str(labels), split, set_aside_from, len(indices), left_out, scores)


def _choose(
    store: LabelStore, split: str | None, checkpoint: str | Path, described: Checkpoint, root: Path
) -> tuple[list[int], str | None]:
    """Return the images of a split, and the split that they were set aside from if there is no 'val'."""
    config = described.config
    same = Path(config.get("labels", "")).resolve() == store.path.resolve()
    trained_on_val = same and config.get("train_split") == "val"
    if split != "val" or ("val" in store.info.splits and not trained_on_val):
        return store.indices(split).tolist(), None
    why = f"was trained on {config.get('labels', 'another store')}"
    if same:
        division = divide(
            store, root, train_split=config.get("train_split"),
            val_fraction=config.get("val_fraction", 0.0), seed=config.get("seed", 0),
        )  # fmt: skip
        if division.val:
            return list(division.val), division.train_split
        why = "was trained with val_fraction=0, or on one image"
    raise TrainingError(
        f"{store.path}: has no images for validation, since its splits are {', '.join(store.info.splits)}, and "
        f"{checkpoint} {why}: nothing of it was set aside. Name a split with --split"
    )


def _check_classes(checkpoint: str | Path, described: Checkpoint, store: LabelStore, indices: list[int]) -> None:
    """Refuse a store in which an id stands for another class than in training."""
    classes, present = described.classes, count_pixels(store, indices)
    unknown = sorted(set(present) - set(classes.table))
    found = f"ids {unknown} that the checkpoint does not know"
    if not unknown:
        # What the user told the training to ignore is ignored here, too. In a plain folder that is all there is.
        void = described.config.get("void")
        if not store.info.train_classes:
            void = [raw for raw in classes.table if classes.name_of(raw) is None]
        ours = class_map(store, present, void)
        other = [raw for raw in present if ours.name_of(raw) != classes.name_of(raw)]
        if not other:
            return
        here, there = ours.name_of(other[0]), classes.name_of(other[0])
        found = f"id {other[0]} as {here or 'ignored'!r}, and the checkpoint as {there or 'ignored'!r}"
    raise CheckpointError(
        f"{checkpoint}: was trained on {len(classes)} classes ({', '.join(classes.names[:4])}, ..), but "
        f"{store.path} has {found}. Use the store of its data set"
    )
