"""What label trees cost a training beside label PNGs: bytes to the device, time of a step, samples a second.

One thread, CPU time, the shortest of several runs, ours and the rival's in turns. The rival does what training on label
images does: decode the PNG, map ids to classes, resize by nearest neighbour, and reduce 2x2 cells level by level.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from qgn.bench.decoder import Row
from qgn.bench.measure import seconds
from qgn.data.batch import VOID, LabelBatch
from qgn.data.classes import ClassMap, class_map, count_pixels
from qgn.data.dataset import with_photos
from qgn.data.samples import Samples, collate, see_tree
from qgn.data.views import CELL, LEVELS, Size, Views
from qgn.losses import QuadtreeLoss
from qgn.models.build import build_model
from quadcodec.convert import convert, plan_conversion
from quadcodec.pyramid import COMPOSITE
from quadcodec.quadtree import relevel
from quadcodec.scenes import write_scenes
from quadcodec.store import LabelStore, open_store

MODEL, WIDTH = "qgn_resnet18", 32
"""The smallest model that ``qgn-train`` has, at its default width."""
SHORT_EDGES = (768, 896, 1024)
"""Of Cityscapes in the paper's reference code."""
CROP = (512, 1024)
SCENES, SCENE_SIZE = 4, (1024, 2048)
"""What is generated where no store is given."""


@dataclass(frozen=True)
class Report:
    """Hold all that one run measured."""

    store: str
    images: int
    batch_size: int
    size: Size
    milliseconds: dict[str, float]
    """Of a batch, or of an image where it says so."""
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        return asdict(self)


