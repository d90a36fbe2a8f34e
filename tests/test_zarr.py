"""Stores as users of plain zarr and xarray meet them; run under zarr 3.1.6 and 3.4."""

import asyncio
import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

import quadcodec
from quadcodec.convert import convert, plan_conversion
from quadcodec.shard import pack_shard, shard_path
from quadcodec.zarr_codec import QuadtreeCodec

from .conftest import blocks

COUNT, HEIGHT, WIDTH, VOID = 6, 45, 70, 9
PROFILES = ["fast", "small"]

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def masks(dtype=np.uint8):
    return np.stack([blocks(i, HEIGHT, WIDTH) for i in range(COUNT)]).astype(dtype) * (1 if dtype == np.uint8 else 999)


def create(path, dtype=np.uint8, *, profile="fast", chunks=(1, HEIGHT, WIDTH), shards=None):
    """Return a labels array that zarr itself writes."""
    return zarr.create_array(
        str(path), name="labels", shape=(COUNT, HEIGHT, WIDTH), dtype=dtype, chunks=chunks, shards=shards,
        serializer=QuadtreeCodec(profile=profile), filters=None, compressors=None, fill_value=VOID,
        dimension_names=("image", "y", "x"),
    )  # fmt: skip


@pytest.fixture(params=["default", "fused"])
def pipeline(request):
    """Run a test under each way in which this zarr runs codecs: asynchronously, and in 3.4 synchronously."""
    if request.param == "default":
        yield
        return
    if not hasattr(zarr.core.codec_pipeline, "FusedCodecPipeline"):
        pytest.skip(f"zarr {zarr.__version__} has one codec pipeline")
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}):
        yield


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("shards", [None, (4, HEIGHT, WIDTH)])
def test_zarr_writes_the_records_that_we_write(tmp_path, pipeline, dtype, profile, shards):
    array, expected = create(tmp_path / "a.zarr", dtype, profile=profile, shards=shards), masks(dtype)
    array[...] = expected
    array[2, 5:20, 7:] = expected[0, 5:20, 7:]
    expected[2, 5:20, 7:] = expected[0, 5:20, 7:]
    again = zarr.open(str(tmp_path / "a.zarr"), mode="r")["labels"]
    np.testing.assert_array_equal(again[...], expected)
    np.testing.assert_array_equal(again[3, ::7, 4:9], expected[3, ::7, 4:9])
    np.testing.assert_array_equal(again.oindex[[0, 5], :, 3], expected[[0, 5], :, 3])
    records = [quadcodec.encode(mask, profile=profile) for mask in expected]
    chunks = tmp_path / "a.zarr" / "labels" / "c"
    if shards is None:
        assert [(chunks / f"{i}/0/0").read_bytes() for i in range(COUNT)] == records
    else:
        assert (chunks / "1/0/0").read_bytes() == pack_shard(records[4:], 4)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("shards", [None, (2, 64, 96)])
def test_chunks_that_the_edge_cuts(tmp_path, pipeline, profile, shards):
    array, expected = create(tmp_path / "a.zarr", profile=profile, chunks=(1, 32, 32), shards=shards), masks()
    array[...] = expected
    np.testing.assert_array_equal(array[...], expected)
    np.testing.assert_array_equal(array[4, 30:, 60:], expected[4, 30:, 60:])


@pytest.mark.parametrize("shards", [None, (2, HEIGHT, WIDTH)])
def test_an_image_that_is_void_all_over_is_no_chunk(tmp_path, pipeline, shards):
    array, expected = create(tmp_path / "a.zarr", shards=shards), masks()
    expected[1:4] = VOID
    array[...] = expected
    files = [p for p in (tmp_path / "a.zarr" / "labels" / "c").rglob("*") if p.is_file()]
    assert len(files) == (3 if shards is None else 2)  # images 2 and 3 are a shard
    np.testing.assert_array_equal(zarr.open(str(tmp_path / "a.zarr"), mode="r")["labels"][...], expected)


@pytest.mark.parametrize("profile", PROFILES)
def test_our_packer_and_zarr_read_each_other(tmp_path, pipeline, profile):
    expected = masks()
    store = quadcodec.write(tmp_path / "a.zarr", expected, profile=profile, void=[VOID])
    labels = zarr.open(str(store.path), mode="r+")["labels"]
    np.testing.assert_array_equal(labels[...], expected)
    expected[1], expected[2] = expected[0], VOID
    labels[1:3] = expected[1:3]
    for mask, out in zip(expected, quadcodec.open(store.path), strict=True):
        np.testing.assert_array_equal(out, mask)


def test_the_asynchronous_interface(tmp_path):
    store = quadcodec.write(tmp_path / "a.zarr", masks())

    async def read():
        group = await zarr.api.asynchronous.open_group(str(store.path), mode="r")
        labels = await group.getitem("labels")
        return await asyncio.gather(*(labels.getitem((i,)) for i in range(COUNT)))

    np.testing.assert_array_equal(asyncio.run(read()), masks())


