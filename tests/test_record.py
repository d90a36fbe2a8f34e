import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadcodec import LinearQuadtree, TPyramid, decode, decode_tree, encode, encode_tree, fast
from quadcodec.errors import CorruptRecordError, MaskError, UnsupportedVersionError
from quadcodec.fast import read_layout
from quadcodec.kernels import codes
from quadcodec.pyramid import COMPOSITE
from quadcodec.record import check_record
from quadcodec.scenes import street_labels

from . import oracle
from .strategies import levels, masks


@settings(deadline=None)
@given(masks(), levels, st.booleans())
def test_record_gives_the_mask_back(mask, count, compress):
    tree = LinearQuadtree.from_mask(mask, count)
    record = fast.encode(tree, compress=compress)
    out = decode(record)
    np.testing.assert_array_equal(out, mask)
    assert out.dtype == mask.dtype
    assert read_layout(record).nbytes == len(record)
    np.testing.assert_array_equal(decode_tree(record).nodes, tree.nodes)
    assert decode_tree(record).counts == tree.counts


@settings(deadline=None, max_examples=60)
@given(masks(), levels, st.data())
def test_a_small_record_gives_mask_levels_and_regions_back(mask, count, data):
    record = encode(mask, levels=count, profile="small")
    assert check_record(record).mask_dtype == mask.dtype
    np.testing.assert_array_equal(decode(record), mask)
    tree = LinearQuadtree.from_mask(mask, count)
    assert decode_tree(record).counts == tree.counts
    np.testing.assert_array_equal(decode_tree(record).nodes, tree.nodes)
    level = data.draw(st.integers(1, count - 1))
    np.testing.assert_array_equal(decode(record, level=level), tree.to_level(level))
    h, w = data.draw(st.integers(1, mask.shape[0])), data.draw(st.integers(1, mask.shape[1]))
    np.testing.assert_array_equal(decode(record, region=(0, 0, h, w)), mask[:h, :w])
    assert encode_tree(tree, profile="small") == record


def test_a_small_record_is_smaller():
    mask = street_labels(0, (256, 512))
    assert len(encode(mask, profile="small")) < 0.5 * len(encode(mask))


@settings(deadline=None, max_examples=60)
@given(masks(24), levels)
def test_the_oracle_written_from_the_format_page_reads_it(mask, count):
    tree = LinearQuadtree.from_mask(mask, count)
    nodes, pixels = oracle.decode(fast.encode(tree))
    assert pixels == mask.tolist()
    assert {level: tree.level(level).tolist() for level in range(count)} == nodes


@settings(deadline=None)
@given(masks(), levels, st.data())
def test_a_level_needs_only_its_prefix(mask, count, data):
    record = fast.encode(LinearQuadtree.from_mask(mask, count))
    level = data.draw(st.integers(0, count - 1))
    section = read_layout(record).needed(level)[-1]
    prefix = record[: section.end]
    expected = TPyramid.from_mask(mask, count).level(level) if level else mask
    out = decode(prefix, level=level)
    np.testing.assert_array_equal(out, expected)
    assert out.dtype == expected.dtype
    tree = decode_tree(prefix, level=level)
    if level > 0 and (tree.level(level) == COMPOSITE).any():
        with pytest.raises(ValueError, match=f"decoded down to level {level} only"):
            tree.to_mask()
    if section.nbytes:
        with pytest.raises(CorruptRecordError, match="record ends"):
            decode(prefix[:-1], level=level)


@pytest.mark.parametrize("count", range(2, 11))
def test_the_first_fifty_bytes_say_where_the_sections_lie(count):
    mask = np.kron(np.random.default_rng(0).integers(0, 2, (300, 300)), np.ones((7, 7), int)).astype(np.uint8)
    record = fast.encode(LinearQuadtree.from_mask(mask, count))
    layout = read_layout(record[:50])
    assert len(layout.sections) == 1 + min(3, count - 1)
    assert layout.nbytes == len(record)


