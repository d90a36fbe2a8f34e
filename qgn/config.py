"""A training run as one typed value; checkpoints carry it, and a run's folder holds it as ``config.toml``."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass
from typing import Any, Literal

from qgn.settings import setting

FREE = frozenset(
    {
        "labels",
        "images",
        "work_dir",
        "weights",
        "device",
        "workers",
        "save_every",
        "keep_every",
        "tensorboard",
    }
)
"""Settings that a resumed run may change: where its files are, where it computes, and what it keeps."""


@dataclass(frozen=True)
class TrainConfig:
    """Hold every setting of a run; each field says what it is."""

    labels: str = setting(MISSING, "store of label trees")
    work_dir: str = setting(MISSING, "folder for checkpoints and log", unset="runs/LABELS")
    images: str | None = setting(None, "folder of the photos", unset="the store's")
    dataset: str | None = setting(None, "data set that the store must be of")
    void: tuple[int, ...] | None = setting(
        None, "raw ids to ignore besides the store's; none: no id at all", least=0, most=0xFFFF
    )
    train_split: str | None = setting(None, "split to train on, where the store's names leave it open")
    val_fraction: float = setting(
        0.1, "share of the training images set aside in a store without a val split", least=0, most=0.9
    )
    model: str = setting("qgn_resnet18", "qgn_resnet18, 34, 50 or 101, or a dense rival; see docs/training.md")
    variants: tuple[str, ...] = setting((), "of a qgn model: convt, pre_skip, stem64, see docs/training.md")
    width: int = setting(32, "channels of the first stage; 64 is full size", least=1)
    weights: str | None = setting(None, "file of published encoder weights to start from; see docs/models.md")
    image_size: tuple[int, int] | None = setting(
        None, "resize photos and trees; none: every image's own size", unset="none; on a CPU about 256x256"
    )
    crop: tuple[int, int] | None = setting(
        None, "random windows to train on, sides multiples of 32; none: whole images"
    )
    propagation: str | None = setting(
        None,
        "cells that go on in training, such as gtc or gtc->union@2/3",
        unset="gtc; dense for dense models",
    )
    loss: Literal["adaptive", "fixed"] = setting("adaptive", "weights of the levels: adaptive (Eq. 8) or fixed (Eq. 7)")
    gamma: float = setting(1.0, "ratio of fixed weights, level to level", least=0)
    optimizer: Literal["adamw", "sgd"] = setting("adamw", "adamw, or sgd with momentum")
    lr: float = setting(2e-3, "first learning rate", least=0)
    momentum: float = setting(0.9, "of sgd", least=0, most=1)
    schedule: Literal["tail", "poly"] = setting(
        "tail", "decay of the rate: tail (linear over the last third), or poly (power 0.9)"
    )
    weight_decay: float = setting(1e-4, "not for biases and batch norm", least=0)
    batch_size: int = setting(8, "images a step, over all processes and parts", least=1)
    steps: int = setting(400, "training steps", least=1)
    seed: int = setting(0, "of weights, order and augmentation", least=0)
    eval_every: int = setting(200, "steps between evaluations", unset="half of steps", least=1)
    reweigh_every: int = setting(
        0, "steps between new class weights, doubled below the median IoU on held-aside images; 0: never", least=0
    )
    held_aside: int = setting(
        0,
        "training images to hold aside, for class weights and for 'qgn-eval --choose'",
        unset="100 where classes are weighed, else 0",
        least=0,
    )
    short_edges: tuple[int, ...] = setting(
        (), "lengths of the shorter side, one of which is drawn for each training image", least=1
    )
    scale: tuple[float, float] | None = setting(None, "lowest and highest factor of a random scale", least=0.01)
    max_side: int | None = setting(None, "longest side after a random scale", least=1)
    flip: bool = setting(True, "mirror half of the training images")
    precision: Literal["fp32", "bf16", "fp16"] = setting("fp32", "what the network computes in: fp32, bf16 or fp16")
    clip: float | None = setting(None, "longest gradient; longer ones are shortened to it", least=0)
    accumulate: int = setting(1, "parts that a batch is split into, one after the other, to save memory", least=1)
    ema: float | None = setting(
        None, "inertia of a moving average of the weights, such as 0.999: it is evaluated and saved", least=0, most=1
    )
    save_every: int | None = setting(None, "steps between saves besides those at evaluations", least=1)
    keep_every: int | None = setting(None, "steps between checkpoints that are kept for good", least=1)
    tensorboard: bool = setting(False, "show the log in TensorBoard, too (extra 'tensorboard')")
    backend: Literal["native", "spconv", "triton", "dense"] = setting("native", "what computes the sparse convolutions")
    recompute: bool = setting(False, "save memory: run each decoder level again in the backward pass")
    device: str = setting("cpu", "cpu or cuda", unset="cuda where there is one")
    workers: int = setting(1, "processes that read data", least=0)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return asdict(self)
