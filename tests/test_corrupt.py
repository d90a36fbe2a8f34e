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

from quadcodec import decode, encode
from quadcodec.errors import FormatError
from quadcodec.fast import _SECTION, read_layout

_FIXED = struct.Struct("<4sBBBBIIII")  # docs/format.md, section 2
RNG = np.random.default_rng(5)
SAMPLES = {
    "blocks": np.kron(RNG.integers(0, 5, (3, 4)), np.ones((7, 6), int)).astype(np.uint8),
    "noise16": RNG.integers(0, 3000, (9, 11)).astype(np.uint16),
    "pixel": np.array([[200]], np.uint8),
}


@pytest.mark.parametrize("profile", ["fast", "small"])
@pytest.mark.parametrize("name", SAMPLES)
def test_every_bit_flip_is_an_error_or_the_right_mask(name, profile):
    mask = SAMPLES[name]
    record = encode(mask, profile=profile)
    for at in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[at // 8] ^= 1 << at % 8
        try:
            out = decode(bytes(damaged))
        except FormatError:
            continue
        np.testing.assert_array_equal(out, mask)


@pytest.mark.parametrize("profile", ["fast", "small"])
@pytest.mark.parametrize("name", SAMPLES)
def test_every_truncation_is_an_error(name, profile):
    record = encode(SAMPLES[name], profile=profile)
    for length in range(len(record)):
        with pytest.raises(FormatError):
            decode(record[:length])


def reseal(record, section_edits=(), header_edit=None):
    """Return the record with sections replaced and all checksums made right again: a hostile writer."""
    header = read_layout(record)
    parts = [header.tables, *reversed(header.sections)]
    stored = [record[p.offset : p.offset + p.nbytes] for p in parts]
    stages = [p.stage for p in parts]
    for index, data in section_edits:
        stored[index], stages[index] = data, 0
    fixed = list(_FIXED.unpack_from(record))
    if header_edit:
        fixed[header_edit[0]] = header_edit[1]
    head = _FIXED.pack(*fixed)
    head += b"".join(_SECTION.pack(g, len(s), google_crc32c.value(s)) for g, s in zip(stages, stored, strict=True))
    return head + struct.pack("<I", google_crc32c.value(head)) + b"".join(stored)


def test_resealing_without_an_edit_changes_nothing():
    record = encode(SAMPLES["blocks"])
    assert reseal(record) == record


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 6), st.binary(max_size=400))
def test_hostile_sections_do_not_crash(name, index, data):
    record = encode(SAMPLES[name])
    header = read_layout(record)
    part = [header.tables, *reversed(header.sections)][index]
    lengths = {len(data), part.nbytes}  # at the right length the content itself is put to the test
    for length in lengths:
        edited = (data * (length // max(len(data), 1) + 1))[:length] if data else bytes(length)
        try:
            out = decode(reseal(record, [(index, edited)]))
        except FormatError:
            continue
        assert out.shape == SAMPLES[name].shape


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(SAMPLES)), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_hostile_headers_do_not_crash(name, field, value):
    record = encode(SAMPLES[name])
    value = value % 256 if field < 5 else value
    with contextlib.suppress(FormatError):
        decode(reseal(record, header_edit=(field, value)))


@pytest.mark.parametrize("side", [2**30, 2**31, 2**32 - 1])
def test_huge_sizes_are_refused_before_memory_is_taken(side):
    record = encode(SAMPLES["pixel"])
    with pytest.raises(FormatError, match="no encoder writes"):
        decode(reseal(record, header_edit=(5, side)))


def test_a_zstd_frame_that_declares_more_than_it_may_is_refused():
    import zstandard

    record = encode(SAMPLES["blocks"])
    header = read_layout(record)
    parts = [header.tables, *reversed(header.sections)]
    bomb = zstandard.ZstdCompressor().compress(bytes(10**7))
    stored = [record[p.offset : p.offset + p.nbytes] for p in parts]
    stored[1] = bomb
    head = record[: _FIXED.size]
    head += b"".join(
        _SECTION.pack(1 if s is bomb else p.stage, len(s), google_crc32c.value(s))
        for p, s in zip(parts, stored, strict=True)
    )
    hostile = head + struct.pack("<I", google_crc32c.value(head)) + b"".join(stored)
    with pytest.raises(FormatError, match="declares 10000000 bytes"):
        decode(hostile)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    with pytest.raises(FormatError):
        decode(data)
