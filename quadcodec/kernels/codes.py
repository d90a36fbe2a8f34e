"""Codes of the splits of two-class composites, and how they are told (docs/format.md, section 4).

A *split* is four digits, one a child: 0 low class, 1 high class, 2 composite. Its *code* is
d0 + 3 d1 + 9 d2 + 27 d3. A *context* is a + 3 b + 9 c: the states of the composite's siblings beside (a) and
above or below (b), each 0 low class, 1 high class or 2 anything else, and its own place c among its siblings. In
a context the codes are told by their places in one of four orders, common ones first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_CODES, NUM_CONTEXTS = 81, 36
ALONE = 8
"""Context of a composite of the coarsest level, which has no siblings."""

ORDERS = bytes.fromhex("""
0208141907131a06124f50464c01363c483e4a43040a10160d050b3b41184e382b313d49393f474d3a4003091117
35442c32212d1b1f251e24370c1c232f3334454b27000e0f151d20222628292a2e3042
464841122b3f40474a142c36430b260925022950102d0a24132a19334e4f08321a35454907303c4c38440d1b112f
01273d4b18343e4d06311723041e031f0c1c00050e0f15161d202122282e37393a3b42
1446120a0b43104148134002194a09500d471a084f3c362b3f4e3e01250632071e241804352c38114c1b4d344449
213129261f03161c27390c2d4b333023453b3d20052a3a2f170e372e0f00151d222842
36433c46484c5008142c3206122b314e4f02291a3519333e474a4d3b41040a1e241016212d050b20260d1b07132a
30393a3f401834384403091f2501271117232f3d45494b0c1c0e1d0f15222e37420028
""")
"""The table: the codes in order, two lines a row, for the states (0, 0), (0, 1), (0, 2) and (2, 2) and place 0.

Counted by benchmarks/train_codes.py."""
_ROWS = {(0, 0): 0, (0, 1): 1, (0, 2): 2, (2, 2): 3}
_EXCHANGED = (1, 0, 2)


def _digits(code: int) -> list[int]:
    return [code // 3**j % 3 for j in range(4)]


def _code(digits: list[int]) -> int:
    return sum(digit * 3**j for j, digit in enumerate(digits))


def _ordered(context: int) -> list[int]:
    """Return the codes of a context by their places."""
    states = (context % 3, context // 3 % 3)
    place = context // 9
    exchange = next((state for state in states if state != 2), 0) == 1
    if exchange:
        states = (_EXCHANGED[states[0]], _EXCHANGED[states[1]])
    mirror = states == (2, 0)
    start = NUM_CODES * _ROWS[states[::-1] if mirror else states]
    codes = []
    for code in ORDERS[start : start + NUM_CODES]:
        digits = _digits(code)
        if mirror:
            digits = [digits[j] for j in (0, 2, 1, 3)]
        if exchange:
            digits = [_EXCHANGED[digit] for digit in digits]
        codes.append(_code([digits[j ^ place] for j in range(4)]))
    return codes


def _child_contexts(code: int) -> int:
    """Return the contexts of a split's composites, one a byte, in order."""
    digits = _digits(code)
    contexts = [digits[j ^ 1] + 3 * digits[j ^ 2] + 9 * j for j in range(4) if digits[j] == 2]
    return sum(context << 8 * i for i, context in enumerate(contexts))


def _bits(code: int) -> int:
    return sum(digit << j for j, digit in enumerate(_digits(code)))


def _word(digits: list[int]) -> int:
    return sum(digit << 8 * j for j, digit in enumerate(digits))


_BY_PLACE = [_ordered(context) for context in range(NUM_CONTEXTS)]
_PIXELS_BY_PLACE = [[code for code in codes if 2 not in _digits(code)] for codes in _BY_PLACE]

CODE_AT: NDArray[Any] = np.array(_BY_PLACE, np.uint8)
"""(NUM_CONTEXTS, NUM_CODES): code by place."""
PLACE_OF: NDArray[Any] = np.argsort(CODE_AT, axis=1).astype(np.uint8)
"""(NUM_CONTEXTS, NUM_CODES): place by code."""
BITS_AT: NDArray[Any] = np.array([[_bits(code) for code in codes] for codes in _PIXELS_BY_PLACE], np.uint8)
"""(NUM_CONTEXTS, 16): the same for pixels: of a split without composites, bit j is the digit of child j."""
PLACE_OF_BITS: NDArray[Any] = np.argsort(BITS_AT, axis=1).astype(np.uint8)
"""(NUM_CONTEXTS, 16): place by bits."""

DIGITS: NDArray[Any] = np.array([_word(_digits(code)) for code in range(NUM_CODES)], np.uint32)
"""(NUM_CODES,): the digits of a code, one a byte."""
PIXEL_DIGITS: NDArray[Any] = np.array([[_word(_digits(c)) for c in codes] for codes in _PIXELS_BY_PLACE], np.uint32)
"""(NUM_CONTEXTS, 16): the same by the place of a code of pixels."""
NUM_SPLIT: NDArray[Any] = np.array([_digits(code).count(2) for code in range(NUM_CODES)], np.uint8)
"""(NUM_CODES,): number of composites."""
CHILD_CONTEXTS: NDArray[Any] = np.array([_child_contexts(code) for code in range(NUM_CODES)], np.uint32)
"""(NUM_CODES,): contexts of the composites, one a byte, in order."""
