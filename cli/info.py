"""The command ``quadcodec info``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .tables import record_text, summary_text


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("image", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def info(store: Path, image: str | None, as_json: bool) -> None:
    """Describe a store: data set, sizes, classes, bytes. With IMAGE (its name or number), explain its record.

    \b
    quadcodec info out.zarr
    quadcodec info out.zarr 17
    """
    from quadcodec.explain import explain
    from quadcodec.stats import summary
    from quadcodec.store import open_store

    opened = open_store(store)
    if image is None:
        values = summary(opened)
        click.echo(json.dumps(values) if as_json else summary_text(values))
        return
    index = opened.find(image)
    found = explain(opened.record(index), opened.quadtree(index))
    where = {"store": str(store), "index": index, "name": opened.names[index], "split": opened.splits[index]}
    if as_json:
        click.echo(json.dumps({**where, **found.to_json()}))
    else:
        click.echo(f"{store}: record {index} {opened.names[index]!r}, split {opened.splits[index]}")
        click.echo(record_text(found, opened.classes))
