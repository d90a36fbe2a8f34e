"""Ordinary arrays beside the labels, and OME-NGFF label images: whole or not at all."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import quadcodec
from quadcodec import ngff
from quadcodec.convert import convert, plan_conversion
from quadcodec.errors import StoreError
from quadcodec.export import export_ngff
from quadcodec.shard import pack_shard, read_shard
from quadcodec.validate import validate

from .conftest import blocks

CLASSES = [quadcodec.ClassInfo(0, "sky", (1, 2, 3)), quadcodec.ClassInfo(1, "tall building")]
SIZES = [(40, 50), (33, 50), (40, 7)]


def masks(count=3):
    return [blocks(i, *SIZES[i % len(SIZES)]) for i in range(count)]


@pytest.fixture
def many(tmp_path):
    """A folder of 70 masks: two shards."""
    (tmp_path / "in").mkdir()
    for i, mask in enumerate(masks(70)):
        np.save(tmp_path / "in" / f"{i:02}.npy", mask)
    return plan_conversion(tmp_path / "in")


def assert_whole(path, levels):
    """Check that a store holds these levels, each equal to what its records hold, and nothing unfinished."""
    store = quadcodec.open(path)
    group = zarr.open_group(str(path / "pyramid"), mode="r")
    assert sorted(name for name, _ in group.arrays()) == sorted(str(level) for level in levels)
    for level in levels:
        np.testing.assert_array_equal(group[str(level)][...], store.pyramid_arrays[level][...])
    assert not list(path.parent.glob("**/*.partial"))


def assert_no_metadata_without_chunks(folder):
    """Check that every array that a reader could see below a folder has all its chunks."""
    for metadata in folder.rglob("pyramid*/**/zarr.json"):
        described = json.loads(metadata.read_text())
        if described["node_type"] == "array":
            shards = -(-described["shape"][0] // described["chunk_grid"]["configuration"]["chunk_shape"][0])
            assert all((metadata.parent / f"c/{shard}/0/0").exists() for shard in range(shards))


@pytest.mark.parametrize("profile", ["fast", "small"])
def test_convert_writes_the_levels_that_it_is_told(many, tmp_path, profile):
    plan = plan_conversion(tmp_path / "in", profile=profile)
    convert(plan, tmp_path / "a.zarr", pyramid=[5, 0, 3])
    assert_whole(tmp_path / "a.zarr", [5, 0, 3])
    level = zarr.open(str(tmp_path / "a.zarr"), mode="r")["pyramid/3"]
    assert (level.dtype, level.shape, level.fill_value) == (np.int16, (70, 5, 7), quadcodec.OUTSIDE)
    assert level.metadata.dimension_names == ("image", "y", "x")
    assert dict(level.attrs) == dict(quadcodec.open(tmp_path / "a.zarr").pyramid_arrays[3].attrs)
    assert (level.chunks, level.shards) == ((1, 5, 7), (64, 5, 7))


def test_the_shards_are_those_that_zarr_writes(many, tmp_path):
    convert(many, tmp_path / "a.zarr", pyramid=[3])
    ours = zarr.open(str(tmp_path / "a.zarr"), mode="r")["pyramid/3"]
    theirs = zarr.create_array(
        str(tmp_path / "b.zarr"), shape=ours.shape, dtype=ours.dtype, chunks=ours.chunks, shards=ours.shards,
        compressors=zarr.codecs.ZstdCodec(level=3, checksum=True), filters=None, fill_value=quadcodec.OUTSIDE,
        dimension_names=("image", "y", "x"), attributes=dict(ours.attrs),
    )  # fmt: skip
    theirs[...] = ours[...]
    assert theirs.metadata == ours.metadata
    for shard in ("c/0/0/0", "c/1/0/0"):
        ours_bytes = (tmp_path / "a.zarr" / "pyramid/3" / shard).read_bytes()
        assert sorted(ours_bytes) == sorted((tmp_path / "b.zarr" / shard).read_bytes())


def test_levels_that_do_not_exist_are_refused_before_anything_is_written(many, tmp_path):
    for levels in ([6], [3, 3], [-1]):
        with pytest.raises(StoreError, match=r"a\.zarr: found levels .*, expected different ones of 0\.\.5"):
            convert(many, tmp_path / "a.zarr", pyramid=levels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


KILLED = """
import importlib, os, sys
from pathlib import Path
from quadcodec.convert import convert, plan_conversion

def dying(path, data):
    dying.left -= 1
    if dying.left < 0:
        os._exit(9)
    whole(path, data)

