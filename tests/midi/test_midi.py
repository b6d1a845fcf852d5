import io
import os
import struct
import zipfile
from collections import Counter
from dataclasses import replace
from importlib import resources
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_mutations import assert_tracks, written

from lstm_music.midi.files import raw_tracks, read_midi, write_midi
from lstm_music.midi.piece import (
    LAST_TICK,
    TICK,
    TICKS_PER_QUARTER,
    MidiError,
    Part,
    Piece,
    notes_of,
)
from lstm_music.midi.repair import merge_tracks, repair_track
from lstm_music.midi.track_reader import key_of_sharps, sharps_of
from lstm_music.tokenizers.messages import track_words

BACH = Path(str(resources.files("lstm_music"))) / "data" / "bach.zip"
REPO = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
ODD = sorted(path for path in DATA.glob("odd-midi/*/*") if path.suffix in (".mid", ".midi"))


def as_messages(rows):
    return np.array(rows, dtype=np.int32).reshape(-1, 3)


@st.composite
def raw_messages(draw):
    """Note messages in file order that may be anything: orphan offs, ons that never end."""
    delta = st.sampled_from([0, 0, 1, 2, 5])
    rows = draw(st.lists(st.tuples(delta, st.integers(0, 1), st.integers(60, 63)), max_size=30))
    messages = as_messages(rows)
    messages[:, 0] = np.cumsum(messages[:, 0])
    return messages


def pieces(repaired=repair_track, max_tracks=4):
    tracks = st.lists(raw_messages().map(repaired), max_size=max_tracks)
    return tracks.map(lambda tracks: Piece("p", [track for track in tracks if len(track)]))


def heard_track(messages):
    """A repaired track without notes of length zero, which reading drops."""
    rows, struck = repair_track(messages).tolist(), {}
    silent = set()
    for n, (tick, kind, pitch) in enumerate(rows):
        if kind:
            struck[pitch] = n
        elif rows[struck[pitch]][0] == tick:
            silent |= {n, struck[pitch]}
    return as_messages([row for n, row in enumerate(rows) if n not in silent])


def file_of(*tracks, division=480, type=1):
    """A MIDI file's bytes; each track is a list of mido messages."""
    file = io.BytesIO()
    midi = mido.MidiFile(ticks_per_beat=division)
    midi.type = type  # the constructor would refuse an unknown one
    midi.tracks.extend(mido.MidiTrack(track) for track in tracks)
    midi.save(file=file)
    return file.getvalue()


def on(pitch, time=0, velocity=64, channel=0):
    return mido.Message("note_on", note=pitch, time=time, velocity=velocity, channel=channel)


def off(pitch, time=0, channel=0):
    return mido.Message("note_off", note=pitch, time=time, channel=channel)


def assert_same(tracks, others):
    assert [track.tolist() for track in tracks] == [other.tolist() for other in others]


# Reading


def test_a_note_on_of_velocity_zero_is_a_note_off():
    piece = read_midi(file_of([on(60), on(60, 100, velocity=0)]), "name")
    assert piece.name == "name"
    assert piece.tracks[0].tolist() == [[0, 1, 60], [100, 0, 60]]


def test_the_time_between_notes_is_rounded_half_to_even():
    control = mido.Message("control_change", control=1, value=1, time=1)
    track = [on(60, 1), off(60, 3), control, on(61, 1), off(61, 7)]
    (messages,) = read_midi(file_of(track, division=192), "").tracks  # 2.5 ticks each
    assert np.diff(messages[:, 0], prepend=0).tolist() == [2, 8, 5, 18]


def test_a_velocity_too_large_is_cut_to_size():
    data = file_of([on(60, velocity=101), off(60, 1)]).replace(bytes([101]), bytes([201]))
    assert read_midi(data, "").tracks[0].tolist() == [[0, 1, 60], [1, 0, 60]]


def test_rounding_never_leads_past_the_last_tick():
    data = file_of([on(60, 2 * LAST_TICK - 6), off(60, 3), on(60, 3)], division=960)
    (messages,) = raw_tracks(data)
    assert messages[:, 0].tolist() == [LAST_TICK - 3, LAST_TICK - 1, LAST_TICK]
    assert read_midi(data, "").tracks[0][:, 0].tolist() == [LAST_TICK - 3, LAST_TICK - 1]


