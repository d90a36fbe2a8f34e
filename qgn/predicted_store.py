"""A store of predicted trees, collected frame by frame: how many there will be need not be known."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qgn.data.classes import ClassMap
from quadcodec.build import write_records
from quadcodec.errors import StoreError
from quadcodec.info import ClassInfo, Columns, StoreInfo
from quadcodec.record import encode
from quadcodec.shard import choose_shard_size


class TreeSpool:
    """Collect the records of predicted masks in a nameless file beside their store; memory holds names and sizes alone.

    The file ends with the process, however that ends.

    Parameters
    ----------
    path : the store to be, or an older one that `write` will replace.
    dtype : of the masks.

    Raises
    ------
    StoreError : the disk refuses; so do the methods.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._path, self._dtype = path, dtype
        self._names: list[str] = []
        self._photos: list[Path | None] = []
        self._sizes: list[tuple[int, ...]] = []
        self._lengths: list[int] = []
        folder = path.absolute().parent
        with self._refusals():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what could not be written has been told
            self._file.close()

    def add(self, name: str, mask: NDArray[Any], photo: Path | None) -> None:
        """Add a mask of raw ids, (H, W), and the file of its photo, where it is one."""
        record = encode(mask)
        with self._refusals():
            self._file.write(record)
        self._names.append(name)
        self._photos.append(None if photo is None else photo.resolve())
        self._sizes.append(mask.shape)
        self._lengths.append(len(record))

    def write(self, classes: ClassMap, *, overwrite: bool) -> None:
        """Write the store; with ``overwrite``, an older one makes room when the new one is complete."""
        count = len(self._names)
        photos = [photo for photo in self._photos if photo is not None]
        root = os.path.commonpath([photo.parent for photo in photos]) if photos else ""
        columns = Columns(
            name=tuple(self._names),
            split=("all",) * count,
            source=tuple(f"{name}.npy" for name in self._names),
            image=tuple("" if photo is None else photo.relative_to(root).as_posix() for photo in self._photos),
            form=(f"npy:{self._dtype.str}",) * count,
        )
        infos = zip(classes.raw_ids, classes.names, classes.colors, strict=True)
        info = StoreInfo(
            dataset="predictions",
            splits=("all",),
            classes=tuple(ClassInfo(raw, name, color, k) for k, (raw, name, color) in enumerate(infos)),
            image_root=root,
            shard_size=choose_shard_size(count),
        )
        sizes = np.array(self._sizes, np.uint32)
        with self._refusals():
            write_records(self._path, info, columns, sizes, self._dtype, self._records(), overwrite=overwrite)

    def _records(self) -> Iterator[bytes]:
        self._file.seek(0)
        for length in self._lengths:
            yield self._file.read(length)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self._path}: cannot be written ({error.strerror}). Free space or fix permissions"
            ) from error
