"""Several processes that train one model, as torchrun starts them; alone, everything here does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from qgn.device import choose_device


@contextmanager
def process_group(device: str | None, workers: int) -> Iterator[str]:
    """Join the processes that torchrun started, and give the device of this one, as `choose_device`.

    Each process on a machine takes a GPU of its own, by its local rank; on CPUs they share the cores.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield choose_device(device, workers)
        return
    local_rank, local_world = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if torch.cuda.is_available() and (device is None or device.startswith("cuda")):
        device = f"cuda:{local_rank}"
    chosen = choose_device(device, workers, processes=local_world)
    if chosen.startswith("cuda"):
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.startswith("cuda") else "gloo")
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process: 0 writes files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """Return the sum over all processes of a tensor that each of them has, on its device, without gradient."""
    if world() == 1:
        return values
    # NCCL knows GPUs only.
    total = values.to("cuda") if dist.get_backend() == "nccl" else values.clone()
    dist.all_reduce(total)
    return total.to(values.device)
