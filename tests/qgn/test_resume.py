"""A run that was killed goes on as if it never had been; one that cannot go on says why."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch

import quadcodec
from qgn.config import TrainConfig
from qgn.errors import CheckpointError, TrainingError
from qgn.run_folder import state_path
from qgn.setup import prepare
from qgn.trainer import train

from .helpers import blobs, write_store

RUN = TrainConfig(labels="", work_dir="", width=2, steps=8, batch_size=2, eval_every=4, save_every=3, workers=0)
AVERAGED = {"ema": 0.9, "reweigh_every": 2, "held_aside": 1, "accumulate": 2, "clip": 1.0, "scale": (0.7, 1.3)}
KILLED = """
import json, os, signal, sys
import torch
from qgn import trainer
from qgn.config import TrainConfig
from qgn.setup import prepare

torch.set_num_threads(1)
values, at_step, before_weights = json.loads(sys.argv[1])
config = TrainConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
if before_weights:
    real = trainer.write_checkpoint
    def write(path, data):
        if path.name == "last.safetensors" and (path.parent / f"state_{at_step:06d}.safetensors").exists():
            kill()
        real(path, data)
    trainer.write_checkpoint = write
    trainer.train(prepare(config))
else:
    trainer.train(prepare(config), on_step=lambda step: step.step == at_step and kill())
"""


def tensors(path):
    with safetensors.safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def lines(work):
    """Return the log without what the clock says."""
    found = [json.loads(line) for line in (Path(work) / "log.jsonl").read_text().splitlines()][1:]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in found]


@pytest.mark.parametrize(
    ("settings", "at_step", "before_weights", "saved"),
    [(AVERAGED, 5, False, 4), ({"optimizer": "sgd", "propagation": "pc"}, 6, True, 4)],
    ids=["after a step", "between state and weights"],
)
def test_a_killed_run_goes_on_bit_for_bit(scenes, tmp_path, settings, at_step, before_weights, saved):
    config = replace(RUN, labels=str(scenes), work_dir=str(tmp_path / "killed"), **settings)
    arguments = json.dumps([asdict(config), at_step, before_weights])
    done = subprocess.run([sys.executable, "-c", KILLED, arguments], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    work = tmp_path / "killed"
    assert state_path(work, saved).exists()
    assert state_path(work, 6).exists() == before_weights
    (work / ".last.safetensors.1.partial").touch()  # as a kill within a write leaves it
    train(prepare(config), resume=True)
    assert not list(work.glob(".*.partial"))
    assert [path.name for path in work.glob("state_*")] == ["state_000008.safetensors"]
    whole = replace(config, work_dir=str(tmp_path / "whole"))
    train(prepare(whole))
    assert lines(work) == lines(whole.work_dir)
    assert len([line for line in lines(work) if "loss" in line]) == 8
    for name in ("last.safetensors", "best.safetensors", "state_000008.safetensors"):
        broken, unbroken = tensors(work / name), tensors(tmp_path / "whole" / name)
        assert broken.keys() == unbroken.keys()
        assert all(torch.equal(broken[key], unbroken[key]) for key in broken), name


@pytest.fixture
def run(tmp_path):
    """A finished run of two steps on four small images, settings and folder of its own."""
    rng = np.random.default_rng(0)
    write_store(tmp_path, [blobs(rng, 40, 64, 3).astype(np.uint8) for _ in range(4)])
    config = replace(RUN, labels=str(tmp_path / "s.zarr"), work_dir=str(tmp_path / "run"), steps=2, eval_every=2)
    train(prepare(config))
    return config


def test_a_finished_run_has_nothing_left_to_do(run):
    before = lines(run.work_dir)
    assert train(prepare(replace(run, save_every=1)), resume=True) == {}  # what is saved may change
    assert lines(run.work_dir) == before


def test_a_run_that_saved_nothing_begins_anew(run):
    work = Path(run.work_dir)
    before = lines(work)
    (work / "last.safetensors").unlink()
    train(prepare(run), resume=True)
    assert lines(work) == before


def test_other_settings_are_refused(run):
    with pytest.raises(TrainingError, match=r"with other settings: lr=0\.5 where it had 0\.002, seed=1 where it had 0"):
        train(prepare(replace(run, lr=0.5, seed=1)), resume=True)


def test_a_store_that_changed_is_refused(run, tmp_path):
    masks = [store_mask.copy() for store_mask in quadcodec.open(run.labels)]
    masks[0][0, 0], masks[0][0, 1] = masks[0][0, 1], (masks[0][0, 1] + 1) % 3
    write_store(tmp_path, masks)
    with pytest.raises(TrainingError, match=r"s\.zarr: labels are not those that the run in .*run began with"):
        train(prepare(run), resume=True)
    (tmp_path / "3.png").unlink()  # one image less
    with pytest.raises(TrainingError, match=r"s\.zarr: images and labels are not those"):
        train(prepare(run), resume=True)


def test_state_and_weights_of_two_saves_are_refused(run):
    work = Path(run.work_dir)
    state = state_path(work, 2)
    whole = state.read_bytes()
    shutil.copy(work / "last.safetensors", work / "kept")
    state.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"state_000002\.safetensors: cannot be read as a training state"):
        train(prepare(run), resume=True)
    for at in (200, len(whole) - 1):  # in its description, and in a tensor
        state.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=r"state_000002\.safetensors: cannot be read as a training state"):
            train(prepare(run), resume=True)
    state.unlink()
    with pytest.raises(
        CheckpointError, match=r"state_000002\.safetensors: cannot be read as a training state \(No such"
    ):
        train(prepare(run), resume=True)
    state.write_bytes(whole)
    other = replace(run, work_dir=str(work.parent / "other"), seed=1)
    train(prepare(other))
    shutil.copy(Path(other.work_dir) / "last.safetensors", work / "last.safetensors")
    with pytest.raises(CheckpointError, match=r"is not the state of last\.safetensors, which was replaced"):
        train(prepare(run), resume=True)
    shutil.copy(work / "kept", work / "last.safetensors")
    train(prepare(run), resume=True)


def test_checkpoints_are_kept(scenes, tmp_path):
    config = replace(RUN, labels=str(scenes), work_dir=str(tmp_path / "run"), steps=3, keep_every=2, eval_every=3)
    train(prepare(config))
    assert [path.name for path in (tmp_path / "run").glob("step_*")] == ["step_000002.safetensors"]
