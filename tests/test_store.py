import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr

import quadcodec
from quadcodec.build import write_shard
from quadcodec.errors import CorruptRecordError, StoreError, UnsupportedVersionError
from quadcodec.repair import accept
from quadcodec.shard import pack_shard, shard_path
from quadcodec.store import ClassInfo, partial_path
from quadcodec.zarr_codec import QuadtreeCodec

from .conftest import blocks


@pytest.fixture
def arrays():
    return [blocks(i, 20 + 3 * i % 40, 30 + 5 * i % 50) for i in range(70)]


@pytest.fixture
def store(tmp_path, arrays):
    classes = [ClassInfo(0, "sky", (1, 2, 3), 0), ClassInfo(1, "road")]
    return quadcodec.write(
        tmp_path / "out.zarr", arrays, splits=["train"] * 60 + ["val"] * 10, classes=classes, void=[4]
    )


def test_masks_come_back_exactly(store, arrays):
    assert len(store) == len(arrays) == 70
    for mask, out in zip(arrays, store, strict=True):
        np.testing.assert_array_equal(out, mask)
        assert out.dtype == mask.dtype
    np.testing.assert_array_equal(store.quadtree(5).to_mask(), arrays[5])
    np.testing.assert_array_equal(store.pyramid(5).level(2), quadcodec.TPyramid.from_mask(arrays[5]).level(2))
    np.testing.assert_array_equal(quadcodec.decode(store.record(69)), arrays[69])
    assert store.sizes.tolist() == [list(a.shape) for a in arrays]


def test_plain_zarr_reads_them_without_an_import_of_ours(store, arrays):
    code = (
        "import sys, zarr, numpy as np\n"
        f"labels = zarr.open({str(store.path)!r}, mode='r')['labels']\n"
        "assert 'quadcodec.store' not in sys.modules\n"
        "np.save(sys.argv[1], labels[:])\n"
    )
    out = store.path.parent / "all.npy"
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", code, str(out)], check=True)
    labels = np.load(out)
    for mask, chunk in zip(arrays, labels, strict=True):
        height, width = mask.shape
        np.testing.assert_array_equal(chunk[:height, :width], mask)
        assert (chunk[height:] == 4).all()
        assert (chunk[:, width:] == 4).all()


def test_names_splits_and_classes(store):
    assert store.names[:2] == ("000000", "000001")
    assert store.splits.count("val") == 10
    assert store.indices("val").tolist() == list(range(60, 70))
    assert store.classes[0] == ClassInfo(0, "sky", (1, 2, 3), 0)
    assert store.info.void == (4,)
    assert store.find("000003") == store.find("3") == 3
    with pytest.raises(StoreError, match="image 'x' does not exist"):
        store.find("x")
    with pytest.raises(StoreError, match="split 'test' does not exist, expected one of"):
        store.indices("test")
    with pytest.raises(IndexError, match=r"outside 0\.\.69"):
        store[70]


def test_labels_array_has_dimensions_and_shards(store):
    labels = zarr.open(str(store.path), mode="r")["labels"]
    assert labels.metadata.dimension_names == ("image", "y", "x")
    assert labels.shards == (64, *labels.shape[1:])
    assert labels.chunks == (1, *labels.shape[1:])


def test_shards_are_those_that_zarr_writes(tmp_path):
    masks = np.stack([blocks(i, 40, 50) + 1 for i in range(5)])
    group = zarr.create_group(str(tmp_path / "zarr.zarr"))
    array = group.create_array(
        "labels", shape=masks.shape, dtype="u1", chunks=(1, 40, 50), shards=(8, 40, 50),
        serializer=QuadtreeCodec(), filters=None, compressors=None, fill_value=0,
    )  # fmt: skip
    array[...] = masks
    ours = pack_shard([quadcodec.encode(mask) for mask in masks], 8)
    assert (tmp_path / "zarr.zarr" / "labels" / "c" / "0" / "0" / "0").read_bytes() == ours


