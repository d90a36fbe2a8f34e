"""The command ``quadcodec datasets``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .tables import align

if TYPE_CHECKING:
    from quadcodec.manifest import Manifest


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def datasets(name: str | None, as_json: bool) -> None:
    """List the data sets that are known, or say everything about NAME.

    NAME may also be a manifest of your own (TOML), which is checked.
    """
    from quadcodec.manifest import load_manifest, manifest_names

    manifests = [load_manifest(one) for one in ([name] if name else manifest_names())]
    if as_json:
        found = [_as_json(manifest) for manifest in manifests]
        click.echo(json.dumps(found[0] if name else {"datasets": found}))
    else:
        click.echo(_description(manifests[0]) if name else _overview(manifests))


def _as_json(manifest: Manifest) -> dict[str, Any]:
    return {**asdict(manifest), "void": sorted(manifest.void), "masks": manifest.num_masks}


def _count(masks: int | None) -> str:
    return "any number" if masks is None else f"{masks}"


def _overview(manifests: list[Manifest]) -> str:
    lines = [["name", "data set", "classes", "masks"]]
    for manifest in manifests:
        classes = str(len(manifest.class_names)) if manifest.class_names else "-"
        masks = "-" if manifest.num_masks is None else str(manifest.num_masks)
        lines.append([manifest.name, manifest.title, classes, masks])
    rest = []
    for manifest in manifests:
        splits = ", ".join(split.name + " (optional)" * split.optional for split in manifest.splits)
        rest.append(f"{manifest.name}\n  splits   {splits}\n  licence  {manifest.licence}")
    return align(lines, left=2) + "\n\n" + "\n".join(rest) + "\n\nEverything about one: quadcodec datasets NAME"


def _description(manifest: Manifest) -> str:
    lines = [f"{manifest.name}: {manifest.title}", "", f"licence  {manifest.licence}"]
    lines += [f"from     {manifest.url}"] if manifest.url else []
    lines += [click.wrap_text(manifest.how_to_get, 98, "get      ", " " * 9)] if manifest.how_to_get else []
    lines += ["", "Files, below the data set's folder:"]
    for layout in manifest.layouts:
        tested = {"real": " (tested on real files)", "made": " (tested on made files)"}.get(layout.tested, "")
        held = f" of {', '.join(layout.splits)}" if layout.splits else ""
        lines += [f"  masks{held}{tested}", *(f"    {pattern}" for pattern in layout.masks)]
        lines += ["  photos", *(f"    {pattern}" for pattern in layout.photos)] if layout.photos else []
        lines += ["  names of a split", f"    {layout.lists}"] if layout.lists else []
        lines += [f"  numbers of {split}: {first} to {last}" for split, (first, last) in layout.numbers.items()]
    lines += ["", "Splits:"]
    for split in manifest.splits:
        optional = ", taken only where --split names it" if split.optional else ""
        lines.append(f"  {split.name} (folder {split.folder}): {_count(split.masks)} masks{optional}")
    if manifest.training:
        training = manifest.training
        edges = ", ".join(map(str, training.short_edges))
        bound = f", longest at most {training.longest_edge}" if training.longest_edge else ""
        lines += ["", f"Training in the paper: {training.iterations} iterations, batches of {training.batch_size}, "]
        lines[-1] += f"short edge {edges}{bound}"
    if manifest.published:
        lines += ["", "Table 5 of the paper, percent:", align(_published(manifest))]
    if manifest.labels:
        lines += ["", f"Ids ({len(manifest.class_names)} training classes):", align(_ids(manifest), left=2)]
    return "\n".join(lines)


def _published(manifest: Manifest) -> list[list[str]]:
    lines = [["  split", "Q5", "Q4", "Q3", "Q2", "Q1", "Q0", "ratio"]]
    for split, row in manifest.published.items():
        lines.append([f"  {split}", *("-" if value is None else f"{value:.2f}" for value in row.values())])
    return lines


def _ids(manifest: Manifest) -> list[list[str]]:
    lines = [["  id", "name", "class", "colour"]]
    for label, name in manifest.labels.items():
        train = manifest.class_ids.get(label)
        used = "void" if label in manifest.void else "-" if train is None else str(train)
        color = " ".join(map(str, manifest.colors[label])) if label in manifest.colors else "-"
        lines.append([f"  {label}", name, used, color])
    return lines
