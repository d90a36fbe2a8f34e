"""The command ``qgn-eval``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import run
from .options import limit_options, limits_of
from .tables import align

if TYPE_CHECKING:
    from qgn.evaluate import Evaluation


def main() -> None:
    """Run ``qgn-eval``."""
    run(cli)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True})
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="File that qgn-train wrote.")
@click.option("--labels", required=True, type=click.Path(path_type=Path), help="Store of label trees.")
@click.option(
    "--split", default="val", help="Split to score; 'all' for every image. Without a 'val': what training set aside."
)
@click.option(
    "--propagation",
    help="Schemes, separated by commas, such as 'pc,union,prod>0.3'.  [default: those of the model, or of --sweep]",
)
@click.option("--sweep", is_flag=True, help="Score thresholds from much computed to little: what accuracy costs.")
@limit_options
@click.option("--images", type=click.Path(path_type=Path), help="Folder of the photos.  [default: the store's]")
@click.option("--batch-size", default=8, type=click.IntRange(1), help="Images at once.")
@click.option("--workers", default=1, type=click.IntRange(0), help="Processes that read data.")
@click.option("--device", help="cpu or cuda.  [default: cuda where there is one]")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG to draw: mIoU against multiply-adds.")
@click.option("--overwrite", is_flag=True, help="Replace PLOT if it exists.")
@click.option("--csv", "as_csv", is_flag=True, help="Print totals as CSV instead of tables.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def cli(
    checkpoint: Path, labels: Path, split: str, propagation: str | None, sweep: bool, images: Path | None,
    batch_size: int, workers: int, device: str | None, plot: Path | None, overwrite: bool, as_csv: bool, as_json: bool,
    **limits: Any,
) -> None:  # fmt: skip
    """Score a checkpoint: mIoU, pixel accuracy, and a quadtree model's composites and sites, by propagation scheme."""
    from tqdm import tqdm

    from qgn.device import choose_device
    from qgn.evaluate import evaluate_checkpoint
    from qgn.sweep import RULES
    from quadcodec.render import check_picture
    from quadcodec.store import open_store

    if plot is not None:
        check_picture(plot, overwrite=overwrite)
    given = propagation or (",".join(RULES) if sweep else None)
    schemes = None if given is None else tuple(dict.fromkeys(scheme.strip() for scheme in given.split(",")))
    everything = split == "all" and "all" not in open_store(labels).info.splits
    with tqdm(desc="evaluate", unit="image", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        evaluation = evaluate_checkpoint(
            checkpoint, labels, split=None if everything else split, schemes=schemes,
            limits=limits_of(limits), images=images, batch_size=batch_size, workers=workers, progress=show,
            device=choose_device(device, workers),
        )  # fmt: skip
    if plot is not None:
        from qgn.bench.plot import draw_sweep

        draw_sweep(evaluation.schemes, plot)
    click.echo(_text(evaluation, sweep=sweep, as_csv=as_csv, as_json=as_json))


def _text(evaluation: Evaluation, *, sweep: bool, as_csv: bool, as_json: bool) -> str:
    from qgn.sweep import csv_of

    if as_json:
        return json.dumps(evaluation.to_json())
    if as_csv:
        return csv_of(evaluation.schemes).rstrip("\n")
    return "\n\n".join([head(evaluation), align(totals(evaluation))]) if sweep else tables(evaluation)


def head(evaluation: Evaluation) -> str:
    """Return what was evaluated."""
    left_out = f" ({evaluation.without_photo} without a photo left out)" if evaluation.without_photo else ""
    aside = f" (set aside from {evaluation.set_aside_from})" if evaluation.set_aside_from else ""
    images = f"split {evaluation.split}{aside}: {evaluation.images} images{left_out}"
    return f"{evaluation.checkpoint} on {evaluation.labels}, {images}"


def totals(evaluation: Evaluation) -> list[list[str]]:
    """Return a row a scheme: accuracy and cost."""
    rows = [["scheme", "mIoU", "pixel accuracy", "active sites %", "encoder GMACs", "decoder GMACs"]]
    for name, s in evaluation.schemes.items():
        share = "-" if math.isnan(s.share) else f"{s.share:.2f}"
        gmacs = (f"{s.encoder_gmacs:.4g}", f"{s.decoder_gmacs:.4g}")
        rows.append([name, f"{s.miou:.2f}", f"{s.pixel_accuracy:.2f}", share, *gmacs])
    return rows


def tables(evaluation: Evaluation) -> str:
    """Return the scores as text: totals, IoU by class, composites and sites by level."""
    schemes = evaluation.schemes
    names = list(next(iter(schemes.values())).iou)
    classes = [["IoU %", *schemes], *([c, *(f"{s.iou[c]:.2f}" for s in schemes.values())] for c in names)]
    levels = [["scheme", "level", "active sites", "of all %", "composite precision %", "recall %"]]
    for name, s in schemes.items():
        for level in s.sites:
            values = (s.site_share[level], s.composite_precision[level], s.composite_recall[level])
            levels.append([name, str(level), f"{s.sites[level]:.1f}", *(f"{v:.2f}" for v in values)])
    parts = [head(evaluation), align(totals(evaluation)), align(classes)]
    return "\n\n".join(parts if len(levels) == 1 else [*parts, align(levels, left=2)])