def test_a_region_of_a_record():
    mask = np.kron(np.arange(12).reshape(3, 4), np.ones((20, 20), int)).astype(np.uint8)
    record = encode(mask)
    np.testing.assert_array_equal(decode(record, region=(13, 5, 31, 60)), mask[13:44, 5:65])


def test_ids_of_sixteen_bits_and_many_pairs():
    rng = np.random.default_rng(0)
    mask = np.kron(rng.permutation(65536).reshape(256, 256), np.ones((2, 3), int)).astype(np.uint16)
    record = encode(mask)
    layout = read_layout(record)
    assert layout.num_labels == 65536
    assert layout.shape.symbol_width == 4
    np.testing.assert_array_equal(decode(record), mask)


@pytest.mark.parametrize("profile", ["fast", "raw", "small"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (5, 7), (33, 31), (100, 64), (512, 512)])
@pytest.mark.parametrize("ids", [2, 300, 65536])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_noise_expands_little(dtype, ids, shape, profile):
    mask = np.random.default_rng(0).integers(0, min(ids, 1 + np.iinfo(dtype).max), shape).astype(dtype)
    record = encode(mask, profile=profile)
    np.testing.assert_array_equal(decode(record), mask)
    assert len(record) <= 1.02 * mask.nbytes + 64


def test_a_tree_that_is_longer_than_its_mask_is_written_small():
    mask = np.random.default_rng(0).integers(0, 60000, (40, 50)).astype(np.uint16)
    tree = LinearQuadtree.from_mask(mask)
    assert len(fast.encode(tree)) > mask.nbytes
    assert encode_tree(tree) == encode(mask) == encode(mask, profile="small")
    np.testing.assert_array_equal(decode(encode(mask), level=2), tree.to_level(2))


def test_raw_is_fast_without_the_entropy_stage():
    mask = street_labels(0, (256, 512))
    raw = encode(mask, profile="raw")
    assert raw == encode_tree(LinearQuadtree.from_mask(mask), profile="raw")
    assert {section.stage for section in read_layout(raw).sections} == {0}
    assert {section.stage for section in read_layout(encode(mask)).sections} == {1}
    np.testing.assert_array_equal(decode(raw), mask)


def test_orders_list_every_code_once():
    for context in range(codes.NUM_CONTEXTS):
        assert sorted(codes.CODE_AT[context]) == list(range(81))
        assert sorted(codes.BITS_AT[context]) == list(range(16))
        for place in range(81):
            assert codes.PLACE_OF[context, codes.CODE_AT[context, place]] == place


def test_what_a_record_does_not_hold_is_refused():
    mask = np.zeros((3, 3), np.uint8)
    with pytest.raises(MaskError, match="a record needs"):
        encode_tree(LinearQuadtree.from_mask(mask).flip_horizontal())
    with pytest.raises(ValueError, match="profile is 'tiny', expected one of"):
        encode(mask, profile="tiny")
    with pytest.raises(ValueError, match=r"level is 6, expected 0\.\.5"):
        decode(encode(mask), level=6)


def test_a_tree_that_splits_a_uniform_cell_is_refused():
    wasteful = LinearQuadtree(np.array([-1, 1, 1, 1, 1], np.int16), (4, 1), 2, 2)
    with pytest.raises(MaskError, match="a composite of level 1 holds one class only"):
        encode_tree(wasteful)
    assert encode_tree(wasteful.remap({1: 1})) == encode(np.ones((2, 2), np.uint8), levels=2)


def test_a_newer_version_is_refused_by_name():
    record = bytearray(encode(np.zeros((3, 3), np.uint8)))
    record[4] = 9
    with pytest.raises(
        UnsupportedVersionError, match=r"record: found format version 9, expected 1\.\.1\. Update quadcodec"
    ):
        decode(bytes(record))


def test_what_is_no_record_is_refused():
    with pytest.raises(CorruptRecordError, match="not a quadcodec record"):
        decode(b"\x89PNG" + bytes(100))
