import json
import shutil

import google_crc32c
import numpy as np
import pytest
import zarr

import quadcodec
from quadcodec.build import create, finish, write_shard
from quadcodec.errors import CorruptRecordError, StoreError
from quadcodec.fast import read_layout
from quadcodec.info import COLUMNS, ClassInfo, Columns, Problem, StoreInfo
from quadcodec.kernels import codes
from quadcodec.shard import pack_shard, shard_path
from quadcodec.validate import validate

from .conftest import blocks


@pytest.fixture
def store(tmp_path):
    return quadcodec.write(tmp_path / "out.zarr", [blocks(i, 30 + i, 40) for i in range(70)])


def found(store, deep=False):
    return [f"{finding.where}: {finding.found}" for finding in validate(store.path, deep=deep)]


def test_a_sound_store_has_no_findings(store):
    assert found(store, deep=True) == []


@pytest.fixture
def described(tmp_path):
    """A store that uses every attribute and column, of both 8 and 16 bits."""
    masks = [blocks(i, 9 + i, 12) for i in range(66)]
    masks[3] = masks[3].astype(np.uint16) + 300
    info = StoreInfo(
        dataset="tests", splits=("train", "val"), classes=(ClassInfo(0, "Straße", (1, 2, 3), 0), ClassInfo(1, "b")),
        train_classes=("Straße",), void=(4, 255), image_root="/photos", published={"val": {"5": 50.0, "0": None}},
        skipped=(Problem("x.png", "x.png: the file is empty."),), levels=5,
    )  # fmt: skip
    names = tuple(f"{i:02d}" for i in range(66))
    columns = Columns(
        names, ("train",) * 60 + ("val",) * 6, tuple(f"{n}.png" for n in names), tuple(f"{n}.jpg" for n in names),
        ("png:L",) * 66,
    )  # fmt: skip
    partial, path = tmp_path / "out.zarr.partial", tmp_path / "out.zarr"
    create(partial, info, columns, np.array([m.shape for m in masks], np.uint32), np.dtype(np.uint16))
    for shard in range(2):
        write_shard(partial, shard, [quadcodec.encode(m, levels=5) for m in masks[64 * shard :][:64]], 64)
    finish(partial, path)
    return path


def files(path):
    return sorted(file for file in path.rglob("*") if file.is_file())


def meaning(path):
    """Return all that a reader may get out of a store, through ours and through plain zarr."""
    store = quadcodec.open(path)
    group = zarr.open_group(str(path), mode="r")
    arrays = {name: group[name] for name in ("labels", *(f"index/{n}" for n in (*COLUMNS, "size", "checksum")))}
    return (
        dict(group.attrs), store.info, store.columns, store.sizes.tolist(), store.checksums.tolist(), store.fill_value,
        [(mask.tolist(), str(mask.dtype)) for mask in store],
        {name: (array.dtype, array[...].tolist(), array.metadata.dimension_names) for name, array in arrays.items()},
    )  # fmt: skip


