"""Export: all masks or none, under a name that only a whole export has."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import quadcodec
from quadcodec import files
from quadcodec.errors import CorruptRecordError, MaskError, StoreError
from quadcodec.export import export_masks
from quadcodec.masks import read_mask

from .conftest import blocks

COUNT = 5


@pytest.fixture
def store(tmp_path):
    masks = [blocks(i, 20, 30) for i in range(COUNT)]
    return quadcodec.write(tmp_path / "in" / "out.zarr", masks, names=[f"a/{i}" for i in range(COUNT)])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "to").mkdir()
    return tmp_path / "to" / "png"


def is_whole(store, folder):
    written = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert written == sorted(store.columns.source)
    for source, mask in zip(store.columns.source, store, strict=True):
        np.testing.assert_array_equal(read_mask(folder / source), mask)
    assert list(folder.parent.iterdir()) == [folder]


def damage(store, index):
    """Flip a bit in the middle of a record."""
    path = next(p for p in (store.path / "labels").rglob("*") if p.is_file() and p.name != "zarr.json")
    data, record = bytearray(path.read_bytes()), store.record(index)
    data[data.index(record) + len(record) // 2] ^= 1
    whole = path.read_bytes()
    path.write_bytes(data)
    return lambda: path.write_bytes(whole)


@pytest.mark.parametrize("empty", [False, True])
def test_into_a_new_or_an_empty_folder(store, folder, empty):
    if empty:
        folder.mkdir()
    seen = []
    count = export_masks(store, folder, lambda n: seen.append([p.name for p in folder.parent.iterdir()]))
    assert count == len(seen) == COUNT
    assert all("png.partial" in names for names in seen)
    assert all(("png" in names) == empty for names in seen)
    is_whole(store, folder)


def test_through_a_link_and_with_a_relative_name(store, folder, monkeypatch):
    folder.mkdir()
    (folder.parent.parent / "link").symlink_to(folder)
    export_masks(store, folder.parent.parent / "link")
    is_whole(store, folder)
    shutil.rmtree(folder)
    monkeypatch.chdir(folder.parent)
    export_masks(store, "png")
    is_whole(store, folder)


@pytest.mark.parametrize("empty", [False, True])
def test_a_corrupt_record_leaves_nothing_and_does_not_bar_the_way(store, folder, empty):
    if empty:
        folder.mkdir()
    mend, done = damage(store, 2), []
    for _ in range(2):
        with pytest.raises(CorruptRecordError, match="record 2"):
            export_masks(store, folder, done.append)
        assert list(folder.parent.rglob("*")) == [folder] * empty
    assert len(done) == 4
    mend()
    export_masks(store, folder)
    is_whole(store, folder)


@pytest.mark.parametrize(
    ("kind", "becomes"), [(OSError(28, "No space left"), MaskError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_full_disk_and_an_interrupt_leave_nothing(store, folder, monkeypatch, kind, becomes):
    def full(path, data):
        if path.name.startswith("3"):
            assert len(list(path.parent.iterdir())) == 3
            raise kind
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr("quadcodec.masks.write_atomic", full)
    with pytest.raises(becomes):
        export_masks(store, folder)
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_lies_there_is_kept(store, folder, kind):
    mine = folder if kind == "file" else folder / "thesis.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("thesis")
    with pytest.raises(StoreError, match=r"png: exists already\. Choose a folder that is new or empty"):
        export_masks(store, folder)
    assert mine.read_text() == "thesis"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_killed_run_is_replaced(store, folder, monkeypatch):
    monkeypatch.setattr(files.shutil, "rmtree", lambda *a, **k: None)  # what a kill leaves behind
    with pytest.raises(ZeroDivisionError):
        export_masks(store, folder, lambda n: 1 / 0)
    monkeypatch.undo()
    (partial,) = folder.parent.iterdir()
    (partial / "stale.png").write_bytes(b"")
    export_masks(store, folder)
    is_whole(store, folder)


def test_a_folder_of_the_user_is_not_taken_for_ours(store, folder):
    mine = folder.with_name("png.partial") / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("thesis")
    with pytest.raises(StoreError, match=r"png\.partial: is in the way, and quadcodec did not make it"):
        export_masks(store, folder)
    assert mine.read_text() == "thesis"
    assert not folder.exists()


def test_two_runs_at_once_do_not_make_a_folder_with_holes(store, folder):
    def second(_):
        if not folder.exists():
            export_masks(store, folder)

    with pytest.raises(StoreError, match="png: "):
        export_masks(store, folder, second)
    is_whole(store, folder)


def test_the_first_run_to_end_does_not_take_the_half_of_a_second(folder):
    first, second = files.new_folder(folder), files.new_folder(folder)
    first.__enter__()
    second.__enter__()
    with pytest.raises(StoreError, match="png: another run writes it, too"):
        first.__exit__(None, None, None)
    with pytest.raises(StoreError, match="png: was not written"):
        second.__exit__(None, None, None)
    assert list(folder.parent.iterdir()) == []


def test_the_current_folder_is_not_pulled_away(store, folder, monkeypatch):
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(StoreError, match="cannot be replaced as a whole"):
        export_masks(store, ".")
    assert list(folder.parent.iterdir()) == [folder]
    with pytest.raises(StoreError, match="exists already"):
        export_masks(store, Path(os.sep))


def test_a_parent_that_is_a_file_is_one_clear_error(store, folder):
    folder.write_text("thesis")
    with pytest.raises(StoreError, match="was not written"):
        export_masks(store, folder / "png")
    assert folder.read_text() == "thesis"
