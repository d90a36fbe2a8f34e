"""The command ``qgn-eval``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import run
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
@click.option("--propagation", help="Schemes, separated by commas.  [default: all that the model knows]")
@click.option("--images", type=click.Path(path_type=Path), help="Folder of the photos.  [default: the store's]")
@click.option("--batch-size", default=8, type=click.IntRange(1), help="Images at once.")
@click.option("--workers", default=1, type=click.IntRange(0), help="Processes that read data.")
@click.option("--device", help="cpu or cuda.  [default: cuda where there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def cli(
    checkpoint: Path, labels: Path, split: str, propagation: str | None, images: Path | None, batch_size: int,
    workers: int, device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Score a checkpoint: mIoU, pixel accuracy, and a quadtree model's composites and sites, by propagation scheme."""
    from tqdm import tqdm

    from qgn.device import choose_device
    from qgn.evaluate import evaluate_checkpoint
    from quadcodec.store import open_store

    schemes = None if propagation is None else tuple(dict.fromkeys(s.strip() for s in propagation.split(",")))
    everything = split == "all" and "all" not in open_store(labels).info.splits
    with tqdm(desc="evaluate", unit="image", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        evaluation = evaluate_checkpoint(
            checkpoint, labels, split=None if everything else split, schemes=schemes, images=images,
            batch_size=batch_size, workers=workers, progress=show,
            device=choose_device(device, workers),
        )  # fmt: skip
    click.echo(json.dumps(evaluation.to_json()) if as_json else tables(evaluation))


def tables(evaluation: Evaluation) -> str:
    """Return the scores as text: totals, IoU by class, composites and sites by level."""
    schemes = evaluation.schemes
    totals = [["scheme", "mIoU", "pixel accuracy"]]
    totals += [[name, f"{s.miou:.2f}", f"{s.pixel_accuracy:.2f}"] for name, s in schemes.items()]
    names = list(next(iter(schemes.values())).iou)
    classes = [["IoU %", *schemes], *([c, *(f"{s.iou[c]:.2f}" for s in schemes.values())] for c in names)]
    levels = [["scheme", "level", "active sites", "of all %", "composite precision %", "recall %"]]
    for name, s in schemes.items():
        for level in s.sites:
            values = (s.site_share[level], s.composite_precision[level], s.composite_recall[level])
            levels.append([name, str(level), f"{s.sites[level]:.1f}", *(f"{v:.2f}" for v in values)])
    left_out = f" ({evaluation.without_photo} without a photo left out)" if evaluation.without_photo else ""
    aside = f" (set aside from {evaluation.set_aside_from})" if evaluation.set_aside_from else ""
    images = f"split {evaluation.split}{aside}: {evaluation.images} images{left_out}"
    head = f"{evaluation.checkpoint} on {evaluation.labels}, {images}"
    parts = [head, align(totals), align(classes)]
    return "\n\n".join(parts if len(levels) == 1 else [*parts, align(levels, left=2)])