def test_a_flipped_bit_in_any_file_is_found_or_changes_nothing(described):
    before, rng, unnoticed = meaning(described), np.random.default_rng(1), 0
    assert len(files(described)) == 19
    for file in files(described):
        whole = file.read_bytes()
        for at in rng.choice(8 * len(whole), 12, replace=False).tolist():
            damaged = bytearray(whole)
            damaged[at // 8] ^= 1 << at % 8
            file.write_bytes(damaged)
            findings = validate(described)
            if not findings:
                unnoticed += 1
                assert meaning(described) == before, (file, at)
            elif file.parent != described:
                part = file.relative_to(described).parts[:2]
                named = "/".join(part).removesuffix("/zarr.json") if part[0] == "index" else "labels"
                assert any(named in f.where or "record" in f.where for f in findings), (file, at, findings)
        file.write_bytes(whole)
    assert unnoticed < 60  # of 228: white space in JSON, zstd's spare bits
    assert validate(described) == []


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "long"])
def test_a_damaged_file_of_any_kind_is_found(described, damage):
    for file in files(described):
        whole = file.read_bytes()
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes({"empty": b"", "short": whole[: len(whole) // 2], "long": whole + b"?"}[damage])
        findings = validate(described)
        if not findings:  # zstd and zarr ignore what stands behind
            assert (damage, file.relative_to(described).parts[0]) == ("long", "index"), file
        file.write_bytes(whole)


def test_a_foreign_file_a_folder_and_a_link(described, tmp_path):
    (described / "index" / "name" / "c" / "1").write_bytes(b"")
    (described / "labels" / "c" / "2" / "0").mkdir(parents=True)
    (described / "notes").mkdir()
    (described / "notes" / "a.txt").write_text("a")
    shard_path(described, 0).rename(tmp_path / "elsewhere")
    shard_path(described, 0).symlink_to(tmp_path / "elsewhere")
    lines = {f"{f.where.removeprefix(str(described))}: {f.found}" for f in validate(described)}
    assert lines == {
        "/index/name/c/1: is no part of this store: a foreign file",
        "/labels/c/2: is no part of this store: a foreign folder",
        "/notes: is no part of this store: a foreign folder",
        "/labels/c/0/0/0: is a link, expected a file or folder of the store",
    }


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_edited_metadata_and_a_stale_index(described, tmp_path):
    root, labels = described / "zarr.json", described / "labels" / "zarr.json"
    whole = root.read_bytes()
    for key, value in {"void": [4], "image_root": "/elsewhere", "levels": 6, "shard_size": 32, "spare": 1}.items():
        edit(root, lambda d, k=key, v=value: d["attributes"]["quadcodec"].update({k: v}))
        (finding,) = validate(described)
        assert (finding.where, finding.found) == (
            f"{described}/attributes", "is not what was written: its checksum differs"
        )  # fmt: skip
        with pytest.raises(StoreError, match="attributes is not what was written, its checksum differs"):
            quadcodec.open(described)
        root.write_bytes(whole)
    edit(labels, lambda d: d.update(fill_value=7))
    assert [f.where for f in validate(described)] == [f"{described}/labels"]
    edit(labels, lambda d: d.update(fill_value=4))
    edit(root, lambda d: d["attributes"].update(ome={"version": "0.5"}))  # free attributes, and JSON laid out anew
    edit(labels, lambda d: d["attributes"].update(unit="id"))
    assert validate(described) == []
    other = quadcodec.write(tmp_path / "other.zarr", [blocks(i, 9 + i, 12) for i in range(66)])
    for name in ("checksum", "name", "form"):
        kept = tmp_path / name
        (described / "index" / name).rename(kept)
        shutil.copytree(other.path / "index" / name, described / "index" / name)
        assert [f.where for f in validate(described)] == [f"{described}/index/{name}"]
        shutil.rmtree(described / "index" / name)
        kept.rename(described / "index" / name)


@pytest.mark.parametrize(("name", "shape"), [("size", [66, 0]), ("size", [66, 3]), ("name", []), ("name", [66, 1])])
def test_a_column_of_another_shape_is_named(described, name, shape):
    grid = {"name": "regular", "configuration": {"chunk_shape": [max(1, side) for side in shape]}}
    change = {"shape": shape, "chunk_grid": grid, "dimension_names": None}
    edit(described / "index" / name / "zarr.json", lambda d: d.update(change))
    (finding,) = validate(described)
    assert finding.where == f"{described}/index/{name}"
    assert finding.found.startswith("cannot be read (")


def flip(store, shard, at):
    path = shard_path(store.path, shard)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_in_a_header_a_section_and_an_index(store):
    start = int(store.shard_index(1)[3, 0])
    flip(store, 1, start + 10)
    (line,) = found(store)
    assert "record 67 '000067': header contradicts its checksum" in line
    flip(store, 1, start + 10)
    flip(store, 1, start + 100)
    (line,) = found(store)
    assert "record 67 '000067': is not the one written here" in line
    (line,) = found(store, deep=True)
    assert "record 67 '000067'" in line
    assert "contradicts its checksum" in line
    flip(store, 1, start + 100)
    flip(store, 1, -10)
    (line,) = found(store)
    assert "labels/c/1/0/0" in line
    assert "index is damaged" in line


def test_a_missing_and_a_foreign_shard(store):
    shard_path(store.path, 0).rename(shard_path(store.path, 0).with_name("7"))
    lines = found(store)
    assert any("labels/c/0/0/7: is no part of this store: a foreign file" in line for line in lines)
    assert any("labels/c/0/0/0: the shard cannot be read" in line for line in lines)


def test_records_that_changed_places(store):
    records = [store.record(i) for i in range(64)]
    records[5], records[6] = records[6], records[5]
    shard_path(store.path, 0).write_bytes(pack_shard(records, 64))
    first, second = found(store)
    assert "record 5 '000005': is record 6 '000006': records changed places" in first
    assert "record 6 '000006': is record 5 '000005': records changed places" in second
    with pytest.raises(CorruptRecordError, match=r"record 5 '000005': is 36 x 40, the index says 35 x 40"):
        quadcodec.open(store.path)[5]


def test_shards_that_changed_places(tmp_path):
    store = quadcodec.write(tmp_path / "out.zarr", [blocks(i, 30, 40) for i in range(128)])
    one, two = shard_path(store.path, 0), shard_path(store.path, 1)
    one.rename(tmp_path / "other")
    two.rename(one)
    (tmp_path / "other").rename(two)
    first, second = found(store)
    assert "labels/c/0/0/0: holds the records of shard 1: shards changed places" in first
    assert "labels/c/1/0/0: holds the records of shard 0: shards changed places" in second


def test_another_record_of_another_size_and_of_other_levels(store):
    records = [store.record(i) for i in range(64)]
    records[5] = quadcodec.encode(np.zeros((7, 8), np.uint8))
    records[6] = quadcodec.encode(store[6], levels=5)
    shard_path(store.path, 0).write_bytes(pack_shard(records, 64))
    first, second = found(store)
    assert "record 5 '000005': is 7 x 8, the index says 35 x 40" in first
    assert "record 6 '000006': has 5 levels, the store says 6" in second
    np.testing.assert_array_equal(quadcodec.open(store.path)[6], blocks(6, 36, 40))
    with pytest.raises(CorruptRecordError, match="has 5 levels, the store says 6"):
        quadcodec.open(store.path).quadtree(6)


def test_bytes_between_records_and_behind_them(store):
    path = shard_path(store.path, 1)
    data = path.read_bytes()
    path.write_bytes(b"x" + data)
    assert any("holds" in line and "expected" in line for line in found(store))


def test_an_index_that_does_not_fit(store):
    group = zarr.open_group(str(store.path), mode="r+")
    group["index"]["size"].resize((69, 2))
    (line,) = found(store)
    assert "70 labels, 70 names, 69 sizes, 70 checksums" in line


def test_ids_wider_than_the_array(store):
    records = [store.record(i) for i in range(64)]
    records[3] = quadcodec.encode(np.full(store[3].shape, 300, np.uint16))
    shard_path(store.path, 0).write_bytes(pack_shard(records, 64))
    (line,) = found(store)
    assert "record 3 '000003': holds 16-bit ids, the labels array uint8" in line


def test_findings_name_each_place_once_and_what_to_do(store):
    path = shard_path(store.path, 0)
    path.write_bytes(path.read_bytes()[:-1])
    (finding,) = validate(store.path)
    assert finding.where == str(path)
    assert finding.found == "the shard's index is damaged"
    assert finding.fix == "Run 'quadcodec repair', or convert the data set again"
    (finding,) = validate("none.zarr")
    assert finding.found.startswith("found nothing here")


def test_names_that_stand_twice(store):
    group = zarr.open_group(str(store.path), mode="r+")
    group["index"]["name"][3] = "000002"
    first, second = found(store)
    assert "index/name: is not what was written: its checksum differs" in first
    assert "('all', '000002') stands more than once" in second


def test_a_tree_that_splits_a_uniform_cell(tmp_path):
    tree = quadcodec.LinearQuadtree(np.array([-1, 1, 1, 1, 2], np.int16), (4, 1), 2, 2)
    nodes = np.array([-1, 1, 1, 1, 1], np.int16)
    wasteful = quadcodec.LinearQuadtree(nodes, tree.counts, 2, 2)
    store = quadcodec.write(tmp_path / "small.zarr", [tree.to_mask()], levels=2)
    # An encoder of ours cannot write it: the pair of one class stands for a pair of two.
    record = quadcodec.encode_tree(tree, profile="raw")
    assert quadcodec.decode_tree(record).nodes.tolist() == tree.nodes.tolist()
    pixels = read_layout(record).sections[1]
    assert pixels.nbytes == 1
    uniform = int(codes.PLACE_OF_BITS[codes.ALONE, 0])
    stored = bytes([uniform])
    hostile = record[: pixels.offset] + stored + google_crc32c.value(stored).to_bytes(4, "little")
    assert quadcodec.decode_tree(hostile).nodes.tolist() == wasteful.nodes.tolist()
    shard_path(store.path, 0).write_bytes(pack_shard([hostile], 64))
    (line,) = found(store)
    assert "record 0 '000000': is not the one written here" in line
    (line,) = found(store, deep=True)
    assert "splits a uniform cell" in line
