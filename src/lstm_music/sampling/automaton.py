"""The automaton that reads the table of the sampling rules: what may come, and what a word changes.

sampling/compiled_rules.py compiles these functions by Numba as they are, with a record in place of
a Piece; kernels/rules.cu and report/browser/rules.js have them line by line.
tests/sampling/test_rules.py walks through all.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.piece import LAST_TICK, TICKS_PER_QUARTER, WHOLE_NOTE
from lstm_music.sampling.rules import (
    AFTER_BAR,
    BAR_LINE,
    BARS,
    CADENCE,
    CADENCES,
    CHORD,
    CHORDS,
    COMPOSED,
    FAR,
    HEARD_LATELY,
    IN_ORDER,
    IN_TRACK,
    KEY,
    KEYS,
    LAST_QUARTER,
    LONG_ENOUGH,
    MAY_END,
    MOVE,
    NEVER,
    NO_LIMIT,
    NONE,
    NOTE_OFF,
    NOTE_ON,
    NOTES,
    PART,
    PARTS,
    PIECE_END,
    PIECE_ENDS,
    PLACE,
    SHIFT,
    SHIFTS,
    SILENT,
    SOUNDS,
    STRUCK_BEFORE,
    TOLD,
    TRACK_DONE,
    TRACK_END,
    TRACK_ENDS,
    TRACK_ROOM,
    UNTOLD,
    VELOCITIES,
    VELOCITY,
    Rules,
)
from lstm_music.tokenizers.messages import PITCHES


@dataclass
class Piece:
    """A piece in the making. Its times are in ticks; -1 stands for a length that wasn't asked."""

    phase: int = 0
    now: int = 0  # since the track began
    notes: int = 0  # struck in this track; of a piece of chords, the chords
    tracks: int = 0  # finished
    before: int = 0  # the length of the pieces before this one
    tokens: int = 0  # of all pieces
    ended: int = 0  # 1 where nothing may follow
    primed_tracks: int = 0
    primed_notes: int = 0  # of a primer whose length doesn't count: what is beyond them is composed
    least: int = 0  # before which the piece, or the track that a primer began, isn't to end
    bar: int = 0  # the length of bars
    line: int = 0  # where a bar began, from which on all have that length
    bars: int = 0  # before the line
    bars_before: int = 0  # of the pieces before this one
    begin: int = 0  # of events: where the bar began
    length: int = 0  # and its length, 0 before the first one
    rank: int = -1  # of the last word, if it is of a note, among those of a place
    heard: int = 0  # when a note last began or ended
    struck: int = -1  # when one last began
    closed: int = -1  # where the last cadence stood
    part: int = 0  # where a word tells it, the first of the notes of which others are
    asked_tokens: int = -1
    asked_ticks: int = -1
    asked_bars: int = -1
    most: int = 0  # tokens at most
    measure: int = WHOLE_NOTE  # the length of bars where no word tells of one


FIELDS = tuple(field.name for field in fields(Piece))


# Lengths -----------------------------------------------------------------------------------------


def begin(rules: Rules, piece: Piece, sounding: Array) -> None:
    """Begin a piece, perhaps after others: what was asked for stays."""
    piece.phase = rules.phase
    piece.now = piece.notes = piece.tracks = 0
    piece.primed_tracks = piece.primed_notes = 0
    piece.least = rules.least
    piece.bar = piece.measure
    piece.line = piece.bars = 0
    piece.begin = piece.length = piece.heard = piece.part = 0
    piece.rank = piece.struck = piece.closed = SILENT
    sounding[:] = SILENT


def line_after(tick: int, bar: int, line: int) -> int:
    """Return the first bar line at or after a tick: they lie a bar apart, and one at a line."""
    return line - (line - tick) // bar * bar


def next_bar(piece: Piece) -> int:
    """Return the first bar line by which the piece is over if nothing follows.

    A note that was struck just now takes some time.
    """
    return line_after(piece.now + (piece.struck == piece.now), piece.bar, piece.line)


def bars_in(piece: Piece) -> int:
    """Return how many bars the piece has, the one in which it stands among them."""
    return piece.bars + (next_bar(piece) - piece.line) // piece.bar


def limit_of(rules: Rules, piece: Piece) -> int:
    """Return the tick of the piece at which it is to end, NO_LIMIT where there is none."""
    if piece.asked_bars < 0 and piece.asked_ticks < 0:
        return piece.now if is_over(rules, piece) else NO_LIMIT
    if piece.asked_bars < 0:
        return max(piece.asked_ticks - piece.before, 0)
    bar = piece.bar
    if rules.events and piece.bars == 0 and piece.line == piece.begin:
        bar = max(bar, WHOLE_NOTE)  # the first may be a pickup: until there are two, it is of 4/4
    bars = piece.asked_bars - piece.bars_before - piece.bars
    return max(min(piece.line + bars * bar, FAR), 0)


