"""Sets of pieces judged together: what they are like, how near to real music, what they copy."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from lstm_music.evaluation.music.excerpts import Music
from lstm_music.evaluation.music.form import (
    PHRASE,
    ends_in_first_key,
    ends_on_tonic,
    length_in_bars,
    phrases_as_usual,
)
from lstm_music.evaluation.music.measures import features, numbers
from lstm_music.evaluation.music.memorisation import LONG, RECITED, SHORT, Copy, Index, Recall
from lstm_music.evaluation.music.nearness import COVERAGE, RESAMPLES, Interval, Nearness, compare
from lstm_music.evaluation.music.repetition import (
    LAGS,
    WHOLE_LAGS,
    by_lag,
    equal_to_earlier,
    numbered_bars,
    repetition,
    returns,
    similarity,
    times_in_a_row,
)
from lstm_music.midi.piece import BAR

Array = npt.NDArray[np.float64]

Described = TypeVar("Described")

FEWEST_NOTES = LONG  # of a sample that can be said to recite
OF_BARS = ("empty_bar_rate", "groove_consistency")  # of what describes a piece


class MusicSet(NamedTuple):
    """Pieces to judge.

    kind: "real", "run" or "baseline"; training: the index of what it may have copied, or None.
    pieces: all of one length; whole: others from beginning to end, or None.
    """

    name: str
    kind: str
    pieces: list[Music]
    training: Index | None
    whole: list[Music] | None = None


class Memory(NamedTuple):
    """What a set has copied: shares of grams in training, and its longest runs."""

    short: Interval
    long: Interval
    short_exact: float
    long_exact: float
    longest: float
    recalls: list[Recall]

    @property
    def worst(self) -> Recall:
        """The sample with the longest run."""
        return max(self.recalls, key=lambda recall: recall.transposed.notes)

    @property
    def recited(self) -> list[Recall]:
        """The samples that are at least half one copied run."""
        enough = [recall for recall in self.recalls if recall.notes >= FEWEST_NOTES]
        return [recall for recall in enough if recall.recited >= RECITED]


class Whole(NamedTuple):
    """What returns in whole pieces, and their form; lengths are in bars.

    equal: shares of bars that equal the one so many before; passages: lengths of all returns;
    longest, times: of each piece its longest return, and how often a passage follows itself.
    """

    equal: dict[int, Interval]
    returns: Interval  # a piece
    passages: Array
    longest: Array
    times: Array
    tonic: Interval
    key: Interval
    phrases: Interval  # the share of PHRASE bars
    bars: Array  # of each piece

    def loops(self, held_out: "Whole") -> int:
        """Return how many pieces play a passage more often in a row than any held-out one."""
        return int((self.times > held_out.times.max()).sum())


class Judgement(NamedTuple):
    """What is said of a set; nearness and mean overlap are to the reference."""

    name: str
    kind: str
    pieces: int
    silent: int
    numbers: dict[str, tuple[float, float]]  # mean and standard deviation
    nearness: dict[str, Nearness]
    overlap: Interval
    memory: Memory | None
    repetition: dict[int, Interval]
    similarity: list[Interval]  # by lag, from 1 bar
    bars: Array  # similarity of the bars of the piece nearest to the set's mean
    whole: Whole | None


def judge(
    reference: MusicSet, one: MusicSet, bars: int, seed: int = 0, has_bars: bool = True
) -> Judgement:
    """Judge a set of pieces of so many bars against a real one; itself it is not compared with.

    has_bars: whether music says where they are; else nothing is said of what counts them.
    """
    described = [kept(numbers(piece.notes), has_bars) for piece in one.pieces]
    table = {name: np.array([row[name] for row in described]) for name in described[0]}
    found: dict[str, Nearness] = {}
    overlap = Interval(math.nan, math.nan, math.nan)
    if one is not reference:  # to itself, distances of 0 would make it nearer than it can be
        real, other = (
            [kept(features(piece.notes), has_bars) for piece in some.pieces]
            for some in (reference, one)
        )
        found, overlap = compare(real, other, seed)
    matrices = [similarity(piece.notes, bars) for piece in one.pieces]
    curves = np.array([by_lag(matrix) for matrix in matrices])
    repeated = [repetition(matrix) for matrix in matrices]
    typical = int(np.argmin(np.square(curves - curves.mean(axis=0)).sum(axis=1)))
    return Judgement(
        one.name,
        one.kind,
        len(one.pieces),
        sum(not len(piece.notes) for piece in one.pieces),
        {name: (some_mean(column), some_mean(column, np.std)) for name, column in table.items()},
        found,
        overlap,
        memory_of(one, seed),
        {
            lag: mean_interval(np.array([row[lag] for row in repeated]), seed)
            for lag in (LAGS if has_bars else ())
        },
        [mean_interval(column, seed) for column in curves.T if has_bars],
        matrices[typical],
        whole_of(one.whole, seed) if one.whole and has_bars else None,
    )


def kept(found: dict[str, Described], has_bars: bool) -> dict[str, Described]:
    """Return what describes a piece but for what counts bars, where there are none."""
    return {name: value for name, value in found.items() if has_bars or name not in OF_BARS}


def whole_of(pieces: Sequence[Music], seed: int) -> Whole:
    """Return what returns in whole pieces, and their form."""
    bars = [numbered_bars(piece.notes) for piece in pieces]
    found = [returns(one) for one in bars]
    usual = [phrases_as_usual(piece.notes) for piece in pieces]
    sizes = np.array([len(some) for some in usual], np.float64)

    def mean_of(values: Iterable[float]) -> Interval:
        return mean_interval(np.array([*values], np.float64), seed)

    return Whole(
        {lag: mean_of(equal_to_earlier(one, lag) for one in bars) for lag in WHOLE_LAGS},
        mean_of(map(len, found)),
        np.array([length for some in found for length in some], np.float64),
        np.array([max(some, default=0) for some in found], np.float64),
        np.array([times_in_a_row(one) for one in bars], np.float64),
        mean_of(map(ends_on_tonic, pieces)),
        mean_of(map(ends_in_first_key, pieces)),
        mean_interval(np.array([some_mean(some) for some in usual]), seed, sizes),
        np.array([length_in_bars(piece.notes) for piece in pieces], np.float64),
    )


def memory_of(one: MusicSet, seed: int) -> Memory | None:
    """Return what a set has copied, None where there is nothing that it could have copied."""
    if one.training is None:
        return None
    recalls = one.training.recall(one.pieces)
    columns = {
        name: np.array([getattr(recall, name) for recall in recalls])
        for name in ("short", "long", "short_exact", "long_exact")
    }
    return Memory(
        mean_interval(columns["short"], seed),
        mean_interval(columns["long"], seed),
        some_mean(columns["short_exact"]),
        some_mean(columns["long_exact"]),
        float(np.mean([recall.transposed.notes for recall in recalls])),
        recalls,
    )


def recites(own: Memory, held_out: Memory) -> bool:
    """Return whether a set copies more than real music that wasn't trained on does by itself.

    That is where the interval of its share of 12-note runs found in training lies wholly above the
    held-out pieces' own, or where a sample is half one copied run and no held-out piece is.
    """
    more = own.long.low > held_out.long.high
    return bool(more or (own.recited and not held_out.recited))


def mean_interval(values: Array, seed: int, weights: Array | None = None) -> Interval:
    """Return the mean of values (n,) that are known, and its bootstrap interval over pieces.

    weights (n,): how often each counts, at least something; None for once.
    """
    known = ~np.isnan(values)
    values, weights = values[known], weights if weights is None else weights[known]
    if not len(values):
        return Interval(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(values), size=(RESAMPLES * 5, len(values)))
    share = weights if weights is None else weights[drawn]
    means = np.average(values[drawn], axis=1, weights=share)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(np.average(values, weights=weights)), float(low), float(high))


def some_mean(values: Array, of: Any = np.mean) -> float:
    """Return the mean, or another number, of the values that are known; NaN of none."""
    known = values[~np.isnan(values)]
    return float(of(known)) if len(known) else math.nan


# JSON and words ---------------------------------------------------------------------------------


def as_json(one: Judgement, reference: Judgement) -> dict[str, Any]:
    """Return a judgement as an object for JSON; what isn't known is null."""
    memory, held_out = one.memory, reference.memory
    made = {
        "name": one.name,
        "kind": one.kind,
        "pieces": one.pieces,
        "silent": one.silent,
        "numbers": {k: {"mean": m, "sd": s} for k, (m, s) in one.numbers.items()},
        "overlap": one.overlap._asdict(),
        "features": {
            k: {"overlap": n.overlap._asdict(), "divergence": n.divergence._asdict()}
            for k, n in one.nearness.items()
        },
        "repetition": {str(lag): share._asdict() for lag, share in one.repetition.items()},
        "similarity_by_lag": [x._asdict() for x in one.similarity],
        "memorisation": memory and {
            f"share_{SHORT}": memory.short._asdict(),
            f"share_{LONG}": memory.long._asdict(),
            f"share_{SHORT}_exact": memory.short_exact,
            f"share_{LONG}_exact": memory.long_exact,
            "longest_mean": memory.longest,
            "recites": recites(memory, held_out) if held_out and one.kind == "run" else None,
            "samples": [
                recall._asdict() | {
                    "exact": recall.exact._asdict(),
                    "transposed": recall.transposed._asdict(),
                    "recited": recall.recited,
                }
                for recall in memory.recalls
            ],
        },
        "whole": one.whole and whole_json(one.whole, reference.whole),
    }  # fmt: skip
    cleaned: dict[str, Any] = without_nan(made)
    return cleaned


