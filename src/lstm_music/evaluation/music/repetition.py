"""How a piece comes back to itself: bars compared with bars.

Foote, "Visualizing music and audio using self-similarity", ACM Multimedia 1999. Of two bars, the
similarity is the share of struck notes that they have in common (Jaccard's: common over all), a
note being a pitch and one of 16 places in a bar; of rhythm alone, the places. Two empty bars are
alike.

Returns are told more strictly. Two bars are equal where the same notes begin in them: same pitch,
same tick of the bar, same length; a bar in which no note begins equals none. Bars go by their
numbers, and equal ones have the same.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from lstm_music.midi.piece import BAR, Notes
from lstm_music.tokenizers.messages import PITCHES

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

PLACES = 16  # of a bar: sixteenths
LAGS = (1, 2, 4, 8)  # bars
ALIKE = 0.5  # similarity from which on a bar repeats another
WHOLE_LAGS = (*LAGS, 16)  # of whole pieces
EMPTY = -1  # the number of a bar in which no note begins


def similarity(notes: Notes, bars: int | None = None, rhythm: bool = False) -> Array:
    """Return how alike each two bars of a piece are (bars, bars), 0 to 1, 1 on the diagonal.

    bars: so many from the start; None for those in which a note begins or before it. rhythm:
    without pitch.
    """
    step = BAR // PLACES
    places = np.rint(notes[:, 0] / step).astype(np.int64)
    bar, place = places // PLACES, places % PLACES
    if bars is None:
        bars = int(bar.max(initial=-1)) + 1
    what = place if rhythm else place * PITCHES + notes[:, 2]
    inside = bar < bars
    keys = np.unique(bar[inside] * PLACES * PITCHES + what[inside])
    rows, columns = np.divmod(keys, PLACES * PITCHES)
    ones = np.ones(len(keys))
    struck = csr_matrix((ones, (rows, columns)), shape=(bars, PLACES * PITCHES))
    common = (struck @ struck.T).toarray()
    sizes = np.diag(common)
    union = sizes[:, None] + sizes[None, :] - common
    alike: Array = np.where(union > 0, common / np.maximum(union, 1), 1.0)
    return alike


def by_lag(matrix: Array, most: int | None = None) -> Array:
    """Return the mean similarity of bars 1, 2, … most bars apart, (most,); NaN beyond the piece."""
    bars = len(matrix)
    most = bars - 1 if most is None else most
    lags = range(1, most + 1)
    return np.array([np.diag(matrix, lag).mean() if lag < bars else np.nan for lag in lags])


def repetition(matrix: Array, lags: Sequence[int] = LAGS) -> dict[int, float]:
    """Return by lag the share of bars that repeat the one so many bars before, NaN of none."""
    shares = {}
    for lag in lags:
        pairs = np.diag(matrix, lag) if lag < len(matrix) else np.zeros(0)
        shares[lag] = float(np.mean(pairs >= ALIKE)) if len(pairs) else float("nan")
    return shares


# Returns ----------------------------------------------------------------------------------------


def numbered_bars(notes: Notes) -> Numbers:
    """Return a number for each bar up to the last in which a note begins (bars,), EMPTY of none."""
    bar = notes[:, 0] // BAR
    rows = np.stack([notes[:, 0] % BAR, notes[:, 1] - notes[:, 0], notes[:, 2]], axis=1)
    places = np.searchsorted(bar, np.arange(int(bar.max(initial=-1)) + 2))
    known = {b"": EMPTY}
    numbers = [
        known.setdefault(np.unique(rows[first:after], axis=0).tobytes(), len(known))
        for first, after in pairwise(places.tolist())
    ]
    return np.array(numbers, np.int64)


def equal_to_earlier(bars: Numbers, lag: int) -> float:
    """Return the share of bars that equal the one lag bars before; empty ones don't count."""
    here = bars[lag:]
    counted = here != EMPTY
    return float(np.mean((here == bars[:-lag])[counted])) if counted.any() else float("nan")


def returns(bars: Numbers) -> list[int]:
    """Return the lengths in bars of the passages that have been before, in their order.

    A piece is read from its beginning: where bars equal ones that were played to their end before,
    the longest such passage is one return, and reading goes on after it. So in A A A A the second
    bar is a return, and the third and fourth together are one.
    """
    most = longest_matches(bars)
    made, at = [], 0
    while at < len(bars):
        if most[at]:
            made.append(int(most[at]))
        at += max(int(most[at]), 1)
    return made


def longest_matches(bars: Numbers) -> Numbers:
    """Return how many bars from each one on equal as many that were over by then (bars,)."""
    n = len(bars)
    most, after = np.zeros(n, np.int64), np.zeros(n + 1, np.int64)
    for at in range(n - 1, -1, -1):
        equal = (bars == bars[at]) & (bars[at] != EMPTY)
        after[:n] = np.where(equal, after[1:] + 1, 0)  # bars from here and from each on, in common
        most[at] = np.minimum(after[:at], at - np.arange(at)).max(initial=0)
    return most


def times_in_a_row(bars: Numbers) -> int:
    """Return how often the passage of any length that does so most is played without a break.

    1 of a piece in which nothing follows itself at once, 2 of A B A B.
    """
    most = 1
    for period in range(1, len(bars) // 2 + 1):
        same = (bars[period:] == bars[:-period]) & (bars[period:] != EMPTY)
        breaks = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
        most = max(most, 1 + (int(np.diff(breaks).max()) - 1) // period)
    return most