def test_messages_of_all_channels_of_a_track_stay_in_file_order():
    track = [on(60, channel=0), on(50, channel=3), off(50, 10, channel=3), off(60, channel=0)]
    (messages,) = read_midi(file_of(track), "").tracks
    assert messages[:, 2].tolist() == [60, 50, 50, 60]


def test_tracks_without_a_note_are_dropped():
    text = [mido.MetaMessage("text", text="hello")]
    piece = read_midi(file_of(text, [on(60), off(60, 1)], [off(61)]), "")
    assert len(piece.tracks) == 1


def test_a_path_reads_as_its_content_does(tmp_path):
    data = file_of([on(60), off(60, 1)])
    (tmp_path / "piece.mid").write_bytes(data)
    assert_same(read_midi(tmp_path / "piece.mid", "").tracks, read_midi(data, "").tracks)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (file_of([mido.MetaMessage("text", text="hello")]), "has no notes$"),
        (file_of([off(60, 10)]), "has no notes$"),
        (file_of([on(60, channel=9), off(60, 1, channel=9)]), "no notes .drum notes left out: 1"),
        (file_of([on(60), off(60)]), "no notes .notes of length zero: 1"),
        (file_of([on(60), off(60, 1)])[:25], "no notes .tracks cut off: 1"),
        (file_of([on(60), off(60, 1)]).replace(b"\x90", b"\xf4"), "no notes .damaged tracks: 1"),
        (file_of(), "has no tracks"),
        (file_of([on(60), off(60, 1)], type=7), "unknown MIDI type, 7"),
        (file_of([on(60), off(60, 1)], division=0), "zero ticks"),
        (file_of([on(60), off(60, 1)], division=-1), "SMPTE frames of no film: 1 a second"),
        (file_of([on(60), off(60, 1)], division=-6400), "SMPTE frames .* of 0 ticks"),
        (file_of([on(60, LAST_TICK), off(60, 1)]), "lasts longer than 100,000 quarter notes"),
        (file_of([on(60), off(60, 1)]).replace(b"MTrk", b"XTrk"), "has no tracks"),
        (file_of([on(60), off(60, 1)])[:13], "cut off in its header"),
        (b"", "is empty"),
        (b"RIFF" + bytes(20), "no MIDI file: it has no MThd header"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_reason(data, reason):
    with pytest.raises(MidiError, match=reason):
        read_midi(data, "")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(MidiError, match="No such file"):
        read_midi(tmp_path / "absent.mid", "")


def test_a_time_beyond_any_number_is_refused():
    body = b"\xff" * 200 + b"\x7f" + bytes([0x90, 60, 64])
    header = b"MThd" + struct.pack(">LHHH", 6, 1, 1, 480)
    with pytest.raises(MidiError, match="lasts longer"):
        read_midi(header + b"MTrk" + struct.pack(">L", len(body)) + body, "")


GOOD = file_of([mido.MetaMessage("key_signature", key="C"), on(60), off(60, 480), on(62), off(62)])


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.integers(0, len(GOOD)).map(lambda size: GOOD[:size]),
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)).map(
            lambda at: GOOD[: at[0]] + bytes([at[1]]) + GOOD[at[0] + 1 :]
        ),
    )
)
def test_any_bytes_read_or_are_refused_in_one_line(data):
    check_reads_or_is_refused(data)


@pytest.mark.skipif(not ODD, reason=f"no odd-midi in {DATA}")
@pytest.mark.parametrize("path", ODD, ids=lambda path: path.name)
def test_an_odd_file_reads_or_is_refused_in_one_line(path):
    check_reads_or_is_refused(path)


def check_reads_or_is_refused(source):
    try:
        piece = read_midi(source, "odd")
    except MidiError as error:
        assert str(error) and len(str(error).splitlines()) == 1
        return
    assert_tracks(piece.tracks)
    assert_same(read_midi(written(piece.tracks), "").tracks, piece.tracks)


# Repair


