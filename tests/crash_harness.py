"""Kill conversions, fill the disk, write twice at once; then resume, and compare with an unbroken run byte by byte.

    python -m tests.crash_harness points [--every 1]      SIGKILL before each change of the disk, one after another
    python -m tests.crash_harness full [--every 1]        the disk is full from each change on
    python -m tests.crash_harness writers [--runs 10]     two at once
    python -m tests.crash_harness readonly                a folder that may be read only
    python -m tests.crash_harness kill [--runs 50]        SIGKILL at random times: the command itself, two workers

Changes of the disk are what Python reports of itself (audit events), so the code under test knows nothing of this. All
but the last work in forked copies of this process: it must not use zarr before, whose threads a fork would lose.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

import quadcodec
from quadcodec import convert as module
from quadcodec.convert import convert, plan_conversion
from quadcodec.errors import QuadcodecError, StoreError
from quadcodec.repair import repair
from quadcodec.validate import validate

from .conftest import blocks

GROWTH = ("os.mkdir", "os.rename", "os.link")
CHANGES = (*GROWTH, "os.remove", "os.rmdir", "os.truncate")
NOT_BEGUN = ("was begun with levels", "or replace it with --overwrite")
"""What a resumed run says that finds the older store, and nothing of the new one."""
REFUSED = 3
"""Exit status of a child whose conversion ended in an error of ours."""


def tree(path: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def masks(root: Path, count: int, side: int, *, bad: int | None = None) -> Path:
    """Make a plain folder of masks; ``bad`` breaks off in the middle."""
    root.mkdir()
    for i in range(count):
        Image.fromarray(blocks(i, side, side + i % 3)).save(root / f"{i:04d}.png")
    if bad is not None:
        file = root / f"{bad:04d}.png"
        file.write_bytes(file.read_bytes()[:-30])
    return root


def at_change(number: int, act: Callable[[], None]) -> None:
    """Call ``act`` from this process's ``number``-th change of the disk on; a full disk minds only growth."""
    count = itertools.count(1)
    events = GROWTH if act is disk_full else CHANGES

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in events) and next(count) >= number:
            act()

    sys.addaudithook(hook)


