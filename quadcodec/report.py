"""One HTML page about one or more stores: tables, charts and trees, all inside the file (report.html is its frame)."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import __version__
from .charts import bar, hex_color, level_legend, stacked
from .errors import StoreError
from .files import write_atomic
from .pyramid import COMPOSITE, OUTSIDE
from .render import class_colors
from .stats import StatsRow, leaf_counts, stats, summary
from .store import LabelStore, open_store

__all__ = ["read_bench", "report", "write_report"]

MAX_TREES = 24
"""Trees on a page, besides those that the user names."""
MAX_TREE_CHARS = 300_000
"""Characters of one tree; levels that would not fit are left out, the finest first."""
_COMMON = 20  # classes shown at once
_SPEEDS = {
    "encode_mpix_s": "encode",
    "decode_mpix_s": "decode",
    "nodes_mpix_s": "nodes only",
    "coarse_mpix_s": "8x8 cells",
    "region_mpix_s": "region",
}

Bench = Sequence[Mapping[str, Any]]


def report(
    paths: Sequence[str | Path],
    *,
    images: Sequence[str] = (),
    classes: Sequence[str] = ("raw",),
    bench: Bench | None = None,
    command: str = "",
) -> str:
    """Return the page.

    Parameters
    ----------
    paths : stores.
    images : names or numbers of images to show besides the densest and sparsest, of every store that has them.
    classes : label spaces to count, as in `stats`; trees are always of raw ids.
    bench : what `read_bench` gave.
    command : what was typed to make the page, to be told on it.

    Raises
    ------
    StoreError, CorruptRecordError : a store cannot be read or lacks training classes, or an image is in none of them.
    """
    stores = [open_store(path) for path in paths]
    groups = [stats(path, classes=classes) for path in paths]
    rows = [row for group in groups for row in group]
    trees = [
        _tree_data(store, index, note)
        for store in stores
        for index, note in _choose(store, _ratios(store), images, stores)
    ]
    labels = _labels(stores)
    title = "Label trees of " + ", ".join(dict.fromkeys(store.info.dataset for store in stores))
    count = sum(len(store) for store in stores)
    parts = {
        "title": escape(title),
        "subtitle": escape(f"{count} images in {len(stores)} stores" if len(stores) > 1 else f"{count} images"),
        "stores": "".join(_store_facts(store, group) for store, group in zip(stores, groups, strict=True)),
        "table5": _table5(rows, labels),
        "levels": _level_charts(rows, labels),
        "classes": "".join(
            _class_table(store, labels[str(store.path)], [row for row in group if row.classes == space])
            for store, group in zip(stores, groups, strict=True)
            for space in classes
        ),
        "speed": "" if bench is None else _speed(bench),
        "cards": _cards(trees),
        "trees": json.dumps(trees, separators=(",", ":")).replace("<", "\\u003c"),
        "footer": escape(f"Made by quadcodec {__version__}") + (f": <code>{escape(command)}</code>" if command else ""),
    }
    frame = (files(__package__) / "report.html").read_text(encoding="utf-8")
    script = frame[frame.rindex("<script>") + len("<script>") : frame.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts["script_hash"] = f"sha256-{digest}"
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], frame)


def write_report(path: str | Path, page: str, *, overwrite: bool = False) -> None:
    """Write a page in one step, over an existing file only if told to; raise StoreError if that fails."""
    path = Path(path)
    check_report(path, overwrite=overwrite)
    try:
        write_atomic(path, page.encode())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}). Free space or choose another place") from error


def check_report(path: Path, *, overwrite: bool) -> None:
    """Say before the work starts whether `write_report` would refuse this name; raise StoreError then."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise StoreError(f"{path}: a report is written as HTML. Let the name end in .html")
    if path.exists() and not overwrite:
        raise StoreError(f"{path}: exists already. Choose another name or use --overwrite")


def read_bench(path: str | Path) -> Bench:
    """Read the file that ``quadcodec bench --json`` wrote; raise StoreError if it is none."""
    try:
        codecs = json.loads(Path(path).read_text(encoding="utf-8"))["codecs"]
        for codec in codecs:
            for figure in (codec["bpp"], *(codec.get(key) for key in _SPEEDS)):
                if str(codec["name"]) and figure is not None:
                    float(figure)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}). Check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: is no result of a benchmark ({type(error).__name__}: {error}). "
            "Write one with 'quadcodec bench --json'"
        ) from error
    return list(codecs)


