"""A short run of each fuzz target with a fixed seed; `python -m tests.fuzz` runs them long, in a child process."""

import numpy as np
import pytest

from . import fuzz
from .fuzz_targets import TARGETS

INPUTS = {"fast": 400, "small": 400, "shard": 200, "manifest": 300, "png": 300, "checkpoint": 12}


@pytest.fixture(params=TARGETS)
def target(request):
    if request.param == "checkpoint":
        pytest.importorskip("torch", reason="checkpoints need torch")
    return request.param


def test_inputs_are_refused_or_right(target, tmp_path):
    seeds = TARGETS[target].seeds()
    outcomes = [fuzz.try_input(target, data, tmp_path) for data in seeds]
    assert outcomes == [(True, None)] * len(seeds)
    for i in range(INPUTS[target]):
        outcomes.append(fuzz.try_input(target, fuzz.make_input(target, seeds, 7, i), tmp_path))
        assert outcomes[-1][1] is None, f"input {i} of seed 7"
    accepted = sum(outcome[0] for outcome in outcomes[len(seeds) :])
    assert 0 < accepted < INPUTS[target]  # else the mutations reach nothing, or change nothing


def test_an_input_is_made_again_from_its_number(target):
    seeds = TARGETS[target].seeds()
    assert fuzz.make_input(target, seeds, 7, 5) == fuzz.make_input(target, seeds, 7, 5)
    assert fuzz.make_input(target, seeds, 7, 5) != fuzz.make_input(target, seeds, 7, 6)


@pytest.mark.parametrize("broken", [lambda mask: mask.T, lambda mask: mask + np.uint8(1)])
def test_a_wrong_mask_and_a_foreign_error_are_found(broken, monkeypatch, tmp_path):
    from . import fuzz_targets

    record = fuzz_targets.fast_seeds()[8]
    assert fuzz.try_input("fast", record, tmp_path) == (True, None)
    monkeypatch.setattr(fuzz_targets, "decode", lambda *_, **__: broken(fuzz_targets.corpus_masks()[2]))
    assert "BrokenError" in fuzz.try_input("fast", record, tmp_path)[1]
    monkeypatch.setattr(fuzz_targets, "decode", lambda *_, **__: [][0])
    assert "IndexError" in fuzz.try_input("fast", record, tmp_path)[1]


def test_a_hang_a_crash_and_memory_beyond_the_bound_are_found(tmp_path):
    """In a child process, where kernels are out of the reach of exceptions."""
    import subprocess
    import sys
    from pathlib import Path

    script = """
import os, sys, time
from pathlib import Path
import numpy as np
from tests import fuzz, fuzz_targets
def check(data, folder):
    if data == b"seed":
        return True
    i = int(data)
    if i == 1: np.empty(2**40, np.uint8)
    if i == 2: os.abort()
    if i == 3: time.sleep(60)
    return True
fuzz.HANG_SECONDS = 0.5
fuzz_targets.TARGETS["png"] = fuzz_targets.Target(
    lambda: [b"seed"], None, check, 2**20)
fuzz.make_input = lambda target, seeds, seed, i: b"%d" % i
if "--child" in sys.argv:
    fuzz.main()
else:
    fuzz.CHILD = [sys.executable, "-c", Path(sys.argv[1]).read_text()]
    print(fuzz.fuzz("png", 0.03, 0, Path(sys.argv[2])))
"""
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "script.py", tmp_path / "out"],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "out" / "png.txt").read_text()
    assert "0 1: MemoryError" in log or "0 1: _ArrayMemoryError" in log
    assert "0 2: the process ended with -6" in log
    assert "0 3: hang" in log
    assert len(log.splitlines()) == 3
