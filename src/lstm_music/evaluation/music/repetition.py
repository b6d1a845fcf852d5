"""How a piece comes back to itself: bars compared with bars.

Foote, "Visualizing music and audio using self-similarity", ACM Multimedia 1999. Of two bars, the
similarity is the share of struck notes that they have in common (Jaccard's: common over all), a
note being a pitch and one of 16 places in a bar; of rhythm alone, the places. Two empty bars are
alike.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from lstm_music.midi.piece import BAR, Notes
from lstm_music.tokenizers.messages import PITCHES

Array = npt.NDArray[np.float64]

PLACES = 16  # of a bar: sixteenths
LAGS = (1, 2, 4, 8)  # bars
ALIKE = 0.5  # similarity from which on a bar repeats another


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
