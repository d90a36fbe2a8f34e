"""The command ``qgn-bench loader``."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import click

from .options import Size
from .tables import align, targets


@click.command()
@click.argument("store", required=False, type=click.Path(path_type=Path))
@click.option("--images", type=click.Path(path_type=Path), help="Folder of the photos.  [default: the store's]")
@click.option("--size", type=Size(), default="192x352", help="Of the training step's images.")
@click.option("--batch-size", default=8, type=click.IntRange(2), help="Images of a step.")
@click.option("--runs", default=7, type=click.IntRange(1), help="Runs of each figure; the shortest counts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def loader(
    store: Path | None, images: Path | None, size: tuple[int, int], batch_size: int, runs: int, as_json: bool
) -> None:
    """Measure what labels cost a training, beside PNGs and dense pyramids; one thread, about a minute.

    STORE gives labels and photos; without it, four street scenes are generated.
    """
    from qgn.bench.loader import generated_store, measure_loader
    from quadcodec.store import open_store

    with generated_store() if store is None else nullcontext(open_store(store)) as opened:
        report = measure_loader(
            opened, images=images, size=size, batch_size=batch_size, runs=runs,
            say=lambda what: click.echo(f"measuring {what}", err=True),
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(report.to_json()))
        return
    costs = [["CPU time", "ms"], *([name, f"{value:.2f}"] for name, value in report.milliseconds.items())]
    head = f"{store or 'generated street scenes'}: {report.images} images, batches of {batch_size}"
    click.echo("\n\n".join([head, align(costs), targets(report.rows)]))
