"""Performances: words and pieces, there and back, and what of a recording is in them."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from played import played_file
from small import track_of
from test_messages import pieces

from lstm_music.midi.files import read_any, read_midi, write_midi
from lstm_music.midi.piece import LAST_TICK, MidiError, Piece, notes_of
from lstm_music.midi.repair import merge_tracks
from lstm_music.tokenizers.messages import PIECE_END, PITCHES
from lstm_music.tokenizers.nearest import NearestPerformance
from lstm_music.tokenizers.performance import (
    BIN,
    KINDS,
    SHIFT,
    STEP,
    USUAL,
    VELOCITY,
    PerformanceTokenizer,
    parse,
    performed,
    spell,
    steps_told,
)

TOKENIZER = PerformanceTokenizer()
REPO = Path(__file__).parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
PLAYED = np.array([[0, 480_000]], np.int32)  # a tick is a millisecond
words = st.one_of(
    st.builds(spell, st.sampled_from([0, 1]), st.sampled_from([0, 60, 61, 127])),
    st.builds(spell, st.just(SHIFT), st.integers(1, 100)),
    st.builds(spell, st.just(VELOCITY), st.integers(0, 31)),
)
any_words = st.lists(st.one_of(words, words, words, st.just(PIECE_END)), max_size=40)


def played(*tracks, velocities=(), tempo=PLAYED):
    """A piece of tracks of (start, end, pitch)."""
    loud = tuple(np.array(v, np.int32) for v in velocities)
    return Piece("x", [track_of(notes) for notes in tracks], velocities=loud, tempo=tempo)


def test_the_words_of_a_piece():
    piece = played(
        [(500, 1500, 60), (1500, 1740, 60)], [(500, 4107, 64), (503, 4107, 67)],
        velocities=([80, 83], [80, 127]),
    )  # fmt: skip
    assert TOKENIZER.words(piece) == [
        "velocity-20", "on-60", "on-64", "velocity-31", "on-67",
        "shift-100", "off-60", "velocity-20", "on-60", "shift-24", "off-60",
        "shift-100", "shift-100", "shift-37", "off-64", "off-67", "piece-end",
    ]  # fmt: skip


@pytest.mark.parametrize("pause", [1, 99, 100, 101, 200, 201, 300])
def test_a_pause_is_whole_seconds_and_the_rest(pause):
    told = TOKENIZER.words(played([(0, pause * STEP, 60)]))[2:-2]
    assert sum(steps_told(told)) == pause
    assert told[:-1] == ["shift-100"] * ((pause - 1) // 100)
    assert len(told) == -(-pause // 100)


def test_time_is_that_of_the_tempo():
    tempo = np.array([[0, 500_000], [480, 1_000_000]], np.int32)
    piece = played([(0, 480, 60), (480, 960, 62)], tempo=tempo)
    assert steps_told(TOKENIZER.words(piece)) == [0, 0, 50, 0, 0, 100, 0, 0]
    silent = Piece("x", piece.tracks)  # 90 quarter notes a minute
    assert sum(steps_told(TOKENIZER.words(silent))) == round(2 * 60 / 90 * 100)


def test_no_error_of_rounding_adds_up():
    """A thousand notes 4 ms after one another, and a thousand that are 14 ms long."""
    notes = [(14 * n, 14 * n + 14, 60 + n % 2) for n in range(1000)]
    again = TOKENIZER.piece(TOKENIZER.words(played(notes)), "x")
    off = notes_of(again.tracks[0])[:, 0] - [start for start, _, _ in notes]
    assert np.abs(off).max() <= STEP // 2


def test_notes_that_are_too_short_to_tell_last_a_step():
    assert notes_of(performed(played([(0, 3, 60), (100, 104, 61)]))[0]).tolist() == [
        [0, 10, 60], [100, 110, 61],
    ]  # fmt: skip
    again, loud = performed(played([(0, 2, 60), (3, 90, 60)], velocities=([30, 50],)))
    assert notes_of(again).tolist() == [[0, 90, 60]]  # struck twice in a step
    assert loud.tolist() == [50]


def test_hands_on_two_tracks_become_one():
    piece = played([(0, 500, 60)], [(0, 900, 60), (300, 700, 64)], velocities=([40], [90, 8]))
    track, velocities = performed(piece)
    assert notes_of(track).tolist() == [[0, 900, 60], [300, 700, 64]]
    assert velocities.tolist() == [90, 8]  # of one struck twice at once, the loudest
    assert track.tolist() == merge_tracks(piece).tolist()


def same_music(one, other):
    """Whether two pieces are the same notes, as loud to the bin."""
    (a, loud), (b, as_loud) = performed(one), performed(other)
    return a.tolist() == b.tolist() and (loud // BIN).tolist() == (as_loud // BIN).tolist()


@settings(deadline=None)
@given(pieces(), st.integers(0, 2**31))
def test_words_decode_to_the_performance_that_they_tell(piece, seed):
    rng = np.random.default_rng(seed)
    loud = tuple(rng.integers(1, 128, len(track) // 2) for track in piece.tracks)
    piece = Piece("p", piece.tracks, velocities=loud, tempo=PLAYED)
    told = TOKENIZER.words(piece)
    again = TOKENIZER.piece(told, "again")
    assert (again.name, again.tempo.tolist()) == ("again", PLAYED.tolist())
    assert same_music(piece, again)
    assert TOKENIZER.words(again) == told


@settings(deadline=None)
@given(any_words)
def test_any_words_make_a_piece_that_can_be_written(some):
    piece = TOKENIZER.piece(some, "any")
    assert all(len(v) == len(t) // 2 for t, v in zip(piece.tracks, piece.velocities, strict=True))
    content = io.BytesIO()
    write_midi(piece, content)
    if piece.tracks and (piece.notes["start"] < piece.notes["end"]).any():
        assert same_music(read_midi(content.getvalue(), "x", played=True), piece)


def test_a_piece_ends_with_its_end():
    piece = TOKENIZER.piece([PIECE_END, "on-60", "shift-5", "off-60", PIECE_END, "on-61"], "x")
    assert notes_of(piece.tracks[0]).tolist() == [[0, 50, 60]]
    assert piece.velocities[0].tolist() == [USUAL]
    assert TOKENIZER.piece([], "x").tracks == []
    assert TOKENIZER.words(Piece("x", [])) == [PIECE_END]
    assert TOKENIZER.words(played([(5, 5, 60)])) == [PIECE_END]


def test_time_stops_at_the_last_tick():
    far = ["shift-100"] * (LAST_TICK // 1000 + 2)
    piece = TOKENIZER.piece(["on-60", *far, "off-60"], "x")
    assert piece.tracks[0][-1, 0] == LAST_TICK
    slow = np.array([[0, 2**24 - 1]], np.int32)
    track, _ = performed(played([(0, LAST_TICK, 60), (LAST_TICK - 9, LAST_TICK, 62)], tempo=slow))
    assert notes_of(track).tolist() == [[0, LAST_TICK, 60], [LAST_TICK - STEP, LAST_TICK, 62]]


@pytest.mark.parametrize(
    "word",
    [
        "",
        "on",
        "on-128",
        "on--1",
        "off-060",
        "shift-0",
        "shift-101",
        "velocity-32",
        "at-0",
        "on-60/0",
        "on-60/17",
        "on-60/",
        "on-60/01",
        "velocity-3/0",
        "shift-1/1",
        "part-0",
        "part-17",
        "part-1/1",
    ],
)
def test_other_words_are_refused(word):
    with pytest.raises(ValueError, match="not a word of a performance"):
        parse(word)


@pytest.mark.parametrize(
    "word",
    [
        "on-60",
        "off-0",
        "shift-1",
        "shift-100",
        "velocity-0",
        "part-16",
        "on-127/1",
        "off-0/16",
        "velocity-31/9",
    ],
)
def test_words_are_spelled_as_they_are_parsed(word):
    kind, number, part = parse(word)
    code = (part * PITCHES + number) * len(KINDS) + kind
    assert spell(kind, number, part) == TOKENIZER.spelled(code) == word


def test_only_pitches_are_transposed():
    assert TOKENIZER.transpose("on-60", 7) == "on-67"
    assert TOKENIZER.transpose("off-3", -4) is TOKENIZER.transpose("on-127", 1) is None
    for word in ("shift-9", "velocity-9", PIECE_END):
        assert TOKENIZER.transpose(word, 5) == word


def test_the_nearest_word_of_a_vocabulary():
    nearest = NearestPerformance([PIECE_END, "on-60", "shift-4", "shift-8", "velocity-9"])
    assert nearest("on-60") == "on-60"
    assert nearest("on-61") is nearest("off-60") is None
    assert [nearest(f"shift-{n}") for n in (1, 5, 6, 7, 99)] == [
        "shift-4", "shift-4", "shift-4", "shift-8", "shift-8",
    ]  # fmt: skip
    assert nearest("velocity-31") == "velocity-9"
    assert NearestPerformance(["on-60"])("shift-5") is None


# What of a file comes out again -------------------------------------------------------------------


def check_there_and_back(content):
    """Hold a file to read -> words -> piece -> write -> read; return how many notes it has."""
    piece, drums = read_any(content, "x")
    piece = read_midi(content, "x", drums, played=True)
    told = TOKENIZER.words(piece)
    file = io.BytesIO()
    write_midi(TOKENIZER.piece(told, "x"), file)
    again = read_midi(file.getvalue(), "x", drums, played=True)
    first = piece.notes["start"].min()
    was, loud = in_milliseconds(piece)
    now, as_loud = notes_of(again.tracks[0]), again.velocities[0]
    assert len(now) <= len(was)
    found = 0
    by_pitch = {int(p): np.flatnonzero(now[:, 2] == p) for p in np.unique(now[:, 2])}
    for (start, end, pitch), velocity in zip(was.tolist(), loud.tolist(), strict=True):
        near = by_pitch[pitch][np.abs(now[by_pitch[pitch], 0] - (start - first)) <= STEP // 2]
        assert len(near), (start, pitch)
        lengths = now[near, 1] - now[near, 0] - (end - start)
        found += any((np.abs(lengths) <= STEP) & (as_loud[near] // BIN == velocity // BIN))
    twice = len(was) - len(now)  # struck twice within a step
    assert found >= len(was) - 2 * twice
    assert TOKENIZER.words(again) == told
    return len(was)


def in_milliseconds(piece):
    """The notes of all tracks merged, and the loudest velocity of each."""
    merged = notes_of(merge_tracks(piece))
    loudest = {}
    for note in piece.notes:
        at = int(note["start"]), int(note["pitch"])
        loudest[at] = max(loudest.get(at, 0), int(note["velocity"]))
    return merged, np.array([loudest[start, pitch] for start, _, pitch in merged.tolist()])


@pytest.mark.parametrize("pedal", [True, False])
@pytest.mark.parametrize("division", [384, 480])
def test_a_recording_comes_out_as_it_went_in(division, pedal):
    """Velocities to their bin, onsets to 5 ms, lengths to 10 ms, with the pedal in them."""
    for seed in range(4):
        assert check_there_and_back(played_file(seed, 300, division, pedal=pedal)[0]) > 300


@pytest.mark.parametrize("name", ["classical-2000", "bach-417"])
def test_files_of_users_come_out_as_they_went_in(name):
    path = DATA / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"no {path.name}: set LSTM_MUSIC_DATA")
    checked = 0
    with zipfile.ZipFile(path) as archive:
        files = sorted(n for n in archive.namelist() if n.lower().endswith(".mid"))
        for file in files[:: len(files) // 12]:
            try:
                checked += check_there_and_back(archive.read(file)) > 0
            except MidiError:
                continue
    assert checked >= 10
