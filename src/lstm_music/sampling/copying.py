"""Copying while sampling: which words a piece has said may come again, and how likely each is.

What the rules forbid is no candidate. Temperature divides the gate's scores as it divides logits;
top_k and top_p cut the network's own words, and all of them where the gate leaves them less than
1 - top_p: so a copy that is sure of itself is not broken off by chance. Options.repetition is added
to each candidate's score.
"""

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.roll import NOTES, Frames
from lstm_music.network.model import Model
from lstm_music.network.recall import (
    COUNT,
    NONE,
    Recall,
    RecallRules,
    bucket_of,
    forget,
    new_recall,
    observe,
)
from lstm_music.network.recall_rules import frame_of_code, frame_says
from lstm_music.sampling.options import Options

MOST = 1 - 2**-53  # the largest uniform number
ROOM = 1024  # words by which a past grows


class Copies(NamedTuple):
    """What all pieces of a model share, in lists, which Python reads faster than arrays.

    words, ids: of the rules. table (K, BUCKETS): what a run adds to a candidate's score, the gate's
    R and Options.repetition.
    """

    rules: RecallRules
    words: list[Any]
    ids: list[int]
    table: list[list[float]]


def table_of(model: Model, options: Options) -> Array:
    """Return what a run adds to a candidate's score (K, BUCKETS) float64, of a gate."""
    R: Array = model.ops.to_numpy(model.parameters["copy.R"]).astype(np.float64)
    return R + options.repetition


def copies_of(model: Model, rules: RecallRules | None, options: Options) -> Copies | None:
    """Return how a model copies, None without a gate; rules: how its words are compared."""
    if model.gate is None:
        return None
    assert rules is not None
    lists = (array.tolist() for array in (rules.words, rules.ids, table_of(model, options)))
    return Copies(rules, *lists)


class Past:
    """The past of a piece in the making."""

    def __init__(self, copies: Copies) -> None:
        self.copies = copies
        self.recall = Recall(*(a.tolist() for a in new_recall(copies.rules, ROOM)))

    def take(self, word: Sequence[int]) -> None:
        """Take the next word, a row of a word table."""
        m = self.recall
        if m.numbers[COUNT] == len(m.codes):
            for words in (m.codes, m.moved, m.times, *m.before):
                words += [0] * ROOM
        observe(self.copies.rules, self.recall, word)

    def forget(self) -> None:
        """Begin another piece."""
        forget(self.recall)

    def twin(self) -> "Past":
        """Return another past, the same until now."""
        one = copy(self)
        one.recall = Recall(*map(copied_lists, self.recall))
        return one

    def candidates(self, scores: Array) -> list[tuple[int, float]]:
        """Return the candidates' codes and scores; the network's own score is 0.

        scores (K,): the gate's, but for what a run adds.
        """
        m, table = self.recall, self.copies.table
        return [
            (code, score + table[k][bucket_of(m, k)])
            for k, (code, score) in enumerate(zip(m.candidates, scores.tolist(), strict=True))
            if code != NONE
        ]


def copied_lists(values: list[Any]) -> list[Any]:
    """Return a copy of a list, and of the lists in it."""
    return [[*value] if isinstance(value, list) else value for value in values]


def copied(
    candidates: list[tuple[int, float]], u: float, options: Options
) -> tuple[int | None, float]:
    """Choose what to copy by a uniform number, or None for the network's own word.

    candidates: what and score, above the network's 0. Returns also a uniform number for what is
    still to choose. greedy takes what all its candidates together make likelier than the network.
    """
    if not candidates:
        return None, u
    if options.greedy:
        sums: dict[int, float] = {}
        for what, score in candidates:
            sums[what] = sums.get(what, 0.0) + math.exp(min(score, 700))
        best = max(sums, key=sums.__getitem__)
        return (best, u) if sums[best] > 1 else (None, u)
    top = max(0.0, *(score for _, score in candidates))
    own = math.exp(-top / options.temperature)
    weights = [math.exp((score - top) / options.temperature) for _, score in candidates]
    if own < (1 - options.top_p) * (own + sum(weights)):
        own = 0.0
    left = u * (own + sum(weights))
    if left < own:
        return None, min(left / own, MOST)
    left -= own
    for (what, _), weight in zip(candidates, weights, strict=True):
        if left < weight:
            return what, u
        left -= weight
    return candidates[-1][0], u


def ids_that(
    candidates: list[tuple[int, float]], ids: list[int], may: Callable[[int], bool]
) -> list[tuple[int, float]]:
    """Return candidates by id in place of their codes, those that are words and may come."""
    found = [(ids[code] if code < len(ids) else NONE, score) for code, score in candidates]
    return [(id, score) for id, score in found if id != NONE and may(id)]


class FramePast:
    """The past of a piece of frames, for a copy gate."""

    def __init__(self, copies: Copies) -> None:
        self.past = Past(copies)
        self.numbers: dict[bytes, int] = {}

    def take(self, frame: Frames) -> None:
        """Take the next frame (88,)."""
        says, *rest = frame_says(frame)
        self.past.take([self.numbers.setdefault(says, len(self.numbers)), *rest])

    def told(self) -> Array:
        """Return the frames that candidates tell, and their buckets, as a biaxial network reads."""
        m = self.past.recall
        says, K = list(self.numbers), len(m.candidates)
        row = np.zeros(K * (NOTES + 1), np.uint8)
        for k, code in enumerate(m.candidates):
            candidate = None if code == NONE else frame_of_code(says, code)
            if candidate is not None:
                row[k * NOTES : (k + 1) * NOTES] = candidate
                row[K * NOTES + k] = bucket_of(m, k) + 1
        return row

    def copy(self, scores: Array, u: float, options: Options, frame: Frames) -> None:
        """Overwrite a frame (88,) by one of the past, if the gate says so; scores (K,)."""
        says, found = list(self.numbers), []
        frames: dict[int, Frames] = {}
        for code, score in self.past.candidates(scores):
            candidate = frame_of_code(says, code)
            if candidate is not None:
                frames[code] = candidate
                found.append((code, score))
        chosen, _ = copied(found, u, options)
        if chosen is not None:
            frame[:] = frames[chosen]
