"""How one step changes a model: precision, clipping, parts of a batch, averages."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import torch

from qgn import trainer
from qgn.checkpoint import load_checkpoint
from qgn.config import TrainConfig
from qgn.data.samples import collate, load_sample, raising
from qgn.data.views import View
from qgn.learner import build_learner, differentiate, update
from qgn.run_folder import state_path
from qgn.setup import prepare
from qgn.sparse.conv import SiteBatchNorm, SubMConv3x3
from qgn.trainer import train


@pytest.fixture
def config(scenes, tmp_path):
    return TrainConfig(
        labels=str(scenes), work_dir=str(tmp_path / "run"), width=8, steps=2, batch_size=2, eval_every=2, workers=0
    )


def first_batch(setup):
    return next(raising(trainer.training_loader(setup, 0)))


def steps(work):
    return [line for line in map(json.loads, (work / "log.jsonl").read_text().splitlines()) if "loss" in line]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_close_to_full(config, precision, tmp_path):
    runs = {}
    for name in ("fp32", precision):
        train(prepare(replace(config, work_dir=str(tmp_path / name), precision=name)))
        runs[name] = steps(tmp_path / name)
    full, half = runs["fp32"][0], runs[precision][0]
    assert half["loss"] == pytest.approx(full["loss"], rel=0.02)
    assert half["loss"] != full["loss"]  # it did compute in another type
    assert half["grad_norm"] == pytest.approx(full["grad_norm"], rel=0.2)
    _, model = load_checkpoint(tmp_path / precision / "last.safetensors")
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_a_step_that_overflows_in_float16_is_left_out(config):
    config = replace(config, precision="fp16")
    setup = prepare(config)
    learner = build_learner(config, len(setup.classes))
    learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": 2.0**40})
    before = [p.detach().clone() for p in learner.model.parameters()]
    gradient = differentiate(learner, learner.model, [first_batch(setup)], "gtc", "fp16")
    assert update(learner, gradient, 1, 0.1, config) is None
    assert learner.scaler.get_scale() == 2.0**39
    assert all(map(torch.equal, before, learner.model.parameters()))


def test_half_precision_reaches_every_sparse_layer(config):
    learner = build_learner(config, 19)
    seen = {}

    def note(module, _, output):
        seen[module] = output.dtype

    for module in learner.model.decoder.modules():
        if isinstance(module, SubMConv3x3 | SiteBatchNorm):
            module.register_forward_hook(note)
    differentiate(learner, learner.model, [first_batch(prepare(config))], "gtc", "bf16")
    assert set(seen.values()) == {torch.bfloat16}
    assert len(seen) > 19
    assert all(p.grad.dtype == torch.float32 for p in learner.model.parameters())


def test_clipping_shortens_the_gradient(config):
    setup = prepare(config)
    batch, norms = first_batch(setup), {}
    for clip in (None, 0.5):
        learner = build_learner(config, len(setup.classes))
        gradient = differentiate(learner, learner.model, [batch], "gtc", "fp32")
        norms[clip] = update(learner, gradient, 1, 0.0, replace(config, clip=clip))
        after = torch.stack([p.grad.norm() for p in learner.model.parameters()]).norm().item()
        assert after == pytest.approx(norms[clip] if clip is None else clip, rel=1e-4)
    assert norms[None] == norms[0.5] > 0.5


@pytest.mark.parametrize("scheme", ["gtc", "pc"])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(painted, tmp_path, scheme):
    """By running statistics, since a part's own are others; images of one canvas, since padding is no part's own.

    With gtc every part is divided by the nodes of the whole step. With pc parts weigh the same: equal only where they
    count the same nodes, as two copies of one image do.
    """
    config = TrainConfig(
        labels=str(painted.path), work_dir=str(tmp_path), width=8, batch_size=4, workers=0, image_size=(64, 64)
    )  # fmt: skip
    setup = prepare(config)

    def look(_):
        return View.whole((64, 64))

    samples = [load_sample(setup.store, i, setup.root, setup.classes, look) for i in range(4)]
    parts = samples if scheme == "gtc" else samples[:1] * 4
    grads = []
    for split in (1, 2, 4):
        learner = build_learner(config, len(setup.classes))
        learner.model.eval()
        batches = [collate(parts[at::split]) for at in range(split)]
        gradient = differentiate(learner, learner.model, batches, scheme, "fp32")
        grads.append((gradient.loss, torch.cat([p.grad.flatten() for p in learner.model.parameters()])))
    for loss, grad in grads[1:]:
        assert loss == pytest.approx(grads[0][0], rel=1e-5)
        assert (grad - grads[0][1]).norm() < 1e-4 * grads[0][1].norm()


def test_an_average_is_evaluated_and_saved(config, monkeypatch):
    asked = []
    real = trainer.evaluate

    def evaluate(model, *args, **kwargs):
        asked.append(model)
        return real(model, *args, **kwargs)

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    train(prepare(replace(config, ema=0.5)))
    _, saved = load_checkpoint(Path(config.work_dir) / "last.safetensors")
    state = saved.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in asked[0].state_dict().items())
    with safetensors.safe_open(state_path(Path(config.work_dir), 2), framework="pt") as file:
        latest = {name: file.get_tensor(f"model.{name}") for name in state}
    # Inertia 1/10 after the first step and 2/11 after the second one, from the first weights on.
    first = build_learner(config, 19).model.state_dict()
    name = "decoder.pixel_head.weight"
    assert not torch.equal(latest[name], state[name])
    assert (state[name] - latest[name]).norm() < (first[name] - latest[name]).norm()


def test_a_gradient_that_no_scale_saves_stops_float16(config):
    setup = prepare(replace(config, precision="fp16"))
    learner = build_learner(setup.config, len(setup.classes))
    next(learner.model.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    batch = first_batch(setup)

    def train_on():
        for step in range(1, 40):
            update(learner, differentiate(learner, learner.model, [batch], "gtc", "fp16"), step, 1e-3, setup.config)

    with pytest.raises(FloatingPointError):
        train_on()
    assert learner.scaler.get_scale() <= 1
