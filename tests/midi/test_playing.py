"""Files read as they are played: milliseconds by the tempo, and the pedal in the lengths."""

import io

import mido
import numpy as np
import pytest
from played import played_file, seconds_of

from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import LAST_TICK, notes_of
from lstm_music.midi.playing import milliseconds


def file_of(*tracks, kind=1, division=480):
    """The content of a file of tracks of (tick, message)."""
    midi = mido.MidiFile(type=kind, ticks_per_beat=division)
    for messages in tracks:
        track, last = mido.MidiTrack(), 0
        for tick, message in messages:
            track.append(message.copy(time=tick - last))
            last = tick
        midi.tracks.append(track)
    content = io.BytesIO()
    midi.save(file=content)
    return content.getvalue()


def on(tick, pitch=60, velocity=70, channel=0):
    return tick, mido.Message("note_on", note=pitch, velocity=velocity, channel=channel)


def off(tick, pitch=60, channel=0):
    return tick, mido.Message("note_off", note=pitch, channel=channel)


def pedal(tick, value, channel=0, control=64):
    return tick, mido.Message("control_change", control=control, value=value, channel=channel)


def notes_in(content, **how):
    """Start, end, pitch of all notes, at 120 quarter notes a minute: a tick of 480 is 1.04 ms."""
    piece = read_midi(content, "x", played=True, **how)
    return sorted(tuple(note) for track in piece.tracks for note in notes_of(track).tolist())


def ms(*ticks):
    return [round(tick * 500 / 480) for tick in ticks]


