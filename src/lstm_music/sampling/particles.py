"""Drawing pieces by particles: several drafts of each, of which the likelier are gone on with.

A draft's words are drawn among those that fit what is given. What the network gave to all of these,
of what the rules let come, is its weight; a fault of the craft counts as if the network found a
word less likely, exp(-craft) for each. So a draft that was drawn word by word may have led where
nothing good fits: drafts of a piece are compared wherever a given word was taken, or at bar lines,
and those of little weight end, those of much are gone on with several times. The weights' means
multiplied estimate how likely what is given is (sequential Monte Carlo: Gordon, Salmond & Smith
1993; systematic resampling where the effective number of drafts is below half: Kong, Liu & Wong
1994; Naesseth, Lindsten & Schön 2019, "Elements of sequential Monte Carlo").
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from lstm_music.arrays import Array
from lstm_music.network.config import State
from lstm_music.network.model import Model
from lstm_music.network.recall import RecallRules
from lstm_music.ops.philox import uniform
from lstm_music.sampling.drafts import PlainDrafts
from lstm_music.sampling.given import (
    Given,
)
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import Rules
from lstm_music.sampling.sampler import most_of, rows_for

A_DRAFT = 5  # words of the sampler that take as long as a draft's
ROWS = 64  # drafts computed at once, or those of one piece if these are more
COLDEST = 1e-6  # a temperature by which logs of weights are finite: it takes the likeliest word
RESAMPLING, CHOSEN = 1 << 30, 1 << 20  # random numbers that aren't for words, and for the last one


class Drawn(NamedTuple):
    """A piece's ids, its primer included, and the log of how likely what is given is, estimated.

    Faults of the craft lower it.
    """

    ids: list[int]
    nats: float


class Drafts(Protocol):
    """Pieces in the making, R of them.

    x (R,): the last word of each, or the one that is due; weights (R,): their logs; drawn (R,): how
    many words each took.
    """

    x: Array
    weights: Array
    drawn: Array

    @property
    def ended(self) -> Array:
        """Whether each has (R,)."""

    @property
    def reached(self) -> Array:
        """What each has of what is given (R,), by the names of Reached."""

    def draw(self, rows: Array, logits: Array, scores: Array | None) -> None:
        """Draw the next words of some, rows (n,), by logits (n, V) and a copy gate's scores."""

    def take(self, rows: Array) -> None:
        """Have some take their next words."""

    def copy(self, rows: Array, into: Array) -> None:
        """Put some, rows (n,), in the places of others (n,)."""

    def ids(self, row: int) -> list[int]:
        """Return the words of one."""


