# numba's scalars are int64 throughout; mypy would tell int and np.int64 apart at every step.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return,operator"
"""Crack edges <-> chains of decisions (docs/small.md, section 3).

Chains are walked vertex by vertex. At each the edges that leave it, ahead, to the right or to the left, are
coded as decisions, in terms of the last turn: `opposite` to it or the `same` again. Edges to vertices that
were walked before are known and cost nothing.

The two walks, one that writes and one that reads, are single long functions on purpose: the state of a walk
lives in registers, and an array or a tuple through a call would cost as much as a decision.
"""

import numpy as np
from numpy.typing import NDArray

from .compiled import kernel, trailing_zeros
from .contexts import (
    ALL_OPTIONS,
    AT_LINES_0,
    AT_LINES_1,
    AT_LINES_KNOWN,
    AT_MOVES_0,
    AT_MOVES_1,
    AT_MOVES_KNOWN,
    AT_STARTS,
    MOVES_1,
    MOVES_SHORT,
    ODD_RUNS,
    OPTIONS,
    ORDER,
    SHORT,
    clip,
    kind_of,
    line_base,
    line_digits,
    opposite_of,
    remainder,
    short_line,
)
from .edges import AWAITED, BORDER, VISITED, WORD_EDGES, E, N, S, W
from .rangecoder import adapt_mixed, get, get_state, predict, put, put_mixed, put_state, refill

OK, OVERFLOW, BAD_START, BAD_STACK, BAD_CHAIN, BAD_LABEL = 0, 1, 2, 3, 4, 5


@kernel
def put_gap(
    out: NDArray[np.uint8],
    low: int,
    rng: int,
    pos: int,
    states: NDArray[np.uint32],
    phase: int,
    gap: int,
) -> tuple[int, int, int]:
    """Code a distance >= 0 (0: no more) as Elias-gamma of gap + 1; its last bits but two cost a bit each."""
    value = gap + 1
    length = 0
    while value >> (length + 1):
        length += 1
    base = AT_STARTS + 128 * phase
    for i in range(length):
        low, rng, pos = put_state(out, low, rng, pos, 1, states, base + i)
    low, rng, pos = put_state(out, low, rng, pos, 0, states, base + length)
    node = 1
    for i in range(length - 1, -1, -1):
        bit = value >> i & 1
        if node < 4:
            low, rng, pos = put_state(out, low, rng, pos, bit, states, base + 32 + 3 * length + node - 1)
        else:
            low, rng, pos = put(out, low, rng, pos, bit, 32768)
        node = 2 * node + bit
    return low, rng, pos


@kernel
def get_gap(
    data: NDArray[np.uint32], code: int, rng: int, pos: int, states: NDArray[np.uint32], phase: int
) -> tuple[int, int, int, int]:
    """Return (gap, code, rng, pos); a gap beyond 2**31 comes back as that."""
    base = AT_STARTS + 128 * phase
    length = 0
    while length < 31:
        bit, code, rng, pos = get_state(data, code, rng, pos, states, base + length)
        if not bit:
            break
        length += 1
    value = 1
    node = 1
    for _ in range(length):
        if node < 4:
            bit, code, rng, pos = get_state(data, code, rng, pos, states, base + 32 + 3 * length + node - 1)
        else:
            bit, code, rng, pos = get(data, code, rng, pos, 32768)
        node = 2 * node + bit
        value = 2 * value + bit
    return value - 1, code, rng, pos


