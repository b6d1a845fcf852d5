"""Drawing pieces by particles: several drafts of each, of which the likelier are gone on with.

Where something is given, or faults of the craft weigh, a draft that was drawn word by word may have
led where nothing fits. So drafts are compared wherever a given word was taken, or at bar lines:
those of little weight end, those of much are gone on with several times (sequential Monte Carlo
with systematic resampling, where the effective number is below half; Kong, Liu & Wong 1994).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.network.config import State
from lstm_music.network.model import Model
from lstm_music.network.recall import Recall, RecallRules, new_recall
from lstm_music.ops.philox import split_seed, uniform
from lstm_music.sampling.compiled import side_by_side
from lstm_music.sampling.compiled_choice import Draw
from lstm_music.sampling.compiled_copying import gate_of
from lstm_music.sampling.compiled_particles import RECORD, draw_words, take_words
from lstm_music.sampling.compiled_rules import records
from lstm_music.sampling.craft import Voices, new_voices
from lstm_music.sampling.given import Given
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import SILENT, Rules
from lstm_music.sampling.sampler import new_piece

ROWS = 64  # drafts computed at once, or those of one piece if these are more
ROOM = 512  # words by which drafts grow
RESAMPLING = 1 << 30  # added to a piece's number: not the random numbers of its words


class Drawn(NamedTuple):
    """A piece's ids, its primer included, and the log of how likely what is given is, estimated.

    Faults of the craft lower it.
    """

    ids: list[int]
    nats: float


class Drafts(NamedTuple):
    """Pieces in the making, R of them, each array along its first axis."""

    pieces: Array
    sounding: Array
    reached: Array
    voices: Voices
    x: Array
    drawn: Array
    weights: Array
    out: Array
    pasts: Recall | None


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

    voices (parts,): of each part the voice whose craft counts, or -1; given: what must come.
    """
    made: list[Drawn] = []
    at_once = max(1, ROWS // options.particles)
    for first in range(0, len(primers), at_once):
        group = Group(
            model, primers[first : first + at_once], options, rules, recall, voices, given, first
        )
        group.draw(lambda done, before=first: show(before + done, len(primers)))  # type: ignore[misc]
        made += group.chosen()
    return made


class Group:
    """Some pieces, and so many drafts of each, that are drawn together."""

    def __init__(
        self, model: Model, primers: Sequence[Sequence[int]], options: Options, rules: Rules,
        recall: RecallRules | None, voices: Sequence[int], given: Given | None, first: int,
    ) -> None:  # fmt: skip
        self.model, self.options, self.rules, self.given = model, options, rules, given
        self.N, R = options.particles, len(primers) * options.particles
        self.gate = gate_of(model, recall, options)
        self.primed, self.lengths = side_by_side([p for p in primers for _ in range(self.N)])
        pieces = records([new_piece(rules, options, p)[0] for p in primers for _ in range(self.N)])
        if given is not None:
            pieces["least"] = 0
        number = options.first + first
        self.firsts = range(number, number + len(primers))
        self.numbers = np.arange(number * self.N, number * self.N + R)
        of_part = np.array([*voices, *[-1] * (rules.notes // 128 - len(voices))], np.int64)
        self.drafts = Drafts(
            pieces, np.full((R, rules.notes), SILENT, np.int64), np.zeros(R, RECORD),
            new_voices(of_part, R),
            np.full(R, rules.start, np.int32), np.zeros(R, np.int64), np.zeros(R),
            np.full((R, ROOM), -1, np.int32),
            new_recall(recall, ROOM, (R,)) if self.gate is not None and recall else None,
        )  # fmt: skip
        self.state = model.zero_state(R)
        self.nats = np.zeros(len(primers))
        self.passed = np.zeros(len(primers), np.int64)  # of each piece, how often drafts met
        self.stops = None if given is None else stops_of(given)

    def draw(self, show: Callable[[int], None]) -> None:
        """Draw all pieces to their ends."""
        while len(rows := self.going_on()):
            self.step(rows)
            show(int((self.drafts.pieces["ended"].reshape(-1, self.N).all(axis=1)).sum()))

    def going_on(self) -> Array:
        """Return the drafts (n,) whose next word is due: those of a piece wait for one another."""
        if self.N == 1:
            return np.flatnonzero(self.drafts.pieces["ended"] == 0)
        while True:
            ended = self.drafts.pieces["ended"].reshape(-1, self.N) != 0
            there = ended | (self.reached() > self.passed[:, None])
            met = there.all(axis=1) & ~ended.all(axis=1)
            if not met.any():
                return np.flatnonzero(~there)
            for k in np.flatnonzero(met):
                self.compare(int(k))
                self.passed[k] += 1

    def reached(self) -> Array:
        """Return how many of the places where drafts meet each has reached (pieces, N)."""
        reached = self.drafts.reached
        if self.stops is None:
            return reached["bars"].reshape(-1, self.N)
        return np.searchsorted(self.stops, reached["words"], "right").reshape(-1, self.N)

    def step(self, rows: Array) -> None:
        """Take one step of the network for some drafts, rows (n,), and draw their next words."""
        d, ops = self.drafts, self.model.ops
        if d.out.shape[1] <= int(d.pieces["tokens"][rows].max()) + 1:
            self.grow()
            d = self.drafts
        all_rows = len(rows) == len(d.x)
        state = self.state if all_rows else State(self.state.h[:, rows], self.state.c[:, rows])
        after = self.model.read(ops.asarray(d.x[rows], "int32"), state)
        if all_rows:
            self.state = after
        else:
            self.state.h[:, rows], self.state.c[:, rows] = after.h, after.c
        primed = d.drawn[rows] < self.lengths[rows]
        d.x[rows[primed]] = self.primed[rows[primed], d.drawn[rows[primed]]]
        free = np.flatnonzero(~primed)
        if len(free):
            logits = ops.to_numpy(self.model.logits(after.h[-1][free]))
            scores = (
                None if self.gate is None else ops.to_numpy(self.model.copy_scores(after))[free]
            )
            draw_words(
                self.rules, self.given, self.gate, self.options.craft, self.how(), rows[free],
                self.numbers, logits, scores, d.pieces, d.sounding, d.reached, d.pasts, d.voices,
                d.x, d.weights, d.drawn,
            )  # fmt: skip
        take_words(
            self.rules, self.given, self.gate, rows, d.pieces, d.sounding, d.reached, d.pasts,
            d.voices, d.x, d.drawn, d.out,
        )  # fmt: skip
        begun = rows[d.x[rows] == self.rules.start]
        self.state.h[:, begun], self.state.c[:, begun] = 0, 0

    def how(self) -> Draw:
        """Return how to draw."""
        o = self.options
        return Draw(o.temperature, o.top_k, o.top_p, o.greedy, *split_seed(o.seed))

    def grow(self) -> None:
        """Make room for more words."""
        d = self.drafts
        pasts = d.pasts
        if pasts is not None:
            longer = {
                f: widened(getattr(pasts, f), 0) for f in ("codes", "moved", "times", "before")
            }
            pasts = pasts._replace(**longer)
        self.drafts = d._replace(out=widened(d.out, -1), pasts=pasts)

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
        self.copy(np.repeat(np.arange(self.N), np.maximum(times - 1, 0)) + k * self.N, into)

    def random(self, k: int, n: int) -> float:
        """Return the n-th random number of piece k that isn't for a word."""
        block, place = divmod(n, 4)
        number = RESAMPLING + self.firsts[k]
        return float(uniform(self.options.seed, number, block, 4)[place])

    def copy(self, rows: Array, into: Array) -> None:
        """Put drafts, rows (n,), in the places of others (n,)."""
        d = self.drafts
        of_voices = (d.voices.before, d.voices.now, d.voices.begun, d.voices.above)
        for array in (d.pieces, d.sounding, d.reached, d.x, d.out, *of_voices, *(d.pasts or ())):
            array[into] = array[rows]
        for array in self.state:
            array[:, into] = array[:, rows]

    def chosen(self) -> list[Drawn]:
        """Return a draft of each piece, drawn by their weights."""
        made = []
        for k in range(len(self.nats)):
            own = slice(k * self.N, (k + 1) * self.N)
            shares, total = shares_of(self.drafts.weights[own])
            one = int(np.searchsorted(np.cumsum(shares), self.random(k, 1 << 20)))
            row = k * self.N + min(one, self.N - 1)
            ids = self.drafts.out[row, : int(self.drafts.pieces["tokens"][row])]
            made.append(Drawn(ids.tolist(), float(self.nats[k] + total)))
        return made


def stops_of(given: Given) -> Array:
    """Return how many given words (n,) must have been taken wherever drafts meet."""
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


def widened(array: Array, filling: int) -> Array:
    """Return an array with room for ROOM more along its last axis."""
    width = [(0, 0)] * (array.ndim - 1) + [(0, ROOM)]
    return np.pad(array, width, constant_values=filling)
