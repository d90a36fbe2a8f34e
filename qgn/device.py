"""Where a run computes."""

import os

import torch

from qgn.errors import TrainingError


def choose_device(name: str | None = None, workers: int = 0, processes: int = 1) -> str:
    """Return the torch device to use: the one named, else CUDA where there is one.

    On a CPU, torch gets this process's part of the cores, of ``processes`` that train together, less those of its
    ``workers`` data processes. With more threads than cores, every small operation waits at a barrier for a thread
    that is not running (benchmarks/README.md). The environment's OMP_NUM_THREADS stands where it is set.

    Raises
    ------
    TrainingError : there is no such device.
    """
    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(
            f"device {device!r} cannot be used ({str(error).splitlines()[0]}). Try --device cpu"
        ) from error
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes - workers))
    return device
