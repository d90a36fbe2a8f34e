"""The command ``qgn-bench``: what the network's parts cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import run
from .options import Size
from .qgn_loader import loader
from .qgn_memory import memory
from .qgn_table import table
from .tables import align, targets

if TYPE_CHECKING:
    from qgn.bench.decoder import Report


def main() -> None:
    """Run ``qgn-bench``."""
    run(cli)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True})
def cli() -> None:
    """Measure what the parts of a network cost on this machine."""


cli.add_command(loader)
cli.add_command(memory)
cli.add_command(table)


@cli.command()
@click.option("--mask", type=click.Path(path_type=Path), help="Mask file to take the tree of.  [default: generated]")
@click.option("--size", type=Size(), default="1024x2048", help="Of the generated street scene; multiples of 32.")
@click.option("--runs", default=5, type=click.IntRange(1), help="Runs of each sparse figure; the shortest counts.")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG to draw: cost against composite cells.")
@click.option("--overwrite", is_flag=True, help="Replace PLOT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def decoder(
    mask: Path | None, size: tuple[int, int], runs: int, plot: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Measure the sparse decoder beside a dense one and one by spconv, one thread; minutes, and 8 GB of memory."""
    from qgn.bench.decoder import measure_decoder
    from quadcodec.masks import read_mask
    from quadcodec.render import check_picture

    if size[0] % 32 or size[1] % 32:
        raise click.BadParameter("both sides must be multiples of 32", param_hint="--size")
    if plot is not None:
        from qgn.bench.plot import draw_curves

        check_picture(plot, overwrite=overwrite)
    report = measure_decoder(
        None if mask is None else read_mask(mask), size, runs, lambda what: click.echo(f"measuring {what}", err=True)
    )
    if plot is not None:
        draw_curves(report, plot)
    click.echo(json.dumps(report.to_json()) if as_json else tables(report))


def tables(report: Report) -> str:
    """Return the report as text: costs, the curves' points, targets."""
    costs = [["decoder", "forward s", "with backward s", "saved MB", "GMAC"]]
    for name, cost in report.costs.items():
        figures = (f"{cost.forward_s:.3f}", f"{cost.both_s:.3f}", f"{cost.saved_bytes / 1e6:.1f}")
        costs.append([name, *figures, f"{cost.macs / 1e9:.1f}"])
    saved = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in report.recomputed_bytes.items())
    made = ", ".join(f"{name} {1e3 * value:.3f}" for name, value in report.table_s.items())
    curves = [["composite cells of level 1", *(f"{100 * p.share:g} %" for p in report.curves["clustered"])]]
    curves += [[f"{name}, ms", *(f"{1e3 * p.seconds:.1f}" for p in ps)] for name, ps in report.curves.items()]
    head = f"{report.tree}: composite cells of levels 5 to 1, {', '.join(f'{s:.2f}' for s in report.shares)} %"
    notes = (
        f"saved with recomputing, MB: {saved}; nodes and tables beside: {report.structure_bytes / 1e6:.1f}\n"
        f"neighbour tables and pairs of all levels, ms: {made}"
    )
    dense = f"the dense block takes {1e3 * report.dense_block_s:.1f} ms"
    return "\n\n".join([head, align(costs), notes, f"{align(curves)}\n{dense}", targets(report.rows)])
