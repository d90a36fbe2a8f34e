"""The command ``qgn-bench table``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import Texts
from .tables import align

if TYPE_CHECKING:
    from qgn.bench.table import Line

HEAD = [
    "model",
    "trained",
    "evaluated",
    "seeds",
    "mIoU",
    "pixel accuracy",
    "GMAC",
    "kept MB",
    "s a step",
    "seconds",
    "behind",
]
NOTE = """\
Last checkpoints on the val split; mIoU is the mean over the seeds, with its standard deviation. Kept: what a training
step keeps for the backward pass, an image. Seconds a step: CPU time of forward and backward pass, one thread; all
seconds: of the training by the clock. Behind: points of mIoU below the best line; less than 2 are no ranking."""


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--models", required=True, type=Texts(), help="Names, separated by commas; NAME:gtc/pc sets its scheme.")
@click.option(
    "--schemes", default="gtc/pc", show_default=True, type=Texts(), help="Of quadtree models: TRAINING/EVALUATION,..."
)
@click.option("--steps", default=400, show_default=True, type=click.IntRange(1), help="Of every training.")
@click.option("--seeds", default="0,1,2", show_default=True, type=Texts(), help="Trainings of every line.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the runs and finished rows.")
@click.option("--json", "form", flag_value="json", help="Print one JSON object instead of text.")
@click.option("--markdown", "form", flag_value="markdown", help="Print a Markdown table.")
def table(
    store: Path, settings: tuple[str, ...], models: tuple[str, ...], schemes: tuple[str, ...], steps: int,
    seeds: tuple[str, ...], out: Path, form: str | None,
) -> None:  # fmt: skip
    """Train and evaluate models under one budget; KEY=VALUE are settings of qgn-train that all of them share.

    What OUT holds is not done again: a finished row is read, an interrupted training goes on. Two such commands may
    work on one OUT at a time with seeds of their own.
    """
    from tqdm import tqdm

    from qgn.bench.table import lines, make_plans, run_table
    from qgn.config import TrainConfig
    from qgn.device import choose_device
    from qgn.setup import gather

    if not all(seed.isdecimal() for seed in seeds) or len({int(seed) for seed in seeds}) < len(seeds):
        raise click.BadParameter("expected different numbers such as 0,1,2", param_hint="--seeds")
    if any(text.partition("=")[0] in ("steps", "labels") for text in settings):
        raise click.UsageError("steps and labels are no settings here: use --steps, and STORE")
    given = gather(None, None, (f"save_every={min(steps, 50)}", *settings, f"steps={steps}", f"labels={store}"))
    given["device"] = choose_device(given.get("device"), given.get("workers", TrainConfig.workers))
    plans = make_plans(models, schemes)
    with tqdm(total=len(plans) * len(seeds), desc="rows", unit="row", disable=None) as bar:
        results = []
        for result in run_table(
            given, plans, [int(seed) for seed in seeds], out, say=lambda what: click.echo(what, err=True),
            on_step=lambda step: bar.set_postfix_str(f"step {step.step}, loss {step.loss:.3f}"),
        ):  # fmt: skip
            results.append(result)
            bar.update()
    found = lines(results)
    if form == "json":
        click.echo(json.dumps({"rows": [asdict(row) for row in results], "table": [asdict(line) for line in found]}))
    else:
        click.echo(markdown(found) if form == "markdown" else f"{align(cells(found), left=3)}\n\n{NOTE}")


def cells(found: Sequence[Line]) -> list[list[str]]:
    """Return the table's lines as text, its head first."""
    rows = [HEAD]
    for line in found:
        spread = "" if line.miou_sd is None else f" ± {line.miou_sd:.1f}"
        figures = (
            f"{line.gmacs:.2f}",
            f"{line.kept_bytes / 1e6:.1f}",
            f"{line.step_seconds:.2f}",
            f"{line.seconds:.0f}",
        )
        behind = "< 2" if line.behind is None else f"{line.behind:.1f}"
        rows.append(
            [line.model, line.training, line.evaluation, str(len(line.seeds)), f"{line.miou:.1f}{spread}",
             f"{line.pixel_accuracy:.1f}", *figures, behind]
        )  # fmt: skip
    return rows


def markdown(found: Sequence[Line]) -> str:
    """Return the table in Markdown."""
    head, *rows = cells(found)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]) + f"\n\n{NOTE}"
