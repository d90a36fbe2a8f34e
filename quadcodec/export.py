"""Export: a store -> mask files, under the paths and in the forms that they came from, or OME-NGFF label images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .errors import StoreError
from .files import below, new_folder, write_atomic
from .masks import write_mask
from .ngff import Levels, group_metadata
from .store import LabelStore

__all__ = ["export_masks", "export_ngff"]


def export_masks(store: LabelStore, folder: str | Path, progress: Callable[[int], object] = lambda _: None) -> int:
    """Write every mask of a store below ``folder`` and return how many; arrays, paths and modes are the source's.

    Until the last one is written, ``folder`` is named FOLDER.partial; on an error nothing stays.

    Raises
    ------
    StoreError : the folder exists and is not empty, or a path of the store leads out of it.
    MaskError : a file cannot be written.
    CorruptRecordError : a record is damaged.
    """
    for source in store.columns.source:
        if below(Path(folder), source) is None:
            raise StoreError(f"{store.path}: source {source!r} leads out of the folder. Run 'quadcodec validate'")
    colors = {c.color: c.id for c in store.classes if c.color is not None} if store.info.color_masks else None
    with new_folder(Path(folder)) as partial:
        for source, form, mask in zip(store.columns.source, store.columns.form, store, strict=True):
            write_mask(partial / source, np.asarray(mask), form, palette=store.palette, colors=colors)
            progress(1)
    return len(store)


def export_ngff(store: LabelStore, folder: str | Path, progress: Callable[[int], object] = lambda _: None) -> int:
    """Write all masks as one OME-NGFF 0.5 label image (image, y, x) below ``folder``; return how many they are.

    ``labels/classes`` holds the masks and, level by level, the ids in the middle of ever larger cells, with names and
    colours. ``folder`` itself is an image of the same arrays, so that a viewer opens it.

    Raises
    ------
    StoreError : the folder exists and is not empty, or the disk refuses; nothing stays.
    CorruptRecordError : a record is damaged.
    """
    with new_folder(Path(folder)) as partial:
        arrays = Levels(store, partial / "labels" / "classes", tuple(range(store.info.levels)), sampled=True)
        arrays.write(progress)
        for name, ome in (
            ("labels/zarr.json", {"labels": ["classes"]}),
            ("zarr.json", {"multiscales": [arrays.multiscale("labels/classes/")]}),
        ):
            write_atomic(partial / name, json.dumps(group_metadata(ome)).encode())
    return len(store)
