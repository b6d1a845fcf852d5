import io
import random
import struct

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_mutations import assert_tracks

from lstm_music.midi import bytes as midi_file
from lstm_music.midi import track_reader
from lstm_music.midi.files import raw_tracks, read_midi
from lstm_music.midi.piece import REPAIRS, TICKS_PER_QUARTER, MidiError, notes_of
from lstm_music.midi.repair import HIT

END = b"\x00\xff\x2f\x00"


def header(tracks=1, kind=1, division=480):
    return b"MThd" + struct.pack(">LHHH", 6, kind, tracks, division)


def chunk(body, length=None):
    return b"MTrk" + struct.pack(">L", len(body) if length is None else length) + body


def note(pitch, wait=0, length=96, channel=0, velocity=64):
    """A note's two messages; times below 128."""
    on = bytes([wait, 0x90 | channel, pitch, velocity])
    return on + bytes([length, 0x80 | channel, pitch, 0])


def events(*rows):
    """Messages (wait, 1 on or 0 off, pitch, channel); waits below 128."""
    return b"".join(bytes([w, (0x90 if k else 0x80) | c, p, 64]) for w, k, p, c in rows) + END


def read(data, drums=False):
    """The notes of each track and the repairs, once it's certain that the velocities fit them."""
    piece = read_midi(data, "", drums)
    assert_tracks(piece.tracks)
    assert set(piece.repairs) <= set(REPAIRS)
    notes = [notes_of(track).tolist() for track in piece.tracks]
    assert [len(found) for found in piece.velocities] == [len(track) for track in notes]
    return notes, piece.repairs


ONE, TWO = chunk(note(60) + END), chunk(note(62) + note(64) + END)
NOTES_ONE, NOTES_TWO = [[0, 96, 60]], [[0, 96, 62], [96, 192, 64]]
BOTH = [NOTES_ONE, NOTES_TWO]
WHOLE = header(2) + ONE + TWO


# Where the tracks are


def test_a_whole_file_needs_no_repair():
    assert read(WHOLE) == (BOTH, {})


@pytest.mark.parametrize("length", [0, 3, 11, 13, 100, 2**31, 2**32 - 1])
def test_a_wrong_length_harms_no_track(length):
    first = chunk(note(60) + END, length)
    last = chunk(note(62) + note(64) + END, length)
    assert read(header(2) + first + TWO) == (BOTH, {"wrong track lengths": 1})
    assert read(header(2) + ONE + last) == (BOTH, {"wrong track lengths": 1})


def test_a_length_that_takes_in_the_next_track_hides_nothing():
    swallowing = chunk(note(60) + END + TWO, None)
    assert read(header(2) + swallowing) == (BOTH, {})


def test_what_no_midi_file_needs_is_passed_over():
    unknown = b"XFIH" + struct.pack(">L", 5) + b"hello"
    assert read(header(2) + unknown + ONE + unknown + TWO + unknown) == (BOTH, {})
    long_header = b"MThd" + struct.pack(">LHHHL", 10, 1, 2, 480, 0)
    assert read(long_header + ONE + TWO) == (BOTH, {})
    assert read(WHOLE + bytes(500)) == (BOTH, {})


@pytest.mark.parametrize("before", [b"RIFF\x00\x01\x00\x00RMIDdata\x90\x00\x00\x00", bytes(128)])
def test_a_wrapping_is_passed_over(before):
    assert read(before + WHOLE) == (BOTH, {"wrapped file": 1})


def test_tracks_count_more_than_their_count():
    assert read(header(65535) + ONE + TWO) == (BOTH, {"tracks missing": 65533})
    assert read(header(0) + ONE + TWO) == (BOTH, {"uncounted tracks": 2})
    older = note(70) + END + TWO  # a longer file was overwritten: its end is still there
    assert read(header(1) + ONE + older) == ([NOTES_ONE], {"tracks left out": 1})
    assert read(header(1) + ONE + WHOLE) == ([NOTES_ONE], {"tracks left out": 2})


def test_a_file_cut_off_anywhere_gives_what_it_holds():
    body = note(60) + note(62) + END
    data = header(2) + chunk(body) + chunk(note(72) + END)
    for size in range(23, len(data)):
        struck = (size - 22 >= 4) + (size - 22 >= 12)  # whole note-ons of the first track
        if not struck:
            with pytest.raises(MidiError, match=r"no notes .tracks cut off: 1"):
                read(data[:size])
            continue
        tracks, repairs = read(data[:size])
        assert len(tracks[0]) == struck
        second = 22 + len(body)
        assert repairs.get("tracks cut off", 0) == (size < second or size > second + 3)
        assert len(tracks) == (2 if size >= second + 8 + 4 else 1)


