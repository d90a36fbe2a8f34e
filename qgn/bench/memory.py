"""Memory and multiply-adds beside the paper's Tables 2 and 6, counted on meta tensors: no GPU, no data set.

Three definitions of memory stand side by side. 'Kept for backward' is exact, and what a training must hold. The
paper gives no definition; `memory_paper` fits one to its figures. The third, where there is a GPU, is what CUDA
allocated at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qgn.bench.cost import BATCH, GIB, AsWithData, kept_bytes, multiply_adds, outline, with_loss
from qgn.bench.memory_paper import paper_bytes
from qgn.bench.memory_peak import peak_bytes
from qgn.bench.published import DECODER_PARAMETERS, TABLE_2, TABLE_6, DataSet, Method
from qgn.bench.trees import EVERY_CELL, drawn_tree, published_shares, store_shares
from qgn.data.classes import count_pixels
from qgn.models.build import build_model
from qgn.models.segmenter import STRIDE, Segmenter
from quadcodec.store import LabelStore

KEPT, PAPER, PEAK, COUNTED = "kept for backward", "the paper's, fitted", "peak on CUDA", "counted"
COLUMNS = {"Dil": "dilated8_resnet", "All": "qgn_resnet", "GTC": "qgn_resnet"}
"""The models of Table 6's columns, less their depth."""
DEPTHS = (50, 101)
ENCODER, DECODER, MACS = 0.01, 0.05, 0.06
"""Shares by which ours may differ from the paper's figure and still agree; for a whole network those of its parts."""
HALF = 0.005
"""Half a unit of the paper's last digit."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """Hold one figure beside the paper's.

    Attributes
    ----------
    table, dataset, architecture, quantity
        Where it stands. Memory is in GiB, multiply-adds are in 10^12.
    paper
        None where the paper has no such figure.
    ours, definition
        What was counted, and as what.
    agrees
        Whether the two agree within the tolerance and the paper's rounding. None where they are not of one kind.
    """

    table: str
    dataset: str
    architecture: str
    quantity: str
    paper: float | None
    ours: float
    definition: str
    agrees: bool | None


@dataclass(frozen=True)
class Fit:
    """Hold how many images of a data set fit into a memory, beside the weights, their gradients and momenta;
    by the paper's definition beside the weights alone."""

    dataset: str
    size: Size
    architecture: str
    definition: str
    frames: int


