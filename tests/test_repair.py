"""Repair: the bytes that were written, or a finding; nothing deleted."""

import json
import random
import shutil

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from PIL import Image

import quadcodec
from quadcodec.convert import convert, plan_conversion
from quadcodec.errors import CorruptRecordError, StoreError
from quadcodec.repair import accept, repair
from quadcodec.shard import pack_shard, shard_path
from quadcodec.validate import validate
from quadcodec_cli.main import cli

from .conftest import blocks


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of 130 masks, three shards, and its store."""
    folder = tmp_path_factory.mktemp("repair")
    (folder / "masks" / "train").mkdir(parents=True)
    for i in range(130):
        Image.fromarray(blocks(i, 9 + i % 5, 12)).save(folder / "masks" / "train" / f"{i:03d}.png")
    convert(plan_conversion(folder / "masks", void=[255]), folder / "out.zarr")
    return folder


@pytest.fixture
def path(made, tmp_path):
    return shutil.copytree(made / "out.zarr", tmp_path / "out.zarr")


def tree(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 16
    file.write_bytes(data)


def swap(one, two):
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


def swap_records(path):
    store = quadcodec.open(path)
    records = [store.record(i) for i in range(64)]
    records[3], records[9] = records[9], records[3]
    shard_path(path, 0).write_bytes(pack_shard(records, 64))


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=2))


WITHOUT_SOURCE = {
    "a shard's index": lambda p: flip(shard_path(p, 1), -9),
    "a cut shard": lambda p: shard_path(p, 2).write_bytes(shard_path(p, 2).read_bytes()[:-500]),
    "swapped shards": lambda p: swap(shard_path(p, 0), shard_path(p, 1)),
    "swapped records": swap_records,
    "a gap before the records": lambda p: shard_path(p, 1).write_bytes(b"QDTR" + shard_path(p, 1).read_bytes()),
    "checksums": lambda p: shutil.rmtree(p / "index" / "checksum"),
    "sizes": lambda p: flip(p / "index" / "size" / "c" / "0" / "0", 20),
    "sizes and a shard's index": lambda p: (shutil.rmtree(p / "index" / "size"), flip(shard_path(p, 1), -9)),
    "checksums and a shard's index": lambda p: (shutil.rmtree(p / "index" / "checksum"), flip(shard_path(p, 1), -9)),
    "the labels' metadata": lambda p: flip(p / "labels" / "zarr.json", 25),
    "the index's metadata": lambda p: (p / "index" / "zarr.json").unlink(),
    "the checksum of the sizes": lambda p: edit(
        p / "zarr.json", lambda d: d["attributes"]["quadcodec"]["checksums"].update({"index/size": 1})
    ),
}
WITH_SOURCE = {
    "a record": lambda p: flip(shard_path(p, 1), 700),
    "a missing shard": lambda p: shard_path(p, 0).unlink(),
    "names": lambda p: flip(p / "index" / "name" / "c" / "0", 40),
    "sources and forms": lambda p: [shutil.rmtree(p / "index" / name) for name in ("source", "form")],
    "a missing shard and the checksums": lambda p: (shard_path(p, 0).unlink(), shutil.rmtree(p / "index" / "checksum")),
}


@pytest.mark.parametrize("what", [*WITHOUT_SOURCE, *WITH_SOURCE])
def test_what_is_damaged_gets_its_bytes_back(made, path, what):
    (WITHOUT_SOURCE | WITH_SOURCE)[what](path)
    damaged = tree(path)
    assert validate(path) != []
    if what in WITH_SOURCE:
        before = tree(path)
        assert repair(path).findings != ()  # nothing to derive it from
        assert what != "names" or tree(path) == before
    result = repair(path, source=made / "masks" if what in WITH_SOURCE else None)
    assert result.findings == ()
    assert result.rebuilt != ()
    assert tree(path) == tree(made / "out.zarr")
    aside = tree(path.with_name("out.zarr.damaged")) if result.set_aside else {}
    lost = {name for name in damaged if damaged[name] != tree(path)[name]}
    assert lost <= {name for name in aside if aside[name] == damaged[name]}
    names = sorted(p.name for p in path.parent.iterdir())
    assert names in (["out.zarr"], ["out.zarr", "out.zarr.damaged"])


def test_a_store_with_tables_of_its_own(made, tmp_path):
    path = tmp_path / "out.zarr"
    convert(plan_conversion(made / "masks", profile="small", own_tables=True), path)
    before = tree(path)
    flip(shard_path(path, 0), 30)
    flip(shard_path(path, 2), -9)
    shutil.rmtree(path / "index" / "checksum")
    result = repair(path, source=made / "masks")
    assert (result.findings, tree(path)) == ((), before)
    edit(path / "labels" / "zarr.json", lambda d: d.update(fill_value=9))
    assert repair(path).findings == ()
    edit(path / "zarr.json", lambda d: d["attributes"]["quadcodec"].update(void=[7]))
    accept(path)
    assert validate(path, deep=True) == []


def test_what_cannot_be_proved_is_left_alone_and_named(made, path, tmp_path):
    flip(shard_path(path, 1), 700)
    flip(shard_path(path, 2), -9)
    masks = shutil.copytree(made / "masks", tmp_path / "masks")
    for file in sorted((masks / "train").iterdir())[64:128]:
        Image.fromarray(1 - np.minimum(np.asarray(Image.open(file)), 1)).save(file)
    for _ in range(2):
        result = repair(path, source=masks)
        (finding,) = result.findings
        assert "is not the one written here" in finding.found or "contradicts its checksum" in finding.found
    assert result.rebuilt == ()  # the second time
    store = quadcodec.open(path)
    np.testing.assert_array_equal(store[129], blocks(129, 9 + 129 % 5, 12))


def test_a_shard_of_which_some_records_are_lost_gives_the_others(path):
    data = bytearray(shard_path(path, 1).read_bytes())
    data[40:45] = b"?????"
    data[-9] ^= 1
    shard_path(path, 1).write_bytes(data)
    result = repair(path)
    assert "(without 1 of 64 records)" in result.rebuilt[0]
    (finding,) = result.findings
    assert "record 64 'train/064'" in finding.where
    np.testing.assert_array_equal(quadcodec.open(path)[65], blocks(65, 9, 12))
    with pytest.raises(CorruptRecordError, match="record 64 'train/064'"):
        quadcodec.open(path)[64]


def test_several_repairs_keep_every_damaged_file(path):
    for _ in range(2):
        flip(shard_path(path, 1), -9)
        assert repair(path).findings == ()
    aside = path.with_name("out.zarr.damaged") / "labels" / "c" / "1" / "0"
    assert sorted(p.name for p in aside.iterdir()) == ["0", "0.1"]


def test_changes_on_purpose_are_accepted_when_told(path):
    edit(path / "zarr.json", lambda d: d["attributes"]["quadcodec"].update(void=[7], image_root="/new"))
    with pytest.raises(StoreError, match=r"its description is not what was written\..*--accept"):
        repair(path)
    zarr.open(str(path), mode="r+")["labels"][2] = np.full((13, 12), 255, np.uint8)  # left out: the fill value
    zarr.open(str(path), mode="r+")["labels"][3] = np.full((13, 12), 6, np.uint8)
    with pytest.raises(
        CorruptRecordError, match=r"'train/003': 13 x 12 pixels in 6 levels, the store says 12 x 12 in 6"
    ):
        accept(path)
    zarr.open(str(path), mode="r+")["labels"][3] = np.full((13, 12), 255, np.uint8)
    accept(path)
    assert validate(path, deep=True) == []
    store = quadcodec.open(path)
    assert (store.info.void, store.info.image_root, store.checksums[2:4].tolist()) == ((7,), "/new", [0, 0])
    assert (store[2] == 255).all()
    flip(shard_path(path, 1), -9)
    assert repair(path).findings == ()
    assert (quadcodec.open(path)[2] == 255).all()


def test_a_store_that_is_locked_or_none_is_refused(path, tmp_path):
    from quadcodec.files import exclusive

    flip(shard_path(path, 1), -9)
    with exclusive(path), pytest.raises(StoreError, match="another process is writing it"):
        repair(path)
    with pytest.raises(StoreError, match="found nothing here"):
        repair(tmp_path / "none.zarr")


def test_any_flipped_bit_is_mended_or_named(made, path):
    """With the sources everything but the description comes back, whichever bit of whichever file was flipped."""
    rng = random.Random(2)
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        whole = file.read_bytes()
        flip(file, rng.randrange(len(whole)))
        if validate(path):
            try:
                assert repair(path, source=made / "masks").findings == (), file
            except StoreError:
                assert file == path / "zarr.json"
            else:
                assert quadcodec.open(path).columns == quadcodec.open(made / "out.zarr").columns
        file.write_bytes(whole)
        assert validate(path) == []


@pytest.mark.parametrize("kind", ["..", "absolute", "link"])
def test_no_source_outside_its_folder_is_read(tmp_path, kind):
    """A store whose source paths lead elsewhere, its checksums right: a hostile writer's."""
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "secret.npy", blocks(1, 9, 9))
    (tmp_path / "masks" / "link.npy").symlink_to(tmp_path / "secret.npy")
    name = {"..": "../secret", "absolute": str(tmp_path / "secret"), "link": "link"}[kind]
    store = quadcodec.write(tmp_path / "out.zarr", [blocks(1, 9, 9)], names=[name])
    flip(shard_path(store.path, 0), 40)
    result = repair(store.path, source=tmp_path / "masks")
    assert (result.rebuilt, len(result.findings)) == ((), 1)
    if kind == "link":
        shutil.copy(tmp_path / "secret.npy", tmp_path / "file.npy")
        (tmp_path / "file.npy").replace(tmp_path / "masks" / "link.npy")
        assert repair(store.path, source=tmp_path / "masks").findings == ()


def test_the_command(made, path):
    flip(shard_path(path, 1), 700)
    result = CliRunner().invoke(cli, ["repair", str(path)])
    assert result.exit_code == 1
    assert "record" in result.output
    result = CliRunner().invoke(cli, ["repair", str(path), "--source", str(made / "masks"), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output)["rebuilt"] == [str(shard_path(path, 1))]
    result = CliRunner().invoke(cli, ["repair", str(path)])
    assert (result.exit_code, result.output) == (0, f"{path}: no fault found\n")
    assert CliRunner().invoke(cli, ["repair", str(path), "--accept"]).exit_code == 0
    assert tree(path) == tree(made / "out.zarr")
    assert CliRunner().invoke(cli, ["repair", str(path), "--accept", "--source", "x"]).exit_code == 2
