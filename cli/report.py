"""The command ``quadcodec report``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click


@click.command()
@click.argument("stores", nargs=-1, required=True, metavar="STORE...", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="HTML file to write.")
@click.option("--image", "images", multiple=True, help="An image to show, by name or number; may be given again.")
@click.option("--classes", default="raw", show_default=True, type=click.Choice(["raw", "train", "raw,train"]),
              help="Count the ids of the files, the training classes, or both.")  # fmt: skip
@click.option(
    "--bench", type=click.Path(path_type=Path), help="What 'quadcodec bench --json' wrote: adds size and speed."
)
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def report(
    stores: tuple[Path, ...], output: Path, images: tuple[str, ...], classes: str, bench: Path | None, overwrite: bool
) -> None:
    """Write one HTML page about stores: Table 5, charts, and trees to step through. It needs no network.

    \b
    quadcodec report out.zarr -o report.html
    quadcodec report fast.zarr small.zarr -o report.html --image 17
    """
    from quadcodec.report import check_report, read_bench, report, write_report

    check_report(output, overwrite=overwrite)
    measured = None if bench is None else read_bench(bench)
    command = shlex.join(["quadcodec", *sys.argv[1:]])
    page = report(stores, images=images, classes=classes.split(","), bench=measured, command=command)
    write_report(output, page, overwrite=overwrite)
    click.echo(f"{output}: {len(page.encode()) / 1e6:.2f} MB")