def test_a_mask_that_zarr_drops_as_fill_value_is_read(tmp_path):
    masks = [blocks(i, 16, 16) for i in range(3)]
    store = quadcodec.write(tmp_path / "out.zarr", masks, void=[9])
    zarr.open(str(store.path), mode="r+")["labels"][1] = np.full((16, 16), 9, np.uint8)
    store = quadcodec.open(store.path)
    np.testing.assert_array_equal(store[1], np.full((16, 16), 9))
    np.testing.assert_array_equal(store[2], masks[2])
    assert store.stored_bytes(1) == 0


def test_sixteen_bit_masks_and_mixed_types(tmp_path):
    masks = [np.full((3, 4), 40000, np.uint16), blocks(0, 9, 9)]
    store = quadcodec.write(tmp_path / "out.zarr", masks)
    assert [m.dtype for m in store] == [np.uint16, np.uint8]
    for mask, out in zip(masks, store, strict=True):
        np.testing.assert_array_equal(mask, out)
    assert zarr.open(str(store.path), mode="r")["labels"].dtype == np.uint16


def _read(args):
    store, index = args
    return store[index].tobytes()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_in_other_processes(store, arrays, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    store[0]
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(_read, [(store, i) for i in (3, 66)]) == [arrays[3].tobytes(), arrays[66].tobytes()]
    assert len(pickle.loads(pickle.dumps(store))) == 70


def test_reading_leaks_no_descriptor(store):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for i in range(len(store)):
        store.record(i)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_is_no_store_is_refused(tmp_path, store):
    with pytest.raises(StoreError, match="found nothing here"):
        quadcodec.open(tmp_path / "none.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="found no zarr v3 group"):
        quadcodec.open(tmp_path / "folder")
    zarr.create_group(str(tmp_path / "other.zarr"))
    with pytest.raises(StoreError, match="not a label store"):
        quadcodec.open(tmp_path / "other.zarr")


def edit(store, **values):
    group = zarr.open_group(str(store.path), mode="r+")
    group.attrs["quadcodec"] = {**group.attrs["quadcodec"], **values}


def test_an_incomplete_store_is_refused(store):
    edit(store, complete=False)
    with pytest.raises(StoreError, match=r"not complete. Run 'quadcodec convert' again with --resume"):
        quadcodec.open(store.path)
    store.path.rename(partial_path(store.path))
    with pytest.raises(StoreError, match="an unfinished conversion"):
        quadcodec.open(store.path)


@pytest.mark.parametrize("version", [7, -1, True, "0", None])
def test_a_newer_store_is_refused_by_name(store, version):
    edit(store, format_version=version)
    with pytest.raises(UnsupportedVersionError, match=rf"found format version {version!r}, expected 1\.\.1\. Update"):
        quadcodec.open(store.path)


def test_attributes_that_came_later_or_are_wrong(store):
    edit(store, later={"a": 0.5})
    accept(store.path)
    assert len(quadcodec.open(store.path)) == 70
    edit(store, checksums=None)
    with pytest.raises(StoreError, match=r"not those of a label store \(no checksums\)"):
        quadcodec.open(store.path)


@pytest.mark.parametrize("profile", ["fast", "small"])
@pytest.mark.parametrize("levels", [2, 3, 6, 10])
def test_every_setting_reads_back_through_every_reader(tmp_path, arrays, levels, profile):
    store = quadcodec.write(tmp_path / "out.zarr", arrays[:3], levels=levels, profile=profile)
    assert (store.info.levels, store.info.profile) == (levels, profile)
    labels = zarr.open(str(store.path), mode="r")["labels"]
    for i, mask in enumerate(arrays[:3]):
        np.testing.assert_array_equal(store[i], mask)
        np.testing.assert_array_equal(labels[i][: mask.shape[0], : mask.shape[1]], mask)
        assert store.quadtree(i).levels == levels
        np.testing.assert_array_equal(store.quadtree(i).nodes, quadcodec.LinearQuadtree.from_mask(mask, levels).nodes)


def test_records_of_other_settings_than_the_store_says_are_never_misread(tmp_path, arrays):
    """Another profile is read; other levels are refused where they would matter."""
    store = quadcodec.write(tmp_path / "out.zarr", arrays[:3])
    others = [
        quadcodec.encode(arrays[0], profile="small"),
        quadcodec.encode(arrays[1], levels=3),
        quadcodec.encode(arrays[2], levels=3, profile="small"),
    ]
    write_shard(store.path, 0, others, 64)
    store = quadcodec.open(store.path)
    for i in range(3):
        np.testing.assert_array_equal(store[i], arrays[i])
    assert store.quadtree(0).levels == 6
    for i in (1, 2):
        with pytest.raises(CorruptRecordError, match="has 3 levels, the store says 6"):
            store.quadtree(i)


def test_an_unknown_profile_is_refused(store):
    edit(store, profile="tiny")
    with pytest.raises(StoreError, match="profile 'tiny'"):
        quadcodec.open(store.path)


def test_a_damaged_record_is_named(store):
    path = shard_path(store.path, 0)
    offset = int(store.shard_index(0)[2, 0])
    data = bytearray(path.read_bytes())
    data[offset + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptRecordError, match=r"out\.zarr: record 2 '000002': .* Run 'quadcodec validate --deep'"):
        store[2]
    store[3]


@pytest.mark.parametrize("damage", ["missing", "short", "index"])
def test_a_damaged_shard_is_named(store, damage):
    path = shard_path(store.path, 1)
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:50] if damage == "short" else data[:-6] + bytes(6))
    with pytest.raises(StoreError, match=r"labels/c/1/0/0: the shard"):
        quadcodec.open(store.path)[65]


