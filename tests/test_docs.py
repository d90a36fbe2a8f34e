"""What the documents show is what happens: their example is run as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import quadcodec
from quadcodec.manifest import manifest_names

from .conftest import blocks
from .test_cli import invoke

DOCS = Path(__file__).parent.parent / "docs"


def block(text, kind):
    """Return the only fenced block of a kind."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    return found


def test_the_data_set_of_ones_own(tmp_path, monkeypatch):
    text = (DOCS / "datasets.md").read_text()
    for i, line in enumerate(block(text, "text").split()):
        path = tmp_path / line
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = blocks(i, 40, 60, classes=3) if path.suffix == ".png" else np.zeros((40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (tmp_path / "farm.toml").write_text(block(text, "toml"))
    monkeypatch.chdir(tmp_path)
    for command in block(text, "sh").splitlines():
        name, *arguments = command.split()
        assert name == "quadcodec"
        code, out, err = invoke(*arguments)
        assert code == 0, (command, out, err)
        assert "farm" in out
    store = quadcodec.open("farm.zarr")
    assert store.info.dataset == "farm"
    assert list(zip(store.splits, store.names, store.columns.image, strict=True)) == [
        ("train", "field_01", "images/spring/field_01.jpg"),
        ("train", "field_02", "images/spring/field_02.jpg"),
        ("val", "field_07", "images/autumn/field_07.jpg"),
    ]
    assert store.info.void == (255,)
    assert store.info.train_classes == ("soil", "crop")


@pytest.mark.parametrize("name", manifest_names())
def test_the_data_sets_are_listed(name):
    assert f"`{name}`" in (DOCS / "datasets.md").read_text()
