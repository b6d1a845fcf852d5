"""What the compiled rules of all representations share: a piece in the making, in numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lstm_music.ops.cpu.jit import njit
from lstm_music.ops.numpy_ops import Array
from lstm_music.sampler import Bounds
from lstm_music.tokenizers.event_grammar import END as NO_KIND
from lstm_music.tokenizers.grammar import PITCHES

# The fields of a piece in the making: as in GrammarState and Draft, then as in EventState.
(
    NOW, NOTES, TRACKS, BEFORE, TOKENS, ENDED,
    PRIMED_TRACKS, PRIMED_NOTES, LEAST, BAR_TICKS, LINE, BARS_DONE, BARS_BEFORE,
    BEGIN, LENGTH, KIND, NUMBER, HEARD,
    ASKED_TOKENS, ASKED_TICKS, ASKED_BARS, MOST,  # as in Bounds, -1 for None
    FIELDS,
) = range(23)  # fmt: skip
SILENT = -1  # in place of the tick at which a pitch began to sound


class Rules(NamedTuple):
    """A grammar.

    bar: ticks of a bar of which no word tells; least: as Grammar.shortest. kind, classes, steps,
    shortest and places: as Words has them. ids (V,): the words sorted by class, and deltas (V,),
    theirs; starts (C + 1,): where each class begins.
    """

    kind: int
    merged: bool
    start: int
    max_tracks: int
    longest_note: int
    most_notes: int
    bar: int
    least: int
    frame_ticks: int
    classes: Array
    steps: Array
    shortest: Array
    ids: Array
    deltas: Array
    starts: Array
    places: Array


def new_pieces(rules: Rules, bounds: Sequence[Bounds]) -> tuple[Array, Array]:
    """Return pieces before their first word, (B, FIELDS), and what sounds in each, (B, 128)."""
    pieces = np.zeros((len(bounds), FIELDS), np.int64)
    for piece, (start, tokens, ticks, bars, most) in zip(pieces, bounds, strict=True):
        piece[KIND] = NO_KIND
        piece[PRIMED_TRACKS], piece[PRIMED_NOTES] = start.primed
        piece[LEAST] = rules.least if start.least is None else start.least
        piece[BAR_TICKS], piece[LINE] = start.bar, start.line
        asked = [-1 if one is None else one for one in (tokens, ticks, bars)]
        piece[[ASKED_TOKENS, ASKED_TICKS, ASKED_BARS]], piece[MOST] = asked, most
    return pieces, np.full((len(bounds), PITCHES), SILENT, np.int64)


@njit(cache=True)
def begin_another(rules, piece, sounding):  # type: ignore[no-untyped-def]
    """Begin a piece after others: as sampler.begun."""
    piece[NOW] = piece[NOTES] = piece[TRACKS] = 0
    piece[PRIMED_TRACKS] = piece[PRIMED_NOTES] = piece[LINE] = piece[BARS_DONE] = 0
    piece[LEAST], piece[BAR_TICKS] = rules.least, rules.bar
    piece[BEGIN] = piece[LENGTH] = piece[NUMBER] = piece[HEARD] = 0
    piece[KIND] = NO_KIND
    sounding[:] = SILENT


@njit(cache=True)
def is_empty(piece):  # type: ignore[no-untyped-def]
    """As Grammar.is_empty."""
    return piece[TRACKS] == piece[PRIMED_TRACKS] and piece[NOTES] == piece[PRIMED_NOTES]


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
