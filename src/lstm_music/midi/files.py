"""MIDI files to pieces of repaired tracks, and back."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from lstm_music.midi import bytes as midi_file
from lstm_music.midi.bytes import Meter, Rows
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
    Piece,
    no_meter,
)
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
    rows = repaired_voices(rows, repairs)
    rows = without_silent(with_hits(rows, repairs) if drums else rows, repairs)
    if not len(rows):
        raise _no_notes(repairs)
    meter = file.meter
    if file.kind == 2:  # whose sequences each have a meter of their own, from tick 0
        rows, meter = end_to_end(rows, repairs), no_meter()
    if file.kind != 1 and rows[0, TRACK] == rows[-1, TRACK]:
        rows = by_channel(rows, repairs)
    single = one_a_pitch(rows, repairs)
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
    from lstm_music.midi.writing import as_midi

    midi = as_midi(piece, tempo, program, velocity)
    if isinstance(path_or_file, (str, Path)):
        midi.save(filename=path_or_file)
    else:
        midi.save(file=path_or_file)