def is_over(rules: Rules, piece: Piece) -> bool:
    """Return whether a piece without a length is as long as real ones are, and a phrase has ended.

    A network that has lost its way may go on for ever.
    """
    ended = SILENT < piece.closed < piece.now and piece.struck <= piece.closed
    return ended and 0 < rules.longest_piece <= piece.now


def is_empty(piece: Piece) -> bool:
    """Return whether nothing is written yet, beyond a primer that doesn't count."""
    return piece.tracks == piece.primed_tracks and piece.notes == piece.primed_notes


def is_early(piece: Piece) -> bool:
    """Return whether less is written than a piece without a length has at least."""
    return piece.tracks == piece.primed_tracks and piece.now < piece.least


def may_end(rules: Rules, piece: Piece) -> bool:
    """Return whether the piece may end here: the last of a number of tokens is no end."""
    limit = limit_of(rules, piece)
    if piece.asked_tokens >= 0:
        return piece.asked_tokens - piece.tokens > 1
    if rules.frame_ticks > 0 and limit >= 0:
        return not is_empty(piece) and next_bar(piece) < limit
    return limit >= 0 or not is_early(piece)


def leaves_room(rules: Rules, piece: Piece) -> bool:
    """Return whether another piece is to follow: for a token or a bar, of chords for a frame."""
    if piece.asked_tokens >= 0:
        return piece.asked_tokens - piece.tokens > 1
    limit = limit_of(rules, piece)
    least = 1 if rules.frame_ticks > 0 else piece.bar
    return rules.merged and limit >= 0 and limit - next_bar(piece) >= least


def is_full(rules: Rules, piece: Piece) -> bool:
    """Return whether nothing is left of the length that was asked for, or of the most tokens.

    A track may go on to its limit and end there; chords fill theirs.
    """
    if piece.tokens in (piece.asked_tokens, piece.most):
        return True
    limit = limit_of(rules, piece)
    return rules.frame_ticks > 0 and limit >= 0 and piece.now >= limit


# What may come -----------------------------------------------------------------------------------


def facts_of_piece(rules: Rules, piece: Piece, limit: int, ends: bool) -> int:
    """Return the facts of a piece that hold. limit: a tick or NO_LIMIT; ends: it may end."""
    composed = not is_empty(piece)
    last_quarter = limit < 0 or limit - piece.now <= TICKS_PER_QUARTER
    track_done = last_quarter or (piece.tracks > 0 and piece.now == 0)
    full = ends and composed and piece.tracks >= rules.max_tracks
    bar = max(piece.begin + piece.length, piece.now)
    heard = piece.notes > 0 and bar <= piece.heard + rules.longest_note
    return (
        COMPOSED * composed
        | MAY_END * ends
        | LONG_ENOUGH * (not is_early(piece))
        | LAST_QUARTER * last_quarter
        | TRACK_DONE * track_done
        | TRACK_ROOM * (not full)
        | HEARD_LATELY * heard
    )


def hold(facts: int, needs: int) -> bool:
    """Return whether what must hold is among the facts that do."""
    return facts & needs == needs


def may_sound(sounding: Array) -> Iterable[int]:
    """Return notes among which are all that sound: compiled, that is every note."""
    return map(int, (sounding != SILENT).nonzero()[0])


def first_in_order(rank: int, kind: int) -> int:
    """Return the first note that a word of some kind may tell after a word of some rank.

    A part has its notes at a place end, move and begin in this order; it moves once.
    """
    if rank < 0:
        return 0
    part, last = rank // (3 * PITCHES), rank // PITCHES % 3
    if kind > last:
        return part * PITCHES
    if kind == last and kind != MOVE:
        return part * PITCHES + rank % PITCHES + 1
    return (part + 1) * PITCHES


def allow_notes(
    rules: Rules, piece: Piece, sounding: Array, limit: int, facts: int, longest: Array
) -> None:
    """Write the longest deltas of words of notes; facts: the piece's."""
    left = limit - piece.now if limit >= 0 else FAR
    silent = facts | STRUCK_BEFORE | IN_ORDER
    for kind in range(NOTE_ON + 1):
        needs = int(rules.needs[piece.phase, kind])
        first, most = NOTES + kind * rules.notes, left - (kind != NOTE_OFF)
        longest[first : first + rules.notes] = most if hold(silent, needs) else NEVER
        for note in may_sound(sounding):
            began = int(sounding[note])
            if began == SILENT:
                continue
            stays = most
            if kind == NOTE_OFF and needs & SOUNDS:
                age = began + rules.longest_note - piece.now
                stays = age if rules.events else min(left, age)
            note_facts = silent | SOUNDS
            note_facts -= STRUCK_BEFORE * (began == piece.now)
            may = stays if hold(note_facts, needs) else NEVER
            if note >= PITCHES:
                longest[first + note] = may
            if 0 <= note - piece.part < PITCHES:
                longest[first + note - piece.part] = may
        if needs & IN_ORDER:
            longest[first : first + first_in_order(piece.rank, kind)] = NEVER


