"""Drafts of pieces one by one, the reference of those in compiled_particles.py."""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import astuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.network.model import Model
from lstm_music.network.recall import RecallRules
from lstm_music.ops.philox import uniform
from lstm_music.sampling.copying import Copies, copied, copied_lists, copies_of, ids_that
from lstm_music.sampling.craft import Voices, faults_of, new_voices, sing
from lstm_music.sampling.given import (
    FORCED,
    RECORD,
    Given,
    Reached,
    fits,
    follow,
    most_words,
    must,
    next_needed,
)
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import BAR_LINE, NOTE_OFF, NOTE_ON, Rules
from lstm_music.sampling.sampler import DRAWS, Draft, choose

LEAVES, ENDS = -1, -2  # in place of a note: words that leave a place, and those that end one
LARGEST = 700.0  # whose exponential is finite


class Particle(Draft):
    """A draft of a piece of which something is given, or whose voices' faults count."""

    def __init__(
        self, number: int, primer: Sequence[int], rules: Rules, options: Options,
        copies: Copies | None, voices: Sequence[int], given: Given | None,
    ) -> None:  # fmt: skip
        super().__init__(number, primer, rules, options, copies)
        self.voices = Voices(*(array.tolist() for array in new_voices(voices, 1)))
        self.given, self.reached, self.words = given, Reached(), 0
        if given is not None:
            self.piece.least, self.piece.most = 0, most_words(given)

    def next_given(self) -> int:
        """Return the given word that is due next."""
        if self.given is None:
            return 0
        return next_needed(self.given, self.rules, self.sounding, self.reached.words)

    def next_word(self, logits: Array, scores: Array | None) -> tuple[int, float]:
        """Draw the next id by logits (V,) and a copy gate's scores (K,); return its log weight."""
        rules, o, given, n = self.rules, self.options, self.given, self.next_given()
        may, piece = self.allowed, self.piece
        fit = may.tolist()
        if given is not None:
            fit = [id for id in fit if fits(given, rules, piece, self.reached, id, n)]
            if not fit:
                return must(given, rules, piece, self.reached, self.sounding, n), FORCED
        if not fit:
            return rules.start, 0.0
        costs = self.costs(fit)
        own, x = network_share(logits, may, costs, o.temperature)
        u, id, total = self._uniform(), None, 0.0
        if self._past is not None and scores is not None:
            found = ids_that(self._past.candidates(scores), self._past.copies.ids, self._may)
            found = [(id, score / o.temperature) for id, score in found]
            total = log_sum([0.0, *(score for _, score in found)])
            found = [(id, score - costs[id]) for id, score in found if id in costs]
            raised = max(own, -LARGEST)
            scaled = [(id, (score - raised) * o.temperature) for id, score in found]
            id, u = copied(scaled, u, o)
            own = log_sum([own, *(score for _, score in found)])
        id = choose(x, np.array(fit), u, o, rules.exact) if id is None else id
        return id, own - total

    def costs(self, fit: Sequence[int]) -> dict[int, float]:
        """Return what the faults that each of some words makes cost."""
        rules, found = self.rules, dict[int, float]()
        kinds, numbers = rules.kinds[[*fit]].tolist(), rules.numbers[[*fit]].tolist()
        alike: dict[int, float] = {}  # by note, and of all that leave the place
        for id, kind, number in zip(fit, kinds, numbers, strict=True):
            key = LEAVES if kind > NOTE_ON else ENDS if kind == NOTE_OFF else number
            if key not in alike:
                alike[key] = self.options.craft * faults_of(kind, number, self.voices, 0)
            found[id] = alike[key]
        return found

    def take(self, id: int) -> None:
        """Take an id, whether it might come or not."""
        n = self.next_given()
        super().take(id)
        self.words += 1
        sing(self.rules, self.voices, 0, id)
        if self.given is not None:
            follow(self.given, self.rules, self.piece, self.reached, id, n)
        else:
            self.reached.bars += int(self.rules.kinds[id] == BAR_LINE)

    def _uniform(self) -> float:
        """Return the random number of this draft's place and this word of it."""
        block, n = divmod(self.words, DRAWS)
        if n == 0 or not len(self._draws):
            self._draws = uniform(self.options.seed, self.number, block, DRAWS)
        return float(self._draws[n])

    def go_on_as(self, other: "Particle") -> None:
        """Become another draft, but for one's own random numbers."""
        self.ids, self.reached, self.piece = [*other.ids], copy(other.reached), copy(other.piece)
        self.sounding = other.sounding.copy()
        self.voices = Voices(*map(copied_lists, other.voices))
        if other._past is not None:
            self._past = other._past.twin()


def network_share(
    logits: Array, may: Array, costs: dict[int, float], temperature: float
) -> tuple[float, Array]:
    """Return the log of what the network gives to the words that fit, of those that may come.

    logits (V,), may (n,): ids; costs: of each that fits. Returns also the logits less the costs.
    """
    x = np.array(logits, np.float64)
    top, fit = x[may].max(), np.array([*costs])
    whole = np.exp((x[may] - top) / temperature).sum()
    x[fit] -= np.array([*costs.values()]) * temperature
    share = float(np.exp((x[fit] - top) / temperature).sum() / whole)
    if share > 0:
        return math.log(share), x
    return float((x[fit].max() - top) / temperature), x  # its exponential is too small


def log_sum(logs: Sequence[float]) -> float:
    """Return the log of a sum, by the logs of what is summed."""
    total = sum(math.exp(min(one, LARGEST)) for one in logs)
    return math.log(total) if total > 0 else max(logs)


class PlainDrafts:
    """Drafts one by one, as the reference has them; see Drafts."""

    def __init__(
        self, model: Model, primers: Sequence[Sequence[int]], options: Options, rules: Rules,
        recall: RecallRules | None, voices: Sequence[int], given: Given | None,
        numbers: Sequence[int],
    ) -> None:  # fmt: skip
        copies, R = copies_of(model, recall, options), len(primers)
        self.rows = [
            Particle(number, primer, rules, options, copies, voices, given)
            for number, primer in zip(numbers, primers, strict=True)
        ]
        self.x = np.full(R, rules.start, np.int32)
        self.weights, self.drawn = np.zeros(R), np.zeros(R, np.int64)

    @property
    def ended(self) -> Array:
        """Whether each has (R,)."""
        return np.array([one.ended for one in self.rows])

    @property
    def reached(self) -> Array:
        """What each has of what is given (R,), by the names of Reached."""
        rows = [astuple(one.reached) for one in self.rows]
        return np.array(rows, RECORD)

    def draw(self, rows: Array, logits: Array, scores: Array | None) -> None:
        """Draw the next words of some, rows (n,), by logits (n, V) and a copy gate's scores."""
        for n, r in enumerate(rows.tolist()):
            own = None if scores is None else scores[n]
            self.x[r], weight = self.rows[r].next_word(logits[n], own)
            self.weights[r] += weight

    def take(self, rows: Array) -> None:
        """Have some take their next words."""
        self.drawn[rows] += 1
        for r in rows.tolist():
            self.rows[r].take(int(self.x[r]))
            if self.rows[r].ended:
                self.x[r] = self.rows[r].rules.start

    def copy(self, rows: Array, into: Array) -> None:
        """Put some, rows (n,), in the places of others (n,)."""
        self.x[into] = self.x[rows]
        for row, place in zip(rows.tolist(), into.tolist(), strict=True):
            self.rows[place].go_on_as(self.rows[row])

    def ids(self, row: int) -> list[int]:
        """Return the words of one."""
        return self.rows[row].ids
