"""What ratings say: which systems differ, by how much, and how many raters that takes.

Raters are compared with themselves: a rater's score of a system is the mean of what they gave its
clips, the first time that they heard each. The tests are SciPy's; of several pairs the p-values
are corrected by Holm's method (Scandinavian Journal of Statistics 6, 1979).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from lstm_music.listening.study import HIGHEST, LOWEST, Study

Array = npt.NDArray[np.float64]

ALPHA, POWER = 0.05, 0.8
RESAMPLES, COVERAGE = 5000, 0.95
CARELESS = 3  # points by which a repeated clip's scores may differ, on average
NOISE = 2  # a human control rated so low, on average, or lower, was not listened to
FEWEST_EQUAL = 4  # clips that all have one score, from which on that is careless
EFFICIENCY = 3 / math.pi  # of Wilcoxon's test beside the t test's, of normal differences
MOST_RATERS = 1_000_000


class Rater(NamedTuple):
    """A rater's scores: by system, all in order; repeats: the pairs of one clip; control or None.

    complete: whether every clip was rated; comment: what they said.
    """

    number: int
    systems: dict[str, float]
    scores: list[int]
    repeats: list[tuple[int, int]]
    control: float | None
    complete: bool
    comment: str


class System(NamedTuple):
    """What raters think of a system: over raters, mean, sd, bootstrap interval; votes of clips."""

    name: str
    control: bool
    raters: int
    mean: float
    sd: float
    low: float
    high: float
    votes: list[int]  # of 1, 2, … 10


class Pair(NamedTuple):
    """How two systems differ.

    difference: of the means, with its bootstrap interval; p: Wilcoxon's, and holm: corrected;
    rank_biserial: the share of rank sums in favour of the first less that against, -1 to 1; dz:
    the mean difference over its standard deviation; needed: raters for a power of 80 %, None where
    no number is enough.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    holm: float
    rank_biserial: float
    dz: float
    needed: int | None


class Friedman(NamedTuple):
    """Friedman's test of all systems: statistic, p, and Kendall's W, the agreement from 0 to 1."""

    statistic: float
    p: float
    agreement: float


class Results(NamedTuple):
    """All that is known: kept and excluded raters with the reason, systems, pairs, the test."""

    kept: list[Rater]
    excluded: list[tuple[Rater, str]]
    systems: list[System]
    pairs: list[Pair]
    friedman: Friedman | None


def analyse(study: Study, keep_all: bool = False, seed: int = 0) -> Results:
    """Return what a study's ratings say; keep_all: no complete rater is excluded."""
    kept, excluded = [], []
    for rater in raters_of(study):
        reason = reason_to_exclude(rater)
        if reason and not (keep_all and rater.complete):
            excluded.append((rater, reason))
        else:
            kept.append(rater)
    controls = {clip.system: clip.control for clip in study.clips}
    names = list(dict.fromkeys(clip.system for clip in study.clips))
    table = {name: np.array([rater.systems[name] for rater in kept]) for name in names}
    votes = votes_of(study, {rater.number for rater in kept})
    systems = [system_of(n, controls[n], table[n], votes[n], seed) for n in names]
    return Results(kept, excluded, systems, pairs_of(table, seed), friedman(table))


def raters_of(study: Study) -> list[Rater]:
    """Return every rater who has rated anything."""
    system = {clip.id: clip for clip in study.clips}
    by_rater: dict[int, list[tuple[int, str, int, float, float]]] = {}
    for rater, *rating in study.all_ratings():
        by_rater.setdefault(rater, []).append(tuple(rating))  # type: ignore[arg-type]
    made = []
    for number, _, comment in study.all_raters():
        ratings = by_rater.get(number, [])
        if not ratings:
            continue
        first: dict[str, int] = {}
        repeats = []
        for _, clip, score, _, _ in ratings:
            if clip in first:
                repeats.append((first[clip], score))
            else:
                first[clip] = score
        groups: dict[str, list[int]] = {}
        for clip, score in first.items():
            groups.setdefault(system[clip].system, []).append(score)
        controls = [score for clip, score in first.items() if system[clip].control]
        made.append(
            Rater(
                number,
                {name: float(np.mean(scores)) for name, scores in groups.items()},
                [score for _, _, score, _, _ in ratings],
                repeats,
                float(np.mean(controls)) if controls else None,
                len(ratings) == study.places,
                comment,
            )
        )
    return made


def reason_to_exclude(rater: Rater) -> str:
    """Return why a rater doesn't count, by the stated rules; "" where they do."""
    if not rater.complete:
        return "did not rate all clips"
    if len(rater.scores) >= FEWEST_EQUAL and len(set(rater.scores)) == 1:
        return "gave every clip the same score"
    if rater.repeats:
        apart = float(np.mean([abs(one - other) for one, other in rater.repeats]))
        if apart > CARELESS:
            return f"rated the same clip {apart:g} points apart"
    if rater.control is not None and rater.control <= NOISE:
        return f"rated the human control {rater.control:g}"
    return ""


