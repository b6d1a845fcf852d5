"""Tracks repaired: notes that hang, overlap or last no time; tracks merged and tidied."""

from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lstm_music.midi import bytes as midi_file
from lstm_music.midi.bytes import Rows
from lstm_music.midi.piece import (
    CHANNEL,
    DRUMS,
    KIND,
    LAST_TICK,
    NOTE_OFF,
    NOTE_ON,
    PITCH,
    TICK,
    TICKS_PER_QUARTER,
    TRACK,
    WHOLE_NOTE,
    Messages,
    MidiError,
    Notes,
    Piece,
    Velocities,
    notes_of,
)

NO_CHANNEL = np.array([1, 1, 1, 0, 1, 1], np.int32)  # times a row: that on channel 0
HIT = TICKS_PER_QUARTER // 4  # ticks of a drum hit that ends as it begins: a sixteenth
Counts: TypeAlias = npt.NDArray[np.int64]


def voices_of(rows: Rows) -> npt.NDArray[np.int32]:
    """Return a number for the track, channel and pitch of each message (n,)."""
    voices: npt.NDArray[np.int32] = (rows[:, TRACK] * 16 + rows[:, CHANNEL]) * 128 + rows[:, PITCH]
    return voices


def repaired_voices(rows: Rows, repairs: Counter[str]) -> Rows:
    """Return tracks in which the messages of each voice alternate.

    A note struck while its voice sounds ends there, and the new one lasts until as many ends came
    as notes were struck. Where they never come, ends are missing: then the next one ends the note.
    """
    alternating, hanging = _alternating(rows, voices_of(rows), True, repairs)
    if not len(hanging):
        return alternating
    ends = np.searchsorted(rows[:, TRACK], hanging[:, TRACK], side="right") - 1
    closed = np.concatenate([alternating, _closing(hanging, rows[ends, TICK])])
    return closed[np.argsort(closed[:, TRACK], kind="stable")]


def with_hits(rows: Rows, repairs: Counter[str]) -> Rows:
    """Return tracks of repaired voices in which a drum hit of length zero lasts HIT ticks.

    Sooner the next hit of its voice ends it.
    """
    voices = voices_of(rows)
    order = np.argsort(voices, kind="stable")
    ons, offs = order[0::2], order[1::2]  # within a voice they alternate
    start, voice = rows[ons, TICK], voices[ons]
    hits = (start == rows[offs, TICK]) & (rows[ons, CHANNEL] == DRUMS)
    if not hits.any():
        return rows
    end = np.minimum(start + HIT, LAST_TICK)
    end[:-1] = np.where(voice[1:] == voice[:-1], np.minimum(end[:-1], start[1:]), end[:-1])
    longer = rows.copy()
    longer[offs[hits], TICK] = end[hits]
    repairs["drum hits of length zero"] += int(np.count_nonzero(hits & (start < end)))
    return longer[np.lexsort((longer[:, TICK], longer[:, TRACK]))]


def without_silent(rows: Rows, repairs: Counter[str]) -> Rows:
    """Return tracks of repaired voices without the notes of length zero."""
    order = np.argsort(voices_of(rows), kind="stable")
    ons, offs = order[0::2], order[1::2]  # within a voice they alternate
    silent = rows[ons, TICK] == rows[offs, TICK]
    repairs["notes of length zero"] += int(np.count_nonzero(silent))
    return np.delete(rows, [ons[silent], offs[silent]], axis=0) if silent.any() else rows