def any_stops_at(rules: Rules, sounding: Array, tick: int) -> bool:
    """Return whether a note that sounds may end at a tick."""
    for note in may_sound(sounding):
        told = min(rules.shortest[NOTES + note], rules.shortest[NOTES + note % rules.told])
        if sounding[note] != SILENT and told < NONE and sounding[note] + rules.longest_note >= tick:
            return True
    return False


def allow_times(
    rules: Rules, piece: Piece, sounding: Array, limit: int, facts: int, longest: Array
) -> None:
    """Write the longest deltas of places and bars: those at which something may be.

    At the limit that is the end of a note.
    """
    place, bar_line = int(rules.needs[piece.phase, PLACE]), int(rules.needs[piece.phase, BAR_LINE])
    latest = min(limit if limit >= 0 else FAR, LAST_TICK)
    latest -= not any_stops_at(rules, sounding, latest)
    after = -1 if piece.phase == AFTER_BAR else piece.now - piece.begin
    before = min(piece.length, latest - piece.begin + 1) if hold(facts, place) else NEVER
    first, stop = np.searchsorted(rules.places, after + 1), np.searchsorted(rules.places, before)
    places = NOTES + 3 * rules.notes
    longest[places + first : places + stop] = 0
    first_place = int(rules.places[0]) if len(rules.places) > 0 else FAR
    fits = max(piece.begin + piece.length, piece.now) + first_place <= latest
    same = UNTOLD if piece.length > first_place else TOLD
    longest[BARS] = same if fits and hold(facts, bar_line) else NEVER


def allow_shifts(
    rules: Rules, piece: Piece, sounding: Array, limit: int, facts: int, longest: Array
) -> None:
    """Write the longest shift, and whether a velocity or part may come: a note may begin after it.

    At the limit there is the end of a note, or nothing.
    """
    needs, phase = rules.needs, piece.phase
    latest = min(limit if limit >= 0 else FAR, LAST_TICK)
    latest -= not any_stops_at(rules, sounding, latest)
    latest = min(latest, piece.heard + rules.longest_pause)
    begins = limit < 0 or piece.now < limit
    longest[SHIFTS] = latest - piece.now if hold(facts, int(needs[phase, SHIFT])) else NEVER
    longest[VELOCITIES] = 0 if begins and hold(facts, int(needs[phase, VELOCITY])) else NEVER
    longest[PARTS] = 0 if begins and hold(facts, int(needs[phase, PART])) else NEVER


def any_within(rules: Rules, longest: Array, first: int, stop: int) -> bool:
    """Return whether a word of the classes from the first up to another may come."""
    return bool((rules.shortest[first:stop] <= longest[first:stop]).any())


def any_begins(rules: Rules, longest: Array) -> bool:
    """Return whether a word may come with which a piece can begin."""
    begins = any_within(rules, longest, CHORDS, NOTES)
    return begins or any_within(rules, longest, NOTES + rules.notes, len(longest))


def allow(
    rules: Rules, piece: Piece, sounding: Array, limit: int, ends: bool, longest: Array
) -> None:
    """Write the longest delta of each class (C,). limit: a tick or NO_LIMIT; ends: it may end.

    Where nothing may come, the track or piece ends.
    """
    facts = facts_of_piece(rules, piece, limit, ends)
    longest[:] = NEVER
    if rules.frame_ticks == 0:
        allow_notes(rules, piece, sounding, limit, facts, longest)
    if rules.events:
        allow_times(rules, piece, sounding, limit, facts, longest)
    if rules.longest_pause >= 0:
        allow_shifts(rules, piece, sounding, limit, facts, longest)
    needs, phase = rules.needs, piece.phase
    longest[KEYS] = 0 if hold(facts, int(needs[phase, KEY])) else NEVER
    longest[CADENCES] = 0 if hold(facts, int(needs[phase, CADENCE])) else NEVER
    longest[CHORDS] = 0 if hold(facts, int(needs[phase, CHORD])) else NEVER
    longest[TRACK_ENDS] = 0 if hold(facts, int(needs[phase, TRACK_END])) else NEVER
    longest[PIECE_ENDS] = 0 if hold(facts, int(needs[phase, PIECE_END])) else NEVER
    if not any_within(rules, longest, 0, len(longest)):
        in_track = piece.phase == IN_TRACK and rules.shortest[TRACK_ENDS] < NONE
        longest[TRACK_ENDS if in_track else PIECE_ENDS] = 0


