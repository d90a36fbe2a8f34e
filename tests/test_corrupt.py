"""Damaged and hostile records: an error or the right mask, never a crash.

`make bounds` runs this with bounds checks.
"""

import contextlib
import struct
import tracemalloc

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import quadcodec
from quadcodec import LinearQuadtree, decode, decode_tree, encode, fast
from quadcodec.errors import FormatError
from quadcodec.fast import read_layout
from quadcodec.limits import MAX_PIXELS

_FIXED = struct.Struct("<4sBBBBII")  # docs/format.md, section 2
RNG = np.random.default_rng(5)
SAMPLES = {
    "blocks": np.kron(RNG.integers(0, 5, (3, 4)), np.ones((7, 6), int)).astype(np.uint8),
    "noise16": RNG.integers(0, 3000, (9, 11)).astype(np.uint16),
    "pixel": np.array([[200]], np.uint8),
}


def record_of(name, profile="fast"):
    """Return a record of this very profile, even where a writer would choose the small one."""
    if profile == "small":
        return encode(SAMPLES[name], profile="small")
    return fast.encode(LinearQuadtree.from_mask(SAMPLES[name]), compress=profile == "fast")


@pytest.mark.parametrize("profile", ["fast", "raw", "small"])
@pytest.mark.parametrize("name", SAMPLES)
def test_every_bit_flip_is_an_error_or_the_right_mask(name, profile):
    mask = SAMPLES[name]
    record = record_of(name, profile)
    for at in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[at // 8] ^= 1 << at % 8
        try:
            out = decode(bytes(damaged))
        except FormatError:
            continue
        np.testing.assert_array_equal(out, mask)


@pytest.mark.parametrize("profile", ["fast", "raw", "small"])
@pytest.mark.parametrize("name", SAMPLES)
def test_every_truncation_is_an_error(name, profile):
    record = record_of(name, profile)
    for length in range(len(record)):
        with pytest.raises(FormatError):
            decode(record[:length])


def reseal(record, section_edits=(), header_edit=None):
    """Return the record with parts replaced and all checksums made right again: a hostile writer.

    ``section_edits`` are (index, entropy stage, stored bytes); ``header_edit`` is (index, value): first the fixed
    fields, then the numbers of labels and pairs.
    """
    layout = read_layout(record)
    stored = [(s.stage, record[s.offset : s.offset + s.nbytes]) for s in layout.sections]
    for index, stage, data in section_edits:
        stored[index] = stage, data
    fields = [*_FIXED.unpack_from(record), layout.num_labels, layout.num_pairs]
    if header_edit:
        fields[header_edit[0]] = header_edit[1]
    head = _FIXED.pack(*fields[:-2])
    head += b"".join(map(fast._varint, [*fields[-2:], *(2 * len(data) + stage for stage, data in stored)]))
    parts = [head, *(data for _, data in stored if data)]
    return b"".join(part + struct.pack("<I", google_crc32c.value(part)) for part in parts)


@pytest.mark.parametrize("profile", ["fast", "raw"])
@pytest.mark.parametrize("name", SAMPLES)
def test_resealing_without_an_edit_changes_nothing(name, profile):
    record = record_of(name, profile)
    assert reseal(record) == record


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 3), st.binary(max_size=400))
def test_hostile_sections_do_not_crash(name, index, data):
    record = record_of(name, "raw")
    section = read_layout(record).sections[index]
    lengths = {len(data), section.nbytes}  # at the right length the content itself is put to the test
    for length in lengths:
        edited = (data * (length // max(len(data), 1) + 1))[:length] if data else bytes(length)
        try:
            out = decode(reseal(record, [(index, 0, edited)]))
        except FormatError:
            continue
        assert out.shape == SAMPLES[name].shape


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 3), st.integers(0, 400), st.integers(0, 255))
def test_one_hostile_byte_does_not_crash(name, index, at, value):
    record = record_of(name, "raw")
    section = read_layout(record).sections[index]
    data = bytearray(record[section.offset : section.offset + section.nbytes] or b"?")
    data[at % len(data)] = value
    with contextlib.suppress(FormatError):
        decode(reseal(record, [(index, 0, bytes(data))]))


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(SAMPLES)), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_hostile_headers_do_not_crash(name, field, value):
    value = value % 256 if field < 5 else value
    with contextlib.suppress(FormatError):
        decode(reseal(record_of(name), header_edit=(field, value)))


@pytest.mark.parametrize("side", [2**30, 2**31, 2**32 - 1])
def test_huge_sizes_are_refused_before_memory_is_taken(side):
    record = record_of("pixel")
    with pytest.raises(FormatError, match="no encoder writes"):
        decode(reseal(record, header_edit=(5, side)))


