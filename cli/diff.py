"""The command ``quadcodec diff``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from .tables import diff_line, diff_summary


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line: the images that differ, a summary."
)
def diff(a: Path, b: Path, as_json: bool) -> None:
    """Compare the masks of two stores, image by image, by split and name; exit 1 if any differs.

    \b
    quadcodec diff fast.zarr small.zarr
    """
    from quadcodec.diff import Summary, diff
    from quadcodec.store import open_store

    summary = Summary()
    left, right = open_store(a), open_store(b)
    for found in diff(left, right):
        summary = summary.with_image(found)
        if not found.same:
            click.echo(json.dumps(found.to_json()) if as_json else diff_line(found, left.classes))
    click.echo(json.dumps({"summary": asdict(summary)}) if as_json else diff_summary(summary))
    if not summary.same:
        raise click.exceptions.Exit(1)
