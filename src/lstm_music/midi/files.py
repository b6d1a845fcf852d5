"""MIDI files to pieces of repaired tracks, and back."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from lstm_music.midi import bytes as midi_file
from lstm_music.midi.bytes import MidiFile, Rows
from lstm_music.midi.piece import (
    CHANNEL,
    DRUMS,
    KIND,
    NOTE_ON,
    PITCH,
    TICK,
    TICKS_PER_QUARTER,
    TRACK,
    VELOCITY,
    Messages,
    MidiError,
    Part,
    Piece,
    Velocities,
    no_meter,
    no_phrases,
    no_tempo,
)
from lstm_music.midi.playing import in_milliseconds, pedalled
from lstm_music.midi.repair import (
    by_channel,
    end_to_end,
    one_a_pitch,
    repaired_voices,
    with_hits,
    without_silent,
)


class DrumsAlone(MidiError):
    """This MIDI file has notes, but no others than drums, which are left out."""


def read_midi(source: Path | bytes, name: str, drums: bool = False, played: bool = False) -> Piece:
    """Read a MIDI file, given by its path or its content, and repair its tracks.

    drums: whether the notes of the drum channel are kept; a track is drums if most of its notes
    are. Tracks without a note are dropped; no note is of length zero. played: time is as it is
    heard, a tick a millisecond, which the piece's tempo says, and the sustain pedal lengthens the
    notes that it holds. Raises MidiError where the file can't be used.
    """
    file = midi_file.read_file(source, None if played else TICKS_PER_QUARTER)
    file = in_milliseconds(file) if played else file
    rows, repairs = _audible(file, drums, played)
    meter, tempo, phrases, sharps = file.meter, file.tempo, file.phrases, file.sharps
    if file.kind == 2:  # whose sequences each have a meter of their own, from tick 0
        tracks, meter = end_to_end(rows, repairs), no_meter()
        tempo = tempo if played else no_tempo()
        phrases, sharps = no_phrases(), None
    else:
        tracks = rows
    if file.kind != 1 and tracks[0, TRACK] == tracks[-1, TRACK]:
        order = np.argsort(tracks[:, CHANNEL], kind="stable")  # as by_channel's
        tracks, rows = by_channel(tracks, repairs), rows[order]
    single = one_a_pitch(tracks, repairs)
    numbers = np.unique(single[:, TRACK])
    kinds = np.bincount(tracks[:, TRACK], 2.0 * (tracks[:, CHANNEL] == DRUMS) - 1) > 0
    parts = (_part(file, rows[tracks[:, TRACK] == number]) for number in numbers)
    return Piece(
        name,
        _by_track(_messages(single), single),
        dict(+repairs),
        meter,
        tuple(kinds[numbers].tolist()) if drums else (),
        tuple(parts),
        _velocities(single),
        tempo,
        phrases,
        sharps,
        len(file.pedals),
        file.beats,
        file.says_tempo,
    )


def read_any(source: Path | bytes, name: str) -> tuple[Piece, bool]:
    """Read a MIDI file as read_midi does, with its drums where it has nothing else.

    Returns also whether it has.
    """
    try:
        return read_midi(source, name), False
    except DrumsAlone:
        return read_midi(source, name, drums=True), True


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


def _audible(file: MidiFile, drums: bool, played: bool) -> tuple[Rows, Counter[str]]:
    """Return a file's repaired voices, and what was repaired. Raises MidiError without a note.

    played: by the pedals, too.
    """
    rows, repairs = file.rows, file.repairs
    if not drums:
        drum = rows[:, CHANNEL] == DRUMS
        repairs["drum notes left out"] += int(np.count_nonzero(drum & (rows[:, KIND] == NOTE_ON)))
        rows = rows[~drum] if drum.any() else rows
    rows = repaired_voices(rows, repairs)
    rows = pedalled(rows, file.pedals) if played else rows
    rows = without_silent(with_hits(rows, repairs) if drums else rows, repairs)
    if not len(rows):
        raise _no_notes(repairs)
    return rows, repairs


def _part(file: MidiFile, rows: Rows) -> Part:
    """Return who plays messages: by the file's track and the channel on which most of them are.

    A program may stand in another track; channels of one track share its name.
    """
    channel = int(np.bincount(rows[:, CHANNEL]).argmax())
    track = int(rows[0, TRACK])
    elsewhere = (program for (_, on), program in file.programs.items() if on == channel)
    program = file.programs.get((track, channel), next(elsewhere, 0))
    return Part(file.names.get(track, ""), program)


def _velocities(rows: Rows) -> tuple[Velocities, ...]:
    """Return the velocities of the notes of each track."""
    ons = rows[rows[:, KIND] == NOTE_ON]
    ons = ons[np.lexsort((ons[:, PITCH], ons[:, TICK], ons[:, TRACK]))]
    return tuple(_by_track(ons[:, VELOCITY], ons))


def _no_notes(repairs: Counter[str]) -> MidiError:
    """Return why a file has no notes, from what was left out of it."""
    kinds = ("drum notes left out", "notes of length zero", "tracks cut off", "damaged tracks")
    found = [f"{kind}: {repairs[kind]}" for kind in kinds if repairs[kind]]
    if repairs[kinds[0]]:
        found[0] += ", which bin/train --drums keeps"
    kind = DrumsAlone if repairs[kinds[0]] else MidiError
    return kind(f"has no notes ({', '.join(found)})" if found else "has no notes")


def write_midi(
    piece: Piece,
    path_or_file: Path | str | BinaryIO,
    tempo: float | None = None,
    program: int | Sequence[int] | None = None,
    velocity: int | None = None,
) -> None:
    """Write a type 1 MIDI file: a track with the tempo and the meter, then the piece's tracks.

    tempo is in quarter notes per minute, program is 0-127 (General MIDI), velocity 1-127: of all
    tracks (or of each, programs), or None for the piece's own, which are 90, 0 and 80 where it has
    none. Each track has a channel of its own while there are any (see channels_of), and drums,
    which have no program, alone are on the drum channel. Names are written in UTF-8. Raises
    ValueError for a number out of its range, OSError where the file can't be written.
    """
    # A note-on of velocity 0 would be a note-off.
    if velocity is not None and not 1 <= velocity <= 127:
        raise ValueError(f"velocity must be between 1 and 127, not {velocity}")
    # mido, without which a network trains and draws.
    from lstm_music.midi.writing import as_midi

    midi = as_midi(piece, tempo, program, velocity)
    if isinstance(path_or_file, (str, Path)):
        midi.save(filename=path_or_file)
    else:
        midi.save(file=path_or_file)
