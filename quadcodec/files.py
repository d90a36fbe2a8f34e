"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from .errors import StoreError

__all__ = ["below", "beside", "exclusive", "is_held", "new_folder", "sync_folder", "sync_tree", "write_atomic"]

_MARK = ".made-by-quadcodec"


def beside(path: Path, suffix: str) -> Path:
    """Return PATH + ``suffix``, absolute."""
    path = Path(os.path.abspath(path))  # '.' has no name  # noqa: PTH100 - links stay links
    return path.with_name(path.name + suffix)


def below(root: Path, relative: str) -> Path | None:
    """Return where ``relative`` lies below a folder, or None if it leads out: absolute, by '..', or through a link."""
    path = root / relative
    if PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
        return None
    return path if path.resolve().is_relative_to(root.resolve()) else None


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file in one step, in place of an older one: temporary name, fsync, rename, fsync of its folder.

    Folders above it are made. Raises OSError, and then no half of it is left; callers say what it means to them.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        new = [folder.parent for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        for folder in (path.parent, *new):
            sync_folder(folder)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Bring a folder's list of names to the disk: only then does a new or renamed file outlive a power cut."""
    _sync(path)


def sync_tree(path: Path, skip: Path | None = None) -> None:
    """Bring all files and folders below ``path`` to the disk, but for what lies below ``skip``."""
    for folder, folders, files in os.walk(path):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))
        folders[:] = [name for name in folders if Path(folder, name) != skip]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the right to write ``path``: a lock on the file PATH.lock, which goes when the block or the process ends.

    Raises
    ------
    StoreError : another process holds it, or the disk refuses, also within the block.
    """
    lock = beside(path, ".lock")
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _refused(path, error) from error
        if not _lock(descriptor):
            os.close(descriptor)
            raise StoreError(f"{path}: another process is writing it. Wait until it ends")
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == lock.stat().st_ino:
                break
        os.close(descriptor)  # the one who held it has just deleted it
    try:
        yield
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the right to write ``path``; nothing is written."""
    try:
        descriptor = os.open(beside(path, ".lock"), os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Take a lock that the kernel releases with its process; False if another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks: two writers there are the user's care
        return True
    return True


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
