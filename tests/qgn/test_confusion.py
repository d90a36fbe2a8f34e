import csv
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from qgn.confusion import draw_confusion, write_confusion


def scores(counts, names=None):
    names = names or [f"class {k}" for k in range(len(counts))]
    return SimpleNamespace(counts_kk=np.array(counts), iou=dict.fromkeys(names, 0.5), miou=50.0, mean_accuracy=60.0)


def test_a_cell_is_darker_the_larger_its_share_of_the_row():
    few = draw_confusion({"pc": scores([[99, 1], [0, 7]])})
    many = draw_confusion({"pc": scores([[99000, 1000], [0, 7]])})
    np.testing.assert_array_equal(few, many)  # shares of rows, whatever the pixels
    other = draw_confusion({"pc": scores([[50, 50], [0, 7]])})
    assert not np.array_equal(few, other)
    full, half = (8, 48, 107), tuple(round(255 + (c - 255) * 0.5**0.5) for c in (8, 48, 107))
    assert (few == full).all(2).sum() > 1000
    changed = (few != other).any(2)
    assert changed.sum() > 1000
    assert half in {tuple(c) for c in other[changed].tolist()}
    assert half not in {tuple(c) for c in few[changed].tolist()}


def test_true_classes_are_rows():
    lower = draw_confusion({"pc": scores([[9, 0], [9, 0]])})
    upper = draw_confusion({"pc": scores([[0, 9], [0, 9]])})
    full = (np.array(lower) == (8, 48, 107)).all(2)
    x_lower, x_upper = (np.median(np.nonzero((p[:300] == (8, 48, 107)).all(2))[1]) for p in (lower, upper))
    assert full.any()
    assert x_lower < x_upper


@pytest.mark.parametrize("count", [1, 11, 150])
def test_pictures_of_any_number_of_classes_have_room_for_every_name(count):
    counts = np.eye(count, dtype=int) * 10
    counts[0] = 0  # a class without pixels
    picture = draw_confusion({"all": scores(counts), "pc": scores(counts)})
    names = draw_confusion({"all": scores(counts, [""] * count), "pc": scores(counts, [""] * count)})
    assert picture.shape[1] > names.shape[1]
    cell = (picture.shape[0] - 200) // count
    assert cell >= 13  # a line of text at 12 pixels


def test_csv_holds_the_pixels_of_every_pair(tmp_path):
    write_confusion(
        tmp_path / "c.csv", {"gtc": scores([[5, 1], [0, 7]], ["sky", "a,b"]), "pc": scores([[4, 2], [3, 4]])}
    )
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["propagation", "true class", "sky", "a,b"]
    assert rows[1:] == [
        ["gtc", "sky", "5", "1"],
        ["gtc", "a,b", "0", "7"],
        ["pc", "sky", "4", "2"],
        ["pc", "a,b", "3", "4"],
    ]


def test_a_picture_is_written(tmp_path):
    write_confusion(tmp_path / "c.png", {"pc": scores([[5, 1], [0, 7]])})
    with Image.open(tmp_path / "c.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), draw_confusion({"pc": scores([[5, 1], [0, 7]])}))
