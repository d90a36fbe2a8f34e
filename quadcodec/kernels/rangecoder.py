# numba's scalars are int64 throughout; mypy would tell int and np.int64 apart at every step.
# mypy: disable-error-code="arg-type,assignment,return-value"
"""Binary range coder with adaptive, mixed probabilities: integers only (docs/small.md, sections 4 and 5).

The encoder's ``low`` is an unsigned 64-bit number held in an int64 that wraps; ``rng`` stays below 2**63, so
that all comparisons of the decoder are signed ones. Both renormalise by whole 32-bit words, big-endian.

A state is ``p << 10 | n``: 22 bits of the probability that the decision is 1, and how many decisions it has
seen. Coders are plain numbers handed from call to call, (low, rng, pos) or (code, rng, pos): an array of them
would put a store and a load into the chain of dependent steps that bounds the speed.
"""

import numpy as np
from numpy.typing import NDArray

from .compiled import hot, kernel

COUNT_LIMIT = 127
"""Decisions after which a state no longer slows down."""
RENORM = 1 << 31
"""Below this the range is renormalised."""
START_RANGE = (1 << 32) - 1
WORD = (1 << 32) - 1
HEAD = 4
"""Bytes before the stream that the encoder's first renormalisation writes and nobody reads."""
P_MIN, P_MAX = 24, 65536 - 24
"""Bounds of a probability, in 2**-16."""
_SIGN = -(1 << 63)