@kernel
def write_chains(
    edges: NDArray[np.uint8],
    words: NDArray[np.uint64],
    height: int,
    width: int,
    pitch: int,
    states: NDArray[np.uint32],
    weights: NDArray[np.int32],
    stack: NDArray[np.int64],
    out: NDArray[np.uint8],
    low: int,
    rng: int,
    pos: int,
) -> tuple[int, int, int, int]:
    """Code the map ``edges``, which loses its edges on the way; ``words`` is the same memory as 64-bit words.

    ``stack`` (n, 3) holds the branches that wait. ``out`` must have 64 bytes beyond what may be used.

    Returns
    -------
    (status, low, rng, pos); OVERFLOW where ``out`` or ``stack`` is too small.
    """
    step = np.array([1, pitch, -1, -pitch])
    room = out.shape[0] - 64
    for phase in range(3):
        count = width if phase == 0 else height if phase == 1 else (height + 1) * pitch
        at = 0
        last = 0
        while True:
            # Find the next start; skipped vertices of the border have no edge, and both sides know it.
            if phase == 2:
                i = at >> 3
                while i < words.shape[0] and words[i] & np.uint64(WORD_EDGES) == 0:
                    i += 1
                at = count
                if i < words.shape[0]:
                    at = 8 * i + (trailing_zeros(words[i] & np.uint64(WORD_EDGES)) >> 3)
                v = at
            else:
                at += 1
                scale = 1 if phase == 0 else pitch
                while at < count and edges[at * scale] & 15 == 0:
                    edges[at * scale] |= VISITED
                    at += 1
                v = at * scale
            if at >= count:
                low, rng, pos = put_gap(out, low, rng, pos, states, phase, 0)
                break
            low, rng, pos = put_gap(out, low, rng, pos, states, phase, at - last)
            last = at
            limit = v if phase == 2 else 0
            edges[v] = edges[v] & ~15 | VISITED
            top = 0
            if phase == 2:
                edges[v + pitch] |= AWAITED
                stack[0, 0] = (v + pitch) | 1 << 32 | 1 << 34
                stack[0, 1] = 0
                stack[0, 2] = 0
                top = 1
            heading = 1 if phase == 0 else 0
            stack[top, 0] = (v + step[heading]) | heading << 32
            stack[top, 1] = 0
            stack[top, 2] = 0
            top += 1
            while top:
                top -= 1
                c = stack[top, 0] & 0xFFFFFFFF
                d = stack[top, 0] >> 32 & 3
                turned = stack[top, 0] >> 34 & 1
                turn = stack[top, 0] >> 35 & 1
                moves = stack[top, 0] >> 36
                even = stack[top, 1]
                odd = stack[top, 2]
                base = line_base(even, odd, turn)
                while True:
                    cell = np.int64(edges[np.uint64(c)])
                    if cell & (VISITED | BORDER):
                        edges[np.uint64(c)] = cell & ~15 | VISITED
                        break
                    ds = (d + 1 + 2 * turned) & 3
                    do = (d + 3 + 2 * turned) & 3
                    ahead = c + step[np.uint64(d)]
                    same = c + step[np.uint64(ds)]
                    opposite = c + step[np.uint64(do)]
                    at_ahead = np.int64(edges[np.uint64(ahead)])
                    at_same = np.int64(edges[np.uint64(same)])
                    at_opposite = np.int64(edges[np.uint64(opposite)])
                    special = (at_ahead | at_same | at_opposite) & (VISITED | AWAITED)
                    kind = 0
                    run = even & 255
                    slow = min(run, 7)
                    found = (cell >> d & 1) | (cell >> ds & 1) << 1 | (cell >> do & 1) << 2
                    options = ALL_OPTIONS
                    if special == 0 and min(ahead, same, opposite) >= limit:
                        i = base + clip(run - (even >> 8 & 255), -3, 2)
                        bit = np.int64(found == 1)
                        low, rng, pos = put_mixed(
                            out, low, rng, pos, bit, states, AT_LINES_0 + i, AT_MOVES_0 + moves, weights, slow
                        )
                        if found != 1:
                            bit = np.int64(found == 4)
                            j = AT_MOVES_1 + remainder(moves, MOVES_1)
                            low, rng, pos = put_mixed(
                                out, low, rng, pos, bit, states, AT_LINES_1 + i, j, weights, 8 + slow
                            )
                        options = 0 if found == 1 or found == 4 else ALL_OPTIONS & ~3
                    else:
                        kind = kind_of(at_ahead, ahead < limit, cell >> d & 1)
                        kind |= kind_of(at_same, same < limit, cell >> ds & 1) << 2
                        kind |= kind_of(at_opposite, opposite < limit, cell >> do & 1) << 4
                        options = OPTIONS[kind]
                    if options & (options - 1):
                        short = short_line(run - (even >> 8 & 255), even >> 8 & 255, turn)
                        recent = remainder(moves, MOVES_SHORT)
                        while options & (options - 1):
                            k = trailing_zeros(np.uint64(options))
                            i = AT_LINES_KNOWN + (kind * 6 + k) * SHORT + short
                            j = AT_MOVES_KNOWN + (kind * 6 + k) * MOVES_SHORT + recent
                            slow = 16 + k + (8 if kind else 0)
                            bit = np.int64(found == ORDER[k])
                            low, rng, pos = put_mixed(out, low, rng, pos, bit, states, i, j, weights, slow)
                            if bit:
                                break
                            options &= options - 1
                    edges[np.uint64(c)] = VISITED
                    if pos > room or (found & (found - 1) and top + 2 >= stack.shape[0]):
                        return OVERFLOW, low, rng, pos
                    moves = remainder(moves, MOVES_1) * 3
                    if found == 1:
                        c = ahead
                        even += run < 255
                        continue
                    turned_even = odd << 8
                    turned_odd = even & ODD_RUNS
                    for k in range(2):
                        # Branches wait: one to the same side first, since it is taken up last.
                        if k == 0:
                            waits = found & 2 and found & 1
                            target, heading, side, flags = same, ds, turned, at_same
                        else:
                            waits = found & 4 and found & 3
                            target, heading, side, flags = opposite, do, 1 - turned, at_opposite
                        if waits and not flags & VISITED:
                            edges[np.uint64(target)] |= AWAITED
                            stack[top, 0] = target | heading << 32 | side << 34 | (1 - k) << 35 | (moves + 2 - k) << 36
                            stack[top, 1] = turned_even
                            stack[top, 2] = turned_odd
                            top += 1
                    if found & 1:
                        c = ahead
                        even += run < 255
                        continue
                    even = turned_even
                    odd = turned_odd
                    if found & 2:
                        c = same
                        d = ds
                        turn = 1
                        moves += 2
                    else:
                        c = opposite
                        d = do
                        turned = 1 - turned
                        turn = 0
                        moves += 1
                    base = line_base(even, odd, turn)
    return OK, low, rng, pos


