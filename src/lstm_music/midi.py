"""MIDI files to note messages and back, with bad files repaired or refused."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import mido
import numpy as np
import numpy.typing as npt

from lstm_music.errors import UserError

TICKS_PER_QUARTER = 480
LAST_TICK = 2**28 - 1  # the longest delta that a MIDI file can hold, so nothing lies later
MOST_TRACKS = 2**15 - 2  # a MIDI file counts its tracks in 15 bits; one holds the tempo
LONGEST_QUARTER = 2**24 - 1  # microseconds: a MIDI file's tempo has 24 bits

TICK, KIND, PITCH = range(3)  # the columns of Messages
NOTE_OFF, NOTE_ON = range(2)  # the values of KIND

CHANNELS = tuple(channel for channel in range(16) if channel != 9)  # 9 plays drums

Messages: TypeAlias = npt.NDArray[np.int32]
"""(n, 3) int32: absolute tick at 480 per quarter note, 1 note-on or 0 note-off, pitch 0-127.

Rows are in file order, so ticks never decrease.
"""

Notes: TypeAlias = npt.NDArray[np.int32]
"""(n, 3) int32: start tick, end tick, pitch 0-127, sorted by start, then pitch."""


class MidiError(UserError):
    """This MIDI file can't be used; the message is the reason, in one line."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of music: its tracks play together, and each holds at least one note."""

    name: str
    tracks: list[Messages]


def read_midi(source: Path | bytes, name: str) -> Piece:
    """Read a MIDI file, given by its path or its content, and repair its tracks.

    Tracks without a note are dropped. Raises MidiError where the file can't be used.
    """
    tracks = repaired_tracks(raw_tracks(source))
    if not tracks:
        raise MidiError("has no notes")
    return Piece(name, tracks)


def raw_tracks(source: Path | bytes) -> list[Messages]:
    """Return every track's note messages as the file has them, before repair.

    The time between two note messages of a track is scaled to 480 ticks per quarter note and
    rounded, half to even. Raises MidiError where the file can't be used.
    """
    midi = _parse(source)
    return [_note_messages(track, midi.ticks_per_beat) for track in midi.tracks]


def _parse(source: Path | bytes) -> mido.MidiFile:
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        midi = mido.MidiFile(file=io.BytesIO(data), clip=True)
    except EOFError:
        raise MidiError("is cut off: the data end in the middle of a message") from None
    except Exception as error:  # mido raises whatever the rubbish leads it to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MidiError(f"can't be read: {reason}") from error
    if midi.type == 2:
        raise MidiError("is of MIDI type 2, whose tracks share no time line: not supported")
    if midi.type not in (0, 1):
        raise MidiError(f"is of an unknown MIDI type, {midi.type}")
    if midi.ticks_per_beat < 0:
        raise MidiError("measures time in SMPTE frames, not in quarter notes: not supported")
    if midi.ticks_per_beat == 0:
        raise MidiError("has zero ticks per quarter note")
    return midi


def _note_messages(track: Iterable[mido.Message], ticks_per_quarter: int) -> Messages:
    now = 0
    ticks, kinds, pitches = [], [], []
    for message in track:
        now += message.time
        kind = message.type
        if kind in ("note_on", "note_off"):
            ticks.append(now)
            kinds.append(kind == "note_on" and message.velocity > 0)
            pitches.append(message.note)
    if ticks and ticks[-1] * TICKS_PER_QUARTER > LAST_TICK * ticks_per_quarter:
        raise MidiError(f"lasts longer than {LAST_TICK // TICKS_PER_QUARTER} quarter notes")
    deltas = np.diff(np.array(ticks, dtype=np.int64), prepend=0)
    messages = np.empty((len(ticks), 3), dtype=np.int32)
    scaled = np.rint(deltas * TICKS_PER_QUARTER / ticks_per_quarter)
    messages[:, TICK] = np.minimum(np.cumsum(scaled), LAST_TICK)  # rounding may add up past it
    messages[:, KIND] = kinds
    messages[:, PITCH] = pitches
    return messages


def repaired_tracks(tracks: Iterable[Messages]) -> list[Messages]:
    """Repair each track and drop those in which no note is left."""
    return [track for track in map(repair_track, tracks) if len(track)]


def repair_track(messages: Messages) -> Messages:
    """Return the track with each pitch's messages alternating on, off, on, …, off.

    A note struck while it sounds ends there first; a note-off for a silent pitch is dropped; a
    note left hanging ends at the last tick, or a quarter note later if it was struck there.
    """
    if not len(messages):
        return messages
    sounding, unclosed = _sounding_before(messages)
    # An on gives itself, and an off before it where the pitch sounds; an off needs a sounding note.
    copies = messages[:, KIND] + sounding
    repaired = np.repeat(messages, copies, axis=0)
    first_copy = np.cumsum(copies) - copies
    repaired[first_copy[copies == 2], KIND] = NOTE_OFF
    return np.concatenate([repaired, _closing(messages[unclosed], int(messages[-1, TICK]))])


