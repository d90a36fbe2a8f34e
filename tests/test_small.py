"""The small profile: round trips, regions, and what hostile bytes do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quadcodec import small
from quadcodec.errors import FormatError, MaskError
from quadcodec.pyramid import TPyramid
from quadcodec.tables import Tables, pack, shipped, untrained

from . import oracle_small

DTYPES = (np.uint8, np.uint16)
SETTINGS = settings(deadline=None, max_examples=150)


@st.composite
def masks(draw: st.DrawFn, max_side: int = 150) -> NDArray[Any]:
    """Draw uniform, checkered, blocky, striped and noisy masks of odd sizes, few labels or many."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    dtype = draw(st.sampled_from(DTYPES))
    largest = int(np.iinfo(dtype).max)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_labels = draw(st.sampled_from([1, 2, 3, 5, 20, 300, 70000]))
    ids = rng.integers(0, largest + 1, num_labels)
    scale = draw(st.sampled_from([1, 2, 3, 7, 40]))
    kind = draw(st.sampled_from(["random", "checker", "disc", "columns", "rows"]))
    y, x = np.mgrid[:height, :width]
    if kind == "random":
        cells = rng.integers(0, num_labels, (height // scale + 1, width // scale + 1))[y // scale, x // scale]
    elif kind == "checker":
        cells = (y // scale + x // scale) % num_labels
    elif kind == "disc":
        cells = ((y - height // 2) ** 2 + (x - width // 3) ** 2) // (4 * scale * scale) % num_labels
    else:
        cells = (x if kind == "columns" else y) // scale % num_labels
    return np.ascontiguousarray(ids[cells].astype(dtype))


def round_trip(mask: NDArray[Any], **options: Any) -> bytes:
    payload = small.encode(mask, **options)
    decoded = small.decode(payload, *mask.shape, mask.dtype, tables=options.get("tables"))
    assert decoded.dtype == mask.dtype
    np.testing.assert_array_equal(decoded, mask)
    return payload


@SETTINGS
@given(masks(), st.sampled_from([None, 64, 100, 512]))
def test_decodes_to_what_was_encoded(mask: NDArray[Any], tile: int | None) -> None:
    payload = round_trip(mask, tile=tile)
    assert len(payload) <= 1.02 * mask.nbytes + 64


@SETTINGS
@given(masks(), st.sampled_from([None, 64, 100]), st.data())
def test_a_region_is_a_part_of_the_whole(mask: NDArray[Any], tile: int | None, data: st.DataObject) -> None:
    payload = small.encode(mask, tile=tile)
    y0, x0 = (data.draw(st.integers(0, n - 1)) for n in mask.shape)
    h, w = data.draw(st.integers(1, mask.shape[0] - y0)), data.draw(st.integers(1, mask.shape[1] - x0))
    part = small.decode(payload, *mask.shape, mask.dtype, region=(y0, x0, h, w))
    np.testing.assert_array_equal(part, mask[y0 : y0 + h, x0 : x0 + w])


@settings(deadline=None, max_examples=60)
@given(masks(max_side=80), st.sampled_from([None, 64]))
def test_the_oracle_decodes_it_too(mask: NDArray[Any], tile: int | None) -> None:
    payload = small.encode(mask, tile=tile)
    decoded = oracle_small.decode(payload, *mask.shape, mask.itemsize, oracle_small.shipped_tables())
    np.testing.assert_array_equal(np.array(decoded), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (2, 2), (1, 2), (513, 3), (64, 64), (65, 129)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_shapes_and_noise(shape: tuple[int, int], dtype: type) -> None:
    rng = np.random.default_rng(0)
    for num_labels in (1, 2, 4, np.iinfo(dtype).max + 1):
        mask = rng.integers(0, num_labels, shape).astype(dtype)
        for tile in (None, 64):
            assert len(round_trip(mask, tile=tile)) <= 1.02 * mask.nbytes + 64


def test_every_id_of_16_bits_in_one_tile() -> None:
    mask = np.repeat(np.arange(65536, dtype=np.uint16), 4).reshape(512, 512)
    round_trip(mask, tile=None)
    blocks = np.random.default_rng(3).permutation(65536).astype(np.uint16).reshape(256, 256)
    round_trip(np.kron(blocks, np.ones((3, 3), np.uint16)), tile=512)


def test_many_instances_stay_small() -> None:
    y, x = np.mgrid[:600, :600]
    mask = (y // 24 * 25 + x // 24 + 1000).astype(np.uint16)
    assert len(round_trip(mask)) < mask.nbytes // 100


def test_a_uniform_mask_is_a_few_bytes() -> None:
    assert len(round_trip(np.full((1000, 1000), 7, np.uint8))) < 16


def test_reads_only_the_tiles_of_a_region() -> None:
    mask = np.random.default_rng(0).integers(0, 3, (4, 4)).astype(np.uint8).repeat(50, 0).repeat(50, 1)
    payload = bytearray(small.encode(mask, tile=100))
    payload[-3] ^= 255  # in the last tile
    part = small.decode(bytes(payload), 200, 200, np.uint8, region=(0, 0, 100, 100))
    np.testing.assert_array_equal(part, mask[:100, :100])
    with pytest.raises(FormatError, match="checksum"):
        small.decode(bytes(payload), 200, 200, np.uint8)


def odd_tables(seed: int = 0) -> Tables:
    """Return tables that no mask would give: every byte of a table file is allowed."""
    rng = np.random.default_rng(seed)
    states, weights = untrained()
    return Tables.from_bytes(
        pack(
            rng.integers(0, 64, len(states)),
            rng.integers(0, 4, len(states)),
            rng.integers(-(2**18), 2**18, len(weights)),
        )
    )


def test_tables_of_ones_own_are_needed_again() -> None:
    own = odd_tables()
    mask = np.tri(90, 70, dtype=np.uint8)
    payload = round_trip(mask, tables=own)
    for call in (small.decode, small.decode_pyramid, small.payload_bytes):
        with pytest.raises(FormatError, match=f"tables with checksum {own.crc:08x}, none were given"):
            call(payload, 90, 70, np.uint8)
        with pytest.raises(FormatError, match="those given have"):
            call(payload, 90, 70, np.uint8, tables=odd_tables(1))


@settings(deadline=None, max_examples=60)
@given(masks(max_side=60), st.sampled_from([None, 64]), st.integers(0, 3))
def test_odd_tables_round_trip_and_the_oracle_agrees(mask: NDArray[Any], tile: int | None, seed: int) -> None:
    own = odd_tables(seed)
    payload = round_trip(mask, tile=tile, tables=own)
    assert len(payload) <= 1.02 * mask.nbytes + 64
    decoded = oracle_small.decode(payload, *mask.shape, mask.itemsize, own.packed)
    np.testing.assert_array_equal(np.array(decoded), mask)


def small_payloads() -> list[tuple[NDArray[Any], bytes]]:
    y, x = np.mgrid[:40, :70]
    disc = ((y - 20) ** 2 + (x - 30) ** 2 < 200).astype(np.uint8) + (x > 50) * np.uint8(7)
    noise = np.random.default_rng(1).integers(0, 256, (12, 12)).astype(np.uint8)
    ids = (300 * (y // 14) + x // 20).astype(np.uint16)
    payloads = [(m, small.encode(m, tile=t)) for m, t in ((disc, 64), (noise, None), (ids, None))]
    return [*payloads, (disc, small.encode(disc, tables=odd_tables()))]


@SETTINGS
@given(masks(), st.sampled_from([None, 64, 65, 100]), st.integers(2, 7))
def test_the_pyramid_of_the_edges_is_that_of_the_pixels(mask: NDArray[Any], tile: int | None, levels: int) -> None:
    pyramid = small.decode_pyramid(small.encode(mask, tile=tile), *mask.shape, mask.dtype, levels)
    expected = TPyramid.from_mask(mask, levels)
    np.testing.assert_array_equal(pyramid.mask, mask)
    assert len(pyramid.upper) == len(expected.upper)
    for found, wanted in zip(pyramid.upper, expected.upper, strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("case", range(4))
def test_a_flipped_bit_is_an_error_or_the_right_mask(case: int) -> None:
    mask, payload = small_payloads()[case]
    for k in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[k // 8] ^= 1 << k % 8
        try:
            decoded = small.decode(bytes(damaged), *mask.shape, mask.dtype, tables=odd_tables())
        except FormatError:
            continue
        np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("case", range(4))
def test_a_cut_payload_is_an_error(case: int) -> None:
    mask, payload = small_payloads()[case]
    for k in range(len(payload)):
        with pytest.raises(FormatError):
            small.decode(payload[:k], *mask.shape, mask.dtype, tables=odd_tables())


@SETTINGS
@given(st.binary(max_size=400), st.integers(1, 90), st.integers(1, 90), st.integers(1, 300), st.booleans())
def test_a_hostile_stream_ends(stream: bytes, height: int, width: int, num_labels: int, wide: bool) -> None:
    """The kernel, past all checksums: a status, and nothing outside of the tile is touched."""
    dtype = np.uint16 if wide or num_labels > 256 else np.uint8
    palette = np.arange(num_labels).astype(dtype)
    pixels = np.full((height + 2) * (width + 7), 77, dtype)
    tables = shipped()
    small.decode_tiles(
        np.frombuffer(bytes(5) + stream, np.uint8), np.array([[5, len(stream), 1, 0, height, width]] * 2), palette,
        tables.states, tables.weights, pixels, width + 7, np.empty(0, np.int32 if dtype == np.uint16 else np.int16), 0,
    )  # fmt: skip
    around = pixels.reshape(height + 2, width + 7)
    assert (around[0] == 77).all()
    assert (around[-1] == 77).all()
    assert (around[:, width:] == 77).all()


@SETTINGS
@given(st.binary(max_size=60))
def test_random_bytes_are_an_error(payload: bytes) -> None:
    with pytest.raises(FormatError):
        small.decode(payload, 33, 44, np.uint8)


def test_says_what_is_wrong_with_the_call() -> None:
    mask = np.zeros((5, 6), np.uint8)
    with pytest.raises(ValueError, match="tile"):
        small.encode(mask, tile=8)
    with pytest.raises(MaskError):
        small.encode(np.zeros((5, 6), np.float32))
    with pytest.raises(ValueError, match="region"):
        small.decode(small.encode(mask), 5, 6, np.uint8, region=(0, 0, 6, 6))
