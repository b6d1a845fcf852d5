"""A piece as the tracks of a MIDI file, made by mido."""

from collections.abc import Sequence
from typing import NamedTuple

import mido
import numpy as np

from lstm_music.midi.bytes import Tempo
from lstm_music.midi.channels import Programs, channels_of, mixed
from lstm_music.midi.piece import (
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


class Player(NamedTuple):
    """Who plays a track: its channel, its program, None of drums, and the name, "" for none.

    is_mixed: whether its channel has other programs too; then each onset says whose it is.
    """

    channel: int
    program: int | None
    name: str
    is_mixed: bool


def as_midi(
    piece: Piece,
    tempo: float | None,
    program: int | Sequence[int] | None,
    velocity: int | None,
) -> mido.MidiFile:
    """Return a piece as a file of type 1, as midi.write_midi describes; raises as it does."""
    midi = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER)
    midi.tracks.append(tempo_track(tempo_of(piece, tempo), piece))
    if piece.sharps is not None:
        midi.tracks[0].insert(0, mido.MetaMessage("key_signature", key=key_of_sharps(piece.sharps)))
    programs = programs_of(piece, program)
    channels = channels_of(piece.tracks, programs)
    beside_others = mixed(channels, programs)
    for number, track in enumerate(piece.tracks):
        loud = VELOCITY if velocity is None else velocity
        loudness = np.full(len(track), loud)
        if velocity is None and piece.velocities:
            ons = np.flatnonzero(track[:, KIND] == NOTE_ON)
            order = np.lexsort((track[ons, PITCH], track[ons, TICK]))  # as notes_of's
            loudness[ons[order]] = piece.velocities[number]
        name = piece.parts[number].name if piece.parts else ""
        player = Player(channels[number], programs[number], name, beside_others[number])
        midi.tracks.append(notes_track(track, loudness, player))
    return midi


def programs_of(piece: Piece, program: int | Sequence[int] | None) -> Programs:
    """Return the program of each track: the one asked for, or its own, or 0; None of drums."""
    if program is None:
        program = [part.program for part in piece.parts or [Part()] * len(piece.tracks)]
    asked = [program] * len(piece.tracks) if isinstance(program, int) else program
    drums = piece.drums or (False,) * len(piece.tracks)
    return [None if drum else own for own, drum in zip(asked, drums, strict=True)]


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


def notes_track(messages: Messages, velocities: Velocities, player: Player) -> mido.MidiTrack:
    """Return a track of note messages (n, 3), each with its velocity (n,)."""
    track, channel = mido.MidiTrack(), player.channel
    if player.name:
        written = player.name.encode("utf-8", "replace").decode("latin-1")  # as mido writes
        track.append(mido.MetaMessage("track_name", name=written))
    if player.program is not None:
        track.append(mido.Message("program_change", channel=channel, program=player.program))
    last_tick = struck = 0
    for (tick, kind, pitch), velocity in zip(messages.tolist(), velocities.tolist(), strict=True):
        if player.is_mixed and kind == NOTE_ON and tick > struck:
            since, last_tick, struck = tick - last_tick, tick, tick
            change = {"channel": channel, "program": player.program}
            track.append(mido.Message("program_change", **change, time=since))
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
