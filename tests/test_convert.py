import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

import quadcodec
from quadcodec import convert as module
from quadcodec.convert import convert, plan_conversion, worker_pool
from quadcodec.errors import ManifestError, MaskError, QuadcodecError, StoreError
from quadcodec.export import export_masks
from quadcodec.masks import mask_form, read_mask
from quadcodec.shard import shard_path
from quadcodec.stats import stats
from quadcodec.store import partial_path, stored_plan
from quadcodec.validate import validate

from .conftest import blocks

FOLDERS = [
    "cityscapes", "camvid", "ADEChallengeData2016", "folders/cityscapes_junction", "folders/voc", "folders/coco_stuff",
    "folders/nyuv2_13", "folders/membrane", "folders/drive", "folders/rock", "folders/landcover", "folders/loveda",
    "folders/rellis",
]  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_real_folder_comes_back_equal(real_data, tmp_path, folder):
    plan = plan_conversion(real_data / folder)
    report = convert(plan, tmp_path / "out.zarr")
    assert sum(report.splits.values()) == len(plan.columns) > 0
    store = quadcodec.open(tmp_path / "out.zarr")
    labels = zarr.open(str(tmp_path / "out.zarr"), mode="r")["labels"]
    export_masks(store, tmp_path / "png")
    assert validate(store.path, deep=True) == []
    for i, source in enumerate(store.columns.source):
        mask = read_mask(real_data / folder / source)
        height, width = mask.shape
        np.testing.assert_array_equal(store[i], mask)
        assert store[i].dtype == mask.dtype
        np.testing.assert_array_equal(labels[i][:height, :width], mask)
        np.testing.assert_array_equal(read_mask(tmp_path / "png" / source), mask)
        assert mask_form(tmp_path / "png" / source) == store.columns.form[i]


@pytest.fixture
def many(tmp_path):
    """A plain folder of 150 small masks: three shards."""
    root = tmp_path / "many"
    root.mkdir()
    for i in range(150):
        Image.fromarray(blocks(i, 20, 20 + i % 7)).save(root / f"{i:03d}.png")
    return root


