"""The masks to measure: an even sample of a folder or a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import MaskError
from ..manifest import detect_manifest, find_masks, load_manifest
from ..masks import read_mask
from ..store import open_store
from .row import Mask

__all__ = ["Sample", "take_sample"]


@dataclass(frozen=True, eq=False)
class Sample:
    """Hold the masks that are measured, in the order of their data set.

    ``dataset`` is the name of the manifest or of the store's data set; ``available`` how many masks there were.
    """

    path: str
    dataset: str
    names: tuple[str, ...]
    masks: tuple[Mask, ...]
    available: int

    @property
    def pixels(self) -> int:
        """Pixels of all masks."""
        return sum(mask.size for mask in self.masks)


def take_sample(path: str | Path, *, layout: str = "auto", megapixels: float) -> Sample:
    """Read masks evenly from a label store, or from a folder that a manifest describes.

    Parameters
    ----------
    path : the store or the folder.
    layout : the manifest of a folder, by name or as a TOML file; 'auto' to recognise it.
    megapixels : stop before there are more pixels than this, in millions; the first mask is always taken.

    Raises
    ------
    StoreError, ManifestError, MaskError, CorruptRecordError : what lies at ``path`` cannot be read.
    """
    path = Path(path)
    if (path / "zarr.json").exists():
        store = open_store(path)
        return _sample(str(path), store.info.dataset, store.names, lambda i: store[i], megapixels)
    manifest = detect_manifest(path) if layout == "auto" else load_manifest(layout)
    sources = find_masks(path, manifest).sources
    names = tuple(source.mask for source in sources)
    dataset = path.resolve().name if manifest.name == "folder" else manifest.name
    return _sample(
        str(path), dataset, names, lambda i: read_mask(path / names[i], colors=manifest.mask_colors), megapixels
    )


def _sample(path: str, dataset: str, names: tuple[str, ...], read: Callable[[int], Mask], megapixels: float) -> Sample:
    if not names:
        raise MaskError(f"{path}: found no mask, expected one at least. Check the folder")
    taken: dict[int, Mask] = {}
    pixels = 0
    for index in sorted(range(len(names)), key=_spread):
        mask = read(index)
        pixels += mask.size
        if taken and pixels > 1e6 * megapixels:
            break
        taken[index] = mask
    order = sorted(taken)
    return Sample(path, dataset, tuple(names[i] for i in order), tuple(taken[i] for i in order), len(names))


def _spread(index: int) -> int:
    """Return the index with its bits in reverse: in this order, every beginning of a list covers all of it."""
    return int(f"{index:032b}"[::-1], 2)
