"""The command ``qgn-eval``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from .errors import run
from .eval_text import evaluation_text
from .options import ensemble_of, ensemble_options, limit_options, limits_of


def main() -> None:
    """Run ``qgn-eval``."""
    run(cli)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True})
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="File that qgn-train wrote.")
@click.option("--labels", required=True, type=click.Path(path_type=Path), help="Store of label trees.")
@click.option(
    "--split",
    default="val",
    help="Split to score; 'all' for every image, 'held-aside' for those that training held aside. Without a 'val': "
    "what it set aside for validation.",
)
@click.option(
    "--propagation",
    help="Schemes, separated by commas, such as 'pc,union,prod>0.3'.  [default: those of the model, those of --sweep, "
    "or gtc,pc beside --choose]",
)
@click.option("--sweep", is_flag=True, help="Score thresholds from much computed to little: what accuracy costs.")
@click.option(
    "--choose",
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    help="Choose the threshold of highest mIoU on the images that training held aside (held_aside=N), of those that "
    "compute at most so many of the cells, and score it on the split, too.",
)
@limit_options
@ensemble_options
@click.option(
    "--boundary-width",
    default=2.0,
    type=click.FloatRange(0, 100),
    help="Width of the regions of boundary mIoU in percent of an image's diagonal; less is stricter.",
)
@click.option("--images", type=click.Path(path_type=Path), help="Folder of the photos.  [default: the store's]")
@click.option("--batch-size", default=8, type=click.IntRange(1), help="Images at once.")
@click.option("--workers", default=1, type=click.IntRange(0), help="Processes that read data.")
@click.option("--device", help="cpu or cuda.  [default: cuda where there is one]")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="PNG to draw: mIoU against multiply-adds (extra 'bench')."
)
@click.option("--confusion", type=click.Path(path_type=Path), help="PNG to draw or CSV to write: confusion matrices.")
@click.option("--overwrite", is_flag=True, help="Replace the files of --plot and --confusion.")
@click.option("--csv", "as_csv", is_flag=True, help="Print totals as CSV instead of tables.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def cli(
    checkpoint: Path, labels: Path, split: str, propagation: str | None, sweep: bool, choose: float | None,
    boundary_width: float, images: Path | None, batch_size: int, workers: int, device: str | None, plot: Path | None,
    confusion: Path | None, overwrite: bool, as_csv: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Score a checkpoint: mIoU, boundary mIoU, accuracies, composites, sites and cost, by propagation scheme."""
    from tqdm import tqdm

    from qgn.confusion import check_confusion, write_confusion
    from qgn.device import choose_device
    from qgn.evaluate import evaluate_checkpoint
    from qgn.sweep import RULES, choose_threshold
    from quadcodec.render import check_picture
    from quadcodec.store import open_store

    if plot is not None:
        from qgn.bench.plot import draw_sweep  # needs matplotlib: say so before the work starts

        check_picture(plot, overwrite=overwrite)
    if confusion is not None:
        check_confusion(confusion, overwrite=overwrite)
    given = propagation or (",".join(RULES) if sweep else "gtc,pc" if choose is not None else None)
    schemes = None if given is None else [scheme.strip() for scheme in given.split(",")]
    everything = split == "all" and "all" not in open_store(labels).info.splits
    common: dict[str, Any] = {
        "limits": limits_of(options), "ensemble": ensemble_of(options), "images": images, "batch_size": batch_size,
        "workers": workers, "device": choose_device(device, workers),
    }  # fmt: skip
    choice = None
    if choose is not None:
        with tqdm(desc="choose", unit="image", disable=None) as bar:
            choice = choose_threshold(checkpoint, labels, choose, progress=partial(_show, bar), **common)
        schemes = [*(schemes or ()), choice.rule]
    with tqdm(desc="evaluate", unit="image", disable=None) as bar:
        evaluation = evaluate_checkpoint(
            checkpoint, labels, split=None if everything else split, schemes=schemes,
            boundary_width=boundary_width, progress=partial(_show, bar), **common,
        )  # fmt: skip
    click.echo(evaluation_text(evaluation, choice, sweep=sweep, as_csv=as_csv, as_json=as_json))
    if plot is not None:
        draw_sweep(evaluation.schemes, plot)
    if confusion is not None:
        write_confusion(confusion, evaluation.schemes)


def _show(bar: Any, done: int, total: int) -> None:
    """Move a progress bar on."""
    bar.total = total
    bar.update(done)
