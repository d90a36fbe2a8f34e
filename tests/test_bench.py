import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from hypothesis import given, settings
from PIL import Image

from quadcodec.bench import ours, rivals
from quadcodec.bench.measure import measure
from quadcodec.bench.row import Codec, Row, in_tiles
from quadcodec.bench.run import rows_for
from quadcodec.bench.sample import Sample, take_sample
from quadcodec.build import write
from quadcodec.scenes import street_labels
from quadcodec.tables import shipped
from quadcodec_cli.main import cli

from .strategies import masks

KEYS = [
    "name", "bpp", "encode_mpix_s", "decode_mpix_s", "nodes_mpix_s", "coarse_mpix_s", "region_mpix_s", "lossless",
]  # fmt: skip
OURS = ["fast", "fast-raw", "small", "small-whole", "small-256", "small-own", "small-whole-own", "small-256-own"]
RAW = Codec(lambda mask: mask.tobytes(), lambda data, shape, dtype: np.frombuffer(data, dtype).reshape(shape))


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    """Time each operation once: how often says nothing of whether it works."""
    monkeypatch.setattr("quadcodec.bench.measure.TURNS", 1)
    monkeypatch.setattr("quadcodec.bench.measure.CALLS", 1)


@pytest.fixture(scope="module")
def scenes():
    return [street_labels(0, (96, 300), index) for index in range(5)]


@pytest.fixture(scope="module")
def folder(scenes, tmp_path_factory):
    root = tmp_path_factory.mktemp("masks")
    for index, mask in enumerate(scenes):
        Image.fromarray(mask).save(root / f"{index}.png")
    return root