def test_a_section_is_no_longer_than_its_levels_can_be():
    import zstandard

    record = record_of("blocks")
    bomb = zstandard.ZstdCompressor().compress(bytes(10**7))
    for index in range(4):
        with pytest.raises(FormatError, match="declares 10000000 bytes, expected"):
            decode(reseal(record, [(index, 1, bomb)]))
    # Far below what its canvas holds, and beyond what the level above splits.
    uniform = LinearQuadtree(np.full(256 * 256, 7, np.int16), (0, 0, 0, 0, 0, 256 * 256), 2**13, 2**13)
    with pytest.raises(FormatError, match="declares 10000000 bytes, expected 0 at most"):
        decode(reseal(fast.encode(uniform), [(3, 1, bomb)]))
    exact = record_of("blocks", "raw")
    for index, section in enumerate(read_layout(exact).sections):
        data = exact[section.offset : section.offset + section.nbytes]
        for other in (data + bytes(1), data[:-1]):
            with pytest.raises(FormatError, match=r"another length|no label indices|expected \d+ at most"):
                decode(reseal(exact, [(index, 0, other)]))


def test_a_number_that_does_not_end_is_refused():
    record = record_of("blocks")
    with pytest.raises(FormatError, match="end in its header or contradict it"):
        decode(record[:16] + bytes([255]) * 30)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    with pytest.raises(FormatError):
        decode(data)


def claiming(record, height, width):
    """Return a record that claims another size, with the checksum of its header made right again."""
    if record[5] == 0:
        return reseal(reseal(record, header_edit=(5, height)), header_edit=(6, width))
    head = record[:8] + struct.pack("<II", height, width)
    return head + struct.pack("<I", google_crc32c.value(head)) + record[20:]


@pytest.mark.parametrize("profile", ["fast", "small"])
@pytest.mark.parametrize("call", [decode, decode_tree, lambda record: decode(record, region=(0, 0, 1, 1))])
def test_a_bomb_is_refused_before_memory_is_taken(profile, call):
    small, bomb = (claiming(record_of("pixel", profile), side, side) for side in (1, 2**15))
    assert call(small) is not None
    assert len(bomb) < 100
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=rf"claims 32768x32768 .* more than max_pixels = {2**29}\. Cut .* raise"):
            call(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_bound_is_exact_and_a_caller_may_raise_it():
    assert 20_000 * 20_000 < MAX_PIXELS == 2**29
    mask = np.full((2, 2**15), 3, np.uint8)
    for profile in ("fast", "small"):
        record = encode(mask, profile=profile)
        with pytest.raises(FormatError, match="max_pixels = 65535"):
            decode(record, max_pixels=mask.size - 1)
        np.testing.assert_array_equal(decode(record, max_pixels=mask.size), mask)
        assert decode_tree(record, max_pixels=mask.size).width == 2**15


def test_a_store_refuses_its_large_images_unless_told_otherwise(tmp_path):
    path = quadcodec.write(tmp_path / "out.zarr", [SAMPLES["blocks"], np.zeros((40, 40), np.uint8)]).path
    size = SAMPLES["blocks"].size
    store = quadcodec.open(path, max_pixels=size)
    np.testing.assert_array_equal(store[0], SAMPLES["blocks"])
    for read in (lambda: store[1], lambda: store.quadtree(1)):
        with pytest.raises(FormatError, match=rf"record 1 .* 40x40 .* max_pixels = {size}"):
            read()
    assert quadcodec.open(path)[1].shape == (40, 40)


def test_a_left_out_chunk_of_a_large_image_is_refused(tmp_path):
    """No record says its size then, only the index."""
    labels = zarr.open_group(quadcodec.write(tmp_path / "out.zarr", 2 * [SAMPLES["blocks"]]).path)["labels"]
    labels[0] = labels.fill_value
    store = quadcodec.open(tmp_path / "out.zarr", max_pixels=SAMPLES["blocks"].size - 1)
    assert store.stored_bytes(0) == 0
    with pytest.raises(FormatError, match="max_pixels"):
        store.record(0)


@pytest.mark.parametrize("index", range(4))
def test_sections_of_a_small_image_on_a_large_canvas_are_small(index):
    """The canvas of 1 x 70000 pixels in ten levels has 512 times as many; its sections cannot."""
    import zstandard

    record = fast.encode(LinearQuadtree.from_mask(np.zeros((1, 70_000), np.uint8), 10))
    bomb = zstandard.ZstdCompressor().compress(bytes(4 * 70_000))
    with pytest.raises(FormatError, match=r"declares 280000 bytes, expected \d+ at most"):
        decode(reseal(record, [(index, 1, bomb)]))
