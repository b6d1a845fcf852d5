"""How a whole piece is formed: the key in which it begins and ends, its phrases.

Keys are as `roll.estimate_key` finds them; a bar is one of 4/4. What isn't defined, as of a piece
without a note, is NaN.
"""

import math

import numpy as np
import numpy.typing as npt

from lstm_music.evaluation.music.excerpts import Music, piece_of_music
from lstm_music.evaluation.music.measures import end_of
from lstm_music.midi.piece import BAR, Notes
from lstm_music.midi.roll import Frames, estimate_key, frames_of

Array = npt.NDArray[np.float64]

GRID = 16  # frames a bar, of which keys are told
KEY_BARS = 4  # at either end of a piece, from which the keys there are told
HELD = BAR // 2  # ticks without an onset that end a phrase
PHRASE = (2, 4)  # bars, both included, of phrases as chorales have them


def frames_of_music(music: Music) -> Frames:
    """Return what sounds at each sixteenth of a piece (steps, 88)."""
    return frames_of(piece_of_music(music), GRID)[0]


def length_in_bars(notes: Notes) -> int:
    """Return the bars up to the last note's end, 0 without a note."""
    return -(-end_of(notes) // BAR)


def ends_on_tonic(music: Music) -> float:
    """Return 1 where the lowest note that sounds to the end is the tonic of the piece's key."""
    notes = music.notes
    if not len(notes):
        return math.nan
    lowest = notes[notes[:, 1] == end_of(notes), 2].min()
    return float(lowest % 12 == estimate_key(frames_of_music(music))[0])


def ends_in_first_key(music: Music) -> float:
    """Return 1 where the last bars are in the tonic and mode of the first; NaN where they meet."""
    frames = frames_of_music(music)
    span = KEY_BARS * GRID
    if len(frames) < 2 * span:
        return math.nan
    return float(estimate_key(frames[:span]) == estimate_key(frames[-span:]))


def phrases(notes: Notes) -> Array:
    """Return the lengths of a piece's phrases in bars, which add up to the piece.

    A phrase ends where nothing has begun for half a bar: after a held chord, or at the end.
    """
    onsets = np.unique(notes[:, 0])
    until = np.append(onsets, end_of(notes))[1:]
    ends = until[until - onsets >= HELD]
    lengths: Array = np.diff(np.unique([0, *ends, end_of(notes)])) / BAR
    return lengths


def phrases_as_usual(notes: Notes) -> Array:
    """Return 1 for each phrase of as many bars as chorales' mostly have, 0 for each other."""
    lengths = phrases(notes)
    least, most = PHRASE
    return ((lengths >= least) & (lengths <= most)).astype(np.float64)
