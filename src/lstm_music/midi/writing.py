"""A piece as the tracks of a MIDI file, made by mido."""

from itertools import cycle

import mido
import numpy as np

from lstm_music.midi.bytes import Tempo
from lstm_music.midi.piece import (
    CHANNELS,
    DRUMS,
    KIND,
    NOTE_ON,
    PITCH,
    TEMPO,
    TICK,
    TICKS_PER_QUARTER,
    WHOLE_NOTE,
    Messages,
    Part,
    Piece,
    Velocities,
)
from lstm_music.midi.timing import signature_of
from lstm_music.midi.track_reader import PHRASE, key_of_sharps

VELOCITY = 80  # where a piece says none
LONGEST_QUARTER = 2**24 - 1  # microseconds: a MIDI file's tempo has 24 bits


def as_midi(
    piece: Piece, tempo: float | None, program: int | None, velocity: int | None
) -> mido.MidiFile:
    """Return a piece as a file of type 1, as midi.write_midi describes; raises as it does."""
    midi = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER)
    midi.tracks.append(tempo_track(tempo_of(piece, tempo), piece))
    if piece.sharps is not None:
        midi.tracks[0].insert(0, mido.MetaMessage("key_signature", key=key_of_sharps(piece.sharps)))
    channels = cycle(CHANNELS)
    for number, track in enumerate(piece.tracks):
        part = piece.parts[number] if piece.parts else Part()
        drums = piece.drums[number] if piece.drums else False
        own = part.program if program is None else program
        channel, own_program = (DRUMS, None) if drums else (next(channels), own)
        loud = VELOCITY if velocity is None else velocity
        loudness = np.full(len(track), loud)
        if velocity is None and piece.velocities:
            ons = np.flatnonzero(track[:, KIND] == NOTE_ON)
            order = np.lexsort((track[ons, PITCH], track[ons, TICK]))  # as notes_of's
            loudness[ons[order]] = piece.velocities[number]
        midi.tracks.append(notes_track(track, channel, own_program, loudness, part.name))
    return midi


def tempo_of(piece: Piece, tempo: float | None) -> Tempo:
    """Return a piece's tempo, or a constant one, in quarter notes per minute."""
    if tempo is None and len(piece.tempo):
        return piece.tempo
    tempo = TEMPO if tempo is None else tempo
    slowest = 60e6 / LONGEST_QUARTER
    if not slowest <= tempo <= 60e6:
        raise ValueError(f"tempo must be between {slowest:.2f} and 60000000, not {tempo}")
    return np.array([[0, round(60e6 / tempo)]], np.int32)


def tempo_track(tempo: Tempo, piece: Piece) -> mido.MidiTrack:
    """Return the track of a tempo, and of a piece's meter and the ends of its phrases."""
    meter, phrases = piece.meter, piece.phrases
    events = [(int(tick), 0, int(length)) for tick, length in tempo]
    four_four = [] if meter[:1, 0].tolist() == [0] else [[0, WHOLE_NOTE]]
    events += [(tick, 1, length) for tick, length in four_four + meter.tolist()]
    events += [(tick, 2, 0) for tick in phrases.tolist()]
    track, last_tick = mido.MidiTrack(), 0
    for tick, kind, length in sorted(events):
        since = tick - last_tick
        if kind == 2:
            track.append(mido.MetaMessage("marker", text=PHRASE, time=since))
        elif kind == 1:
            number, unit = signature_of(length, piece.beats)
            signature = {"numerator": number, "denominator": unit}
            track.append(mido.MetaMessage("time_signature", **signature, time=since))
        else:
            track.append(mido.MetaMessage("set_tempo", tempo=length, time=since))
        last_tick = tick
    return track


def notes_track(
    messages: Messages, channel: int, program: int | None, velocities: Velocities, name: str
) -> mido.MidiTrack:
    """Return a track of note messages (n, 3) on a channel, each with its velocity (n,).

    program: None for the channel of drums. name: of the part, none where it is empty.
    """
    track = mido.MidiTrack()
    if name:
        latin = name.encode("latin-1", "replace").decode("latin-1")  # as mido writes
        track.append(mido.MetaMessage("track_name", name=latin))
    if program is not None:
        track.append(mido.Message("program_change", channel=channel, program=program))
    last_tick = 0
    for (tick, kind, pitch), velocity in zip(messages.tolist(), velocities.tolist(), strict=True):
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
