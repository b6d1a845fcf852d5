"""The words of a grammar in classes: of each, the rules tell the longest delta that may come next.

So compiled code and kernels know what may follow. Notes are classes by kind and pitch, and messages
have their deltas; of events each place in a bar is a class, and all bars are one.
"""

from typing import NamedTuple

import numpy as np

from lstm_music.midi import NOTE_OFF
from lstm_music.ops.numpy_ops import Array
from lstm_music.sampler import FreeGrammar
from lstm_music.tokenizers.event_grammar import EventGrammar
from lstm_music.tokenizers.events import AT, BAR_LINE, SAME
from lstm_music.tokenizers.grammar import (
    CLASSES,
    FAR,
    NONE,
    PITCHES,
    SPECIAL_CLASS,
    ChordGrammar,
    Grammar,
    MessageGrammar,
)
from lstm_music.tokenizers.messages import PIECE_END, TRACK_END

STRICT, FREE, CHORDS, EVENTS = range(4)  # kinds of rules
ON = PITCHES  # the first class of the note-ons, and that of chords; the note-offs' is 0
END, TRACK = SPECIAL_CLASS[PIECE_END], SPECIAL_CLASS[TRACK_END]
BARS, PLACES = END + 1, CLASSES  # the class of bars; that of the first place
SAID, UNSAID = 0, 1  # the deltas of bars that say their length, and that don't


class Words(NamedTuple):
    """A grammar's words: classes and deltas (V,) of each, and the shortest delta of a class (C,).

    kind: of the rules. steps (V,): the delta, or an event's number. places (P,): in a bar, of
    events.
    """

    kind: int
    classes: Array
    deltas: Array
    shortest: Array
    steps: Array
    places: Array


def words_of(grammar: Grammar) -> Words:
    """Return the words of a grammar in classes."""
    none = np.zeros(0, np.int32)
    if isinstance(grammar, EventGrammar):
        return _event_words(grammar)
    if isinstance(grammar, MessageGrammar):
        kind = FREE if isinstance(grammar, FreeGrammar) else STRICT
        return _words(kind, grammar.kind * PITCHES + grammar.pitch, grammar.delta, none)
    assert isinstance(grammar, ChordGrammar)
    classes = np.where(grammar.begins, ON, END)
    return _words(CHORDS, classes, np.zeros_like(classes), none)


def _event_words(grammar: EventGrammar) -> Words:
    """As words_of. The delta of a bar too short for any place is too long for any rule."""
    kind, number = grammar.kind, grammar.number
    is_bar, is_place = kind == BAR_LINE, kind == AT
    places = np.unique(number[is_place])
    classes = np.where(kind < NOTE_OFF, END, kind * PITCHES + number)
    classes[is_bar] = BARS
    classes[is_place] = PLACES + np.searchsorted(places, number[is_place])
    deltas = np.zeros_like(classes)
    deltas[is_bar & (number <= places.min(initial=FAR))] = FAR
    deltas[is_bar & (number == SAME)] = UNSAID
    return _words(EVENTS, classes, deltas, places)._replace(steps=number)


def _words(kind: int, classes: Array, deltas: Array, places: Array) -> Words:
    shortest = np.full(CLASSES + len(places), NONE, np.int32)
    np.minimum.at(shortest, classes, deltas)
    classes, deltas, places = (a.astype(np.int32) for a in (classes, deltas, places))
    return Words(kind, classes, deltas, shortest, deltas, places)
