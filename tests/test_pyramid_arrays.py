"""One level of all images as a zarr array over the records."""

import asyncio
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

import quadcodec
from quadcodec import store as store_module
from quadcodec.errors import CorruptRecordError
from quadcodec.shard import shard_path

from .conftest import blocks

VOID = 9
SIZES = [(40, 50), (33, 50), (1, 1), (40, 7), (20, 20)]


def masks(dtype=np.uint8):
    return [blocks(i, *size).astype(dtype) * (1 if dtype == np.uint8 else 999) for i, size in enumerate(SIZES)]


def on_canvas(cells, shape):
    canvas = np.full(shape, quadcodec.OUTSIDE, cells.dtype)
    canvas[: cells.shape[0], : cells.shape[1]] = cells
    return canvas


def files(store):
    return {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("profile", ["fast", "small"])
def test_each_level_is_that_of_every_mask_and_nothing_is_stored(tmp_path, dtype, profile):
    expected = [quadcodec.TPyramid.from_mask(mask) for mask in masks(dtype)]
    store = quadcodec.write(tmp_path / "a.zarr", masks(dtype), profile=profile, classes={0: "sky", 1: "tall building"})
    before = files(store)
    assert len(store.pyramid_arrays) == 6
    for level, array in enumerate(store.pyramid_arrays):
        assert array.shape == (5, -(-40 // 2**level), -(-50 // 2**level))
        assert array.dtype == (np.int16 if dtype == np.uint8 else np.int32)
        assert array.chunks == (1, *array.shape[1:])
        assert array.metadata.dimension_names == ("image", "y", "x")
        assert array.attrs["flag_values"] == [-2, -1, 0, 1]
        assert array.attrs["flag_meanings"] == "outside composite sky tall_building"
        for image, pyramid in enumerate(expected):
            np.testing.assert_array_equal(array[image], on_canvas(pyramid.level(level), array.shape[1:]))
        np.testing.assert_array_equal(array[1:4, 1:, ::2], array[...][1:4, 1:, ::2])
    assert files(store) == before


def test_eight_bit_records_in_a_sixteen_bit_store(tmp_path):
    mixed = [*masks()[:2], masks(np.uint16)[2]]
    level = quadcodec.write(tmp_path / "a.zarr", mixed).pyramid_arrays[2]
    assert level.dtype == np.int32
    np.testing.assert_array_equal(level[0], quadcodec.TPyramid.from_mask(mixed[0]).level(2))


def test_an_image_that_zarr_dropped_is_void_inside_and_outside_beyond(tmp_path):
    store = quadcodec.write(tmp_path / "a.zarr", masks(), void=[VOID])
    zarr.open(str(store.path), mode="r+")["labels"][1] = np.full((40, 50), VOID, np.uint8)
    level = quadcodec.open(store.path).pyramid_arrays[3]
    np.testing.assert_array_equal(level[1], on_canvas(np.full((5, 7), VOID, np.int16), (5, 7)))
    assert quadcodec.open(store.path).sizes[1].tolist() == [33, 50]


@pytest.fixture
def detailed(tmp_path):
    """A store of one mask whose fine levels take most of the record, and whose record is longer than a first read."""
    return quadcodec.write(tmp_path / "a.zarr", [blocks(0, 600, 800, block=5)])


def test_coarse_levels_read_a_prefix(detailed, monkeypatch):
    read = []

    def counting(path, offset, nbytes):
        data = pread(path, offset, nbytes)
        read.append(len(data))
        return data

    pread = store_module.read_range
    monkeypatch.setattr(store_module, "read_range", counting)
    whole = len(detailed.record(0))
    lengths = []
    for level, array in enumerate(detailed.pyramid_arrays):
        read.clear()
        np.testing.assert_array_equal(array[0], detailed.pyramid(0).level(level))
        lengths.append(sum(read) - whole)  # the comparison reads the whole record
    assert lengths[0] == whole
    assert lengths[1] > store_module.HEAD_BYTES
    assert sorted(lengths, reverse=True) == lengths
    assert lengths[5] == store_module.HEAD_BYTES < whole / 4


def test_damage_beyond_the_prefix_does_not_matter_and_within_is_named(detailed):
    path = shard_path(detailed.path, 0)
    data = bytearray(path.read_bytes())
    data[detailed.stored_bytes(0) - 1] ^= 1
    path.write_bytes(data)
    expected = quadcodec.TPyramid.from_mask(blocks(0, 600, 800, block=5))
    np.testing.assert_array_equal(detailed.pyramid_arrays[3][0], expected.level(3))
    with pytest.raises(CorruptRecordError, match=r"a\.zarr: record 0 '000000': level 0 contradicts its checksum"):
        detailed.pyramid_arrays[0][0]
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptRecordError, match=r"a\.zarr: record 0 '000000': header contradicts its checksum"):
        detailed.pyramid_arrays[3][0]


def test_it_is_read_only_and_can_be_pickled(detailed):
    level = detailed.pyramid_arrays[4]
    with pytest.raises(ValueError, match="read-only"):
        level[0] = 0
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(level))[...], level[...])


def test_the_store_below_lists_its_keys_and_reads_ranges(tmp_path):
    below = quadcodec.write(tmp_path / "a.zarr", masks()[:2]).pyramid_arrays[3].store

    async def look():
        get = [below.get("c/1/0/0", default_buffer_prototype(), part) for part in ranges]
        return (
            [part.to_bytes() for part in await asyncio.gather(*get)],
            [key async for key in below.list()],
            [key async for key in below.list_dir("c")],
            [await below.exists(key) for key in ("zarr.json", "c/1/0/0", "c/2/0/0", "c/01/0/0", "c/1/0", "d/1/0/0")],
        )

    ranges = [None, RangeByteRequest(2, 7), OffsetByteRequest(60), SuffixByteRequest(5)]
    (whole, *parts), keys, images, exist = asyncio.run(look())
    assert whole == quadcodec.TPyramid.from_mask(masks()[1]).level(3).astype("<i2").tobytes()
    assert parts == [whole[2:7], whole[60:], whole[-5:]]
    assert keys == ["zarr.json", "c/0/0/0", "c/1/0/0"]
    assert images == ["0", "1"]
    assert exist == [True, True, False, False, False, False]


def test_real_masks(real_data, tmp_path):
    from quadcodec.masks import read_mask

    paths = sorted(Path(real_data).rglob("*gtFine_labelIds.png"))[:2]
    if not paths:
        pytest.skip("no Cityscapes masks here")
    mask = read_mask(paths[0])
    for profile in ("fast", "small"):
        store = quadcodec.write(tmp_path / f"{profile}.zarr", [mask], profile=profile)
        np.testing.assert_array_equal(store.pyramid_arrays[4][0], quadcodec.TPyramid.from_mask(mask).level(4))