@kernel
def read_chains(
    data: NDArray[np.uint32],
    code: int,
    rng: int,
    pos: int,
    height: int,
    width: int,
    pitch: int,
    states: NDArray[np.uint32],
    weights: NDArray[np.int32],
    stack: NDArray[np.int64],
    edges: NDArray[np.uint8],
) -> tuple[int, int, int, int]:
    """Rebuild the map ``edges``, whose border is marked and which is zero elsewhere.

    Every turn of the inner loop marks one vertex as visited, so that hostile bytes end too.

    Returns
    -------
    (status, code, rng, pos).
    """
    step = np.zeros(9, np.int64)
    step[E], step[S], step[W], step[N] = 1, pitch, -1, -pitch
    for phase in range(3):
        count = width if phase == 0 else height if phase == 1 else (height + 1) * pitch
        at = 0
        while True:
            gap, code, rng, pos = get_gap(data, code, rng, pos, states, phase)
            stop = min(at + gap, count) if gap else count
            if phase < 2:
                scale = 1 if phase == 0 else pitch
                for i in range(at + 1, stop):
                    edges[i * scale] |= VISITED
            if gap == 0:
                break
            at += gap
            if at >= count:
                return BAD_START, code, rng, pos
            v = at if phase < 1 else at * pitch if phase == 1 else at
            limit = v if phase == 2 else 0
            safe = limit + pitch
            if edges[v] & VISITED:
                return BAD_START, code, rng, pos
            top = 0
            heading = S if phase == 0 else E
            if phase == 2:
                if (
                    edges[v] & BORDER or at % pitch >= width
                    or (edges[v + 1] | edges[v + pitch]) & VISITED
                ):  # fmt: skip
                    return BAD_START, code, rng, pos
                stack[0, 0] = v + pitch
                stack[0, 1] = 0
                stack[0, 2] = (S | E << 4) << 40
                top = 1
                edges[v] |= S
                edges[v + pitch] |= N | AWAITED
            edges[v] |= VISITED | heading
            edges[v + step[heading]] |= opposite_of(heading)
            stack[top, 0] = v + step[heading]
            stack[top, 1] = 0
            stack[top, 2] = (heading | (S if phase else W) << 4) << 40
            top += 1
            while top:
                top -= 1
                c = stack[top, 0] & 0xFFFFFFFF
                turn = stack[top, 0] >> 32 & 1
                moves = stack[top, 0] >> 33
                even = stack[top, 1]
                odd = stack[top, 2] & ODD_RUNS
                # Heading and the side of the last turn: as edge bits, and as steps from vertex to vertex.
                to_ahead = stack[top, 2] >> 40 & 15
                to_same = stack[top, 2] >> 44
                by_ahead = step[to_ahead]
                by_same = step[to_same]
                run = np.int64(0)
                over = -(even >> 8 & 255)
                base = line_base(even, odd, turn)
                coming = line_digits(odd)
                cell = np.int64(edges[np.uint64(c)])
                while True:
                    if cell & (VISITED | BORDER):
                        edges[np.uint64(c)] = cell | VISITED
                        break
                    ahead = c + by_ahead
                    same = c + by_same
                    opposite = c - by_same
                    at_ahead = np.int64(edges[np.uint64(ahead)])
                    at_same = np.int64(edges[np.uint64(same)])
                    at_opposite = np.int64(edges[np.uint64(opposite)])
                    special = (at_ahead | at_same | at_opposite) & (VISITED | AWAITED)
                    shifted = remainder(moves, MOVES_1)
                    kind = 0
                    if special == 0 and (c >= safe or min(ahead, same, opposite) >= limit):
                        slow = min(run, 7)
                        i = base + clip(over, -3, 2)
                        j = AT_MOVES_0 + moves
                        s, t, p16 = predict(states, AT_LINES_0 + i, j, weights, slow)
                        bound = (rng >> 16) * p16
                        if code < bound:
                            code, rng, pos = refill(data, code, bound, pos)
                            adapt_mixed(states, AT_LINES_0 + i, j, weights, slow, s, t, p16, 1)
                            edges[np.uint64(c)] = cell | VISITED | to_ahead
                            cell = at_ahead | opposite_of(to_ahead)
                            c = ahead
                            moves = 3 * shifted
                            over += run < 255
                            run += run < 255
                            continue
                        code, rng, pos = refill(data, code - bound, rng - bound, pos)
                        adapt_mixed(states, AT_LINES_0 + i, j, weights, slow, s, t, p16, 0)
                        j = AT_MOVES_1 + shifted
                        slow += 8
                        s, t, p16 = predict(states, AT_LINES_1 + i, j, weights, slow)
                        bound = (rng >> 16) * p16
                        if code < bound:
                            code, rng, pos = refill(data, code, bound, pos)
                            adapt_mixed(states, AT_LINES_1 + i, j, weights, slow, s, t, p16, 1)
                            edges[np.uint64(c)] = cell | VISITED | opposite_of(to_same)
                            turn = np.int64(0)
                            moves = 3 * shifted + 1
                            base = coming + 12 * (run > 0) + 3
                            over = -(odd & 255)
                            even, odd = odd << 8, (even | run) & ODD_RUNS
                            coming = line_digits(odd)
                            run = np.int64(0)
                            by_ahead, by_same = -by_same, -by_ahead
                            c = opposite
                            to_ahead, to_same = opposite_of(to_same), opposite_of(to_ahead)
                            cell = at_opposite | opposite_of(to_ahead)
                            continue
                        code, rng, pos = refill(data, code - bound, rng - bound, pos)
                        adapt_mixed(states, AT_LINES_1 + i, j, weights, slow, s, t, p16, 0)
                        i = AT_LINES_KNOWN + 2 * SHORT + short_line(over, even >> 8 & 255, turn)
                        j = AT_MOVES_KNOWN + 2 * MOVES_SHORT + remainder(moves, MOVES_SHORT)
                        s, t, p16 = predict(states, i, j, weights, 18)
                        bound = (rng >> 16) * p16
                        if code < bound:
                            code, rng, pos = refill(data, code, bound, pos)
                            adapt_mixed(states, i, j, weights, 18, s, t, p16, 1)
                            edges[np.uint64(c)] = cell | VISITED | to_same
                            turn = np.int64(1)
                            moves = 3 * shifted + 2
                            base = coming + 12 * (run > 0) + 6 + 3
                            over = -(odd & 255)
                            even, odd = odd << 8, (even | run) & ODD_RUNS
                            coming = line_digits(odd)
                            run = np.int64(0)
                            by_ahead, by_same = by_same, -by_ahead
                            c = same
                            to_ahead, to_same = to_same, opposite_of(to_ahead)
                            cell = at_same | opposite_of(to_ahead)
                            continue
                        code, rng, pos = refill(data, code - bound, rng - bound, pos)
                        adapt_mixed(states, i, j, weights, 18, s, t, p16, 0)
                        options = ALL_OPTIONS & ~7
                    else:
                        kind = kind_of(at_ahead, ahead < limit, cell & to_ahead)
                        kind |= kind_of(at_same, same < limit, cell & to_same) << 2
                        kind |= kind_of(at_opposite, opposite < limit, cell & opposite_of(to_same)) << 4
                        options = OPTIONS[kind]
                        if options == 0:
                            return BAD_CHAIN, code, rng, pos
                    short = short_line(over, even >> 8 & 255, turn)
                    recent = remainder(moves, MOVES_SHORT)
                    while options & (options - 1):
                        k = trailing_zeros(np.uint64(options))
                        i = AT_LINES_KNOWN + (kind * 6 + k) * SHORT + short
                        j = AT_MOVES_KNOWN + (kind * 6 + k) * MOVES_SHORT + recent
                        slow = 16 + k + (8 if kind else 0)
                        s, t, p16 = predict(states, i, j, weights, slow)
                        bound = (rng >> 16) * p16
                        if code < bound:
                            code, rng, pos = refill(data, code, bound, pos)
                            adapt_mixed(states, i, j, weights, slow, s, t, p16, 1)
                            break
                        code, rng, pos = refill(data, code - bound, rng - bound, pos)
                        adapt_mixed(states, i, j, weights, slow, s, t, p16, 0)
                        options &= options - 1
                    found = ORDER[trailing_zeros(np.uint64(options))]
                    cell |= VISITED
                    if found & 1:
                        cell |= to_ahead
                    if found & 2:
                        cell |= to_same
                    if found & 4:
                        cell |= opposite_of(to_same)
                    edges[np.uint64(c)] = cell
                    moves = 3 * shifted
                    if found & (found - 1):
                        if top + 2 >= stack.shape[0]:
                            return BAD_STACK, code, rng, pos
                        for k in range(2):
                            # Branches wait: one to the same side first, since it is taken up last.
                            if k == 0:
                                waits = found & 2 and found & 1
                                target, heading, flags = same, to_same, at_same
                            else:
                                waits = found & 4 and found & 3
                                target, heading, flags = opposite, opposite_of(to_same), at_opposite
                            if waits and not flags & VISITED:
                                edges[np.uint64(target)] |= AWAITED | opposite_of(heading)
                                stack[top, 0] = target | (1 - k) << 32 | (moves + 2 - k) << 33
                                stack[top, 1] = odd << 8
                                stack[top, 2] = (even | run) & ODD_RUNS | (heading | opposite_of(to_ahead) << 4) << 40
                                top += 1
                    if found & 1:
                        cell = at_ahead | opposite_of(to_ahead)
                        c = ahead
                        over += run < 255
                        run += run < 255
                        continue
                    turn = found >> 1 & 1
                    moves += 1 + turn
                    base = coming + 12 * (run > 0) + 6 * turn + 3
                    over = -(odd & 255)
                    even, odd = odd << 8, (even | run) & ODD_RUNS
                    coming = line_digits(odd)
                    run = np.int64(0)
                    by_ahead, by_same = (by_same if turn else -by_same), -by_ahead
                    c = same if turn else opposite
                    cell = at_same if turn else at_opposite
                    to_ahead, to_same = (to_same if turn else opposite_of(to_same)), opposite_of(to_ahead)
                    cell |= opposite_of(to_ahead)
    return OK, code, rng, pos
