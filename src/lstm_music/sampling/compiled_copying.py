"""Copying in compiled code: as sampling/copying.py, each word of a piece where it was drawn."""

import math
from typing import NamedTuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.network.compiled_recall import COMPILED
from lstm_music.network.model import Model
from lstm_music.network.recall import NONE, Recall, RecallRules
from lstm_music.ops.cpu.jit import njit
from lstm_music.ops.cpu.panels import PANEL, add_panel, pack
from lstm_music.sampling.copying import MOST, table_of
from lstm_music.sampling.options import Options

LARGEST = 700.0  # whose exponential is finite
bucket_of, forget, observe = (COMPILED[name] for name in ("bucket_of", "forget", "observe"))


class Gate(NamedTuple):
    """A copy gate as the loop reads it: G in panels, table (K, BUCKETS) as `copying.Copies`.

    The rest as RecallRules, but that no field is a tuple: threads can't be handed one in another.
    """

    G: Array
    table: Array
    orders: Array
    lags: Array
    line: int
    phrases: int
    same: int
    words: Array
    ids: Array


def gate_of(model: Model, rules: RecallRules | None, options: Options) -> Gate | None:
    """Return a model's copy gate, if there is one; rules: how its words are compared."""
    if model.gate is None:
        return None
    assert rules is not None
    orders, lags = np.array(rules.orders), np.array(rules.lags)
    return Gate(
        pack(model.ops.to_numpy(model.parameters["copy.G"])), table_of(model, options),
        orders, lags, rules.line, rules.phrases, rules.same, rules.words, rules.ids,
    )  # fmt: skip


@njit(cache=True)
def scratch_of(gate, h):  # type: ignore[no-untyped-def]
    """Return the scores (R, padded K) of R pieces, and candidates (K,) with their scores."""
    if gate is None:
        return None
    K, columns = len(gate.table), len(gate.G) * PANEL
    return np.empty((h.shape[1], columns), h.dtype), np.empty(K, np.int64), np.empty(K)


@njit(cache=True)
def score(gate, h, scratch):  # type: ignore[no-untyped-def]
    """Write the candidates' scores of R pieces, but for what their runs add. h (R, H)."""
    scores, _, _ = scratch
    scores[:] = 0
    for n in range(len(gate.G)):
        add_panel(h, gate.G, n, scores)
    scores /= scores.dtype.type(h.shape[1])


# Below nothing makes an array, and so nothing counts references, see `njit_module`.


@njit(cache=True, _nrt=False)
def some_of(pasts, some):  # type: ignore[no-untyped-def]
    """Return the pasts of some pieces: a slice of several, or the number of one."""
    if pasts is None:
        return None
    return Recall(
        pasts.codes[some], pasts.moved[some], pasts.times[some], pasts.heads[some],
        pasts.before[some], pasts.pointers[some], pasts.candidates[some], pasts.runs[some],
        pasts.numbers[some],
    )  # fmt: skip


@njit(cache=True, _nrt=False)
def take(gate, pasts, r, id, start):  # type: ignore[no-untyped-def]
    """Take the next word of piece r; the start symbol begins another piece."""
    past = some_of(pasts, r)
    if id == start:
        forget(past)
    else:
        observe(gate, past, gate.words[id])


@njit(cache=True, _nrt=False)
def copied(gate, pasts, r, rules, longest, draw, u, scratch):  # type: ignore[no-untyped-def]
    """Return the id to copy in piece r, or NONE; and a uniform number for the network to draw by.

    longest (C,): what the rules let come; scratch: with the scores.
    """
    past, n = some_of(pasts, r), 0
    scores, ids, found = scratch
    for k in range(len(past.candidates)):
        code = past.candidates[k]
        id = gate.ids[code] if 0 <= code < len(gate.ids) else NONE
        if id != NONE and rules.deltas[id] <= longest[rules.classes[id]]:
            ids[n] = id
            found[n] = scores[r, k] + gate.table[k, bucket_of(past, k)]
            n += 1
    if n == 0:
        return NONE, u
    if draw.greedy:
        return likeliest(ids, found, n), u
    return drawn_of(ids, found, n, draw, u)


@njit(cache=True, _nrt=False)
def likeliest(ids, scores, n):  # type: ignore[no-untyped-def]
    """Return the id that its candidates make likelier than the network, NONE for none."""
    best, top = NONE, 1.0
    for j in range(n):
        total = 0.0
        for k in range(n):
            if ids[k] == ids[j]:
                total += math.exp(min(scores[k], LARGEST))
        if total > top:
            best, top = ids[j], total
    return best


@njit(cache=True, _nrt=False, error_model="numpy")
def drawn_of(ids, scores, n, draw, u):  # type: ignore[no-untyped-def]
    """Draw one of n candidates or NONE, for the network; return also what is left of u."""
    top = 0.0
    for k in range(n):
        top = max(top, scores[k])
    own, total = math.exp(-top / draw.temperature), 0.0
    for k in range(n):
        scores[k] = math.exp((scores[k] - top) / draw.temperature)
        total += scores[k]
    if own < (1 - draw.top_p) * (own + total):
        own = 0.0
    left = u * (own + total)
    if left < own:
        return NONE, min(left / own, MOST)
    left -= own
    for k in range(n - 1):
        if left < scores[k]:
            return ids[k], u
        left -= scores[k]
    return ids[n - 1], u