# What mido reads


def test_long_tracks_read_as_mido_reads_them():
    """Longer than many segments, in running status, with all that may stand between notes."""
    rng = random.Random(1)
    track = mido.MidiTrack()
    for _ in range(5000):
        kind = rng.choice(["note_on"] * 9 + ["note_off", "program_change", "pitchwheel", "sysex"])
        message = mido.Message(kind, time=rng.choice([0, 1, 200, 9000]))
        if kind.startswith("note"):
            pitch, velocity = rng.randrange(128), rng.choice([0, 1, 127])
            message = message.copy(note=pitch, velocity=velocity, channel=rng.choice([0, 0, 0, 5]))
        if kind == "sysex":
            message = message.copy(data=rng.randbytes(300).translate(bytes(range(128)) * 2))
        track.append(message)
        if rng.random() < 0.05:
            track.append(mido.MetaMessage("lyrics", text="é" * rng.randrange(300), time=3))
    file = io.BytesIO()
    mido.MidiFile(tracks=[track, track], ticks_per_beat=480).save(file=file)
    now, rows = 0, []
    for message in track:
        now += message.time
        if message.type in ("note_on", "note_off"):
            sounds = message.type == "note_on" and message.velocity > 0
            rows.append([now, sounds, message.note])
    found = raw_tracks(file.getvalue())
    assert [messages.tolist() for messages in found] == [rows, rows]


BAD_METAS = (
    b"\x05\xff\x51\x00",  # a tempo without a number
    b"\x05\xff\x59\x02\xff\xff",  # no such key
    b"\x05\xff\x58\x01\x04",  # half a metre
    b"\x05\xff\x20\x00",  # a channel without a number
    b"\x05\xff\x54\x05\xff\xff\xff\xff\xff",  # no such hour
)


@pytest.mark.parametrize("bad", BAD_METAS)
def test_bad_meta_events_are_ignored_but_for_their_time(bad):
    body = bad + note(60) + bad + bad + b"".join(note(62) for _ in range(900)) + bad + END
    tracks, repairs = read(header() + chunk(body))
    assert tracks[0][0] == [5, 101, 60] and tracks[0][1] == [111, 207, 62]
    assert (len(tracks[0]), repairs) == (901, {"bad meta events": 4})


def meter_of(data):
    return read_midi(data, "").meter.tolist()


def test_time_signatures_of_any_track_are_the_meter():
    def signature(wait, numerator, power):
        return bytes([wait, 0xFF, 0x58, 4, numerator, power, 24, 8])

    assert meter_of(WHOLE) == []
    first = chunk(signature(0, 1, 2) + signature(96, 4, 2) + END)
    other = chunk(note(60) + signature(0, 3, 3) + signature(96, 5, 2) + note(60) + END)
    both = header(3, division=96) + first + other + TWO
    assert meter_of(both) == [[0, 480], [480, 720], [960, 2400]]  # the last of a tick counts
    assert meter_of(header(3, kind=2, division=96) + first + other + TWO) == []
    odd = (signature(1, 0, 2), signature(1, 255, 0), signature(1, 1, 9), signature(1, 1, 255))
    assert meter_of(header(1) + chunk(b"".join(odd) + signature(0, 2, 1) + ONE[8:])) == [[4, 1920]]
    late = b"".join(b"\xff\xff\xff\x7f" + signature(0, 3, 2)[1:] for _ in range(9))
    assert meter_of(header(2) + ONE + chunk(signature(0, 3, 2) + late + END)) == [[0, 1440]]
    bad = b"\x05\xff\x58\x01\x04"
    assert meter_of(header(1) + chunk(bad + signature(5, 6, 3) + ONE[8:])) == [[10, 1440]]


def test_an_unknown_meta_event_takes_its_time():
    assert read(header() + chunk(b"\x83\x60\xff\x60\x01\x00" + note(60) + END))[0] == [
        [[480, 576, 60]]
    ]


def test_text_may_be_in_any_encoding():
    texts = ["Frédéric".encode(), "ショパン".encode("shift-jis"), bytes(range(129, 256))]
    metas = b"".join(b"\x00\xff\x03" + bytes([len(text), *text]) for text in texts)
    tracks, repairs = read(header() + chunk(metas + note(60)))
    assert (tracks, repairs) == ([NOTES_ONE], {})


