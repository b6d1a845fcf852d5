"""Damaged files are read as far as they can be, or refused in one line; nothing else happens."""

import io
import os
from pathlib import Path

import mido
import numpy as np
import pytest
from midi_mutations import DAMAGE, assert_tracks, mutated, written
from small import track_of

from lstm_music.midi.files import read_midi
from lstm_music.midi.piece import REPAIRS, MidiError, notes_of

REPO = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
SMALL = 8_000  # bytes
ODD = sorted(
    path
    for path in DATA.glob("odd-midi/*/*")
    if path.suffix in (".mid", ".midi") and path.stat().st_size < SMALL
)
SEEDS = 300


def many_channels(type):
    """A file with all kinds of messages: channels, drums, running status, text, a pedal."""
    lead = mido.MidiTrack([mido.MetaMessage("track_name", name="lead")])
    for n in range(60):
        channel, pitch = (0, 3, 9)[n % 3], 50 + n % 7
        lead.append(mido.Message("note_on", channel=channel, note=pitch, time=n % 4))
        lead.append(mido.Message("control_change", channel=channel, control=64, value=n))
        lead.append(mido.Message("note_on", channel=channel, note=pitch, velocity=0, time=60))
    meta = mido.MidiTrack([mido.MetaMessage("set_tempo"), mido.MetaMessage("key_signature")])
    file = io.BytesIO()
    tracks = [lead] if type == 0 else [meta, lead, lead]
    mido.MidiFile(type=type, ticks_per_beat=96, tracks=tracks).save(file=file)
    return file.getvalue()


def originals():
    scale = track_of([(n * 240, n * 240 + 300, 60 + n % 12) for n in range(80)])
    chords = track_of([(n // 3 * 480, n // 3 * 480 + 480, 48 + 4 * (n % 3)) for n in range(60)])
    return [written([scale]), written([scale, chords]), *map(many_channels, (0, 1, 2))]


def check(data):
    """Read a file's bytes; return whether that gave a piece."""
    try:
        piece = read_midi(data, "damaged")
    except MidiError as error:
        assert str(error) and len(str(error).splitlines()) == 1
        return False
    assert_tracks(piece.tracks)
    assert set(piece.repairs) <= set(REPAIRS) and all(piece.repairs.values())
    velocities = read_midi(data, "x").velocities
    for track, loud in zip(piece.tracks, velocities, strict=True):
        assert len(loud) == len(notes_of(track)) and (loud > 0).all()
    again = mido.MidiFile(file=io.BytesIO(written(piece.tracks))).tracks[1:]
    for track, messages in zip(piece.tracks, again, strict=True):
        ticks = np.cumsum([message.time for message in messages])
        rows = [
            [tick, message.type == "note_on", message.note]
            for tick, message in zip(ticks.tolist(), messages, strict=True)
            if message.type in ("note_on", "note_off")
        ]
        assert rows == track.tolist()
    return True


def test_damaged_files_read_or_are_refused():
    whole = originals()
    assert all(check(data) for data in whole)
    read = sum(check(mutated(seed, whole)) for seed in range(SEEDS))
    assert SEEDS // 2 < read < SEEDS  # most damage costs a little, some the whole file


@pytest.mark.skipif(not ODD, reason=f"no odd-midi in {DATA}")
def test_damaged_odd_files_read_or_are_refused():
    odd = [path.read_bytes() for path in ODD]
    read = sum(check(mutated(seed, odd)) for seed in range(SEEDS // 2))
    assert 0 < read < SEEDS // 2


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_each_kind_of_damage_is_done(damage, monkeypatch):
    monkeypatch.setattr("midi_mutations.DAMAGE", (damage,))
    whole = originals()[-1:]
    made = [mutated(seed, whole) for seed in range(20)]
    assert made == [mutated(seed, whole) for seed in range(20)]
    assert set(made) - set(whole)
    assert all(mutated(seed, [b""]) is not None for seed in range(20))  # nothing is damaged too