def run(*args):
    result = CliRunner().invoke(cli, ["bench", *map(str, args)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def by_name(result):
    return {row["name"]: row for row in json.loads(result.stdout)["codecs"]}


def sample_of(arrays, available=None):
    names = tuple(f"mask {i}" for i in range(len(arrays)))
    return Sample("here", "arrays", names, tuple(arrays), available or len(arrays))


def test_every_installed_codec_is_measured_and_lossless(folder):
    for module in ("crackle", "compresso", "imagecodecs"):
        pytest.importorskip(module, reason="comes with quadcodec[bench]")
    result = run(folder, "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert list(report) == ["codecs"]
    assert all(list(row) == KEYS for row in report["codecs"])
    rows = by_name(result)
    assert [name for name in rows if name in OURS] == OURS
    assert {*rivals.RIVALS, "zstd-own", "crackle-256", "zarr-default-256"} <= set(rows)
    assert all(row["lossless"] is True for row in rows.values())
    assert all(row[key] > 0 for row in rows.values() for key in KEYS[1:4])


def test_null_stands_for_calls_that_a_codec_lacks(folder):
    rows = by_name(run(folder, "--json", "--against", "zarr-default"))
    given = {name: [key.split("_")[0] for key in KEYS[4:7] if row[key] is not None] for name, row in rows.items()}
    assert given["fast"] == ["nodes", "coarse", "region"]
    assert given["small"] == ["nodes", "region"]
    assert given["small-whole"] == ["nodes"]
    assert given["zarr-default"] == []
    assert given["zarr-default-256"] == ["region"]


def test_the_table_has_a_line_for_every_codec(folder):
    result = run(folder, "--against", "png,zstd")
    assert result.exit_code == 0
    assert "5 of 5 masks, 0.14 megapixels, 8-bit ids" in result.stdout
    starts = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert [name for name in starts if name in {*OURS, "png", "zstd", "zstd-own"}] == [*OURS, "png", "zstd", "zstd-own"]


def test_sizes_are_those_of_the_bytes(scenes, folder):
    import quadcodec

    rows = by_name(run(folder, "--json", "--against", "zstd"))
    pixels = sum(mask.size for mask in scenes)
    for name, profile in (("fast", "fast"), ("fast-raw", "raw"), ("small", "small")):
        nbytes = sum(len(quadcodec.encode(mask, profile=profile)) for mask in scenes)
        assert rows[name]["bpp"] == 8 * nbytes / pixels


def test_a_store_gives_the_masks_it_was_made_of(scenes, tmp_path, folder):
    write(tmp_path / "out.zarr", scenes)
    stored = by_name(run(tmp_path / "out.zarr", "--json", "--against", "zstd"))
    files = by_name(run(folder, "--json", "--against", "zstd"))
    assert {name: row["bpp"] for name, row in stored.items()} == {name: row["bpp"] for name, row in files.items()}


def test_zarr_default_is_what_zarr_writes_by_default(scenes):
    (row, tiled), _ = rivals.rival_rows(["zarr-default"])
    for mask in (scenes[0], scenes[1].astype(np.uint16)):
        store = zarr.storage.MemoryStore()
        array = zarr.create_array(store, shape=mask.shape, dtype=mask.dtype, chunks=mask.shape)
        array[...] = mask
        (chunk,) = [value.to_bytes() for key, value in store._store_dict.items() if "zarr.json" not in key]
        assert row.codecs[0].encode(mask) == chunk
        assert tiled.codecs[0].nbytes(tiled.codecs[0].encode(mask)) != len(chunk)


def test_crackle_takes_the_shorter_of_its_orders(scenes):
    crackle = pytest.importorskip("crackle", reason="comes with quadcodec[bench]")
    import zstandard

    (row, _), _ = rivals.rival_rows(["crackle"])
    noise = np.fft.rfft2(np.random.default_rng(0).random((512, 512)) - 0.5)
    blur = np.exp(-100 * (np.fft.fftfreq(512)[:, None] ** 2 + np.fft.rfftfreq(512) ** 2))
    best = set()
    for mask in (scenes[0], (np.fft.irfft2(noise * blur) > 0).astype(np.uint8)):
        volume = np.asfortranarray(mask.T[..., None])
        packed = [crackle.compress(volume, markov_model_order=order) for order in (0, 5)]
        lengths = [len(zstandard.ZstdCompressor(level=19).compress(data)) for data in packed]
        assert len(row.codecs[0].encode(mask)) == min(lengths)
        best.add(np.argmin(lengths))
    assert best == {0, 1}


def broken(mask_or_part):
    wrong = mask_or_part.copy()
    wrong[-1, -1] += 1
    return wrong


@pytest.mark.parametrize(
    ("codec", "lossless", "problem"),
    [
        (replace(RAW, decode=lambda *a: broken(RAW.decode(*a))), False, "the mask of 0.png differs"),
        (replace(RAW, decode=lambda *a: RAW.decode(*a).astype(np.int64)), False, "the mask of 0.png differs"),
        (replace(RAW, region=lambda d, s, t, r: np.zeros(r[2:], t)), False, "the region of 0.png differs"),
        (replace(RAW, coarse=lambda d: np.zeros((12, 38), np.int16)), False, "the coarse level of 0.png differs"),
        (replace(RAW, decode=lambda *a: 1 // 0), False, "does not decode 0.png: ZeroDivisionError"),
        (replace(RAW, encode=lambda mask: 1 // 0), None, "does not encode 0.png: ZeroDivisionError"),
    ],
)
def test_a_codec_that_loses_pixels_is_found_out(codec, lossless, problem, folder, monkeypatch):
    monkeypatch.setitem(rivals.RIVALS, "png", lambda: [Row("png", "broken", (codec,))])
    result = run(folder, "--json", "--against", "png,zstd")
    rows = by_name(result)
    assert result.exit_code == 0
    assert rows["png"] == dict.fromkeys(KEYS) | {"name": "png", "lossless": lossless}
    assert f"png: {problem}" in result.stderr
    assert rows["zstd"]["lossless"] is True


def test_a_codec_that_fails_late_has_no_figures(scenes):
    codec = replace(RAW, encode=lambda mask: 1 // 0 if mask is scenes[4] else mask.tobytes())
    (result,) = measure([Row("late", "", (codec,))], scenes, "abcde")
    assert result.bpp is None
    assert result.decode_mpix_s is None


def test_loss_in_our_own_codec_ends_in_exit_1(folder, monkeypatch):
    decode = ours.decode
    monkeypatch.setattr(ours, "decode", lambda record, **kw: broken(decode(record, **kw)))
    result = run(folder, "--json", "--against", "zstd")
    assert result.exit_code == 1
    assert by_name(result)["fast"]["lossless"] is False


def test_a_codec_of_8_bits_has_no_figures_on_16(tmp_path):
    pytest.importorskip("imagecodecs", reason="comes with quadcodec[bench]")
    np.save(tmp_path / "a.npy", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    result = run(tmp_path, "--json", "--against", "webp,png,jxl")
    rows = by_name(result)
    assert rows["webp"] == dict.fromkeys(KEYS) | {"name": "webp"}
    assert "webp: takes ids of 8 bits, a.npy has 16" in result.stderr
    assert all(row["lossless"] is True for name, row in rows.items() if name != "webp")


def test_rivals_that_are_not_installed_are_named_once(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "crackle", None)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    result = run(folder, "--json", "--against", "webp,jxl,zstd,crackle")
    assert result.exit_code == 0
    assert set(by_name(result)) == {*OURS, "zstd", "zstd-own"}
    assert result.stderr.splitlines() == [
        "left out: webp, jxl, crackle (not installed: crackle, imagecodecs). pip install 'quadcodec[bench]'"
    ]


def test_what_cannot_be_measured_ends_in_one_line(folder, tmp_path):
    result = run(folder, "--against", "png,gif")
    assert result.exit_code == 2
    assert "'gif' is unknown, expected some of png,webp,jxl,zstd,zarr-default,crackle,compresso" in result.stderr
    from quadcodec.errors import ManifestError

    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="empty: the folder is empty"):
        run(tmp_path / "empty")
    with pytest.raises(ManifestError, match="no such folder"):
        run(tmp_path / "nothing")


def test_the_plot_is_written_once(folder, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="comes with quadcodec[bench]")
    import quadcodec.bench.run as bench_run
    from quadcodec.errors import MaskError

    target = tmp_path / "plot.png"
    arguments = (folder, "--against", "zstd,zarr-default", "--plot", target)
    assert run(*arguments).exit_code == 0
    with Image.open(target) as picture:
        assert picture.size == (1500, 990)
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 20)}
    assert {(0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2), (0x5F, 0x5F, 0x5F)} <= colors
    assert list(tmp_path.iterdir()) == [target]
    first = target.read_bytes()
    with monkeypatch.context() as patch:  # refused before anything is measured
        patch.setattr(bench_run, "bench", None)
        with pytest.raises(MaskError, match="exists already"):
            run(*arguments)
        with pytest.raises(MaskError, match=r"Let the name end in \.png"):
            run(*arguments[:-1], tmp_path / "plot.pdf")
    assert target.read_bytes() == first
    assert run(*arguments, "--overwrite").exit_code == 0


def test_labels_of_the_plot_cover_neither_points_nor_each_other():
    pytest.importorskip("matplotlib", reason="comes with quadcodec[bench]")
    from matplotlib.transforms import Bbox

    from quadcodec.bench.plot import _candidates, _cost

    frame = Bbox.from_bounds(0, 0, 1000, 700)
    rng = np.random.default_rng(0)
    points = rng.normal((500, 350), (60, 40), (16, 2))
    anchors = [Bbox.from_bounds(x - 12, y - 12, 24, 24) for x, y in points]
    taken = list(anchors)
    for anchor in anchors:
        others = [other for other in anchors if other is not anchor]
        spots = [(far + _cost(box, anchor, taken, others, frame), box) for far, box in _candidates(anchor, 90, 14)]
        box = min(spots, key=lambda spot: spot[0])[1]
        assert not any(box.overlaps(other) for other in taken)
        assert box.x0 >= 0
        assert box.x1 <= 1000
        taken.append(box)


@settings(deadline=None, max_examples=40)
@given(masks())
def test_tiles_give_masks_and_regions_back(mask):
    codec = in_tiles(RAW, 16)
    stored = codec.encode(mask)
    assert codec.nbytes(stored) == mask.nbytes
    np.testing.assert_array_equal(codec.decode(stored, mask.shape, mask.dtype), mask)
    height, width = mask.shape
    y, x = height // 3, width // 2
    part = codec.region(stored, mask.shape, mask.dtype, (y, x, height - y, width - x))
    np.testing.assert_array_equal(part, mask[y:, x:])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_own_tables_never_saw_the_masks_they_are_measured_on(count, scenes, monkeypatch):
    trained = []
    monkeypatch.setattr(ours, "train_on_masks", lambda half: trained.append(half) or shipped())
    rows, _ = rows_for(sample_of(scenes[:count]), [], None)
    row = next(row for row in rows if row.name == "small-own")
    for index in range(count):
        half = trained[row.codecs.index(row.codec(index, count))]
        assert not any(mask is scenes[index] for mask in half)
    assert sum(map(len, trained)) == count


def test_tables_of_a_set_cost_their_share(scenes):
    figures = []
    for available in (5, 50):
        rows, _ = rows_for(sample_of(scenes, available), ["zstd"], None)
        figures.append({row.name: row.shared_bytes for row in rows})
    for name, nbytes in figures[0].items():
        assert (nbytes > 0) == name.endswith("-own")
        assert figures[1][name] == pytest.approx(nbytes / 10)
    assert figures[0]["small-own"] > 5000  # in base64, as zarr.json holds it
    free, paid = (Row("raw", "", (RAW,), nbytes) for nbytes in (0, figures[0]["small-own"]))
    first, second = measure([free, paid], scenes, "abcde")
    assert second.bpp - first.bpp == pytest.approx(8 * figures[0]["small-own"] / sum(m.size for m in scenes))


def test_tables_that_never_saw_the_set_take_the_place_of_the_shipped_ones(folder, tmp_path):
    (tmp_path / "tables.bin").write_bytes(shipped().packed)
    rows = by_name(run(folder, "--json", "--against", "zstd", "--tables", tmp_path / "tables.bin"))
    for name in ("small", "small-whole", "small-256"):
        assert rows[name]["bpp"] == rows[f"{name}-shipped"]["bpp"]


def test_one_mask_has_no_other_half(scenes):
    rows, _ = rows_for(sample_of(scenes[:1]), ["zstd"], None)
    assert not any(row.name.endswith("-own") for row in rows)


def test_a_sample_is_spread_evenly_and_ends_at_its_pixels(tmp_path):
    for index in range(64):
        np.save(tmp_path / f"{index:02d}.npy", np.zeros((10, 10), np.uint8))
    sample = take_sample(tmp_path, megapixels=0.0016)
    assert len(sample.masks) == 16
    assert sample.available == 64
    assert sample.names == tuple(f"{index:02d}.npy" for index in range(0, 64, 4))
    assert len(take_sample(tmp_path, megapixels=1e-9).masks) == 1
    assert len(take_sample(tmp_path, megapixels=1).masks) == 64
