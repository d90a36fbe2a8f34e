import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import quadcodec
from qgn.errors import TrainingError
from qgn.inputs import Input, find_inputs, read_list
from qgn.predict import Prediction, predict_files
from quadcodec.quadtree import LinearQuadtree
from quadcodec_cli.qgn_predict import cli


@pytest.fixture
def predictor():
    """A predictor that answers at once: class 1 where the photo is bright."""
    classes = SimpleNamespace(raw_ids=(7, 9), colors=((1, 2, 3), (4, 5, 6)), names=("dark", "bright"))

    def predict(photo):
        bright = (photo[..., 0] > 127).astype(np.uint8)
        tree = LinearQuadtree.from_mask(bright)
        return Prediction(bright, tree, tree)

    predict.checkpoint = SimpleNamespace(classes=classes)
    return predict


def paint(path, value=9, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def animate(path, values, **options):
    first, *rest = (Image.new("RGB", (30, 20), (value,) * 3) for value in values)
    first.save(path, save_all=True, append_images=rest, **options)
    return path


def test_what_cannot_be_predicted_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="no such file or folder"):
        find_inputs([tmp_path / "none.jpg"])
    with pytest.raises(TrainingError, match="no photo in this folder"):
        find_inputs([tmp_path])
    photo, other = paint(tmp_path / "x.png"), paint(tmp_path / "x.bmp")
    with pytest.raises(TrainingError, match="named 'x', too"):
        find_inputs([photo, other])
    gif = animate(tmp_path / "clip.gif", (0, 200))
    with pytest.raises(TrainingError, match=r"clip\.gif: another photo or video is named 'clip', too"):
        find_inputs([gif, paint(tmp_path / "clip" / "000000.png")])  # which the first frame would replace


def test_sub_folders_are_kept(predictor, tmp_path):
    for name in ("x.png", "a/x.png", "b/c/x.png"):
        paint(tmp_path / "photos" / name, value=200 if name[0] == "a" else 9)
    inputs = find_inputs([tmp_path / "photos"])
    assert [item.name for item in inputs] == ["a/x", "b/c/x", "x"]
    out, store = tmp_path / "out", tmp_path / "trees.zarr"
    assert predict_files(predictor, inputs, out, store=store) == 3
    for item in inputs:
        assert {(out / f"{item.name}_{end}.png").is_file() for end in ("labels", "overlay", "tree")} == {True}
        labels = np.asarray(Image.open(out / f"{item.name}_labels.png"))
        assert set(np.unique(labels)) == {9 if item.name == "a/x" else 7}
    trees = quadcodec.open(store)
    assert trees.names == ("a/x", "b/c/x", "x")
    assert trees.columns.image == ("a/x.png", "b/c/x.png", "x.png")
    with pytest.raises(TrainingError, match=r"a/x_labels\.png: exists already"):
        predict_files(predictor, inputs, out)


def test_files_are_named_from_the_folder_that_holds_them_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = paint(tmp_path / "p" / "a" / "x.png"), paint(tmp_path / "p" / "b" / "x.png")
    assert [item.name for item in find_inputs([one, two])] == ["a/x", "b/x"]
    assert [item.name for item in find_inputs(["p/b/x.png"])] == ["x"]
    assert [item.name for item in find_inputs(["p/b/x.png", "p"])] == ["x", "a/x", "b/x"]


def test_earlier_predictions_are_no_photos(predictor, tmp_path):
    folder = tmp_path / "photos"
    paint(folder / "a.png")
    paint(folder / "sub" / "b.png")
    animate(folder / "clip.gif", (0, 200))
    originals = find_inputs([folder])
    for out in (folder / "out", folder):
        predict_files(predictor, find_inputs([folder], out), out)
        assert find_inputs([folder], out) == originals
        for path in out.rglob("*_*.png"):
            path.unlink()
    oak = paint(folder / "sub" / "oak_tree.png")  # a photo of a tree, and no prediction of a photo 'oak'
    assert oak in [item.path for item in find_inputs([folder], folder)]


def test_frames_are_taken_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 100, 1):
        paint(tmp_path / f"frame_{number}.png")
    assert [item.name for item in find_inputs([tmp_path])] == ["frame_1", "frame_9", "frame_10", "frame_100"]