def _sounding_before(messages: Messages) -> tuple[Messages, npt.NDArray[np.intp]]:
    """Find, by row, whether its pitch sounds just before (n,), and which ons nothing follows."""
    order = np.argsort(messages[:, PITCH], kind="stable")
    kinds, pitches = messages[order, KIND], messages[order, PITCH]
    new_pitch = pitches[1:] != pitches[:-1]
    # A pitch sounds exactly if the message before on the same pitch is an on.
    sounding = np.empty_like(kinds)
    sounding[order[0]] = 0
    sounding[order[1:]] = np.where(new_pitch, 0, kinds[:-1])
    last_of_pitch = np.append(new_pitch, True)
    return sounding, order[last_of_pitch & (kinds == NOTE_ON)]


def _closing(hanging: Messages, last_tick: int) -> Messages:
    """Return the note-offs that end the hanging notes of a track that ends at last_tick."""
    later = max(last_tick, min(last_tick + TICKS_PER_QUARTER, LAST_TICK))
    offs = hanging.copy()
    offs[:, TICK] = np.where(hanging[:, TICK] < last_tick, last_tick, later)
    offs[:, KIND] = NOTE_OFF
    return offs[np.lexsort((offs[:, PITCH], offs[:, TICK]))]


def notes_of(track: Messages) -> Notes:
    """Return a repaired track's notes (n, 3): start tick, end tick, pitch, by start and pitch."""
    by_pitch = track[np.argsort(track[:, PITCH], kind="stable")]
    ons, offs = by_pitch[0::2], by_pitch[1::2]  # a repaired track alternates within a pitch
    notes = np.stack([ons[:, TICK], offs[:, TICK], ons[:, PITCH]], axis=1)
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]


def velocities_of(source: Path | bytes) -> list[npt.NDArray[np.int32]]:
    """Return the velocities, 1-127, of the notes of each of read_midi's tracks, as notes_of orders.

    Raises MidiError where the file can't be used.
    """
    midi = _parse(source)
    velocities = []
    for track in midi.tracks:
        messages = _note_messages(track, midi.ticks_per_beat)
        ons = messages[messages[:, KIND] == NOTE_ON]  # repair keeps each of them, as a note
        loud = [m.velocity for m in track if m.type == "note_on" and m.velocity > 0]
        if loud:
            order = np.lexsort((ons[:, PITCH], ons[:, TICK]))
            velocities.append(np.array(loud, np.int32)[order])
    return velocities


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
    """Write a type 1 MIDI file: a track with the tempo and 4/4, then the piece's tracks.

    tempo is in quarter notes per minute, program is 0-127 (General MIDI), velocity 1-127; each
    track has a channel of its own while there are any, and none is on the drum channel. Raises
    ValueError for a number out of its range, OSError where the file can't be written.
    """
    if not 1 <= velocity <= 127:  # a note-on of velocity 0 would be a note-off
        raise ValueError(f"velocity must be between 1 and 127, not {velocity}")
    midi = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER)
    midi.tracks.append(_tempo_track(tempo))
    for index, track in enumerate(piece.tracks):
        channel = CHANNELS[index % len(CHANNELS)]
        midi.tracks.append(_mido_track(track, channel, program, velocity))
    if isinstance(path_or_file, (str, Path)):
        midi.save(filename=path_or_file)
    else:
        midi.save(file=path_or_file)


def _tempo_track(tempo: float) -> mido.MidiTrack:
    slowest = 60e6 / LONGEST_QUARTER
    if not slowest <= tempo <= 60e6:
        raise ValueError(f"tempo must be between {slowest:.2f} and 60000000, not {tempo}")
    time_signature = mido.MetaMessage("time_signature", numerator=4, denominator=4)
    return mido.MidiTrack(
        [mido.MetaMessage("set_tempo", tempo=round(60e6 / tempo)), time_signature]
    )


def _mido_track(messages: Messages, channel: int, program: int, velocity: int) -> mido.MidiTrack:
    track = mido.MidiTrack([mido.Message("program_change", channel=channel, program=program)])
    last_tick = 0
    for tick, kind, pitch in messages.tolist():
        track.append(
            mido.Message(
                "note_on" if kind == NOTE_ON else "note_off",
                channel=channel,
                note=pitch,
                velocity=velocity,
                time=tick - last_tick,
            )
        )
        last_tick = tick
    return track
