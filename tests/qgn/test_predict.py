from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import quadcodec
from qgn.errors import TrainingError
from qgn.inputs import find_inputs
from qgn.predict import Prediction, load_predictor, predict_files, tree_picture
from quadcodec import build
from quadcodec.errors import QuadcodecError
from quadcodec.pyramid import COMPOSITE
from quadcodec.quadtree import LinearQuadtree
from quadcodec.record import decode_tree, encode_tree


@pytest.fixture
def predictor():
    """A predictor that answers at once: class 0 everywhere."""

    class Uniform:
        class checkpoint:  # noqa: N801
            class classes:  # noqa: N801
                raw_ids, colors, names = (7,), ((1, 2, 3),), ("road",)

        def __call__(self, photo):
            classes = np.zeros(photo.shape[:2], np.uint8)
            tree = LinearQuadtree.from_mask(classes)
            return Prediction(classes, tree, tree)

    return Uniform()


@pytest.fixture
def folder(tmp_path):
    """A folder of two photos, a.png and b.png, of 20x30."""
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((20, 30, 3), 9, np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_predictions_are_written_as_labels_pictures_and_trees(checkpoint, scenes, tmp_path):
    store = quadcodec.open(scenes)
    folder = Path(store.info.image_root) / "leftImg8bit" / "val"
    photos = find_inputs([folder])
    assert len(photos) == 2
    out = tmp_path / "out"
    assert predict_files(load_predictor(checkpoint), photos, out, store=tmp_path / "preds.zarr") == 2
    trees = quadcodec.open(tmp_path / "preds.zarr")
    ids = {c.id for c in store.classes if c.train_id is not None}
    for index, photo in enumerate(photos):
        mask = np.asarray(Image.open(out / f"{photo.name}_labels.png"))
        assert mask.shape == (64, 128)
        assert set(np.unique(mask)) <= ids
        np.testing.assert_array_equal(trees[index], mask)
        assert (Path(trees.info.image_root) / trees.columns.image[index]).samefile(photo.path)
        for kind in ("overlay", "tree"):
            with Image.open(out / f"{photo.name}_{kind}.png") as picture:
                assert picture.mode == "RGB"
                assert picture.size == ((128, 64) if kind == "overlay" else (1024, 512))


def test_the_predicted_tree_stops_where_the_decoder_stopped(checkpoint):
    photo = np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8)
    predictor = load_predictor(checkpoint)
    tree = predictor(photo).grown
    assert tree.counts[5] == 2
    for level in range(1, 6):
        assert tree.counts[level - 1] == 4 * np.count_nonzero(tree.level(level) == -1)
    assert (tree.to_mask() < 19).all()


def test_the_predicted_tree_is_a_quadtree(tmp_path):
    import torch

    from qgn.checkpoint import Checkpoint
    from qgn.data.classes import ClassMap
    from qgn.models.build import build_model
    from qgn.predict import Predictor

    torch.manual_seed(0)
    model = build_model("qgn_resnet18", 3, width=2).eval()
    for head in model.decoder.heads:  # every cell goes on: a tree that is far from merged, and beyond the image
        torch.nn.init.constant_(head.bias[:1], 100.0)
    classes = ClassMap(("a", "b", "c"), {0: 0, 1: 1, 2: 2}, ((0, 0, 0),) * 3)
    predictor = Predictor(Checkpoint("qgn_resnet18", 2, classes, None, 0, {}, {}), model, "cpu", "pc")
    photo = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    prediction = predictor(photo)
    tree, grown = prediction.tree, prediction.grown
    np.testing.assert_array_equal(tree.to_mask(), prediction.classes)
    np.testing.assert_array_equal(grown.to_mask(), prediction.classes)
    again = decode_tree(encode_tree(tree))
    for other in (again, tree.remap({0: 0, 1: 1, 2: 2})):
        np.testing.assert_array_equal(other.nodes, tree.nodes)
        assert other.counts == tree.counts
    assert set(tree.remap({0: 5, 1: 5, 2: 5}).class_pixels()) == {5}
    assert (grown.level(1) == COMPOSITE).all()  # the picture shows where the decoder went, not what came of it
    assert grown.counts[0] == 64 * 96