@pytest.mark.parametrize(
    "damage", [b"\x00\xf4", b"\x00\xff\x01\xff\xff\xff\x7f", b"\x00\x90\xff\x40"]
)
def test_damage_costs_the_rest_of_its_track_and_no_other(damage):
    many = b"".join(note(62) for _ in range(500))
    body = note(60) + many + damage + note(64) + END
    tracks, repairs = read(header(2) + chunk(body) + TWO)
    assert len(tracks[0]) == 501 and tracks[1:] == [NOTES_TWO]
    assert repairs == {"damaged tracks": 1}


def test_a_message_that_reaches_into_the_next_track_is_damage():
    first = chunk(note(60) + b"\x00\xf0\x10")
    assert read(header(2) + first + TWO) == (BOTH, {"damaged tracks": 1})


def test_what_follows_the_end_of_a_track_is_not_read():
    assert read(header(2) + chunk(note(60) + END + note(70) + b"\x00\xf4") + TWO) == (BOTH, {})


@pytest.mark.parametrize("between", [b"\x00\xf0\x03\x01\x02\xf7", b"\x00\xf8", b"\x00\xff\x01\x00"])
def test_running_status_outlasts_what_is_no_message_of_a_channel(between):
    body = b"\x00\x90\x3c\x40" + between + b"\x60\x3c\x00" + END
    assert read(header() + chunk(body)) == ([NOTES_ONE], {})


def test_a_velocity_above_127_sounds():
    assert read(header() + chunk(note(60, velocity=200) + END)) == ([NOTES_ONE], {})


# Time


@pytest.mark.parametrize(("frames", "rate"), [(24, 24), (25, 25), (29, 30 / 1.001), (30, 30)])
def test_film_frames_are_read_at_120_quarter_notes_a_minute(frames, rate):
    division = (256 - frames) << 8 | 4
    data = header(division=division) + chunk(note(60, length=100) + END)
    ticks = round(100 / (rate * 4) * 2 * TICKS_PER_QUARTER)
    assert read(data) == ([[[0, ticks, 60]]], {"SMPTE time": 1})


def test_sequences_stand_end_to_end():
    first = chunk(events((0, 1, 60, 0), (0, 1, 62, 9), (0, 1, 64, 1), (96, 0, 60, 0)))
    tracks, repairs = read(header(3, kind=2) + first + chunk(END) + TWO)
    assert tracks == [
        [[0, 96, 60], [1920, 2016, 62], [2016, 2112, 64]],
        [[0, 96, 64]],
    ]
    kinds = ("hanging notes", "drum notes left out", "sequences end to end", "channels made tracks")
    assert repairs == dict.fromkeys(kinds, 1)
    long = chunk(b"\x00\x90\x3c\x40\x95\xfc\x40\x80\x3c\x00" + END)  # 15,000 quarter notes
    with pytest.raises(MidiError, match="lasts longer"):
        read(header(7, kind=2, division=24) + 7 * long)


# Channels and repairs


def test_a_track_of_type_0_becomes_a_track_a_channel():
    track = chunk(events((0, 1, 60, 5), (0, 1, 60, 2), (10, 0, 60, 5), (10, 0, 60, 2)))
    tracks = [[[0, 20, 60]], [[0, 10, 60]]]
    assert read(header(kind=0) + track) == (tracks, {"channels made tracks": 1})
    assert read(header(2, kind=0) + track + ONE)[0] == [[[0, 20, 60]], NOTES_ONE]


def test_drums_are_left_out_or_kept():
    track = chunk(note(36, channel=9) + note(60) + END)
    assert read(header() + track) == ([[[96, 192, 60]]], {"drum notes left out": 1})
    assert read(header() + track, drums=True) == ([[[0, 96, 36], [96, 192, 60]]], {})


@pytest.mark.parametrize(
    ("rows", "notes", "kept"),
    [
        ("0+ 0-", [(0, HIT)], 1),
        ("0+ 0- 125+ 125- 250+ 260-", [(0, HIT), (125, 125 + HIT), (250, 260)], 2),
        ("0+ 0- 9+ 9- 40+ 90-", [(0, 9), (9, 40), (40, 90)], 2),  # up to the next
        ("5+ 5- 5+ 5-", [(5, 5 + HIT)], 1),  # struck twice at once
    ],
)
def test_a_drum_hit_that_ends_as_it_begins_is_kept(rows, notes, kept):
    last, raw = 0, []
    for tick, sign in ((int(row[:-1]), row[-1]) for row in rows.split()):
        raw.append((tick - last, sign == "+", 36, 9))
        last = tick
    file = header(kind=1) + chunk(events(*raw))
    tracks, repairs = read(file, drums=True)
    assert tracks == [[[start, end, 36] for start, end in notes]]
    assert repairs["drum hits of length zero"] == kept
    with pytest.raises(MidiError, match=r"drum notes left out: .*--drums keeps"):
        read(file)


