"""The command ``quadcodec stats``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .stats_text import as_csv, as_markdown, as_text


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--format", "layout", default="auto", show_default=True, metavar="NAME", help="Of folders, as in convert."
)
@click.option("--classes", default="raw", show_default=True, type=click.Choice(["raw", "train", "raw,train"]),
              help="Count the ids of the files, the training classes, or both.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), help="Worker processes.  [default: one a core for many images]")
@click.option("--json", "form", flag_value="json", help="Print one JSON object instead of text.")
@click.option("--csv", "form", flag_value="csv", help="Print one figure a line.")
@click.option("--markdown", "form", flag_value="markdown", help="Print Markdown tables.")
def stats(paths: tuple[Path, ...], layout: str, classes: str, workers: int | None, form: str | None) -> None:
    """Print the sparsity of stores or folders of masks (Table 5 of the paper), their bytes and classes.

    Without PATHS: of the only *.zarr here. Published figures stand below ours where the paper has them.

    \b
    quadcodec stats out.zarr
    quadcodec stats cityscapes/ ade20k.zarr --classes raw,train --markdown
    """
    from tqdm import tqdm

    from quadcodec.stats import find_stores, stats

    if not paths:
        paths = tuple(find_stores())
        if len(paths) != 1:
            raise click.UsageError(f"found {len(paths)} stores (*.zarr) here, expected one: name the PATHS to look at.")
    with tqdm(desc="stats", unit="mask", disable=None, leave=False) as bar:
        spaces = classes.split(",")
        rows = [
            row
            for path in paths
            for row in stats(path, layout=layout, classes=spaces, workers=workers, progress=bar.update)
        ]
    if form == "json":
        click.echo(json.dumps({"rows": [row.to_json() for row in rows]}))
    else:
        click.echo({"csv": as_csv, "markdown": as_markdown}.get(form or "", as_text)(rows))
