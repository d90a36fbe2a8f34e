"""The command ``qgn-train``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qgn.config import TrainConfig
from qgn.settings import describe

from .errors import run
from .tables import align

if TYPE_CHECKING:
    from qgn.setup import Setup


def main() -> None:
    """Run ``qgn-train``."""
    run(cli)


def _options() -> Iterator[click.Option]:
    """Yield an option for each setting; its value is the text of ``key=value``."""
    for setting in describe(TrainConfig):
        name = f"--{setting.key.replace('_', '-')}"
        about = setting.about if setting.unset is None else f"{setting.about}  [default: {setting.unset}]"
        if setting.is_switch:
            yield click.Option([f"{name}/{name.replace('--', '--no-')}"], default=None, help=about)
        else:
            yield click.Option([name], metavar="VALUE", multiple=setting.is_list, help=about)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[click.Argument(["settings"], nargs=-1, metavar="[KEY=VALUE]..."), *_options()],
)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option("--recipe", metavar="NAME", help="Settings of a published run; 'list' shows them.")
@click.option("--native", is_flag=True, help="The same as --image-size none.")
@click.option("--resume", is_flag=True, help="Go on with the run in the work folder from its last save.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in the work folder.")
def cli(
    settings: tuple[str, ...], config: Path | None, recipe: str | None, native: bool, resume: bool, overwrite: bool,
    **options: str | bool | tuple[str, ...] | None,
) -> None:  # fmt: skip
    """Train a quadtree generating network, or a dense one, on a store of label trees.

    Settings come from a recipe, over it from a file, over that from here: `--batch-size 16` and `batch_size=16` say the
    same. The run's folder keeps all of them as config.toml; with --resume they come from there.
    """
    if resume and overwrite:
        raise click.UsageError("--resume goes on with the run that --overwrite deletes. Leave one out")
    if recipe == "list":
        click.echo(_recipes())
        return
    from qgn.distributed import process_group, rank
    from qgn.run_folder import clear_run
    from qgn.setup import gather, prepare, resolve

    given = gather(config, recipe, (*_texts(options), *(["image_size=none"] * native), *settings), resume=resume)
    with process_group(given.get("device"), given.get("workers", TrainConfig.workers)) as device:
        setup = prepare(resolve(given, device))
        if rank() == 0:
            click.echo(announce(setup))
            if overwrite:
                clear_run(setup.config.work_dir)
        _train(setup, resume=resume, quiet=rank() > 0)
        if rank() == 0:
            click.echo(f"{setup.config.work_dir}: last.safetensors, best.safetensors, log.jsonl, config.toml")


def _texts(options: Mapping[str, str | bool | tuple[str, ...] | None]) -> Iterator[str]:
    """Yield the options that were given as ``key=value``; what a list was given several times adds up."""
    for key, value in options.items():
        if isinstance(value, bool):
            yield f"{key}={str(value).lower()}"
        elif value:
            yield f"{key}={value if isinstance(value, str) else ','.join(value)}"


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


def announce(setup: Setup) -> str:
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
