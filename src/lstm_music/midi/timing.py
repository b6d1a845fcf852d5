"""Ticks, seconds and bars: how fast a piece goes, and in which time signature."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lstm_music.midi.bytes import QUARTER, Meter, Tempo
from lstm_music.midi.piece import (
    LAST_TICK,
    TEMPO,
    TICK,
    TICKS_PER_QUARTER,
    WHOLE_NOTE,
    Piece,
    no_meter,
)

SLOWEST, FASTEST = 10.0, 1000.0  # quarter notes a minute that a corpus or a player is asked for
BEATS = (4, 8, 16, 32, 64)  # of a time signature, the denominators; a bar of others is rounded


def constant(tempo: float) -> Tempo:
    """Return a tempo, in quarter notes per minute, that holds from the beginning on."""
    return np.array([[0, round(60e6 / tempo)]], np.int32)


def seconds_at(tempo: Tempo, tick: int) -> float:
    """Return how many seconds a tick comes after tick 0.

    Until a tempo is said there are 120 quarter notes a minute, as the MIDI standard has it.
    """
    rows = tempo[tempo[:, 0] < tick].astype(np.int64)
    starts: npt.NDArray[np.int64] = np.concatenate([[0], rows[:, 0]])
    lengths = np.concatenate([[QUARTER], rows[:, 1]])
    ticks = np.diff(starts, append=tick)
    return float((ticks * lengths).sum()) / TICKS_PER_QUARTER / 1e6


def end_of(piece: Piece) -> int:
    """Return the tick at which a piece's last note ends, 0 without notes."""
    return max((int(track[-1, TICK]) for track in piece.tracks), default=0)


def seconds_of(piece: Piece) -> float:
    """Return how many seconds a piece lasts: at TEMPO where it says no tempo."""
    return seconds_at(piece.tempo if len(piece.tempo) else constant(TEMPO), end_of(piece))


def mean_tempo(piece: Piece) -> float:
    """Return a piece's quarter notes a minute, from SLOWEST to FASTEST, over its whole length."""
    minutes = seconds_of(piece) / 60
    tempo = end_of(piece) / TICKS_PER_QUARTER / minutes if minutes > 0 else TEMPO
    return min(max(tempo, SLOWEST), FASTEST)


def tempo_at(tempo: Tempo, tick: int) -> float:
    """Return the quarter notes a minute that hold from a tick on."""
    row = max(int(np.searchsorted(tempo[:, 0], tick, "right")) - 1, 0)
    return 60e6 / int(tempo[row, 1])


def signature_of(length: int, beats: Mapping[int, int]) -> tuple[int, int]:
    """Return the numerator and the denominator of bars of so many ticks; beats: as Piece's."""
    own = beats.get(length, 0)
    if own and length * own % WHOLE_NOTE == 0 and 1 <= length * own // WHOLE_NOTE <= 255:
        return length * own // WHOLE_NOTE, own
    unit = next((n for n in BEATS if length * n % WHOLE_NOTE == 0), BEATS[-1])
    return min(max(round(length * unit / WHOLE_NOTE), 1), 255), unit


def bars_of(meter: Meter, tick: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where each bar begins up to the one that holds a tick, and each one's length, (n,).

    A bar in which the meter changes ends there. Before the meter says anything there is 4/4.
    """
    rows = [(0, WHOLE_NOTE), *meter.tolist(), (2 * LAST_TICK, 0)]
    starts: list[npt.NDArray[np.int64]] = []
    lengths: list[npt.NDArray[np.int64]] = []
    for (first, length), (stop, _) in pairwise(rows):
        starts.append(np.arange(first, min(stop, tick + 1), length, dtype=np.int64))
        lengths.append(np.minimum(length, stop - starts[-1]))
    return np.concatenate(starts), np.concatenate(lengths)


def meter_of(bars: Sequence[tuple[int, int]]) -> Meter:
    """Return the meter of bars that follow one another, given by where they begin and how long."""
    changes, expected = [], (0, 0)
    for begin, length in bars:
        if (begin, length) != expected:
            changes.append((begin, length))
        expected = begin + length, length
    return np.array(changes, np.int32) if changes else no_meter()
