"""The command ``qgn-predict``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .errors import run
from .options import ensemble_of, ensemble_options, limit_options, limits_of


def main() -> None:
    """Run ``qgn-predict``."""
    run(cli)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="File that qgn-train wrote.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option(
    "--propagation", help="Which cells go on, such as 'prod>0.3'.  [default: the checkpoint's, else pc, or dense]"
)
@limit_options
@ensemble_options
@click.option("--no-pictures", is_flag=True, help="Write the labels alone, which takes much less time.")
@click.option("--store", type=click.Path(path_type=Path), help="Also write the predictions as a store of trees.")
@click.option("--overwrite", is_flag=True, help="Replace the files and the store of an earlier prediction.")
@click.option("--device", help="cpu or cuda.  [default: cuda where there is one]")
def cli(
    images: tuple[Path, ...], checkpoint: Path, out: Path, propagation: str | None, no_pictures: bool,
    store: Path | None, overwrite: bool, device: str | None, **options: Any,
) -> None:  # fmt: skip
    """Predict IMAGES: raw-id labels, colour overlays and pictures of the predicted trees.

    IMAGES are photos, animated or paged ones (GIF, WebP, PNG, TIFF), videos, and folders of all these. '-' reads a list
    of them from standard input: a path a line, or separated by NUL. Predictions below a folder keep its sub-folders;
    those of a video are NAME/000000, NAME/000001, ..
    """
    from tqdm import tqdm

    from qgn.device import choose_device
    from qgn.inputs import find_inputs, read_list
    from qgn.predict import load_predictor, predict_files

    listed = (read_list(sys.stdin.buffer.read()) if path == Path("-") else [path] for path in images)
    inputs = find_inputs([path for paths in listed for path in paths], out)
    predictor = load_predictor(
        checkpoint, choose_device(device), propagation=propagation, limits=limits_of(options),
        ensemble=ensemble_of(options),
    )  # fmt: skip
    total = None if any(item.moving for item in inputs) else len(inputs)
    with tqdm(total=total, desc="predict", unit="image", disable=None) as bar:
        count = predict_files(
            predictor, inputs, out, pictures=not no_pictures, store=store, overwrite=overwrite, progress=bar.update
        )
    files = "NAME_labels.png" if no_pictures else "NAME_labels.png, NAME_overlay.png and NAME_tree.png"
    click.echo(f"{out}: {files} of {count} image{'s' if count > 1 else ''}")
    if store is not None:
        click.echo(f"{store}: the predictions as trees")
