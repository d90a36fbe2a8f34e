"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import StoreError

__all__ = ["new_folder", "write_atomic"]

_MARK = ".made-by-quadcodec"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file in one step, in place of an older one: temporary name, fsync, rename.

    Folders above it are made. Raises OSError, and then nothing is left; callers say what it means to them.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder FOLDER.partial to fill; it becomes FOLDER when the block ends, and is removed on an error.

    What a killed run left there is replaced: a marker file in it tells that from a folder of the user's.

    Raises
    ------
    StoreError : FOLDER holds something or cannot be replaced, FOLDER.partial is not ours, or the disk refuses,
        also within the block.
    """
    target = folder.resolve()  # follows links, and gives '.' a name
    partial = target.parent / f"{target.name}.partial"
    mark, token = partial / _MARK, secrets.token_hex(8)
    try:
        _check_free(folder, target)
        if partial.exists():
            if not mark.is_file():
                raise StoreError(f"{partial}: is in the way, and quadcodec did not make it. Move it away")
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
    except OSError as error:
        raise _refused(folder, error) from error
    try:
        mark.write_text(token)
        yield partial
        if mark.read_text() != token:
            raise StoreError(f"{folder}: another run writes it, too, and has begun anew. Run one at a time")
        mark.unlink()
        partial.rename(target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise _refused(folder, error) from error
        raise


def _check_free(folder: Path, target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise StoreError(f"{folder}: exists already. Choose a folder that is new or empty")
    if target == Path.cwd() or target.is_mount():  # a rename would leave a shell in nowhere, or fail in the end
        raise StoreError(f"{folder}: cannot be replaced as a whole. Choose a new folder in it")


def _refused(folder: Path, error: OSError) -> StoreError:
    return StoreError(f"{folder}: was not written ({error}). Free space or fix permissions, then run again")
