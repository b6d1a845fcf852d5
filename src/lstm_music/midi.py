"""MIDI files to pieces of repaired tracks, and back."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from lstm_music import midi_file
from lstm_music.midi_file import Meter, Rows
from lstm_music.names import printable

TICKS_PER_QUARTER = 480
WHOLE_NOTE = 4 * TICKS_PER_QUARTER
LAST_TICK = midi_file.MOST_QUARTERS * TICKS_PER_QUARTER  # nothing lies later
MOST_TRACKS = 2**15 - 2  # a MIDI file counts its tracks in 15 bits; one holds the tempo
MOST_BYTES, REPAIRS = midi_file.MOST_BYTES, midi_file.REPAIRS

TICK, KIND, PITCH = range(3)  # the columns of Messages
CHANNEL, VELOCITY, TRACK = 3, 4, 5  # more columns of Rows
NOTE_OFF, NOTE_ON = range(2)  # the values of KIND

NO_CHANNEL = np.array([1, 1, 1, 0, 1, 1], np.int32)  # times a row: that on channel 0

DRUMS = 9  # a channel
HIT = TICKS_PER_QUARTER // 8  # ticks of a drum hit that ends as it begins: a 32nd note
CHANNELS = tuple(channel for channel in range(16) if channel != DRUMS)

Messages: TypeAlias = npt.NDArray[np.int32]
"""(n, 3) int32: absolute tick at 480 per quarter note, 1 note-on or 0 note-off, pitch 0-127.

Rows are in file order, so ticks never decrease.
"""

Counts: TypeAlias = npt.NDArray[np.int64]

Notes: TypeAlias = npt.NDArray[np.int32]
"""(n, 3) int32: start tick, end tick, pitch 0-127, sorted by start, then pitch."""

MidiError = midi_file.MidiError


class DrumsAlone(MidiError):
    """This MIDI file has notes, but no others than drums, which are left out."""


def no_meter() -> Meter:
    """Return the meter of a piece that says nothing of it: 4/4 from its beginning."""
    return np.zeros((0, 2), np.int32)


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of music: its tracks play together, and each holds at least one note.

    meter: its bars, of 4/4 where it says nothing else. repairs: what was mended as it was read,
    kind of repair -> how often; the kinds are in REPAIRS. drums: which tracks are drums; none is
    where it is empty.
    """

    name: str
    tracks: list[Messages]
    repairs: dict[str, int] = field(default_factory=dict)
    meter: Meter = field(default_factory=no_meter)
    drums: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))


# Reading ----------------------------------------------------------------------------------------


def read_midi(source: Path | bytes, name: str, drums: bool = False) -> Piece:
    """Read a MIDI file, given by its path or its content, and repair its tracks.

    drums: whether the notes of the drum channel are kept; a track is drums if most of its notes
    are. Tracks without a note are dropped; no note is of length zero. Raises MidiError where the
    file can't be used.
    """
    rows, repairs, meter, kinds = _read(source, drums)
    return Piece(name, _by_track(_messages(rows), rows), dict(repairs), meter, kinds)


def read_any(source: Path | bytes, name: str) -> tuple[Piece, bool]:
    """Read a MIDI file as read_midi does, with its drums where it has nothing else.

    Returns also whether it has.
    """
    try:
        return read_midi(source, name), False
    except DrumsAlone:
        return read_midi(source, name, drums=True), True


def velocities_of(source: Path | bytes, drums: bool = False) -> list[npt.NDArray[np.int32]]:
    """Return the velocities, 1-127, of the notes of each of read_midi's tracks, as notes_of orders.

    Raises MidiError where the file can't be used.
    """
    rows = _read(source, drums)[0]
    ons = rows[rows[:, KIND] == NOTE_ON]
    ons = ons[np.lexsort((ons[:, PITCH], ons[:, TICK], ons[:, TRACK]))]
    return _by_track(ons[:, VELOCITY], ons)


def raw_tracks(source: Path | bytes) -> list[Messages]:
    """Return every track's note messages as the file has them, before repair.

    The time between two note messages of a track is scaled to 480 ticks per quarter note and
    rounded, half to even. Raises MidiError where the file can't be used.
    """
    file = midi_file.read_file(source, TICKS_PER_QUARTER)
    ends = np.searchsorted(file.rows[:, TRACK], np.arange(file.tracks), side="right").tolist()
    return [_messages(file.rows[begin:end]) for begin, end in pairwise([0, *ends])]


