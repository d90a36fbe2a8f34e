"""Data sets as data: manifests are checked when loaded, and find exactly the files they describe."""

from __future__ import annotations

import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from quadcodec.errors import ManifestError
from quadcodec.manifest import (
    DataSet,
    Source,
    Training,
    detect_manifest,
    find_masks,
    list_masks,
    load_manifest,
    manifest_names,
)
from quadcodec.masks import default_palette, read_mask

GOOD = """
name = "toy"
title = "Toy"
licence = "none"
void = [9]
[[layouts]]
masks = ["{split}/m/{name}.png"]
photos = ["{split}/p/{name}.{jpg,png}"]
[[splits]]
name = "train"
[[splits]]
name = "val"
folder = "validation"
masks = 2
[published.val]
5 = 47.25
ratio = 5.14
[labels]
0 = "sky"
3 = "road"
9 = "void"
[colors]
3 = [1, 2, 3]
"""


def toml(tmp_path: Path, text: str = GOOD, name: str = "toy.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def found(data: DataSet) -> list[tuple[str, str, str, str]]:
    return [(s.split, s.name, s.mask, s.image) for s in data.sources]


def error(call: object, *args: object, parts: tuple[str, ...]) -> None:
    with pytest.raises(ManifestError) as caught:
        call(*args)  # type: ignore[operator]
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_the_fallback_is_tried_last(monkeypatch):
    monkeypatch.setattr("quadcodec.manifest.FALLBACK", "camvid")
    assert manifest_names()[-1] == "camvid"
    assert "folder" in manifest_names()


def test_names():
    names = manifest_names()
    assert {"ade20k", "camvid", "cityscapes", "folder"} <= set(names)
    assert names[-1] == "folder"
    assert names[:-1] == sorted(names[:-1])


@pytest.mark.parametrize("name", manifest_names())
def test_every_manifest_loads(name):
    manifest = load_manifest(name)
    assert manifest.name == name
    assert manifest.licence
    assert name == "folder" or (manifest.url.startswith("http") and manifest.how_to_get)
    assert set(manifest.class_ids.values()) == set(range(len(manifest.class_names)))
    assert not manifest.void & set(manifest.class_ids)
    assert set(manifest.colors) == (set() if name == "cocostuff" else set(manifest.labels))
    assert all(layout.tested in ("real", "made") for layout in manifest.layouts)
    assert pickle.loads(pickle.dumps(manifest)) == manifest


def test_cityscapes_ids():
    manifest = load_manifest("cityscapes")
    assert sorted(manifest.labels) == list(range(34))
    assert manifest.labels[7] == "road"
    assert manifest.labels[33] == "bicycle"
    assert manifest.void == frozenset(range(7))
    assert len(manifest.class_names) == 19
    pairs = {7: 0, 8: 1, 11: 2, 17: 5, 20: 7, 23: 10, 28: 15, 31: 16, 33: 18}
    assert pairs.items() <= manifest.class_ids.items()
    assert not {9, 10, 14, 15, 16, 18, 29, 30} & set(manifest.class_ids)
    assert all(manifest.labels[raw] == manifest.class_names[c] for raw, c in manifest.class_ids.items())
    assert manifest.colors[26] == (0, 0, 142)
    assert manifest.mask_colors is None
    splits = [(s.name, s.masks) for s in manifest.splits if not s.optional]
    assert splits == [("train", 2975), ("val", 500)]
    assert manifest.num_masks == 3475
    assert manifest.training == Training(100_000, 8, (768, 896, 1024), None)


def test_ade20k_and_camvid_ids():
    ade = load_manifest("ade20k")
    assert ade.void == {0}
    assert ade.class_ids == {raw: raw - 1 for raw in range(1, 151)}
    assert (ade.class_names[0], ade.class_names[149], ade.labels[13]) == ("wall", "flag", "person")
    assert [(s.name, s.folder, s.masks) for s in ade.splits] == [
        ("train", "training", 20210),
        ("val", "validation", 2000),
    ]
    camvid = load_manifest("camvid")
    assert camvid.void == {11}
    assert camvid.class_ids == {raw: raw for raw in range(11)}
    assert camvid.labels[8] == "car"
    assert camvid.published == {}


def test_ids_of_the_other_data_sets():
    voc = load_manifest("voc2012")
    assert (voc.void, voc.labels[15], voc.labels[20], len(voc.class_names)) == ({255}, "person", "tvmonitor", 21)
    assert all(color == tuple(default_palette()[i]) for i, color in voc.colors.items())
    coco = load_manifest("cocostuff")
    assert (coco.void, coco.labels[0], coco.labels[181], len(coco.class_names)) == ({255}, "person", "wood", 171)
    assert not {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90} & set(coco.labels)
    thirteen = ["bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv"]
    for name in ("nyuv2_13", "sunrgbd13"):
        manifest = load_manifest(name)
        assert manifest.void == {0}
        assert manifest.class_names == (*thirteen, "wall", "window")
        assert manifest.class_ids == {raw: raw - 1 for raw in range(1, 14)}
    sun = load_manifest("sunrgbd37")
    assert (sun.void, sun.labels[1], sun.labels[32], sun.labels[37]) == ({0}, "wall", "night stand", "bag")
    assert [load_manifest(name).num_masks for name in ("sunrgbd37", "nyuv2_13", "voc2012", "folder")] == [
        10335, 1449, 2913, None,
    ]  # fmt: skip


def test_what_is_unreadable_in_the_paper_is_not_filled_in():
    row = load_manifest("sunrgbd13").published["val"]
    assert row.pop("ratio") == 4.29
    assert set(row.values()) == {None}


@pytest.mark.parametrize(
    ("name", "split", "row"),
    [
        ("sunrgbd13", "train", [56.26, 18.22, 11.78, 7.09, 4.20, 2.43, 4.24]),
        ("sunrgbd37", "train", [56.11, 18.27, 11.82, 7.12, 4.22, 2.44, 4.25]),
        ("sunrgbd37", "val", [55.40, 18.54, 12.03, 7.25, 4.29, 2.47, 4.31]),
        ("cityscapes", "train", [66.34, 14.21, 9.18, 5.52, 3.02, 1.70, 3.07]),
        ("cityscapes", "val", [65.12, 14.44, 9.53, 5.85, 3.22, 1.81, 3.25]),
        ("ade20k", "train", [47.48, 21.40, 14.44, 8.68, 5.05, 2.93, 5.09]),
        ("ade20k", "val", [47.25, 21.44, 14.49, 8.74, 5.10, 2.96, 5.14]),
    ],
)
def test_published_rows_are_those_of_table_5(name, split, row):
    published = load_manifest(name).published[split]
    assert list(published) == ["5", "4", "3", "2", "1", "0", "ratio"]
    assert list(published.values()) == row
    assert abs(sum(row[:6]) - 100) < 0.05
    leaf_ratio = sum(p / 4**level for p, level in zip(row[:6], range(5, -1, -1), strict=True))
    assert abs(leaf_ratio - row[6]) < 0.02


def test_a_file_of_ones_own(tmp_path):
    manifest = load_manifest(toml(tmp_path))
    assert manifest == load_manifest(str(tmp_path / "toy.toml"))
    assert manifest.url == ""
    assert manifest.labels == {0: "sky", 3: "road", 9: "void"}
    assert manifest.class_names == ("sky", "road")
    assert manifest.class_ids == {0: 0, 3: 1}
    assert manifest.published["val"]["5"] == 47.25
    assert manifest.published["val"]["4"] is None
    classes = '\n[classes]\n0 = {name = "all", ids = [3, 0]}\n'
    manifest = load_manifest(toml(tmp_path, GOOD + classes))
    assert manifest.class_names == ("all",)
    assert manifest.class_ids == {3: 0, 0: 0}
    manifest = load_manifest(toml(tmp_path, "color_masks = true\n" + GOOD))
    assert manifest.mask_colors == {(1, 2, 3): 3}


WRONG = [
    ("name =", "name ==", "not TOML", "line 2"),
    ('title = "Toy"', "", "key 'title'", "is missing, expected a text"),
    ('title = "Toy"', 'title = ""', "key 'title'", "is empty"),
    ('title = "Toy"', "title = 3", "key 'title'", "is 3, expected a text"),
    ("void", "viod", "key 'viod'", "is unknown", "spelling"),
    ("[9]", "[-1]", "key 'void'", "holds -1", "0..65535"),
    ("[9]", "[65536]", "key 'void'", "holds 65536", "0..65535"),
    ("[9]", "[true]", "key 'void'", "holds True"),
    ("[9]", "9", "key 'void'", "is 9, expected a list"),
    ("[9]", "[8]", "key 'void'", "holds 8, which has no name", "[labels]"),
    ('masks = ["{split}/m/{name}.png"]', "masks = []", "key 'layouts[0].masks'", "is empty"),
    ('masks = ["{split}/m/{name}.png"]', "", "key 'layouts[0].masks'", "is missing"),
    ("{split}/m/{name}.png", "{split}/m/x.png", "key 'layouts[0].masks'", "needs {name} once"),
    ("{split}/m/{name}.png", "{split}/{name}/{name}.png", "needs {name} once"),
    ("{split}/m/{name}.png", "{split}/{city}/{name}.png", "needs {name} once", "{split}"),
    ("{split}/m/{name}.png", "m/{name}.png", "has no {split}"),
    ("{split}/m/{name}.png", "/{split}/{name}.png", "no path below the folder"),
    ("{split}/m/{name}.png", "../{split}/{name}.png", "no path below the folder"),
    ('photos = ["{split}/p', 'photos = ["{split}/{p', "key 'layouts[0].photos'", "needs {name} once"),
    ("photos =", "fotos =", "key 'layouts[0].fotos'", "is unknown"),
    ("[[layouts]]", "[layouts]", "key 'layouts'", "expected a list of tables"),
    ('folder = "validation"', "folder = 1", "key 'splits[1].folder'", "is 1, expected a text"),
    ('name = "val"', 'name = "train"', "key 'splits[1].name'", "twice"),
    ("masks = 2", "masks = -2", "key 'splits[1].masks'", "is -2"),
    ("masks = 2", "masks = true", "key 'splits[1].masks'", "is True"),
    ("masks = 2", "mask = 2", "key 'splits[1].mask'", "is unknown"),
    ('photos = ["{split}/p/{name}.{jpg,png}"]', 'splits = ["trian"]', "key 'layouts[0].splits'", "'trian' is no split"),
    ('photos = ["{split}/p/{name}.{jpg,png}"]', 'lists = "../{split}.txt"', "key 'layouts[0].lists'", "no path below"),
    ('photos = ["{split}/p/{name}.{jpg,png}"]', 'lists = "{name}.txt"', "key 'layouts[0].lists'", "no path below"),
    ('photos = ["{split}/p/{name}.{jpg,png}"]', "numbers = {val = [3, 1]}", "key 'layouts[0].numbers.val'", "[3, 1]"),
    ('photos = ["{split}/p/{name}.{jpg,png}"]', "numbers = {v = [1, 3]}", "key 'layouts[0].numbers.v'", "no split"),
    ('photos = ["{split}/p/{name}.{jpg,png}"]', 'tested = "no"', "key 'layouts[0].tested'", "'real' or 'made'"),
    ("masks = 2", "optional = 1", "key 'splits[1].optional'", "is 1, expected true or false"),
    (
        "[published.val]",
        "[training]\nshort_edges = []\nbatch_size = 1\niterations = 1\n[published.val]",
        "key 'training.short_edges'",
        "at least one size",
    ),
    (
        "[published.val]",
        "[training]\nshort_edges = [300]\niterations = 1\n[published.val]",
        "key 'training.batch_size'",
        "is missing",
    ),
    ("[published.val]", "[published.test]", "key 'published.test'", "no split"),
    ("ratio = 5.14", "Q4 = 5.14", "key 'published.val.Q4'", "is unknown"),
    ("ratio = 5.14", 'ratio = "5.14"', "key 'published.val.ratio'", "is '5.14', expected a percentage"),
    ("ratio = 5.14", "ratio = 514.0", "key 'published.val.ratio'", "is 514.0"),
    ('3 = "road"', "3 = 4", "key 'labels.3'", "is 4, expected a text"),
    ('3 = "road"', '03 = "road"', "key 'labels.03'", "no id in 0..65535"),
    ('3 = "road"', '70000 = "road"', "key 'labels.70000'", "no id in 0..65535"),
    ('3 = "road"', 'three = "road"', "key 'labels.three'", "no id in 0..65535"),
    ("[1, 2, 3]", "[1, 2]", "key 'colors.3'", "is [1, 2], expected [R, G, B]"),
    ("[1, 2, 3]", "[1, 2, 256]", "key 'colors.3'", "[R, G, B] in 0..255"),
    ("3 = [1, 2, 3]", "4 = [1, 2, 3]", "key 'colors.4'", "no name", "[labels]"),
    ("void =", "color_masks = 1\nvoid =", "key 'color_masks'", "is 1, expected true or false"),
    ("[colors]\n3 = [1, 2, 3]", "[classes]\n1 = {name = 'a', ids = [3]}", "key 'classes.1'", "class 0 is missing"),
    ("[colors]\n3 = [1, 2, 3]", "[classes]\n0 = {name = 'a', ids = [9]}", "key 'classes.0.ids'", "id 9 is void"),
    ("[colors]\n3 = [1, 2, 3]", "[classes]\n0 = {name = 'a', ids = [7]}", "key 'classes.0.ids'", "id 7 has no name"),
    ("[colors]\n3 = [1, 2, 3]", "[classes]\n0 = {name = 'a', ids = [3, 3]}", "id 3 has a class already"),
    ("[colors]\n3 = [1, 2, 3]", "[classes]\n0 = {name = 'a', id = [3]}", "key 'classes.0.ids'", "is missing"),
    ("[colors]\n3 = [1, 2, 3]", "[classes]\n0 = {name = 'a', ids = [3], x = 1}", "key 'classes.0.x'", "is unknown"),
]


@pytest.mark.parametrize(("old", "new", "parts"), [(w[0], w[1], w[2:]) for w in WRONG])
def test_a_wrong_manifest_says_which_key_and_why(tmp_path, old, new, parts):
    assert old in GOOD
    path = toml(tmp_path, GOOD.replace(old, new, 1))
    error(load_manifest, path, parts=(f"{path}: ", *parts))


def test_color_masks_need_one_color_an_id(tmp_path):
    base = "color_masks = true\n" + GOOD
    error(load_manifest, toml(tmp_path, base + "0 = [1, 2, 3]\n"), parts=("key 'colors.3'", "another id"))
    error(load_manifest, toml(tmp_path, base.split("[colors]")[0]), parts=("key 'color_masks'", "no [colors]"))


def test_no_such_manifest(tmp_path):
    error(load_manifest, "cityscape", parts=("cityscape: no such manifest", "TOML file", "cityscapes", "folder"))
    error(load_manifest, tmp_path, parts=(str(tmp_path), "no such manifest"))
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    error(load_manifest, tmp_path / "x.toml", parts=("x.toml: not TOML",))


CITYSCAPES = [
    "gtFine/val/ulm/ulm_000001_000019_gtFine_labelIds.png",
    "gtFine/val/ulm/ulm_000001_000019_gtFine_color.png",
    "gtFine/val/ulm/ulm_000001_000019_gtFine_instanceIds.png",
    "gtFine/train/bonn/bonn_000002_000019_gtFine_labelIds.png",
    "gtFine/train/aachen/aachen_000003_000019_gtFine_labelIds.png",
    "gtFine/test/berlin/berlin_000000_000019_gtFine_labelIds.png",
    "leftImg8bit/train/bonn/bonn_000002_000019_leftImg8bit.png",
    "leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png",
    "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png",
    "README.txt",
]


def test_cityscapes_layout(tmp_path):
    touch(tmp_path, *CITYSCAPES)
    manifest = detect_manifest(tmp_path)
    assert manifest.name == "cityscapes"
    data = find_masks(tmp_path, manifest)
    assert data.root == tmp_path
    assert data.manifest is manifest
    aachen, bonn, ulm = "aachen/aachen_000003_000019", "bonn/bonn_000002_000019", "ulm/ulm_000001_000019"
    assert data.sources == (
        Source(aachen, "train", f"gtFine/train/{aachen}_gtFine_labelIds.png", ""),
        Source(bonn, "train", f"gtFine/train/{bonn}_gtFine_labelIds.png", f"leftImg8bit/train/{bonn}_leftImg8bit.png"),
        Source(ulm, "val", f"gtFine/val/{ulm}_gtFine_labelIds.png", f"leftImg8bit/val/{ulm}_leftImg8bit.png"),
    )
    assert data.unmatched_photos == ()
    assert [s.split for s in find_masks(tmp_path, manifest, ["val", "train"]).sources] == ["train", "train", "val"]
    assert [s.split for s in find_masks(tmp_path, manifest, ["val"]).sources] == ["val"]
    assert find_masks(tmp_path, manifest, "val") == find_masks(tmp_path, manifest, ["val"])
    assert find_masks(tmp_path, manifest, []) == data
    error(
        find_masks,
        tmp_path,
        manifest,
        ["val", "trian"],
        parts=("split 'trian' is unknown", "cityscapes has train, val"),
    )
    assert pickle.loads(pickle.dumps(data)) == data


def test_photos_without_masks(tmp_path):
    touch(tmp_path, *CITYSCAPES, "leftImg8bit/val/ulm/ulm_000009_000019_leftImg8bit.png")
    extra = "leftImg8bit/train/bonn/bonn_000003_000019_leftImg8bit.png"
    touch(tmp_path, extra)
    manifest = load_manifest("cityscapes")
    assert find_masks(tmp_path, manifest, ["train"]).unmatched_photos == (extra,)
    assert len(find_masks(tmp_path, manifest).unmatched_photos) == 2


def test_photos_of_a_split_without_any_masks_are_not_asked_for(tmp_path):
    touch(tmp_path, "gtFine/val/a/a_gtFine_labelIds.png", "leftImg8bit/train/b/b_leftImg8bit.png")
    manifest = load_manifest("cityscapes")
    assert find_masks(tmp_path, manifest).unmatched_photos == ()
    error(find_masks, tmp_path, manifest, ["train", "val"], parts=("split 'train'", "has no masks"))
    error(find_masks, tmp_path, manifest, ["train"], parts=("no masks of cityscapes split train", "labelIds"))


def test_ade20k_layout(tmp_path):
    touch(tmp_path, "annotations/validation/v1.png", "annotations/training/t2.png", "annotations/training/t10.png")
    touch(tmp_path, "images/validation/v1.jpg", "images/training/t2.JPG", "objectInfo150.txt")
    assert detect_manifest(tmp_path).name == "ade20k"
    assert found(find_masks(tmp_path, detect_manifest(tmp_path))) == [
        ("train", "t10", "annotations/training/t10.png", ""),
        ("train", "t2", "annotations/training/t2.png", "images/training/t2.JPG"),
        ("val", "v1", "annotations/validation/v1.png", "images/validation/v1.jpg"),
    ]


def test_camvid_layout(tmp_path):
    touch(tmp_path, "trainannot/a.png", "train/a.jpg", "valannot/b.png", "val/b.png", "test/c.png", "testannot/c.png")
    assert detect_manifest(tmp_path).name == "camvid"
    assert found(find_masks(tmp_path, detect_manifest(tmp_path))) == [
        ("train", "a", "trainannot/a.png", "train/a.jpg"),
        ("val", "b", "valannot/b.png", "val/b.png"),
        ("test", "c", "testannot/c.png", "test/c.png"),
    ]


def test_coarse_annotations_are_taken_where_they_are_named(tmp_path):
    touch(tmp_path, *CITYSCAPES, "gtCoarse/train/bonn/bonn_000002_000019_gtCoarse_labelIds.png")
    touch(tmp_path, "gtCoarse/train_extra/bonn/bonn_7_gtCoarse_labelIds.png", "leftImg8bit/train_extra/bonn/x.png")
    manifest = detect_manifest(tmp_path)
    assert {s.split for s in find_masks(tmp_path, manifest).sources} == {"train", "val"}
    bonn = "bonn/bonn_000002_000019"
    assert found(find_masks(tmp_path, manifest, ["train_extra", "train_coarse", "val"])) == [
        ("val", "ulm/ulm_000001_000019", CITYSCAPES[0], CITYSCAPES[7]),
        ("train_coarse", bonn, f"gtCoarse/train/{bonn}_gtCoarse_labelIds.png", CITYSCAPES[6]),
        ("train_extra", "bonn/bonn_7", "gtCoarse/train_extra/bonn/bonn_7_gtCoarse_labelIds.png", ""),
    ]
    coarse = touch(tmp_path / "coarse", "gtCoarse/train_extra/bonn/bonn_7_gtCoarse_labelIds.png")
    assert detect_manifest(coarse).name == "cityscapes"
    error(find_masks, coarse, manifest, parts=("train_extra are taken only where they are named",))


def test_sunrgbd13_layouts(tmp_path):
    archives = touch(tmp_path / "a", "train13labels/img13labels-000001.png", "SUNRGBD-train_images/img-000001.jpg")
    touch(archives, "test13labels/img13labels-000001.png", "SUNRGBD-test_images/img-000001.jpg")
    assert found(find_masks(archives, detect_manifest(archives))) == [
        ("train", "000001", "train13labels/img13labels-000001.png", "SUNRGBD-train_images/img-000001.jpg"),
        ("val", "000001", "test13labels/img13labels-000001.png", "SUNRGBD-test_images/img-000001.jpg"),
    ]
    sorted_ = touch(tmp_path / "b", "label13/train/img13labels-000002.png", "image/train/img-000002.jpg")
    assert detect_manifest(sorted_).name == "sunrgbd13"
    assert found(find_masks(sorted_, detect_manifest(sorted_))) == [
        ("train", "000002", "label13/train/img13labels-000002.png", "image/train/img-000002.jpg"),
    ]


def test_sunrgbd37_layouts(tmp_path):
    names = ("000001", "005050", "005051", "010335", "010336", "readme")
    archive = touch(tmp_path / "a", *(f"sunrgbd_train_test_labels/img-{name}.png" for name in names))
    touch(archive, "SUNRGBD-test_images/img-005050.jpg", "SUNRGBD-train_images/img-000001.jpg")
    touch(archive, "SUNRGBD-train_images/img-005285.jpg")
    manifest = detect_manifest(archive)
    assert manifest.name == "sunrgbd37"
    data = find_masks(archive, manifest)
    assert [(s.split, s.name, s.image) for s in data.sources] == [
        ("train", "005051", "SUNRGBD-train_images/img-000001.jpg"),
        ("train", "010335", "SUNRGBD-train_images/img-005285.jpg"),
        ("val", "000001", ""),
        ("val", "005050", "SUNRGBD-test_images/img-005050.jpg"),
    ]
    sorted_ = touch(tmp_path / "b", "label37/test/00000003.png", "image/test/img-000003.jpg")
    assert found(find_masks(sorted_, detect_manifest(sorted_))) == [
        ("val", "000003", "label37/test/00000003.png", "image/test/img-000003.jpg"),
    ]


def test_cocostuff_layouts(tmp_path):
    own = touch(tmp_path / "a", "annotations/train2017/1.png", "images/train2017/1.jpg", "annotations/val2017/2.png")
    assert detect_manifest(own).name == "cocostuff"
    assert [(s.split, s.image) for s in find_masks(own, detect_manifest(own)).sources] == [
        ("train", "images/train2017/1.jpg"),
        ("val", ""),
    ]
    coco = touch(tmp_path / "b", "stuffthingmaps/val2017/2.png", "val2017/2.jpg", "train2017/1.jpg")
    assert found(find_masks(coco, detect_manifest(coco))) == [
        ("val", "2", "stuffthingmaps/val2017/2.png", "val2017/2.jpg"),
    ]


VOC = ["SegmentationClass/a.png", "SegmentationClass/b.png", "SegmentationClass/x.png", "JPEGImages/a.jpg"]


def voc(root: Path) -> Path:
    touch(root, *VOC, "JPEGImages/none.jpg", "JPEGImages/x.jpg", "SegmentationClassAug/a.png")
    lists = {"train": "a\n", "val": "b\nc\n", "trainaug": "a\n"}
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for name, text in lists.items():
        (root / "ImageSets/Segmentation" / f"{name}.txt").write_text(text)
    return root


def test_voc_layout(tmp_path):
    manifest = detect_manifest(voc(tmp_path))
    assert manifest.name == "voc2012"
    data = find_masks(tmp_path, manifest)
    assert found(data) == [
        ("train", "a", "SegmentationClass/a.png", "JPEGImages/a.jpg"),
        ("val", "b", "SegmentationClass/b.png", ""),
    ]
    assert data.unmatched_photos == ()
    assert data.listed_only == ("val/c",)
    assert found(find_masks(tmp_path, manifest, ["trainaug"])) == [
        ("trainaug", "a", "SegmentationClassAug/a.png", "JPEGImages/a.jpg"),
    ]
    (tmp_path / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff")
    error(find_masks, tmp_path, manifest, parts=("Segmentation/val.txt: the list of a split cannot be read", "Mend"))


def test_a_mask_may_be_in_two_lists(tmp_path):
    layout = 'masks = ["m/{name}.png"]\nlists = "{split}.txt"'
    text = GOOD.replace('masks = ["{split}/m/{name}.png"]', layout).replace(
        'photos = ["{split}/p/{name}.{jpg,png}"]', ""
    )
    manifest = load_manifest(toml(tmp_path, text))
    root = touch(tmp_path / "root", "m/a.png")
    for name in ("train.txt", "validation.txt"):
        (root / name).write_text("a")
    assert [s.split for s in find_masks(root, manifest).sources] == ["train", "val"]


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [
        ("voc2012", "folders/voc/masks/{}.png", "SegmentationClass/{}.png"),
        ("cocostuff", "folders/coco_stuff/masks/{}.png", "annotations/train2017/{}.png"),
        ("nyuv2_13", "folders/nyuv2_13/masks/new_nyu_class13_{}.png", "train_labels_13/new_nyu_class13_{}.png"),
    ],
)
def test_real_masks_in_the_published_layout(real_data, tmp_path, name, source, target):
    folder = (real_data / source).parent
    head, tail = Path(source).name.split("{}")
    names = sorted(file.name[len(head) : -len(tail)] for file in folder.iterdir())[:12]
    for mask in names:
        (tmp_path / target.format(mask)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(real_data / source.format(mask), tmp_path / target.format(mask))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("\n".join(names))
    manifest = detect_manifest(tmp_path)
    assert manifest.name == name
    sources = find_masks(tmp_path, manifest).sources
    assert [s.name for s in sources] == names
    present = np.unique(np.concatenate([np.unique(read_mask(tmp_path / s.mask)) for s in sources]))
    assert set(present.tolist()) <= set(manifest.labels)
    assert len(present) > 5


def test_folder_of_masks_and_photos(tmp_path):
    touch(tmp_path, "masks/b.png", "masks/deep/a.tif", "masks/c.npy", "masks/d.PNG", "masks/notes.txt", "other/x.png")
    touch(tmp_path, "photos/b.jpg", "images/deep/a.jpeg", "images/b.png")
    manifest = detect_manifest(tmp_path)
    assert manifest.name == "folder"
    assert manifest.void == frozenset()
    data = find_masks(tmp_path, manifest, ["all"])
    assert found(data) == [
        ("all", "b", "masks/b.png", "photos/b.jpg"),
        ("all", "c", "masks/c.npy", ""),
        ("all", "d", "masks/d.PNG", ""),
        ("all", "deep/a", "masks/deep/a.tif", "images/deep/a.jpeg"),
    ]
    assert data.unmatched_photos == ()
    touch(tmp_path, "photos/z.jpg")
    assert find_masks(tmp_path, manifest).unmatched_photos == ("photos/z.jpg",)


def test_any_tree_of_masks(tmp_path):
    touch(tmp_path, "b/1.png", "a/x/2.tiff", "3.npy", "photos/4.png", "a/Images/5.png", "a/6.jpg")
    touch(tmp_path, ".hidden/7.png", "a/._2.png")
    assert found(find_masks(tmp_path, detect_manifest(tmp_path))) == [
        ("all", "3", "3.npy", ""),
        ("all", "a/x/2", "a/x/2.tiff", ""),
        ("all", "b/1", "b/1.png", ""),
    ]


def test_a_file_belongs_to_the_first_pattern_that_fits(tmp_path):
    patterns = 'masks = ["{split}/{name}_label.png", "{split}/{name}.png"]'
    manifest = load_manifest(toml(tmp_path, GOOD.replace('masks = ["{split}/m/{name}.png"]', patterns)))
    root = touch(tmp_path / "root", "train/a_label.png", "train/b.png", "validation/c.png")
    assert [(s.split, s.name) for s in find_masks(root, manifest).sources] == [
        ("train", "a"),
        ("train", "b"),
        ("val", "c"),
    ]


def test_two_masks_of_one_name(tmp_path):
    touch(tmp_path, "masks/a.png", "masks/a.tif")
    manifest = load_manifest("folder")
    error(find_masks, tmp_path, manifest, parts=("masks/a.png and masks/a.tif", "'a'", "'all'", "Keep one"))
    data = list_masks(tmp_path, manifest)
    assert data.duplicates == ("masks/a.png and masks/a.tif are both the mask 'a' of split 'all'",)
    assert [s.mask for s in data.sources] == ["masks/a.png"]


def test_folders_that_are_none(tmp_path):
    manifest = load_manifest("cityscapes")
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "file", "photos/only/a.jpg")
    for call, args in ((detect_manifest, ()), (find_masks, (manifest,))):
        error(call, tmp_path / "none", *args, parts=("none: no such folder", "Check the path"))
        error(call, tmp_path / "file", *args, parts=("file: a file, expected the folder",))
        error(call, tmp_path / "empty", *args, parts=("empty: the folder is empty",))
    error(find_masks, tmp_path, manifest, parts=("no masks of cityscapes", "gtFine/{split}/{name}_gtFine_labelIds.png"))
    error(detect_manifest, tmp_path, parts=("no masks found", "camvid: {split}annot/{name}.png", "folder: masks/"))


def test_links_inside_the_folder_are_followed_once(tmp_path):
    root = touch(tmp_path / "root", "data/a.png")
    (root / "masks").symlink_to(root / "data")
    (root / "data/loop").symlink_to(root)
    (root / "data/b.png").symlink_to(root / "data/a.png")
    manifest = load_manifest("folder")
    (tmp_path / "link").symlink_to(root)
    for start in (root, tmp_path / "link"):
        assert [source.name for source in find_masks(start, manifest).sources] == ["a", "b"]
    (root / "data/self").symlink_to(root / "data/self")
    error(find_masks, root, manifest, parts=("masks cannot be read", "symbolic links"))


def test_links_out_of_the_folder_are_refused(tmp_path):
    touch(tmp_path / "out", "masks/a.png")
    for index, (link, target) in enumerate(
        [("masks", "out/masks"), ("masks/b.png", "out/masks/a.png"), ("masks/deep", "out/masks"), ("masks", "out")]
    ):
        root = touch(tmp_path / str(index), "x.png")
        (root / link).parent.mkdir(exist_ok=True)
        (root / link).symlink_to(tmp_path / target)
        for call, args in ((find_masks, (load_manifest("folder"),)), (detect_manifest, ())):
            error(call, root, *args, parts=(str(root), link, "a link that leads out", "give the folder"))
    root = touch(tmp_path / "fine", "masks/a.png", "masks/b.png")
    (root / "elsewhere").symlink_to(tmp_path / "out")
    (root / "masks/notes.txt").symlink_to(tmp_path / "out/masks/a.png")
    assert len(find_masks(root, load_manifest("folder")).sources) == 2


def test_names_that_no_store_can_hold(tmp_path):
    root = touch(tmp_path, "masks/a.png")
    try:
        os.close(os.open(os.fsencode(root) + b"/masks/\xff.png", os.O_CREAT))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    error(find_masks, root, load_manifest("folder"), parts=("no UTF-8 file name", "Rename"))


def test_many_files_take_no_time(tmp_path):
    count = 2000
    for folder, suffix in (("masks", "png"), ("photos", "jpg")):
        (tmp_path / folder).mkdir()
        for index in range(count):
            (tmp_path / folder / f"{index:06}.{suffix}").touch()
    start = time.perf_counter()
    data = find_masks(tmp_path, detect_manifest(tmp_path))
    assert time.perf_counter() - start < 2
    assert len(data.sources) == count
    assert all(source.image for source in data.sources)


@pytest.mark.parametrize(
    ("folder", "name", "masks", "photos"),
    [
        ("cityscapes", "cityscapes", {"train": 10, "val": 4}, 6),
        ("camvid", "camvid", {"train": 367, "val": 101}, 468),
        ("ADEChallengeData2016", "ade20k", {"val": 2}, 2),
        ("folders/voc", "folder", {"all": 632}, 0),
        ("folders/coco_stuff", "folder", {"all": 13}, 13),
        ("folders/membrane", "folder", {"all": 10}, 10),
        ("folders/landcover", "folder", {"all": 1}, 0),
        ("folders/rellis", "folder", {"all": 1}, 1),
    ],
)
def test_real_folders(real_data, folder, name, masks, photos):
    manifest = detect_manifest(real_data / folder)
    assert manifest.name == name
    data = find_masks(real_data / folder, manifest)
    splits = [source.split for source in data.sources]
    assert {split: splits.count(split) for split in splits} == masks
    assert sum(bool(source.image) for source in data.sources) == photos
    assert data.unmatched_photos == ()
    assert all((real_data / folder / source.mask).is_file() for source in data.sources)
