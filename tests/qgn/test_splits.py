from pathlib import Path

import numpy as np
import pytest

import quadcodec
from qgn.data.splits import divide
from qgn.errors import TrainingError
from quadcodec.errors import StoreError


@pytest.fixture
def store_of(painted, tmp_path):
    """Make a store of the painted images, of some splits."""

    def make(*splits):
        return quadcodec.write(
            tmp_path / f"{'-'.join(splits)}.zarr", list(painted)[: len(splits)], void=[255], splits=splits,
            images=painted.columns.image[: len(splits)], image_root=painted.info.image_root,
        )  # fmt: skip

    return make


def divided(store, *, train_split=None, val_fraction=0.0, seed=0, held_aside=0):
    root = Path(store.info.image_root)
    return divide(
        store, root, train_split=train_split, val_fraction=val_fraction, seed=seed, held_aside=held_aside
    )  # fmt: skip


@pytest.mark.parametrize(
    ("splits", "name", "train", "val"),
    [
        (["train", "test", "val", "extra"], "train", (0,), (2,)),
        (["training", "test", "val", "training"], "training", (0, 3), (2,)),
        (["test", "all", "Testing", "all"], "all", (1, 3), ()),
    ],
)
def test_the_training_split_is_the_one_that_can_be_meant(store_of, splits, name, train, val):
    division = divided(store_of(*splits))
    assert (division.train_split, division.train, division.val) == (name, train, val)
    assert not division.set_aside


@pytest.mark.parametrize("splits", [["test", "val"], ["a", "b", "val"], ["test"], ["val"]])
def test_a_split_for_tests_is_never_trained_on_unawares(store_of, splits):
    store = store_of(*splits)
    with pytest.raises(TrainingError, match=f"has the splits {', '.join(splits)}, .* train_split=NAME"):
        divided(store)
    assert divided(store, train_split=splits[0]).train_split == splits[0]
    with pytest.raises(StoreError, match="split 'none' does not exist"):
        divided(store, train_split="none")


def test_what_is_set_aside_hangs_little_on_missing_photos(store_of, painted):
    store = store_of("a", "a", "a", "a", "a")
    whole = divided(store, val_fraction=0.4, seed=3)
    assert whole.set_aside
    assert (len(whole.train), len(whole.val)) == (3, 2)
    (Path(painted.info.image_root) / f"{whole.train[0]}.png").unlink()
    fewer = divided(store, val_fraction=0.4, seed=3)
    assert (fewer.val, fewer.train, fewer.without_photo) == (whole.val, whole.train[1:], 1)
    assert len({divided(store, val_fraction=0.4, seed=seed).val for seed in range(9)}) > 1


@pytest.mark.parametrize(("splits", "val_fraction"), [("aaaaa", 0.2), ("aaaaa", 0.0)])
def test_held_aside_images_are_apart_from_all_others(store_of, splits, val_fraction):
    store = store_of(*splits)
    plain = divided(store, val_fraction=val_fraction, seed=5)
    division = divided(store, val_fraction=val_fraction, seed=5, held_aside=2)
    assert division == divided(store, val_fraction=val_fraction, seed=5, held_aside=2)
    assert division.val == plain.val
    assert len(division.held_aside) == 2
    assert sorted((*division.train, *division.held_aside)) == list(plain.train)
    more = divided(store, val_fraction=val_fraction, seed=5, held_aside=3)
    assert set(division.held_aside) < set(more.held_aside)


def test_held_aside_images_are_of_the_training_split(store_of):
    store = store_of("train", "val", "train", "train", "extra")
    division = divided(store, held_aside=2)
    assert sorted((*division.train, *division.held_aside)) == [0, 2, 3]
    assert division.val == (1,)
    with pytest.raises(TrainingError, match=r"has 3 training images, and 3 would be set aside .* Lower held_aside"):
        divided(store, held_aside=3)


def test_one_image_is_trained_on(tmp_path, store_of):
    division = divided(store_of("train"), val_fraction=0.5)
    assert (division.train, division.val) == ((0,), ())
    assert np.array_equal(division.train, [0])
