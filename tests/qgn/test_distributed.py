"""Two processes on one machine (gloo) compute what one computes: statistics, loss, gradients, scores."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qgn.config import TrainConfig
from qgn.data.samples import raising
from qgn.learner import build_learner, differentiate
from qgn.setup import prepare
from qgn.sparse.conv import SiteBatchNorm
from qgn.sparse.fused import norm_relu
from qgn.trainer import train, training_loader

from .helpers import blobs, write_store

WORKER = """
import json, sys
import torch
from qgn.config import TrainConfig
from qgn.distributed import process_group, rank
from qgn.data.samples import raising
from qgn.learner import build_learner, differentiate, share
from qgn.setup import prepare
from qgn.sparse.conv import SiteBatchNorm
from qgn.sparse.fused import norm_relu
from qgn.sparse.sync import synchronise
from qgn.trainer import training_loader, train

torch.set_num_threads(1)
values, folder = json.loads(sys.argv[1])
with process_group("cpu", 0):
    torch.set_num_threads(1)
    for name, case in torch.load(f"{folder}/norms.pt").items():
        norm = SiteBatchNorm(3) if "rows" in name else torch.nn.BatchNorm2d(3)
        norm.load_state_dict(case["state"])
        model = torch.nn.ModuleList([norm])
        synchronise(model)
        x, dy = case["x"][rank()].clone().requires_grad_(), case["dy"][rank()]
        y = norm_relu(x, model[0]) if "relu" in name else model[0](x)
        y.backward(dy)
        grads = {"dx": x.grad, "dgamma": norm.weight.grad, "dbeta": norm.bias.grad}
        torch.save({"y": y.detach(), **grads, **norm.state_dict()}, f"{folder}/{name}.{rank()}.pt")
    setup = prepare(TrainConfig(**values))
    learner = build_learner(setup.config, len(setup.classes))
    batch = next(raising(training_loader(setup, 0)))
    differentiate(learner, share(learner.model), [batch], "gtc", "fp32")
    torch.save({name: p.grad for name, p in learner.model.named_parameters()}, f"{folder}/grads.{rank()}.pt")
    train(setup)
"""


def run_two(folder, values):
    """Start two workers as torchrun does, and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    command = [sys.executable, "-c", WORKER, json.dumps([values, str(folder)])]
    workers = [
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for worker in workers:
        _, error = worker.communicate(timeout=300)
        assert worker.returncode == 0, error


def lines(work):
    return [json.loads(line) for line in (Path(work) / "log.jsonl").read_text().splitlines()][1:]


def norm_cases():
    """Return rows and images, and how they are shared: unequally, not at all, and a single row."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) * 2 + 3

    fresh = {"weight": draw(3), "bias": draw(3), "running_mean": draw(3), "running_var": draw(3).abs() + 1}
    state = fresh | {"num_batches_tracked": torch.tensor(4)}
    cases = {}
    for name, sizes in {"rows": (5, 2), "rows of one process": (7, 0), "a single row of rows": (0, 1)}.items():
        shares = [draw(n, 3) for n in sizes], [draw(n, 3) for n in sizes]
        cases |= {name: shares, f"{name} relu": shares}
    cases["images"] = [draw(2, 3, 4, 5), draw(1, 3, 4, 5)], [draw(2, 3, 4, 5), draw(1, 3, 4, 5)]
    return {name: {"state": state, "x": x, "dy": dy} for name, (x, dy) in cases.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train alone and by two processes that share batches; normalise in both. One image in two is uniform."""
    folder = tmp_path_factory.mktemp("two")
    rng = np.random.default_rng(1)
    masks = [np.full((64, 96), i % 3, np.uint8) if i % 2 else blobs(rng, 64, 96, 3).astype(np.uint8) for i in range(7)]
    write_store(folder, masks, splits=["train"] * 4 + ["val"] * 3)
    config = TrainConfig(
        labels=str(folder / "s.zarr"), work_dir=str(folder / "alone"), width=8, steps=3, batch_size=2, eval_every=3,
        workers=0, optimizer="sgd", lr=1e-4, momentum=0.0, weight_decay=0.0,
    )  # fmt: skip
    torch.set_num_threads(1)
    setup = prepare(config)
    train(setup)
    learner = build_learner(config, len(setup.classes))
    differentiate(learner, learner.model, [next(raising(training_loader(setup, 0)))], "gtc", "fp32")
    torch.save({name: p.grad for name, p in learner.model.named_parameters()}, folder / "grads.pt")
    torch.save(norm_cases(), folder / "norms.pt")
    run_two(folder, asdict(replace(config, work_dir=str(folder / "two"))))
    return folder


@pytest.mark.parametrize("name", list(norm_cases()))
def test_batch_normalisation_is_that_of_all_rows(runs, name):
    case = norm_cases()[name]
    norm = SiteBatchNorm(3) if "rows" in name else nn.BatchNorm2d(3)
    norm.load_state_dict(case["state"])
    x, dy = torch.cat(case["x"]).requires_grad_(), torch.cat(case["dy"])
    y = norm_relu(x, norm) if "relu" in name else norm(x)
    y.backward(dy)
    found = [torch.load(runs / f"{name}.{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(torch.cat([part["y"] for part in found]), y.detach())
    torch.testing.assert_close(torch.cat([part["dx"] for part in found]), x.grad)
    torch.testing.assert_close(found[0]["dgamma"] + found[1]["dgamma"], norm.weight.grad)
    torch.testing.assert_close(found[0]["dbeta"] + found[1]["dbeta"], norm.bias.grad)
    for key, value in norm.state_dict().items():
        for part in found:
            torch.testing.assert_close(part[key], value)


def test_two_processes_train_as_one(runs):
    alone, two = lines(runs / "alone"), lines(runs / "two")
    assert [line["step"] for line in two] == [1, 2, 3, 3]
    for one, other in zip(alone[:3], two[:3], strict=True):
        for key in ("loss", "level_losses", "beta", "grad_norm"):
            assert other[key] == pytest.approx(one[key], rel=1e-3), key
        assert (other["lr"], other["sites"]) == (one["lr"], one["sites"])


def test_two_processes_have_the_gradient_of_one(runs):
    alone, *two = (torch.load(runs / f"grads{which}.pt") for which in ("", ".0", ".1"))
    whole = torch.stack([grad.norm() for grad in alone.values()]).norm()
    for name, grad in alone.items():
        for other in two:
            assert (other[name] - grad).norm() < 1e-3 * grad.norm() + 1e-6 * whole, name


def test_two_processes_evaluate_as_one(runs):
    alone, two = (lines(runs / name)[3]["scores"]["pc"] for name in ("alone", "two"))
    assert two["encoder_gmacs"] == pytest.approx(alone["encoder_gmacs"])
    assert two["pixel_accuracy"] == pytest.approx(alone["pixel_accuracy"], abs=1)
    assert two["sites"] == pytest.approx(alone["sites"], rel=0.05, abs=1)