module = importlib.import_module(sys.argv[3])
whole, dying.left = module.write_atomic, int(sys.argv[4])
module.write_atomic = dying
convert(plan_conversion(Path(sys.argv[1])), Path(sys.argv[2]), pyramid=[5, 3], resume=True)
"""


def test_a_killed_run_is_resumed_and_no_array_ever_lacks_chunks(many, tmp_path):
    """Two levels of two shards: four chunks, two arrays' metadata and the group's are seven files."""
    path = tmp_path / "out" / "a.zarr"
    path.parent.mkdir()
    for module, writes in (("build", 1), ("ngff", 0), ("ngff", 3), ("ngff", 5), ("ngff", 6)):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(path), f"quadcodec.{module}", str(writes)]
        assert subprocess.run(command).returncode == 9
        assert path.exists() == (module == "ngff")
        assert_no_metadata_without_chunks(path.parent)
        if path.exists():
            assert "pyramid" not in zarr.open_group(str(path), mode="r")
            assert len(quadcodec.open(path)) == 70
    convert(many, path, pyramid=[5, 3], resume=True)
    assert_whole(path, [5, 3])
    convert(many, path, pyramid=[5, 3], resume=True)


def test_other_levels_of_a_complete_store_are_not_mixed_in(many, tmp_path):
    convert(many, tmp_path / "a.zarr", pyramid=[5])
    with pytest.raises(StoreError, match=r"a\.zarr/pyramid: lacks levels \[3\]\. Delete this folder"):
        convert(many, tmp_path / "a.zarr", pyramid=[5, 3], resume=True)
    assert_whole(tmp_path / "a.zarr", [5])


def test_a_full_disk_keeps_the_store_and_says_so(many, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ngff, "write_atomic", full)
    with pytest.raises(StoreError, match=r"No space left on device.*all masks are in .*: add its levels with --resume"):
        convert(many, tmp_path / "a.zarr", pyramid=[3])
    assert sorted(p.name for p in (tmp_path / "a.zarr").iterdir()) == ["index", "labels", "zarr.json"]
    monkeypatch.undo()
    convert(many, tmp_path / "a.zarr", pyramid=[3], resume=True)
    assert_whole(tmp_path / "a.zarr", [3])


def damage(path):
    """Yield what can be wrong with levels beside the labels, and the place that must be named; mend it after."""
    shard, document, group = path / "pyramid/3/c/1/0/0", path / "pyramid/5/zarr.json", path / "pyramid/zarr.json"
    for file in (shard, document, group):
        whole = file.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 20)):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            yield file
        file.unlink()
        yield file
        file.write_bytes(whole)
    foreign = path / "pyramid" / "5" / "c" / "2" / "0" / "0"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    yield path / "pyramid" / "5" / "c" / "2"


def test_validate_finds_every_fault_of_the_levels(many, tmp_path):
    path = tmp_path / "a.zarr"
    convert(many, path, pyramid=[5, 3])
    assert validate(path, deep=True) == []
    for where in damage(path):
        assert str(where) in {finding.where for finding in validate(path)}, where


def test_validate_compares_levels_with_records(many, tmp_path):
    path = tmp_path / "a.zarr"
    convert(many, path, pyramid=[5, 3])
    first, second = path / "pyramid/3/c/0/0/0", path / "pyramid/3/c/1/0/0"
    chunks = read_shard(first, 64)
    first.write_bytes(pack_shard([chunks[2], chunks[1], chunks[0], *chunks[3:]], 64))
    assert validate(path) == []
    (one, two) = validate(path, deep=True)
    assert (one.where, one.found) == (str(first), "image 0 differs from its record")
    assert two.found == "image 2 differs from its record"
    second.write_bytes(pack_shard(read_shard(second, 64)[:5], 64))
    (fault,) = validate(path)
    assert (fault.where, fault.found) == (str(second), "image 69 has no chunk of its size")


def test_masks_left_out_are_left_out_of_the_levels(many, tmp_path):
    plan = plan_conversion(tmp_path / "in")
    (tmp_path / "in" / "05.npy").write_bytes(b"no array")
    convert(plan, tmp_path / "a.zarr", pyramid=[4], skip_bad=True)
    assert len(quadcodec.open(tmp_path / "a.zarr")) == 69
    assert_whole(tmp_path / "a.zarr", [4])


@pytest.fixture
def store(tmp_path):
    return quadcodec.write(tmp_path / "a.zarr", masks(), classes=CLASSES, void=[4])


def test_an_exported_image_holds_masks_and_the_middles_of_cells(store, tmp_path):
    seen = []
    assert export_ngff(store, tmp_path / "ngff", seen.append) == sum(seen) == 3
    group = zarr.open_group(str(tmp_path / "ngff" / "labels" / "classes"), mode="r")
    assert sorted(group.array_keys()) == ["0", "1", "2", "3", "4", "5"]
    for image, mask in enumerate(masks()):
        height, width = mask.shape
        padded = np.full((40, 50), 4, np.uint8)
        padded[:height, :width] = mask
        np.testing.assert_array_equal(group["0"][image], padded)
        for level in range(1, 6):
            half, cells = 1 << (level - 1), group[str(level)][image]
            assert cells.shape == (-(-40 >> level), -(-50 >> level))
            for y, x in np.ndindex(cells.shape):
                if y << level < height and x << level < width:
                    assert (
                        cells[y, x] == mask[min((y << level) + half, height - 1), min((x << level) + half, width - 1)]
                    )
                else:
                    assert cells[y, x] == 4
    assert group["0"].dtype == np.uint8
    assert group["0"].attrs["flag_meanings"] == "sky tall_building"


def test_a_failed_export_leaves_nothing(store, tmp_path):
    with pytest.raises(ZeroDivisionError):
        export_ngff(store, tmp_path / "ngff", lambda _: 1 / 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(StoreError, match="exists already"):
        export_ngff(store, tmp_path / "full")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "full"]


def described(folder):
    return json.loads((folder / "zarr.json").read_text())["attributes"]["ome"]


def test_names_and_colours(store, tmp_path):
    export_ngff(store, tmp_path / "ngff")
    label = described(tmp_path / "ngff" / "labels" / "classes")["image-label"]
    colors = {entry["label-value"]: entry["rgba"] for entry in label["colors"]}
    names = {entry["label-value"]: entry["class"] for entry in label["properties"]}
    assert set(colors) == set(names) == set(range(256))  # a value without a colour is not drawn
    assert (names[0], names[1], names[4], names[7]) == ("sky", "tall building", "void", "7")
    assert colors[0] == [1, 2, 3, 255]
    assert colors[1] == [*store.palette[1].tolist(), 255]


def test_sixteen_bit_ids(tmp_path):
    wide = [np.full((4, 5), 40000, np.uint16)]
    named = quadcodec.write(tmp_path / "named.zarr", wide, classes=[quadcodec.ClassInfo(40000, "car", (9, 8, 7))])
    export_ngff(named, tmp_path / "named")
    label = described(tmp_path / "named" / "labels" / "classes")["image-label"]
    assert {"label-value": 40000, "rgba": [9, 8, 7, 255]} in label["colors"]
    assert {"label-value": 40000, "class": "car"} in label["properties"]
    assert (zarr.open(str(tmp_path / "named"), mode="r")["labels/classes/0"][0] == 40000).all()
    export_ngff(quadcodec.write(tmp_path / "bare.zarr", wide), tmp_path / "bare")
    assert described(tmp_path / "bare" / "labels" / "classes")["image-label"] == {}


@pytest.fixture
def ome_zarr():
    """What of ome-zarr-py reads a folder; a function that gives its nodes by name."""
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is an extra", exc_type=ImportError)
    from ome_zarr.io import parse_url

    return lambda path: {Path(str(node.zarr.path)).name: node for node in reader.Reader(parse_url(path))()}


def test_ome_zarr_opens_an_export(store, tmp_path, ome_zarr):
    export_ngff(store, tmp_path / "ngff")
    nodes = ome_zarr(tmp_path / "ngff")
    assert [data.shape for data in nodes["ngff"].data] == [(3, -(-40 >> k), -(-50 >> k)) for k in range(6)]
    label = nodes["classes"]
    np.testing.assert_array_equal(label.data[0][0].compute(), masks()[0])
    assert label.metadata["color"][0] == [1 / 255, 2 / 255, 3 / 255, 1.0]
    assert label.metadata["properties"][1] == {"class": "tall building"}
    scale, translation = label.metadata["coordinateTransformations"][3]
    assert scale == {"type": "scale", "scale": [1.0, 8.0, 8.0]}
    assert translation == {"type": "translation", "translation": [0.0, 3.5, 3.5]}


def test_ome_zarr_opens_the_levels_beside_the_labels(many, tmp_path, ome_zarr):
    convert(many, tmp_path / "a.zarr", pyramid=[5, 3])
    node = ome_zarr(tmp_path / "a.zarr" / "pyramid")["pyramid"]
    store = quadcodec.open(tmp_path / "a.zarr")
    for data, level in zip(node.data, (3, 5), strict=True):
        np.testing.assert_array_equal(data[2].compute(), store.pyramid_arrays[level][2])
    assert node.metadata["properties"][quadcodec.COMPOSITE] == {"class": "composite"}
    assert node.metadata["properties"][quadcodec.OUTSIDE] == {"class": "outside"}
    assert node.metadata["color"][quadcodec.OUTSIDE][3] == 0


def test_the_metadata_is_what_the_specification_asks(many, store, tmp_path):
    models = pytest.importorskip("ome_zarr_models", reason="ome-zarr-models is an extra", exc_type=ImportError)
    convert(many, tmp_path / "b.zarr", pyramid=[5, 3])
    export_ngff(store, tmp_path / "ngff")
    for path, kind in (
        (tmp_path / "b.zarr" / "pyramid", "ImageLabel"),
        (tmp_path / "ngff", "Image"),
        (tmp_path / "ngff" / "labels", "Labels"),
        (tmp_path / "ngff" / "labels" / "classes", "ImageLabel"),
    ):
        assert type(models.open_ome_zarr(zarr.open_group(str(path), mode="r"), version="0.5")).__name__ == kind