RATE = np.array([655360 // (10 * n + 16) for n in range(COUNT_LIMIT + 1)], np.int64)
"""Step of a state that has seen n decisions, 1 / (n + 1.6) in units of 2**-16."""

_KNOTS = (
    22, 28, 36, 47, 60, 77, 98, 126, 162, 208, 267, 342, 439, 562, 720, 922, 1179, 1506, 1921, 2446, 3108,
    3938, 4971, 6249, 7812, 9702, 11955, 14595, 17625, 21025, 24743, 28693, 32768,
)  # fmt: skip


def _squash_table() -> NDArray[np.int64]:
    """Return 65536 / (1 + exp(-x / 256)) for x = -2048 .. 2047: straight lines between 65 whole numbers."""
    knots = np.array([*_KNOTS, *(65536 - k for k in _KNOTS[-2::-1])], np.int64)
    x = np.arange(4096)
    k, r = x >> 6, x & 63
    table: NDArray[np.int64] = (knots[k] * (64 - r) + knots[k + 1] * r) >> 6
    return table


SQUASH = _squash_table().clip(P_MIN, P_MAX).astype(np.uint16)
STRETCH = (np.searchsorted(SQUASH, 16 * np.arange(4096) + 8) - 2048).clip(-2047, 2047).astype(np.int16)
"""The inverse of SQUASH for the top 12 bits of a probability."""


@hot
def adapt(state: np.uint32, bit: int) -> np.uint32:
    """Return the state after it has seen ``bit``."""
    s = np.int64(state)
    n = s & 1023
    change = (((bit << 22) - (s >> 10)) * RATE[np.uint64(n)]) >> 16
    return np.uint32(s + (change << 10) + (n < COUNT_LIMIT))


@kernel
def carry(out: NDArray[np.uint8], pos: int) -> None:
    """Add one to the number that ends before ``pos``."""
    i = pos - 1
    while i >= 0:
        out[i] += np.uint8(1)
        if out[i] != 0:
            break
        i -= 1


@hot
def put(out: NDArray[np.uint8], low: int, rng: int, pos: int, bit: int, p16: int) -> tuple[int, int, int]:
    """Code ``bit``, of which p16 / 65536 is the probability to be 1; needs four free bytes at ``pos``."""
    bound = (rng >> 16) * p16
    if bit:
        rng = bound
    else:
        new = low + bound
        if (new ^ _SIGN) < (low ^ _SIGN):
            carry(out, pos)
        low = new
        rng -= bound
    if rng < RENORM:
        for shift in range(56, 24, -8):
            out[pos] = np.uint8(low >> shift & 255)
            pos += 1
        low <<= 32
        rng <<= 32
    return low, rng, pos


@kernel
def flush(out: NDArray[np.uint8], low: int, rng: int, pos: int) -> int:
    """Write the shortest number inside the range, without trailing zeros; needs eight free bytes."""
    keep = 0
    value = low
    for keep in range(9):
        mask = np.int64(-1) if keep == 0 else np.int64((1 << (64 - 8 * keep)) - 1)
        value = np.int64((low + mask) & ~mask)
        if 0 <= value - low < rng:
            break
    if (value ^ _SIGN) < (low ^ _SIGN):
        carry(out, pos)
    for i in range(keep):
        out[pos] = np.uint8(value >> (56 - 8 * i) & 255)
        pos += 1
    while pos > HEAD and out[pos - 1] == 0:
        pos -= 1
    return pos


@kernel
def to_words(stream: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return a stream as big-endian words; zeros fill the last one, and one more word of zeros follows."""
    num = stream.shape[0]
    words = np.zeros((num + 3) // 4 + 1, np.uint32)
    for i in range(num >> 2):
        four = stream[4 * i : 4 * i + 4]
        words[i] = np.uint32(four[0]) << 24 | np.uint32(four[1]) << 16 | np.uint32(four[2]) << 8 | np.uint32(four[3])
    for i in range(num & ~3, num):
        words[i >> 2] |= np.uint32(stream[i]) << np.uint32(24 - 8 * (i & 3))
    return words


@hot
def next_word(data: NDArray[np.uint32], pos: int) -> int:
    """Return word ``pos``; zeros follow the data."""
    return np.int64(data[np.uint64(min(pos, data.shape[0] - 1))])


@hot
def get(data: NDArray[np.uint32], code: int, rng: int, pos: int, p16: int) -> tuple[int, int, int, int]:
    """Return (bit, code, rng, pos)."""
    bound = (rng >> 16) * p16
    if code < bound:
        bit = 1
        rng = bound
    else:
        bit = 0
        code -= bound
        rng -= bound
    if rng < RENORM:
        code = code << 32 | next_word(data, pos)
        pos += 1
        rng <<= 32
    return bit, code, rng, pos


@hot
def single(state: np.uint32) -> int:
    """Return the 16-bit probability of one state."""
    return min(max(np.int64(state) >> 16, P_MIN), P_MAX)


@hot
def put_state(
    out: NDArray[np.uint8], low: int, rng: int, pos: int, bit: int, states: NDArray[np.uint32], i: int
) -> tuple[int, int, int]:
    """Code ``bit`` with state ``i`` alone."""
    low, rng, pos = put(out, low, rng, pos, bit, single(states[np.uint64(i)]))
    states[np.uint64(i)] = adapt(states[np.uint64(i)], bit)
    return low, rng, pos


@hot
def get_state(
    data: NDArray[np.uint32], code: int, rng: int, pos: int, states: NDArray[np.uint32], i: int
) -> tuple[int, int, int, int]:
    """Return (bit, code, rng, pos), read with state ``i`` alone."""
    bit, code, rng, pos = get(data, code, rng, pos, single(states[np.uint64(i)]))
    states[np.uint64(i)] = adapt(states[np.uint64(i)], bit)
    return bit, code, rng, pos


@hot
def mix(s: int, t: int, w: int, v: int) -> int:
    """Return the 16-bit probability of two stretched ones with weights in 2**-16."""
    x = min(max((s * w + t * v) >> 16, -2047), 2047)
    return np.int64(SQUASH[np.uint64(x + 2048)])


@hot
def learn(weights: NDArray[np.int32], k: int, s: int, t: int, bit: int, p16: int) -> None:
    """Move the weight pair ``k`` against the error of a mixed probability."""
    error = (bit << 16) - p16
    weights[np.uint64(2 * k)] += np.int32((error * s * 5 + 32768) >> 16)
    weights[np.uint64(2 * k + 1)] += np.int32((error * t * 5 + 32768) >> 16)


@hot
def put_mixed(
    out: NDArray[np.uint8],
    low: int,
    rng: int,
    pos: int,
    bit: int,
    states: NDArray[np.uint32],
    i: int,
    j: int,
    weights: NDArray[np.int32],
    k: int,
) -> tuple[int, int, int]:
    """Code ``bit`` with states ``i`` and ``j``, mixed by weight pair ``k``."""
    s = np.int64(STRETCH[states[np.uint64(i)] >> np.uint32(20)])
    t = np.int64(STRETCH[states[np.uint64(j)] >> np.uint32(20)])
    p16 = mix(s, t, np.int64(weights[np.uint64(2 * k)]), np.int64(weights[np.uint64(2 * k + 1)]))
    low, rng, pos = put(out, low, rng, pos, bit, p16)
    states[np.uint64(i)] = adapt(states[np.uint64(i)], bit)
    states[np.uint64(j)] = adapt(states[np.uint64(j)], bit)
    learn(weights, k, s, t, bit, p16)
    return low, rng, pos


@hot
def get_mixed(
    data: NDArray[np.uint32],
    code: int,
    rng: int,
    pos: int,
    states: NDArray[np.uint32],
    i: int,
    j: int,
    weights: NDArray[np.int32],
    k: int,
) -> tuple[int, int, int, int]:
    """Return (bit, code, rng, pos), read with states ``i`` and ``j``, mixed by weight pair ``k``."""
    s = np.int64(STRETCH[states[np.uint64(i)] >> np.uint32(20)])
    t = np.int64(STRETCH[states[np.uint64(j)] >> np.uint32(20)])
    p16 = mix(s, t, np.int64(weights[np.uint64(2 * k)]), np.int64(weights[np.uint64(2 * k + 1)]))
    bit, code, rng, pos = get(data, code, rng, pos, p16)
    states[np.uint64(i)] = adapt(states[np.uint64(i)], bit)
    states[np.uint64(j)] = adapt(states[np.uint64(j)], bit)
    learn(weights, k, s, t, bit, p16)
    return bit, code, rng, pos


@hot
def predict(states: NDArray[np.uint32], i: int, j: int, weights: NDArray[np.int32], k: int) -> tuple[int, int, int]:
    """Return the stretched probabilities of states ``i`` and ``j``, and their mix by weight pair ``k``."""
    s = np.int64(STRETCH[states[np.uint64(i)] >> np.uint32(20)])
    t = np.int64(STRETCH[states[np.uint64(j)] >> np.uint32(20)])
    return s, t, mix(s, t, np.int64(weights[np.uint64(2 * k)]), np.int64(weights[np.uint64(2 * k + 1)]))


@hot
def adapt_mixed(
    states: NDArray[np.uint32],
    i: int,
    j: int,
    weights: NDArray[np.int32],
    k: int,
    s: int,
    t: int,
    p16: int,
    bit: int,
) -> None:
    """Let both states and their weights learn ``bit``."""
    states[np.uint64(i)] = adapt(states[np.uint64(i)], bit)
    states[np.uint64(j)] = adapt(states[np.uint64(j)], bit)
    learn(weights, k, s, t, bit, p16)


@hot
def refill(data: NDArray[np.uint32], code: int, rng: int, pos: int) -> tuple[int, int, int]:
    """Return (code, rng, pos) after the next word, if one is due."""
    if rng < RENORM:
        code = code << 32 | next_word(data, pos)
        pos += 1
        rng <<= 32
    return code, rng, pos
