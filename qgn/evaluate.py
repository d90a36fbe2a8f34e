"""Evaluation: mIoU and its kin, boundary IoU, composite scores and active sites, by propagation scheme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from qgn.boundary import BOUNDARY_WIDTH
from qgn.checkpoint import Checkpoint, load_checkpoint
from qgn.data.batch import LabelBatch
from qgn.data.classes import ClassMap, class_map, count_pixels
from qgn.data.dataset import with_photos
from qgn.data.samples import Batch, collate, raising
from qgn.data.splits import divide
from qgn.data.views import Size
from qgn.distributed import summed, world
from qgn.ensemble import PLAIN, Ensemble, EnsembleSamples
from qgn.errors import CheckpointError, TrainingError
from qgn.models.qgn import QGN
from qgn.models.segmenter import Segmenter
from qgn.scores import Scores, Tally
from qgn.sparse.propagation import Limits, checked
from quadcodec.store import LabelStore, open_store

HELD_ASIDE = "held-aside"
"""Name for the training images that a run held aside, where a split's name is expected."""


@torch.no_grad()
def evaluate(
    model: Segmenter,
    loader: DataLoader[Batch],
    classes: ClassMap,
    schemes: Sequence[str],
    *,
    ensemble: Ensemble = PLAIN,
    boundary_width: float = BOUNDARY_WIDTH,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] = lambda _: None,
) -> dict[str, Scores]:
    """Score a model under several propagation schemes; they share one pass of the encoder.

    Several processes each bring their part of the images, and each gets the scores of all.

    Parameters
    ----------
    loader : that of `evaluation_loader`.
    ensemble : that of the loader. Active sites are those of all its members.
    boundary_width : of the regions along outlines, in percent of an image's diagonal.
    progress : called with the number of images done since the last call.

    Raises
    ------
    TrainingError, MaskError, FormatError : an image cannot be read.
    """
    was_training = model.training
    model.eval()
    tallies = {scheme: Tally(classes, ensemble, boundary_width, device) for scheme in schemes}
    encoder_macs = images = 0
    for number, cpu_batch in enumerate(raising(loader), 1):
        batch = cpu_batch.to(device)
        with FlopCounterMode(display=False) as counter:
            features = model.encoder(batch.images_bchw)
        encoder_macs += counter.get_total_flops() // 2
        for scheme, tally in tallies.items():
            tally.add(*_decode(model, features, batch.labels, scheme), batch.natives)
        if number % len(ensemble.members) == 0:
            images += len(batch.indices)
            progress(len(batch.indices))
    model.train(was_training)
    if world() > 1:
        images, encoder_macs = summed(torch.tensor([images, encoder_macs])).tolist()
        for tally in tallies.values():
            tally.gather()
    return {scheme: tally.scores(images, encoder_macs) for scheme, tally in tallies.items()}


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


def evaluation_loader(
    store: LabelStore,
    indices: Sequence[int],
    root: Path,
    classes: ClassMap,
    *,
    size: Size | None,
    batch_size: int,
    workers: int,
    ensemble: Ensemble = PLAIN,
) -> DataLoader[Batch]:
    """Return a loader of batches for `evaluate`: those of all members of an ensemble follow each other.

    Parameters
    ----------
    size : (height, width) of training; None if it kept each image's own.
    """
    samples = EnsembleSamples(store, root, classes, size, ensemble)
    batches = list(samples.batches(indices, batch_size))
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate, num_workers=workers)


@dataclass(frozen=True)
class Evaluation:
    """Say what was evaluated, and the scores by scheme."""

    checkpoint: str
    labels: str
    split: str | None
    set_aside_from: str | None
    """The split that the training set these images aside from, where they are no split of the store's own."""
    images: int
    without_photo: int
    ensemble: Ensemble
    boundary_width: float
    schemes: dict[str, Scores]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as ``qgn-eval --json`` prints it."""
        schemes = {name: scores.to_json() for name, scores in self.schemes.items()}
        return {**vars(self), "ensemble": asdict(self.ensemble), "schemes": schemes}


def evaluate_checkpoint(
    checkpoint: str | Path,
    labels: str | Path,
    *,
    split: str | None = None,
    schemes: Sequence[str] | None = None,
    limits: Limits | None = None,
    images: str | Path | None = None,
    ensemble: Ensemble = PLAIN,
    boundary_width: float = BOUNDARY_WIDTH,
    batch_size: int = 8,
    workers: int = 1,
    device: str = "cpu",
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Evaluation:
    """Score a checkpoint on a split of a store (of all its images without one).

    In a store without a split 'val', 'val' is what the checkpoint's training set aside of it, and `HELD_ASIDE` the
    images that it held aside besides.

    Parameters
    ----------
    schemes : by default all that the model knows by name, and the checkpoint's own propagation.
    limits : of every scheme.
    ensemble, boundary_width : as `evaluate`.

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
    known = dict.fromkeys([*model.schemes, described.propagation or model.schemes[-1]])
    schemes = [asked.on(checked(s, model.schemes), names) for s in schemes or known]
    store = open_store(labels)
    root = Path(images if images is not None else store.info.image_root)
    chosen, set_aside_from = _choose(store, split, checkpoint, described, root)
    indices = with_photos(store, chosen, root)
    if not indices:
        raise TrainingError(f"{labels}: none of {len(chosen)} images has its photo below {root}. Name it with --images")
    _check_classes(checkpoint, described, store, indices)
    loader = evaluation_loader(
        store, indices, root, described.classes, size=described.image_size, batch_size=batch_size, workers=workers,
        ensemble=ensemble,
    )  # fmt: skip
    scores = evaluate(
        model.to(device), loader, described.classes, schemes, ensemble=ensemble, boundary_width=boundary_width,
        device=device, progress=lambda done: progress(done, len(indices)),
    )  # fmt: skip
    return Evaluation(
        str(checkpoint), str(labels), split, set_aside_from, len(indices), len(chosen) - len(indices), ensemble,
        boundary_width, scores,
    )  # fmt: skip


def _choose(
    store: LabelStore, split: str | None, checkpoint: str | Path, described: Checkpoint, root: Path
) -> tuple[list[int], str | None]:
    """Return the images of a split, and the split that they were set aside from if they are none of the store's."""
    config = described.config
    same = Path(config.get("labels", "")).resolve() == store.path.resolve()
    trained_on = split == "val" and same and config.get("train_split") == "val"
    if split not in ("val", HELD_ASIDE) or (split in store.info.splits and not trained_on):
        return store.indices(split).tolist(), None
    why = f"was trained on {config.get('labels', 'another store')}"
    if same:
        division = divide(
            store, root, train_split=config.get("train_split"), val_fraction=config.get("val_fraction", 0.0),
            seed=config.get("seed", 0), held_aside=config.get("held_aside", 0),
        )  # fmt: skip
        chosen, without = division.val, "val_fraction=0, or on one image"
        if split == HELD_ASIDE:
            chosen, without = division.held_aside, "held_aside=0"
        if chosen:
            return list(chosen), division.train_split
        why = f"was trained with {without}"
    if split == HELD_ASIDE:
        raise TrainingError(
            f"{store.path}: no image of it was held aside, since {checkpoint} {why}. Train with held_aside=N on this "
            "store, and keep the store and its photos where they are"
        )
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