def test_the_picture_shows_cells_that_the_tree_has_merged():
    nodes = np.array([COMPOSITE, 1, COMPOSITE, 1, 1, 1, 1, 1, 1], np.int16)  # 32x32: all class 1, split twice
    grown = LinearQuadtree(nodes, (0, 0, 0, 4, 4, 1), 32, 32)
    tree, photo = LinearQuadtree.from_mask(grown.to_mask()), np.zeros((32, 32, 3), np.uint8)
    assert tree.nodes.tolist() == [1]
    palette = np.full((2, 3), 90, np.uint8)
    assert not np.array_equal(tree_picture(photo, grown, palette), tree_picture(photo, tree, palette))


def test_predictions_are_not_overwritten_unawares(folder, predictor, tmp_path):
    out, store, photos = tmp_path / "out", tmp_path / "preds.zarr", find_inputs([folder])
    called = []
    predict_files(predictor, photos, out, store=store)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(TrainingError, match=r"a_labels\.png: exists already.*--overwrite"):
        predict_files(predictor, photos, out, progress=called.append)
    with pytest.raises(TrainingError, match=r"preds\.zarr: exists already.*--overwrite"):
        predict_files(predictor, photos, tmp_path / "new", store=store, progress=called.append)
    assert not called
    assert not (tmp_path / "new").exists()
    assert before == {path: path.read_bytes() for path in out.iterdir()}
    (out / "b_tree.png").write_text("old")
    predict_files(predictor, photos[1:], out, store=store, overwrite=True)
    assert before == {path: path.read_bytes() for path in out.iterdir()}
    assert quadcodec.open(store).names == ("b",)


def test_a_photo_is_never_written_over(folder, predictor, tmp_path):
    photo = folder / "a_labels.png"
    photo.write_bytes((folder / "a.png").read_bytes())
    before = photo.read_bytes()
    for given, out in (([folder / "a.png", photo], folder), ([folder], tmp_path / "out")):
        photos = find_inputs(given, out)
        assert photo in [item.path for item in photos]
        if out == folder:
            with pytest.raises(TrainingError, match=r"a_labels\.png: is one of the photos"):
                predict_files(predictor, photos, out, overwrite=True)
    with pytest.raises(TrainingError, match="--out lies there"):
        predict_files(predictor, find_inputs([folder / "a.png"]), tmp_path / "x" / "out", store=tmp_path / "x")
    assert photo.read_bytes() == before


def test_only_a_store_is_replaced_by_one(folder, predictor, tmp_path):
    called, out = [], tmp_path / "out"
    (tmp_path / "precious").mkdir()
    with pytest.raises(TrainingError, match="precious: is no store"):
        predict_files(
            predictor, find_inputs([folder]), out, store=tmp_path / "precious", overwrite=True, progress=called.append
        )
    assert not called
    assert (tmp_path / "precious").is_dir()


@pytest.mark.parametrize("failing", ["reading", "packing", "renaming", "interrupted"])
def test_an_older_store_stays_until_the_new_one_is_complete(folder, predictor, tmp_path, failing, monkeypatch):
    out, store = tmp_path / "out", tmp_path / "preds.zarr"
    predict_files(predictor, find_inputs([folder]), out, store=store)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    (folder / "c.png").write_bytes(b"no photo" if failing == "reading" else (folder / "a.png").read_bytes())
    if failing != "reading":
        # The second file written whole is a shard; when the first folder is synced, the old store has moved.
        name, call = ("write_atomic", 2) if failing == "packing" else ("sync_folder", 1)
        real, calls = getattr(build, name), []

        def fails(*arguments):
            calls.append(1)
            if len(calls) == call:
                raise KeyboardInterrupt if failing == "interrupted" else OSError(28, "No space left on device")
            return real(*arguments)

        monkeypatch.setattr(build, name, fails)
    with pytest.raises((QuadcodecError, KeyboardInterrupt)) as caught:
        predict_files(predictor, find_inputs([folder]), out, store=store, overwrite=True)
    assert {"reading": "cannot be read", "interrupted": ""}.get(failing, "cannot be written") in str(caught.value)
    assert before == {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "photos", "preds.zarr"}
