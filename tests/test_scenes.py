"""Generated street scenes: the same bytes from a seed, Cityscapes' layout, its statistics, and classes to be seen."""

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from quadcodec import scenes
from quadcodec.errors import StoreError
from quadcodec.scenes import main, street_labels, street_scene, write_scenes

VAL_SHARES = np.array([1.81, 3.22, 5.85, 9.53, 14.44, 65.12])  # Table 5, Cityscapes val, percent, level 0 first
VAL_RATIO = 3.25  # percent
SMALL = (96, 192)

Labels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def masks() -> list[Labels]:
    """Return the labels of 16 scenes in Cityscapes' size."""
    return [street_labels(0, (1024, 2048), index) for index in range(16)]


def level_shares(mask: Labels) -> npt.NDArray[np.float64]:
    """Return the percent of pixels in leaves of level 0..5: cells that are uniform in a parent that is not."""
    whole = [np.ones(mask.shape, dtype=bool)]
    for level in range(1, 6):
        side = 2**level
        cells = mask.reshape(mask.shape[0] // side, side, mask.shape[1] // side, side)
        uniform = (cells == cells[:, :1, :, :1]).all(axis=(1, 3))
        whole.append(uniform.repeat(side, axis=0).repeat(side, axis=1))
    whole.append(np.zeros(mask.shape, dtype=bool))
    return np.array([100 * np.mean(whole[level] & ~whole[level + 1]) for level in range(6)])


def lonely_share(mask: Labels) -> float:
    """Return the share of pixels that differ from all four neighbours."""
    middle = mask[1:-1, 1:-1]
    around = (mask[1:-1, :-2], mask[1:-1, 2:], mask[:-2, 1:-1], mask[2:, 1:-1])
    return float(np.all([middle != other for other in around], axis=0).mean())


def test_shares_of_a_mask_that_is_known() -> None:
    mask = np.zeros((64, 32), dtype=np.uint8)
    mask[0, 0] = 1
    assert level_shares(mask) * 20.48 == pytest.approx([4, 12, 48, 192, 768, 1024])
    assert lonely_share(np.pad(mask[:1, :1], 1)) == 1


def test_quadtree_statistics_are_near_those_of_cityscapes(masks: list[Labels]) -> None:
    shares = np.mean([level_shares(mask) for mask in masks], axis=0)
    assert shares.sum() == pytest.approx(100)
    assert shares == pytest.approx(VAL_SHARES, rel=0.15)
    assert (shares / 4.0 ** np.arange(6)).sum() == pytest.approx(VAL_RATIO, abs=0.4)


def test_contours_have_no_jitter(masks: list[Labels]) -> None:
    assert np.mean([lonely_share(mask) for mask in masks]) < 1e-6


def test_labels_are_ids_of_cityscapes(masks: list[Labels]) -> None:
    found = set(np.unique(np.stack(masks)).tolist())
    assert found <= set(range(34))
    assert found >= {1, 3, 4, 7, 8, 11, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 28, 33}
    for mask in masks:
        assert {1, 3, 7, 8, 11, 17, 21, 23} <= set(np.unique(mask).tolist())


def test_a_seed_gives_the_same_bytes() -> None:
    first, second = street_scene(7, SMALL, 3), street_scene(7, SMALL, 3)
    assert first.photo.tobytes() == second.photo.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.labels.tobytes() == street_labels(7, SMALL, 3).tobytes()
    for other in (street_scene(8, SMALL, 3), street_scene(7, SMALL, 4)):
        assert first.photo.tobytes() != other.photo.tobytes()
        assert first.labels.tobytes() != other.labels.tobytes()


@pytest.mark.parametrize("size", [(97, 203), (128, 256), (256, 512), (200, 100), (33, 1), (2, 3), (1, 1)])
def test_any_size(size: tuple[int, int]) -> None:
    scene = street_scene(0, size)
    assert scene.photo.shape == (*size, 3)
    assert scene.labels.shape == size
    assert scene.photo.dtype == scene.labels.dtype == np.uint8


def test_a_scene_scales_with_its_size(masks: list[Labels]) -> None:
    assert np.mean(street_labels(0, (256, 512)) == masks[0][2::4, 2::4]) > 0.95


def test_a_scene_is_a_value() -> None:
    scene = street_scene(0, (8, 16))
    with pytest.raises(dataclasses.FrozenInstanceError):
        scene.labels = scene.labels  # type: ignore[misc]


def test_layout_is_that_of_cityscapes(tmp_path: Path) -> None:
    out = tmp_path / "data"
    write_scenes(out, count=6, size=SMALL, seed=5)
    names = [f"{{}}/{'train' if i < 5 else 'val'}/scenes/scenes_{i:06d}_000000_{{}}.png" for i in range(6)]
    photos = [out / name.format("leftImg8bit", "leftImg8bit") for name in names]
    labels = [out / name.format("gtFine", "gtFine_labelIds") for name in names]
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(photos + labels)
    for i, (photo, mask) in enumerate(zip(photos, labels, strict=True)):
        scene = street_scene(5, SMALL, i)
        with Image.open(photo) as image:
            assert image.mode == "RGB"
            assert np.array_equal(np.asarray(image), scene.photo)
        with Image.open(mask) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), scene.labels)