def longest_deltas(rules: Rules, piece: Piece, sounding: Array, longest: Array) -> None:
    """Write the longest delta of each class (C,) that may come next, NEVER for none.

    Where no note of the vocabulary fits the limit, the piece becomes too long rather than empty.
    """
    ends = may_end(rules, piece)
    limit = NO_LIMIT if rules.frame_ticks > 0 else limit_of(rules, piece)
    allow(rules, piece, sounding, limit, ends, longest)
    if is_empty(piece) and not any_begins(rules, longest):
        allow(rules, piece, sounding, NO_LIMIT, ends, longest)


# What a word changes -----------------------------------------------------------------------------


def rank_of(kind: int, note: int) -> int:
    """Return which of the words of a place one of a note is, -1 of any other word."""
    part, pitch = note // PITCHES, note % PITCHES
    return (part * 3 + kind) * PITCHES + pitch if kind <= NOTE_ON else -1


def open_bar(piece: Piece, length: int) -> None:
    """Begin a bar of so many ticks. A pickup, a first bar that is shorter, completes the last.

    So bars are counted from before it.
    """
    missing = piece.begin - piece.line
    if piece.bars == 0 and missing == 0 and length > piece.length:
        missing = piece.length
    else:
        piece.bars += 1
    piece.begin = piece.now
    piece.line = piece.begin - missing
    piece.length = piece.bar = length


def tidy(rules: Rules, piece: Piece, sounding: Array) -> None:
    """As midi.tidy_track: notes end of old age, and the oldest make room."""
    voices = 0
    for pitch in may_sound(sounding):
        began = int(sounding[pitch])
        if began != SILENT and began < piece.now and began + rules.rings <= piece.now:
            sounding[pitch] = SILENT
        elif began != SILENT:
            voices += 1
    while voices > rules.most_notes:
        oldest = SILENT
        for pitch in may_sound(sounding):
            sounds = sounding[pitch] != SILENT
            if sounds and (oldest == SILENT or sounding[pitch] < sounding[oldest]):
                oldest = pitch
        if sounding[oldest] == piece.now:
            break
        sounding[oldest] = SILENT
        voices -= 1


def advance(rules: Rules, piece: Piece, sounding: Array, id: int) -> None:
    """Change a piece to what it is after a word, whether it might come or not; no piece's end."""
    kind, number = int(rules.kinds[id]), int(rules.numbers[id])
    piece.phase = int(rules.next[piece.phase, kind])
    piece.rank = rank_of(kind, number)
    if kind == TRACK_END:
        piece.tracks += 1
        piece.now = piece.notes = 0
        piece.struck = SILENT
        sounding[:] = SILENT
        return
    to = piece.now + int(rules.steps[id])
    if kind == PLACE:
        to = max(piece.begin + number, piece.now)
    elif kind == BAR_LINE:
        to = max(piece.begin + piece.length, piece.now)
    piece.now = min(to, LAST_TICK)
    if kind == BAR_LINE:
        open_bar(piece, number if number > 0 else piece.length if piece.length > 0 else WHOLE_NOTE)
    elif kind <= CHORD:
        piece.heard = piece.now
        piece.notes += kind != NOTE_OFF
    if kind == CADENCE:
        piece.closed = piece.now
    if kind == MOVE:
        part = number // PITCHES * PITCHES
        sounding[part : part + PITCHES] = SILENT
    if kind == PART:
        piece.part = number
    if kind <= NOTE_ON:
        piece.struck = piece.struck if kind == NOTE_OFF else piece.now
        note = number + piece.part * (number < PITCHES)
        sounding[note] = SILENT if kind == NOTE_OFF else piece.now
    if kind != CHORD:
        tidy(rules, piece, sounding)


def extend(rules: Rules, piece: Piece, sounding: Array, id: int) -> bool:
    """Take a word; return whether it belongs to the piece: the end doesn't, if nothing follows."""
    taken = id != rules.start or leaves_room(rules, piece)
    if id != rules.start:
        advance(rules, piece, sounding, id)
    elif taken:
        piece.bars_before += bars_in(piece)
        piece.before += next_bar(piece)
        begin(rules, piece, sounding)
    piece.tokens += taken
    if not taken or is_full(rules, piece):
        piece.ended = 1
    return taken