def measure_loader(
    store: LabelStore, *, size: Size, batch_size: int, runs: int, say: Callable[[str], Any], images: Path | None = None
) -> Report:
    """Measure everything on the first images of a store.

    Parameters
    ----------
    size
        (height, width) of the training step.
    batch_size
        Images of a step; a store of fewer gives them more than once.
    runs
        Runs of each figure, of which the shortest counts.
    say
        Told what is being measured.
    images
        Folder of the photos, where it is not the one that the store names.

    Raises
    ------
    TrainingError, FormatError
        The classes are not settled, or a record or photo cannot be read.
    """
    torch.set_num_threads(1)
    indices = tuple(islice(cycle(range(len(store))), batch_size))
    present = count_pixels(store, sorted(set(indices)))
    # Without training classes every id is one: nothing is asked about void here, it costs the same.
    classes = class_map(store, present, None if store.info.train_classes else ())
    resized, native = Views(size=size), Views()
    say(f"labels of {batch_size} images beside their PNGs")
    with tempfile.TemporaryDirectory() as folder:
        pngs = _write_pngs(store, indices, Path(folder))
        times = _turns(
            {
                "labels, read and packed": lambda: _labels(store, indices, classes, resized),
                "labels at own size, read and packed": lambda: [_labels(store, [i], classes, native) for i in indices],
                "PNG + dense pyramid": lambda: dense_labels(pngs, classes, size),
                "PNG + dense pyramid at own size": lambda: [dense_labels([png], classes, None) for png in pngs],
            },
            runs,
        )
    labels, own = _labels(store, indices, classes, resized), [_labels(store, [i], classes, native) for i in indices]
    say(f"a step of {MODEL}, width {WIDTH}, at {size[0]}x{size[1]}")
    step = _training_step(labels, len(classes))
    step()
    times |= _turns({"labels, unpacked": lambda: _targets(labels), "training step": step}, max(2, runs // 2))
    say("random scale")
    times |= _scale_times(store, sorted(set(indices)), classes, runs)
    root = images if images is not None else Path(store.info.image_root)
    say("samples")
    times |= _sample_times(store, with_photos(store, sorted(set(indices)), root), root, classes, runs)
    own_bytes = sum(len(batch.data_n) for batch in own) / sum(h * w for batch in own for h, w in batch.sizes)
    report = Report(
        str(store.path), len(set(indices)), batch_size, size, {name: 1e3 * value for name, value in times.items()}, ()
    )
    share = len(labels.data_n) / (batch_size * size[0] * size[1])
    return replace(report, rows=tuple(_rows(report, 100 * own_bytes, 100 * share)))


@contextmanager
def generated_store() -> Iterator[LabelStore]:
    """Give a store of generated street scenes with their photos, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "cityscapes"
        write_scenes(source, SCENES, SCENE_SIZE, 0, val_count=0)
        convert(plan_conversion(source), Path(folder) / "scenes.zarr")
        yield open_store(Path(folder) / "scenes.zarr")


def dense_pyramid(mask: NDArray[np.uint8], levels: int = LEVELS) -> list[NDArray[np.int16]]:
    """Return T_0 .. T_(levels-1) of a mask (H, W), sides multiples of 2**(levels-1), by numpy.

    The least and the greatest class of each 2x2 patch, level by level; where they differ the cell is COMPOSITE.
    """
    low = high = mask
    pyramid = [mask.astype(np.int16)]
    for _ in range(levels - 1):
        low = np.minimum(np.minimum(low[::2, ::2], low[::2, 1::2]), np.minimum(low[1::2, ::2], low[1::2, 1::2]))
        high = np.maximum(np.maximum(high[::2, ::2], high[::2, 1::2]), np.maximum(high[1::2, ::2], high[1::2, 1::2]))
        pyramid.append(np.where(low == high, low.astype(np.int16), np.int16(COMPOSITE)))
    return pyramid


def dense_labels(pngs: Sequence[Path], classes: ClassMap, size: Size | None) -> list[NDArray[np.int16]]:
    """Return the dense levels of label PNGs, (B, H, W) each, as training on label images makes them.

    Ids become classes by a table, masks are resized by nearest neighbour and padded with VOID to whole cells.
    """
    table = np.full(1 << 16, VOID, np.uint8)
    for raw, k in classes.table.items():
        table[raw] = k
    pyramids = []
    for png in pngs:
        with Image.open(png) as image:
            resized = image if size is None else image.resize((size[1], size[0]), Image.Resampling.NEAREST)
            mask = table[np.asarray(resized)]
        pyramids.append(dense_pyramid(np.pad(mask, [(0, -side % CELL) for side in mask.shape], constant_values=VOID)))
    return [np.stack(level) for level in zip(*pyramids, strict=True)]


def _labels(store: LabelStore, indices: Sequence[int], classes: ClassMap, views: Views) -> LabelBatch:
    """Return the packed labels of images as a worker makes them."""
    rng = np.random.default_rng(0)
    trees = []
    for index in indices:
        tree = relevel(store.quadtree(index).remap(classes.table), LEVELS)
        trees.append(see_tree(tree, views.draw((tree.height, tree.width), rng)))
    return LabelBatch.from_trees(trees)


def _targets(labels: LabelBatch) -> torch.Tensor:
    """Unpack labels that are still packed: a copy, since a batch keeps what it has unpacked."""
    return replace(labels).targets_n


def _write_pngs(store: LabelStore, indices: Sequence[int], folder: Path) -> list[Path]:
    for index in set(indices):
        Image.fromarray(store[index]).save(folder / f"{index}.png")
    return [folder / f"{index}.png" for index in indices]


def _turns(calls: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Return the shortest of several runs of each call, in turns, after one of each to warm up."""
    best = {name: seconds(call, 1) for name, call in calls.items()}
    for _ in range(runs):
        best = {name: min(best[name], seconds(call, 1)) for name, call in calls.items()}
    return best


def _training_step(labels: LabelBatch, num_classes: int) -> Callable[[], None]:
    """Return a training step on random photos."""
    torch.manual_seed(0)
    model, criterion = build_model(MODEL, num_classes, width=WIDTH), QuadtreeLoss()
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randn(len(labels), 3, labels.grid[1] * CELL, labels.grid[2] * CELL)

    def step() -> None:
        prediction = model(images, replace(labels), "gtc")
        loss = criterion(prediction.logits, prediction.targets).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _scale_times(store: LabelStore, indices: Sequence[int], classes: ClassMap, runs: int) -> dict[str, float]:
    """Return the mean seconds of bringing a tree to each of the paper's sizes, mirrored, and to a window of it."""
    trees = [relevel(store.quadtree(index).remap(classes.table), LEVELS) for index in indices]
    times = {}
    for edge in SHORT_EDGES:
        for crop in (None, CROP):
            views = Views(short_edges=(edge,), crop=crop)

            def scale(views: Views = views) -> None:
                for i, tree in enumerate(trees):
                    view = views.draw((tree.height, tree.width), np.random.default_rng(i))
                    see_tree(tree, replace(view, mirrored=True))

            name = f"short edge {edge}" + (f", window {crop[0]}x{crop[1]}" if crop else "")
            times[f"{name}, an image"] = min(_turns({"": scale}, runs).values()) / len(trees)
    return times


def _sample_times(
    store: LabelStore, indices: Sequence[int], root: Path, classes: ClassMap, runs: int
) -> dict[str, float]:
    """Return the mean seconds of a whole augmented sample, put into a batch, and of its labels alone."""
    if not indices:
        return {}
    views = Views(short_edges=SHORT_EDGES, flip=True)
    samples = Samples(store, root, classes, views)
    calls = {
        "a sample": lambda: [collate([samples[index, index]]) for index in indices],
        "its labels": lambda: [_labels(store, [index], classes, views) for index in indices],
    }
    return {name: value / len(indices) for name, value in _turns(calls, max(1, runs // 2)).items()}


def _rows(report: Report, own_bytes: float, resized_bytes: float) -> Iterator[Row]:
    """Yield the figures beside their targets; shares in percent."""
    ms = report.milliseconds
    at = "x".join(map(str, report.size))
    labels = ms["labels, read and packed"] + ms["labels, unpacked"]

    def at_most(metric: str, value: float, target: float, unit: str) -> Row:
        return Row(metric, value, unit, f"<= {target:g}", value <= target)

    def told(metric: str, value: float | None, unit: str) -> Row:
        return Row(metric, value, unit, "-", None)

    def faster(metric: str, theirs: float, ours: float) -> Row:
        return Row(metric, theirs / ours, "x", "> 1", theirs > ours)

    yield at_most("label bytes to the device, of the uint8 masks at their own size", own_bytes, 2, "%")
    yield told(f"the same at {at}", resized_bytes, "%")
    yield at_most(f"label time, of a training step at {at}", 100 * labels / ms["training step"], 5, "%")
    yield told("the same of PNG + dense pyramid", 100 * ms["PNG + dense pyramid"] / ms["training step"], "%")
    yield faster(f"label speed against PNG + dense pyramid, at {at}", ms["PNG + dense pyramid"], labels)
    yield faster(
        "the same at their own size, before they are unpacked",
        ms["PNG + dense pyramid at own size"], ms["labels at own size, read and packed"],
    )  # fmt: skip
    scaled = {name: value for name, value in ms.items() if name.startswith("short edge")}
    yield at_most("random scale and flip of a tree, slowest size", max(scaled.values()), 8, "ms")
    windows = [value for name, value in scaled.items() if "window" in name]
    yield told("the same in a window of {}x{}, slowest size".format(*CROP), max(windows), "ms")
    photos = "a sample" in ms
    a_second = 1e3 / ms["a sample"] if photos else None
    yield told("samples a second of one worker, photos and augmentation too", a_second, "1/s")
    yield told("labels in a sample's time", 100 * ms["its labels"] / ms["a sample"] if photos else None, "%")