def repaired_slowly(messages):
    """The rules of repair, a message at a time."""
    rows, struck = [], {}
    for tick, kind, pitch in messages.tolist():
        if pitch in struck:
            rows.append([tick, 0, pitch])
            del struck[pitch]
        if kind:
            rows.append([tick, 1, pitch])
            struck[pitch] = tick
    last = messages[-1, 0] if len(messages) else 0
    ends = {p: last if t < last else last + TICKS_PER_QUARTER for p, t in struck.items()}
    rows += sorted([end, 0, pitch] for pitch, end in ends.items())
    return as_messages(rows)


@settings(deadline=None)
@given(raw_messages())
def test_repair_follows_its_rules_and_changes_nothing_twice(messages):
    before = messages.copy()
    repaired = repair_track(messages)
    assert repaired.tolist() == repaired_slowly(messages).tolist()
    assert repair_track(repaired).tolist() == repaired.tolist()
    assert messages.tolist() == before.tolist()
    for pitch in set(repaired[:, 2].tolist()):
        kinds = repaired[repaired[:, 2] == pitch, 1].tolist()
        assert kinds == [1, 0] * (len(kinds) // 2)


def test_each_repair():
    struck_twice = as_messages([[0, 1, 60], [5, 1, 60], [9, 0, 60], [9, 0, 60]])
    assert repair_track(struck_twice).tolist() == [[0, 1, 60], [5, 0, 60], [5, 1, 60], [9, 0, 60]]
    hanging = as_messages([[0, 1, 61], [3, 0, 60], [7, 1, 60]])
    assert repair_track(hanging).tolist() == [[0, 1, 61], [7, 1, 60], [7, 0, 61], [487, 0, 60]]
    latest = as_messages([[LAST_TICK - 1, 1, 60]])
    assert repair_track(latest).tolist() == [[LAST_TICK - 1, 1, 60], [LAST_TICK, 0, 60]]


# Notes


@settings(deadline=None)
@given(raw_messages().map(repair_track))
def test_notes_are_what_the_messages_say(track):
    notes, struck = [], {}
    for tick, kind, pitch in track.tolist():
        if kind:
            struck[pitch] = tick
        else:
            notes.append([struck.pop(pitch), tick, pitch])
    found = notes_of(track)
    assert found.dtype == np.int32 and found.shape == (len(track) // 2, 3)
    assert sorted(found.tolist()) == sorted(notes)
    assert found[:, [0, 2]].tolist() == sorted(found[:, [0, 2]].tolist())


@settings(deadline=None)
@given(pieces())
def test_merging_strikes_and_sounds_what_the_tracks_do(piece):
    notes = [note for track in piece.tracks for note in notes_of(track).tolist()]
    merged = merge_tracks(piece)
    assert merged.dtype == np.int32 and merged.shape[1] == 3
    assert merged.tolist() == sorted(merged.tolist())
    found = notes_of(merged).tolist()
    assert sounding(found) == sounding(notes)
    struck = {(start, pitch) for start, end, pitch in notes if start < end}
    assert sorted((start, pitch) for start, _, pitch in found) == sorted(struck)
    assert sum(end - start for start, end, _ in found) == len(sounding(found))  # no overlaps
    assert merge_tracks(Piece("", [merged])).tolist() == merged.tolist()


def sounding(notes):
    return {(tick, pitch) for start, end, pitch in notes for tick in range(start, end)}


def test_merging_by_example():
    def track(*notes):
        rows = [[s, 1, p] for s, _, p in notes] + [[e, 0, p] for _, e, p in notes]
        return as_messages(sorted(rows))

    piece = Piece("", [track((0, 10, 60), (20, 30, 62)), track((5, 8, 60), (20, 40, 62))])
    assert notes_of(merge_tracks(piece)).tolist() == [[0, 5, 60], [5, 10, 60], [20, 40, 62]]
    assert merge_tracks(Piece("", [])).shape == (0, 3)


# Writing


@settings(deadline=None)
@given(pieces(heard_track, max_tracks=20))
def test_what_is_written_reads_the_same(piece):
    data = written(piece.tracks)
    if piece.tracks:
        assert_same(read_midi(data, "").tracks, piece.tracks)
    else:
        with pytest.raises(MidiError, match="has no notes"):
            read_midi(data, "")


def test_a_written_file_holds_tempo_meter_and_programs(tmp_path):
    track = as_messages([[0, 1, 60], [LAST_TICK, 0, 60]])
    write_midi(Piece("", [track] * 17), tmp_path / "a.mid", tempo=120, program=19, velocity=7)
    midi = mido.MidiFile(tmp_path / "a.mid")
    assert (midi.type, midi.ticks_per_beat, len(midi.tracks)) == (1, TICKS_PER_QUARTER, 18)
    tempo, meter = midi.tracks[0][:2]
    assert (tempo.tempo, meter.numerator, meter.denominator) == (500_000, 4, 4)
    assert all(track[-1].type == "end_of_track" for track in midi.tracks)
    channels = [{m.channel for m in track if not m.is_meta} for track in midi.tracks[1:]]
    assert all(len(used) == 1 for used in channels)
    assert [used.pop() for used in channels[:15]] == [*range(9), *range(10, 16)]
    messages = [m for track in midi.tracks[1:] for m in track]
    assert {m.program for m in messages if m.type == "program_change"} == {19}
    assert {m.velocity for m in messages if m.type == "note_on"} == {7}


@pytest.mark.parametrize(
    "settings", [{"velocity": 0}, {"tempo": 0}, {"tempo": 3.5}, {"tempo": 1e9}, {"program": 128}]
)
def test_settings_out_of_range_are_refused(settings):
    piece = Piece("", [as_messages([[0, 1, 60], [1, 0, 60]])])
    with pytest.raises(ValueError):
        written(piece.tracks, **settings)


# Real data


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "bach-417.zip").exists(), reason=f"no bach-417.zip in {DATA}")
def test_bach_holds_the_known_number_of_messages():
    raw, repaired = Counter(), Counter()
    with zipfile.ZipFile(DATA / "bach-417.zip") as archive:
        for name in archive.namelist():
            for track in raw_tracks(archive.read(name)):
                raw.update(track_words(track))
                repaired.update(track_words(repair_track(track)))
    assert (raw.total(), len(raw)) == (1_663_669, 36_882)
    assert (repaired.total(), len(repaired)) == (1_663_590, 36_903)


