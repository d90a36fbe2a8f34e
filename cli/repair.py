"""The command ``quadcodec repair``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--source", type=click.Path(path_type=Path), help="The data set, to encode again what is lost.")
@click.option("--format", "layout", default="auto", show_default=True, metavar="NAME", help="Of SOURCE, as in convert.")
@click.option("--accept", "as_is", is_flag=True, help="Take the store as it is, after changes of your own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def repair(store: Path, source: Path | None, layout: str, as_is: bool, as_json: bool) -> None:
    """Rebuild what is damaged in a store; exit 1 if faults stay.

    Indexes, lists and whole shards come from the records that are left and from SOURCE, and only what the
    checksums prove is taken. Nothing is deleted: damaged files move to STORE.damaged.
    """
    from quadcodec.repair import accept, repair

    if as_is and source is not None:
        raise click.UsageError("--accept takes the store as it is, --source changes it. Leave one out.")
    if as_is:
        accept(store)
    result = repair(store, source=source, layout=layout)
    if as_json:
        click.echo(json.dumps(asdict(result)))
    else:
        for part in result.rebuilt:
            click.echo(f"rebuilt: {part}")
        if result.set_aside:
            click.echo(f"{result.set_aside}: the damaged files. Delete them when you need them no more.")
        for finding in result.findings:
            click.echo(f"{finding.where}: {finding.found}. {finding.fix}.")
        if not result.findings:
            click.echo(f"{store}: no fault found")
    if result.findings:
        raise click.exceptions.Exit(1)