def sample_particles(
    model: Model,
    primers: Sequence[Sequence[int]],
    options: Options,
    rules: Rules,
    show: Callable[[int, int], None] = lambda done, most: None,
    recall: RecallRules | None = None,
    voices: Sequence[int] = (),
    given: Given | None = None,
) -> list[Drawn]:
    """Draw one piece for each primer, as sampler.sample; see the module.

    show is called with the hundredths that are done, and how many there are. voices (parts,): of
    each part the voice whose craft counts, or -1; given: what must come. With neither, and one
    draft of each, the words are those that `sample` draws.
    """
    made: list[Drawn] = []
    temperature = 1.0 if options.greedy else max(options.temperature, COLDEST)
    options = replace(options, temperature=temperature)
    at_once = max(1, ROWS // options.particles)
    for first in range(0, len(primers), at_once):
        some = primers[first : first + at_once]
        group = Group(model, some, options, rules, recall, voices, given, options.first + first)
        for share in group.draw():
            show(round(100 * (first + share * len(some))), 100 * len(primers))
        made += group.chosen()
    return made


class Group:
    """Some pieces, and so many drafts of each, that are drawn together. first: their number."""

    def __init__(
        self, model: Model, primers: Sequence[Sequence[int]], options: Options, rules: Rules,
        recall: RecallRules | None, voices: Sequence[int], given: Given | None, first: int,
    ) -> None:  # fmt: skip
        self.model, self.options, self.first, self.N = model, options, first, options.particles
        self.primers = [primer for primer in primers for _ in range(self.N)]
        R = len(self.primers)
        numbers = range(first * self.N, first * self.N + R)
        of_part = [*voices, *[-1] * (rules.notes // 128 - len(voices))]
        asked = self.primers, options, rules, recall, of_part, given, numbers
        self.drafts: Drafts = drafts_of(model, *asked)
        self.state = model.zero_state(max(R, rows_for(model, R)))
        self.most = most_of(rules, options, primers)
        self.nats, self.passed = np.zeros(len(primers)), np.zeros(len(primers), np.int64)
        self.stops = None if given is None else stops_of(given)
        self.start = rules.start

    def draw(self) -> Iterator[float]:
        """Draw all pieces to their ends; yield the share that is done."""
        while len(rows := self.going_on()):
            self.step(rows)
            yield self.share()

    def share(self) -> float:
        """Return how much is done, of 1."""
        ended = self.drafts.ended
        if self.stops is not None:
            return float(ended.mean() + self.times_met().mean() / max(len(self.stops), 1)) / 2
        return 1.0 if ended.all() else min(int(self.drafts.drawn.max()) / self.most, 1.0)

    def going_on(self) -> Array:
        """Return the drafts (n,) whose next word is due: those of a piece wait for one another."""
        while self.N > 1:
            ended = self.drafts.ended.reshape(-1, self.N)
            there = ended | (self.times_met() > self.passed[:, None])
            met = np.flatnonzero(there.all(axis=1) & ~ended.all(axis=1))
            if not len(met):
                return np.flatnonzero(~there)
            for k in met.tolist():
                self.compare(k)
                self.passed[k] += 1
        return np.flatnonzero(~self.drafts.ended)

    def times_met(self) -> Array:
        """Return how many of the places where drafts are compared each has reached (pieces, N)."""
        reached = self.drafts.reached
        if self.stops is None:
            return reached["bars"].reshape(-1, self.N)
        return np.searchsorted(self.stops, reached["words"], "right").reshape(-1, self.N)

    def step(self, rows: Array) -> None:
        """Take one step of the network for some drafts, rows (n,), and draw their next words."""
        d, ops = self.drafts, self.model.ops
        whole = ops.name == "cupy"  # where cuBLAS may sum a row otherwise among fewer
        computed = np.arange(self.state.h.shape[1]) if whole else rows
        x = np.full(len(computed), self.start, np.int32)
        x[: len(d.x)] = d.x[computed[: len(d.x)]]
        after = self.model.read(ops.asarray(x, "int32"), self.states(computed))
        logits, scores = self.model.logits(after.h[-1]), None
        if self.model.gate is not None:
            scores = ops.to_numpy(self.model.copy_scores(after))
        drawn, among = ops.xp.asarray(rows), ops.xp.asarray(np.searchsorted(computed, rows))
        for own, new in zip(self.state, after, strict=True):
            own[:, drawn] = new[:, among]
        free = self.take_primers(rows)
        if len(free):
            places = np.searchsorted(computed, free)
            d.draw(free, ops.to_numpy(logits)[places], None if scores is None else scores[places])
        d.take(rows)
        begun = ops.xp.asarray(rows[d.x[rows] == self.start])
        self.state.h[:, begun] = self.state.c[:, begun] = 0

    def states(self, rows: Array) -> State:
        """Return what the network remembers of some drafts, rows (n,)."""
        at = self.model.ops.xp.asarray(rows)
        return State(self.state.h[:, at], self.state.c[:, at])

    def take_primers(self, rows: Array) -> Array:
        """Set the next words of drafts whose primers aren't over; return the others, (n,)."""
        free = []
        for row, drawn in zip(rows.tolist(), self.drafts.drawn[rows].tolist(), strict=True):
            if drawn < len(self.primers[row]):
                self.drafts.x[row] = self.primers[row][drawn]
            else:
                free.append(row)
        return np.array(free, np.int64)

    # Weights --------------------------------------------------------------------------------------

    def compare(self, k: int) -> None:
        """End drafts of little weight of piece k and go on with others in their places."""
        own = slice(k * self.N, (k + 1) * self.N)
        shares, total = shares_of(self.drafts.weights[own])
        if 1 / np.square(shares).sum() >= self.N / 2:
            return
        self.nats[k] += total
        self.drafts.weights[own] = 0
        times = systematic(shares, self.random(k, int(self.passed[k])))
        into = np.flatnonzero(times == 0) + k * self.N
        rows = np.repeat(np.arange(self.N), np.maximum(times - 1, 0)) + k * self.N
        self.drafts.copy(rows, into)
        for array, copied in zip(self.state, self.states(rows), strict=True):
            array[:, self.model.ops.xp.asarray(into)] = copied

    def random(self, k: int, n: int) -> float:
        """Return the n-th random number of piece k that isn't for a word."""
        block, place = divmod(n, 4)
        number = RESAMPLING + self.first + k
        return float(uniform(self.options.seed, number, block, 4)[place])

    def chosen(self) -> list[Drawn]:
        """Return a draft of each piece, drawn by their weights."""
        made = []
        for k, nats in enumerate(self.nats.tolist()):
            shares, total = shares_of(self.drafts.weights[k * self.N : (k + 1) * self.N])
            one = int(np.searchsorted(np.cumsum(shares), self.random(k, CHOSEN)))
            row = k * self.N + min(one, self.N - 1)
            made.append(Drawn(self.drafts.ids(row), nats + total))
        return made


def stops_of(given: Given) -> Array:
    """Return how many given words (n,) must have been taken wherever drafts are compared."""
    return np.flatnonzero(np.diff(given.ticks, append=given.end + 1)) + 1


def shares_of(weights: Array) -> tuple[Array, float]:
    """Return the shares (N,) of log weights (N,), and the log of their mean."""
    top = float(weights.max())
    p = np.exp(weights - top)
    return p / p.sum(), top + math.log(float(p.mean()))


def systematic(shares: Array, u: float) -> Array:
    """Return how often each draft (N,) is gone on with: its share, up or down to a whole number."""
    N = len(shares)
    edges = np.floor(np.cumsum(shares) * N - u).astype(np.int64) + 1
    edges[-1] = N
    return np.diff(edges, prepend=0)


# Drafts -------------------------------------------------------------------------------------------


def drafts_of(
    model: Model, primers: Sequence[Sequence[int]], options: Options, rules: Rules,
    recall: RecallRules | None, voices: Sequence[int], given: Given | None, numbers: Sequence[int],
) -> Drafts:  # fmt: skip
    """Return drafts before their first words: compiled, but of a model on NumPy.

    numbers (R,): which choose the random numbers of each.
    """
    asked = primers, options, rules, recall, voices, given, numbers
    if model.ops.name == "numpy":
        return PlainDrafts(model, *asked)
    from lstm_music.sampling.compiled_particles import CompiledDrafts

    return CompiledDrafts(model, *asked)