@pytest.mark.parametrize(("count", "val_count", "expected"), [(1, None, 0), (2, None, 1), (10, None, 2), (3, 3, 3)])
def test_split(tmp_path: Path, count: int, val_count: int | None, expected: int) -> None:
    write_scenes(tmp_path, count, (8, 16), 0, val_count)
    assert len(list(tmp_path.glob("gtFine/val/scenes/*.png"))) == expected
    assert len(list(tmp_path.glob("leftImg8bit/train/scenes/*.png"))) == count - expected


@pytest.mark.parametrize(("count", "size", "val_count"), [(0, SMALL, None), (2, (0, 9), None), (2, SMALL, 3)])
def test_numbers_that_make_no_data_set(
    tmp_path: Path, count: int, size: tuple[int, int], val_count: int | None
) -> None:
    with pytest.raises(StoreError, match="expected at least one scene"):
        write_scenes(tmp_path / "data", count, size, 0, val_count)
    assert not (tmp_path / "data").exists()


def test_command_writes_once_and_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(tmp_path / "data"), "--count", "2", "--size", "24x48", "--seed", "1", "--val-count", "1"]
    assert main(command) == 0
    assert capsys.readouterr().err == ""
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert len(files) == 4
    assert main([*command, "--seed", "2"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {tmp_path / 'data'}: exists already")
    assert error.count("\n") == 1
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*.png")}


def test_command_names_a_size_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path), "--size", "large"])
    assert stop.value.code == 2
    usage, error = capsys.readouterr().err.split("Error: ")
    assert usage.startswith("usage: ")
    assert "expected HEIGHTxWIDTH" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--seed", "-1"], "seed -1: expected a whole number from 0 on"),
        (["--count", "0"], "0 scenes of 512x1024"),
        (["--size", "100000x100000"], "100000x100000 pixels: expected at most"),
    ],
)
def test_command_fails_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], found: str
) -> None:
    assert main([str(tmp_path / "data"), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {found}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_run_that_stops_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    def scene(seed: int, size: tuple[int, int], index: int) -> scenes.Scene:
        if index == 2:
            assert len(list((tmp_path / "data.partial").rglob("*.png"))) == 4
            raise kind
        return street_scene(seed, size, index)

    monkeypatch.setattr(scenes, "street_scene", scene)
    assert main([str(tmp_path / "data"), "--count", "3", "--size", "8x16"]) == (1 if isinstance(kind, OSError) else 130)
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {tmp_path / 'data'}: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_leaves_is_not_taken_for_a_data_set(tmp_path: Path) -> None:
    out = tmp_path / "data"
    command = [sys.executable, "-m", "quadcodec.scenes", str(out), "--count", "100000", "--size", "8x16"]
    with subprocess.Popen(command) as run:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.png")) and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == ["data.partial"]
    assert list(tmp_path.rglob("*.png"))
    write_scenes(out, 2, (8, 16), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert len([path for path in out.rglob("*") if path.is_file()]) == 4


def features(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return (n, 6) of 4 by 4 pixels: mean colour, roughness, and place from the top and from the middle."""
    height, width = photo.shape[0] // 4, photo.shape[1] // 4
    cells = photo.reshape(height, 4, width, 4, 3).astype(np.float64)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    planes = [*cells.mean(axis=(1, 3)).transpose(2, 0, 1) / 50, cells.mean(axis=4).std(axis=(1, 3)) / 15]
    return np.stack([*planes, y * 4, abs(x)], axis=-1).reshape(-1, 6)


def test_classes_can_be_seen_in_photos() -> None:
    scenes = [street_scene(0, (256, 512), index) for index in range(10)]
    x = np.stack([features(scene.photo) for scene in scenes])
    y = np.stack([scene.labels[2::4, 2::4].ravel() for scene in scenes])
    classes = np.unique(y[:7])
    means = np.stack([x[:7][y[:7] == label].mean(axis=0) for label in classes])
    distance = ((x[7:].reshape(-1, 1, 6) - means) ** 2).sum(axis=-1)
    right = classes[distance.argmin(axis=1)] == y[7:].ravel()
    majority = np.bincount(y[:7].ravel()).argmax()
    assert np.mean(y[7:] == majority) < 0.45
    assert right.mean() > np.mean(y[7:] == majority) + 0.15