@pytest.mark.parametrize(
    ("name", "options"),
    [("walk.gif", {}), ("walk.tif", {}), ("walk.webp", {"lossless": True}), ("walk.png", {})],
)
def test_each_frame_of_an_animation_is_predicted(predictor, tmp_path, name, options):
    values = (0, 200, 0, 255)
    (item,) = inputs = find_inputs([animate(tmp_path / name, values, **options)])
    assert item.moving
    out, store = tmp_path / "out", tmp_path / "trees.zarr"
    assert predict_files(predictor, inputs, out, store=store) == 4
    trees = quadcodec.open(store)
    assert trees.names == tuple(f"walk/00000{k}" for k in range(4))
    assert trees.columns.image == ("",) * 4  # a frame is no file
    for k, value in enumerate(values):
        labels = np.asarray(Image.open(out / "walk" / f"00000{k}_labels.png"))
        assert np.unique(labels) == (9 if value > 127 else 7)
        np.testing.assert_array_equal(trees[k], labels)
    with pytest.raises(TrainingError, match="walk: exists already"):
        predict_files(predictor, inputs, out)


def test_a_still_picture_is_one_photo(tmp_path):
    Image.new("P", (30, 20), 3).save(tmp_path / "a.gif")
    (item,) = find_inputs([tmp_path / "a.gif"])
    assert not item.moving
    assert [name for name, _ in item.frames()] == ["a"]


def test_the_frames_of_a_video_are_predicted(tmp_path, predictor):
    av = pytest.importorskip("av", reason="PyAV is not installed (extra 'video')")
    path, values = tmp_path / "clip.mp4", (0, 255, 0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for value in values:
            picture = av.VideoFrame.from_ndarray(np.full((32, 64, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    inputs = find_inputs([path])
    shapes = [frame.shape for _, frame in inputs[0].frames()]
    assert shapes == [(32, 64, 3)] * 3
    assert predict_files(predictor, inputs, tmp_path / "out") == 3
    labels = [np.asarray(Image.open(tmp_path / "out" / "clip" / f"00000{k}_labels.png")) for k in range(3)]
    assert [set(np.unique(mask)) for mask in labels] == [{7}, {9}, {7}]
    path.write_bytes(b"no video")
    with pytest.raises(TrainingError, match=r"clip\.mp4: the video cannot be read"):
        list(inputs[0].frames())


def test_a_prediction_never_replaces_a_frame_that_is_given(predictor, tmp_path):
    gif = animate(tmp_path / "clip.gif", (0, 200))
    photo = paint(tmp_path / "clip" / "000001_labels.png")
    before = photo.read_bytes()
    with pytest.raises(TrainingError, match="is one of the photos"):
        predict_files(predictor, [*find_inputs([gif]), Input(photo, "photo")], tmp_path, overwrite=True)
    assert photo.read_bytes() == before


def test_lists_hold_a_path_a_line_or_between_nuls():
    assert [str(path) for path in read_list(b"a b.png\r\n\nc\n")] == ["a b.png", "c"]
    assert [str(path) for path in read_list(b"a\nb.png\0c\0")] == ["a\nb.png", "c"]
    assert read_list(b"\n") == []


def test_a_list_on_standard_input_is_predicted(checkpoint, tmp_path, monkeypatch):
    photos = [paint(tmp_path / "p" / name / "x.png", size=(64, 32)) for name in "ab"]
    listed = "\0".join(map(str, photos))
    arguments = [
        "-",
        "--no-pictures",
        "--checkpoint",
        str(checkpoint),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(cli, arguments, input=io.BytesIO(listed.encode()))
    assert result.exit_code == 0, result.output
    assert "of 2 images" in result.output
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert written == {"a/x_labels.png", "b/x_labels.png"}


def test_paths_with_dots_stay_below_the_folder_they_share(tmp_path, monkeypatch):
    for name in ("photos/a.png", "x/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path / "x")
    names = [item.name for item in find_inputs([Path("../photos/a.png"), Path("b.png")])]
    assert [str(name) for name in names] == ["photos/a", "x/b"]
