"""Results as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quadcodec.diff import ImageDiff, Summary
    from quadcodec.explain import Explanation
    from quadcodec.info import ClassInfo

_SHOWN = 5
"""Skipped masks that are listed."""

_MOST_CHANGES = 3
_MOST_LABELS = 20


def align(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return rows as columns two spaces apart, the first ``left`` columns flush left, the rest flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def targets(rows: Sequence[Any]) -> str:
    """Return a benchmark's figures beside their targets."""
    lines = [["figure", "value", "target", "holds"]]
    for row in rows:
        value = "not measured" if row.value is None else f"{row.value:.3g} {row.unit}"
        lines.append([row.metric, value, row.target, {True: "yes", False: "no", None: "-"}[row.holds]])
    return align(lines)


def summary_text(values: dict[str, Any]) -> str:
    """Return the description of a store."""
    size = " x ".join(str(v) for v in values["smallest"])
    if values["largest"] != values["smallest"]:
        size += " .. " + " x ".join(str(v) for v in values["largest"])
    splits = ", ".join(f"{name} {count}" for name, count in values["splits"].items())
    classes = [f"{i} {name}" for i, name in values["classes"].items()]
    lines = [
        ("data set", values["dataset"]),
        ("images", f"{values['images']} ({splits}), {size} (height x width)"),
        ("photos", f"{values['with_photo']} below {values['image_root']}"),
        ("records", f"{values['stored_bytes']} bytes, {values['stored_bits_per_pixel']:.4f} bits a pixel"),
        ("shards", f"{values['shards']} of up to {values['shard_size']} images"),
        ("quadtree", f"{values['levels']} levels, profile {values['profile']}, format {values['format_version']}"),
        ("void", ", ".join(str(v) for v in values["void"]) or "none named"),
        ("raw ids", ", ".join(classes) or "no names known"),
    ]
    if values["train_classes"]:
        lines.append(("classes", f"{len(values['train_classes'])}: " + ", ".join(values["train_classes"])))
    skipped = [problem["message"] for problem in values["skipped"]]
    if skipped:
        lines.append(("skipped", f"{len(skipped)} mask{'s' * (len(skipped) > 1)} that could not be converted:"))
        lines += [("", message) for message in skipped[:_SHOWN]]
        lines += [("", f"and {len(skipped) - _SHOWN} more: --json names all")] if len(skipped) > _SHOWN else []
    return f"{values['path']}\n" + align([[f"  {key}", value] for key, value in lines], left=2)


def diff_line(found: ImageDiff, classes: Sequence[ClassInfo]) -> str:
    """Return how one image differs."""
    where = f"{found.split}/{found.name}"
    if found.size_b is None:
        return f"{where}: only in A"
    if found.size_a is None:
        return f"{where}: only in B"
    if found.pixels is None:
        a, b = (" x ".join(str(v) for v in size) for size in (found.size_a, found.size_b))
        return f"{where}: {a} pixels in A, {b} in B"
    names = {c.id: c.name for c in classes}
    changes = [f"{names.get(a, a)} -> {names.get(b, b)} {n}" for (a, b), n in found.changes.items()]
    if len(changes) > _MOST_CHANGES:
        changes[_MOST_CHANGES:] = [f"{len(changes) - _MOST_CHANGES} more"]
    return f"{where}: {found.pixels} pixels differ ({100 * (found.share or 0):.3f} %): {', '.join(changes)}"


def diff_summary(summary: Summary) -> str:
    """Return what two stores differ in, in one line."""
    parts = {
        "equal": summary.equal,
        "only in A": summary.only_a,
        "only in B": summary.only_b,
        "of another size": summary.other_size,
        "with other pixels": summary.other_pixels,
    }
    text = ", ".join(f"{count} {what}" for what, count in parts.items() if count or what == "equal")
    share = 100 * summary.differing_pixels / summary.compared_pixels if summary.compared_pixels else 0.0
    return f"images: {text}; {summary.differing_pixels} of {summary.compared_pixels} pixels differ ({share:.4f} %)"


def record_text(found: Explanation, classes: Sequence[ClassInfo]) -> str:
    """Return what a record holds: facts, its parts with their sizes, the nodes of its levels."""
    pixels = found.height * found.width
    names = {c.id: c.name for c in classes}
    labels = [f"{i} {names[i]}" if i in names else str(i) for i in found.labels]
    if len(labels) > _MOST_LABELS:
        labels[_MOST_LABELS:] = [f"{len(labels) - _MOST_LABELS} more"]
    facts = [
        ("size", f"{found.height} x {found.width} (height x width), ids of {found.bits} bits"),
        ("record", f"{found.nbytes} bytes, {8 * found.nbytes / pixels:.4f} bits a pixel, profile {found.profile}"),
        ("ids", f"{len(found.labels)}: " + ", ".join(labels)),
    ]
    if found.num_pairs is not None:
        facts.append(("pairs", f"{found.num_pairs} pairs of classes"))
    if found.tile_side is not None:
        tiles = f"{len(found.tiles)} of {found.tile_side} pixels a side" if found.tile_side else "one"
        facts.append(("tiles", tiles if found.tiles else "none: one id"))
        facts.append(("tables", "those of the package" if found.own_tables is None else f"own, {found.own_tables}"))
    parts = [["part", "bytes", "share %", "bytes unpacked", "stage"]]
    for part in found.parts:
        unpacked = "" if part.unpacked_bytes is None else str(part.unpacked_bytes)
        share = f"{100 * part.nbytes / found.nbytes:.1f}"
        parts.append([part.name, str(part.nbytes), share, unpacked, part.stage])
    levels = [["level", "cell", "nodes", "leaves", "two classes", "more classes", "outside", "pixels in leaves %"]]
    for row in found.levels:
        numbers = (row.nodes, row.leaves, row.pairs, row.multi, row.outside)
        share = f"{100 * row.pixels / pixels:.2f}"
        levels.append([f"Q{row.level}", f"{1 << row.level} px", *(str(v) for v in numbers), share])
    return "\n\n".join((align([[f"  {k}", v] for k, v in facts], left=2), align(parts), align(levels)))