def kill_self() -> None:
    """End as a power cut would, but for the disk's cache."""
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full() -> None:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked copy of this process; return 0, REFUSED, or minus the signal."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        work()
    except QuadcodecError as error:
        print(error, file=sys.stderr)
        os._exit(REFUSED)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Scene:
    """A folder with a data set, perhaps an older store, and the store of an unbroken run beside it."""

    def __init__(self, folder: Path, *, overwrite: bool = False, bad: int | None = None) -> None:
        self.source = masks(folder / "masks", 5, 9, bad=bad)
        self.older = folder / "older.zarr"
        self.whole = folder / "whole.zarr"
        self.place = folder / "place"
        self.target = self.place / "out.zarr"
        self.overwrite, self.skip = overwrite, bad is not None
        assert in_child(lambda: self.convert(self.whole)) == 0
        if overwrite:
            assert in_child(lambda: self.convert(self.older, levels=3)) == 0

    def convert(self, target: Path | None = None, *, levels: int = 4, **options: bool) -> None:
        """Convert with shards of two images."""
        plan = plan_conversion(self.source, levels=levels, skip_bad=self.skip)
        convert(plan, target or self.target, skip_bad=self.skip, **options)

    def reset(self) -> None:
        """Begin as before the run."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        if self.overwrite:
            shutil.copytree(self.older, self.target)

    def check_and_resume(self) -> None:
        """See that a reader meets nothing, the older store or the new one; then finish."""
        try:
            quadcodec.open(self.target)
        except StoreError:
            assert not self.target.exists()
        else:
            assert tree(self.target) in ([tree(self.older)] if self.overwrite else []) + [tree(self.whole)]
        try:
            self.convert(resume=True)
        except StoreError as error:  # the kill came before the new store was begun
            if not self.overwrite or not any(text in str(error) for text in NOT_BEGUN):
                raise
            assert tree(self.target) == tree(self.older)
            self.convert(overwrite=True)

    def verify(self, what: str) -> None:
        """See that the run ended as an unbroken one, and left nothing else."""
        names = sorted(path.name for path in self.place.iterdir())
        assert names == ["out.zarr"], f"{what}: found {names}"
        assert tree(self.target) == tree(self.whole), f"{what}: another store"


def scenes(folder: Path) -> dict[str, Scene]:
    """Return a run from nothing, one in place of an older store, and one that leaves a bad mask out."""
    for name in ("new", "replace", "skip"):
        (folder / name).mkdir()
    return {
        "new": Scene(folder / "new"),
        "replace": Scene(folder / "replace", overwrite=True),
        "skip": Scene(folder / "skip", overwrite=True, bad=3),
    }


def interrupt(scene: Scene, number: int, act: Callable[[], None]) -> bool:
    """Break a run off at its ``number``-th change, then resume it; return False if it has fewer."""
    scene.reset()

    def broken() -> None:
        at_change(number, act)
        scene.convert(overwrite=scene.overwrite)

    status = in_child(broken)
    if status == 0:
        return False
    assert status == (REFUSED if act is disk_full else -signal.SIGKILL), f"change {number}: exit {status}"
    assert in_child(scene.check_and_resume) == 0, f"change {number}"
    scene.verify(f"change {number}")
    return True


def points(folder: Path, every: int, act: Callable[[], None]) -> None:
    """Break runs off at every change of the disk."""
    for name, scene in scenes(folder).items():
        number = 1 + random.randrange(every)
        done = 0
        while interrupt(scene, number, act):
            number += every
            done += 1
        print(f"{name}: broken off at {done} of {number - 1} changes, each resumed to the same bytes", flush=True)


def writers(folder: Path, runs: int) -> None:
    """Start two conversions of one target at once: one makes the store, the other is refused."""
    for _ in range(runs):
        scene = Scene(Path(tempfile.mkdtemp(dir=folder)))
        scene.reset()
        start = time.monotonic() + 0.2

        def both(start: float = start, scene: Scene = scene) -> None:
            other = os.fork()
            time.sleep(max(0.0, start - time.monotonic()))
            status = 0
            try:
                scene.convert()
            except StoreError as error:
                status = REFUSED
                if not ("another process is writing it" in str(error) or "exists already" in str(error)):
                    raise
            if not other:
                os._exit(status)
            statuses = sorted([status, os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])])
            assert statuses == [0, REFUSED], statuses

        assert in_child(both) == 0
        scene.verify("two writers")
    print(f"two writers, {runs} times: one made the store, the other was refused", flush=True)


def readonly(folder: Path) -> None:
    """Read a store that may not be written, convert into its folder, repair it."""
    folder.chmod(0o755)
    scene = Scene(folder)
    scene.reset()
    scene.convert()
    quadcodec.open(scene.target)[0]  # what zarr loads late is loaded before the rights are gone
    shutil.copytree(scene.target, folder / "damaged.zarr")
    (folder / "damaged.zarr" / "labels" / "c" / "1" / "0" / "0").unlink()
    for path in (scene.place, folder, *scene.target.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def refused() -> None:
        if os.geteuid() == 0:
            os.setegid(65534)
            os.seteuid(65534)
        store = quadcodec.open(scene.target)
        assert [list(mask.shape) for mask in store] == store.sizes.tolist()
        assert validate(scene.target) == []
        assert repair(scene.target).findings == ()
        for work in (
            lambda: scene.convert(overwrite=True),
            lambda: scene.convert(scene.place / "other.zarr"),
            lambda: repair(folder / "damaged.zarr"),
        ):
            try:
                work()
            except StoreError as error:
                print(error)
            else:
                raise AssertionError("nothing was refused")

    assert in_child(refused) == 0
    folder.chmod(0o755)
    scene.place.chmod(0o755)
    scene.verify("read only")
    print("read only: read and validated, nothing written, every attempt refused in one line", flush=True)


def command(*arguments: object) -> list[str]:
    """Return the command line of ``quadcodec convert``."""
    run = "from quadcodec_cli.main import main; main()"
    return [sys.executable, "-c", run, "convert", *map(str, arguments), "--workers", "2"]


def survivors(session: int) -> list[int]:
    """Return the processes of a session that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def kill(folder: Path, runs: int) -> None:
    """Kill the command after random times, in turn without and with an older store in its place."""
    source = masks(folder / "masks", 320, 40)
    whole, older, place = folder / "whole.zarr", folder / "older.zarr", folder / "place"
    assert in_child(lambda: convert(plan_conversion(source, levels=3), older) and None) == 0
    start = time.monotonic()
    subprocess.run(command(source, whole), check=True, capture_output=True)
    seconds = time.monotonic() - start
    states: dict[str, int] = {}
    kills = 0
    for run in itertools.count():
        if kills == runs:
            break
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if run % 2:
            shutil.copytree(older, place / "out.zarr")
        arguments = (source, place / "out.zarr", *(["--overwrite"] if run % 2 else []))
        process = subprocess.Popen(
            command(*arguments), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0.2, 1) * seconds)
        process.kill()
        if process.wait() == 0:  # it was faster this time
            seconds *= 0.95
            continue
        kills += 1
        deadline = time.monotonic() + 20
        while left := survivors(process.pid):
            assert time.monotonic() < deadline, f"workers {left} outlive the run"
            time.sleep(0.02)
        state = " ".join(sorted(path.name for path in place.iterdir())) or "nothing"
        states[state] = states.get(state, 0) + 1
        if (place / "out.zarr").exists():
            assert tree(place / "out.zarr") in (tree(older), tree(whole)), f"run {run}: a store that is none of both"
        resumed = subprocess.run(command(*arguments[:2], "--resume"), capture_output=True, text=True)
        if resumed.returncode:  # the older store lies there, the new one was not begun
            assert "out.zarr" in state.split(), f"run {run}: {state}: {resumed.stderr}"
            assert any(text in resumed.stderr for text in NOT_BEGUN), f"run {run}: {state}: {resumed.stderr}"
            subprocess.run(command(*arguments), check=True, capture_output=True)
        names = sorted(path.name for path in place.iterdir())
        assert names == ["out.zarr"], f"run {run}: found {names}"
        assert tree(place / "out.zarr") == tree(whole), f"run {run}: another store"
    for state, count in sorted(states.items()):
        print(f"{count:4} kills left {state}")
    print(f"{kills} kills at random times: all resumed to the bytes of an unbroken run")


def main() -> None:
    """Run one of the trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", choices=["points", "full", "writers", "readonly", "kill"])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    quadcodec.encode(np.eye(9, dtype=np.uint8), levels=4)  # compiled before the forks
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.trial == "kill":
            kill(folder, arguments.runs)
            return
    with tempfile.TemporaryDirectory() as name, mock.patch.object(module, "choose_shard_size", return_value=2):
        folder = Path(name)
        if arguments.trial == "readonly":
            readonly(folder)
        elif arguments.trial == "writers":
            writers(folder, arguments.runs)
        else:
            points(folder, arguments.every, kill_self if arguments.trial == "points" else disk_full)


if __name__ == "__main__":
    main()
