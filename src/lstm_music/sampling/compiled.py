"""Sampling as one compiled loop: rules, step, draw and feedback of a token without Python.

A seed gives the ids that lstm_music.sampling.sampler draws, with the same rules, primers and
lengths, but for ties within rounding. Of the logits it computes those of the words that the rules
allow: with the words sorted by class, whole panels of the output layer are never read; of a piece
whose next word is copied it computes none. Each thread takes some of the pieces from end to end; a
piece alone shares a large output layer among the threads.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numba import get_num_threads

from lstm_music.arrays import Array
from lstm_music.network.model import Model
from lstm_music.network.recall import NONE, RecallRules, new_recall
from lstm_music.ops.cpu.jit import njit, prange
from lstm_music.ops.cpu.lstm import cell_forward
from lstm_music.ops.cpu.panels import PANEL, ROWS, add_panel, pack, padded
from lstm_music.ops.philox import split_seed
from lstm_music.sampling.compiled_choice import Draw, choose, uniform
from lstm_music.sampling.compiled_copying import copied, gate_of, score, scratch_of, some_of, take
from lstm_music.sampling.compiled_rules import extend, longest_deltas, records
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import SILENT, Rules
from lstm_music.sampling.sampler import ROWS as TOGETHER
from lstm_music.sampling.sampler import new_piece

AT_ONCE = 64  # tokens, between which progress is shown
SHARED = 64  # panels of an output layer from which the threads share it for a piece alone


class Weights(NamedTuple):
    """A model's weights as the loop reads them, in panels.

    embedding (V, E); gates (L, 4H / PANEL, D + H, PANEL) of [x, h] with x (D,) padded with zeros
    to the wider of E and H; bias (L, 4H, padded); head (V / PANEL, H, PANEL) and head_bias, the
    words sorted as ByClass.ids.
    """

    embedding: Array
    gates: Array
    bias: Array
    head: Array
    head_bias: Array


class ByClass(NamedTuple):
    """The words sorted by class: ids and deltas (V,); starts (C + 1,): where each class begins."""

    ids: Array
    deltas: Array
    starts: Array


def sample_compiled(
    model: Model,
    primers: Sequence[Sequence[int]],
    options: Options,
    rules: Rules,
    show: Callable[[int, int], None] = lambda done, most: None,
    recall: RecallRules | None = None,
) -> list[list[int]]:
    """As sampler.sample, with a model on the numba backend."""
    new_pieces = records([new_piece(rules, options, primer)[0] for primer in primers])
    most = int(new_pieces["most"].max())
    order = by_class(rules)
    weights, gate = weights_of(model, order.ids), gate_of(model, recall, options)
    draw = Draw(
        options.temperature, options.top_k, options.top_p, options.greedy, *split_seed(options.seed)
    )
    config, groups = model.config, -(-len(primers) // TOGETHER)
    pieces: list[list[int]] = []
    for group in range(groups):
        first = group * TOGETHER
        some = primers[first : first + TOGETHER]
        primed, lengths = side_by_side(some)
        B = len(primed)
        drafts = new_pieces[first : first + TOGETHER]
        sounding = np.full((B, rules.notes), SILENT, np.int64)
        x = np.full(B, rules.start, np.int32)
        h, c = (np.zeros((config.layers, B, config.hidden), model.ops.dtype) for _ in range(2))
        pasts = new_recall(recall, most + 1, (B,)) if gate and recall else None
        ids: list[list[int]] = [[] for _ in range(B)]
        done = 0
        while not drafts["ended"].all():
            out = np.full((B, AT_ONCE), -1, np.int32)
            threads = get_num_threads()
            alone = B == 1 or threads == 1
            parts = threads if B == 1 and len(weights.head) >= SHARED else 1
            (_write_some if alone else _write)(
                weights, rules, order, draw, gate, primed, lengths, options.first + first, done,
                drafts, sounding, pasts, x, h, c, out,
                parts if alone else threads,
            )  # fmt: skip
            for row, new in zip(ids, out, strict=True):
                row += new[new >= 0].tolist()
            done += AT_ONCE if not drafts["ended"].all() else steps_of(out)
            show(group * most + min(done, most), groups * most)
        pieces += ids
    return pieces


def side_by_side(primers: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Return the primers side by side (B, longest), and the length of each (B,)."""
    lengths = np.array([len(primer) for primer in primers], np.int32)
    primed = np.zeros((len(primers), max(1, lengths.max())), np.int32)
    for row, primer in zip(primed, primers, strict=True):
        row[: len(primer)] = primer
    return primed, lengths


