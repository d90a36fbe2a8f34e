import pickle
import tracemalloc

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import quadcodec
from quadcodec import LinearQuadtree
from quadcodec.convert import convert, plan_conversion
from quadcodec.errors import MaskError, StoreError
from quadcodec.manifest import load_manifest
from quadcodec.masks import read_mask
from quadcodec.stats import leaf_counts, stats, summary
from quadcodec.tally import ShardTask, count_tree, tally

from .conftest import blocks
from .strategies import masks

# Measured independently of this project; Table 5 style, zero padding, void counted as a value.
CAMVID = {
    "train": ((43.95, 20.81, 16.24, 8.46, 6.04, 4.51), 6.93),
    "val": ((47.81, 20.40, 15.87, 7.72, 4.95, 3.26), 5.35),
}


def zero_padded(mask, levels):
    """Count the leaves of the mask padded with zeros, by looking at every cell."""
    size = 1 << (levels - 1)
    height, width = (-(-side // size) * size for side in mask.shape)
    canvas = np.zeros((height, width), mask.dtype)
    canvas[: mask.shape[0], : mask.shape[1]] = mask
    counts, covered = [0] * levels, np.zeros(canvas.shape, bool)
    for level in range(levels - 1, -1, -1):
        side = 1 << level
        for y in range(0, height, side):
            for x in range(0, width, side):
                cell = canvas[y : y + side, x : x + side]
                if not covered[y, x] and (cell == cell[0, 0]).all():
                    counts[level] += 1
                    covered[y : y + side, x : x + side] = True
    return counts


@settings(deadline=None, max_examples=80)
@given(masks(40), st.integers(2, 7))
def test_leaf_counts_are_those_of_the_zero_padded_mask(mask, levels):
    assert leaf_counts(LinearQuadtree.from_mask(mask, levels)).tolist() == zero_padded(mask, levels)


@settings(deadline=None, max_examples=80)
@given(masks(40), st.integers(2, 7))
def test_pixels_are_those_inside_the_image(mask, levels):
    _, pixels = count_tree(LinearQuadtree.from_mask(mask, levels))
    assert pixels.tolist() == np.bincount(mask.ravel()).tolist()


def test_a_mirrored_tree_is_refused():
    with pytest.raises(ValueError, match="of its canvas"):
        leaf_counts(LinearQuadtree.from_mask(np.zeros((3, 3), np.uint8)).flip_horizontal())


def test_the_known_rows_of_camvid(real_data, tmp_path):
    convert(plan_conversion(real_data / "camvid"), tmp_path / "camvid.zarr")
    for path in (tmp_path / "camvid.zarr", real_data / "camvid"):
        rows = {row.split: row for row in stats(path)}
        for split, (percent, ratio) in CAMVID.items():
            assert tuple(round(p, 2) for p in rows[split].percent.values()) == percent
            assert round(rows[split].leaf_ratio_percent, 2) == ratio
    assert rows["train"].images == 367


def test_published_rows_stand_beside_ours(cityscapes, tmp_path):
    convert(plan_conversion(cityscapes), tmp_path / "out.zarr")
    train, val = (row.to_json() for row in stats(tmp_path / "out.zarr"))
    assert train["published"] == {
        "percent": {"5": 66.34, "4": 14.21, "3": 9.18, "2": 5.52, "1": 3.02, "0": 1.70},
        "leaf_ratio_percent": 3.07,
    }
    assert (train["images"], train["pixels"], train["padded_pixels"]) == (3, 3 * 50 * 70, 3 * 64 * 96)
    assert set(val["percent"]) == {"5", "4", "3", "2", "1", "0"}
    assert sum(val["percent"].values()) == pytest.approx(100)
    assert val["stored_bits_per_pixel"] == pytest.approx(8 * val["stored_bytes"] / val["pixels"])
    assert train["classes"] == "raw"
    assert train["difference"]["5"] == pytest.approx(train["percent"]["5"] - 66.34)
    assert train["difference"]["ratio"] == pytest.approx(train["leaf_ratio_percent"] - 3.07)
    assert train["dense_bytes"] == train["pixels"]
    assert train["source_bytes"] == sum(f.stat().st_size for f in cityscapes.glob("gtFine/train/*/*.png"))


def test_training_classes_are_those_of_the_mapped_masks(cityscapes, tmp_path):
    """All that is ignored is one class, and so is the padding."""
    manifest = load_manifest("cityscapes")
    for i, path in enumerate(sorted(cityscapes.glob("gtFine/*/*/*.png"))):
        Image.fromarray(4 * blocks(i, *read_mask(path).shape) + i % 2).save(path)  # ids 0 to 17
    convert(plan_conversion(cityscapes), tmp_path / "out.zarr")
    store = quadcodec.open(tmp_path / "out.zarr")
    table = np.array([manifest.class_ids.get(label, -1) + 1 for label in range(34)], np.uint8)
    for path in (store.path, cityscapes):
        raw, train = (row for row in stats(path, classes=("raw", "train")) if row.split == "train")
        mapped = [table[store[i]] for i in store.indices("train")]
        assert list(train.leaves) == np.sum([zero_padded(mask, 6) for mask in mapped], axis=0).tolist()
        assert train.leaves != raw.leaves
        pixels = np.bincount(np.concatenate([mask.ravel() for mask in mapped]))
        assert train.class_pixels == {label - 1: count for label, count in enumerate(pixels.tolist()) if count}
        assert train.class_names[-1] == "ignored"
        assert train.class_names[0] == "road"
        assert sum(train.class_percent.values()) == pytest.approx(100)
    with pytest.raises(StoreError, match="names no training classes"):
        stats(quadcodec.write(tmp_path / "plain.zarr", [store[0]]).path, classes=("train",))


def test_an_id_without_a_class_is_named(cityscapes, tmp_path):
    path = min(cityscapes.glob("gtFine/train/*/*.png"))
    Image.fromarray(np.full_like(read_mask(path), 77)).save(path)
    convert(plan_conversion(cityscapes), tmp_path / "out.zarr")
    with pytest.raises(MaskError, match=r"out.zarr: record 0 'aachen/.*': ids \[77\] are not in the label map"):
        stats(tmp_path / "out.zarr", classes=("train",))
    with pytest.raises(MaskError, match=r"labelIds.png: ids \[77\] are not in the label map"):
        stats(cityscapes, classes=("train",))


def test_standard_errors_over_images(tmp_path):
    same = [blocks(i, 64, 64, block=3 + i) for i in range(5)]
    quadcodec.write(tmp_path / "same.zarr", same)
    (row,) = stats(tmp_path / "same.zarr")
    counts = np.array([zero_padded(mask, 6) for mask in same])
    shares = 100 * counts * 4 ** np.arange(6) / 64**2
    errors = np.std(shares, axis=0, ddof=1) / np.sqrt(5)
    assert [row.percent_error[level] for level in range(6)] == pytest.approx(errors.tolist())
    ratios = 100 * counts.sum(axis=1) / 64**2
    assert row.leaf_ratio_error == pytest.approx(np.std(ratios, ddof=1) / np.sqrt(5))
    # Of two sizes: the ratio estimator, whose residuals are weighed by size.
    sizes = np.array([64**2, 32 * 96, 128 * 96])
    mixed = [blocks(0, 64, 64), blocks(1, 32, 96), blocks(2, 128, 96)]
    quadcodec.write(tmp_path / "mixed.zarr", mixed)
    (row,) = stats(tmp_path / "mixed.zarr")
    leaves = np.array([sum(zero_padded(mask, 6)) for mask in mixed])
    residuals = leaves - sizes * leaves.sum() / sizes.sum()
    assert row.leaf_ratio_error == pytest.approx(100 * np.sqrt(1.5 * (residuals**2).sum()) / sizes.sum())
    quadcodec.write(tmp_path / "one.zarr", mixed[:1])
    assert stats(tmp_path / "one.zarr")[0].to_json()["leaf_ratio_error"] is None


def test_workers_count_the_same(tmp_path):
    store = quadcodec.write(
        tmp_path / "out.zarr",
        [blocks(i, 40 + i % 5, 50) for i in range(150)],
        splits=["a" if i % 3 else "b" for i in range(150)],
        void=[0],
    )
    assert len(pickle.dumps(ShardTask(store, 1, {"raw": None}))) < 1000  # not the whole index for each shard
    done = []
    alone, shared = stats(store.path, workers=1, progress=done.append), stats(store.path, workers=2)
    assert done == [64, 64, 22]
    assert [row.to_json() for row in alone] == [row.to_json() for row in shared]
    assert [row.images for row in alone] == [50, 100]


def test_a_store_with_tables_of_its_own(cityscapes, tmp_path):
    convert(plan_conversion(cityscapes, profile="small", own_tables=True), tmp_path / "own.zarr")
    convert(plan_conversion(cityscapes), tmp_path / "fast.zarr")
    own, fast = stats(tmp_path / "own.zarr", workers=2), stats(tmp_path / "fast.zarr")
    assert [row.leaves for row in own] == [row.leaves for row in fast]


def test_mask_files_that_are_gone_are_not_counted(cityscapes, tmp_path):
    convert(plan_conversion(cityscapes), tmp_path / "out.zarr")
    next(cityscapes.glob("gtFine/val/*/*.png")).unlink()
    train, val = stats(tmp_path / "out.zarr")
    assert train.source_bytes is not None
    assert val.source_bytes is None
    assert val.to_json()["source_bytes"] is None


def test_chunks_that_zarr_left_out_count(tmp_path):
    store = quadcodec.write(tmp_path / "out.zarr", [np.full((33, 40), 9, np.uint8), blocks(0, 33, 40)], void=[9])
    labels = zarr.open(str(store.path), mode="r+")["labels"]
    labels[0:2] = labels[0:2]
    assert quadcodec.open(store.path).stored_bytes(0) == 0
    (row,) = stats(store.path)
    assert row.class_pixels[9] == 33 * 40
    assert row.stored_bytes == quadcodec.open(store.path).stored_bytes(1)


def test_ratio_is_leaves_over_padded_pixels():
    mask = np.zeros((32, 64), np.uint8)
    mask[0, 0] = 1
    counts = leaf_counts(LinearQuadtree.from_mask(mask))
    assert counts.tolist() == [4, 3, 3, 3, 3, 1]


def test_mean_ratio_weighs_images_alike(tmp_path):
    noise = np.indices((32, 32)).sum(axis=0).__mod__(2).astype(np.uint8)
    quadcodec.write(tmp_path / "out.zarr", [noise, np.zeros((32, 96), np.uint8)])
    (row,) = stats(tmp_path / "out.zarr")
    assert row.leaf_ratio_mean == pytest.approx((100 + 100 / 1024) / 2)
    assert row.leaf_ratio_percent == pytest.approx(100 * (1024 + 3) / (4 * 1024))
    assert row.published is None


def test_summary_counts_what_the_store_holds(cityscapes, tmp_path):
    report = convert(plan_conversion(cityscapes), tmp_path / "out.zarr")
    values = summary(quadcodec.open(tmp_path / "out.zarr"))
    assert values["stored_bytes"] == report.stored_bytes == sum(r.stored_bytes for r in stats(tmp_path / "out.zarr"))
    assert (values["images"], values["with_photo"]) == (5, 3)
    assert (values["smallest"], values["largest"]) == ([50, 70], [40, 90])


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    peaks = []
    for count in (64, 512):
        store = quadcodec.write(tmp_path / f"{count}.zarr", [blocks(i % 7, 200, 300, block=3) for i in range(count)])
        stats(store.path, workers=1)
        tasks = [ShardTask(store, shard, {"raw": None}) for shard in range(store.num_shards)]
        tracemalloc.start()
        tally(tasks)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
