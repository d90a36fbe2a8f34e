import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quadcodec
from quadcodec import LinearQuadtree
from quadcodec.convert import convert, plan_conversion
from quadcodec.stats import leaf_counts, stats, summary

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
