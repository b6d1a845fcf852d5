"""Drafts of pieces in compiled code: as particles.Drafts, side by side in arrays."""

import math
from collections.abc import Sequence

import numpy as np

from lstm_music.arrays import Array
from lstm_music.network.model import Model
from lstm_music.network.recall import NONE, Recall, RecallRules, new_recall
from lstm_music.ops.cpu.jit import njit, njit_module
from lstm_music.ops.philox import split_seed
from lstm_music.sampling import craft, given
from lstm_music.sampling.compiled_choice import Draw, choose, uniform
from lstm_music.sampling.compiled_copying import (
    bucket_of,
    drawn_of,
    gate_of,
    likeliest,
    some_of,
    take,
)
from lstm_music.sampling.compiled_rules import extend, longest_deltas, records
from lstm_music.sampling.craft import new_voices
from lstm_music.sampling.given import FORCED, RECORD, Given, most_words
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import BAR_LINE, SILENT, Rules
from lstm_music.sampling.sampler import new_piece

ROOM = 512  # words that there is room for at first
LARGEST = 700.0  # whose exponential is finite
GIVEN = njit_module(given)
CRAFT = njit_module(craft, leave=("new_voices", "sings", "voices_of"))
fits, must, follow = (GIVEN[name] for name in ("fits", "must", "follow"))
next_needed, faults_of, sing = GIVEN["next_needed"], CRAFT["faults_of"], CRAFT["sing"]


class CompiledDrafts:
    """As particles.Drafts."""

    def __init__(
        self, model: Model, primers: Sequence[Sequence[int]], options: Options, rules: Rules,
        recall: RecallRules | None, voices: Sequence[int], given: Given | None,
        numbers: Sequence[int],
    ) -> None:  # fmt: skip
        R, self.rules, self.given, self.options = len(primers), rules, given, options
        self.gate, self.numbers = gate_of(model, recall, options), np.array(numbers, np.int64)
        self.how = Draw(
            options.temperature, options.top_k, options.top_p, options.greedy,
            *split_seed(options.seed),
        )  # fmt: skip
        self.pieces = records([new_piece(rules, options, primer)[0] for primer in primers])
        if given is not None:
            self.pieces["least"], self.pieces["most"] = 0, most_words(given)
        self.sounding = np.full((R, rules.notes), SILENT, np.int64)
        self.reached, self.drawn = np.zeros(R, RECORD), np.zeros(R, np.int64)
        self.voices = new_voices(voices, R)
        self.weights, self.x = np.zeros(R), np.full(R, rules.start, np.int32)
        self.out = np.full((R, ROOM), NONE, np.int32)
        self.pasts: Recall | None = None
        if self.gate is not None and recall is not None:
            self.pasts = new_recall(recall, ROOM, (R,))

    @property
    def ended(self) -> Array:
        """Whether each has (R,)."""
        ended: Array = self.pieces["ended"] != 0
        return ended

    def draw(self, rows: Array, logits: Array, scores: Array | None) -> None:
        """As particles.Drafts."""
        draw_words(
            self.rules, self.given, self.gate, self.options.craft, self.how, rows, self.numbers,
            logits, scores, self.pieces, self.sounding, self.reached, self.pasts, self.voices,
            self.x, self.weights, self.drawn,
        )  # fmt: skip

    def take(self, rows: Array) -> None:
        """As particles.Drafts."""
        if int(self.pieces["tokens"][rows].max()) + 1 >= self.out.shape[1]:
            self.grow()
        take_words(
            self.rules, self.given, self.gate, rows, self.pieces, self.sounding, self.reached,
            self.pasts, self.voices, self.x, self.drawn, self.out,
        )  # fmt: skip

    def grow(self) -> None:
        """Make room for twice as many words."""
        if self.pasts is not None:
            names = ("codes", "moved", "times", "before")
            longer = {name: doubled(getattr(self.pasts, name)) for name in names}
            self.pasts = self.pasts._replace(**longer)
        self.out = doubled(self.out)

    def copy(self, rows: Array, into: Array) -> None:
        """As particles.Drafts."""
        of_voices = self.voices[1:]
        arrays = self.pieces, self.sounding, self.reached, self.x, self.out, *of_voices
        for array in (*arrays, *(self.pasts or ())):
            array[into] = array[rows]

    def ids(self, row: int) -> list[int]:
        """As particles.Drafts."""
        ids: list[int] = self.out[row, : int(self.pieces["tokens"][row])].tolist()
        return ids


def doubled(array: Array) -> Array:
    """Return an array with twice the room along its last axis."""
    return np.concatenate([array, np.full_like(array, NONE)], axis=-1)


# One word ----------------------------------------------------------------------------------------


@njit(cache=True)
def _penalties(  # type: ignore[no-untyped-def]
    rules, given, piece, reached, voices, r, n, weight, longest, x
):
    """Write to x (V,) what the craft adds to the log of each word's share, -∞ where none fits."""
    x[:] = -np.inf
    count = 0
    for id in range(len(x)):
        may = rules.deltas[id] <= longest[rules.classes[id]]
        if may and (given is None or fits(given, rules, piece, reached, id, n)):
            x[id] = (
                -weight * faults_of(rules.kinds[id], rules.numbers[id], voices, r)
                if weight > 0
                else 0.0
            )
            count += 1
    return count


