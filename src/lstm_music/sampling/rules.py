"""Which words may follow: one table, which sampling/automaton.py reads.

A piece in the making stands in a phase. The table says which kinds of words may come in each phase
and what must hold then, and which phase such a word leads to: in that alone the rules of messages,
events, performances, chords and `--free` differ. Beside it there is time: of each class of words (a
kind and a pitch, or a place in a bar) the automaton tells the longest delta that may come, so that
a word may come where deltas[id] <= longest[classes[id]].

tools/rules_table.py writes the table for kernels/rules.cu, report/rules_script.py for the page.
"""

from typing import NamedTuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.piece import LAST_TICK, WHOLE_NOTE

# The table ---------------------------------------------------------------------------------------

KINDS = (
    "NOTE_OFF", "MOVE", "NOTE_ON",  # of notes, in the order in which a part has them at a place
    "CHORD", "PLACE", "BAR_LINE", "CADENCE", "KEY", "SHIFT", "VELOCITY", "PART",
    "TRACK_END", "PIECE_END",
)  # fmt: skip
(
    NOTE_OFF, MOVE, NOTE_ON,
    CHORD, PLACE, BAR_LINE, CADENCE, KEY, SHIFT, VELOCITY, PART, TRACK_END, PIECE_END,
) = range(len(KINDS))  # fmt: skip

PHASES = (
    "NOTHING_YET", "IN_PIECE",  # messages of merged tracks
    "BETWEEN_TRACKS", "IN_TRACK",  # of tracks that follow one another
    "FREE_PIECE", "FREE_TRACKS",  # the same with --free
    "NO_KEY_YET", "NO_BAR_YET",  # events
    "AFTER_BAR", "AFTER_PLACE", "AFTER_CADENCE", "AFTER_NOTE",
    "AMONG_CHORDS",
    "NO_PART_YET", "NOT_PLAYED_YET",  # performances
    "AFTER_SHIFT", "AMONG_OFFS", "AFTER_PART",  # a note may end or begin,
    "AFTER_VELOCITY", "AMONG_ONS", "ONS_OF_PART",  # or may only begin
)  # fmt: skip
(
    NOTHING_YET, IN_PIECE, BETWEEN_TRACKS, IN_TRACK, FREE_PIECE, FREE_TRACKS,
    NO_KEY_YET, NO_BAR_YET,
    AFTER_BAR, AFTER_PLACE, AFTER_CADENCE, AFTER_NOTE,
    AMONG_CHORDS,
    NO_PART_YET, NOT_PLAYED_YET,
    AFTER_SHIFT, AMONG_OFFS, AFTER_PART,
    AFTER_VELOCITY, AMONG_ONS, ONS_OF_PART,
) = range(len(PHASES))  # fmt: skip

FACTS = (
    # Of a note:
    "SOUNDS",
    "STRUCK_BEFORE",  # not just now: again and again would never get on
    "IN_ORDER",  # after the last word's, by part, kind of word and pitch
    # Of the piece:
    "COMPOSED",  # something is written beyond a primer that doesn't count
    "MAY_END",  # as far as the length that was asked for goes
    "LONG_ENOUGH",  # as long as a piece, or a track that a primer began, has to be at least
    "LAST_QUARTER",  # the limit is a quarter note away at most, or there is none
    "TRACK_DONE",  # the same, or a track has just ended
    "TRACK_ROOM",  # there is room for another track, or the piece may not end
    "HEARD_LATELY",  # another bar of silence isn't one too many
    "IMPOSSIBLE",  # is never true
)
(
    SOUNDS, STRUCK_BEFORE, IN_ORDER,
    COMPOSED, MAY_END, LONG_ENOUGH, LAST_QUARTER, TRACK_DONE, TRACK_ROOM, HEARD_LATELY, IMPOSSIBLE,
) = (1 << n for n in range(len(FACTS)))  # fmt: skip