def tree(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_report_and_columns(cityscapes, tmp_path):
    report = convert(plan_conversion(cityscapes), tmp_path / "out.zarr")
    assert (report.dataset, report.splits, report.without_photo) == ("cityscapes", {"train": 3, "val": 2}, 2)
    store = quadcodec.open(tmp_path / "out.zarr")
    assert store.names[0] == "aachen/aachen_000000_000019"
    assert store.columns.image[0] == "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
    assert store.columns.image[4] == ""
    assert store.info.image_root == str(cityscapes.resolve())
    assert {c.id: c.name for c in store.classes}[7] == "road"
    assert len(store.info.train_classes) == 19
    assert not partial_path(store.path).exists()


def test_the_small_profile_through_every_reader(many, tmp_path):
    plan = plan_conversion(many, profile="small")
    with worker_pool(plan, 2) as executor:
        convert(plan, tmp_path / "out.zarr", executor=executor)
    store = quadcodec.open(tmp_path / "out.zarr")
    labels = zarr.open(str(store.path), mode="r")["labels"]
    assert validate(store.path, deep=True) == []
    for i, name in enumerate(store.names):
        mask = read_mask(many / f"{name}.png")
        np.testing.assert_array_equal(store[i], mask)
        np.testing.assert_array_equal(labels[i][:20, : mask.shape[1]], mask)
    np.testing.assert_array_equal(store.quadtree(3).nodes, quadcodec.LinearQuadtree.from_mask(store[3]).nodes)
    fast = convert(plan_conversion(many), tmp_path / "fast.zarr")
    assert [row.leaves for row in stats(store.path)] == [row.leaves for row in stats(fast.path)]
    with pytest.raises(StoreError, match="was begun with profile 'small', now it is 'fast'"):
        convert(plan_conversion(many), store.path, resume=True)


def test_workers_write_the_same_bytes(many, tmp_path):
    plan = plan_conversion(many)
    convert(plan, tmp_path / "one.zarr")
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        convert(plan, tmp_path / "two.zarr", executor=executor)
    assert tree(tmp_path / "one.zarr") == tree(tmp_path / "two.zarr")


def test_resume_gives_the_bytes_of_an_unbroken_run(many, tmp_path, monkeypatch):
    plan = plan_conversion(many)
    convert(plan, tmp_path / "whole.zarr")
    real = module._convert_shard
    monkeypatch.setattr(module, "_convert_shard", lambda task: 1 / 0 if task.shard == 2 else real(task))
    target = tmp_path / "broken.zarr"
    with pytest.raises(ZeroDivisionError):
        convert(plan, target)
    assert not target.exists()
    leftover = shard_path(partial_path(target), 1).with_name(".0.1.partial")
    leftover.write_bytes(b"half")
    with pytest.raises(StoreError, match=r"did not finish\. Continue it with --resume"):
        convert(plan, target)
    done = []
    monkeypatch.setattr(module, "_convert_shard", lambda task: done.append(task.shard) or real(task))
    convert(plan, target, resume=True)
    assert done == [2]
    assert tree(target) == tree(tmp_path / "whole.zarr")
    convert(plan, target, resume=True)  # complete already: nothing to do
    assert done == [2]


def test_resume_refuses_another_plan(many, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "finish", lambda *a, **k: 1 / 0)
    target = tmp_path / "out.zarr"
    with pytest.raises(ZeroDivisionError):
        convert(plan_conversion(many), target)
    with pytest.raises(StoreError, match="was begun with levels 6, now it is 5"):
        convert(plan_conversion(many, levels=5), target, resume=True)
    (many / "000.png").unlink()
    with pytest.raises(StoreError, match=r"another list of images \(150 then, 149 now\)"):
        convert(plan_conversion(many), target, resume=True)


def interrupted(plan, target, monkeypatch, **options):
    """Run a conversion that breaks off before its third shard."""
    real = module._convert_shard
    with monkeypatch.context() as patch:
        patch.setattr(module, "_convert_shard", lambda task: 1 / 0 if task.shard == 2 else real(task))
        with pytest.raises(ZeroDivisionError):
            convert(plan, target, **options)


def test_resume_makes_shards_of_changed_masks_anew(many, tmp_path, monkeypatch):
    target = tmp_path / "out.zarr"
    interrupted(plan_conversion(many), target, monkeypatch)
    mask = 9 - read_mask(many / "001.png")
    Image.fromarray(mask).save(many / "001.png")
    convert(plan_conversion(many), target, resume=True)
    np.testing.assert_array_equal(quadcodec.open(target)[1], mask)


def test_resume_refuses_masks_of_another_size(many, tmp_path, monkeypatch):
    target = tmp_path / "out.zarr"
    interrupted(plan_conversion(many), target, monkeypatch)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(many / "003.png")
    with pytest.raises(StoreError, match=r"003\.png has another size than when the run was begun"):
        convert(plan_conversion(many), target, resume=True)


def test_an_interrupted_overwrite_keeps_the_old_store_and_can_be_resumed(cityscapes, many, tmp_path, monkeypatch):
    target = tmp_path / "out.zarr"
    convert(plan_conversion(cityscapes), target)
    before = tree(target)
    interrupted(plan_conversion(many), target, monkeypatch, overwrite=True)
    assert tree(target) == before
    convert(plan_conversion(many), target, resume=True)
    assert len(quadcodec.open(target)) == 150
    convert(plan_conversion(many), tmp_path / "whole.zarr")
    assert tree(target) == tree(tmp_path / "whole.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cityscapes", "many", "out.zarr", "whole.zarr"]


def test_resume_remembers_what_was_skipped(many, tmp_path, monkeypatch):
    truncate(many / "010.png")
    target = tmp_path / "out.zarr"
    real = module._convert_shard

    def breaks(task):
        if len(task.info.skipped) and task.shard == 2:
            raise ZeroDivisionError
        return real(task)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_convert_shard", breaks)
        with pytest.raises(ZeroDivisionError):
            convert(plan_conversion(many), target, skip_bad=True)
    assert [p.path for p in stored_plan(partial_path(target))[0].skipped] == ["010.png"]
    for _ in range(2):  # to the end, and once more when it is complete
        report = convert(plan_conversion(many), target, skip_bad=True, resume=True)
        assert [p.path for p in report.skipped] == ["010.png"]
    assert len(quadcodec.open(target)) == 149
    assert "010.png" in quadcodec.open(target).info.skipped[0].message


def test_a_run_that_was_killed_at_its_start_is_begun_anew(many, tmp_path):
    partial = partial_path(tmp_path / "out.zarr")
    (partial / "labels" / "c" / "1" / "0").mkdir(parents=True)
    (partial / "labels" / "c" / "1" / "0" / "0").write_bytes(b"half")
    convert(plan_conversion(many), tmp_path / "out.zarr", resume=True)
    assert len(quadcodec.open(tmp_path / "out.zarr")) == 150


def test_a_bad_mask_under_workers_leaves_what_resume_can_use(tmp_path):
    root = tmp_path / "noise"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(192):
        Image.fromarray(rng.integers(0, 250, (80, 80), np.uint8)).save(root / f"{i:03d}.png")
    whole = (root / "000.png").read_bytes()
    truncate(root / "000.png")
    target = tmp_path / "out.zarr"
    plan = plan_conversion(root)
    with worker_pool(plan, 2) as executor, pytest.raises(MaskError, match=r"000\.png"):
        convert(plan, target, executor=executor)
    (root / "000.png").write_bytes(whole)
    convert(plan, target, resume=partial_path(target).exists())
    assert validate(target, deep=True) == []


def die(task):
    os._exit(9)


def test_a_worker_that_dies_is_one_line(many, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_convert_shard", die)
    with (
        ProcessPoolExecutor(2, get_context("spawn")) as executor,
        pytest.raises(StoreError, match="a worker process died"),
    ):
        convert(plan_conversion(many), tmp_path / "out.zarr", executor=executor)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many"]


def test_colour_masks_with_wide_ids_read_alike_everywhere(tmp_path):
    (tmp_path / "masks").mkdir()
    colors = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)
    Image.fromarray(colors).save(tmp_path / "masks" / "a.png")
    (tmp_path / "own.toml").write_text(
        'name = "own"\ntitle = "Own"\nlicence = "none"\ncolor_masks = true\n'
        '[[layouts]]\nmasks = ["masks/{name}.png"]\n[[splits]]\nname = "all"\n'
        "[colors]\n300 = [255, 0, 0]\n2 = [0, 255, 0]\n"
        "[published.all]\n5 = 50.0\n"
    )
    convert(plan_conversion(tmp_path, layout=str(tmp_path / "own.toml")), tmp_path / "out.zarr")
    store = quadcodec.open(tmp_path / "out.zarr")
    assert store[0].tolist() == [[300, 2]]
    assert zarr.open(str(store.path), mode="r")["labels"][0].tolist() == [[300, 2]]
    export_masks(store, tmp_path / "png")
    with Image.open(tmp_path / "png" / "masks" / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), colors)
    (row,) = stats(store.path)
    assert row.published["5"] == 50.0
    assert stats(tmp_path, layout=str(tmp_path / "own.toml"))[0].leaves == row.leaves