LATER = [on(480, 61, channel=2), off(960, 61, channel=2)]
PEDALLED = {
    "held to its going up": ([on(0), pedal(96, 127), off(192), pedal(480, 0)], [480]),
    "not where it goes up with the note": ([on(0), pedal(96, 127), off(192), pedal(192, 0)], [192]),
    "where it goes down with the note": ([on(0), pedal(192, 64), off(192), pedal(480, 63)], [480]),
    "not half way down": ([on(0), pedal(96, 63), off(192), pedal(480, 0)], [192]),
    "not where it goes down after the note": ([on(0), off(96), pedal(192, 127), *LATER], [96, 960]),
    "of its own channel": ([on(0), pedal(96, 127, channel=1), off(192), *LATER], [192, 960]),
    "no other pedal": ([on(0), pedal(96, 127, control=66), off(192), *LATER], [192, 960]),
    "to the last message": ([on(0), pedal(96, 127), off(192), *LATER], [960, 960]),
    "up and down at once": (
        [on(0), pedal(96, 9), pedal(96, 99), off(192), pedal(288, 0), pedal(288, 99), *LATER],
        [288, 960],
    ),
    "until it is struck again": (
        [on(0), pedal(96, 127), off(192), on(288), off(384), pedal(480, 0)], [288, 480],
    ),
    "pressed once, told thrice": (
        [on(0), pedal(96, 80), pedal(120, 90), off(192), pedal(240, 127), pedal(480, 0)], [480],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PEDALLED)
def test_the_pedal_lengthens_the_notes_that_it_holds(case):
    messages, ends = PEDALLED[case]
    content = file_of(messages)
    assert [end for _, end, _ in notes_in(content)] == ms(*ends)
    written = [end for _, end, _ in notes_of(read_midi(content, "x").tracks[0])]
    assert written[0] == next(tick for tick, m in messages if m.type == "note_off")


def test_a_pedal_of_another_track_holds_the_notes_of_its_channel():
    """Two hands on two tracks, and the pedal on one of them."""
    left = [on(0, 40), pedal(96, 127), off(192, 40), pedal(480, 0)]
    assert notes_in(file_of(left, [on(0, 70), off(240, 70)])) == [(0, 500, 40), (0, 500, 70)]
    other = [on(0, 70, channel=1), off(240, 70, channel=1)]
    assert notes_in(file_of(left, other)) == [(0, 250, 70), (0, 500, 40)]


def by_hand(found, pedals, division, tempos):
    """Each note's start, end and pitch in milliseconds, note by note."""
    rows = []
    for start, end, pitch, _, channel in found:
        held = [up for c, down, up in pedals if c == channel and down <= end < up]
        again = [s for s, _, p, _, c in found if (p, c) == (pitch, channel) and s > start]
        ends = min([held[0] if held else end, *again])
        heard = (seconds_of(tick, tempos, division) for tick in (start, ends))
        rows.append((*heard, pitch))
    return [(round(1000 * start), round(1000 * end), pitch) for start, end, pitch in rows]


@pytest.mark.parametrize("division", [96, 384, 480, 1000])
def test_times_are_those_heard_whatever_the_tempo(division):
    """Three tracks, two changes of tempo, and pedals on two channels; no error adds up."""
    content, found, pedals, tempos = played_file(3, 400, division)
    apart = [note for note in found if not overlaps(note, found, 5 * division)]
    expected = set(by_hand(apart, pedals, division, tempos))
    assert len(expected) > 100
    assert expected <= set(notes_in(content))
    piece = read_midi(content, "x", played=True)
    assert piece.tempo.tolist() == [[0, 480_000]]
    assert piece.meter.tolist() == []
    loud = {(int(n["start"]), int(n["pitch"])): int(n["velocity"]) for n in piece.notes}
    for start, _, pitch, velocity, _ in apart:
        assert loud[round(1000 * seconds_of(start, tempos, division)), pitch] == velocity


def overlaps(note, found, apart):
    """Whether another note of its pitch sounds within so many ticks."""
    start, end, pitch, _, channel = note
    return any(
        other is not note and (other[2], other[4]) == (pitch, channel) and other[0] <= end + apart
        and other[1] + apart >= start for other in found
    )  # fmt: skip


def test_what_is_read_as_played_is_written_and_read_again():
    """The pedal is in the lengths, and a tick is a millisecond to whoever plays the file."""
    piece = read_midi(played_file(1)[0], "x", played=True)
    content = io.BytesIO()
    write_midi(piece, content)
    for played in (True, False):
        again = read_midi(content.getvalue(), "x", played=played)
        assert (
            again.notes[["start", "end", "pitch", "velocity"]].tolist()
            == piece.notes[["start", "end", "pitch", "velocity"]].tolist()
        )
    seconds = mido.MidiFile(file=io.BytesIO(content.getvalue())).length
    assert seconds == pytest.approx(piece.notes["end"].max() / 1000, abs=1e-6)


def test_sequences_that_follow_one_another_have_one_tempo_and_no_pedal():
    slow = (0, mido.MetaMessage("set_tempo", tempo=999_999))
    first = [slow, on(0), pedal(0, 127), off(480), on(576, 62), off(672, 62)]
    content = file_of(first, [on(0), off(480)], kind=2)
    assert notes_in(content) == [(0, 500, 60), (600, 700, 62), (1920, 2420, 60)]


def test_time_ends_where_a_piece_does():
    slowest = (0, mido.MetaMessage("set_tempo", tempo=2**24 - 1))
    content = file_of([slowest, on(0), off(2_000_000)])
    assert notes_in(content) == [(0, LAST_TICK, 60)]


def test_film_frames_are_exact():
    content = bytearray(file_of([on(0), off(3000)]))
    content[12:14] = 256 - 25, 40  # 25 frames of 40 ticks a second: a tick is a millisecond
    assert notes_in(bytes(content)) == [(0, 3000, 60)]


def test_milliseconds_before_a_tempo_is_told():
    tempo = np.array([[480, 500_000]], np.int32)
    assert milliseconds(np.array([0, 480, 960]), tempo).tolist() == pytest.approx(
        [0, 2e3 / 3, 3.5e3 / 3]
    )
