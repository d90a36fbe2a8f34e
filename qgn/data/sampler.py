"""The order of training: a pure function of (seed, step), so that any step can be begun at."""

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
    batch_size, steps : a batch may span two epochs.
    seed : of the orders.
    """

    images: Sequence[int]
    batch_size: int
    steps: int
    seed: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.steps):
            batch = []
            for draw in range(step * self.batch_size, (step + 1) * self.batch_size):
                if draw // len(self.images) != epoch:
                    epoch = draw // len(self.images)
                    order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
                batch.append((int(self.images[order[draw % len(self.images)]]), draw))
            yield batch