def test_writing_refuses_what_it_cannot_hold(tmp_path, store):
    with pytest.raises(StoreError, match="exists already"):
        quadcodec.write(store.path, [np.zeros((1, 1), np.uint8)])
    with pytest.raises(StoreError, match="no masks to write"):
        quadcodec.write(tmp_path / "none.zarr", [])
    with pytest.raises(StoreError, match="1 masks, 2 names"):
        quadcodec.write(tmp_path / "none.zarr", [np.zeros((1, 1), np.uint8)], names=["a", "b"])
    assert not (tmp_path / "none.zarr").exists()


def test_names_in_two_splits_need_their_number(tmp_path):
    masks = [np.zeros((2, 2), np.uint8)] * 2
    store = quadcodec.write(tmp_path / "out.zarr", masks, names=["a", "a"], splits=["train", "val"])
    with pytest.raises(StoreError, match=r"image 'a' is in several splits\. Name it by its number, one of \[0, 1\]"):
        store.find("a")
    assert store.find("1") == 1
    with pytest.raises(StoreError, match="a name stands twice in a split"):
        quadcodec.write(tmp_path / "twice.zarr", masks, names=["a", "a"])


def test_classes_may_be_names_by_id(tmp_path):
    store = quadcodec.write(tmp_path / "out.zarr", [np.zeros((2, 2), np.uint8)], classes={1: "road", 0: "sky"})
    assert store.classes == (ClassInfo(0, "sky"), ClassInfo(1, "road"))


def test_a_void_id_that_the_masks_cannot_hold_is_kept(tmp_path):
    store = quadcodec.write(tmp_path / "out.zarr", [np.zeros((2, 2), np.uint8)], void=[300])
    assert (store.info.void, store.fill_value) == ((300,), 0)


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="levels is 12"):
        quadcodec.write(tmp_path / "out.zarr", [np.zeros((2, 2), np.uint8)], levels=12)
    assert list(tmp_path.iterdir()) == []


def test_a_wide_record_in_a_narrow_array_is_refused(tmp_path):
    store = quadcodec.write(tmp_path / "out.zarr", [np.zeros((2, 2), np.uint8)])
    write_shard(store.path, 0, [quadcodec.encode(np.full((2, 2), 300, np.uint16))], 64)
    with pytest.raises(StoreError, match="a record of 16-bit ids lies in an array of uint8"):
        zarr.open(str(store.path), mode="r")["labels"][0]


def test_a_full_disk_leaves_the_old_shard(store, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    before = shard_path(store.path, 0).read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"):
        write_shard(store.path, 0, [b"new"], 64)
    assert shard_path(store.path, 0).read_bytes() == before
    assert [p.name for p in shard_path(store.path, 0).parent.iterdir()] == ["0"]
