"""Who plays, how loudly, how fast: written and read again, of all sorts of ensembles."""

import io
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import track_of

from lstm_music.midi.channels import channels_of
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import CHANNELS, DRUMS, Part, Piece, notes_of

NAMES = ("", "Soprano", "Violín", "Ã©", "Фагот", "笛 1", "🎺", "a\x07b\nc", "\x00", "n" * 128)
METERS = ([(0, 1920)], [(0, 480), (480, 1440)], [(0, 1680), (3360, 1920), (9120, 840)])
TEMPOS = ([(0, 666_667)], [(0, 500_000), (1920, 400_001), (2000, 1_234_567)])


def file_of(piece, **asked):
    file = io.BytesIO()
    write_midi(piece, file, **asked)
    return file.getvalue()


def again(piece, **asked):
    return read_midi(file_of(piece, **asked), piece.name, drums=True)


@st.composite
def tracks(draw, pitches=(58, 63)):
    """A repaired track, of which no two notes of a pitch meet, and a velocity for each note."""
    free, made = {}, []
    for wait, pitch, length in draw(
        st.lists(
            st.tuples(
                st.integers(0, 500), st.integers(*pitches), st.sampled_from([1, 60, 480, 5000])
            ),
            min_size=1, max_size=8,
        )
    ):  # fmt: skip
        start = free.get(pitch, 0) + wait
        made.append((start, start + length, pitch))
        free[pitch] = start + length
    loud = draw(st.lists(st.integers(1, 127), min_size=len(made), max_size=len(made)))
    return track_of(made), np.array(loud, np.int32)


