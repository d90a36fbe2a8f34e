"""Data sets as data: manifests are checked when loaded, and find exactly the files they describe."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import pytest

from quadcodec.errors import ManifestError
from quadcodec.manifest import (
    DataSet,
    Source,
    detect_manifest,
    find_masks,
    load_manifest,
    manifest_names,
)

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
    assert set(manifest.colors) == set(manifest.labels)
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
    assert [(s.name, s.masks) for s in manifest.splits] == [("train", 2975), ("val", 500)]


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


@pytest.mark.parametrize(
    ("name", "split", "row"),
    [
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
