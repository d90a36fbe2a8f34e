"""The command ``qgn-predict``."""

from __future__ import annotations

from pathlib import Path

import click

from .errors import run


def main() -> None:
    """Run ``qgn-predict``."""
    run(cli)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="File that qgn-train wrote.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--store", type=click.Path(path_type=Path), help="Also write the predictions as a store of trees.")
@click.option("--overwrite", is_flag=True, help="Replace the files and the store of an earlier prediction.")
@click.option("--device", help="cpu or cuda.  [default: cuda where there is one]")
def cli(
    images: tuple[Path, ...], checkpoint: Path, out: Path, store: Path | None, overwrite: bool, device: str | None
) -> None:
    """Predict photos (files or folders): raw-id labels, colour overlays and pictures of the predicted trees."""
    from tqdm import tqdm

    from qgn.device import choose_device
    from qgn.predict import find_photos, load_predictor, predict_files

    photos = find_photos(images, out)
    predictor = load_predictor(checkpoint, choose_device(device))
    with tqdm(total=len(photos), desc="predict", unit="image", disable=None) as bar:
        predict_files(predictor, photos, out, store=store, overwrite=overwrite, progress=bar.update)
    click.echo(f"{out}: NAME_labels.png, NAME_overlay.png and NAME_tree.png of {len(photos)} photos")
    if store is not None:
        click.echo(f"{store}: the predictions as trees")