def test_velocities_stand_beside_the_notes():
    """In file order 9, 5, 7, 3: two notes at once, one struck while it sounds, one hanging."""
    struck = [(0, 64, 9), (0, 60, 5), (480, 60, 7), (480, 72, 3)]
    track = [mido.Message("note_on", time=t, note=p, velocity=v) for t, p, v in struck]
    track.insert(3, mido.Message("note_on", note=64, velocity=0))
    content = file_of([], track, division=960)
    (velocities,) = read_midi(content, "x").velocities
    notes = notes_of(read_midi(content, "x").tracks[0])
    assert notes[:, 2].tolist() == [60, 64, 60, 72]
    assert velocities.tolist() == [5, 9, 7, 3]


@given(pieces(heard_track))
def test_each_note_written_has_a_velocity(piece):
    if piece.tracks:
        found = read_midi(written(piece.tracks, velocity=77), "x").velocities
        assert [len(v) for v in found] == [len(notes_of(track)) for track in piece.tracks]
        assert all((v == 77).all() for v in found)


# Who plays, how loudly, how fast


def said(name=None, program=None, channel=0, tempos=()):
    """The messages of a track beside its notes."""
    told = [mido.MetaMessage("track_name", name=name)] if name else []
    told += [mido.MetaMessage("set_tempo", tempo=length, time=time) for time, length in tempos]
    if program is not None:
        told.append(mido.Message("program_change", program=program, channel=channel))
    return told


def again(piece, **settings):
    """A piece written and read."""
    file = io.BytesIO()
    write_midi(piece, file, **settings)
    return read_midi(file.getvalue(), piece.name, drums=True)


def assert_played_alike(piece, other):
    assert other.parts == piece.parts and other.drums == piece.drums
    assert other.notes.tolist() == piece.notes.tolist()
    assert other.meter.tolist() == (piece.meter.tolist() or [[0, 1920]])
    assert other.tempo.tolist() == (piece.tempo.tolist() or [[0, 666_667]])  # composed: 90