@njit(cache=True)
def _shares(rules, draw, longest, logits, x):  # type: ignore[no-untyped-def]
    """Return the log of what the network gives to the words that fit, of those that may come.

    x (V,): as _penalties; overwritten by what the words that fit are drawn by. Returns also the
    likeliest of them.
    """
    top, best, most = -np.inf, 0, -np.inf
    for id in range(len(x)):
        if rules.deltas[id] <= longest[rules.classes[id]]:
            top = max(top, logits[id] / draw.temperature)
    all, fit = 0.0, 0.0
    for id in range(len(x)):
        if rules.deltas[id] <= longest[rules.classes[id]]:
            scaled = logits[id] / draw.temperature
            all += math.exp(scaled - top)
            if x[id] > -np.inf:
                fit += math.exp(scaled - top + x[id])
                x[id] = (scaled + x[id]) * draw.temperature
                if x[id] > most:
                    best, most = id, x[id]
    if fit > 0:
        return math.log(fit / all), best
    return most / draw.temperature - top, best  # its exponential is too small


@njit(cache=True, _nrt=False)  # see compiled_copying: no references are counted
def _copies(  # type: ignore[no-untyped-def]
    rules, gate, pasts, r, draw, scores, longest, x, ids, found
):
    """Write what may be copied and the logs of its shares, the network's being 0; return how many.

    Returns also the sum of the shares of all that the rules let come. x (V,): as _penalties.
    """
    past, n, total = some_of(pasts, r), 0, 1.0
    for k in range(len(past.candidates)):
        code = past.candidates[k]
        id = gate.ids[code] if 0 <= code < len(gate.ids) else NONE
        if id != NONE and rules.deltas[id] <= longest[rules.classes[id]]:
            score = (scores[k] + gate.table[k, bucket_of(past, k)]) / draw.temperature
            total += math.exp(min(score, LARGEST))
            if x[id] > -np.inf:
                ids[n], found[n] = id, score + x[id]
                n += 1
    return n, total


@njit(cache=True, _nrt=False)
def _draw_copy(ids, found, n, own, u, draw):  # type: ignore[no-untyped-def]
    """Choose one of n copies, or NONE for a word of the network's; return what is left of u.

    own: the log of the network's share, to which theirs are set in proportion.
    """
    for k in range(n):
        found[k] = (found[k] - max(own, -LARGEST)) * draw.temperature
    if draw.greedy:
        return likeliest(ids, found, n), u
    return drawn_of(ids, found, n, draw, u)


@njit(cache=True)
def draw_words(  # type: ignore[no-untyped-def]
    rules, given, gate, weight, draw, rows, numbers, logits, scores,
    pieces, sounding, reached, pasts, voices, x, weights, drawn,
):  # fmt: skip
    """Draw the next words of some pieces, rows (n,), into x (R,); add to their weights (R,).

    logits (n, V), scores (n, K) or None. numbers, drawn (R,): which random numbers are next.
    """
    V = len(rules.kinds)
    longest = np.empty(len(rules.shortest), np.int64)
    fit, p = np.empty(V), np.empty(V)
    words = np.empty((4, 1), np.uint32)
    K = 0 if scores is None else scores.shape[1]
    ids, found = np.empty(K, np.int64), np.empty(K)
    for i in range(len(rows)):
        r = rows[i]
        piece, m = pieces[r], reached[r]
        longest_deltas(rules, piece, sounding[r], longest)
        n = next_needed(given, rules, sounding[r], m.words) if given is not None else 0
        count = _penalties(rules, given, piece, m, voices, r, n, weight, longest, fit)
        if count == 0:
            x[r] = rules.start
            if given is not None:
                x[r] = must(given, rules, piece, m, sounding[r], n)
                weights[r] += FORCED
            continue
        copies, total = 0, 1.0
        if gate is not None:
            copies, total = _copies(
                rules, gate, pasts, r, draw, scores[i], longest, fit, ids, found
            )
        own, best = _shares(rules, draw, longest, logits[i], fit)
        whole, top = math.exp(own), own
        for k in range(copies):
            whole += math.exp(min(found[k], LARGEST))
            top = max(top, found[k])
        weights[r] += math.log(whole / total) if whole > 0 else top - math.log(total)
        u, id = uniform(draw, numbers[r], drawn[r], words), NONE
        if copies:
            id, u = _draw_copy(ids, found, copies, own, u, draw)
        x[r] = choose(fit, p, count, best, u, draw, rules.exact) if id == NONE else id


@njit(cache=True)
def take_words(  # type: ignore[no-untyped-def]
    rules, given, gate, rows, pieces, sounding, reached, pasts, voices, x, drawn, out
):
    """Have some pieces take their next words x (R,), which are written to out (R, …) by number."""
    for i in range(len(rows)):
        r = rows[i]
        id, piece, m = x[r], pieces[r], reached[r]
        n = next_needed(given, rules, sounding[r], m.words) if given is not None else 0
        at = piece.tokens
        if extend(rules, piece, sounding[r], id):
            out[r, at] = id
        drawn[r] += 1
        sing(rules, voices, r, id)
        if given is not None:
            follow(given, rules, piece, m, id, n)
        elif rules.kinds[id] == BAR_LINE:
            m.bars += 1
        if piece.ended:
            x[r] = rules.start
        elif gate is not None:
            take(gate, pasts, r, id, rules.start)