def test_a_target_without_a_name_or_a_folder(many, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="exists already"):
        convert(plan_conversion(many), ".")
    with pytest.raises(StoreError, match="no such folder"):
        convert(plan_conversion(many), tmp_path / "nowhere" / "out.zarr")


def test_an_existing_target_is_kept_unless_told_otherwise(cityscapes, many, tmp_path):
    target = tmp_path / "out.zarr"
    convert(plan_conversion(cityscapes), target)
    before = tree(target)
    with pytest.raises(StoreError, match="exists already"):
        convert(plan_conversion(many), target)
    assert tree(target) == before
    convert(plan_conversion(many), target, overwrite=True)
    assert len(quadcodec.open(target)) == 150


@pytest.mark.parametrize("kind", ["file", "folder", "zarr"])
def test_what_is_no_store_is_never_overwritten(cityscapes, tmp_path, kind):
    target = tmp_path / "precious"
    if kind == "file":
        target.write_text("thesis")
    elif kind == "folder":
        target.mkdir()
        (target / "thesis.txt").write_text("thesis")
    else:
        zarr.create_group(str(target), attributes={"thesis": 1})
    with pytest.raises(StoreError, match="not overwritten"):
        convert(plan_conversion(cityscapes), target, overwrite=True)
    assert target.exists()
    if kind == "folder":
        assert (target / "thesis.txt").read_text() == "thesis"


