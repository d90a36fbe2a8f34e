"""A training run as one typed value; checkpoints carry it, and a run's folder holds it as ``config.toml``."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass
from typing import Any, Literal

from qgn.settings import setting


@dataclass(frozen=True)
class TrainConfig:
    """Hold every setting of a run; each field says what it is."""

    labels: str = setting(MISSING, "store of label trees")
    work_dir: str = setting(MISSING, "folder for checkpoints and log")
    images: str | None = setting(None, "folder of the photos, where it is not the one that the store names")
    dataset: str | None = setting(None, "data set that the store must be of")
    void: tuple[int, ...] | None = setting(
        None, "raw ids to ignore besides the store's; none: no id at all", least=0, most=0xFFFF
    )
    train_split: str | None = setting(None, "split to train on, where the store's names leave it open")
    val_fraction: float = setting(
        0.1, "share of the training images set aside in a store without a val split", least=0, most=0.9
    )
    model: str = setting("qgn_resnet18", "qgn_resnet18, 34, 50 or 101, or a dense rival; see docs/training.md")
    variants: tuple[str, ...] = setting((), "choices of the reference code; see docs/training.md")
    width: int = setting(32, "channels of the first stage; 64 is full size", least=1)
    image_size: tuple[int, int] | None = setting(
        None, "resize photos and trees; none: every image's own size (when not set, on a CPU about 256x256)"
    )
    crop: tuple[int, int] | None = setting(
        None, "random windows to train on, sides multiples of 32; none: whole images"
    )
    propagation: str | None = setting(
        None,
        "cells that go on in training, such as gtc or gtc->union@2/3 (when not set, gtc; for dense models, dense)",
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
    batch_size: int = setting(8, "images a step", least=1)
    steps: int = setting(400, "training steps", least=1)
    seed: int = setting(0, "of weights, order and augmentation", least=0)
    eval_every: int = setting(200, "steps between evaluations (when not set, half of steps)", least=1)
    backend: Literal["native", "spconv", "triton", "dense"] = setting("native", "what computes the sparse convolutions")
    recompute: bool = setting(False, "save memory: run each decoder level again in the backward pass")
    device: str = setting("cpu", "cpu or cuda (when not set, cuda where there is one)")
    workers: int = setting(1, "processes that read data", least=0)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return asdict(self)