def _ratios(store: LabelStore) -> NDArray[np.float64]:
    """Return the leaves over padded pixels of each image, in percent."""
    ratios = np.empty(len(store))
    for index in range(len(store)):
        tree = store.quadtree(index)
        padded = tree.grid[0] * tree.grid[1] << 2 * (tree.levels - 1)
        ratios[index] = 100 * float(leaf_counts(tree).sum()) / padded
    return ratios


def _choose(
    store: LabelStore, ratios: NDArray[np.float64], images: Sequence[str], stores: Sequence[LabelStore]
) -> list[tuple[int, str]]:
    """Return (index, note) of the densest images, the sparsest, and those that were named."""
    share = max(1, min(3, MAX_TREES // (2 * len(stores))))
    order = np.argsort(-ratios, kind="stable")
    ends = [*order[:share], *order[share:][-share:]]
    named = []
    for image in images:
        try:
            named.append(store.find(image))
        except StoreError:
            if store is stores[-1] and not any(_has(other, image) for other in stores):
                raise
    dense = set(order[:share])
    notes = {i: f"{'densest' if i in dense else 'sparsest'}: {ratios[i]:.2f} % leaves" for i in ends}
    chosen = {i: f"chosen: {ratios[i]:.2f} % leaves" for i in named}
    return [(int(i), note) for i, note in (chosen | notes).items()]


def _has(store: LabelStore, image: str) -> bool:
    return image in store.names or (image.isdecimal() and int(image) < len(store))


def _tree_data(store: LabelStore, index: int, note: str) -> dict[str, Any]:
    """Return a tree as the page's script reads it: class indices in node order, deflated, in base64."""
    tree = store.quadtree(index)
    finest = 0
    while True:
        nodes = np.concatenate([tree.level(level) for level in range(tree.levels - 1, finest - 1, -1)])
        ids = np.unique(nodes[nodes >= 0])
        symbols = np.searchsorted(ids, nodes)
        symbols[nodes == COMPOSITE], symbols[nodes == OUTSIDE] = len(ids), len(ids) + 1
        width = 1 if len(ids) + 1 < 1 << 8 else 2 if len(ids) + 1 < 1 << 16 else 4
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(symbols.astype(f"<u{width}").tobytes()) + packer.flush()
        names = {c.id: c.name for c in store.classes}
        colors = class_colors(store.palette)
        data = {
            "name": store.names[index],
            "split": store.splits[index],
            "store": store.path.name,
            "note": note,
            "height": tree.height,
            "width": tree.width,
            "levels": tree.levels,
            "finest": finest,
            "names": [names.get(int(i), f"id {i}") for i in ids],
            "colors": [_hex(colors[int(i) % len(colors)]) for i in ids],
            "void": [k for k, i in enumerate(ids) if int(i) in store.info.void],
            "bytes": width,
            "nodes": base64.b64encode(packed).decode(),
        }
        if len(json.dumps(data)) <= MAX_TREE_CHARS or finest == tree.levels - 1:
            return data
        finest += 1


def _hex(color: NDArray[np.uint8]) -> str:
    r, g, b = (int(v) for v in color)
    return hex_color((r, g, b))


def _store_facts(store: LabelStore, rows: Sequence[StatsRow]) -> str:
    values = summary(store)
    counted = [row for row in rows if row.classes == rows[0].classes]
    sources = [row.source_bytes for row in counted if row.source_bytes is not None]
    size = " x ".join(str(v) for v in values["smallest"])
    if values["largest"] != values["smallest"]:
        size += " to " + " x ".join(str(v) for v in values["largest"])
    facts = {
        "data set": values["dataset"],
        "images": f"{values['images']:,}: " + ", ".join(f"{name} {n:,}" for name, n in values["splits"].items()),
        "size": f"{size} pixels (height x width), {values['pixels'] / 1e6:,.1f} million in all",
        "records": f"{_bytes(values['stored_bytes'])}, {values['stored_bits_per_pixel']:.4f} bits a pixel",
        "dense arrays": _times(sum(row.dense_bytes for row in counted), values["stored_bytes"]),
        "mask files": _times(sum(sources), values["stored_bytes"]) if len(sources) == len(counted) else "not found",
        "quadtree": f"{values['levels']} levels, profile {values['profile']}, format {values['format_version']}",
        "classes": f"{len(values['classes'])} named ids" + (", of which void: " if values["void"] else "")
        + ", ".join(values["classes"].get(str(v), str(v)) for v in values["void"]),
    }  # fmt: skip
    if values["skipped"]:
        facts["left out"] = f"{len(values['skipped'])} masks that could not be read"
    lines = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in facts.items())
    return f'<div><h3>{escape(values["path"])}</h3><table class="facts"><tbody>{lines}</tbody></table></div>'


def _times(count: int, stored: int) -> str:
    """Return a number of bytes, and how many times as many it is as the stored ones."""
    return _bytes(count) + (f", {count / stored:,.1f} times the records" if stored else "")


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 10**6 else f"{count / 1e3:,.1f} kB"


def _table5(rows: Sequence[StatsRow], labels: Mapping[str, str]) -> str:
    """Return Table 5: each split's row, below it the published one and the difference, where there is one."""
    levels = range(max(len(row.leaves) for row in rows) - 1, -1, -1)
    head = "".join(
        f'<th scope="col">{escape(text)}</th>' for text in ("", "images", *(f"Q{i}" for i in levels), "ratio", "error")
    )
    bodies = []
    for row in rows:
        shares = [row.percent.get(level) for level in levels]
        ours = [*shares, row.leaf_ratio_percent]
        body = _table_row(_row_name(row, labels), f"{row.images:,}", ours, "", row.leaf_ratio_error)
        if row.published is not None:
            paper = [row.published.get(str(level)) for level in levels] + [row.published["ratio"]]
            signed = [None if a is None or b is None else a - b for a, b in zip(ours, paper, strict=True)]
            body += _table_row("paper", "", paper, "paper") + _table_row("difference", "", signed, "difference")
        bodies.append(f"<tbody>{body}</tbody>")
    table = f'<table class="table5"><thead><tr>{head}</tr></thead>{"".join(bodies)}</table>'
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table 5">{table}</div>'


def _labels(stores: Sequence[LabelStore]) -> dict[str, str]:
    """Return what each store is called on the page, by its path: its data set, or its name where they share one."""
    datasets = [store.info.dataset for store in stores]
    return {
        str(store.path): store.info.dataset if datasets.count(store.info.dataset) == 1 else store.path.name
        for store in stores
    }


def _row_name(row: StatsRow, labels: Mapping[str, str]) -> str:
    return f"{labels[row.path]} {row.split}" + (", training classes" if row.classes == "train" else "")


def _table_row(name: str, images: str, values: Sequence[float | None], kind: str, error: float | None = None) -> str:
    """Return a row of Table 5; ``error`` is the standard error of the last value, NaN for one image."""
    cells = []
    for value in values:
        if value is None:
            cells.append("<td>&ndash;</td>")
        elif kind == "difference":
            cells.append(f"<td>{value:+.2f}</td>")
        else:
            cells.append(f"<td>{value:.2f}</td>")
    cells.append("<td></td>" if error is None or math.isnan(error) else f"<td>{error:.2f}</td>")
    return f'<tr class="{kind}"><th scope="row">{escape(name)}</th><td>{images}</td>{"".join(cells)}</tr>'


def _level_charts(rows: Sequence[StatsRow], labels: Mapping[str, str]) -> str:
    parts = [level_legend(max(len(row.leaves) for row in rows))]
    for row in rows:
        name = escape(_row_name(row, labels))
        bars = stacked(row.percent, _row_name(row, labels))
        published = {} if row.published is None else {k: row.published.get(str(k)) for k in row.percent}
        known = {level: share for level, share in published.items() if share is not None}
        if known and len(known) == len(row.percent):
            bars += stacked(known, f"{_row_name(row, labels)}, paper", css_class="published")
            name += ' <span class="quiet">(thin: the paper)</span>'
        parts.append(f'<figure class="stack"><figcaption>{name}</figcaption>{bars}</figure>')
    return "".join(parts)


def _class_table(store: LabelStore, label: str, rows: Sequence[StatsRow]) -> str:
    """Return the share of pixels of each class over all splits, the most frequent first."""
    pixels: dict[int, int] = {}
    for row in rows:
        for i, count in row.class_pixels.items():
            pixels[i] = pixels.get(i, 0) + count
    train = rows[0].classes == "train"
    names, colors = rows[0].class_names, _class_colors(store, train=train)
    total = sum(pixels.values())
    ranked = sorted(pixels.items(), key=lambda item: (-item[1], item[0]))
    most = ranked[0][1]
    lines = []
    for i, count in ranked:
        name = escape(names.get(i, f"id {i}")) + (" (void)" if i in store.info.void and not train else "")
        lines.append(
            f'<tr><th scope="row"><span class="swatch" style="background:{colors(i)}"></span>{name}</th>'
            f'<td class="bar">{bar(count / most)}</td><td>{100 * count / total:.3f} %</td></tr>'
        )
    head = '<thead><tr><th scope="col">class</th><th></th><th scope="col">pixels</th></tr></thead>'
    text = f"<h3>{escape(label)}{', training classes' if train else ''}</h3>"
    text += f'<table class="bars">{head}<tbody>{"".join(lines[:_COMMON])}</tbody></table>'
    if len(lines) > _COMMON:
        rest = f'<table class="bars"><tbody>{"".join(lines[_COMMON:])}</tbody></table>'
        text += f"<details><summary>{len(lines) - _COMMON} rarer classes</summary>{rest}</details>"
    absent = len([i for i in names if i not in pixels])
    return text + (f'<p class="quiet">{absent} named classes occur in no image.</p>' if absent else "")


def _class_colors(store: LabelStore, *, train: bool) -> Callable[[int], str]:
    """Return what gives a class its colour: a training class has that of the first raw id that is trained as it."""
    colors = class_colors(store.palette)
    if not train:
        return lambda label: _hex(colors[label % len(colors)])
    first = {c.train_id: colors[c.id % len(colors)] for c in reversed(store.classes)}
    ignored = class_colors(np.zeros((1, 3)))[0]
    return lambda label: _hex(first.get(label, ignored))


def _speed(bench: Bench) -> str:
    """Return size and speed of each codec, bits first."""
    columns = [key for key in _SPEEDS if any(codec.get(key) for codec in bench)]
    widest = max((float(codec["bpp"] or 0) for codec in bench), default=0)
    head = "".join(f'<th scope="col">{_SPEEDS[key]}</th>' for key in columns)
    rows = []
    for codec in bench:
        bits = codec["bpp"]
        cells = "".join(f"<td>{_number(codec.get(key))}</td>" for key in columns)
        note = " (not lossless)" if codec.get("lossless") is False else ""
        rows.append(
            f'<tr><th scope="row">{escape(str(codec["name"]))}{note}</th><td>{_number(bits, 4)}</td>'
            f'<td class="bar">{bar((bits or 0) / widest if widest else 0)}</td>{cells}</tr>'
        )
    table = (
        f'<table class="bars speed"><thead><tr><th scope="col">codec</th><th scope="col">bits/pixel</th>'
        f'<th class="bar"></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    return (
        '<section aria-labelledby="h-speed"><h2 id="h-speed">Size and speed</h2>'
        "<p>Speeds in millions of pixels a second. They are of one machine: read the ratios.</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Size and speed">{table}</div></section>'
    )


def _number(value: float | None, digits: int = 0) -> str:
    return "&ndash;" if value is None else f"{value:,.{digits}f}"


def _cards(trees: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(
        f'<li><button type="button" data-tree="{k}" aria-pressed="false"><canvas aria-hidden="true"></canvas>'
        f"<span>{escape(tree['name'])}</span>"
        f'<span class="quiet">{escape(tree["store"])}, {escape(tree["split"])}</span>'
        f'<span class="quiet">{escape(tree["note"])}</span>'
        "</button></li>"
        for k, tree in enumerate(trees)
    )
    return f'<ul class="cards">{items}</ul>'