def by_class(rules: Rules) -> ByClass:
    """Return the words of rules sorted by class."""
    ids = np.argsort(rules.classes, kind="stable").astype(np.int32)
    starts = np.searchsorted(rules.classes[ids], np.arange(len(rules.shortest) + 1))
    return ByClass(ids, rules.deltas[ids], starts.astype(np.int32))


def steps_of(out: Array) -> int:
    """Return how many tokens the longest row of out (B, n) holds: -1 stands past its end."""
    return int((out >= 0).sum(axis=1).max())


def weights_of(model: Model, ids: Array) -> Weights:
    """Return the weights of a model in panels, the output layer's words in the order ids (V,)."""
    p, L = model.parameters, model.config.layers
    wider = max(model.config.embedding, model.config.hidden)
    gates = []
    for layer in range(L):
        Wx, Wh = p[f"lstm.{layer}.Wx"], p[f"lstm.{layer}.Wh"]
        none = np.zeros((wider - len(Wx), Wx.shape[1]), Wx.dtype)
        gates.append(pack(np.concatenate([Wx, none, Wh])))
    bias = np.stack([p[f"lstm.{layer}.b"] for layer in range(L)])
    head, head_bias = pack(np.take(p["head.W"], ids, axis=1)), padded(p["head.b"][ids])
    return Weights(p["embedding.W"], np.stack(gates), padded(bias), head, head_bias)


# One token ---------------------------------------------------------------------------------------


@njit(cache=True)
def _outputs(weights, x, h, c, inputs, gates):  # type: ignore[no-untyped-def]
    """Take one step of the layers for R pieces: x (R,) ids, h, c (L, R, H) -> inputs (R, D + H).

    The last layer's outputs are h[-1]. inputs and gates are scratch.
    """
    L, R, H = h.shape
    D, E = inputs.shape[1] - H, weights.embedding.shape[1]
    one = gates.dtype.type(1)
    for r in range(R):
        inputs[r, :E] = weights.embedding[x[r]]
        inputs[r, E:D] = 0
    for layer in range(L):
        for r in range(R):
            inputs[r, D:] = h[layer, r]
            gates[r] = weights.bias[layer]
        for n in range(weights.gates.shape[1]):
            add_panel(inputs, weights.gates[layer], n, gates)
        for r in range(R):
            cell_forward(gates[r, : 4 * H], c[layer, r], one, c[layer, r], h[layer, r])
            inputs[r, :H] = h[layer, r]
            inputs[r, H:D] = 0


