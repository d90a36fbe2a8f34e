"""Fuzz what reads bytes from outside: ``python -m tests.fuzz TARGET --minutes 10 [--seed 0] [--out FOLDER]``.

Input i of a seed is always the same. Inputs run in a child process, whose memory is limited to what it has when warm
and the target's bound, and which an alarm ends after ten seconds on one input: so a crash, a hang and an allocation
without bound are seen, and named like any other exception. With NUMBA_BOUNDSCHECK=1 (and a NUMBA_CACHE_DIR of its own)
kernels check their indices. Findings are written to FOLDER, one file each; a line of JSON sums up.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

from .fuzz_targets import TARGETS

HANG_SECONDS = 10
SLACK = 2**26
"""Bytes of address space for the allocator's own needs."""
_STATE = struct.Struct("<QQQd")  # inputs begun, accepted, found, seconds
_STATE_BYTES = 32
CHILD = [sys.executable, "-m", "tests.fuzz"]


def make_input(target: str, seeds: list[bytes], seed: int, i: int) -> bytes:
    """Return input i."""
    return TARGETS[target].mutate(Random(f"{seed} {i}"), seeds)


def try_input(target: str, data: bytes, folder: Path) -> tuple[bool, str | None]:
    """Return whether an input was accepted, and what it broke."""
    try:
        return TARGETS[target].check(data, folder), None
    except Exception as error:  # the oracle lets only the errors pass that may be
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return False, f"{type(error).__name__}: {str(error)[:200]} ({Path(frame.filename).name}:{frame.lineno})"


def _child(target: str, seed: int, begin: int, seconds: float, out: Path, state: mmap.mmap) -> None:
    seeds = TARGETS[target].seeds()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for data in seeds:  # warm: every kernel compiled, every seed accepted
            accepted, found = try_input(target, data, folder)
            if not accepted:
                raise SystemExit(f"{target}: a seed is not accepted: {found}")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        limit = used + TARGETS[target].memory + SLACK
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        _, accepted_count, found_count, before = _STATE.unpack_from(state)
        start = time.monotonic()
        i = begin
        while (spent := before + time.monotonic() - start) < seconds:
            data = make_input(target, seeds, seed, i)
            _STATE.pack_into(state, 0, i + 1, accepted_count, found_count, spent)
            signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
            accepted, found = try_input(target, data, folder)
            signal.setitimer(signal.ITIMER_REAL, 0)
            accepted_count += accepted
            if found:
                found_count += 1
                _keep(out, target, seed, i, data, found)
            i += 1
        _STATE.pack_into(state, 0, i, accepted_count, found_count, spent)


def _keep(out: Path, target: str, seed: int, i: int, data: bytes, found: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{target}-{seed}-{i}.bin").write_bytes(data)
    with (out / f"{target}.txt").open("a") as log:
        log.write(f"{seed} {i}: {found}\n")


def fuzz(target: str, minutes: float, seed: int, out: Path) -> dict[str, object]:
    """Run a target for a time, without that of starting and compiling; return its counts."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(_STATE_BYTES))
        file.flush()
        state = mmap.mmap(file.fileno(), _STATE_BYTES)
        begin = ended = spent = 0
        while spent < 60 * minutes:
            command = [*CHILD, target, "--seed", str(seed), "--out", str(out)]
            child = subprocess.run([*command, "--child", str(begin), str(60 * minutes), file.name], check=False)
            if child.returncode == 0:
                break
            inputs, accepted, found, spent = _STATE.unpack_from(state)
            if inputs == begin:  # it did not get to its first input
                raise SystemExit(child.returncode)
            begin, ended = inputs, ended + 1
            how = "hang" if child.returncode == -signal.SIGALRM else f"the process ended with {child.returncode}"
            data = make_input(target, TARGETS[target].seeds(), seed, begin - 1)
            _keep(out, target, seed, begin - 1, data, how)
            _STATE.pack_into(state, 0, inputs, accepted, found + 1, spent)
        inputs, accepted, found, spent = _STATE.unpack_from(state)
    checked = os.environ.get("NUMBA_BOUNDSCHECK") == "1"
    return {
        "target": target, "seed": seed, "bounds_checks": checked, "minutes": round(spent / 60, 1),
        "inputs": inputs, "accepted": accepted, "found": found, "ended": ended,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        begin, seconds, name = arguments.child
        with Path(name).open("r+b") as file:
            state = mmap.mmap(file.fileno(), _STATE_BYTES)
        _child(arguments.target, arguments.seed, int(begin), float(seconds), arguments.out, state)
        return
    counts = fuzz(arguments.target, arguments.minutes, arguments.seed, arguments.out)
    print(json.dumps(counts))
    raise SystemExit(1 if counts["found"] else 0)


if __name__ == "__main__":
    main()