def ensemble():
    meter = mido.MetaMessage("time_signature", numerator=3, denominator=4)
    beat = [*said("Kit", 5, 9), on(36, 0, 100, 9), off(36, 0, 9), on(38, 480, 99, 9)]
    return file_of(
        [meter, *said("Work", tempos=[(0, 500_000), (960, 400_000)])],
        [*said("Violín", 40), on(76, 0, 90), off(76, 480), on(74, 0, 31), off(74, 480)],
        [*said(None, 42, 3), on(48, 0, 64, 3), on(52, 0, 20, 3), off(48, 960, 3), off(52, 0, 3)],
        [*beat, off(38, 240, 9)],
    )


def test_an_ensemble_is_written_as_it_was_read():
    piece = read_midi(ensemble(), "x", drums=True)
    assert piece.parts == (Part("Violín", 40), Part("", 42), Part("Kit", 5))
    assert piece.drums == (False, False, True)
    assert piece.tempo.tolist() == [[0, 500_000], [960, 400_000]]
    assert piece.meter.tolist() == [[0, 1440]]
    assert piece.notes.tolist() == [
        (0, 120, 36, 100, 2), (0, 960, 48, 64, 1), (0, 960, 52, 20, 1), (0, 480, 76, 90, 0),
        (480, 720, 38, 99, 2), (480, 960, 74, 31, 0),
    ]  # fmt: skip
    other = again(piece)
    assert other.parts == (Part("Violín", 40), Part("", 42), Part("Kit", 0))  # drums have none
    assert_played_alike(replace(piece, parts=other.parts), other)


def test_what_is_asked_for_goes_before_a_pieces_own():
    piece = again(read_midi(ensemble(), "x"), tempo=120, program=7, velocity=33)
    assert [part.program for part in piece.parts] == [7, 7]
    assert set(piece.notes["velocity"].tolist()) == {33}
    assert piece.tempo.tolist() == [[0, 500_000]]


def test_a_piece_that_says_nothing_has_a_piano_at_one_tempo():
    piece = Piece("x", [as_messages([(0, 1, 60), (480, 0, 60)])])
    assert piece.notes.tolist() == [(0, 480, 60, 0, 0)]
    other = again(piece)
    assert (other.parts, other.notes["velocity"].tolist()) == ((Part(),), [80])
    assert_played_alike(replace(piece, parts=other.parts, velocities=other.velocities,
                                drums=(False,)), other)  # fmt: skip


@pytest.mark.parametrize("type", [0, 1])
def test_programs_are_those_of_the_channel(type):
    """Of one track that has several, as of type 0; or told in another track."""
    told = [*said("all", 11, 1), *said(program=12, channel=2), *said(program=13, channel=1)]
    notes = [on(60, 0, 5, 2), off(60, 9, 2), on(62, 0, 6, 1), off(62, 9, 1)]
    file = file_of([*told, *notes], type=0) if type == 0 else file_of(told, notes[:2], notes[2:])
    programs = {row["pitch"]: piece.parts[row["part"]].program
                for piece in [read_midi(file, "x")] for row in piece.notes}  # fmt: skip
    assert programs == {60: 12, 62: 11}


def test_a_tempo_of_another_division_and_a_long_name():
    track = [*said("n" * 300, tempos=[(96, 250_000)]), on(60), off(60, 96)]
    piece = read_midi(file_of(track, division=96), "x")
    assert piece.tempo.tolist() == [[0, 500_000], [480, 250_000]]  # 120 until told otherwise
    assert piece.says_tempo
    silent = read_midi(file_of([on(60), off(60, 96)]), "x")
    assert silent.tempo.tolist() == [[0, 500_000]] and not silent.says_tempo
    assert piece.parts == (Part("n" * 128),)


def test_where_frames_are_counted_tempos_say_nothing():
    content = bytearray(file_of([*said(tempos=[(0, 250_000)]), on(60), off(60, 96)]))
    content[12:14] = bytes([256 - 25, 40])  # 25 frames a second, of 40 ticks
    piece = read_midi(bytes(content), "x")
    assert piece.tempo.tolist() == [[0, 500_000]] and piece.repairs == {"SMPTE time": 1}