@st.composite
def ensembles(draw, sizes=(1, 20)):
    n = draw(st.integers(*sizes))
    made = draw(st.lists(tracks(), min_size=n, max_size=n))
    drums = tuple(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    players = [
        Part(draw(st.sampled_from(NAMES)), 0 if drum else draw(st.integers(0, 127)))
        for drum in drums
    ]
    return Piece(
        "x",
        [track for track, _ in made],
        meter=np.array(draw(st.sampled_from(METERS)), np.int32),
        drums=drums,
        parts=tuple(players),
        velocities=tuple(loud for _, loud in made),
        tempo=np.array(draw(st.sampled_from(TEMPOS)), np.int32),
        phrases=np.array(draw(st.sampled_from([[], [480, 1920]])), np.int32),
        sharps=draw(st.sampled_from([None, -7, 0, 3])),
    )


def assert_same(piece, other):
    end = max(int(track[-1, 0]) for track in piece.tracks)
    assert [t.tolist() for t in other.tracks] == [t.tolist() for t in piece.tracks]
    assert [v.tolist() for v in other.velocities] == [v.tolist() for v in piece.velocities]
    assert (other.parts, other.drums, other.sharps) == (piece.parts, piece.drums, piece.sharps)
    assert other.meter.tolist() == piece.meter.tolist()
    assert other.tempo.tolist() == piece.tempo.tolist()
    assert other.phrases.tolist() == piece.phrases.tolist()
    assert end == max(int(track[-1, 0]) for track in other.tracks)


@settings(deadline=None, max_examples=60)
@given(ensembles())
def test_an_ensemble_is_read_as_it_was_written(piece):
    assert_same(piece, again(piece))


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(ensembles(sizes=(17, 60)))
def test_a_large_ensemble_is_read_as_it_was_written(piece):
    assert_same(piece, again(piece))


def test_more_parts_than_channels_are_read_as_they_were_written():
    """Forty, of twenty programs and drums, all of which play the same notes."""
    tune = [(0, 480, 60), (480, 960, 60), (960, 1440, 64)]
    drums = tuple(n % 13 == 5 for n in range(40))
    parts = [Part(f"{n}", 0 if drums[n] else n % 20) for n in range(40)]
    loud = tuple(np.array([n + 1, n + 2, n + 3], np.int32) for n in range(40))
    piece = Piece("x", [track_of(tune)] * 40, parts=tuple(parts), drums=drums, velocities=loud)
    other = again(piece)
    assert other.notes.tolist() == piece.notes.tolist()
    assert (other.parts, other.drums) == (piece.parts, piece.drums)


def test_hits_of_no_length_are_written_as_they_were_read():
    """A sixteenth each, or up to the next one of the pitch; other channels' are dropped."""
    track = mido.MidiTrack()
    for time, pitch, channel in ((0, 36, 9), (60, 36, 9), (0, 42, 9), (0, 60, 0), (480, 36, 9)):
        for kind in ("note_on", "note_off"):
            track.append(mido.Message(kind, note=pitch, channel=channel, time=time, velocity=99))
            time = 0
    file = io.BytesIO()
    mido.MidiFile(type=1, ticks_per_beat=480, tracks=[track]).save(file=file)
    piece = read_midi(file.getvalue(), "x", drums=True)
    assert notes_of(piece.tracks[0]).tolist() == [
        [0, 60, 36], [60, 180, 36], [60, 180, 42], [540, 660, 36]
    ]  # fmt: skip
    assert piece.repairs == {"drum hits of length zero": 4, "notes of length zero": 1}
    other = again(piece)
    assert other.notes.tolist() == piece.notes.tolist() and other.drums == (True,)
    assert not other.repairs


def test_each_track_may_have_a_program_of_its_own():
    tracks = [track_of([(0, 480, 60)]), track_of([(0, 480, 36)]), track_of([(0, 480, 64)])]
    piece = Piece("x", tracks, drums=(False, True, False))
    assert [part.program for part in again(piece, program=[73, 5, 32]).parts] == [73, 0, 32]
    with pytest.raises(ValueError):
        file_of(piece, program=[73])


# Channels


def cut_notes(piece):
    """How many notes of a file, played as a synthesiser does, end before their own note-off.

    Also how many are struck with another program than their track's.
    """
    midi = mido.MidiFile(file=io.BytesIO(file_of(piece)))
    rows = []
    for number, track in enumerate(midi.tracks):
        now = 0
        for message in track:
            now += message.time
            rows.append((now, number, message))
    rows.sort(key=lambda row: row[:2])
    cut = wrong = 0
    sounding, programs = {}, {}
    for _, number, message in rows:
        if message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type == "note_on":
            voice = message.channel, message.note
            cut += voice in sounding
            sounding[voice] = number
            if message.channel != DRUMS:
                wrong += programs[message.channel] != piece.parts[number - 1].program
        elif message.type == "note_off":
            cut += sounding.pop((message.channel, message.note), number) != number
    return cut, wrong


@settings(deadline=None, max_examples=60)
@given(ensembles(sizes=(14, 24)))
def test_parts_that_share_a_channel_cut_nothing_and_sound_as_what_they_are(piece):
    """Fifteen at most are struck at once at a pitch: of the others, a note need meet none."""
    moved = [track + np.array([0, 0, 5 * (n // 5)]) for n, track in enumerate(piece.tracks)]
    piece = replace(piece, tracks=[m.astype(np.int32) for m in moved], drums=())
    assert cut_notes(piece) == (0, 0)


def test_a_program_has_a_channel_before_any_has_two():
    track = track_of([(0, 480, 60)])
    programs = [0] * 20 + [40, 41]
    channels = channels_of([track_of([(0, 480, 30 + n)]) for n in range(22)], programs)
    assert len({*channels}) == 15 and DRUMS not in channels
    assert channels.count(channels[20]) == channels.count(channels[21]) == 1
    assert max(Counter(channels[:20]).values()) == 2  # of those of a program, the emptiest
    # A unison goes to another program's channel sooner than it cuts a note off.
    channels = channels_of([track] * 14 + [track_of([(0, 480, 72)]), track], [0] * 14 + [9, 0])
    assert channels[15] == channels[14]


def test_up_to_fifteen_parts_have_a_channel_each():
    track = track_of([(0, 480, 60)])
    programs = [3, 3, None, *[7] * 13]
    expected = iter(CHANNELS)
    assert channels_of([track] * 16, programs) == [
        DRUMS if program is None else next(expected) for program in programs
    ]


def test_notes_that_touch_meet():
    """The end of one may stand after the beginning of the next, in a later track."""
    long = [track_of([(480 * n, 480 * n + 480, 60) for n in range(4)])] * 14
    first, last = track_of([(480, 960, 72)]), track_of([(0, 480, 72)])
    tracks = [*long, track_of([(0, 960, 50)]), first, last]
    channels = channels_of(tracks, [0] * 17)
    assert channels[15] != channels[16]
    assert all(a < b for a, b in pairwise(channels[:15]))
