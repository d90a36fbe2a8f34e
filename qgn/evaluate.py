"""Evaluation: mIoU, pixel accuracy, composite scores and active sites, by propagation scheme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from qgn.checkpoint import load_checkpoint
from qgn.data.classes import ClassMap, class_map, count_pixels
from qgn.data.dataset import with_photos
from qgn.data.photos import Size
from qgn.data.samples import Batch, Samples, collate
from qgn.errors import CheckpointError, TrainingError
from qgn.metrics import CompositeScores, ConfusionMatrix
from qgn.models.qgn import QGN
from quadcodec.store import LabelStore, open_store


@dataclass(frozen=True)
class Scores:
    """Hold the scores of one scheme over a split; shares in percent, nan where there is nothing to count.

    Attributes
    ----------
    miou, pixel_accuracy, iou : from one confusion matrix over all pixels at the masks' own sizes, void left out.
    sites : level -> mean number of active sites an image.
    site_share : level -> active sites as a share of the level's cells.
    composite_precision, composite_recall : level -> of composite predictions at visited cells.
    """

    miou: float
    pixel_accuracy: float
    iou: dict[str, float]
    sites: dict[int, float]
    site_share: dict[int, float]
    composite_precision: dict[int, float]
    composite_recall: dict[int, float]

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
    model: QGN,
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
    """
    was_training = model.training
    model.eval()
    confusion = {scheme: ConfusionMatrix(len(classes)) for scheme in schemes}
    composites = {scheme: CompositeScores(device=device) for scheme in schemes}
    images = 0
    for cpu_batch in loader:
        batch = cpu_batch.to(device)
        features = model.encoder(batch.images_bchw)
        for scheme in schemes:
            prediction = model.decoder(features, batch.labels, scheme)
            composites[scheme].update(prediction)
            maps_bhw = prediction.to_pixels().to(torch.uint8).cpu()
            for map_hw, native, origin, size in zip(
                maps_bhw, batch.natives, batch.labels.origins, batch.labels.sizes, strict=True
            ):
                true = torch.from_numpy(native)
                confusion[scheme].update(restore(map_hw, origin, size, (true.shape[0], true.shape[1])), true)
        images += len(batch.indices)
        progress(len(batch.indices))
    model.train(was_training)
    return {scheme: _scores(confusion[scheme], composites[scheme], classes, images) for scheme in schemes}


def _scores(confusion: ConfusionMatrix, composites: CompositeScores, classes: ClassMap, images: int) -> Scores:
    def by_level(values: Tensor) -> dict[int, float]:
        return {level: float(values[level]) for level in range(len(values) - 1, 0, -1)}

    return Scores(
        miou=100 * confusion.miou(),
        pixel_accuracy=100 * confusion.pixel_accuracy(),
        iou=dict(zip(classes.names, (100 * confusion.iou_k()).tolist(), strict=True)),
        sites=by_level(composites.sites_l().double() / images),
        site_share=by_level(100 * composites.share_l()),
        composite_precision=by_level(100 * composites.precision_l()),
        composite_recall=by_level(100 * composites.recall_l()),
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
    """Return a loader of batches with native masks, in the order of ``indices``."""
    samples = Samples(store, root, classes, size=size, native=True)
    batches = [[(i, 0) for i in indices[at : at + batch_size]] for at in range(0, len(indices), batch_size)]
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate, num_workers=workers)


@dataclass(frozen=True)
class Evaluation:
    """Say what was evaluated, and the scores by scheme."""

    checkpoint: str
    labels: str
    split: str | None
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
    schemes: Sequence[str] = ("all", "gtc", "pc"),
    images: str | Path | None = None,
    batch_size: int = 8,
    workers: int = 1,
    device: str = "cpu",
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Evaluation:
    """Score a checkpoint on a split of a store (of all its images without one).

    Raises
    ------
    CheckpointError : the checkpoint cannot be read, or its classes are not those of the store.
    StoreError : no such store or split.
    TrainingError : no image has a photo, or a photo cannot be read.
    """
    described, model = load_checkpoint(checkpoint)
    store = open_store(labels)
    check_levels(store)
    root = Path(images if images is not None else store.info.image_root)
    chosen = store.indices(split).tolist()
    indices = with_photos(store, chosen, root)
    if not indices:
        raise TrainingError(f"{labels}: none of {len(chosen)} images has its photo below {root}. Name it with --images")
    _check_classes(checkpoint, described.classes, store, indices)
    loader = evaluation_loader(
        store, indices, root, described.classes, size=described.image_size, batch_size=batch_size, workers=workers
    )
    scores = evaluate(
        model.to(device), loader, described.classes, schemes, device=device,
        progress=lambda done: progress(done, len(indices)),
    )  # fmt: skip
    return Evaluation(str(checkpoint), str(labels), split, len(indices), len(chosen) - len(indices), scores)


def check_levels(store: LabelStore) -> None:
    """Refuse a store whose trees have another number of levels than the decoder; raise TrainingError."""
    if store.info.levels != 6:
        raise TrainingError(
            f"{store.path}: trees of {store.info.levels} levels, the decoder needs 6. Convert again with --levels 6"
        )


def _check_classes(checkpoint: str | Path, classes: ClassMap, store: LabelStore, indices: list[int]) -> None:
    present = count_pixels(store, indices)
    void = [raw for raw, k in classes.table.items() if k >= len(classes)]
    unknown = sorted(set(present) - set(classes.table))
    ours = class_map(store, present, void) if not unknown and store.info.train_classes else None
    if unknown or (ours is not None and len(ours) != len(classes)):
        found = f"ids {unknown} that the checkpoint does not know" if ours is None else f"{len(ours)} classes"
        raise CheckpointError(
            f"{checkpoint}: was trained on {len(classes)} classes ({', '.join(classes.names[:4])}, ..), but "
            f"{store.path} has {found}. Use the store of its data set"
        )
