"""Tables of a store: trained on its masks, kept in its zarr.json, needed by every reader."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from PIL import Image

import quadcodec
from quadcodec import convert as module
from quadcodec.convert import convert, plan_conversion, worker_pool
from quadcodec.errors import FormatError, StoreError
from quadcodec.record import decode, decode_tree, encode
from quadcodec.store import partial_path
from quadcodec.table_training import train_on_masks
from quadcodec.tables import Tables, shipped
from quadcodec.validate import validate
from quadcodec.zarr_codec import QuadtreeCodec

from .conftest import blocks
from .test_convert import tree


@pytest.fixture
def many(tmp_path):
    """A plain folder of 140 small masks: three shards."""
    root = tmp_path / "many"
    root.mkdir()
    for i in range(140):
        Image.fromarray(waves(i)).save(root / f"{i:03d}.png")
    return root


def waves(i):
    """Return a mask whose boundaries are steep waves, as no set of the shipped tables has them."""
    y, x = np.mgrid[: 60 + i % 5, :70]
    return ((y * 3 + (x + i) % 9 * 5) // 40 % 3).astype(np.uint8)


def _read(store, i):
    return store[i]


def test_a_store_with_its_own_tables_through_every_reader(many, tmp_path):
    plan = plan_conversion(many, profile="small", own_tables=True)
    with worker_pool(plan, 2) as executor:
        report = convert(plan, tmp_path / "out.zarr", executor=executor)
    plain = convert(plan_conversion(many, profile="small"), tmp_path / "plain.zarr")
    assert report.stored_bytes < 0.8 * plain.stored_bytes
    store = quadcodec.open(tmp_path / "out.zarr")
    assert store.tables is not None
    assert quadcodec.open(plain.path).tables is None
    labels = zarr.open(str(store.path), mode="r")["labels"]
    for i, mask in enumerate(store):
        np.testing.assert_array_equal(mask, waves(i))
        np.testing.assert_array_equal(labels[i][: len(mask)], mask)
        np.testing.assert_array_equal(store.quadtree(i).to_mask(), mask)
    assert validate(store.path, deep=True) == []
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(_read, store, 3).result(), waves(3))


def test_the_record_needs_the_tables_of_its_store(many, tmp_path):
    convert(plan_conversion(many, profile="small", own_tables=True), tmp_path / "out.zarr")
    store = quadcodec.open(tmp_path / "out.zarr")
    record = store.record(5)
    np.testing.assert_array_equal(decode(record, tables=store.tables), waves(5))
    np.testing.assert_array_equal(decode(record, region=(3, 4, 9, 8), tables=store.tables), waves(5)[3:12, 4:12])
    assert encode(waves(5), profile="small", tables=store.tables) == record
    for call in (decode, decode_tree):
        with pytest.raises(FormatError, match="none were given"):
            call(record)
        with pytest.raises(FormatError, match="those given have"):
            call(record, tables=shipped())


def edit_configuration(path, edit):
    file = path / "labels" / "zarr.json"
    metadata = json.loads(file.read_text())
    edit(metadata["codecs"][0]["configuration"]["codecs"][0]["configuration"])
    file.write_text(json.dumps(metadata))


def test_lost_wrong_and_damaged_tables_are_named(many, tmp_path):
    target = tmp_path / "out.zarr"
    convert(plan_conversion(many, profile="small", own_tables=True), target)
    text = quadcodec.open(target).tables.to_text()
    edit_configuration(target, lambda c: c.pop("tables"))
    with pytest.raises(StoreError, match="labels is not what was written"):
        quadcodec.open(target)
    assert validate(target)[0].where.endswith("labels")
    with pytest.raises(FormatError, match="none were given"):
        zarr.open(str(target), mode="r")["labels"][0]
    edit_configuration(target, lambda c: c.update(tables=shipped().to_text()))
    with pytest.raises(FormatError, match="those given have"):
        zarr.open(str(target), mode="r")["labels"][0]
    for bad in (text[:-8], "AAAA" + text[4:], "é", 7):
        edit_configuration(target, lambda c, bad=bad: c.update(tables=bad))
        with pytest.raises(StoreError, match=r"out\.zarr.*tables"):
            quadcodec.open(target)


def test_resume_takes_up_the_tables(many, tmp_path, monkeypatch):
    plan = plan_conversion(many, profile="small", own_tables=True)
    convert(plan, tmp_path / "whole.zarr")
    target, original, calls = tmp_path / "out.zarr", module._convert_shard, iter(range(2))

    def stop(task):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return original(task)

    monkeypatch.setattr(module, "_convert_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(plan, target)
    monkeypatch.setattr(module, "_convert_shard", original)
    kept = partial_path(target) / "labels" / "c" / "0" / "0" / "0"
    before = kept.stat().st_mtime_ns
    with pytest.raises(StoreError, match="was begun with tables of its own"):
        convert(plan_conversion(many, profile="small"), target, resume=True)
    monkeypatch.setattr(module, "train_on_masks", lambda masks: pytest.fail("trained again"))
    convert(plan, target, resume=True)
    assert (target / "labels" / "c" / "0" / "0" / "0").stat().st_mtime_ns == before
    assert tree(target) == tree(tmp_path / "whole.zarr")


def test_skipped_masks_do_not_stop_the_training(many, tmp_path):
    (many / "003.png").write_bytes((many / "003.png").read_bytes()[:60])
    plan = plan_conversion(many, profile="small", own_tables=True, skip_bad=True)
    report = convert(plan, tmp_path / "out.zarr", skip_bad=True)
    assert len(report.skipped) == 1
    np.testing.assert_array_equal(quadcodec.open(report.path)[3], waves(4))


def test_zarr_writes_with_the_tables_of_its_codec(tmp_path):
    masks = np.stack([blocks(i, 40, 50) + 1 for i in range(3)])
    tables = train_on_masks(masks)
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=masks.shape, dtype="u1", chunks=(1, 40, 50),
        serializer=QuadtreeCodec(profile="small", tables=tables), filters=None, compressors=None, fill_value=0,
    )  # fmt: skip
    array[...] = masks
    again = zarr.open_array(str(tmp_path / "a.zarr"), mode="r")
    np.testing.assert_array_equal(again[...], masks)
    stored = (tmp_path / "a.zarr" / "c" / "1" / "0" / "0").read_bytes()
    assert stored == encode(masks[1], profile="small", tables=tables)


def test_tables_are_one_object_a_process():
    tables = train_on_masks([waves(0)])
    assert tables != shipped()
    assert Tables.from_text(tables.to_text()) is tables
    assert pickle.loads(pickle.dumps(tables)) is tables
    assert len(pickle.dumps(tables)) < len(tables.packed) + 200
    codec = QuadtreeCodec(profile="small", tables=tables)
    assert QuadtreeCodec.from_dict(codec.to_dict()) == codec
    with pytest.raises(ValueError, match="read-only"):
        tables.states[0] = 0


def test_training_takes_no_more_masks_than_it_needs(monkeypatch):
    monkeypatch.setattr("quadcodec.table_training.SAMPLE_EDGES", 500)
    taken = []
    train_on_masks(taken.append(i) or waves(i) for i in range(100))
    assert 1 <= len(taken) < 5
    assert train_on_masks([np.zeros((9, 9), np.uint8)]).states.shape == shipped().states.shape


def test_the_command(many, tmp_path):
    from quadcodec_cli.main import cli

    run = CliRunner().invoke(
        cli, ["convert", str(many), str(tmp_path / "out.zarr"), "--profile", "small", "--own-tables"]
    )
    assert run.exit_code == 0, run.output
    assert quadcodec.open(tmp_path / "out.zarr").tables is not None
    run = CliRunner().invoke(cli, ["convert", str(many), str(tmp_path / "b.zarr"), "--own-tables"])
    assert run.exit_code == 2
    assert "--profile small" in run.output
    with pytest.raises(ValueError, match="only 'small'"):
        plan_conversion(many, own_tables=True)
