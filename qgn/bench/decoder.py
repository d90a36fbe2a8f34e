"""What the sparse decoder costs beside a dense one and one by spconv, measured in one run.

Width, levels and units are those of Table 7; one thread, seconds of CPU time; the features are random, the tree is a
street's. Gradients of the encoder's features are part of every backward pass. The sparse decoders run before and after
the dense ones, so that a busy minute of the machine does not fall on one side alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qgn.bench.dense import DenseDecoder
from qgn.bench.measure import Cost, both_seconds, forward_seconds, saved_bytes, seconds
from qgn.bench.trees import clustered, composite_shares, descend, mask_tree, scattered, street_tree
from qgn.data.batch import LabelBatch
from qgn.models.decoder import CHANNELS, LEVELS, UNITS, Block, Decoder
from qgn.models.prediction import QuadtreePrediction
from qgn.sparse import kernels
from qgn.sparse.sites import Sites

ENCODER = (128, 256, 512, 1024, 2048)
"""Channels of a ResNet-50's features at strides 2 to 32."""
CLASSES = 19
WIDTH = 64
FORMATS = {"channels last": torch.channels_last, "NCHW": torch.contiguous_format}
SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
"""Composite cells of level 1, as shares of all its cells."""


@dataclass(frozen=True)
class Row:
    """Hold one figure and its target; value is None where it cannot be measured here, holds also without a target."""

    metric: str
    value: float | None
    unit: str
    target: str
    holds: bool | None


@dataclass(frozen=True)
class Point:
    """Hold the seconds of the level-1 block, forward, on a share of its cells."""

    share: float
    sites: int
    seconds: float


@dataclass(frozen=True)
class Report:
    """Hold all that one run measured."""

    tree: str
    shares: tuple[float, ...]
    costs: dict[str, Cost]
    recomputed_bytes: dict[str, int]
    structure_bytes: int
    table_s: dict[str, float]
    curves: dict[str, tuple[Point, ...]]
    dense_block_s: float
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        return asdict(self)