@pytest.mark.parametrize("kind", ["folder", "zarr"])
def test_what_is_not_ours_is_kept_whatever_its_name(cityscapes, tmp_path, kind):
    partial = partial_path(tmp_path / "out.zarr")
    if kind == "folder":
        (partial / "labels").mkdir(parents=True)
    else:
        zarr.create_group(str(partial)).create_group("labels")
    (partial / "labels" / "thesis.txt").write_text("thesis")
    with pytest.raises(StoreError, match="not overwritten"):
        convert(plan_conversion(cityscapes), tmp_path / "out.zarr", overwrite=True)
    with pytest.raises(StoreError, match="not overwritten"):
        convert(plan_conversion(cityscapes), tmp_path / "out.zarr", resume=True)
    assert (partial / "labels" / "thesis.txt").read_text() == "thesis"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-30])


def test_a_bad_mask_stops_the_run_and_leaves_nothing(many, tmp_path):
    truncate(many / "077.png")
    with pytest.raises(MaskError, match=r"077\.png.*1 of 3 shards are kept in .*: continue with --resume"):
        convert(plan_conversion(many, splits=["all"]), tmp_path / "kept.zarr")
    assert not (tmp_path / "kept.zarr").exists()
    truncate(many / "003.png")  # the first shard: nothing to resume, so nothing stays
    with pytest.raises(MaskError, match=r"003\.png"):
        convert(plan_conversion(many), tmp_path / "out.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.zarr.partial", "many"]


def test_skip_leaves_bad_masks_out_and_says_so(many, tmp_path):
    truncate(many / "077.png")
    (many / "100.png").write_bytes(b"")
    plan = plan_conversion(many, skip_bad=True)
    report = convert(plan, tmp_path / "out.zarr", skip_bad=True)
    assert sorted(p.path for p in report.skipped) == ["077.png", "100.png"]
    store = quadcodec.open(tmp_path / "out.zarr")
    assert len(store) == 148
    for name, mask in zip(store.names, store, strict=True):
        np.testing.assert_array_equal(mask, read_mask(many / f"{name}.png"))


def test_photos_must_fit_their_masks(cityscapes):
    photo = cityscapes / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
    Image.fromarray(np.zeros((51, 70, 3), np.uint8)).save(photo)
    with pytest.raises(ManifestError, match=r"photo of 51 x 70 pixels .* its mask .* has 50 x 70"):
        plan_conversion(cityscapes)
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save(photo)
    photo.with_name("aachen_000009_000019_leftImg8bit.png").write_bytes(photo.read_bytes())
    with pytest.raises(ManifestError, match=r"aachen_000009_000019_leftImg8bit\.png: this photo has no mask"):
        plan_conversion(cityscapes)


def test_colour_masks_need_colours(tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(MaskError, match=r"a\.png: pixel \(y=0, x=0\) is the colour"):
        convert(plan_conversion(tmp_path), tmp_path / "out.zarr")


@pytest.mark.parametrize("name", ["../escape", "/escape", "a/../../escape"])
def test_export_never_leaves_its_folder(tmp_path, name):
    store = quadcodec.write(tmp_path / "out.zarr", [np.zeros((2, 2), np.uint8)], names=[name])
    with pytest.raises(StoreError, match="leads out of the folder"):
        export_masks(store, tmp_path / "png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.zarr"]


def test_a_full_disk_is_one_line_and_resumable(many, tmp_path, monkeypatch):
    plan = plan_conversion(many)
    convert(plan, tmp_path / "whole.zarr")
    real = os.fsync
    calls = []

    def full(descriptor):
        if not calls and "labels/c/1" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            calls.append(descriptor)
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(QuadcodecError, match=r"No space left on device.*--resume"):
        convert(plan, tmp_path / "out.zarr")
    convert(plan, tmp_path / "out.zarr", resume=True)
    assert tree(tmp_path / "out.zarr") == tree(tmp_path / "whole.zarr")