# A note-on that strikes a sounding pitch ends it, and one past the most notes ends the oldest: it
# need not wait for them. (A network that slips believes notes over that sound, and the other way
# round; a rule that makes it wait leads it into sequences that it has never seen.)
MAY_FOLLOW = {  # phase: {kind of word: what must hold}; a kind that isn't there never comes
    NOTHING_YET: {NOTE_ON: 0},
    IN_PIECE: {NOTE_OFF: SOUNDS, NOTE_ON: STRUCK_BEFORE, PIECE_END: COMPOSED | MAY_END},
    BETWEEN_TRACKS: {NOTE_ON: TRACK_ROOM, PIECE_END: COMPOSED | MAY_END},
    IN_TRACK: {
        NOTE_OFF: SOUNDS,
        NOTE_ON: STRUCK_BEFORE,
        TRACK_END: COMPOSED | LONG_ENOUGH | LAST_QUARTER,
    },
    FREE_PIECE: {NOTE_OFF: COMPOSED, NOTE_ON: 0, PIECE_END: COMPOSED | MAY_END},
    FREE_TRACKS: {
        NOTE_OFF: COMPOSED,
        NOTE_ON: 0,
        TRACK_END: COMPOSED | LONG_ENOUGH | LAST_QUARTER,
        PIECE_END: COMPOSED | MAY_END | TRACK_DONE,
    },
    NO_KEY_YET: {KEY: 0},
    NO_BAR_YET: {BAR_LINE: 0},
    AFTER_BAR: {PLACE: 0, BAR_LINE: HEARD_LATELY},
    AFTER_PLACE: {NOTE_OFF: SOUNDS, MOVE: 0, NOTE_ON: 0, CADENCE: 0},
    AFTER_CADENCE: {NOTE_OFF: SOUNDS, MOVE: 0, NOTE_ON: 0},
    AFTER_NOTE: {
        NOTE_OFF: SOUNDS | IN_ORDER,
        MOVE: IN_ORDER,
        NOTE_ON: IN_ORDER,
        PLACE: 0,
        BAR_LINE: 0,
        PIECE_END: COMPOSED | MAY_END,
    },
    AMONG_CHORDS: {CHORD: 0, PIECE_END: MAY_END},
    NO_PART_YET: {PART: 0},
    NOT_PLAYED_YET: {VELOCITY: 0},
    AFTER_SHIFT: {NOTE_OFF: SOUNDS, NOTE_ON: 0, SHIFT: 0, VELOCITY: 0, PART: 0},
    AMONG_OFFS: {
        NOTE_OFF: SOUNDS,
        NOTE_ON: 0,
        SHIFT: 0,
        VELOCITY: 0,
        PART: 0,
        PIECE_END: COMPOSED | MAY_END,
    },
    AFTER_PART: {NOTE_OFF: SOUNDS, NOTE_ON: 0, VELOCITY: 0},
    AFTER_VELOCITY: {NOTE_ON: STRUCK_BEFORE},
    AMONG_ONS: {
        NOTE_ON: STRUCK_BEFORE,
        SHIFT: 0,
        VELOCITY: 0,
        PART: 0,
        PIECE_END: COMPOSED | MAY_END,
    },
    ONS_OF_PART: {NOTE_ON: STRUCK_BEFORE, VELOCITY: 0},
}
PLAYED = {
    SHIFT: AFTER_SHIFT, VELOCITY: AFTER_VELOCITY, NOTE_OFF: AMONG_OFFS, NOTE_ON: AMONG_ONS,
}  # fmt: skip
# Phases of a representation, of which the first begins a piece: {kind of word: where it leads},
# whether it might come or not; any other leaves the piece where it is.
LEADS_TO: dict[tuple[int, ...], dict[int, int]] = {
    (NOTHING_YET, IN_PIECE): {NOTE_ON: IN_PIECE, TRACK_END: NOTHING_YET},
    (BETWEEN_TRACKS, IN_TRACK): {NOTE_ON: IN_TRACK, TRACK_END: BETWEEN_TRACKS},
    (FREE_PIECE,): {},
    (FREE_TRACKS,): {},
    (NO_KEY_YET, NO_BAR_YET, AFTER_BAR, AFTER_PLACE, AFTER_CADENCE, AFTER_NOTE): {
        KEY: NO_BAR_YET,
        BAR_LINE: AFTER_BAR,
        PLACE: AFTER_PLACE,
        CADENCE: AFTER_CADENCE,
        NOTE_OFF: AFTER_NOTE,
        MOVE: AFTER_NOTE,
        NOTE_ON: AFTER_NOTE,
    },
    (AMONG_CHORDS,): {},
    (NO_PART_YET, NOT_PLAYED_YET): PLAYED | {PART: NOT_PLAYED_YET},
    (AFTER_SHIFT, AMONG_OFFS, AFTER_PART): PLAYED | {PART: AFTER_PART},
    (AFTER_VELOCITY, AMONG_ONS, ONS_OF_PART): PLAYED | {PART: ONS_OF_PART},
}