def measure_decoder(mask: np.ndarray | None, size: tuple[int, int], runs: int, say: Callable[[str], Any]) -> Report:
    """Measure everything.

    Parameters
    ----------
    mask
        (H, W) labels to take the tree of; without it, that of a generated street scene.
    size
        (H, W) of the generated scene, multiples of 32.
    runs
        Runs of each sparse figure, of which the shortest counts.
    say
        Told what is being measured.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tree, labels = "given mask", None if mask is None else mask_tree(mask)
    if labels is None:
        index, labels = street_tree(size)
        tree = f"generated street scene {index}"
    costs, recomputed, prediction = _sparse(labels, runs, say)
    for name, memory_format in FORMATS.items():
        say(f"All dense, {name}")
        costs[f"All dense, {name}"], recomputed["dense"] = _dense(labels, memory_format)
    again, _, _ = _sparse(labels, runs, say)
    costs |= {name: costs[name].faster(cost) for name, cost in again.items()}
    sites = [level.sites for level in reversed(prediction.levels) if level.sites is not None]
    tables = _table_seconds(sites, with_spconv="spconv" in costs)
    say("cost against composite cells")
    shape = tuple(side * 2 ** (LEVELS - 2) for side in labels.grid[1:])
    block = Block(WIDTH, WIDTH, UNITS[-1])
    curves = {
        name: tuple(_point(block, draw(shape, share), share, runs) for share in SHARES)
        for name, draw in (("clustered", clustered), ("random", scattered))
    }
    dense_block = DenseDecoder(ENCODER, CLASSES, width=WIDTH).blocks[-1].to(memory_format=torch.channels_last)
    maps = torch.randn(1, WIDTH, *shape).contiguous(memory_format=torch.channels_last)
    dense_s = forward_seconds(lambda: dense_block(maps), 2)
    structure = structure_bytes(prediction)
    report = Report(tree, composite_shares(labels), costs, recomputed, structure, tables, curves, dense_s, ())
    return replace(report, rows=tuple(_rows(report)))


def random_features(labels: LabelBatch, memory_format: torch.memory_format) -> list[Tensor]:
    """Return features as an encoder would give them, that want gradients."""
    batch, rows, cols = labels.grid
    return [
        torch.randn(batch, channels, rows * scale, cols * scale)
        .contiguous(memory_format=memory_format)
        .requires_grad_()
        for channels, scale in zip(ENCODER, (16, 8, 4, 2, 1), strict=True)
    ]


def macs(cells: Sequence[int], nodes: Sequence[int], pairs: Sequence[int]) -> int:
    """Return the multiply-adds of a forward pass.

    Parameters
    ----------
    cells
        Cells of levels 5 to 1 that go through their block.
    nodes
        Cells of levels 5 to 1 that take a skip connection and, below level 5, a prediction; of level 5 all predict.
    pairs
        Cells and neighbours that a 3x3 convolution multiplies, itself included, of levels 5 to 1.
    """
    total = 0
    for i, (c_in, c_out) in enumerate(pairwise(WIDTH * times for times in CHANNELS)):
        total += pairs[i] * ((2 * UNITS[i] - 1) * c_in * c_in + c_in * c_out)
        total += nodes[i] * ENCODER[LEVELS - 2 - i] * c_in
        total += cells[i] * c_in * c_out * (c_in != c_out)
        total += nodes[i] * (ENCODER[-1] if i == 0 else c_in) * (CLASSES + 1)
    return total + cells[-1] * 4 * CHANNELS[-1] * WIDTH * (CLASSES + 1)


def sparse_macs(prediction: QuadtreePrediction) -> int:
    """Return the multiply-adds of a sparse forward pass."""
    sites = [level.sites for level in reversed(prediction.levels) if level.sites is not None]
    cells = [len(own) for own in sites]
    nodes = [cells[0], *(4 * count for count in cells[:-1])]
    return macs(cells, nodes, [int((own.nbr_9m >= 0).sum()) for own in sites])


@dataclass(frozen=True)
class _Runner:
    """Hold a sparse decoder, how it is run, and what a run saves."""

    decoder: nn.Module
    features: Sequence[Tensor]
    forward: Callable[[], list[Tensor]]
    saved_bytes: int
    context: Callable[[], AbstractContextManager[None]] = nullcontext

    def cost(self, macs: int) -> Cost:
        """Return the cost, timed once."""
        with self.context():
            forward_s = forward_seconds(self.forward, 1)
            both_s = both_seconds(self.decoder, self.features, self.forward, 1)
        return Cost(forward_s, both_s, self.saved_bytes, macs)


def _sparse(
    labels: LabelBatch, runs: int, say: Callable[[str], Any]
) -> tuple[dict[str, Cost], dict[str, int], QuadtreePrediction]:
    """Return the sparse decoders' costs, the bytes saved with recomputing, and a prediction.

    The decoders take turns, so that what else the machine does falls on all alike.
    """
    features = random_features(labels, torch.channels_last)
    decoder = Decoder(ENCODER, CLASSES, width=WIDTH)
    runners = {"native": _native(decoder, features, labels)}
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        half = [maps.detach().to(torch.bfloat16).requires_grad_() for maps in features]
        runners["native, bfloat16"] = _native(decoder, half, labels)
    spconv = _spconv(features, labels)
    runners |= {} if spconv is None else {"spconv": spconv}
    say(f"{', '.join(runners)} in turn")
    with torch.no_grad():
        prediction = decoder(features, labels, "gtc")
    macs = sparse_macs(prediction)
    costs = {name: runner.cost(macs) for name, runner in runners.items()}
    for _ in range(runs - 1):
        costs = {name: costs[name].faster(runner.cost(macs)) for name, runner in runners.items()}
    decoder.recompute = True
    recomputed = saved_bytes(decoder, features, lambda: decoder(features, labels, "gtc"))
    return costs, {"native": recomputed}, prediction


def _native(decoder: Decoder, features: Sequence[Tensor], labels: LabelBatch) -> _Runner:
    """Return the decoder with ground-truth propagation, in the features' type."""

    def forward() -> list[Tensor]:
        dtype = features[0].dtype
        with torch.autocast("cpu", dtype) if dtype == torch.bfloat16 else nullcontext():
            return list(decoder(features, labels, "gtc").logits)

    return _Runner(decoder, features, forward, saved_bytes(decoder, features, forward))


def structure_bytes(prediction: QuadtreePrediction) -> int:
    """Return the bytes of nodes, sites and their tables: integers, kept beside the activations."""
    tensors: list[Tensor] = []
    for level in prediction.levels:
        tensors += [level.nodes.cell_n]
        if level.sites is not None:
            tensors += [level.sites.cell_m, level.sites.node_m, level.sites.nbr_9m]
            tensors += [index for pair in level.sites.pairs for index in pair]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def _table_seconds(sites: Sequence[Sites], *, with_spconv: bool) -> dict[str, float]:
    """Return the seconds of all levels' neighbour tables and pair lists, ours and spconv's in turn."""
    tables: list[Any] = []

    def native() -> None:
        tables.clear()
        for own, active_n in zip(sites, actives, strict=True):
            made = kernels.child_sites(active_n, tables[-1]) if tables else kernels.grid_sites(active_n, *own.shape[1:])
            tables.append(made[1])
            kernels.pair_lists(made[1])

    ways: dict[str, Callable[[], Any]] = {"native": native}
    if with_spconv:
        from qgn.sparse.spconv_adapter import indice_pairs

        ways["spconv"] = lambda: [indice_pairs(own) for own in sites]
    counts = [int(np.prod(sites[0].shape)), *(4 * len(parents) for parents in sites[:-1])]
    actives = [np.zeros(count, bool) for count in counts]
    for own, active_n in zip(sites, actives, strict=True):
        active_n[own.node_m.numpy()] = True
    found = {name: float("inf") for name in ways}
    for _ in range(50):
        found = {name: min(found[name], seconds(way, 5)) for name, way in ways.items()}
    return found


