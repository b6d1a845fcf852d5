"""A piece as the tracks of a MIDI file, made by mido."""

from itertools import cycle

import mido

from lstm_music.midi.bytes import Meter
from lstm_music.midi.piece import (
    CHANNELS,
    DRUMS,
    NOTE_ON,
    TICKS_PER_QUARTER,
    WHOLE_NOTE,
    Messages,
    Piece,
)

BEATS = (4, 8, 16, 32, 64)  # of a time signature, the denominators; a bar of others is rounded
LONGEST_QUARTER = 2**24 - 1  # microseconds: a MIDI file's tempo has 24 bits


def as_midi(piece: Piece, tempo: float, program: int, velocity: int) -> mido.MidiFile:
    """Return a piece as a file of type 1, as midi.write_midi describes; raises as it does."""
    midi = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER)
    midi.tracks.append(tempo_track(tempo, piece.meter))
    channels = cycle(CHANNELS)
    for track, drums in zip(piece.tracks, piece.drums or cycle([False]), strict=False):
        channel, own = (DRUMS, None) if drums else (next(channels), program)
        midi.tracks.append(notes_track(track, channel, own, velocity))
    return midi


def tempo_track(tempo: float, meter: Meter) -> mido.MidiTrack:
    """Return the track of tempo, in quarter notes per minute, and meter."""
    slowest = 60e6 / LONGEST_QUARTER
    if not slowest <= tempo <= 60e6:
        raise ValueError(f"tempo must be between {slowest:.2f} and 60000000, not {tempo}")
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=round(60e6 / tempo))])
    last_tick = 0
    four_four = [] if meter[:1, 0].tolist() == [0] else [[0, WHOLE_NOTE]]
    for tick, length in four_four + meter.tolist():
        beats = next((n for n in BEATS if length * n % WHOLE_NOTE == 0), BEATS[-1])
        number = min(max(round(length * beats / WHOLE_NOTE), 1), 255)
        signature = {"numerator": number, "denominator": beats}
        track.append(mido.MetaMessage("time_signature", **signature, time=tick - last_tick))
        last_tick = tick
    return track


def notes_track(
    messages: Messages, channel: int, program: int | None, velocity: int
) -> mido.MidiTrack:
    """Return a track of note messages on a channel; program: None for the channel of drums."""
    track = mido.MidiTrack()
    if program is not None:
        track.append(mido.Message("program_change", channel=channel, program=program))
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
