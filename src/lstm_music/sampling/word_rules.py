"""The rules of a vocabulary: what the words of each representation are to the table of rules.py."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.piece import LAST_TICK
from lstm_music.midi.roll import ticks_per_step
from lstm_music.sampling.rules import (
    AMONG_CHORDS,
    BAR_LINE,
    BARS,
    BETWEEN_TRACKS,
    CADENCE,
    CADENCES,
    CHORD,
    CHORDS,
    FAR,
    FREE_PIECE,
    FREE_TRACKS,
    KEY,
    KEYS,
    MOVE,
    NEVER,
    NO_BAR_YET,
    NO_KEY_YET,
    NO_PART_YET,
    NONE,
    NOT_PLAYED_YET,
    NOTE_OFF,
    NOTE_ON,
    NOTES,
    NOTHING_YET,
    PART,
    PARTS,
    PIECE_END,
    PIECE_ENDS,
    PLACE,
    SHIFT,
    SHIFTS,
    SHORTEST,
    TRACK_END,
    TRACK_ENDS,
    UNTOLD,
    VELOCITIES,
    VELOCITY,
    Rules,
    needs_table,
    next_table,
)  # fmt: skip
from lstm_music.tokenizers import events, messages, performance
from lstm_music.tokenizers.messages import PITCHES, Layout
from lstm_music.tokenizers.vocabulary import Vocabulary


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
    note that it moves to ends what it sounds; no number of notes is too many. A piece ends after
    notes. Bars without any follow one another for the length of the longest note at most, and
    don't begin a piece. Raises ValueError for a vocabulary that holds other words.
    """
    kind_of = (NOTE_OFF, NOTE_ON, PLACE, BAR_LINE, CADENCE, KEY, MOVE, PIECE_END)
    table = [events.parse(word) or (len(kind_of) - 1, 0, 0) for word in vocabulary.words]
    kinds, numbers, parts = np.array(table, np.int32).reshape(-1, 3).T
    kinds, numbers = (
        np.array(kind_of, np.int32)[kinds],
        numbers + np.maximum(parts - 1, 0) * PITCHES,
    )
    notes = notes_told(kinds, numbers)
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

    A piece begins with a velocity, of several parts with whose it is, after which a note begins. At
    one time stand first the notes that end, then those that begin, no pitch of a part twice. Only
    notes that sound end. Shifts follow one another for the longest pause at most. A piece ends
    after notes. Of several parts, no number of notes is too many. Raises ValueError for a
    vocabulary that holds other words.
    """
    kind_of = np.array((NOTE_OFF, NOTE_ON, SHIFT, VELOCITY, PART, PIECE_END), np.int32)
    table = [performance.parse(word) or (len(kind_of) - 1, 0, 0) for word in vocabulary.words]
    kinds, numbers, parts = np.array(table, np.int32).reshape(-1, 3).T
    kinds = kind_of[kinds]
    numbers = np.where(kinds == PART, numbers * PITCHES, parts * PITCHES + numbers)
    notes, several = notes_told(kinds, numbers), bool((kinds == PART).any())
    steps = np.where(kinds == SHIFT, numbers * performance.STEP, 0)
    offsets = np.where(kinds <= NOTE_ON, numbers, 0)
    phase = NO_PART_YET if several else NOT_PLAYED_YET
    rules = _rules(vocabulary, phase, kinds, numbers, steps, offsets, steps, notes=notes)
    # At the longest age notes may still end by their word.
    return rules._replace(
        max_tracks=1, longest_note=longest_note, rings=longest_note + 1,
        most_notes=notes if several else most_notes, longest_pause=longest_pause,
        told=PITCHES if several else notes,
    )  # fmt: skip


def notes_told(kinds: Array, numbers: Array) -> int:
    """Return how many notes the words of parts tell apart: PITCHES of each up to the last."""
    of_parts = (kinds <= NOTE_ON) | (kinds == PART)
    return (int(numbers[of_parts].max(initial=0)) // PITCHES + 1) * PITCHES


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
    others = (BARS, CADENCES, KEYS, SHIFTS, VELOCITIES, PARTS, TRACK_ENDS, PIECE_ENDS)
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
        merged=True, notes=notes, told=notes, events=False, frame_ticks=0,
        max_tracks=0, longest_note=0, rings=0, most_notes=0, least=SHORTEST, longest_piece=0,
        longest_pause=NEVER,
        kinds=kinds, numbers=numbers, steps=steps, classes=classes, deltas=deltas,
        shortest=shortest, places=places,
    )  # fmt: skip
