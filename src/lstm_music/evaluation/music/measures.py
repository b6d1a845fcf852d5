"""What a piece is like in numbers and histograms, by the definitions of muspy where it has them.

Dong, Chen, McAuley & Berg-Kirkpatrick, "MusPy: a toolkit for symbolic music generation", ISMIR
2020. Notes are (n, 3) int32, start and end in ticks at 480 per quarter note, and pitch, sorted by
start, then pitch; a bar is one of 4/4. What isn't defined, as of a piece without a note, is NaN.
"""

import math

import numpy as np
import numpy.typing as npt

from lstm_music.midi.piece import BAR, TICKS_PER_QUARTER, Notes

Array = npt.NDArray[np.float64]
Times = npt.NDArray[np.int32]

GROOVE_STEP = BAR // 64  # ticks: Wu & Yang (2020) tell 64 places of a bar apart
SCALES = np.array(  # major and minor, from C
    [[1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1], [1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1, 0]], np.float64
)
SHORTEST, HALF_OCTAVES = TICKS_PER_QUARTER / 16, 19  # the bins of times: up to 8 bars
WIDEST = 12  # semitones: wider intervals count as so wide


# muspy's ----------------------------------------------------------------------------------------


def pitch_range(notes: Notes) -> float:
    """Return the semitones from the lowest to the highest pitch, 0 without a note."""
    return float(np.ptp(notes[:, 2])) if len(notes) else 0.0


def pitch_class_entropy(notes: Notes) -> float:
    """Return the entropy in bits of the notes' pitch classes, 0 to log2(12) = 3.58."""
    return entropy(pitch_classes(notes))


def scale_consistency(notes: Notes) -> float:
    """Return the share of notes in the major or natural minor scale that holds the most."""
    shares = pitch_classes(notes)
    keys = np.array([np.roll(shares, -root) for root in range(12)])
    return float((keys @ SCALES.T).max())


def polyphony(notes: Notes) -> float:
    """Return the mean number of pitches that sound, over the time in which any does."""
    widths, sounding = sounding_pitches(notes)
    time = widths[sounding > 0].sum()
    return float((widths * sounding).sum() / time) if time else math.nan


def polyphony_rate(notes: Notes, threshold: int = 2) -> float:
    """Return the share of the time to the last note's end in which more than threshold sound."""
    widths, sounding = sounding_pitches(notes)
    length = end_of(notes)
    return float(widths[sounding > threshold].sum() / length) if length else math.nan


def empty_bar_rate(notes: Notes, bar: int = BAR) -> float:
    """Return the share of bars, up to the one in which the last note ends, without a note.

    As in muspy, a note that ends at a bar line also fills the bar that begins there.
    """
    length = end_of(notes)
    if not length:
        return math.nan
    first, last = notes[:, 0] // bar, notes[:, 1] // bar
    bars = length // bar + 1
    changes = np.bincount(first, minlength=bars + 1) - np.bincount(last + 1, minlength=bars + 1)
    return float(np.mean(np.cumsum(changes)[:bars] == 0))


def groove_consistency(notes: Notes, bar: int = BAR, step: int = 1) -> float:
    """Return 1 less the mean share of places that differ, in being struck, from bar to bar.

    step: ticks a place, to the nearest of which notes count. NaN with fewer than two bars.
    """
    begins = np.rint(notes[:, 0] / step).astype(np.int64)
    places = bar // step
    bars = int(np.rint(end_of(notes) / step)) // places + 1
    if bars < 2:
        return math.nan
    struck = np.unique(begins)
    # A place differs between two bars where it is struck in just one of them.
    both = np.isin(struck + places, struck, assume_unique=True).sum()
    inside = struck < (bars - 1) * places  # has a bar after it
    after = struck >= places  # has a bar before it
    differing = inside.sum() + after.sum() - 2 * both
    return float(1 - differing / (places * (bars - 1)))


def end_of(notes: Notes) -> int:
    """Return the last note's end in ticks, 0 without a note."""
    return int(notes[:, 1].max(initial=0))


def sounding_pitches(notes: Notes) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return spans of time in ticks (m,), and how many different pitches sound in each (m,)."""
    begins, ends = spans_by_pitch(notes)
    times, places = np.unique(np.concatenate([begins, ends]), return_inverse=True)
    changes = np.bincount(places[: len(begins)], minlength=len(times)) - np.bincount(
        places[len(begins) :], minlength=len(times)
    )
    return np.diff(times).astype(np.float64), np.cumsum(changes)[:-1]


def spans_by_pitch(notes: Notes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return when a pitch begins and ends to sound, notes that overlap on a pitch taken as one."""
    notes = notes[notes[:, 0] < notes[:, 1]]
    by_pitch = notes[np.lexsort((notes[:, 0], notes[:, 2]))].astype(np.int64)
    offset = by_pitch[:, 2] << 32  # keeps one pitch's times off the next
    begins, ends = by_pitch[:, 0] + offset, by_pitch[:, 1] + offset
    latest = np.maximum.accumulate(ends) if len(ends) else ends
    first = np.ones(len(begins), np.bool_)
    first[1:] = begins[1:] > latest[:-1]
    last = np.append(first[1:], True)[: len(begins)]
    return (begins - offset)[first], (latest - offset)[last]


