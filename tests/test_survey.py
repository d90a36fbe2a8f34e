"""A dry run names every problem of a data set at once, and writes nothing."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import quadcodec
from quadcodec.errors import ManifestError
from quadcodec.masks import read_mask
from quadcodec.survey import survey

from .conftest import blocks
from .test_cli import fails, invoke

MANIFEST = """
name = "toy"
title = "Toy"
licence = "none"
void = [9]
[[layouts]]
masks = ["m/{name}.{png,tif}"]
photos = ["p/{name}.{jpg,png}"]
lists = "{split}.txt"
[[splits]]
name = "train"
masks = 4
[[splits]]
name = "val"
masks = 2
[labels]
0 = "sky"
1 = "road"
9 = "void"
"""


@pytest.fixture
def toy(tmp_path):
    """A sound data set, and the manifest that describes it."""
    root = tmp_path / "toy"
    for folder in ("m", "p"):
        (root / folder).mkdir(parents=True)
    names = {"train": ["a", "b", "c", "d"], "val": ["e", "f"]}
    for split, members in names.items():
        (root / f"{split}.txt").write_text("\n".join(members) + "\n")
        for i, name in enumerate(members):
            Image.fromarray(blocks(i, 30, 40, classes=2)).save(root / "m" / f"{name}.png")
            Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(root / "p" / f"{name}.png")
    (tmp_path / "toy.toml").write_text(MANIFEST)
    return root


def problems(toy, **options):
    found = survey(toy, layout=str(toy.parent / "toy.toml"), **options)
    return {one.kind: (one.count, one.first) for one in found.problems}


def test_a_sound_data_set_has_no_problems(toy):
    done = []
    found = survey(toy, layout=str(toy.parent / "toy.toml"), progress=done.append)
    assert found.problems == ()
    assert found.splits == {"train": 4, "val": 2}
    assert (found.pixels, found.without_photo, sum(done)) == (6 * 30 * 40, 0, 6)
    assert found.source_bytes == sum(file.stat().st_size for file in (toy / "m").iterdir())


def spoil(toy):
    masks, photos = toy / "m", toy / "p"
    shutil.copy(masks / "a.png", masks / "a.tif")
    (masks / "b.png").write_bytes((masks / "b.png").read_bytes()[:-20])
    (photos / "c.png").unlink()
    Image.fromarray(np.zeros((30, 41, 3), np.uint8)).save(photos / "d.png")
    (photos / "e.png").write_bytes(b"no photo")
    mask = np.full((30, 40), 9, np.uint8)
    mask[0, :3] = 77
    for name in "cde":
        Image.fromarray(mask).save(masks / f"{name}.png")
    (masks / "f.png").unlink()
    (toy / "val.txt").write_text("e\nf\ng\n")


def test_all_problems_are_told_together(toy):
    spoil(toy)
    found = problems(toy)
    assert found.pop("two masks of one name") == (1, ("m/a.png and m/a.tif are both the mask 'a' of split 'train'",))
    assert found.pop("photos without masks") == (1, ("p/f.png",))
    assert found.pop("masks without photos") == (1, ("m/c.png",))
    assert found.pop("names in a split's list without masks") == (2, ("val/f", "val/g"))
    assert found.pop("wrong numbers of masks") == (1, ("split 'val': 1 here, 2 in the complete data set",))
    count, (message,) = found.pop("masks that cannot be read")
    assert count == 1
    assert message.startswith(f"{toy}/m/b.png: truncated or damaged")
    count, (message,) = found.pop("photos that cannot be read")
    assert message.startswith(f"{toy}/p/e.png: not a photo")
    count, (message,) = found.pop("photos of another size than their masks")
    assert message == "p/d.png: 30 x 41 pixels (height x width), its mask 30 x 40"
    count, (message,) = found.pop("ids that the manifest does not name")
    assert message == "id 77: 9 pixels of 3 masks, first in m/c.png"
    count, (message,) = found.pop("void that looks wrong")
    assert message.startswith("ids [9] are void and cover 74.")
    assert not found


def test_splits_and_void_that_are_named(toy):
    spoil(toy)
    found = problems(toy, splits=["train"], void=[77, 78])
    assert "ids that the manifest does not name" not in found
    assert "wrong numbers of masks" not in found
    assert "id 78 was named void, but no pixel has it" in found["void that looks wrong"][1]
    with pytest.raises(ManifestError, match="split 'test' is unknown"):
        problems(toy, splits=["test"])


def test_a_split_that_is_missing_as_a_whole(toy):
    (toy / "val.txt").unlink()
    assert problems(toy)["wrong numbers of masks"] == (1, ("split 'val': 0 here, 2 in the complete data set",))
    assert "wrong numbers of masks" not in problems(toy, splits=["train"])


def test_only_the_first_few_are_kept(tmp_path):
    (tmp_path / "masks").mkdir()
    for i in range(9):
        (tmp_path / "masks" / f"{i}.png").write_bytes(b"")
    (one,) = survey(tmp_path).problems
    assert (one.count, len(one.first)) == (9, 5)
    assert "9.png" not in one.first[-1]


def test_255_that_nobody_explained(tmp_path):
    mask = blocks(0, 30, 40)
    mask[:3] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    (one,) = survey(tmp_path).problems
    assert one.first[0].startswith("id 255 covers 10.0 % of the pixels, in 1 of the masks, and nothing is void")
    assert survey(tmp_path, void=[255]).problems == ()
    Image.fromarray(np.where(mask > 2, 255, 0).astype(np.uint8)).save(tmp_path / "a.png")
    assert survey(tmp_path).problems == ()  # foreground and background


def test_workers_see_the_same(tmp_path):
    for i in range(40):
        Image.fromarray(blocks(i, 20, 20)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "17.png").write_bytes(b"")
    assert survey(tmp_path, workers=2) == survey(tmp_path, workers=1)


def test_the_command_exits_1_and_writes_nothing(toy):
    target, layout = toy.parent / "out.zarr", toy.parent / "toy.toml"
    code, out, _ = invoke("convert", toy, target, "--format", layout, "--dry-run")
    assert (code, out.splitlines()[-1]) == (0, "no problem found (dry run: nothing written)")
    spoil(toy)
    code, out, err = invoke("convert", toy, target, "--format", layout, "--dry-run")
    assert code == 1
    assert err == ""
    assert "names in a split's list without masks (2):\n  val/f\n  val/g\n" in out
    assert out.splitlines()[-1] == "11 problems (dry run: nothing written)"
    code, out, _ = invoke("convert", toy, target, "--format", layout, "--dry-run", "--json")
    assert code == 1
    assert sum(one["count"] for one in json.loads(out)["problems"]) == 11
    assert not target.exists()
    assert not target.with_name("out.zarr.partial").exists()
    assert "no such folder" in fails("convert", toy / "none", target, "--dry-run")


def test_what_was_skipped_is_written_into_the_store_and_shown(tmp_path):
    for i in range(10):
        Image.fromarray(blocks(i, 20, 20)).save(tmp_path / f"{i}.png")
    for i in range(2, 9):
        (tmp_path / f"{i}.png").write_bytes(b"")
    target = tmp_path / "out.zarr"
    assert invoke("convert", tmp_path, target, "--on-error", "skip")[0] == 0
    store = quadcodec.open(target)
    assert [problem.path for problem in store.info.skipped] == [f"{i}.png" for i in range(2, 9)]
    np.testing.assert_array_equal(store[2], read_mask(tmp_path / "9.png"))
    out = invoke("info", target)[1]
    assert "7 masks that could not be converted:" in out
    assert f"{tmp_path}/6.png: the file is empty" in out
    assert "7.png" not in out
    assert "and 2 more: --json names all" in out
    assert len(json.loads(invoke("info", target, "--json")[1])["skipped"]) == 7