def test_a_track_is_drums_if_most_of_its_notes_are():
    tracks = [note(36, channel=9), note(60), note(36, channel=9) * 2 + note(60)]
    for kind, expected in ((1, (True, False, True)), (0, (False, True))):
        data = header(len(tracks), kind) + b"".join(chunk(track + END) for track in tracks)
        if kind == 0:  # of one track, the channels become tracks
            data = header(1, 0) + chunk(b"".join(tracks) + END)
        assert read_midi(data, "", drums=True).drums == expected
        assert read_midi(data, "").drums == ()
    rows = [(0, 1, 9), (5, 1, 3), (5, 0, 9), (5, 1, 9), (5, 0, 3), (5, 0, 9)]  # one voice of two
    joined = chunk(events(*((wait, on, 36, channel) for wait, on, channel in rows)))
    assert read_midi(header() + joined, "", drums=True).drums == (True,)


@pytest.mark.parametrize(
    ("rows", "notes", "repairs"),
    [
        # Each off ends one note: the earlier is over when the next is struck.
        ("1 0+ 10+ 20- 30-", [(0, 10), (10, 30)], {"notes struck while sounding": 1}),
        ("1 0+ 10+ 10- 20+ 20- 30-", [(0, 10), (10, 20), (20, 30)], None),
        # An off is missing somewhere: each ends a note, as the pitch would never be silent.
        ("1 0+ 10+ 20- 30+ 40-", [(0, 10), (10, 20), (30, 40)], None),
        ("1 5- 10+ 20- 20-", [(10, 20)], {"orphan note-offs": 2}),
        ("1 0+ 10+ 20-", [(0, 10), (10, 20)], {"notes struck while sounding": 1}),
        ("1 0+ 10- 20+", [(0, 10), (20, 500)], {"hanging notes": 1}),
        ("1 0+ 0- 0+ 10-", [(0, 10)], {"notes of length zero": 1}),
        ("2 0+ 10+ 20- 30-", [(0, 10), (10, 30)], {"notes struck on two channels": 1}),
        ("2 0+ 0+ 20- 30-", [(0, 30)], {"notes struck on two channels": 1}),
    ],
)
def test_notes_that_share_a_pitch(rows, notes, repairs):
    """Rows are the channels in turn, then ticks with + for an on and - for an off."""
    channels, *messages = rows.split()
    last, raw = 0, []
    for n, (tick, sign) in enumerate((int(m[:-1]), m[-1]) for m in messages):
        raw.append((tick - last, sign == "+", 60, n % int(channels)))
        last = tick
    tracks, found = read(header() + chunk(events(*raw)))
    assert tracks == [[[start, end, 60] for start, end in notes]]
    assert repairs is None or found == repairs


@st.composite
def raw_files(draw):
    """The type of a file, and rows (wait, on, pitch, channel) for each of its tracks."""
    wait = st.sampled_from([0, 0, 1, 5])
    row = st.tuples(wait, st.integers(0, 1), st.integers(60, 61), st.sampled_from([0, 0, 3, 9]))
    return draw(st.integers(0, 1)), draw(st.lists(st.lists(row, max_size=24), max_size=3))


@settings(deadline=None, max_examples=200)
@given(raw_files(), st.booleans())
def test_reading_keeps_what_sounds(file, drums):
    """Against a synthesiser of the same rules, a voice and a tick at a time."""
    kind, tracks = file
    data = header(len(tracks), kind) + b"".join(chunk(events(*rows)) for rows in tracks)
    expected = [voices_slowly(rows, drums) for rows in tracks]
    expected = [voices for voices in expected if voices]
    if kind == 0 and len(expected) == 1:
        (voices,) = expected
        channels = sorted({channel for channel, _ in voices})
        expected = [{v: n for v, n in voices.items() if v[0] == c} for c in channels]
    if not expected:
        with pytest.raises(MidiError, match=r"has no (notes|tracks)"):
            read(data, drums)
        return
    found, _ = read(data, drums)
    assert len(found) == len(expected)
    for notes, voices in zip(found, expected, strict=True):
        everything = [(pitch, *n) for (_, pitch), ns in voices.items() for n in ns]
        assert sounding(notes) == {(t, p) for p, a, b in everything for t in range(a, b)}
        assert [(n[0], n[2]) for n in notes] == sorted({(a, p) for p, a, _ in everything})


