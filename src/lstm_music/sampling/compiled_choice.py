"""Choosing a token from logits in compiled code: as sampler.choose, without sorting."""

import math
from typing import NamedTuple

import numpy as np

from lstm_music.ops.cpu.arithmetic import fma, lane_sum
from lstm_music.ops.cpu.elementwise import philox_blocks
from lstm_music.ops.cpu.jit import njit
from lstm_music.sampling.sampler import BLOCK, DRAWS

FEW = 16  # words to sort outright
# Cephes' split of ln(2): n times the high part is exact.
LOG2E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 6.93147180369123816e-01, 1.90821492927058770e-10
EXP_MIN = -708.0
# 1/n!, from n = 13: exp(r) to the last bits where |r| <= ln(2)/2.
TAYLOR = tuple(1 / math.factorial(n) for n in range(13, -1, -1))


class Draw(NamedTuple):
    """How to draw: as Options, the seed in halves."""

    temperature: float
    top_k: int
    top_p: float
    greedy: bool
    k0: int
    k1: int


@njit(cache=True, error_model="numpy")
def _exp(x, p):  # type: ignore[no-untyped-def]
    """Write exp(x) to p (n,), 0 below EXP_MIN; return the sum of each BLOCK, and of all."""
    sums = np.zeros(len(x) // BLOCK + 1)
    for first in range(0, len(x), BLOCK):
        some, out = x[first : first + BLOCK], p[first : first + BLOCK]
        for j in range(len(some)):
            a = max(some[j], EXP_MIN)
            n = float(math.floor(fma(a, LOG2E, 0.5)))
            r = fma(-n, LN2_LOW, fma(-n, LN2_HIGH, a))
            y = TAYLOR[0]
            y = fma(y, r, TAYLOR[1])
            y = fma(y, r, TAYLOR[2])
            y = fma(y, r, TAYLOR[3])
            y = fma(y, r, TAYLOR[4])
            y = fma(y, r, TAYLOR[5])
            y = fma(y, r, TAYLOR[6])
            y = fma(y, r, TAYLOR[7])
            y = fma(y, r, TAYLOR[8])
            y = fma(y, r, TAYLOR[9])
            y = fma(y, r, TAYLOR[10])
            y = fma(y, r, TAYLOR[11])
            y = fma(y, r, TAYLOR[12])
            y = fma(y, r, TAYLOR[13])
            power = np.int64(np.int64(np.int32(n) + np.int32(1023)) << np.int64(52))
            out[j] = y * power.view(np.float64) if some[j] >= EXP_MIN else 0.0
        sums[first // BLOCK] = lane_sum(out)
    return sums, lane_sum(sums)


@njit(cache=True)
def _find(p, sums, at):  # type: ignore[no-untyped-def]
    """Return the first place up to which the weights p (n,) add up to more than at."""
    block, before = 0, 0.0
    while block < len(sums) - 1 and before + sums[block] <= at:
        before += sums[block]
        block += 1
    last = 0
    for k in range(block * BLOCK, len(p)):
        if p[k] > 0:
            before += p[k]
            last = k
            if before > at:
                return k
    while last == 0 and len(p) > 1 and block >= 0:  # rounding: the last that has any weight
        for k in range(min(len(p), (block + 1) * BLOCK) - 1, block * BLOCK - 1, -1):
            if p[k] > 0:
                return k
        block -= 1
    return last


@njit(cache=True, inline="always")
def _comes_before(x, a, b):  # type: ignore[no-untyped-def]
    return x[a] > x[b] or (x[a] == x[b] and a < b)


@njit(cache=True)
def _select(ids, x, weights, target, reach):  # type: ignore[no-untyped-def]
    """Return (n, sum): how many of the likeliest ids weigh more than target together, and what.

    The likeliest have the largest x (V,), of equals the first id. reach: to weigh as much is
    enough. ids (N,) are reordered: the n first are those, the last of them at n - 1. As with
    quickselect, only the part with the answer is ordered further (Hoare 1961).
    """
    low, high, before = 0, len(ids), 0.0
    while high - low > FEW:
        a, b, c = ids[low], ids[(low + high) // 2], ids[high - 1]
        if _comes_before(x, b, a):
            a, b = b, a
        if _comes_before(x, c, b):
            b = a if _comes_before(x, c, a) else c
        n, weight = low, 0.0
        for k in range(low, high):
            id = ids[k]
            if id == b or _comes_before(x, id, b):
                ids[k] = ids[n]
                ids[n] = id
                n += 1
                weight += weights[id]
        if before + weight > target or (reach and before + weight == target):
            high = n
        else:
            low = n
            before += weight
    for k in range(low + 1, high):
        id, n = ids[k], k
        while n > low and _comes_before(x, id, ids[n - 1]):
            ids[n] = ids[n - 1]
            n -= 1
        ids[n] = id
    for n in range(low, high):
        before += weights[ids[n]]
        if before > target or (reach and before == target):
            return n + 1, before
    return high, before


@njit(cache=True)
def choose(x, p, count, best, u, draw, exact):  # type: ignore[no-untyped-def]
    """As sampler.choose, from x (V,) float64, -∞ for the words that may not come.

    count of them may; best is the likeliest. x and p (V,) are overwritten.
    """
    if draw.greedy:
        return best
    top = x[best]
    for v in range(len(x)):
        x[v] = (x[v] - top) / draw.temperature
    x[best] = 0  # also where the temperature is all but 0
    sums, mass = _exp(x, p)
    if draw.top_k == 0 and draw.top_p == 1:
        return _find(p, sums, u * mass)
    if exact >= 0 and p[exact] > 0:
        share = p[exact] / mass
        if u < share:
            return exact
        u = (u - share) / (1 - share)
        mass -= p[exact]
        count -= 1
        x[exact], p[exact] = -np.inf, 0.0
    # Those left out weigh less together than 1 - top_p.
    least = (1 - draw.top_p) * mass / count * (1 - 1e-9) if draw.top_k == 0 else 0.0
    ids = np.flatnonzero(p >= least)
    if len(ids) == 0:  # not a number
        return best
    if draw.top_k > 0:
        ids = ids[x[ids] > -np.inf]
        n, _ = _select(ids, x, np.ones_like(p), draw.top_k, True)
        ids = ids[:n]
        mass = p[ids].sum()
    if draw.top_p < 1:
        n, mass = _select(ids, x, p, draw.top_p * mass, True)
        ids = ids[:n]
    n, _ = _select(ids, x, p, u * mass, False)
    return ids[n - 1]


@njit(cache=True)
def uniform(draw, number, t, words):  # type: ignore[no-untyped-def]
    """Return the random number of a piece and a position, as sampler.Draft draws it."""
    philox_blocks((t % DRAWS) // 4, number, t // DRAWS, draw.k0, draw.k1, words)
    return words[t % 4, 0] * 2.0**-32