def votes_of(study: Study, kept: set[int]) -> dict[str, list[int]]:
    """Return how often each score from 1 to 10 was given, by system; no repeats."""
    system = {clip.id: clip.system for clip in study.clips}
    votes = {name: [0] * HIGHEST for name in system.values()}
    seen = set()
    for rater, _, clip, score, _, _ in study.all_ratings():
        if rater in kept and (rater, clip) not in seen:
            seen.add((rater, clip))
            votes[system[clip]][score - LOWEST] += 1
    return votes


def system_of(name: str, control: bool, scores: Array, votes: list[int], seed: int) -> System:
    """Return what raters' scores (n,) say of a system."""
    low, high = mean_interval(scores, seed)
    mean = float(scores.mean()) if len(scores) else math.nan
    sd = float(scores.std(ddof=1)) if len(scores) > 1 else math.nan
    return System(name, control, len(scores), mean, sd, low, high, votes)


def mean_interval(values: Array, seed: int) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of values (n,), by percentiles."""
    if len(values) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


# Tests ------------------------------------------------------------------------------------------


def friedman(table: Mapping[str, Array]) -> Friedman | None:
    """Return Friedman's test, None of fewer than three systems or two raters."""
    scores = np.array(list(table.values()))
    if len(scores) < 3 or scores.shape[1] < 2:
        return None
    if (scores == scores[0]).all():  # all ranks are tied, and the statistic is 0/0
        return Friedman(0.0, 1.0, 0.0)
    statistic, p = stats.friedmanchisquare(*scores)
    systems, raters = scores.shape
    return Friedman(float(statistic), float(p), float(statistic / (raters * (systems - 1))))


def pairs_of(table: Mapping[str, Array], seed: int = 0) -> list[Pair]:
    """Return how each two systems differ; none where there are fewer than two raters."""
    names = list(table)
    both = [(a, b) for n, a in enumerate(names) for b in names[n + 1 :]]
    if not both or len(table[names[0]]) < 2:
        return []
    differences = [table[a] - table[b] for a, b in both]
    raw = [wilcoxon(d) for d in differences]
    made = []
    for (a, b), d, p, corrected in zip(both, differences, raw, holm(raw), strict=True):
        low, high = mean_interval(d, seed)
        dz = effect_of(float(d.mean()), float(d.std(ddof=1)))
        biserial = rank_biserial(d)
        row = (a, b, float(d.mean()), low, high, p, corrected, biserial, dz, raters_needed(dz))
        made.append(Pair(*row))
    return made


def wilcoxon(differences: Array) -> float:
    """Return the p-value of Wilcoxon's signed-rank test, 1 where nothing differs."""
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several, in their order."""
    order = np.argsort(p)
    steps = np.array(p)[order] * np.arange(len(p), 0, -1)
    made = np.empty(len(p))
    made[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(x) for x in made]


def rank_biserial(differences: Array) -> float:
    """Return the matched-pairs rank-biserial correlation (Kerby 2014), 0 where nothing differs."""
    some = differences[differences != 0]
    ranks = stats.rankdata(np.abs(some))
    return float((ranks * np.sign(some)).sum() / ranks.sum()) if len(some) else 0.0


def effect_of(mean: float, sd: float) -> float:
    """Return Cohen's d of paired differences; infinite where they are all the same but 0."""
    if sd == 0:
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / sd


# Power ------------------------------------------------------------------------------------------


def power_of(dz: float, raters: int, alpha: float = ALPHA) -> float:
    """Return the power of a two-sided Wilcoxon test of normal differences.

    That is the paired t test's (the noncentral t distribution) with as many raters as Wilcoxon's
    test is efficient: 3/π of them.
    """
    if math.isinf(dz):
        return 1.0
    n = raters * EFFICIENCY
    if n <= 1:
        return 0.0
    freedom, shift = n - 1, abs(dz) * math.sqrt(n)
    edge = stats.t.ppf(1 - alpha / 2, freedom)
    upper = stats.nct.sf(edge, freedom, shift)
    lower = stats.nct.cdf(-edge, freedom, shift)
    found = float(np.nan_to_num(upper, nan=1.0) + np.nan_to_num(lower, nan=0.0))
    return min(max(found, 0.0), 1.0)


def raters_needed(dz: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """Return how many raters tell two systems apart with that power, None where none are enough."""
    if dz == 0 or power_of(dz, MOST_RATERS, alpha) < power:
        return None
    if power_of(dz, 3, alpha) >= power:
        return 3
    found = optimize.brentq(lambda n: power_of(dz, n, alpha) - power, 3, MOST_RATERS, xtol=1e-3)
    return math.ceil(float(found) - 1e-3)


def paired_effect(
    first: tuple[float, float], second: tuple[float, float], correlation: float = 0.0
) -> float:
    """Return dz from two systems' mean and sd, and the correlation of a rater's two scores."""
    variance = first[1] ** 2 + second[1] ** 2 - 2 * correlation * first[1] * second[1]
    return effect_of(first[0] - second[0], math.sqrt(variance))