def _by_track(values: npt.NDArray[np.int32], rows: Rows) -> list[npt.NDArray[np.int32]]:
    """Return the values (n, …) that belong to the rows (n, 6) of each track that has any."""
    changes = np.flatnonzero(np.diff(rows[:, TRACK])) + 1
    return [values[begin:end] for begin, end in pairwise([0, *changes.tolist(), len(rows)])]


def _messages(rows: Rows) -> Messages:
    return np.ascontiguousarray(rows[:, : PITCH + 1])


def _read(source: Path | bytes, drums: bool) -> tuple[Rows, Counter[str], Meter, tuple[bool, ...]]:
    """Return a file's repaired tracks, what was repaired, its meter, and which tracks are drums."""
    file = midi_file.read_file(source, TICKS_PER_QUARTER)
    rows, repairs = file.rows, file.repairs
    if not drums:
        drum = rows[:, CHANNEL] == DRUMS
        repairs["drum notes left out"] += int(np.count_nonzero(drum & (rows[:, KIND] == NOTE_ON)))
        rows = rows[~drum] if drum.any() else rows
    rows = _repaired(rows, repairs)
    rows = _sounding(_with_hits(rows, repairs) if drums else rows, repairs)
    if not len(rows):
        raise _no_notes(repairs)
    meter = file.meter
    if file.kind == 2:  # whose sequences each have a meter of their own, from tick 0
        rows, meter = _end_to_end(rows, repairs), no_meter()
    if file.kind != 1 and rows[0, TRACK] == rows[-1, TRACK]:
        rows = _by_channel(rows, repairs)
    single = _one_a_pitch(rows, repairs)
    if not drums:
        return single, +repairs, meter, ()
    kinds = np.bincount(rows[:, TRACK], 2.0 * (rows[:, CHANNEL] == DRUMS) - 1) > 0
    return single, +repairs, meter, tuple(kinds[np.unique(single[:, TRACK])].tolist())


def _no_notes(repairs: Counter[str]) -> MidiError:
    """Return why a file has no notes, from what was left out of it."""
    kinds = ("drum notes left out", "notes of length zero", "tracks cut off", "damaged tracks")
    found = [f"{kind}: {repairs[kind]}" for kind in kinds if repairs[kind]]
    if repairs[kinds[0]]:
        found[0] += ", which bin/train --drums keeps"
    kind = DrumsAlone if repairs[kinds[0]] else MidiError
    return kind(f"has no notes ({', '.join(found)})" if found else "has no notes")


def _voices(rows: Rows) -> npt.NDArray[np.int32]:
    """Return a number for the track, channel and pitch of each message (n,)."""
    voices: npt.NDArray[np.int32] = (rows[:, TRACK] * 16 + rows[:, CHANNEL]) * 128 + rows[:, PITCH]
    return voices


def _repaired(rows: Rows, repairs: Counter[str]) -> Rows:
    """Return tracks in which the messages of each voice alternate.

    A note struck while its voice sounds ends there, and the new one lasts until as many ends came
    as notes were struck. Where they never come, ends are missing: then the next one ends the note.
    """
    alternating, hanging = _alternating(rows, _voices(rows), True, repairs)
    if not len(hanging):
        return alternating
    ends = np.searchsorted(rows[:, TRACK], hanging[:, TRACK], side="right") - 1
    closed = np.concatenate([alternating, _closing(hanging, rows[ends, TICK])])
    return closed[np.argsort(closed[:, TRACK], kind="stable")]


def _with_hits(rows: Rows, repairs: Counter[str]) -> Rows:
    """Return tracks of repaired voices in which a drum hit of length zero lasts HIT ticks.

    Sooner the next hit of its voice ends it.
    """
    voices = _voices(rows)
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


def _sounding(rows: Rows, repairs: Counter[str]) -> Rows:
    """Return tracks of repaired voices without the notes of length zero."""
    order = np.argsort(_voices(rows), kind="stable")
    ons, offs = order[0::2], order[1::2]  # within a voice they alternate
    silent = rows[ons, TICK] == rows[offs, TICK]
    repairs["notes of length zero"] += int(np.count_nonzero(silent))
    return np.delete(rows, [ons[silent], offs[silent]], axis=0) if silent.any() else rows


def _end_to_end(rows: Rows, repairs: Counter[str]) -> Rows:
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


def _by_channel(rows: Rows, repairs: Counter[str]) -> Rows:
    """Return one track of repaired voices as a track per channel, in order of channel."""
    split = rows[np.argsort(rows[:, CHANNEL], kind="stable")]
    split[:, TRACK] = split[:, CHANNEL]
    repairs["channels made tracks"] += int(split[0, CHANNEL] < split[-1, CHANNEL])
    return split


