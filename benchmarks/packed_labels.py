"""What packed labels cost a training, beside its steps: python -m benchmarks.packed_labels

Batches of eight on one CPU thread: bytes that go to the training process, time to pack them in a worker and to
unpack them, and that as a share of a training step of the smallest model (qgn_resnet18, width 32, ground-truth
propagation) at 192x256. Masks: CamVid's and Cityscapes' below QUADCODEC_TEST_DATA, else generated street scenes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from qgn.data.batch import LabelBatch
from qgn.losses import QuadtreeLoss
from qgn.models.build import build_model
from quadcodec import LinearQuadtree, resample
from quadcodec.masks import read_mask
from quadcodec.scenes import street_labels
from quadcodec_cli.tables import align

BATCH, SIZE, WIDTH = 8, (192, 256), 32
CLASSES = 34


def step_of(batch: LabelBatch) -> Callable[[], None]:
    """Return a training step on random photos."""
    torch.manual_seed(0)
    model, criterion = build_model("qgn_resnet18", CLASSES, width=WIDTH), QuadtreeLoss()
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randn(len(batch), 3, *SIZE)

    def step() -> None:
        prediction = model(images, replace(batch), "gtc")  # a copy that is still packed
        loss, *_ = criterion(prediction.logits, prediction.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def best(call: Callable[[], object], runs: int = 7) -> float:
    """Return the seconds of the fastest of several calls, after one to warm up."""
    call()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def batches() -> dict[str, list[LinearQuadtree]]:
    """Return trees to put into a batch, by what they are of."""
    folder = os.environ.get("QUADCODEC_TEST_DATA")
    if folder:
        camvid = sorted(Path(folder).glob("camvid/trainannot/*.png"))
        cityscapes = sorted(Path(folder).glob("cityscapes/gtFine/*/*/*_labelIds.png"))
        files = {"camvid": camvid[:: len(camvid) // BATCH][:BATCH], "cityscapes": cityscapes[:BATCH]}
        masks = {name: [read_mask(file) for file in chosen] for name, chosen in files.items()}
    else:
        masks = {"street scenes": [street_labels(0, (512, 1024), k) for k in range(BATCH)]}
    trees = {name: [LinearQuadtree.from_mask(mask) for mask in found] for name, found in masks.items()}
    shrunk = {f"{name}, 192x256": [resample(tree, SIZE) for tree in own] for name, own in trees.items()}
    return shrunk | {f"{name}, own size": own for name, own in trees.items()}


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    rows = [["labels of a batch of 8", "% of the masks' bytes", "pack, ms", "unpack, ms", "unpack, % of a step"]]
    for name, trees in batches().items():
        batch = LabelBatch.from_trees(trees)
        share = 100 * len(batch.data_n) / sum(tree.height * tree.width for tree in trees)
        packing = best(lambda trees=trees: LabelBatch.from_trees(trees))
        unpacking = best(lambda batch=batch: replace(batch).targets_n)
        of_step = ""
        if batch.sizes[0] == SIZE:
            of_step = f"{100 * unpacking / best(step_of(batch), runs=3):.2f}"
        rows.append([name, f"{share:.2f}", f"{1e3 * packing:.2f}", f"{1e3 * unpacking:.2f}", of_step])
    print(align(rows))


if __name__ == "__main__":
    main()