def voices_slowly(rows, drums):
    """The notes (start, end) of each (channel, pitch) of a track that are longer than nothing."""
    now, voices = 0, {}
    for wait, on, pitch, channel in rows:
        now += wait
        if drums or channel != 9:
            voices.setdefault((channel, pitch), []).append((now, on))
            last = now
    found = {}
    for voice, messages in voices.items():
        depth, depths = 0, []
        for _, on in messages:
            depth = max(0, depth + (1 if on else -1))
            depths.append(depth)
        silence = max((n for n, depth in enumerate(depths) if depth == 0), default=-1)
        notes, struck = [], None
        for n, (tick, on) in enumerate(messages):
            ends = on or depths[n] == 0 or n > silence
            if struck is not None and ends:
                notes.append((struck, tick))
                struck = None
            if on:
                struck = tick
        if struck is not None:
            notes.append((struck, last if struck < last else last + TICKS_PER_QUARTER))
        if voice[0] == 9:  # a hit of no length has one, up to the next
            later = [start for start, _ in notes[1:]] + [notes[-1][0] + HIT] if notes else []
            notes = [
                (start, end if start < end else min(start + HIT, after))
                for (start, end), after in zip(notes, later, strict=True)
            ]
        notes = [(start, end) for start, end in notes if start < end]
        if notes:
            found[voice] = notes
    return found


def sounding(notes):
    return {(tick, pitch) for start, end, pitch in notes for tick in range(start, end)}


# Bounds


def test_a_file_too_large_is_not_read_whole(tmp_path):
    with pytest.raises(MidiError, match=r"larger than 8,388,608 bytes"):
        read(bytes(midi_file.MOST_BYTES + 1))
    with (tmp_path / "sparse.mid").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(MidiError, match="larger than"):
        read_midi(tmp_path / "sparse.mid", "")


HOSTILE = {
    "notes": (chunk(b"\x00\x90\x40\x40" + b"\x01\x40\x40\x01\x40\x00" * 900), "1,000 messages"),
    "empty tracks": (chunk(b"") * 300, "50 tracks"),
    "damaged tracks": (chunk(b"\x00\x90\x40\x40" * 20 + b"\x00\xf4") * 49, "1,000 messages"),
    "bad metas": (chunk(note(60) + b"\x00\xff\x51\x00" * 900), "1,000 messages"),
    "bad metas after notes": (chunk((note(60) * 50 + b"\x00\xff\x51\x00") * 30), "1,000 messages"),
    "clocks": (chunk(b"\x00\x90\x40\x40" + b"\x00\xf8\x00\x40\x00" * 400), "1,000 messages"),
    "exclusives": (chunk(note(60) + (b"\x00\xf0\x9f\x00" + bytes(31 * 128)) * 30), "20,000 bytes"),
    "lengths": ((ONE[:-4] + b"\x00\xf0\x9f\x00") * 40 + bytes(4000), "20,000 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_mido_reads_of_a_file_is_bounded(name, monkeypatch):
    """The bounds are made small here; what they stand for in seconds is measured, not tested."""
    monkeypatch.setattr(track_reader, "MOST_MESSAGES", 1000)
    monkeypatch.setattr(track_reader, "MOST_EVENT_BYTES", 20000)
    monkeypatch.setattr(midi_file, "MOST_TRACKS_READ", 50)
    files = []
    open_file = mido.MidiFile

    def counted(file, clip):
        files.append(file)
        return open_file(file=file, clip=clip)

    monkeypatch.setattr(mido, "MidiFile", counted)
    data, reason = HOSTILE[name]
    with pytest.raises(MidiError, match=rf"(holds|has) more.* {reason}"):
        read_midi(header(300) + data, "")
    work = sum(len(file.starts) + track_reader.SEGMENT_COST for file in files)
    assert work < 1000 + track_reader.SEGMENT


def test_no_number_goes_on_for_ever():
    most = midi_file.LONGEST_NUMBER
    data = b"MThd" + b"\xff" * (3 * most) + b"\x01" + b"\x80" * most + b"\x02" + b"\xff" * 9
    short = midi_file._with_short_numbers(data)
    assert len(short) == len(data)
    assert max(map(len, short.translate(midi_file.HIGH).split(b"\0"))) < most
    changed = np.flatnonzero(np.frombuffer(short, np.uint8) != np.frombuffer(data, np.uint8))
    assert len(changed) == 4 and midi_file._with_short_numbers(short) is short
