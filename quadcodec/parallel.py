"""Tasks on worker processes: results in order, and never more than a few under way."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import Protocol, TypeVar

from .errors import StoreError

__all__ = ["Task", "choose_workers", "processes", "run_tasks"]

Result = TypeVar("Result", covariant=True)


class Task(Protocol[Result]):
    """Do a part of the work; sent to a worker process, hence small."""

    def run(self) -> Result:
        """Return the part's result."""


def choose_workers(asked: int | None, *, much: bool) -> int:
    """Return how many processes to use: what was asked for, else one a core where there is much to do."""
    return asked if asked is not None else len(os.sched_getaffinity(0)) if much else 1


def run_tasks(tasks: Iterable[Task[Result]], workers: int) -> Iterator[Result]:
    """Yield the results in order; with one worker all run in this process.

    Raises
    ------
    StoreError : a worker process died. Besides, whatever a task raises.
    """
    if workers == 1:
        yield from (task.run() for task in tasks)
        return
    queue = iter(tasks)
    with processes(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            while True:
                room = 2 * workers - len(waiting)
                waiting.extend(pool.submit(_run, task) for task in itertools.islice(queue, room))
                if not waiting:
                    return
                yield waiting.popleft().result()
        except BrokenExecutor as error:
            raise StoreError("a worker process died, perhaps for lack of memory. Run again with --workers 1") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _run(task: Task[Result]) -> Result:
    return task.run()


def processes(count: int) -> ProcessPoolExecutor:
    """Return an executor of worker processes, which end when this one does."""
    # Not forked: the parent may hold threads and locks of other libraries.
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _end_with_parent)


def _end_with_parent() -> None:
    """Let a worker end when its parent was killed: it would wait for tasks for ever, or write what nobody expects."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