def entropy(shares: Array) -> float:
    """Return the entropy in bits of shares (n,), NaN where they are."""
    if np.isnan(shares).any():
        return math.nan
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum())


# Histograms -------------------------------------------------------------------------------------


def shares_of(counts: npt.NDArray[np.int64]) -> Array:
    """Return counts (n,) as shares, NaN where there is nothing."""
    total = counts.sum()
    return counts / total if total else np.full(counts.shape, math.nan)


def pitch_classes(notes: Notes) -> Array:
    """Return the share of each pitch class, (12,) from C."""
    return shares_of(np.bincount(notes[:, 2] % 12, minlength=12))


def top_line(notes: Notes) -> Notes:
    """Return the highest note of each onset: what is heard as the melody."""
    last = np.append(notes[1:, 0] != notes[:-1, 0], True)[: len(notes)]  # sorted by pitch within
    line: Notes = notes[last]
    return line


def intervals(notes: Notes) -> Array:
    """Return the share of each step of the top line, (25,): 12 semitones down or more, to 12 up."""
    steps = np.diff(top_line(notes)[:, 2])
    return shares_of(np.bincount(np.clip(steps, -WIDEST, WIDEST) + WIDEST, minlength=25))


def pitch_class_transitions(notes: Notes) -> Array:
    """Return the share of each pair of successive pitch classes of the top line, (144,)."""
    classes = top_line(notes)[:, 2] % 12
    return shares_of(np.bincount(classes[:-1] * 12 + classes[1:], minlength=144))


def note_lengths(notes: Notes) -> Array:
    """Return the share of each length of a note, (19,), as `times_in_bins` has them."""
    return times_in_bins(notes[:, 1] - notes[:, 0])


def onset_gaps(notes: Notes) -> Array:
    """Return the share of each time from an onset to the next other one (19,)."""
    return times_in_bins(gaps_of(notes))


def gaps_of(notes: Notes) -> Times:
    """Return the times in ticks from each onset to the next other one."""
    onsets = np.unique(notes[:, 0])
    return onsets[1:] - onsets[:-1]


def times_in_bins(ticks: Times) -> Array:
    """Return shares of times in bins of half an octave: 1/64 note or less, … up to 8 bars."""
    octaves = np.log2(np.maximum(ticks, 1) / SHORTEST)
    bins = np.clip(np.rint(2 * octaves), 0, HALF_OCTAVES - 1).astype(np.int64)
    return shares_of(np.bincount(bins, minlength=HALF_OCTAVES))


# All of them ------------------------------------------------------------------------------------


def numbers(notes: Notes) -> dict[str, float]:
    """Return the numbers that describe a piece, by name; times are in quarter notes."""
    lengths = notes[:, 1] - notes[:, 0]
    leaps = np.abs(np.diff(top_line(notes)[:, 2]))
    return {
        "pitch_range": pitch_range(notes) if len(notes) else math.nan,
        "pitch_class_entropy": pitch_class_entropy(notes),
        "scale_consistency": scale_consistency(notes),
        "polyphony": polyphony(notes),
        "polyphony_rate": polyphony_rate(notes),
        "empty_bar_rate": empty_bar_rate(notes),
        "groove_consistency": groove_consistency(notes, step=GROOVE_STEP),
        "note_length": mean(lengths) / TICKS_PER_QUARTER,
        "onset_gap": mean(gaps_of(notes)) / TICKS_PER_QUARTER,
        "interval": mean(leaps),
    }


def mean(values: Times) -> float:
    """Return the mean, NaN of nothing."""
    return float(values.mean()) if len(values) else math.nan


def histograms(notes: Notes) -> dict[str, Array]:
    """Return the histograms that describe a piece, by name."""
    return {
        "pitch_classes": pitch_classes(notes),
        "note_lengths": note_lengths(notes),
        "onset_gaps": onset_gaps(notes),
        "intervals": intervals(notes),
        "pitch_class_transitions": pitch_class_transitions(notes),
    }


def features(notes: Notes) -> dict[str, Array]:
    """Return all that describes a piece: numbers as (1,), histograms as they are."""
    return {name: np.array([x]) for name, x in numbers(notes).items()} | histograms(notes)
