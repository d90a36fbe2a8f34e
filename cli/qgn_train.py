"""The command ``qgn-train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import run
from .options import Ids, Size, void_ids
from .tables import align

if TYPE_CHECKING:
    from qgn.trainer import Setup


def main() -> None:
    """Run ``qgn-train``."""
    run(cli)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True})
@click.option("--labels", required=True, type=click.Path(path_type=Path), help="Store of label trees.")
@click.option("--images", type=click.Path(path_type=Path), help="Folder of the photos.  [default: the store's]")
@click.option("--work-dir", type=click.Path(path_type=Path), help="For checkpoints and log.  [default: runs/LABELS]")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in the work folder.")
@click.option(
    "--model", default="qgn_resnet18", help="qgn_resnet18, 34, 50 or 101, or a dense rival; see docs/training.md."
)
@click.option("--variant", "variants", multiple=True, help="convt, pre_skip or stem64; repeatable.")
@click.option("--width", default=32, type=click.IntRange(1), help="Channels of the first stage; 64 is full size.")
@click.option("--image-size", type=Size(), help="Resize photos and trees.  [default: native; on a CPU about 256x256]")
@click.option("--native", is_flag=True, help="Keep every image's own size, on a CPU too; not with --image-size.")
@click.option(
    "--crop", type=Size(),
    help="Train on random windows of the images, at their own size or that of --image-size; sides multiples of 32. "
    "Evaluation takes whole images.",
)  # fmt: skip
@click.option("--propagation", help="Cells that go on, such as gtc or 'gtc->union@2/3'.  [default: gtc, or dense]")
@click.option("--loss", default="adaptive", type=click.Choice(["adaptive", "fixed"]), help="Weights of the levels.")
@click.option("--gamma", default=1.0, help="Ratio of fixed weights, level to level.")
@click.option("--optimizer", default="adamw", type=click.Choice(["adamw", "sgd"]), help="SGD has momentum 0.9.")
@click.option("--lr", default=2e-3, type=click.FloatRange(0, min_open=True), help="First learning rate.")
@click.option("--schedule", default="tail", type=click.Choice(["tail", "poly"]), help="How the rate decays.")
@click.option("--weight-decay", default=1e-4, type=click.FloatRange(0), help="Not for biases and batch norm.")
@click.option("--batch-size", default=8, type=click.IntRange(1), help="Images a step.")
@click.option("--steps", default=400, type=click.IntRange(1), help="Training steps.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Of weights, order and flips.")
@click.option(
    "--void", multiple=True, type=Ids(), help="Adds a raw id to those the store ignores; 'none' drops the store's."
)
@click.option("--train-split", metavar="NAME", help="Split to train on.  [default: train, or the only one there is]")
@click.option("--val-fraction", default=0.1, type=click.FloatRange(0, 0.9), help="Set aside without a val split.")
@click.option("--eval-every", type=click.IntRange(1), help="Steps between evaluations.  [default: half of --steps]")
@click.option("--workers", default=1, type=click.IntRange(0), help="Processes that read data.")
@click.option(
    "--backend", default="native", type=click.Choice(["native", "spconv", "triton", "dense"]),
    help="What computes the sparse convolutions.",
)  # fmt: skip
@click.option("--recompute", is_flag=True, help="Save memory: run each decoder level again in the backward pass.")
@click.option("--device", help="cpu or cuda.  [default: cuda where there is one]")
def cli(
    labels: Path, images: Path | None, work_dir: Path | None, overwrite: bool, native: bool,
    void: tuple[int | None, ...], eval_every: int | None, device: str | None, **settings: Any,
) -> None:  # fmt: skip
    """Train a quadtree generating network, or a dense one, on a store of label trees."""
    if native and settings["image_size"] is not None:
        raise click.UsageError("--native keeps every image's own size, --image-size changes it. Leave one out")
    from tqdm import tqdm

    from qgn.config import TrainConfig
    from qgn.device import choose_device
    from qgn.trainer import clear_run, prepare, train, with_defaults
    from quadcodec.store import open_store

    config = TrainConfig(
        labels=str(labels), work_dir=str(work_dir or Path("runs") / labels.name.removesuffix(".zarr")),
        images=None if images is None else str(images), void=void_ids(void),
        eval_every=eval_every or -(-settings["steps"] // 2),
        device=choose_device(device, settings["workers"]), **settings,
    )  # fmt: skip
    setup = prepare(config if native else with_defaults(config, open_store(labels)))
    click.echo(describe(setup))
    if overwrite:
        clear_run(config.work_dir)
    with tqdm(total=config.steps, desc="train", unit="step", disable=None) as bar:

        def show(step: Any) -> None:
            bar.set_postfix_str(
                f"loss {step.loss:.3f}, lr {step.lr:.1e}, {step.sites} sites, {step.images_per_second:.1f} images/s"
            )
            bar.update()

        def tell(step: int, scores: Any) -> None:
            for scheme, s in scores.items():
                bar.write(f"step {step}: {scheme} mIoU {s.miou:.2f}, pixel accuracy {s.pixel_accuracy:.2f}")

        train(setup, on_step=show, on_scores=tell)
    click.echo(f"{config.work_dir}: last.safetensors, best.safetensors, log.jsonl")


def describe(setup: Setup) -> str:
    """Return what is about to be trained: images, sizes, classes with their shares of pixels."""
    from qgn.data.classes import class_shares
    from qgn.models.build import DENSE
    from qgn.sparse.backends import load_backend

    config = setup.config
    shares = class_shares(setup.classes, setup.pixels)
    rows = [["class", "raw ids", "pixels %"], *([name, raw, f"{share:.2f}"] for name, raw, share in shares)]
    size = "native size" if config.image_size is None else "x".join(map(str, config.image_size))
    images = setup.images
    val = f"set aside from {images.train_split}" if images.set_aside else "val"
    left_out = f", {images.without_photo} without a photo left out" if images.without_photo else ""
    text = (
        f"{align(rows, left=2)}\n"
        f"{len(images.train)} training images (split {images.train_split}), "
        f"{len(images.val)} validation images{f' (split {val})' if images.val else ''}{left_out}; {size}\n"
        f"{' '.join((config.model, *config.variants))}, width {config.width}, propagation {config.propagation}, "
    )
    if config.model in DENSE:
        return f"{text}{config.optimizer}, on {config.device}"
    return (
        f"{text}{config.loss} loss, {config.optimizer}, on {config.device}\n"
        f"sparse convolutions: {config.backend} ({load_backend(config.backend).describe(config.device)})"
        f"{', decoder levels recomputed in the backward pass' if config.recompute else ''}"
    )