def _spconv(features: Sequence[Tensor], labels: LabelBatch) -> _Runner | None:
    """Return the decoder by spconv; None where its CPU build is missing."""
    try:
        from qgn.bench.spconv_decoder import SpconvDecoder
    except ModuleNotFoundError as error:
        if error.name != "spconv":
            raise
        return None
    from qgn.sparse.spconv_adapter import cpu_backward

    decoder = SpconvDecoder(ENCODER, CLASSES, width=WIDTH)

    def forward() -> list[Tensor]:
        return decoder(features, labels)

    return _Runner(decoder, features, forward, saved_bytes(decoder, features, forward), cpu_backward)


def _dense(labels: LabelBatch, memory_format: torch.memory_format) -> tuple[Cost, int]:
    """Return the cost of the dense decoder, and the bytes saved with recomputing."""
    features = random_features(labels, memory_format)
    decoder = DenseDecoder(ENCODER, CLASSES, width=WIDTH).to(memory_format=memory_format)
    batch, rows, cols = labels.grid
    cells = [batch * rows * cols * 4**depth for depth in range(LEVELS - 1)]
    saved = 0

    def forward() -> list[Tensor]:
        return decoder(features)

    def counted() -> list[Tensor]:
        nonlocal saved
        logits: list[Tensor] = []
        saved = saved_bytes(decoder, features, lambda: logits.extend(forward()))
        return logits

    # One run each: it takes half a minute, and the first pass has warmed up what there is to warm.
    forward_s = forward_seconds(forward, 2)
    both_s = both_seconds(decoder, features, counted, 1)
    decoder.recompute = True
    recomputed = saved_bytes(decoder, features, forward)
    return Cost(forward_s, both_s, saved, macs(cells, cells, [9 * count for count in cells])), recomputed


def _point(block: nn.Module, mask: np.ndarray, share: float, runs: int) -> Point:
    sites = descend(mask)
    x_mc = torch.randn(len(sites), WIDTH)
    return Point(share, len(sites), forward_seconds(lambda: block(x_mc, sites), runs))


def linearity(points: Sequence[Point]) -> float:
    """Return R² of seconds as a straight line in sites."""
    x, y = np.array([[point.sites, point.seconds] for point in points]).T
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def _rows(report: Report) -> list[Row]:
    """Return the figures beside their targets."""
    native = report.costs["native"]
    dense = [cost for name, cost in report.costs.items() if "dense" in name]
    spconv, bf16 = report.costs.get("spconv"), report.costs.get("native, bfloat16")

    def at_least(metric: str, value: float | None, target: float, unit: str = "x") -> Row:
        return Row(metric, value, unit, f">= {target:g}", None if value is None else value >= target)

    # spconv's pairs are among what its layers save; ours are counted to match.
    kept = native.saved_bytes + report.structure_bytes
    less = None if spconv is None else kept / spconv.saved_bytes
    recomputed = report.recomputed_bytes
    return [
        at_least("GTC forward against All dense", min(c.forward_s for c in dense) / native.forward_s, 12),
        at_least("GTC forward + backward against All dense", min(c.both_s for c in dense) / native.both_s, 15),
        at_least("forward + backward against spconv CPU", spconv and spconv.both_s / native.both_s, 1.2),
        Row("saved activations against spconv CPU", less, "x", "<= 0.67", None if less is None else less <= 0.67),
        at_least("saved activations, All over GTC", min(c.saved_bytes for c in dense) / native.saved_bytes, 13),
        at_least("the same, recomputed on both sides", recomputed["dense"] / recomputed["native"], 25),
        at_least(
            "neighbour tables against spconv's pair generation",
            report.table_s["spconv"] / report.table_s["native"] if "spconv" in report.table_s else None, 10,
        ),
        at_least("cost against active sites is linear, clustered", linearity(report.curves["clustered"]), 0.98, "R²"),
        at_least("bfloat16 against float32", bf16 and native.both_s / bf16.both_s, 1.8),
    ]  # fmt: skip
