import numpy as np
import pytest
import torch
from PIL import Image

import quadcodec
from qgn.config import TrainConfig
from qgn.setup import prepare
from qgn.trainer import train
from quadcodec.convert import convert, plan_conversion
from quadcodec.scenes import write_scenes
from quadcodec.store import ClassInfo


@pytest.fixture(autouse=True)
def _one_thread():
    """Small operations on more threads than cores wait for each other; results do not depend on it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A store of 6 generated street scenes of 64x128 in Cityscapes' layout: 4 train, 2 val."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root / "cityscapes", 6, (64, 128), 0, val_count=2)
    convert(plan_conversion(root / "cityscapes"), root / "scenes.zarr")
    return root / "scenes.zarr"


@pytest.fixture(scope="session")
def checkpoint(scenes, tmp_path_factory):
    """A checkpoint of a short training on the scenes."""
    work = tmp_path_factory.mktemp("trained") / "run"
    config = TrainConfig(
        labels=str(scenes), work_dir=str(work), width=4, steps=4, batch_size=2, eval_every=4, workers=0,
        image_size=(32, 64),
    )  # fmt: skip
    torch.set_num_threads(1)
    train(prepare(config))
    return work / "last.safetensors"


@pytest.fixture
def painted(tmp_path):
    """A store of 5 images of different sizes whose photos show their masks: channel value 20 a class; 255 is void."""
    sizes = [(40, 70), (64, 64), (33, 95), (96, 32), (50, 50)]
    names, masks = [], []
    for i, (height, width) in enumerate(sizes):
        cells = np.random.default_rng(i).integers(0, 4, (height // 9 + 1, width // 9 + 1))
        mask = np.kron(cells, np.ones((9, 9), int))[:height, :width].astype(np.uint8)
        mask[:5, :5] = 255
        photo = np.repeat(np.where(mask == 255, 200, 20 * mask)[:, :, None], 3, axis=2).astype(np.uint8)
        Image.fromarray(photo).save(tmp_path / f"{i}.png")
        names.append(f"{i}")
        masks.append(mask)
    classes = [ClassInfo(i, f"c{i}", (20 * i, 0, 0)) for i in range(4)]
    return quadcodec.write(
        tmp_path / "painted.zarr", masks, names=names, images=[f"{n}.png" for n in names], image_root=str(tmp_path),
        classes=classes, void=[255], splits=["train"] * 4 + ["val"],
    )  # fmt: skip
