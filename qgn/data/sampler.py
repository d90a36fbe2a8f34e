"""The order of training: a pure function of (seed, step), so that any step can be begun at, by any process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler


@dataclass(frozen=True)
class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """Yield a batch of (image, draw) a step; every epoch takes each image once, in its own order.

    Attributes
    ----------
    images : indices in the store.
    batch_size : of all processes together, a multiple of ``world``; a batch may span two epochs.
    steps : of the whole run.
    seed : of the orders.
    start : steps that are done: what follows is what a run from the beginning would have had.
    rank, world : this process and the number of processes; each has its own part of every batch.

    Raises
    ------
    ValueError : the batch cannot be shared equally, or ``start`` or ``rank`` is out of range.
    """

    images: Sequence[int]
    batch_size: int
    steps: int
    seed: int
    start: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.world or not 0 <= self.rank < self.world:
            raise ValueError(
                f"rank {self.rank} of {self.world} and a batch of {self.batch_size}: expected a rank below the number "
                "of processes, and a batch that is a multiple of it"
            )
        if not 0 <= self.start <= self.steps:
            raise ValueError(f"start is {self.start}, expected 0..{self.steps}")

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, np.int64)
        part = self.batch_size // self.world
        for step in range(self.start, self.steps):
            batch = []
            first = step * self.batch_size + self.rank * part
            for draw in range(first, first + part):
                if draw // len(self.images) != epoch:
                    epoch = draw // len(self.images)
                    order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
                batch.append((int(self.images[order[draw % len(self.images)]]), draw))
            yield batch
