import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def real_data():
    """Folder of real masks (Makefile and CI set the variable where they have them)."""
    folder = os.environ.get("QUADCODEC_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real masks here: set QUADCODEC_TEST_DATA to a folder of them")
    return Path(folder)


def blocks(seed, height, width, classes=5, block=7):
    """Return an (height, width) uint8 mask of coarse random blocks."""
    cells = np.random.default_rng(seed).integers(0, classes, (height // block + 1, width // block + 1))
    return np.kron(cells, np.ones((block, block), int))[:height, :width].astype(np.uint8)


@pytest.fixture
def cityscapes(tmp_path):
    """A folder in Cityscapes' layout: 3 train masks of one size with photos, 2 val masks of another without."""
    root = tmp_path / "cityscapes"
    for split, city, count, size in (("train", "aachen", 3, (50, 70)), ("val", "lindau", 2, (40, 90))):
        for i in range(count):
            name = f"{city}_{i:06d}_000019"
            mask = root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(blocks(i, *size)).save(mask)
            if split == "train":
                photo = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
                photo.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.zeros((*size, 3), np.uint8)).save(photo)
    return root
