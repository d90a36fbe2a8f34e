"""What ``quadcodec convert --dry-run`` prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from quadcodec.survey import Survey


def dry_run(
    src: Path, layout: str, splits: Sequence[str], void: Sequence[int], workers: int | None, as_json: bool
) -> None:
    """Look at a whole data set, print all its problems, and exit with 1 if there are any."""
    from tqdm import tqdm

    from quadcodec.survey import survey

    with tqdm(desc="look", unit="mask", disable=None, leave=False) as bar:
        found = survey(src, layout=layout, splits=splits or None, void=void, workers=workers, progress=bar.update)
    click.echo(json.dumps(asdict(found)) if as_json else _text(found))
    if found.problems:
        raise click.exceptions.Exit(1)


def _text(found: Survey) -> str:
    splits = ", ".join(f"{name} {count}" for name, count in found.splits.items())
    lines = [f"{found.path}: {found.dataset}, {splits}, {found.source_bytes / 1e6:.1f} MB of mask files"]
    for problems in found.problems:
        lines.append(f"{problems.kind} ({problems.count}):")
        lines += [f"  {message}" for message in problems.first]
        if problems.count > len(problems.first):
            lines.append(f"  and {problems.count - len(problems.first)} more")
    if not any(problems.kind == "masks without photos" for problems in found.problems) and found.without_photo:
        lines.append(f"{found.without_photo} masks have no photo; they serve statistics, not training.")
    count = sum(problems.count for problems in found.problems)
    end = f"{count} problem{'s' * (count > 1)}" if count else "no problem found"
    return "\n".join([*lines, f"{end} (dry run: nothing written)"])
