"""What the compiled rules of all representations share: a piece in the making, in numbers."""

from typing import NamedTuple

import numpy as np

from lstm_music.ops.jit import njit
from lstm_music.ops.numpy_ops import Array
from lstm_music.tokenizers.event_grammar import END as NO_KIND
from lstm_music.tokenizers.grammar import PITCHES

# The fields of a piece in the making: as in GrammarState and Draft; the last ones as in EventState.
NOW, NOTES, TRACKS, BEFORE, TOKENS, ENDED, BEGIN, LENGTH, KIND, NUMBER, HEARD, FIELDS = range(12)
SILENT = -1  # in place of the tick at which a pitch began to sound


class Rules(NamedTuple):
    """A grammar and the options that bind it; -1 for no length or limit.

    kind, classes, steps, shortest and places: as Words has them. ids (V,): the words sorted by
    class, and deltas (V,), theirs; starts (C + 1,): where each class begins.
    """

    kind: int
    merged: bool
    start: int
    max_tracks: int
    longest_note: int
    most_notes: int
    length: int
    limit: int
    most: int
    shortest_piece: int
    frame_ticks: int
    classes: Array
    steps: Array
    shortest: Array
    ids: Array
    deltas: Array
    starts: Array
    places: Array


def new_pieces(B: int) -> tuple[Array, Array]:
    """Return B pieces before their first word, (B, FIELDS), and what sounds in each, (B, 128)."""
    pieces, sounding = np.zeros((B, FIELDS), np.int64), np.empty((B, PITCHES), np.int64)
    for piece, own in zip(pieces, sounding, strict=True):
        begin(piece, own)
    return pieces, sounding


@njit(cache=True)
def begin(piece, sounding):  # type: ignore[no-untyped-def]
    """Begin a piece, perhaps after others: as Grammar.start."""
    piece[NOW] = piece[NOTES] = piece[TRACKS] = 0
    piece[BEGIN] = piece[LENGTH] = piece[NUMBER] = piece[HEARD] = 0
    piece[KIND] = NO_KIND
    sounding[:] = SILENT


@njit(cache=True)
def tidy(sounding, now, longest_note, most_notes):  # type: ignore[no-untyped-def]
    """As midi.tidy_track: notes end of old age, and the oldest make room."""
    voices, oldest = 0, SILENT
    for p in range(PITCHES):
        began = sounding[p]
        if began != SILENT and began < now and began + longest_note <= now:
            sounding[p] = SILENT
        elif began != SILENT:
            voices += 1
    while voices > most_notes:
        oldest = SILENT
        for p in range(PITCHES):
            if sounding[p] != SILENT and (oldest == SILENT or sounding[p] < sounding[oldest]):
                oldest = p
        if sounding[oldest] == now:
            break
        sounding[oldest] = SILENT
        voices -= 1