@pytest.mark.parametrize(
    ("shape", "chunks", "dtype"), [((4, 8, 8), (2, 8, 8), "u1"), ((8, 8), (1, 8), "u1"), ((4, 8, 8), (1, 8, 8), "i4")]
)
def test_an_array_that_records_cannot_hold_is_refused_when_it_is_made(tmp_path, shape, chunks, dtype):
    with pytest.raises(ValueError, match="expected uint8 or uint16 of \\(image, y, x\\) in chunks of one image"):
        zarr.create_array(
            str(tmp_path / "a.zarr"), shape=shape, chunks=chunks, dtype=dtype, serializer=QuadtreeCodec(),
            filters=None, compressors=None,
        )  # fmt: skip


def _read(task):
    array, image = task
    return array[image].tobytes()


@pytest.fixture(scope="module")
def read_before(tmp_path_factory):
    """The labels and two level arrays of a store, each read once here, and what image 4 holds there."""
    store = quadcodec.write(tmp_path_factory.mktemp("read") / "a.zarr", masks())
    arrays = [zarr.open(str(store.path), mode="r")["labels"], *store.pyramid_arrays[1:3]]
    return [(array, array[4].tobytes()) for array in arrays]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_in_other_processes(read_before, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    with multiprocessing.get_context(method).Pool(2) as pool:
        tasks = [(array, 4) for array, _ in read_before] * 2
        assert pool.map(_read, tasks) == [data for _, data in read_before] * 2


def test_readers_in_threads(read_before):
    with ThreadPoolExecutor(8) as pool:
        tasks = [(array, 4) for array, _ in read_before] * 20
        assert list(pool.map(_read, tasks)) == [data for _, data in read_before] * 20


@pytest.fixture
def with_pyramid(tmp_path):
    """A store with pyramid/2 and pyramid/1."""
    (tmp_path / "masks").mkdir()
    for i, mask in enumerate(masks()):
        np.save(tmp_path / "masks" / f"{i}.npy", mask)
    convert(plan_conversion(tmp_path / "masks"), tmp_path / "a.zarr", pyramid=[2, 1])
    return quadcodec.open(tmp_path / "a.zarr")


def test_xarray_shows_dimensions(with_pyramid):
    xarray = pytest.importorskip("xarray", reason="xarray is an extra")
    path = str(with_pyramid.path)
    labels = xarray.open_zarr(path, consolidated=False, chunks=None)["labels"]
    assert dict(labels.sizes) == {"image": COUNT, "y": HEIGHT, "x": WIDTH}
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels.isel(image=3), masks()[3])
    names = xarray.open_zarr(path, group="index", consolidated=False, chunks=None)["name"]
    assert list(names.values) == list(with_pyramid.names)
    level = xarray.open_zarr(path, group="pyramid", drop_variables=["2"], consolidated=False, chunks=None)["1"]
    assert level.dims == ("image", "y", "x")
    np.testing.assert_array_equal(level[3], with_pyramid.pyramid(3).level(1))


@pytest.fixture
def run_without_us(tmp_path):
    """Return a function that runs Python where every package is installed but ours; it returns what is printed."""
    farm = tmp_path / "packages"
    farm.mkdir()
    for folder in {Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")}:
        for part in folder.iterdir():
            if "quadcodec" not in part.name and not (farm / part.name).exists():
                (farm / part.name).symlink_to(part)

    def run(code, *arguments):
        program = f"import sys; sys.path.insert(0, {str(farm)!r})\n{code}"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        # zarr may leave a task of a failed listing behind, and asyncio then says so on stderr.
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_without_our_package_other_arrays_read_and_labels_say_what_is_missing(with_pyramid, run_without_us):
    code = """
import numpy as np
import zarr
group = zarr.open_group(sys.argv[1], mode="r")
print(*group["index/name"][:])
print(group["index"]["size"][0].tolist(), sorted(name for name, _ in group["pyramid"].arrays()))
print(group.attrs["quadcodec"]["dataset"], group["pyramid/2"].attrs["flag_meanings"])
np.save(sys.argv[2], group["pyramid/2"][:])
for read in (lambda: group["labels"], lambda: list(group.arrays())):
    try:
        read()
    except Exception as error:
        print(type(error).__module__, type(error).__name__, error)
"""
    saved = with_pyramid.path.with_name("2.npy")
    names, sizes, meaning, *errors = run_without_us(code, str(with_pyramid.path), str(saved))
    assert names.split() == list(with_pyramid.names)
    assert sizes == f"[{HEIGHT}, {WIDTH}] ['1', '2']"
    assert meaning == "folder outside composite"
    np.testing.assert_array_equal(np.load(saved), with_pyramid.pyramid_arrays[2][:])
    assert len(errors) == 2
    for error in errors:
        assert error.startswith("zarr.errors UnknownCodecError")
        assert "'quadcodec.quadtree'" in error


def test_a_shard_that_is_missing_is_no_void(tmp_path):
    store = quadcodec.write(tmp_path / "a.zarr", masks(), void=[VOID])
    shard_path(store.path, 0).unlink()
    with pytest.raises(quadcodec.QuadcodecError, match="the shard cannot be read"):
        quadcodec.open(store.path).pyramid_arrays[3][0]