def end_to_end(rows: Rows, repairs: Counter[str]) -> Rows:
    """Return repaired tracks as one, each from the next whole note on after the one before."""
    moved, begin = rows.copy(), 0
    for number in np.unique(rows[:, TRACK]):
        track = rows[:, TRACK] == number
        moved[track, TICK] += begin
        begin += -(-int(rows[track, TICK].max()) // WHOLE_NOTE) * WHOLE_NOTE
        if moved[track, TICK].max() > LAST_TICK:
            raise MidiError(midi_file.TOO_LONG)
    repairs["sequences end to end"] += int(rows[0, TRACK] < rows[-1, TRACK])
    moved[:, TRACK] = 0
    return moved


def by_channel(rows: Rows, repairs: Counter[str]) -> Rows:
    """Return one track of repaired voices as a track per channel, in order of channel."""
    split = rows[np.argsort(rows[:, CHANNEL], kind="stable")]
    split[:, TRACK] = split[:, CHANNEL]
    repairs["channels made tracks"] += int(split[0, CHANNEL] < split[-1, CHANNEL])
    return split


def one_a_pitch(rows: Rows, repairs: Counter[str]) -> Rows:
    """Return tracks of repaired voices so that no pitch of a track sounds on two channels at once.

    A note struck while its pitch sounds ends that and sounds on to the latest end, as a new note.
    """
    before, after = rows[:-1], rows[1:]
    one_track = before[:, TRACK] == after[:, TRACK]
    if not (one_track & (before[:, CHANNEL] != after[:, CHANNEL])).any():
        return rows
    pitches = rows[:, TRACK] * 128 + rows[:, PITCH]
    found: Counter[str] = Counter()
    joined = _alternating(rows, pitches, True, found)[0]
    repairs["notes struck on two channels"] += found["notes struck while sounding"]
    return rows if joined is rows else without_silent(joined * NO_CHANNEL, Counter())


def repaired_tracks(tracks: Iterable[Messages]) -> list[Messages]:
    """Repair each track and drop those in which no note is left."""
    return [track for track in map(repair_track, tracks) if len(track)]


def repair_track(messages: Messages, last: int = 0) -> Messages:
    """Return the track with each pitch's messages alternating on, off, on, …, off.

    A note struck while it sounds ends there first; a note-off for a silent pitch is dropped; a
    note left hanging ends at the last tick, or a quarter note later if it was struck there. last:
    that of other tracks, if they go on.
    """
    alternating, hanging = _alternating(messages, messages[:, PITCH], False, Counter())
    return np.concatenate([alternating, _closing(hanging, np.maximum(messages[-1:, TICK], last))])


def _alternating(
    messages: Rows, voices: npt.NDArray[np.int32], counted: bool, repairs: Counter[str]
) -> tuple[Rows, Rows]:
    """Return messages so that those of each voice (n,) alternate, and the ons that have no end.

    counted: whether it takes as many offs to silence a voice as there were ons; else one will do.
    """
    if not len(messages):
        return messages, messages
    order = np.argsort(voices, kind="stable")
    on, voices = messages[order, KIND] == NOTE_ON, voices[order]
    begins = np.append(True, voices[1:] != voices[:-1])
    after = _notes_sounding(on, np.flatnonzero(begins)) if counted else on.astype(np.int64)
    before = np.where(begins, 0, np.roll(after, 1))
    copies = np.empty(len(on), np.int64)
    copies[order] = np.where(on, 1 + (before > 0), (before > 0) & (after == 0))
    repairs["notes struck while sounding"] += int(np.count_nonzero(on & (before > 0)))
    repairs["orphan note-offs"] += int(np.count_nonzero(~on & (before == 0)))
    hanging = messages[np.sort(order[np.roll(begins, -1) & (after > 0)])]
    repairs["hanging notes"] += len(hanging)
    if (copies == 1).all():
        return messages, hanging
    alternating = np.repeat(messages, copies, axis=0)
    first_copy = np.cumsum(copies) - copies
    alternating[first_copy[copies == 2], KIND] = NOTE_OFF  # the note before ends
    return alternating, hanging


def _notes_sounding(on: npt.NDArray[np.bool_], begins: npt.NDArray[np.intp]) -> Counts:
    """Return how many notes of its voice sound after each message, by voice (n,).

    begins: where each voice begins. From where a voice is never silent again, one note at most.
    """
    sizes = np.diff(begins, append=len(on))
    apart = np.repeat(np.arange(len(begins)) * 2 * len(on), sizes)  # no voice reaches the next
    total = np.cumsum(2 * on - 1)
    total -= np.repeat(total[begins] - (2 * on[begins] - 1), sizes) + apart
    # Offs in silence count for nothing: what they take away is the least total so far, below 0.
    lowest = np.minimum.accumulate(np.minimum(total, -apart))
    after: Counts = total - lowest
    silent = np.where(after == 0, np.arange(len(on)), -1)
    last_silence = np.repeat(np.maximum.reduceat(silent, begins), sizes)
    return np.where(np.arange(len(on)) > last_silence, on, after)


def _closing(hanging: Rows, ends: npt.NDArray[np.int32]) -> Rows:
    """Return the note-offs that end hanging notes, of tracks that end at these ticks (n,)."""
    offs = hanging.copy()
    later = np.minimum(ends + TICKS_PER_QUARTER, LAST_TICK)
    offs[:, TICK] = np.where(hanging[:, TICK] < ends, ends, later)
    offs[:, KIND] = NOTE_OFF
    return offs[np.lexsort((offs[:, PITCH], offs[:, TICK]))]


def tidy_track(track: Messages, longest_note: int, most_notes: int) -> Messages:
    """Return a repaired track in which no note lasts too long and not too many sound at once.

    A note longer than longest_note ticks ends at that age. Where a note-on would make more than
    most_notes sound, the oldest that began before it end there (the lowest first, of one age).
    Notes of length zero are dropped, unless there are no others.
    """
    notes = notes_of(track)
    notes[:, 1] = np.minimum(notes[:, 1], notes[:, 0] + max(longest_note, 1))
    sounding: list[int] = []
    for n, (start, _, _) in enumerate(notes.tolist()):
        sounding = [m for m in sounding if notes[m, 1] > start]
        sounding.append(n)
        while len(sounding) > most_notes and notes[sounding[0], 0] < start:
            notes[sounding.pop(0), 1] = start
    heard = notes[notes[:, 0] < notes[:, 1]].astype(np.int64)
    return sorted_messages(*heard.T) if len(heard) else track


def merge_tracks(piece: Piece) -> Messages:
    """Return all tracks on one time line, ordered by tick, then off before on, then pitch.

    A pitch struck at once in several tracks is one note that lasts to the latest end; one struck
    while it sounds ends there and sounds on, as a new note, to the latest end. Notes of length
    zero are dropped.
    """
    if not piece.tracks:
        return np.empty((0, 3), dtype=np.int32)
    notes = np.concatenate([notes_of(track) for track in piece.tracks])
    start, end, pitch = without_overlaps(notes[notes[:, 0] < notes[:, 1]])
    return sorted_messages(start, end, pitch)


def velocities_of(track: Messages, notes: Notes, velocities: Velocities) -> Velocities:
    """Return the velocity of each note of a track (m,), made of notes (n, 3) that have some (n,).

    That is the loudest of those with its start and pitch, of which there is one at least.
    """
    keys, wanted = ((n[:, 0].astype(np.int64) << 32) + n[:, 2] for n in (notes, notes_of(track)))
    order = np.lexsort((velocities, keys))
    found = np.searchsorted(keys[order], wanted, side="right") - 1
    return velocities[order[found]].astype(np.int32)


def without_overlaps(notes: Notes) -> tuple[npt.NDArray[np.int64], ...]:
    """Resolve notes that share a pitch: start, end, pitch, each (m,), by pitch and start."""
    start, end, pitch = notes[np.lexsort((notes[:, 0], notes[:, 2]))].T.astype(np.int64)
    # The latest end so far within a pitch: the offset keeps one pitch's ends off the next.
    offset = pitch << 32
    end = np.maximum.accumulate(end + offset) - offset
    next_start, same_pitch = start[1:], pitch[1:] == pitch[:-1]
    end[:-1] = np.where(same_pitch, np.minimum(end[:-1], next_start), end[:-1])
    struck_alone = start < end  # of notes struck at once, the last holds the latest end
    return start[struck_alone], end[struck_alone], pitch[struck_alone]


def sorted_messages(
    start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], pitch: npt.NDArray[np.int64]
) -> Messages:
    """Return the messages of notes (m,), by tick, off before on, pitch."""
    ons = np.stack([start, np.full_like(start, NOTE_ON), pitch], axis=1)
    offs = np.stack([end, np.full_like(end, NOTE_OFF), pitch], axis=1)
    messages = np.concatenate([ons, offs]).astype(np.int32)
    return messages[np.lexsort((messages[:, PITCH], messages[:, KIND], messages[:, TICK]))]
