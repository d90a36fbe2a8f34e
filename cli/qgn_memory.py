"""The command ``qgn-bench memory``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import Bytes, Size
from .tables import align

if TYPE_CHECKING:
    from qgn.bench.memory import Report, Row

NOTES = """\
Ours: memory by a rule that was fitted to the paper's figures, since it states none (qgn/bench/memory_paper.py). The two
agree if they differ by at most 1 % of the encoder's memory, 5 % of the decoder's (multiply-adds: 6 %) and the rounding
of the paper's. Kept for backward: what the forward pass of a training step, loss included, keeps for the backward pass;
parameters and image left out. Peak on CUDA: the most that a training step allocates beside weights and images,
gradients of the weights included. A star marks the paper's estimates.
GTC, and PC where it predicts right: trees drawn with the shares below; 3x3 convolutions count the neighbours there."""
SIZES = """\
Of the images of Cityscapes, and of a STORE of a data set that the paper has no figures of.  [default: 1024x2048; the
store's median]"""
SMALLEST = 64


@click.command()
@click.option("--input", "size", type=Size(), help=SIZES)
@click.option("--store", type=click.Path(path_type=Path), help="Label trees to take the active cells of.")
@click.option("--fit", "budget", type=Bytes(), help="Say how many images fit into this much memory, such as 12GiB.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def memory(size: tuple[int, int] | None, store: Path | None, budget: int | None, as_json: bool) -> None:
    """Count memory and multiply-adds beside the paper's Tables 2 and 6: without a GPU, in seconds."""
    from qgn.bench.memory import measure_memory
    from quadcodec.store import open_store

    if size is not None and min(size) < SMALLEST:
        raise click.BadParameter(f"both sides must be {SMALLEST} or more", param_hint="--input")
    opened = None if store is None else open_store(store)
    report = measure_memory(size, opened, budget, lambda what: click.echo(f"counting {what}", err=True))
    click.echo(json.dumps(report.to_json()) if as_json else tables(report))


def tables(report: Report) -> str:
    """Return the report as text: a table for each of the paper's and each data set, then what fits."""
    blocks = []
    for (table, dataset), rows in groupby(report.rows, key=lambda row: (row.table, row.dataset)):
        blocks.append(f"{heading(table)}, {dataset}\n{align(lines(list(rows)), left=2)}")
    if report.fits:
        fits: dict[str, list[str]] = {}
        for fit in report.fits:
            fits.setdefault(fit.architecture, []).append(str(fit.frames))
        of = "{}, {}x{}".format(report.fits[0].dataset, *report.fits[0].size)
        head = [f"images that fit ({of})", "in training, kept for backward", "forward, the paper's"]
        blocks.append(align([head, *([name, *frames] for name, frames in fits.items())]))
    return "\n\n".join([*blocks, "\n".join([NOTES, *report.notes])])


def heading(table: str) -> str:
    """Return how a table is named; '4.4' is a section."""
    return f"Section {table}" if "." in table else f"Table {table}"


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return a line for each figure of the paper, our definitions beside it."""
    head = ["architecture", "GiB, or 10^12", "paper", "ours", "%", "", "kept for backward"]
    peak = any(row.definition == "peak on CUDA" for row in rows)
    text = [head + ["peak on CUDA"] * peak]
    for (architecture, quantity), found in groupby(rows, key=lambda row: (row.architecture, row.quantity)):
        ours = {row.definition: row for row in found}
        first = next(iter(ours.values()))
        paper = "" if first.paper is None else f"{first.paper:.2f}"
        percent = "" if first.paper is None else f"{100 * (first.ours / first.paper - 1):+.1f}"
        verdict = {True: "agrees", False: "differs", None: ""}[first.agrees]
        kept, most = (f"{ours[key].ours:.2f}" if key in ours else "" for key in ("kept for backward", "peak on CUDA"))
        text.append([architecture, quantity, paper, f"{first.ours:.3f}", percent, verdict, kept] + [most] * peak)
    return text
