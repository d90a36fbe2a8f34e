"""The command ``qgn-train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import run
from .tables import align

if TYPE_CHECKING:
    from qgn.setup import Setup


def main() -> None:
    """Run ``qgn-train``."""
    run(cli)


class _WithSettings(click.Command):
    """Lists all settings at the end of the help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        from qgn.config import TrainConfig
        from qgn.settings import describe

        rows = [(f"{key}={default}", what) for key, default, what in describe(TrainConfig)]
        with formatter.section("Settings and their defaults"):
            formatter.write_dl(rows)


@click.command(
    cls=_WithSettings, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)  # fmt: skip
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--labels", type=click.Path(path_type=Path), help="Store of label trees.")
@click.option("--images", type=click.Path(path_type=Path), help="Folder of the photos.  [default: the store's]")
@click.option("--work-dir", type=click.Path(path_type=Path), help="For checkpoints and log.  [default: runs/LABELS]")
@click.option("--device", help="cpu or cuda.  [default: cuda where there is one]")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option("--recipe", metavar="NAME", help="Settings of a published run; 'list' shows them.")
@click.option("--resume", is_flag=True, help="Go on with the run in the work folder from its last save.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in the work folder.")
def cli(
    settings: tuple[str, ...], config: Path | None, recipe: str | None, resume: bool, overwrite: bool,
    **places: Path | str | None,
) -> None:  # fmt: skip
    """Train a quadtree generating network, or a dense one, on a store of label trees.

    Settings come from a recipe, over it from a file, over that from KEY=VALUE arguments such as steps=800 lr=1e-3.
    The run's folder keeps all of them as config.toml; with --resume they come from there.
    """
    if resume and overwrite:
        raise click.UsageError("--resume goes on with the run that --overwrite deletes. Leave one out")
    if recipe == "list":
        click.echo(_recipes())
        return
    from qgn.config import TrainConfig
    from qgn.distributed import process_group, rank
    from qgn.run_folder import clear_run
    from qgn.setup import gather, prepare, resolve

    given = gather([] if config is None else [config], recipe, settings, places, resume=resume)
    with process_group(given.get("device"), given.get("workers", TrainConfig.workers)) as device:
        setup = prepare(resolve(given, device))
        if rank() == 0:
            click.echo(describe(setup))
            if overwrite:
                clear_run(setup.config.work_dir)
        _train(setup, resume=resume, quiet=rank() > 0)
    if rank() == 0:
        click.echo(f"{setup.config.work_dir}: last.safetensors, best.safetensors, log.jsonl, config.toml")


def _train(setup: Setup, *, resume: bool, quiet: bool) -> None:
    """Train with a progress bar."""
    from tqdm import tqdm

    from qgn.trainer import train

    with tqdm(total=setup.config.steps, desc="train", unit="step", disable=quiet or None) as bar:

        def show(step: Any) -> None:
            bar.set_postfix_str(
                f"loss {step.loss:.3f}, lr {step.lr:.1e}, {step.sites} sites, {step.images_per_second:.1f} images/s"
            )
            bar.update(step.step - bar.n)

        def tell(step: int, scores: Any) -> None:
            for scheme, s in scores.items():
                bar.write(f"step {step}: {scheme} mIoU {s.miou:.2f}, pixel accuracy {s.pixel_accuracy:.2f}")

        train(setup, resume=resume, on_step=show, on_scores=(lambda *_: None) if quiet else tell)


def _recipes() -> str:
    from qgn.recipes import about, recipe_names

    return align([["recipe", "settings of"], *([name, about(name)] for name in recipe_names())], left=2)


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
    if setup.weights is not None:
        text = f"{setup.weights}\n{text}"
    if config.model in DENSE:
        return f"{text}{config.optimizer}, on {config.device}"
    return (
        f"{text}{config.loss} loss, {config.optimizer}, on {config.device}\n"
        f"sparse convolutions: {config.backend} ({load_backend(config.backend).describe(config.device)})"
        f"{', decoder levels recomputed in the backward pass' if config.recompute else ''}"
    )
