"""Two stores compared image by image: nothing is missed, nothing is made up."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quadcodec
from quadcodec.diff import ImageDiff, Summary, diff

from .conftest import blocks
from .strategies import masks
from .test_cli import fails, invoke


def found(a, b):
    """Return the differences by (split, name), and the summary."""
    summary, differences = Summary(), {}
    for image in diff(a, b):
        summary = summary.with_image(image)
        if not image.same:
            differences[image.split, image.name] = image
    return differences, summary


@pytest.fixture
def arrays():
    return [blocks(k, 40 + k, 60) for k in range(5)]


NAMES, SPLITS = ["a", "b", "c", "a", "d"], ["train", "train", "train", "val", "val"]
CLASSES = {0: "zero", 1: "one", 2: "two"}


@pytest.fixture
def store(arrays, tmp_path):
    return quadcodec.write(tmp_path / "a.zarr", arrays, names=NAMES, splits=SPLITS, classes=CLASSES)


def test_profile_levels_and_order_make_no_difference(arrays, store, tmp_path):
    other = quadcodec.write(
        tmp_path / "b.zarr", [m.astype(np.uint16) for m in arrays[::-1]], names=NAMES[::-1], splits=SPLITS[::-1],
        profile="small", levels=4,
    )  # fmt: skip
    pixels = sum(m.size for m in arrays)
    assert found(store, other) == ({}, Summary(equal=5, compared_pixels=pixels))
    assert found(other, store)[1].same


def test_equal_records_are_not_decoded(store, monkeypatch):
    monkeypatch.setattr("quadcodec.store.decode", None)
    assert found(store, quadcodec.open(store.path))[1].equal == 5


def test_every_kind_of_difference(arrays, store, tmp_path):
    changed = [m.copy() for m in arrays]
    changed[1][3:5, 7:10] = 9
    changed[1][20, 20] = 8
    changed[3] = changed[3][:, :-1]
    keep = [0, 1, 3, 4]
    other = quadcodec.write(
        tmp_path / "b.zarr", [*(changed[k] for k in keep), arrays[2]],
        names=[*(NAMES[k] for k in keep), "new"], splits=[*(SPLITS[k] for k in keep), "train"],
    )  # fmt: skip
    differences, summary = found(store, other)
    assert set(differences) == {("train", "b"), ("train", "c"), ("val", "a"), ("train", "new")}
    b = differences["train", "b"]
    before = arrays[1][changed[1] != arrays[1]].tolist()
    after = changed[1][changed[1] != arrays[1]].tolist()
    expected = {pair: list(zip(before, after, strict=True)).count(pair) for pair in zip(before, after, strict=True)}
    assert b.changes == expected
    assert list(b.changes.values()) == sorted(b.changes.values(), reverse=True)
    assert b.pixels == 7
    assert b.share == pytest.approx(7 / arrays[1].size)
    assert b.classes == tuple(sorted({*before, 8, 9}))
    assert differences["train", "c"] == ImageDiff("train", "c", (42, 60), None, None)
    assert differences["train", "new"] == ImageDiff("train", "new", None, (42, 60), None)
    assert differences["val", "a"] == ImageDiff("val", "a", (43, 60), (43, 59), None)
    compared = sum(arrays[k].size for k in (0, 1, 4))
    assert summary == Summary(
        equal=2, only_a=1, only_b=1, other_size=1, other_pixels=1, compared_pixels=compared, differing_pixels=7
    )
    assert not summary.same


@settings(deadline=None, max_examples=8)
@given(masks(20), st.data())
def test_changes_add_up(tmp_path_factory, mask, data):
    folder = tmp_path_factory.mktemp("diff")
    seed = data.draw(st.integers(0, 2**32 - 1))
    other = np.where(np.random.default_rng(seed).random(mask.shape) < 0.3, mask[::-1, ::-1], mask)
    pair = [quadcodec.write(folder / f"{k}.zarr", [m]) for k, m in enumerate((mask, other))]
    differences, summary = found(*pair)
    pixels = np.count_nonzero(mask != other)
    assert summary.differing_pixels == pixels
    assert bool(differences) == (pixels > 0)
    for image in differences.values():
        assert sum(image.changes.values()) == pixels
        for (a, b), count in image.changes.items():
            assert count == np.count_nonzero((mask == a) & (other == b))


def test_the_command(arrays, store, tmp_path):
    changed = [m.copy() for m in arrays]
    changed[1][:2, :30] = np.arange(60, dtype=np.uint8).reshape(2, 30) + 100
    changed[1][5, 5] = arrays[1][5, 5] ^ 1
    quadcodec.write(tmp_path / "b.zarr", changed[:4], names=NAMES[:4], splits=SPLITS[:4])
    code, out, err = invoke("diff", store.path, store.path)
    assert (code, err) == (0, "")
    assert out == f"images: 5 equal; 0 of {sum(m.size for m in arrays)} pixels differ (0.0000 %)\n"
    code, out, _ = invoke("diff", store.path, tmp_path / "b.zarr")
    assert code == 1
    first, second, last = out.splitlines()
    assert first.startswith(f"train/b: 61 pixels differ ({6100 / arrays[1].size:.3f} %): ")
    assert re.search(r"\): (zero|one|two|3|4) -> \d+ 1, ", first)
    assert first.endswith(", 58 more")
    assert second == "val/d: only in A"
    assert last.startswith("images: 3 equal, 1 only in A, 1 with other pixels; 61 of ")
    code, out, _ = invoke("diff", store.path, tmp_path / "b.zarr", "--json")
    assert code == 1
    images = [json.loads(line) for line in out.splitlines()]
    assert images[0]["pixels"] == 61
    assert images[1]["size_b"] is None
    assert images[2]["summary"]["equal"] == 3
    assert "found nothing here" in fails("diff", store.path, tmp_path / "c.zarr")
    quadcodec.write(tmp_path / "c.zarr", [m[1:] for m in arrays], names=NAMES, splits=SPLITS)
    assert "train/a: 40 x 60 pixels in A, 39 x 60 in B" in invoke("diff", store.path, tmp_path / "c.zarr")[1]
