"""How near a set of pieces is to another, feature by feature, as MGEval measures it.

Yang & Lerch, "On the evaluation of generative models in music", Neural Computing and Applications
32 (2020): the distances between the pieces of a set (intra) against those from it to another set
(inter). Both are smoothed to densities (Gaussian kernel, Scott's width); near sets have densities
that overlap, so that the overlapped area is near 1 and the Kullback-Leibler divergence near 0.
MGEval's code takes the two densities of a divergence on different grids; here they share one, and
a kernel that reaches below 0, where no distance can lie, is reflected.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.fft import dct, idct
from scipy.spatial.distance import cdist

Array = npt.NDArray[np.float64]

BINS = 512
LEAST = 1e-6  # of a bin's probability in a divergence: an empty bin would make it infinite
RESAMPLES, COVERAGE = 200, 0.95


class Interval(NamedTuple):
    """An estimate and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


class Nearness(NamedTuple):
    """Of a set to the reference, in a feature: overlapped area, and divergence in nats."""

    overlap: Interval
    divergence: Interval


def compare(
    real: Sequence[Mapping[str, Array]],
    other: Sequence[Mapping[str, Array]],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[dict[str, Nearness], Interval]:
    """Return how near a set of pieces is to a real one by feature, and their mean overlap.

    Each piece is what `music_metrics.features` gives. Where a piece has no such feature, it is
    left out of that feature; where fewer than two pieces are left of a set, all is NaN. The
    bootstrap draws pieces of both sets, the same ones for each feature.
    """
    rng = np.random.default_rng(seed)
    ours, theirs = (
        np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), resamples)]).astype(np.float64)
        for n in (len(real), len(other))
    )
    found = {}
    overlaps = []
    for name in real[0]:
        values = nearness(stacked(real, name), stacked(other, name), ours, theirs)
        found[name] = Nearness(*(interval_of(column) for column in values.T))
        overlaps.append(values[:, 0])
    means = np.mean(overlaps, axis=0)
    return found, interval_of(means)


def stacked(pieces: Sequence[Mapping[str, Array]], name: str) -> Array:
    """Return a feature of all pieces (n, size)."""
    return np.array([piece[name] for piece in pieces])


def interval_of(values: Array) -> Interval:
    """Return the first of values (1 + resamples,), and the interval of the others."""
    if np.isnan(values[0]):
        return Interval(math.nan, math.nan, math.nan)
    tail = (1 - COVERAGE) / 2
    low, high = np.nanquantile(values[1:], [tail, 1 - tail]) if len(values) > 1 else values[[0, 0]]
    return Interval(float(values[0]), float(low), float(high))


def nearness(real: Array, other: Array, ours: Array, theirs: Array) -> Array:
    """Return overlapped area and divergence (R, 2), for R weightings of the pieces.

    real (n, size), other (m, size): a feature; ours (R, n), theirs (R, m): how often each piece
    counts.
    """
    known = [~np.isnan(some).any(axis=1) for some in (real, other)]
    real, other = real[known[0]], other[known[1]]
    ours, theirs = ours[:, known[0]], theirs[:, known[1]]
    if min(len(real), len(other)) < 2:
        return np.full((len(ours), 2), math.nan)
    one, two = np.triu_indices(len(real), 1)  # a piece drawn twice is at no distance from itself
    intra, inter = cdist(real, real)[one, two], cdist(real, other).ravel()
    most = max(intra.max(), inter.max())
    if most == 0:
        return np.tile([1.0, 0.0], (len(ours), 1))
    intra_of = (w[one] * w[two] for w in ours)
    inter_of = (np.outer(w, v).ravel() for w, v in zip(ours, theirs, strict=True))
    p, q = densities(intra, intra_of, most), densities(inter, inter_of, most)
    return np.stack([overlap(p, q), divergence(p, q)], axis=1)


def densities(distances: Array, weightings: Iterable[Array], most: float) -> Array:
    """Return smoothed densities of distances (n,) on BINS bins of 0 to most, each of sum 1.

    weightings: R of (n,), each for a row (R, BINS). A Gaussian kernel that is reflected at both
    ends multiplies the cosine transform.
    """
    places = np.minimum((distances / most * BINS).astype(np.int64), BINS - 1)
    counts, widths = [], []
    for weights in weightings:
        total = weights.sum()
        centre = weights @ distances / total if total else math.nan  # then the row is NaN
        spread = math.sqrt(weights @ (distances - centre) ** 2 / total) if total else math.nan
        scott = (total**2 / (weights @ weights)) ** -0.2 if total else math.nan
        widths.append(max(spread * scott / most * BINS, 1.0) if total else math.nan)
        counts.append(np.bincount(places, weights, BINS) / (total or 1.0))
    waves = math.pi * np.arange(BINS) / BINS
    kernels = np.exp(-0.5 * np.square(np.array(widths)[:, None] * waves))
    smoothed: Array = idct(dct(np.array(counts), norm="ortho") * kernels, norm="ortho")
    return np.maximum(smoothed, 0.0)


def overlap(p: Array, q: Array) -> Array:
    """Return the area below both of two densities, (R,) of (R, BINS)."""
    shared: Array = np.minimum(p, q).sum(axis=1)
    return shared


def divergence(p: Array, q: Array) -> Array:
    """Return the Kullback-Leibler divergence of q from p in nats, (R,) of (R, BINS)."""
    p, q = np.maximum(p, LEAST), np.maximum(q, LEAST)
    p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
    nats: Array = (p * np.log(p / q)).sum(axis=1)
    return nats
