"""Read a store from many processes for minutes: speed, resident memory and open files, from begin to end.

    quadcodec convert "$QUADCODEC_TEST_DATA/camvid" camvid.zarr
    python -m benchmarks.load camvid.zarr [--readers 8] [--seconds 300]

Half of the readers are forked from a process that has read the store, half are spawned and get it pickled, as data
loaders do. Each draws images at random and reads them as mask, as tree or as bytes, which are held against their
checksum. Exit 1 if memory grows by more than 5 % from the first tenth of the time to the last, or a file stays open.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np

import quadcodec
from quadcodec.seal import record_checksum
from quadcodec_cli.tables import align

GROWTH = 1.05


def state() -> tuple[int, int]:
    """Return the resident bytes of this process and the number of its open files."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), sum(1 for _ in Path("/proc/self/fd").iterdir())


def read(store: quadcodec.LabelStore, seed: int, seconds: float, answer: Connection) -> None:
    """Read at random for some time; send the number of reads and (time, bytes, files) ten times a second."""
    rng = np.random.default_rng(seed)
    for i in range(len(store)):  # everything that is loaded or kept once is there
        store[i], store.quadtree(i)
    start, reads, states = time.monotonic(), 0, []
    while (now := time.monotonic() - start) < seconds:
        if not states or now - states[-1][0] > seconds / 500:
            states.append((now, *state()))
        image, way = int(rng.integers(len(store))), int(rng.integers(3))
        if way == 0:
            mask = store[image]
            assert mask.shape == tuple(store.sizes[image])
        elif way == 1:
            store.quadtree(image)
        else:
            assert record_checksum(store.record(image)) == store.checksums[image]
        reads += 1
    answer.send((reads, states))


def main() -> None:
    """Start the readers, print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=300)
    arguments = parser.parse_args()
    store = quadcodec.open(arguments.store)
    store[0]
    readers = []
    for seed in range(arguments.readers):
        method = ("fork", "spawn")[seed % 2]
        context = multiprocessing.get_context(method)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=read, args=(store, seed, arguments.seconds, sender))
        process.start()
        sender.close()  # so that a reader's death ends the wait for its answer
        readers.append((method, process, receiver))
    rows = [
        ["reader", "started by", "reads/s", "MB first tenth", "MB last tenth", "growth %", "files first", "files last"]
    ]
    sound = True
    for number, (method, process, receiver) in enumerate(readers):
        reads, states = receiver.recv()
        process.join()
        tenth = max(1, len(states) // 10)
        first, last = (median(s[1] for s in part) for part in (states[:tenth], states[-tenth:]))
        files = states[0][2], max(s[2] for s in states[-tenth:])
        sound &= last <= GROWTH * first and files[1] <= files[0] and process.exitcode == 0
        growth = f"{100 * (last / first - 1):+.2f}"
        cells = [f"{reads / states[-1][0]:.0f}", f"{first / 1e6:.1f}", f"{last / 1e6:.1f}", growth]
        rows.append([str(number), method, *cells, str(files[0]), str(files[1])])
    print(align(rows, left=2))
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
