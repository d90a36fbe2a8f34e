import google_crc32c
import numpy as np
import pytest
import zarr

import quadcodec
from quadcodec.fast import read_layout
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
    assert found(store) == []
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
    assert any("labels/c/0/0/7: is no shard of this store" in line for line in lines)
    assert any("labels/c/0/0/0: the shard cannot be read" in line for line in lines)


def test_a_record_of_another_size(store):
    records = [store.record(i) for i in range(64)]
    records[5], records[6] = records[6], records[5]
    shard_path(store.path, 0).write_bytes(pack_shard(records, 64))
    lines = found(store)
    assert len(lines) == 2
    assert "record 5 '000005': is 36 x 40, the index says 35 x 40" in lines[0]


def test_bytes_between_records_and_behind_them(store):
    path = shard_path(store.path, 1)
    data = path.read_bytes()
    path.write_bytes(b"x" + data)
    assert any("holds" in line and "expected" in line for line in found(store))


def test_an_index_that_does_not_fit(store):
    group = zarr.open_group(str(store.path), mode="r+")
    group["index"]["size"].resize((69, 2))
    (line,) = found(store)
    assert "70 labels, 70 names, 69 sizes" in line


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
    assert finding.fix == "Convert the data set again"
    (finding,) = validate("none.zarr")
    assert finding.found.startswith("found nothing here")


def test_names_that_stand_twice(store):
    group = zarr.open_group(str(store.path), mode="r+")
    group["index"]["name"][3] = "000002"
    (line,) = found(store)
    assert "('all', '000002') stands more than once" in line


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
    (line,) = found(store, deep=True)
    assert "splits a uniform cell" in line
