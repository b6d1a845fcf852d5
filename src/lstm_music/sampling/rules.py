"""Which words may follow: one table, which sampling/automaton.py reads.

A piece in the making stands in a phase. The table says which kinds of words may come in each phase
and what must hold then, and which phase such a word leads to: in that alone the rules of messages,
events, performances, chords and `--free` differ. Beside it there is time: of each class of words (a
kind and a pitch, or a place in a bar) the automaton tells the longest delta that may come, so that
a word may come where deltas[id] <= longest[classes[id]].

tools/rules_table.py writes the table for kernels/rules.cu, report/rules_script.py for the page.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.piece import LAST_TICK, WHOLE_NOTE
from lstm_music.midi.roll import ticks_per_step
from lstm_music.tokenizers import events, messages, performance
from lstm_music.tokenizers.messages import PITCHES, Layout
from lstm_music.tokenizers.vocabulary import Vocabulary

# The table ---------------------------------------------------------------------------------------

KINDS = (
    "NOTE_OFF", "MOVE", "NOTE_ON",  # of notes, in the order in which a part has them at a place
    "CHORD", "PLACE", "BAR_LINE", "CADENCE", "KEY", "SHIFT", "VELOCITY", "TRACK_END", "PIECE_END",
)  # fmt: skip
(
    NOTE_OFF, MOVE, NOTE_ON,
    CHORD, PLACE, BAR_LINE, CADENCE, KEY, SHIFT, VELOCITY, TRACK_END, PIECE_END,
) = range(len(KINDS))  # fmt: skip

PHASES = (
    "NOTHING_YET", "IN_PIECE",  # messages of merged tracks
    "BETWEEN_TRACKS", "IN_TRACK",  # of tracks that follow one another
    "FREE_PIECE", "FREE_TRACKS",  # the same with --free
    "NO_KEY_YET", "NO_BAR_YET",  # events
    "AFTER_BAR", "AFTER_PLACE", "AFTER_CADENCE", "AFTER_NOTE",
    "AMONG_CHORDS",
    "NOT_PLAYED_YET", "AFTER_SHIFT", "AFTER_VELOCITY", "AMONG_OFFS", "AMONG_ONS",  # performances
)  # fmt: skip
(
    NOTHING_YET, IN_PIECE, BETWEEN_TRACKS, IN_TRACK, FREE_PIECE, FREE_TRACKS,
    NO_KEY_YET, NO_BAR_YET,
    AFTER_BAR, AFTER_PLACE, AFTER_CADENCE, AFTER_NOTE,
    AMONG_CHORDS,
    NOT_PLAYED_YET, AFTER_SHIFT, AFTER_VELOCITY, AMONG_OFFS, AMONG_ONS,
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
    NOT_PLAYED_YET: {VELOCITY: 0},
    AFTER_SHIFT: {NOTE_OFF: SOUNDS, NOTE_ON: 0, SHIFT: 0, VELOCITY: 0},
    AFTER_VELOCITY: {NOTE_ON: STRUCK_BEFORE},
    AMONG_OFFS: {
        NOTE_OFF: SOUNDS,
        NOTE_ON: 0,
        SHIFT: 0,
        VELOCITY: 0,
        PIECE_END: COMPOSED | MAY_END,
    },
    AMONG_ONS: {
        NOTE_ON: STRUCK_BEFORE,
        SHIFT: 0,
        VELOCITY: 0,
        PIECE_END: COMPOSED | MAY_END,
    },
}
# The phases of a representation, of which the first begins a piece: {kind of word: where it leads},
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
    (NOT_PLAYED_YET, AFTER_SHIFT, AFTER_VELOCITY, AMONG_OFFS, AMONG_ONS): {
        SHIFT: AFTER_SHIFT,
        VELOCITY: AFTER_VELOCITY,
        NOTE_OFF: AMONG_OFFS,
        NOTE_ON: AMONG_ONS,
    },
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
PIECE_ENDS, TRACK_ENDS, CADENCES, CHORDS, KEYS, SHIFTS, VELOCITIES, BARS, NOTES = range(9)
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
    the first part, PITCHES of each. events: bars are told by words; frame_ticks: how long a chord
    lasts, 0 without chords: a length in frames holds exactly. longest_note, in ticks; rings: the
    age at which a note ends by itself; most_notes: how many may sound at once in a track. least:
    ticks of a piece without a length at least. longest_piece: the ticks from which on it ends with
    its phrase, 0 for never. longest_pause: of performances, ticks in which no note begins or ends,
    NEVER of others.

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
    "phase", "start", "exact", "merged", "notes", "events", "frame_ticks",
    "max_tracks", "longest_note", "rings", "most_notes", "least", "longest_piece",
    "longest_pause",
)  # fmt: skip


def rules_of(
    vocabulary: Vocabulary,
    tokenizer: Mapping[str, Any],
    corpus: Mapping[str, Any],
    free: bool = False,
) -> Rules:
    """Return the rules of a model's words; tokenizer, corpus: as its meta.json tells of them.

    free: those of `--free`, of messages.
    """
    if tokenizer["name"] == "chord":
        return chord_rules(vocabulary, ticks_per_step(tokenizer["grid"]))
    longest_note, most_notes = corpus["longest_note"], corpus["most_notes"]
    if tokenizer["name"] == "event":
        rules = event_rules(vocabulary, longest_note, most_notes)
        return rules._replace(longest_piece=corpus.get("longest_piece", 0))
    if tokenizer["name"] == "performance":
        return performance_rules(vocabulary, longest_note, most_notes, corpus["longest_pause"])
    habits = (longest_note, corpus["max_tracks"], most_notes)
    return message_rules(vocabulary, tokenizer["layout"], *habits, free)


def message_rules(
    vocabulary: Vocabulary,
    layout: Layout,
    longest_note: int,
    max_tracks: int,
    most_notes: int = PITCHES,
    free: bool = False,
) -> Rules:
    """Return the rules of messages. free: any token may come, and only what was asked for binds.

    Else a note-off needs its pitch to sound, and a track or piece may end over sounding notes but
    not without a note. Where a limit is asked for, notes begin before it and end by it, and one of
    several tracks goes on until its last quarter note, if it can. Raises ValueError for a
    vocabulary that holds other words.
    """
    merged = layout == "merge"
    strict = NOTHING_YET if merged else BETWEEN_TRACKS
    phase = strict if not free else FREE_PIECE if merged else FREE_TRACKS
    table = [_message(word) for word in vocabulary.words]
    kinds, numbers, steps = np.array(table, np.int32).reshape(-1, 3).T
    rules = _rules(vocabulary, phase, kinds, numbers, steps, numbers, steps)
    return rules._replace(
        merged=merged, max_tracks=max_tracks, longest_note=longest_note, rings=longest_note,
        most_notes=most_notes, least=SHORTEST if merged else 0,
    )  # fmt: skip


def event_rules(vocabulary: Vocabulary, longest_note: int, most_notes: int = PITCHES) -> Rules:
    """Return the rules of events.

    A piece begins with its key, where words tell it, and a bar that says its length. In a bar
    places come in ascending order, at each of them at least a note ends or begins, first the ends,
    then the beginnings, by ascending pitch; before them a cadence may stand.
    Only notes that sound end. Of several parts each has its turn, ends before beginnings, and a
    note that it moves to ends what it sounds; as many as like may sound. A piece ends after notes.
    Bars without any follow one another for the length of the longest note at most, and don't begin
    a piece. Raises ValueError for a vocabulary that holds other words.
    """
    kind_of = (NOTE_OFF, NOTE_ON, PLACE, BAR_LINE, CADENCE, KEY, MOVE, PIECE_END)
    table = [events.parse(word) or (len(kind_of) - 1, 0, 0) for word in vocabulary.words]
    kinds, numbers, parts = np.array(table, np.int32).reshape(-1, 3).T
    kinds, numbers = (
        np.array(kind_of, np.int32)[kinds],
        numbers + np.maximum(parts - 1, 0) * PITCHES,
    )
    notes = (int(numbers[kinds <= NOTE_ON].max(initial=0)) // PITCHES + 1) * PITCHES
    places = np.unique(numbers[kinds == PLACE])
    among = np.where(kinds == PLACE, np.searchsorted(places, numbers), 0)
    deltas = np.zeros_like(numbers)
    is_bar = kinds == BAR_LINE
    deltas[is_bar & (numbers <= places.min(initial=FAR))] = NONE  # it is too short for any place
    deltas[is_bar & (numbers == events.SAME)] = UNTOLD
    offsets = np.where(kinds <= NOTE_ON, numbers, among)
    phase = NO_KEY_YET if (kinds == KEY).any() else NO_BAR_YET
    rules = _rules(vocabulary, phase, kinds, numbers, 0 * numbers, offsets, deltas, places, notes)
    # At the longest age notes may still end by their word.
    cadence = vocabulary.get(events.spell(events.CADENCE, 0))
    return rules._replace(
        exact=-1 if cadence is None else cadence, events=True, max_tracks=1,
        longest_note=longest_note, rings=longest_note + 1,
        most_notes=notes if (kinds == MOVE).any() else most_notes,
    )  # fmt: skip


def performance_rules(
    vocabulary: Vocabulary, longest_note: int, most_notes: int, longest_pause: int
) -> Rules:
    """Return the rules of performances.

    A piece begins with a velocity, after which a note begins. At one time stand first the notes
    that end, then those that begin, no pitch twice. Only notes that sound end. Shifts follow one
    another for the longest pause at most. A piece ends after notes. Raises ValueError for a
    vocabulary that holds other words.
    """
    kind_of = np.array((NOTE_OFF, NOTE_ON, SHIFT, VELOCITY, PIECE_END), np.int32)
    table = [performance.parse(word) or (len(kind_of) - 1, 0) for word in vocabulary.words]
    kinds, numbers = np.array(table, np.int32).reshape(-1, 2).T
    kinds = kind_of[kinds]
    steps = np.where(kinds == SHIFT, numbers * performance.STEP, 0)
    offsets = np.where(kinds <= NOTE_ON, numbers, 0)
    rules = _rules(vocabulary, NOT_PLAYED_YET, kinds, numbers, steps, offsets, steps)
    # At the longest age notes may still end by their word.
    return rules._replace(
        max_tracks=1, longest_note=longest_note, rings=longest_note + 1, most_notes=most_notes,
        longest_pause=longest_pause,
    )  # fmt: skip


def chord_rules(vocabulary: Vocabulary, frame_ticks: int) -> Rules:
    """Return the rules of chords: any may follow any other. frame_ticks: how long one lasts.

    A piece ends only where at least a frame is left for another, from the next bar line on.
    """
    ends = [word == messages.PIECE_END for word in vocabulary.words]
    kinds = np.where(ends, PIECE_END, CHORD).astype(np.int32)
    none = np.zeros_like(kinds)
    rules = _rules(vocabulary, AMONG_CHORDS, kinds, none, none + frame_ticks, none, none)
    return rules._replace(frame_ticks=frame_ticks)


def _message(word: str) -> tuple[int, int, int]:
    """Return a word's kind, pitch and delta."""
    message = messages.parse(word)
    if message is None:
        return PIECE_END if word == messages.PIECE_END else TRACK_END, 0, 0
    kind, pitch, delta = message
    return (NOTE_OFF, NOTE_ON)[kind], pitch, min(delta, LAST_TICK)


