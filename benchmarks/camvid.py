"""Train on CamVid, two seeds, and draw the curve that the README shows.

    python -m benchmarks.camvid CAMVID_FOLDER OUT_FOLDER [--steps 400] [--seeds 0 1]

Runs that are complete in OUT_FOLDER are not repeated. Scores are those of the last checkpoint on the val
split, at the masks' own size; no checkpoint was chosen by them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from qgn.config import TrainConfig
from qgn.device import choose_device
from qgn.evaluate import evaluate_checkpoint
from qgn.run_folder import clear_run
from qgn.setup import prepare
from qgn.trainer import train
from quadcodec.convert import convert, plan_conversion
from quadcodec_cli.tables import align

SCHEMES = ("gtc", "pc", "all")


def run(config: TrainConfig) -> dict[str, dict[str, float]]:
    """Train once and return {scheme: scores} of the last checkpoint; a finished run is only read."""
    work = Path(config.work_dir)
    scores = work / "scores.json"
    if not scores.exists():
        clear_run(work)
        train(prepare(config), on_step=lambda s: s.step % 50 or print(f"{work.name} step {s.step}: loss {s.loss:.3f}"))
        evaluation = evaluate_checkpoint(
            work / "last.safetensors", config.labels, split="val", schemes=SCHEMES, workers=config.workers
        )
        scores.write_text(json.dumps(evaluation.to_json()))
    values: dict[str, dict[str, float]] = json.loads(scores.read_text())["schemes"]
    return values


def curve(works: list[Path], picture: Path) -> None:
    """Draw training loss by level and validation mIoU of all runs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for work in works:
        lines = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
        losses = np.array([line["level_losses"] for line in lines if "loss" in line])
        smooth = np.apply_along_axis(lambda v: np.convolve(v, np.ones(20) / 20, "valid"), 0, losses)
        for level in range(losses.shape[1] - 1, -1, -1):
            label = f"level {level}" if work == works[0] else None
            left.plot(np.arange(20, len(losses) + 1), smooth[:, level], color=f"C{level}", lw=1, label=label)
        points = [(line["step"], line["scores"]["pc"]["miou"]) for line in lines if "scores" in line]
        right.plot(*zip(*points, strict=True), marker="o", label=work.name)
    left.set(xlabel="step", ylabel="cross entropy (mean of 20 steps)", ylim=(0, 2))
    left.legend(ncols=2, fontsize=8)
    right.set(xlabel="step", ylabel="val mIoU, predicted composites", ylim=(0, None))
    right.legend()
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Train, print the table, draw the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    store = arguments.out / "camvid.zarr"
    if not store.exists():
        arguments.out.mkdir(parents=True, exist_ok=True)
        convert(plan_conversion(arguments.camvid), store)
    base = TrainConfig(
        labels=str(store), work_dir="", image_size=(192, 256), steps=arguments.steps,
        eval_every=max(1, arguments.steps // 8), device=choose_device("cpu", 1),
    )  # fmt: skip
    works = [arguments.out / f"seed {seed}" for seed in arguments.seeds]
    results = [
        run(replace(base, seed=seed, work_dir=str(work))) for seed, work in zip(arguments.seeds, works, strict=True)
    ]
    rows = [["scheme", *(f"mIoU seed {seed}" for seed in arguments.seeds), "mean", "pixel accuracy", "level-1 cells %"]]
    for scheme in SCHEMES:
        miou = [scores[scheme]["miou"] for scores in results]
        accuracy = np.mean([scores[scheme]["pixel_accuracy"] for scores in results])
        share = np.mean([scores[scheme]["site_share"]["1"] for scores in results])  # type: ignore[index]
        cells = [f"{value:.1f}" for value in miou]
        rows.append([scheme, *cells, f"{np.mean(miou):.1f}", f"{accuracy:.1f}", f"{share:.1f}"])
    print(align(rows))
    curve(works, arguments.out / "curve.png")
    print(f"{arguments.out / 'curve.png'}")


if __name__ == "__main__":
    main()