def test_real_files_are_written_as_they_were_read():
    if not (DATA / "bach-417.zip").exists():
        pytest.skip(f"no bach-417.zip in {DATA}")
    with zipfile.ZipFile(DATA / "bach-417.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".mid")][::21][:20]
        for name in names:
            piece = read_midi(archive.read(name), "x", drums=True)
            assert_played_alike(piece, again(piece))
    assert len(names) == 20


def test_phrases_and_the_key_are_written_and_read():
    track, phrases = as_messages([[0, 1, 60], [960, 0, 60]]), np.array([480, 960], np.int32)
    piece = Piece("", [track], phrases=phrases, sharps=-3)
    file = io.BytesIO()
    write_midi(piece, file)
    again = read_midi(file.getvalue(), "")
    assert (again.phrases.tolist(), again.sharps) == ([480, 960], -3)
    tempo = mido.MidiFile(file=io.BytesIO(file.getvalue())).tracks[0]
    assert [m.text for m in tempo if m.type == "marker"] == ["phrase", "phrase"]
    assert [m.key for m in tempo if m.type == "key_signature"] == ["Eb"]


def test_time_signatures_are_written_and_read_with_their_beats():
    """Of two with bars as long the first counts, and what fits no bar is as if it weren't told."""
    track = as_messages([[0, 1, 60], [9600, 0, 60]])
    meter = np.array([[0, 1440], [1440, 1920], [3360, 1200], [4560, 1440]], np.int32)
    piece = Piece("", [track], meter=meter, beats={1440: 8, 1920: 2, 1200: 4})
    file = io.BytesIO()
    write_midi(piece, file)
    assert read_midi(file.getvalue(), "").beats == {1440: 8, 1920: 2, 1200: 8}
    first = mido.MidiFile(file=io.BytesIO(file.getvalue())).tracks[0]
    signatures = [(m.numerator, m.denominator) for m in first if m.type == "time_signature"]
    assert signatures == [(6, 8), (2, 2), (5, 8), (6, 8)]
    told = [
        mido.MetaMessage("time_signature", numerator=n, denominator=d, time=96)
        for n, d in ((3, 4), (6, 8), (4, 4))
    ]
    assert read_midi(file_of([*told, on(60), off(60, 96)]), "").beats == {1440: 4, 1920: 4}


def test_other_markers_say_nothing_and_the_first_key_counts():
    track = mido.MidiTrack(
        [
            mido.MetaMessage("marker", text="verse", time=0),
            mido.MetaMessage("key_signature", key="F#m", time=0),
            mido.Message("note_on", note=60, velocity=64, time=0),
            mido.MetaMessage("marker", text="phrase", time=240),
            mido.MetaMessage("key_signature", key="C", time=0),
            mido.Message("note_off", note=60, time=240),
        ]
    )
    file = io.BytesIO()
    mido.MidiFile(type=1, ticks_per_beat=240, tracks=[track]).save(file=file)
    piece = read_midi(file.getvalue(), "")
    assert (piece.phrases.tolist(), piece.sharps) == ([480], 3)


def test_names_of_keys_are_those_of_mido():
    for sharps in range(-7, 8):
        name = key_of_sharps(sharps)
        assert sharps_of(name) == sharps
        mido.MetaMessage("key_signature", key=name)
    assert [sharps_of(name) for name in ("Am", "Em", "Cm", "A#m", "Abm")] == [0, 1, -3, 7, -7]


def test_phrases_of_the_bundled_chorales():
    """Where their scores have fermatas, and at their ends; in bars mostly two or three."""
    with zipfile.ZipFile(BACH) as archive:
        pieces = [read_midi(archive.read(name), name) for name in archive.namelist()]
    told = [piece for piece in pieces if len(piece.phrases)]
    assert (len(pieces), len(told), sum(len(p.phrases) for p in told)) == (410, 406, 2886)
    assert all(piece.phrases[-1] == max(t[-1, TICK] for t in piece.tracks) for piece in told)
    lengths = np.concatenate([np.diff(piece.phrases, prepend=0) for piece in told]) / 1920
    assert np.median(lengths) == 2
    assert all(piece.sharps is not None for piece in pieces)