@njit(cache=True)
def _panels_needed(rules, order, longest, needed):  # type: ignore[no-untyped-def]
    """Mark in needed the panels that hold a word of an allowed class."""
    for c in range(len(longest)):
        if rules.shortest[c] <= longest[c]:
            needed[order.starts[c] // PANEL : (order.starts[c + 1] - 1) // PANEL + 1] = 1


@njit(cache=True, parallel=True)
def _logits_shared(weights, h, panels, logits, parts):  # type: ignore[no-untyped-def]
    for part in prange(parts):
        for k in range(part * len(panels) // parts, (part + 1) * len(panels) // parts):
            add_panel(h, weights.head, panels[k], logits)


@njit(cache=True)
def _logits(weights, h, needed, logits, parts):  # type: ignore[no-untyped-def]
    """Write the needed panels of h·W + b to logits (R, padded V). h (R, H)."""
    panels = np.flatnonzero(needed)
    for n in panels:
        columns = slice(n * PANEL, (n + 1) * PANEL)
        for r in range(len(h)):
            logits[r, columns] = weights.head_bias[columns]
    if parts > 1:
        _logits_shared(weights, h, panels, logits, parts)
    else:
        for n in panels:
            add_panel(h, weights.head, n, logits)


@njit(cache=True)
def _by_id(rules, order, longest, logits, x):  # type: ignore[no-untyped-def]
    """Write logits (V,) by class to x (V,) by id, -∞ where no word may come.

    Returns how many may, and the likeliest: of equals the first id.
    """
    x[:] = -np.inf
    count, best, top = 0, len(x), -np.inf
    for c in range(len(longest)):
        if rules.shortest[c] <= longest[c]:
            for k in range(order.starts[c], order.starts[c + 1]):
                if order.deltas[k] <= longest[c]:
                    id, logit = order.ids[k], logits[k]
                    x[id] = logit
                    count += 1
                    if logit > top or (logit == top and id < best):
                        best, top = id, logit
    return count, min(best, len(x) - 1)


@njit(cache=True)
def _choose_some(  # type: ignore[no-untyped-def]
    weights, rules, order, draw, h, longest, u, rows, scratch, x, parts
):
    """Draw the next words of n pieces by the output layer: x[rows]. h (n, H), u, rows (n,).

    longest (n, C): what may come; parts: threads that share the layer.
    """
    needed, logits, row, p = scratch
    needed[:] = 0
    for n in range(len(h)):
        _panels_needed(rules, order, longest[n], needed)
    _logits(weights, h, needed, logits, parts)
    for n in range(len(h)):
        count, best = _by_id(rules, order, longest[n], logits[n], row)
        x[rows[n]] = (
            choose(row, p, count, best, u[n], draw, rules.exact) if count > 0 else rules.start
        )


# All tokens --------------------------------------------------------------------------------------


@njit(cache=True)
def _take(rules, gate, drafts, sounding, pasts, x, h, c, out):  # type: ignore[no-untyped-def]
    """Take the next words x (R,) of the pieces that go on; write them to out (R,)."""
    for r in range(len(x)):
        if drafts[r].ended:
            continue
        id = x[r]
        if extend(rules, drafts[r], sounding[r], id):
            out[r] = id
        if drafts[r].ended:
            x[r] = rules.start
        elif gate is not None:
            take(gate, pasts, r, id, rules.start)
        if id == rules.start:  # another piece begins, remembering nothing
            h[:, r] = 0
            c[:, r] = 0


@njit(cache=True)
def _write_some(  # type: ignore[no-untyped-def]
    weights, rules, order, draw, gate, primed, lengths, number, t0,
    drafts, sounding, pasts, x, h, c, out, parts,
):  # fmt: skip
    """Draw up to n tokens of R pieces from position t0 on; number: the first piece's.

    primed (R, …), lengths (R,): their primers. drafts (R,), sounding (R, notes), pasts, x (R,),
    h, c (L, R, H): where they stand; changed. out (R, n): the ids, left as they are past an end.
    gate, pasts: None without a copy gate. parts: threads that share the output layer.
    """
    L, R, H = h.shape
    inputs = np.zeros((R, weights.gates.shape[2]), h.dtype)
    gates = np.empty((R, weights.bias.shape[1]), h.dtype)
    longest = np.empty((ROWS, len(rules.shortest)), np.int64)
    some_h, some_u, rows = np.empty((ROWS, H), h.dtype), np.empty(ROWS), np.empty(ROWS, np.int64)
    scratch = (
        np.empty(len(weights.head), np.uint8),
        np.empty((min(R, ROWS), len(weights.head_bias)), h.dtype),
        np.empty(len(order.ids)), np.empty(len(order.ids)),
    )  # fmt: skip
    of_copying = scratch_of(gate, h)
    words = np.empty((4, 1), np.uint32)
    for step in range(out.shape[1]):
        t = t0 + step
        if drafts["ended"].all():
            return
        _outputs(weights, x, h, c, inputs, gates)
        if gate is not None:
            score(gate, h[L - 1], of_copying)
        n = 0  # pieces whose next word the network is to draw
        for r in range(R):
            if t < lengths[r]:
                x[r] = primed[r, t]
            elif not drafts[r].ended:
                longest_deltas(rules, drafts[r], sounding[r], longest[n])
                id, u = NONE, uniform(draw, number + r, t, words)
                if gate is not None:
                    id, u = copied(gate, pasts, r, rules, longest[n], draw, u, of_copying)
                x[r] = id
                if id == NONE:
                    some_h[n], some_u[n], rows[n] = h[L - 1, r], u, r
                    n += 1
            if n == ROWS or (n > 0 and r == R - 1):
                some = some_h[:n], longest[:n], some_u[:n], rows[:n]
                _choose_some(weights, rules, order, draw, *some, scratch, x, parts)
                n = 0
        _take(rules, gate, drafts, sounding, pasts, x, h, c, out[:, step])


@njit(cache=True, parallel=True)
def _write(  # type: ignore[no-untyped-def]
    weights, rules, order, draw, gate, primed, lengths, number, t0,
    drafts, sounding, pasts, x, h, c, out, parts,
):  # fmt: skip
    """As `_write_some`, in parts of the pieces, a thread each."""
    B = len(x)
    for part in prange(parts):
        some = slice(part * B // parts, (part + 1) * B // parts)
        if some.stop > some.start:
            own_h, own_c = h[:, some].copy(), c[:, some].copy()
            _write_some(
                weights, rules, order, draw, gate, primed[some], lengths[some],
                number + some.start, t0, drafts[some], sounding[some], some_of(pasts, some),
                x[some], own_h, own_c, out[some], 1,
            )  # fmt: skip
            h[:, some] = own_h
            c[:, some] = own_c
