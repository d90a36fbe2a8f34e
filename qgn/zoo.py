"""The models by name with their costs, and checkpoints for others: a file of weights and a model card."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from qgn.bench.cost import BATCH, cost, outline
from qgn.bench.trees import drawn_tree, published_shares
from qgn.checkpoint import Checkpoint, checkpoint_bytes, load_checkpoint, write_checkpoint
from qgn.config import FREE
from qgn.data.classes import ClassMap
from qgn.errors import CheckpointError, TrainingError
from qgn.models.build import MODEL_NAMES
from qgn.sparse.propagation import without_labels
from quadcodec.files import write_atomic

SIZE = (1024, 2048)
NUM_CLASSES = 19
"""Size and classes of Cityscapes, for which costs are listed."""
SCORES = {
    "miou": "mIoU, %", "pixel_accuracy": "pixel accuracy, %", "mean_accuracy": "mean accuracy, %",
    "boundary_miou": "boundary mIoU, %", "share": "cells computed, %",
}  # fmt: skip
"""Overall scores that a card shows."""
USE = """```python
import qgn

predictor = qgn.load("{file}")
classes = predictor(photo).classes  # (H, W, 3) uint8 -> (H, W) uint8
```"""


@dataclass(frozen=True)
class ListedModel:
    """Hold what one image of SIZE costs with a model and a scheme.

    Attributes
    ----------
    name : as `build_model` knows it.
    scheme : `gtc` with as many composite cells as Cityscapes val has (Table 5), `all`, or `dense`.
    parameters, macs, kept_bytes : as `qgn.bench.cost.ModelCost`.
    """

    name: str
    scheme: str
    parameters: int
    macs: int
    kept_bytes: int


def list_models() -> Iterator[ListedModel]:
    """Yield every model, at width 64, with its schemes; counted on meta tensors, without a GPU or data."""
    trees = {"gtc": drawn_tree(SIZE, published_shares("cityscapes"), BATCH), "all": None, "dense": None}
    for name in MODEL_NAMES:
        model = outline(name, NUM_CLASSES)
        for scheme in [scheme for scheme in model.schemes if scheme in trees]:
            counted = cost(model, SIZE, trees[scheme])
            yield ListedModel(name, scheme, counted.parameters, counted.macs, counted.kept_bytes)


def export_checkpoint(
    checkpoint: str | Path, out: str | Path, *, propagation: str | None = None, overwrite: bool = False
) -> Path:
    """Write a checkpoint's weights and description without what belongs to the run, and a model card beside them.

    Parameters
    ----------
    out : the new file, for which `qgn.load` and the commands take it; the card has the same name, ending in .md.
    propagation : text of the `Propagation` that the file is to be used with where nothing is said, such as a threshold
        that `qgn.sweep.choose_threshold` chose; by default the checkpoint's own.
    overwrite : replace both if they exist.

    Returns
    -------
    The card's path.

    Raises
    ------
    CheckpointError : the checkpoint cannot be read, or a file not be written.
    TrainingError : a file exists already, ``out`` does not end in .safetensors, or the model does not know the
        propagation, or needs labels for it.
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise TrainingError(f"{out}: found a name ending in {out.suffix!r}, expected .safetensors. Choose such a name")
    card = out.with_suffix(".md")
    for path in (out, card):
        if path.exists() and not overwrite:
            raise TrainingError(f"{path}: exists already. Choose another place, or replace it with --overwrite")
    described, model = load_checkpoint(checkpoint)
    settings = {name: value for name, value in described.config.items() if name not in FREE}
    settings |= {name: Path(path).name for name, path in described.config.items() if name == "weights" and path}
    if settings.get("dataset") in (None, "folder", "arrays"):  # which have no name but the store's
        settings["dataset"] = Path(described.config.get("labels", "unknown")).name
    if propagation is not None:
        described = replace(described, propagation=without_labels(propagation, model.schemes))
    data = checkpoint_bytes(replace(described, config=settings), model, None)
    write_checkpoint(out, data)
    text = model_card(out.name, data, described, settings, sum(p.numel() for p in model.parameters()))
    try:
        write_atomic(card, text.encode())
    except OSError as error:
        raise CheckpointError(f"{card}: cannot be written ({error.strerror}). Free space") from error
    return card


def model_card(name: str, data: bytes, checkpoint: Checkpoint, settings: dict[str, object], parameters: int) -> str:
    """Return a model card in Markdown: what a file is, how to use it, its scores, classes and settings.

    Parameters
    ----------
    name, data : of the file.
    settings : of the training, as they are to be shown.
    parameters : number of the model's.
    """
    dataset = settings["dataset"]
    size = "as they are" if checkpoint.image_size is None else "{} x {}".format(*checkpoint.image_size)
    facts = {
        "model": " ".join((checkpoint.model, *checkpoint.variants)),
        "width": checkpoint.width,
        "parameters": f"{parameters:,}",
        "encoder started from": settings.get("weights", "random weights"),
        "trained on": dataset,
        "steps": checkpoint.step,
        "photos (height x width)": size,
        "cells that go on": checkpoint.propagation or "as the model has it",
        "file": f"{name}, {len(data):,} bytes",
        "SHA-256": hashlib.sha256(data).hexdigest(),
    }
    sections = {
        f"{checkpoint.model}, {len(checkpoint.classes)} classes of {dataset}": _table(("", ""), facts.items()),
        "Use": USE.format(file=name),
        "Scores on validation images": _scores(checkpoint.scores),
        "Classes": _classes(checkpoint.classes),
        "Training settings": _table(("setting", "value"), settings.items()),
    }
    parts = [f"{'#' if i == 0 else '##'} {title}\n\n{text}" for i, (title, text) in enumerate(sections.items())]
    return "\n\n".join(parts) + "\n"


def _scores(scores: dict[str, dict[str, object]]) -> str:
    """Return the overall scores and the IoU of each class, a column a scheme."""
    if not scores:
        return "None: these weights were saved between evaluations, or the run had no validation images."
    rows = [(text, *(_number(values.get(key)) for values in scores.values())) for key, text in SCORES.items()]
    names = next(iter(scores.values()))["iou"]
    rows += [(f"IoU of {name}, %", *(_number(values["iou"][name]) for values in scores.values())) for name in names]
    return _table(("", *scores), rows)


def _number(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "-"


def _classes(classes: ClassMap) -> str:
    """Return the classes with raw ids and colours."""
    raw_ids = {k: [raw for raw, of in classes.table.items() if of == k] for k in range(len(classes))}
    rows = [
        (k, name, ", ".join(map(str, sorted(raw_ids[k]))), "#{:02x}{:02x}{:02x}".format(*classes.colors[k]))
        for k, name in enumerate(classes.names)
    ]
    return _table(("class", "name", "raw ids", "colour"), rows)


def _table(head: tuple[object, ...], rows: Iterable[Iterable[object]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    texts = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in texts)
