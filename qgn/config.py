"""A training run as one typed value; checkpoints carry it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class TrainConfig:
    """Hold every setting of a run.

    Attributes
    ----------
    labels : the store of label trees.
    work_dir : folder for checkpoints and the log.
    images : folder of the photos, where it is not the one that the store names.
    void : raw ids to ignore besides the store's; () for none at all.
    train_split : name of the split to train on, where the store's names leave it open.
    val_fraction : share of the training images set aside for validation, in a store without a val split.
    model, width, variants : as `qgn.models.build.build_model`.
    image_size : (height, width) that photos and trees are resized to; None for native sizes.
    crop : (height, width) of random windows of the (resized) images, multiples of 32; None for whole images.
    propagation : which cells training carries on, as `qgn.sparse.propagation.Schedule` writes it; None for the
        model's first scheme.
    loss, gamma : adaptive (Eq. 8) or fixed weights of the levels (Eq. 7); dense models have their own, fixed.
    optimizer, lr, weight_decay : biases and batch norm do not decay.
    schedule : 'tail' holds the rate for two thirds of the steps and takes it linearly to zero over the last
        third; 'poly' is (1 - step / steps) ** 0.9 (A.2 of the paper).
    steps, batch_size, seed : a run is a function of these and of the data.
    eval_every : steps between evaluations on the validation images, by the model's scheme without labels.
    backend, recompute : how the decoder computes, as `qgn.models.decoder.Decoder`.
    device, workers : torch device; processes that read data.
    """

    labels: str
    work_dir: str
    images: str | None = None
    void: tuple[int, ...] | None = None
    train_split: str | None = None
    val_fraction: float = 0.1
    model: str = "qgn_resnet18"
    width: int = 32
    variants: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    propagation: str | None = None
    loss: Literal["adaptive", "fixed"] = "adaptive"
    gamma: float = 1.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 2e-3
    schedule: Literal["tail", "poly"] = "tail"
    weight_decay: float = 1e-4
    batch_size: int = 8
    steps: int = 400
    seed: int = 0
    eval_every: int = 200
    backend: str = "native"
    recompute: bool = False
    device: str = "cpu"
    workers: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return asdict(self)
