"""Damaged and hostile records: an error or the right mask, never a crash.

`make bounds` runs this with bounds checks.
"""

import contextlib
import struct

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadcodec import LinearQuadtree, decode, encode, fast
from quadcodec.errors import FormatError
from quadcodec.fast import read_layout

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
