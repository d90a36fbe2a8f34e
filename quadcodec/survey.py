"""A look at a data set before it is converted: every mask and photo is read, and all problems are told together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import MaskError
from .manifest import DataSet, Manifest, Source, detect_manifest, list_masks, load_manifest
from .masks import image_size, read_mask
from .parallel import choose_workers, run_tasks

__all__ = ["Problems", "Survey", "survey"]

_SHOWN = 5
"""Examples that are kept of each kind of problem."""
_CHUNK = 16
"""Masks that one task reads."""
_MANY_FILES = 1_000
"""From here on worker processes pay for their start."""
_LIKELY_VOID = 255
"""The id that most data sets use for void."""


@dataclass(frozen=True)
class Problems:
    """Hold the problems of one kind: how many there are, and the first few."""

    kind: str
    count: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """Say what a data set holds, and what is wrong with it.

    ``without_photo`` counts all masks without a photo; they are a problem only in splits that have photos.
    """

    path: str
    dataset: str
    splits: dict[str, int]
    pixels: int
    source_bytes: int
    without_photo: int
    problems: tuple[Problems, ...]


@dataclass(frozen=True)
class _Seen:
    """Hold what one task saw: problems as (kind, message), and id -> (pixels, masks, first mask)."""

    images: int
    pixels: int
    source_bytes: int
    problems: tuple[tuple[str, str], ...]
    ids: Mapping[int, tuple[int, int, str]]


@dataclass(frozen=True)
class _LookTask:
    root: Path
    sources: Sequence[Source]
    colors: Mapping[tuple[int, int, int], int] | None

    def run(self) -> _Seen:
        """Read some masks, and the headers of their photos."""
        pixels = source_bytes = 0
        problems: list[tuple[str, str]] = []
        ids: dict[int, tuple[int, int, str]] = {}
        for source in self.sources:
            shape = None
            try:
                mask = read_mask(self.root / source.mask, colors=self.colors)
                shape = mask.shape
                pixels += mask.size
                source_bytes += (self.root / source.mask).stat().st_size
                counts = np.bincount(mask.ravel())
                for label in np.flatnonzero(counts).tolist():
                    before = ids.get(label, (0, 0, source.mask))
                    ids[label] = before[0] + int(counts[label]), before[1] + 1, before[2]
            except MaskError as error:
                problems.append(("masks that cannot be read", str(error)))
            if source.image:
                problems += self._photo(source, shape)
        return _Seen(len(self.sources), pixels, source_bytes, tuple(problems), ids)

    def _photo(self, source: Source, shape: tuple[int, ...] | None) -> Iterator[tuple[str, str]]:
        try:
            height, width = image_size(self.root / source.image)
        except MaskError as error:
            yield "photos that cannot be read", str(error)
            return
        if shape is not None and shape != (height, width):
            sizes = f"{height} x {width} pixels (height x width), its mask {shape[0]} x {shape[1]}"
            yield "photos of another size than their masks", f"{source.image}: {sizes}"


def _add(found: dict[str, Problems], kind: str, message: str) -> None:
    """Count a problem, and keep its message if it is among the first of its kind."""
    before = found.get(kind, Problems(kind, 0, ()))
    found[kind] = Problems(kind, before.count + 1, (*before.first, message)[:_SHOWN])


def survey(
    root: str | Path,
    *,
    layout: str = "auto",
    splits: Sequence[str] | None = None,
    void: Sequence[int] = (),
    workers: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Survey:
    """Read a whole data set and list its problems; nothing is written.

    Looked for: two masks of one name, photos without masks, masks without photos (in splits that have photos), names
    in a split's list without masks, other numbers of masks than the manifest gives, masks and photos that cannot be
    read or differ in size, ids that the manifest does not name, and void that looks wrong.

    Parameters
    ----------
    root, layout, splits, void : as `quadcodec.convert.plan_conversion`.
    workers : processes; None for one a core where there is enough to do.
    progress : called with the number of masks done since the last call.

    Raises
    ------
    ManifestError : there is no such folder, manifest or split, or no masks at all.
    """
    root = Path(root)
    manifest = detect_manifest(root) if layout == "auto" else load_manifest(layout)
    data = list_masks(root, manifest, splits)
    found: dict[str, Problems] = {}
    for kind, message in _files(data, splits):
        _add(found, kind, message)
    parts = (data.sources[start : start + _CHUNK] for start in range(0, len(data.sources), _CHUNK))
    tasks = (_LookTask(root, part, manifest.mask_colors) for part in parts)
    pixels = source_bytes = 0
    ids: dict[int, tuple[int, int, str]] = {}
    for seen in run_tasks(tasks, choose_workers(workers, much=len(data.sources) >= _MANY_FILES)):
        pixels, source_bytes = pixels + seen.pixels, source_bytes + seen.source_bytes
        for kind, message in seen.problems:
            _add(found, kind, message)
        for label, (count, masks, first) in seen.ids.items():
            before = ids.get(label, (0, 0, first))
            ids[label] = before[0] + count, before[1] + masks, before[2]
        progress(seen.images)
    for kind, message in (*_unknown_ids(manifest, void, ids), *_odd_void(manifest, void, ids)):
        _add(found, kind, message)
    counts = dict.fromkeys(dict.fromkeys(source.split for source in data.sources), 0)
    for source in data.sources:
        counts[source.split] += 1
    without_photo = sum(not source.image for source in data.sources)
    return Survey(str(root), manifest.name, counts, pixels, source_bytes, without_photo, tuple(found.values()))


def _files(data: DataSet, splits: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """Yield what the names of the files tell."""
    for sentence in data.duplicates:
        yield "two masks of one name", sentence
    for photo in data.unmatched_photos:
        yield "photos without masks", photo
    with_photos = {source.split for source in data.sources if source.image}
    for source in data.sources:
        if not source.image and source.split in with_photos:
            yield "masks without photos", source.mask
    for name in data.listed_only:
        yield "names in a split's list without masks", name
    for split in data.manifest.splits:
        masks = sum(source.split == split.name for source in data.sources)
        asked = split.name in splits if splits else not split.optional
        if asked and split.masks is not None and masks != split.masks:
            yield (
                "wrong numbers of masks",
                f"split {split.name!r}: {masks} here, {split.masks} in the complete data set",
            )


def _unknown_ids(
    manifest: Manifest, void: Sequence[int], ids: Mapping[int, tuple[int, int, str]]
) -> Iterator[tuple[str, str]]:
    for label, (count, masks, first) in sorted(ids.items()):
        if manifest.labels and label not in manifest.labels and label not in void:
            where = f"{count} pixels of {masks} mask{'s' * (masks > 1)}, first in {first}"
            yield "ids that the manifest does not name", f"id {label}: {where}"


def _odd_void(
    manifest: Manifest, void: Sequence[int], ids: Mapping[int, tuple[int, int, str]]
) -> Iterator[tuple[str, str]]:
    kind = "void that looks wrong"
    ignored = {*manifest.void, *void}
    total = sum(count for count, _, _ in ids.values())
    if not manifest.labels and not ignored and _LIKELY_VOID in ids and len(ids) > 2:
        count, masks, _ = ids[_LIKELY_VOID]
        share = f"{100 * count / total:.1f} % of the pixels, in {masks} of the masks"
        yield kind, f"id {_LIKELY_VOID} covers {share}, and nothing is void: name it with --void if it is unlabelled"
    covered = sum(count for label, (count, _, _) in ids.items() if label in ignored)
    if 2 * covered > total:
        yield kind, f"ids {sorted(ignored & set(ids))} are void and cover {100 * covered / total:.1f} % of the pixels"
    for label in sorted(set(void) - set(ids)):
        if ids:
            yield kind, f"id {label} was named void, but no pixel has it"
