# numba's scalars are int64 throughout; mypy would tell int and np.int64 apart at every step.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
"""The contexts of a decision: which states it has (docs/small.md, sections 3 and 5)."""

import numpy as np
from numpy.typing import NDArray

from .compiled import hot
from .edges import AWAITED, VISITED

# Contexts: where each group of states begins in the one array of states.
LINES = 3 * 5 * 3 * 3 * 3 * 2 * 2 * 6  # see line_base
MOVES_0, MOVES_1 = 6561, 2187  # the last 8 and 7 moves, in base 3
KINDS = 64  # three targets, each unknown, known absent, known present or awaited
SHORT = 4 * 4 * 2  # see short_line
MOVES_SHORT = 9  # the last 2 moves
AT_LINES_0 = 0
AT_LINES_1 = AT_LINES_0 + LINES
AT_MOVES_0 = AT_LINES_1 + LINES
AT_MOVES_1 = AT_MOVES_0 + MOVES_0
AT_LINES_KNOWN = AT_MOVES_1 + MOVES_1
AT_MOVES_KNOWN = AT_LINES_KNOWN + KINDS * 6 * SHORT
AT_STARTS = AT_MOVES_KNOWN + KINDS * 6 * MOVES_SHORT
STARTS = 3 * 128
AT_LABELS = AT_STARTS + STARTS
LABELS = 64 + 1024
NUM_STATES = AT_LABELS + LABELS

NUM_WEIGHTS = 64
"""Weight pairs: decision 0 by run, decision 1 by run, known, junction."""


ORDER = np.array([1, 4, 2, 7, 5, 3, 6], np.int64)
"""Sets of edges (1 ahead, 2 same, 4 opposite) in the order in which they are asked for."""


ALL_OPTIONS = 127


def _options_table() -> NDArray[np.int64]:
    """Return, for each kind, bit k for each set ORDER[k] of edges that is possible."""
    table = np.zeros(KINDS, np.int64)
    for kind in range(KINDS):
        digits = [kind >> 2 * i & 3 for i in range(3)]
        known = sum(1 << i for i in range(3) if digits[i] in (1, 2))
        present = sum(1 << i for i in range(3) if digits[i] == 2)
        table[kind] = sum(1 << k for k in range(7) if ORDER[k] & known == present)
    return table


OPTIONS = _options_table()

EVEN_RUNS, ODD_RUNS = (1 << 48) - 1, (1 << 40) - 1
"""A walk holds its last eleven straight runs, a byte each: the present one, r0, and r2, r4 .. r10 in one
number, r1, r3 .. r9 in another. In a digital straight line the even ones differ by one at most."""


@hot
def clip(value: int, low: int, high: int) -> int:
    """Return ``value``, at least ``low`` and at most ``high``."""
    return min(max(value, low), high)


@hot
def remainder(value: int, divisor: int) -> int:
    """Return ``value % divisor`` of two numbers that are not negative, without a test for it."""
    return np.int64(np.uint64(value) % np.uint64(divisor))


@hot
def line_digits(before: int) -> int:
    """Return the first digits of the line contexts, times 24, from the runs r2, r4 .. r10, a byte each.

    Digits: length of r2 (below 2, below 8, or more), r4 - r2 (-2 .. 2), r6 - r2, r8 - r2 and r10 - r2
    (-1 .. 1), whether r1 > 0, whether the last two turns were to the same side, and r0 - r2 (-3 .. 2).
    """
    r2 = before & 255
    index = np.int64(r2 >= 2) + np.int64(r2 >= 8)
    index = index * 5 + clip((before >> 8 & 255) - r2, -2, 2) + 2
    index = index * 3 + clip((before >> 16 & 255) - r2, -1, 1) + 1
    index = index * 3 + clip((before >> 24 & 255) - r2, -1, 1) + 1
    index = index * 3 + clip((before >> 32 & 255) - r2, -1, 1) + 1
    return 24 * index


@hot
def line_base(even: int, odd: int, turn: int) -> int:
    """Return the index of the line contexts for a present run as long as r2."""
    return line_digits(even >> 8) + 12 * np.int64(odd & 255 > 0) + 6 * turn + 3


@hot
def short_line(over: int, r2: int, turn: int) -> int:
    """Return the index of the smaller contexts: r0 - r2 (-2 .. 1), r2 (0, below 3, below 8, more), turn."""
    index = clip(over, -2, 1) + 2
    return (index * 4 + np.int64(r2 >= 1) + np.int64(r2 >= 3) + np.int64(r2 >= 8)) * 2 + turn


@hot
def opposite_of(heading: int) -> int:
    """Return the edge bit that points the other way."""
    return (heading << 2 | heading >> 2) & 15


@hot
def kind_of(flags: int, before: bool, edge: int) -> int:
    """Return what is known of the edge to a target with ``flags``, that lies before the start or not."""
    if flags & VISITED or before:
        return 1 + (edge != 0)
    return 3 if flags & AWAITED else 0