def whole_json(whole: Whole, held_out: Whole | None) -> dict[str, Any]:
    """Return what is known of whole pieces as an object for JSON."""
    return {
        "pieces": len(whole.bars),
        "equal_bars": {str(lag): share._asdict() for lag, share in whole.equal.items()},
        "returns": whole.returns._asdict(),
        "longest_return": {"mean": whole.longest.mean(), "most": whole.longest.max()},
        "passage_bars": {
            "median": some_mean(whole.passages, np.median), "p90": percentile_90(whole.passages),
        },
        "times_in_a_row": {"mean": whole.times.mean(), "most": whole.times.max()},
        "looping": whole.loops(held_out) if held_out else None,
        "ends_on_tonic": whole.tonic._asdict(),
        "ends_in_first_key": whole.key._asdict(),
        "phrases_of_{}_to_{}_bars".format(*PHRASE): whole.phrases._asdict(),
        "bars": {"median": np.median(whole.bars), "longest": whole.bars.max()},
    }  # fmt: skip


def percentile_90(lengths: Array) -> float:
    """Return the length that 90 % don't exceed, NaN of none."""
    return some_mean(lengths, lambda known: np.quantile(known, 0.9))


def without_nan(value: Any) -> Any:
    """Return JSON in which NaN, which JSON has no word for, is null."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def in_words(judged: Sequence[Judgement], reference: Judgement) -> list[str]:
    """Return what the figures say: who is nearest to real music, in what, and who copies."""
    lines = []
    real = [one for one in judged if one.kind == "real" and one.name != reference.name]
    if real:
        best = max(real, key=lambda one: one.overlap.value)
        lines.append(
            f"Real against real: {best.name} overlaps {reference.name} by "
            f"{best.overlap.value:.2f}, the most that can be asked of a model."
        )
    others = [one for one in judged if one.kind != "real" and not math.isnan(one.overlap.value)]
    ranked = sorted(others, key=lambda one: -one.overlap.value)
    if ranked:
        order = ", ".join(f"{one.name} {one.overlap.value:.2f}" for one in ranked)
        lines.append(f"Nearest to {reference.name} first: {order}.")
    for one in ranked:
        if one.kind == "run":
            lines += words_of(one, reference)
    return lines


def words_of(one: Judgement, reference: Judgement) -> list[str]:
    """Return what is to be said of a run."""
    by_overlap = sorted(one.nearness, key=lambda name: -one.nearness[name].overlap.value)
    near, far = by_overlap[:2], by_overlap[-2:]
    lines = [
        f"{one.name} is like real music in {' and '.join(map(plain, near))}, least in "
        f"{' and '.join(map(plain, reversed(far)))}{with_means(far, one, reference)}."
    ]
    if one.memory and reference.memory:
        has_bars = bool(reference.repetition)
        lines.append(memory_words(one.name, one.memory, reference.memory, has_bars))
    if one.whole and reference.whole:
        lines.append(whole_words(one.name, one.whole, reference.whole))
    return lines


def with_means(names: Sequence[str], one: Judgement, reference: Judgement) -> str:
    """Return the means that tell how two sets differ in features that are numbers."""
    told = [
        f"{plain(n)} {one.numbers[n][0]:.3g}, real {reference.numbers[n][0]:.3g}"
        for n in names
        if n in one.numbers
    ]
    return f" ({'; '.join(told)})" if told else ""


def memory_words(name: str, own: Memory, held_out: Memory, has_bars: bool = True) -> str:
    """Return what a run has copied, in words."""
    worst = own.worst
    compared = (
        f"{own.long.value:.1%} of its runs of {LONG} notes are in its training set, of held-out "
        f"pieces {held_out.long.value:.1%}"
    )
    longest = f"its longest copy is {described(worst.transposed, has_bars)}"
    if recites(own, held_out):
        return f"{name} RECITES: {compared}; {longest}."
    return f"{name} does not recite: {compared}; {longest}."


def whole_words(name: str, own: Whole, held_out: Whole) -> str:
    """Return how a run's whole pieces return and end, in words."""
    looping = own.loops(held_out)
    loops = f"{looping} of {len(own.times)} LOOP" if looping else "none loops"
    return (
        f"Whole pieces of {name} return {own.returns.value:.2f} times, held-out ones "
        f"{held_out.returns.value:.2f} times; {loops}; {own.tonic.value:.0%} end on the tonic, "
        f"held-out ones {held_out.tonic.value:.0%}."
    )


def described(copy: Copy, has_bars: bool = True) -> str:
    """Return a copy in words; without bars, their ticks are milliseconds."""
    if not copy.notes:
        return "of no note"
    shift = f", {copy.semitones:+d} semitones" if copy.semitones else ""
    bars, seconds = "bars " * has_bars, BAR / 1000
    there, here = (
        f"{first}-{last}" if has_bars else f"{(first - 1) * seconds:.0f} to {last * seconds:.0f} s"
        for first, last in (copy.there, copy.here)
    )
    return f"{copy.notes} notes of '{copy.piece}' ({bars}{there}; in the sample {here}{shift})"


def plain(name: str) -> str:
    """Return a feature's name in words."""
    return name.replace("_", " ")
