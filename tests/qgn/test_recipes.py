import re

import pytest

from qgn.config import TrainConfig
from qgn.errors import TrainingError
from qgn.models.build import MODEL_NAMES
from qgn.recipes import about, read_settings, recipe_file, recipe_names
from qgn.setup import gather, prepare, resolve
from quadcodec.manifest import load_manifest

PUBLISHED = [name for name in recipe_names() if name != "paper"]


def test_there_is_one_for_every_published_run():
    table = {1: [], 3: [], 4: []}
    for name in PUBLISHED:
        table[int(re.match(r"Table (\d):", about(name))[1])].append(name)
    assert {number: len(names) for number, names in table.items()} == {1: 8, 3: 4, 4: 2}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_is_the_paper_s_and_fits_its_data_set(name):
    settings = read_settings(recipe_file(name))
    config = TrainConfig(labels="x", work_dir="y", **settings)
    assert (config.optimizer, config.lr, config.momentum, config.schedule) == ("sgd", 0.02, 0.9, "poly")
    assert (config.weight_decay, config.width, config.image_size, config.crop) == (1e-4, 64, None, None)
    assert config.model in MODEL_NAMES
    training = load_manifest(config.dataset).training
    assert (config.steps, config.batch_size) == (training.iterations, training.batch_size)
    assert (config.short_edges, config.max_side) == (training.short_edges, training.longest_edge)
    assert (config.flip, config.reweigh_every, config.held_aside) == (True, 5000, 100)
    assert config.model.endswith("_ppm") == (config.dataset == "ade20k")
    said = about(name)
    assert ("GTC" if config.propagation == "gtc" else "All") in said.split(";")[0]
    assert (config.loss == "adaptive") == ("adaptive" in said)
    if "gamma" in said:
        assert config.gamma == float(re.search(r"gamma ([\d.]+)", said)[1])


def test_what_comes_later_wins(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "cityscapes_gtc_adaptive"\nlr = 0.1\nseed = 3\n')
    settings = gather(file, "sunrgbd13_all", ["seed=5", "labels=a.zarr"])
    assert (settings["dataset"], settings["optimizer"]) == ("cityscapes", "sgd")
    assert (settings["lr"], settings["seed"], settings["labels"]) == (0.1, 5, "a.zarr")
    assert "device" not in settings


def test_defaults_that_depend_on_others(scenes):
    config = resolve({"labels": str(scenes), "steps": 7}, "cpu")
    assert (config.eval_every, config.work_dir, config.image_size) == (4, "runs/scenes", None)
    assert config.held_aside == 0
    assert resolve({"labels": str(scenes), "reweigh_every": 7}, "cpu").held_aside == 100
    config = resolve({"labels": str(scenes), "eval_every": 2, "work_dir": "w", "image_size": None}, "cpu")
    assert (config.eval_every, config.work_dir, config.image_size) == (2, "w", None)
    with pytest.raises(TrainingError, match="no store is named"):
        resolve({}, "cpu")


def test_a_recipe_of_another_data_set_is_refused(painted):
    texts = ["model=qgn_resnet18", "reweigh_every=0", "held_aside=0", f"labels={painted.path}"]
    settings = gather(None, "cityscapes_all_gamma1", texts)
    with pytest.raises(TrainingError, match="is a store of 'arrays', but the settings are for 'cityscapes'"):
        prepare(resolve(settings, "cpu"))
    assert prepare(resolve(settings | {"dataset": "arrays"}, "cpu")).config.lr == 0.02


def test_a_recipe_that_is_none_and_a_file_that_builds_on_none(tmp_path):
    with pytest.raises(TrainingError, match="recipe 'x' does not exist, expected one of ade20k"):
        recipe_file("x")
    (tmp_path / "mine.toml").write_text('recipe = "../paper"\n')
    with pytest.raises(TrainingError, match=r"recipe '\.\./paper' does not exist"):
        read_settings(tmp_path / "mine.toml")