@dataclass(frozen=True)
class Report:
    """Hold all rows, what fits, and where the sites were taken from."""

    rows: tuple[Row, ...]
    fits: tuple[Fit, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """Hold the bytes of an image by definition: kept for backward, and the paper's. They add up over a network."""

    kept: float
    paper: float

    def __add__(self, other: Part) -> Part:
        return Part(self.kept + other.kept, self.paper + other.paper)


def measure_memory(
    size: tuple[int, int] | None, store: LabelStore | None, budget: float | None, say: Callable[[str], Any]
) -> Report:
    """Count everything.

    Parameters
    ----------
    size
        (H, W) for the rows of Cityscapes, and for a store that the paper has no figures of. None for the paper's
        1024x2048, and for the median size of the store's images.
    store
        Label trees to take the numbers of sites from; the others come of Table 5.
    budget
        Bytes to say of how many images fit into them.
    say
        Told what is being counted.

    Raises
    ------
    TrainingError
        The store's trees are not those of a decoder.
    """
    rows: list[Row] = []
    fits: list[Fit] = []
    notes = []
    for data in _data_sets(size, store):
        own = store is not None and store.info.dataset == data.name
        shares = store_shares(store) if own else published_shares(data.name, data.shares_of)
        cells = ", ".join(f"{share:.2f}" for share in shares)
        source = store.path if own else f"Table 5, {data.shares_of}"
        notes.append(f"{data.name}: composite cells of levels 5 to 1, {cells} % ({source})")
        say(f"Table 6, {data.name}")
        rows += table_6(data, shares)
        if data.name == TABLE_6[0].name:
            say("Table 2")
            rows += [row for method in TABLE_2 for row in table_2(method, data, shares)]
            rows.append(decoder_parameters(data.num_classes))
        if budget is not None and data.name == (TABLE_6[0].name if store is None else store.info.dataset):
            fits = list(fitting(rows, data, budget))
    memories = {row.definition: set[str]() for row in rows}
    for row in rows:
        if row.quantity == "memory":
            memories[row.definition].add(f"{row.architecture} ({row.dataset})")
    if torch.cuda.is_available() and memories[KEPT] - memories.get(PEAK, set()):
        lacking = ", ".join(sorted(memories[KEPT] - memories.get(PEAK, set())))
        notes.append(f"No peak, since this GPU has too little memory for a batch of {BATCH}: {lacking}")
    return Report(tuple(rows), tuple(fits), tuple(notes))


def _data_sets(size: Size | None, store: LabelStore | None) -> Iterator[DataSet]:
    """Yield the data sets of Table 6, and that of a store which is none of them."""
    none = {"decoder": (None,) * 3, "resnet50": (None,) * 3, "resnet101": (None,) * 3}
    first = TABLE_6[0]
    yield first if size in (None, first.size) else replace(first, size=size, **none)
    yield from TABLE_6[1:]
    if store is not None and store.info.dataset not in [data.name for data in TABLE_6]:
        middle = store.sizes[np.argsort(store.sizes.prod(1), kind="stable")[len(store) // 2]]
        yield DataSet(store.info.dataset, size or (int(middle[0]), int(middle[1])), _num_classes(store), **none)


def _num_classes(store: LabelStore) -> int:
    """Return the number of training classes, or, where nothing names any, of the ids that occur and are not void."""
    named = len(store.info.train_classes) or len(store.classes)
    return named or len(count_pixels(store, range(len(store))).keys() - set(store.info.void)) or 1


def table_6(data: DataSet, shares: Sequence[float]) -> Iterator[Row]:
    """Yield the rows of a data set: decoders, encoders, whole networks.

    Parameters
    ----------
    shares
        Composite cells of levels 5 to 1, percent.
    """
    cells = {"Dil": None, "All": EVERY_CELL, "GTC": tuple(shares)}
    papers = zip(data.decoder, data.resnet50, data.resnet101, strict=True)
    for (column, model), (part, *wholes) in zip(COLUMNS.items(), papers, strict=True):
        decoder = count_decoder(f"{model}50", data.num_classes, data.size, cells[column])
        yield from _memory("6", data, column, "decoder", part, decoder, DECODER * (part or 0) + HALF)
        for depth, whole in zip(DEPTHS, wholes, strict=True):
            name, architecture = f"{model}{depth}", f"R{depth}-{column}"
            encoder = count_encoder(name, data.size)
            rest = None if whole is None else whole - part
            yield from _memory("6", data, architecture, "encoder", rest, encoder, ENCODER * (rest or 0) + 2 * HALF)
            slack = (ENCODER * encoder.paper + DECODER * decoder.paper) / GIB + HALF
            yield from _memory("6", data, architecture, "memory", whole, encoder + decoder, slack)
            yield from _peak("6", data, architecture, whole, name, cells[column])


def table_2(method: Method, data: DataSet, shares: Sequence[float]) -> Iterator[Row]:
    """Yield the rows of a method: memory and multiply-adds, on images of Cityscapes.

    Parameters
    ----------
    shares
        Composite cells of levels 5 to 1, percent.
    """
    known = data in TABLE_6
    cells = {"dense": None, "all": EVERY_CELL, "gtc": tuple(shares)}[method.scheme]
    encoder = count_encoder(method.model, data.size)
    decoder = count_decoder(method.model, data.num_classes, data.size, cells)
    slack = (ENCODER * encoder.paper + DECODER * decoder.paper) / GIB + HALF
    memory = method.memory if known else None
    yield from _memory("2", data, method.name, "memory", memory, encoder + decoder, slack)
    yield from _peak("2", data, method.name, memory, method.model, cells)
    model, size = _model(method.model, data.num_classes).eval(), padded(data.size)
    trees = () if cells is None else (drawn_tree(size, cells), "gtc")
    macs = multiply_adds(lambda: model(torch.empty(1, 3, *size, device="meta"), *trees)) / 1e12
    paper = method.macs if known else None
    agrees = None if paper is None else abs(macs - paper) <= MACS * paper + HALF
    yield Row("2", data.name, method.name, "multiply-adds", paper, macs, COUNTED, agrees)


def decoder_parameters(num_classes: int) -> Row:
    """Return the row of what the decoder's parameters take over those of a 1x1 convolution."""
    sparse, linear = (_model(f"{COLUMNS[key]}50", num_classes).decoder for key in ("All", "Dil"))
    ours = 4 * (_parameters(sparse) - _parameters(linear)) / GIB
    agrees = abs(ours - DECODER_PARAMETERS) <= DECODER * DECODER_PARAMETERS + HALF
    return Row("4.4", TABLE_6[0].name, "decoder", "parameters", DECODER_PARAMETERS, ours, COUNTED, agrees)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def padded(size: Size) -> Size:
    """Return the next multiples of 32."""
    return (-(-size[0] // STRIDE) * STRIDE, -(-size[1] // STRIDE) * STRIDE)


@cache
def _model(name: str, num_classes: int) -> Segmenter:
    """Return the outline of a model; to build it takes longer than to run it."""
    return outline(name, num_classes)


@cache
def count_encoder(name: str, size: Size) -> Part:
    """Return the bytes that the encoder of a model takes for an image of (H, W) pixels."""
    encoder, images = _model(name, TABLE_6[0].num_classes).encoder, torch.empty(1, 3, *padded(size), device="meta")
    return _part(encoder, [images], lambda: encoder(images), lambda features: features, size)


@cache
def count_decoder(name: str, num_classes: int, size: Size, cells: tuple[float, ...] | None) -> Part:
    """Return the bytes that the decoder of a model takes for an image of (H, W) pixels, the loss included.

    Parameters
    ----------
    cells
        Composite cells of levels 5 to 1, percent, that a sparse decoder carries on; None for a dense one.
    """
    model, canvas = _model(name, num_classes), padded(size)
    batch = BATCH if cells is None else 1
    with torch.no_grad(), AsWithData():
        features = model.encoder(torch.empty(batch, 3, *canvas, device="meta"))
    features = [maps.requires_grad_() for maps in features]
    trees = () if cells is None else (drawn_tree(canvas, cells), "gtc")
    return _part(model.decoder, features, lambda: model.decoder(features, *trees), with_loss, size)


def _part(
    module: nn.Module, inputs: Sequence[Tensor], forward: Callable[[], Any], loss: Callable[[Any], Any], size: Size
) -> Part:
    """Return the bytes of an image; by the paper's definition, which knows no padding, in proportion to its pixels."""
    batch = len(inputs[0])
    kept = kept_bytes(module.train(), inputs, lambda: loss(forward()))
    paper = paper_bytes(module.eval(), forward)
    return Part(kept / batch, paper / batch * prod(size) / prod(padded(size)))


def _memory(
    table: str, data: DataSet, architecture: str, quantity: str, paper: float | None, ours: Part, slack: float
) -> Iterator[Row]:
    """Yield the rows of a memory by both definitions; the paper's figure is only held against its own."""
    fitted = ours.paper / GIB
    agrees = None if paper is None else abs(fitted - paper) <= slack
    yield Row(table, data.name, architecture, quantity, paper, fitted, PAPER, agrees)
    yield Row(table, data.name, architecture, quantity, paper, ours.kept / GIB, KEPT, None)


def _peak(
    table: str, data: DataSet, architecture: str, paper: float | None, name: str, cells: tuple[float, ...] | None
) -> Iterator[Row]:
    """Yield the row of what is really allocated, where there is a GPU that has so much."""
    if torch.cuda.is_available():
        labels = drawn_tree(padded(data.size), cells or EVERY_CELL, BATCH)
        try:
            ours = peak_bytes(build_model(name, data.num_classes).cuda(), labels) / GIB
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return
        yield Row(table, data.name, architecture, "memory", paper, ours, PEAK, None)


def fitting(rows: Sequence[Row], data: DataSet, budget: float) -> Iterator[Fit]:
    """Yield how many images of a data set fit into a number of bytes."""
    models = {f"R{depth}-{column}": f"{model}{depth}" for column, model in COLUMNS.items() for depth in DEPTHS}
    models |= {method.name: method.model for method in TABLE_2 if method.scheme == "dense"}
    memories = [row for row in rows if row.quantity == "memory" and row.dataset == data.name]
    ours = {(row.architecture, row.definition): row.ours for row in memories}
    for architecture, model in models.items():
        if (architecture, KEPT) not in ours:  # Table 2 is of Cityscapes alone
            continue
        weights = 4 * _parameters(_model(model, data.num_classes))
        for definition, times in ((KEPT, 3), (PAPER, 1)):
            image = GIB * ours[architecture, definition]
            yield Fit(data.name, data.size, architecture, definition, max(0, int((budget - times * weights) // image)))
