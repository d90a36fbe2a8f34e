"""The command ``qgn-zoo``: the models, what they cost, and files to publish."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import run
from .options import Size
from .tables import align

if TYPE_CHECKING:
    from qgn.zoo import ListedModel


def main() -> None:
    """Run ``qgn-zoo``."""
    run(cli)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True})
def cli() -> None:
    """List the models, and write checkpoints for others to use."""


@cli.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def list_(as_json: bool) -> None:
    """List every model with parameters, multiply-adds and the memory that training keeps; half a minute, no GPU.

    For one image of 1024x2048 and 19 classes, at width 64. Quadtree models have two rows: 'gtc' with as many
    composite cells as Cityscapes val has on average, and 'all'.
    """
    from tqdm import tqdm

    from qgn.zoo import NUM_CLASSES, SIZE, list_models

    models = list(tqdm(list_models(), desc="count", unit="row", disable=None))
    if as_json:
        rows = [asdict(model) for model in models]
        click.echo(json.dumps({"image": SIZE, "classes": NUM_CLASSES, "rows": rows}))
    else:
        click.echo(table(models))


def table(models: list[ListedModel]) -> str:
    """Return the models as text."""
    rows = [["model", "scheme", "parameters, M", "GMAC", "kept for backward, GiB"]]
    for m in models:
        figures = (f"{m.parameters / 1e6:.1f}", f"{m.macs / 1e9:.0f}", f"{m.kept_bytes / 2**30:.2f}")
        rows.append([m.name, m.scheme, *figures])
    return align(rows, left=2)


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The safetensors file to write.")
@click.option(
    "--propagation",
    help="Which cells go on where the file is used, such as a threshold that 'qgn-eval --choose' found.  "
    "[default: the checkpoint's, else pc, or dense]",
)
@click.option("--overwrite", is_flag=True, help="Replace the file and its card if they exist.")
def export(checkpoint: Path, out: Path, propagation: str | None, overwrite: bool) -> None:
    """Write the weights of CHECKPOINT, its classes and scores, and a model card (.md) beside them."""
    from qgn.zoo import export_checkpoint

    card = export_checkpoint(checkpoint, out, propagation=propagation, overwrite=overwrite)
    click.echo(f"{out}: weights, classes and scores; {card}: the model card")


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The ONNX file to write.")
@click.option("--size", required=True, type=Size(), help="HxW of the photos, multiples of 32.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def onnx(checkpoint: Path, out: Path, size: tuple[int, int], overwrite: bool) -> None:
    """Write CHECKPOINT as an ONNX file, images (1, 3, H, W) -> logits (1, classes, H, W); quadtrees carry on all cells.

    Needs the extra 'onnx'.
    """
    from qgn.checkpoint import load_checkpoint
    from qgn.onnx import write_onnx

    write_onnx(load_checkpoint(checkpoint)[1], out, size, overwrite=overwrite)
    click.echo(f"{out}: images (1, 3, {size[0]}, {size[1]}) -> logits")