def _rules(
    vocabulary: Vocabulary,
    phase: int,
    kinds: Array,
    numbers: Array,
    steps: Array,
    offsets: Array,
    deltas: Array,
    places: Array | None = None,
    notes: int = PITCHES,
) -> Rules:
    """Return rules without habits. offsets (V,): from the first class of a word's kind."""
    places = np.zeros(0, np.int32) if places is None else places
    offs, moves, ons, at = (NOTES + n * notes for n in range(4))
    others = (BARS, CADENCES, KEYS, SHIFTS, VELOCITIES, TRACK_ENDS, PIECE_ENDS)
    classes = np.array([offs, moves, ons, CHORDS, at, *others])[kinds] + offsets
    if phase not in (FREE_PIECE, FREE_TRACKS) and not (kinds == MOVE).any():
        ends = np.isin(numbers, numbers[kinds == NOTE_OFF])  # what no word ends isn't to begin
        deltas = np.where((kinds == NOTE_ON) & ~ends, NONE, deltas)
    shortest = np.full(at + len(places), NONE, np.int32)
    np.minimum.at(shortest, classes, deltas)
    start = vocabulary.get(messages.PIECE_END)
    kinds, numbers, steps, classes, deltas, places = (
        np.ascontiguousarray(a, np.int32) for a in (kinds, numbers, steps, classes, deltas, places)
    )
    return Rules(
        needs_table(), next_table(), phase, -1 if start is None else start, exact=-1,
        merged=True, notes=notes, events=False, frame_ticks=0,
        max_tracks=0, longest_note=0, rings=0, most_notes=0, least=SHORTEST, longest_piece=0,
        longest_pause=NEVER,
        kinds=kinds, numbers=numbers, steps=steps, classes=classes, deltas=deltas,
        shortest=shortest, places=places,
    )  # fmt: skip
