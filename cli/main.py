"""The command ``quadcodec``. Commands import what they need when they run, so that --help is instant."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from .bench import bench
from .datasets import datasets
from .diff import diff
from .dry_run import dry_run as look
from .errors import run
from .info import info
from .options import Levels
from .repair import repair
from .report import report
from .stats import stats
from .view import view

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def main() -> None:
    """Run ``quadcodec``."""
    run(cli)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="quadcodec")
def cli() -> None:
    """Turn segmentation masks into compressed quadtrees in a zarr store, and back.

    \b
    quadcodec convert cityscapes/ out.zarr    encode every mask
    quadcodec stats out.zarr                  its sparsity (Table 5 of the paper)
    quadcodec view out.zarr 0 -o levels.png   the levels of one mask
    """


cli.add_command(repair)


@cli.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "layout",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, a name that 'quadcodec datasets' lists, or a manifest of your own (TOML).",
)
@click.option("--split", "splits", multiple=True, help="Take this split only; may be given again.  [default: all]")
@click.option(
    "--void", multiple=True, type=click.IntRange(0, 65535), metavar="ID",
    help="An id that is unlabelled, besides the manifest's; may be given again.",
)  # fmt: skip
@click.option("--levels", default=6, show_default=True, type=click.IntRange(2, 10), help="Levels of the quadtree.")
@click.option("--profile", default="fast", show_default=True, type=click.Choice(["fast", "raw", "small"]),
              help="fast for training; raw: twice the bytes, no zstd to undo; small for archives.")  # fmt: skip
@click.option("--own-tables", is_flag=True,
              help="With --profile small: train the coder's tables on these masks; they go into DST.")  # fmt: skip
@click.option("--pyramid", type=Levels(), default=(), help="Write these levels as ordinary arrays, too: 5,4,3.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes.  [default: one a core]")
@click.option("--overwrite", is_flag=True, help="Replace the store DST, and drop an unfinished conversion.")
@click.option("--resume", is_flag=True, help="Continue an unfinished conversion.")
@click.option(
    "--on-error",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="Masks that cannot be read: stop, or leave out.",
)
@click.option("--dry-run", is_flag=True, help="Read everything, list all problems, write nothing.")
@JSON
def convert(
    src: Path, dst: Path, layout: str, splits: tuple[str, ...], void: tuple[int, ...], levels: int, profile: str,
    own_tables: bool, pyramid: tuple[int, ...], workers: int | None, overwrite: bool, resume: bool, on_error: str,
    dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Encode the masks of the data set SRC into the new store DST.

    \b
    quadcodec convert cityscapes/ out.zarr
    quadcodec convert masks/ out.zarr --void 255 --on-error skip
    """
    from tqdm import tqdm

    from quadcodec.convert import check_target, convert, plan_conversion, worker_pool

    if overwrite and resume:
        raise click.UsageError("--overwrite begins anew, --resume continues: choose one of them.")
    if own_tables and profile != "small":
        raise click.UsageError("--own-tables needs --profile small: the other profile has no tables.")
    skip = on_error == "skip"
    check_target(dst, overwrite=overwrite, resume=resume)
    if dry_run:
        look(src, layout, splits, void, workers, as_json)
        return
    plan = plan_conversion(
        src, layout=layout, splits=splits or None, void=void, levels=levels, profile=profile,
        own_tables=own_tables, skip_bad=skip,
    )  # fmt: skip
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(plan.columns), desc="convert", unit="mask", disable=None))
        executor = stack.enter_context(worker_pool(plan, workers or len(os.sched_getaffinity(0))))
        report = convert(
            plan, dst, overwrite=overwrite, resume=resume, skip_bad=skip, pyramid=pyramid, executor=executor,
            progress=bar.update,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(asdict(report)))
        return
    for problem in report.skipped:
        click.echo(f"skipped: {problem.message}", err=True)
    splits_text = ", ".join(f"{name} {count}" for name, count in report.splits.items())
    click.echo(f"{report.path}: {report.dataset}, {splits_text}")
    if report.without_photo:
        click.echo(f"{report.without_photo} masks have no photo; they serve statistics, not training.")
    bits = 8 * report.stored_bytes / report.pixels
    click.echo(
        f"{report.source_bytes / 1e6:.1f} MB of mask files -> {report.stored_bytes / 1e6:.1f} MB of records, "
        f"{bits:.4f} bits a pixel"
    )


@cli.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Decode every record, too.")
@JSON
def validate(store: Path, deep: bool, as_json: bool) -> None:
    """Look for damage in a store; exit 1 if there is any."""
    from quadcodec.validate import validate

    findings = validate(store, deep=deep)
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}))
    for finding in findings if not as_json else ():
        click.echo(f"{finding.where}: {finding.found}. {finding.fix}.")
    if findings:
        raise click.exceptions.Exit(1)
    if not as_json:
        click.echo(f"{store}: no fault found" + ("" if deep else " (records were not decoded: --deep)"))


@cli.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--png", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write mask files again, under the paths and in the modes they came from.")  # fmt: skip
@click.option("--ngff", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write an OME-NGFF 0.5 label image, with all levels, names and colours, for viewers.")  # fmt: skip
def export(store: Path, png: Path | None, ngff: Path | None) -> None:
    """Write the masks of STORE in a form that other programs read, into a new FOLDER."""
    from tqdm import tqdm

    from quadcodec.export import export_masks, export_ngff
    from quadcodec.store import open_store

    folder = png or ngff
    if folder is None or (png and ngff):
        raise click.UsageError("--png FOLDER or --ngff FOLDER: choose one of them.")
    opened = open_store(store)
    with tqdm(total=len(opened), desc="export", unit="mask", disable=None) as bar:
        count = (export_masks if png else export_ngff)(opened, folder, bar.update)
    click.echo(f"{folder}: {count} masks")


for command in (bench, datasets, diff, info, report, stats, view):
    cli.add_command(command)
