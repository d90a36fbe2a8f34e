"""Kills, full disks and two writers, a handful of each; `tests/crash_harness.py` has them all."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import quadcodec
from quadcodec import convert as module
from quadcodec.build import clear_replaced, create, is_label_store, remove_store
from quadcodec.convert import convert, plan_conversion
from quadcodec.errors import StoreError
from quadcodec.files import beside, exclusive, write_atomic
from quadcodec.info import Columns, StoreInfo
from quadcodec.store import partial_path

from .conftest import blocks
from .crash_harness import masks, tree


@pytest.mark.parametrize(
    "trial",
    ["points --every 60", "full --every 60", "writers --runs 2", "kill --runs 1", "readonly"],
    ids=lambda trial: trial.split()[0],
)
def test_broken_off_runs_end_in_the_bytes_of_an_unbroken_one(trial):
    run = subprocess.run(
        [sys.executable, "-m", "tests.crash_harness", *trial.split()],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_target_that_another_process_writes_is_refused(tmp_path):
    root, target = masks(tmp_path / "masks", 3, 9), tmp_path / "out.zarr"
    with exclusive(target):
        for work in (
            lambda: convert(plan_conversion(root), target),
            lambda: convert(plan_conversion(root), target, overwrite=True),
            lambda: quadcodec.write(target, [np.zeros((2, 2), np.uint8)]),
        ):
            with pytest.raises(StoreError, match=r"another process is writing it\. Wait until it ends"):
                work()
        assert [p.name for p in tmp_path.iterdir() if p != root] == ["out.zarr.lock"]
    convert(plan_conversion(root), target)
    assert not beside(target, ".lock").exists()


def test_a_lock_that_a_kill_left_bars_nobody(tmp_path):
    beside(tmp_path / "out.zarr", ".lock").touch()
    quadcodec.write(tmp_path / "out.zarr", [np.zeros((2, 2), np.uint8)])
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr"]


def test_a_lock_is_taken_anew_when_its_file_was_deleted_meanwhile(tmp_path, monkeypatch):
    """The one who held it deletes it: who has just opened that file must not take it for the lock."""
    lock, real, calls = beside(tmp_path / "x", ".lock"), fcntl.flock, []

    def flock(descriptor, how):
        calls.append(os.fstat(descriptor).st_ino)
        if len(calls) == 1:
            lock.unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(tmp_path / "x"):
        assert lock.stat().st_ino == calls[-1]
    assert len(calls) == 2


def test_a_file_system_without_locks_can_be_written(tmp_path, monkeypatch):
    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert len(quadcodec.write(tmp_path / "out.zarr", [np.zeros((2, 2), np.uint8)])) == 1


def test_an_interrupted_overwrite_stays_one_when_a_mask_is_left_out(tmp_path, monkeypatch):
    root, target = masks(tmp_path / "masks", 150, 9), tmp_path / "out.zarr"
    convert(plan_conversion(root, levels=3), target)
    real = module._convert_shard
    with monkeypatch.context() as patch:
        patch.setattr(module, "_convert_shard", lambda task: 1 / 0 if task.shard == 2 else real(task))
        with pytest.raises(ZeroDivisionError):
            convert(plan_conversion(root), target, overwrite=True)
    bad = root / "0140.png"
    bad.write_bytes(bad.read_bytes()[:-30])
    report = convert(plan_conversion(root, skip_bad=True), target, resume=True, skip_bad=True)
    assert [p.path for p in report.skipped] == ["0140.png"]
    assert len(quadcodec.open(target)) == 149
    convert(plan_conversion(root, skip_bad=True), tmp_path / "whole.zarr", skip_bad=True)
    assert tree(target) == tree(tmp_path / "whole.zarr")


def test_a_store_that_appears_meanwhile_is_never_replaced_without_being_told(tmp_path, monkeypatch):
    root, target = masks(tmp_path / "masks", 3, 9), tmp_path / "out.zarr"
    real = module._convert_shard

    def meanwhile(task):
        target.mkdir()
        (target / "thesis.txt").write_text("thesis")
        return real(task)

    monkeypatch.setattr(module, "_convert_shard", meanwhile)
    with pytest.raises(StoreError, match=r"exists already\. Move it away, then run again with --resume"):
        convert(plan_conversion(root), target)
    assert (target / "thesis.txt").read_text() == "thesis"
    (target / "thesis.txt").unlink()
    target.rmdir()
    convert(plan_conversion(root), target, resume=True)


def test_what_a_power_cut_left_empty_is_ours_to_delete_and_nothing_else(tmp_path):
    partial = partial_path(tmp_path / "out.zarr")
    (partial / "index" / "name").mkdir(parents=True)
    for file in ("zarr.json", "index/zarr.json", "index/name/zarr.json", "index/name/zarr.0a1b.partial"):
        (partial / file).touch()
    assert is_label_store(partial)
    (partial / "notes.txt").write_text("thesis")
    assert not is_label_store(partial)
    with pytest.raises(StoreError, match="is not a label store"):
        remove_store(partial)
    old = tmp_path / "out.zarr.replaced"
    old.mkdir()
    clear_replaced(tmp_path / "out.zarr")  # its last folder, when the kill came there
    assert not old.exists()


def test_a_new_file_and_its_new_folders_are_synced_after_the_rename(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.name, (tmp_path / "a" / "b" / "file").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomic(tmp_path / "a" / "b" / "file", b"x")
    assert synced[0] == (f".file.{os.getpid()}.partial", False)
    assert set(synced[1:]) == {("b", True), ("a", True), (tmp_path.name, True)}


def test_everything_is_synced_before_a_store_gets_its_name(tmp_path, monkeypatch):
    synced, real = {}, os.fsync

    def fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced[path] = (tmp_path / "out.zarr").exists()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    quadcodec.write(tmp_path / "out.zarr", [blocks(i, 9, 9) for i in range(3)])
    files = [p.relative_to(tmp_path / "out.zarr") for p in (tmp_path / "out.zarr").rglob("*")]
    before = {path for path, named in synced.items() if not named}
    partial = partial_path(tmp_path / "out.zarr")
    for file in files:
        if file not in (Path("zarr.json"), Path("labels/c/0/0/0")):  # synced under their temporary names
            assert partial / file in before, file
    assert synced[tmp_path] is True  # and then its name


def test_the_description_gets_to_the_disk_after_all_that_it_describes(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    partial, one = tmp_path / "out.zarr.partial", np.array([[4, 4]], np.uint32)
    columns = Columns(("a",), ("all",), ("a",), ("",), ("png:L",))
    create(partial, StoreInfo(dataset="d", splits=("all",)), columns, one, np.dtype(np.uint8))
    last = synced.index(partial / f".zarr.json.{os.getpid()}.partial")
    assert {p for p in partial.rglob("*") if p.name != "zarr.json" or p.parent != partial} <= set(synced[:last])