def _one_a_pitch(rows: Rows, repairs: Counter[str]) -> Rows:
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
    return rows if joined is rows else _sounding(joined * NO_CHANNEL, Counter())


# Repair -----------------------------------------------------------------------------------------


def repaired_tracks(tracks: Iterable[Messages]) -> list[Messages]:
    """Repair each track and drop those in which no note is left."""
    return [track for track in map(repair_track, tracks) if len(track)]


def repair_track(messages: Messages) -> Messages:
    """Return the track with each pitch's messages alternating on, off, on, …, off.

    A note struck while it sounds ends there first; a note-off for a silent pitch is dropped; a
    note left hanging ends at the last tick, or a quarter note later if it was struck there.
    """
    alternating, hanging = _alternating(messages, messages[:, PITCH], False, Counter())
    return np.concatenate([alternating, _closing(hanging, messages[-1:, TICK])])


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


def notes_of(track: Messages) -> Notes:
    """Return a repaired track's notes (n, 3): start tick, end tick, pitch, by start and pitch."""
    by_pitch = track[np.argsort(track[:, PITCH], kind="stable")]
    ons, offs = by_pitch[0::2], by_pitch[1::2]  # a repaired track alternates within a pitch
    notes = np.stack([ons[:, TICK], offs[:, TICK], ons[:, PITCH]], axis=1)
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]


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
    return _sorted_messages(*heard.T) if len(heard) else track


def merge_tracks(piece: Piece) -> Messages:
    """Return all tracks on one time line, ordered by tick, then off before on, then pitch.

    A pitch struck at once in several tracks is one note that lasts to the latest end; one struck
    while it sounds ends there and sounds on, as a new note, to the latest end. Notes of length
    zero are dropped.
    """
    if not piece.tracks:
        return np.empty((0, 3), dtype=np.int32)
    notes = np.concatenate([notes_of(track) for track in piece.tracks])
    start, end, pitch = _without_overlaps(notes[notes[:, 0] < notes[:, 1]])
    return _sorted_messages(start, end, pitch)


def _without_overlaps(notes: Notes) -> tuple[npt.NDArray[np.int64], ...]:
    """Resolve notes that share a pitch: start, end, pitch, each (m,), by pitch and start."""
    start, end, pitch = notes[np.lexsort((notes[:, 0], notes[:, 2]))].T.astype(np.int64)
    # The latest end so far within a pitch: the offset keeps one pitch's ends off the next.
    offset = pitch << 32
    end = np.maximum.accumulate(end + offset) - offset
    next_start, same_pitch = start[1:], pitch[1:] == pitch[:-1]
    end[:-1] = np.where(same_pitch, np.minimum(end[:-1], next_start), end[:-1])
    struck_alone = start < end  # of notes struck at once, the last holds the latest end
    return start[struck_alone], end[struck_alone], pitch[struck_alone]


def _sorted_messages(
    start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], pitch: npt.NDArray[np.int64]
) -> Messages:
    ons = np.stack([start, np.full_like(start, NOTE_ON), pitch], axis=1)
    offs = np.stack([end, np.full_like(end, NOTE_OFF), pitch], axis=1)
    messages = np.concatenate([ons, offs]).astype(np.int32)
    return messages[np.lexsort((messages[:, PITCH], messages[:, KIND], messages[:, TICK]))]


def write_midi(
    piece: Piece,
    path_or_file: Path | str | BinaryIO,
    tempo: float = 90.0,
    program: int = 0,
    velocity: int = 80,
) -> None:
    """Write a type 1 MIDI file: a track with the tempo and the meter, then the piece's tracks.

    tempo is in quarter notes per minute, program is 0-127 (General MIDI), velocity 1-127; each
    track has a channel of its own while there are any, and drums, which have no program, alone
    are on the drum channel. Raises
    ValueError for a number out of its range, OSError where the file can't be written.
    """
    if not 1 <= velocity <= 127:  # a note-on of velocity 0 would be a note-off
        raise ValueError(f"velocity must be between 1 and 127, not {velocity}")
    # mido, without which a network trains and draws.
    from lstm_music.midi_writing import as_midi

    midi = as_midi(piece, tempo, program, velocity)
    if isinstance(path_or_file, (str, Path)):
        midi.save(filename=path_or_file)
    else:
        midi.save(file=path_or_file)