def needs_table() -> Array:
    """Return what must hold for each kind of word in each phase, facts (phases, kinds) int32."""
    rows = [[MAY_FOLLOW[p].get(kind, IMPOSSIBLE) for kind in range(len(KINDS))] for p in MAY_FOLLOW]
    return np.array(rows, np.int32)


def next_table() -> Array:
    """Return the phase after each kind of word in each phase, (phases, kinds) int32."""
    rows = [
        [leads.get(kind, phase) for kind in range(len(KINDS))]
        for phases, leads in LEADS_TO.items()
        for phase in phases
    ]
    return np.array(rows, np.int32)


# Words and rules ---------------------------------------------------------------------------------

# The classes: one of the words of each of these kinds; of a note, NOTES + kind * notes + note;
# behind the notes of all three kinds, one of each place.
PIECE_ENDS, TRACK_ENDS, CADENCES, CHORDS, KEYS, SHIFTS, VELOCITIES, PARTS, BARS, NOTES = range(10)
TOLD, UNTOLD = 0, 1  # the deltas of bars whose words tell their length, and of those as the last
NEVER = -1  # as the longest delta of a class: none of its words
NONE = 2**31 - 1  # as a word's delta: it never comes; as the shortest of a class: no word does
FAR = LAST_TICK + 1  # further than any delta
NO_LIMIT = -1
SILENT = -1  # in place of the tick at which a pitch began to sound

SHORTEST = 8 * WHOLE_NOTE  # of a piece without a length: an early cadence is no end


class Rules(NamedTuple):
    """What may follow in a representation, for words of a vocabulary and habits of a corpus.

    needs, next: the table. phase: in which a piece begins; start: the id of the start symbol, which
    also ends a piece, -1 without one. exact: the id that is as likely as the network says, whatever
    is cut, -1 for none: a cadence, else phrases would end only where that is sure. merged: tracks
    are one, or there is but one. notes: how many the words tell apart, which begin with those of
    the first part, PITCHES of each; told: PITCHES where words tell whose the first of them are,
    else notes. events: bars are told by words; frame_ticks: how long a chord lasts, 0 without
    chords: a length in frames holds exactly. longest_note, in ticks; rings: the age at which a note
    ends by itself; most_notes: how many may sound at once in a track. least: ticks of a piece
    without a length at least. longest_piece: the ticks from which on it ends with its phrase, 0 for
    never. longest_pause: of performances, ticks in which no note begins or ends, NEVER of others.

    By id, (V,): kinds of words, numbers (note, place or a bar's length), steps (ticks until it, or
    of a chord), classes and deltas. shortest (C,): the shortest delta of each class, NONE without
    words. places (P,): in a bar, of events.
    """

    needs: Array
    next: Array
    phase: int
    start: int
    exact: int
    merged: bool
    notes: int
    told: int
    events: bool
    frame_ticks: int
    max_tracks: int
    longest_note: int
    rings: int
    most_notes: int
    least: int
    longest_piece: int
    longest_pause: int
    kinds: Array
    numbers: Array
    steps: Array
    classes: Array
    deltas: Array
    shortest: Array
    places: Array


# The fields of Rules that are numbers, as kernels have them.
NUMBERS = (
    "phase", "start", "exact", "merged", "notes", "told", "events", "frame_ticks",
    "max_tracks", "longest_note", "rings", "most_notes", "least", "longest_piece",
    "longest_pause",
)  # fmt: skip
