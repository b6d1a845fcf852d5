import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import track_of

from lstm_music.corpus.roll_files import read_rolls
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.piece import LAST_TICK, Piece, notes_of
from lstm_music.midi.repair import repair_track
from lstm_music.midi.roll import (
    HIGHEST,
    LOWEST,
    NOTES,
    PROFILES,
    estimate_key,
    frames_of,
    key_of,
    pack,
    piece_of_frames,
    shift_range,
    to_common_key,
    transpose,
    unpack,
)

REPO = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
JSB = DATA / "piano-roll" / "JSB_Chorales.mat"
needs_jsb = pytest.mark.skipif(not JSB.exists(), reason=f"no {JSB.name} in LSTM_MUSIC_DATA")

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
grids = st.sampled_from([1, 4, 8, 16, 32, 1920])


@st.composite
def rolls(draw, most=12):
    """Frames of few or many notes, low and high."""
    steps = draw(st.integers(0, most))
    notes = draw(st.lists(st.tuples(st.integers(0, most - 1), st.integers(0, NOTES - 1))))
    return frames_from([(t, c) for t, c in notes if t < steps], steps)


def frames_from(notes, steps):
    frames = np.zeros((steps, NOTES), np.uint8)
    for t, column in notes:
        frames[t, column] = 1
    return frames


def frames_with(steps):
    """Frames from a list of MIDI pitches for each step."""
    return frames_from([(t, p - LOWEST) for t, step in enumerate(steps) for p in step], len(steps))


def without_silent_end(frames):
    sounding = np.flatnonzero(frames.any(axis=1))
    return frames[: sounding[-1] + 1] if len(sounding) else frames[:0]


def assert_frames(frames, expected):
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, expected)


# Storage and shifts


@given(rolls())
def test_packing_loses_nothing(frames):
    packed = pack(frames)
    assert packed.shape == (len(frames), 11) and packed.dtype == np.uint8
    assert_frames(unpack(packed), frames)


@given(rolls(), st.integers(-100, 100))
def test_transposing_moves_every_note_and_drops_those_that_leave(frames, semitones):
    moved = [(t, c + semitones) for t, c in np.argwhere(frames).tolist()]
    kept = [(t, c) for t, c in moved if 0 <= c < NOTES]
    assert_frames(transpose(frames, semitones), frames_from(kept, len(frames)))


@given(rolls())
def test_the_shift_range_is_as_wide_as_loses_no_note(frames):
    low, high = shift_range(frames)
    for shift in (low, high):
        assert transpose(frames, shift).sum() == frames.sum()
    for shift in (low - 1, high + 1):
        assert transpose(frames, shift).sum() < frames.sum() or not frames.any()


# Pieces


@given(rolls(), grids, st.booleans())
def test_frames_survive_being_a_piece(frames, grid, restrike):
    piece = piece_of_frames(frames, grid, "name", restrike)
    again, missing = frames_of(piece, grid)
    assert piece.name == "name" and missing == 0
    assert_frames(again, without_silent_end(frames))


@given(rolls(), grids, st.booleans())
def test_a_piece_of_frames_is_repaired_and_sorted(frames, grid, restrike):
    piece = piece_of_frames(frames, grid, "", restrike)
    assert len(piece.tracks) == frames.any()
    for track in piece.tracks:
        assert track.dtype == np.int32
        assert repair_track(track).tolist() == track.tolist()
        order = np.lexsort((track[:, 2], track[:, 1], track[:, 0]))
        assert order.tolist() == list(range(len(track)))
        if restrike:
            assert len(track) == 2 * frames.sum()


def test_held_notes_are_one_and_restruck_notes_many():
    frames = frames_with([[60], [60, 64], [], [60]])
    (held,) = piece_of_frames(frames, 8, "").tracks
    (struck,) = piece_of_frames(frames, 8, "", restrike=True).tracks
    assert notes_of(held).tolist() == [[0, 480, 60], [240, 480, 64], [720, 960, 60]]
    assert notes_of(struck).tolist() == [
        [0, 240, 60], [240, 480, 60], [240, 480, 64], [720, 960, 60]
    ]  # fmt: skip


def test_a_piece_of_frames_can_be_written_and_read():
    frames = frames_with([[60], [60, 64], [], [60]])
    file = io.BytesIO()
    write_midi(piece_of_frames(frames, 16, ""), file)
    assert_frames(frames_of(read_midi(file.getvalue(), ""), 16)[0], frames)


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 2000), st.integers(0, 900), st.integers(15, 115)),
            min_size=1,
            max_size=6,
        ),
        max_size=3,
    ),
    grids.filter(lambda grid: grid <= 32),
)
def test_a_frame_has_the_notes_that_sound_at_its_tick(tracks, grid):
    tracks = [repair_track(track_of([(s, s + n, p) for s, n, p in notes])) for notes in tracks]
    tracks = [track for track in tracks if len(track)]
    frames, missing = frames_of(Piece("", tracks), grid)
    notes = [note for track in tracks for note in notes_of(track).tolist()]
    ticks = 1920 // grid
    last = max((end for _, end, _ in notes), default=0)
    assert len(frames) == -(-last // ticks)
    expected = [
        {p for start, end, p in notes if start <= t * ticks < end and LOWEST <= p <= HIGHEST}
        for t in range(len(frames))
    ]
    assert_frames(frames, frames_with(expected))
    assert missing == sum(not LOWEST <= p <= HIGHEST for _, _, p in notes)


def test_a_piece_without_tracks_has_no_frames():
    frames, missing = frames_of(Piece("", []))
    assert frames.shape == (0, NOTES) and missing == 0


@pytest.mark.parametrize("grid", [0, -8, 7, 3840])
def test_a_grid_must_divide_a_whole_note(grid):
    with pytest.raises(ValueError, match="must divide 1920"):
        frames_of(Piece("", []), grid)
    with pytest.raises(ValueError, match="must divide 1920"):
        piece_of_frames(np.zeros((1, NOTES), np.uint8), grid, "")


def test_frames_too_long_for_a_midi_file_are_refused():
    steps = LAST_TICK // 1920 + 1
    frames = np.broadcast_to(np.zeros(NOTES, np.uint8), (steps, NOTES))  # no memory
    with pytest.raises(ValueError, match="longer than a MIDI file"):
        piece_of_frames(frames, 1, "")


# Keys


def music_in(tonic, mode):
    """A scale up, and a cadence of the chords on its first, fourth, fifth and first degrees."""
    degrees, leading = (MAJOR, 11) if mode == "major" else (MINOR, 11)
    triads = [[degrees[d % 7] for d in (root, root + 2, root + 4)] for root in (0, 3, 4, 0)]
    triads[2][1] = leading  # the dominant is major in minor too
    chords = [[d] for d in degrees] + triads * 3
    return frames_with([[60 + (tonic + d) % 12 for d in chord] for chord in chords])


@pytest.mark.parametrize("mode", PROFILES)
@pytest.mark.parametrize("tonic", range(12))
def test_keys_are_recognised_and_brought_to_the_common_ones(tonic, mode):
    frames = music_in(tonic, mode)
    assert estimate_key(frames) == (tonic, mode)
    for minor, target in (("A", 9), ("C", 0)):
        common, shift = to_common_key(frames, minor)
        goal = target if mode == "minor" else 0
        assert -6 <= shift <= 5 and (tonic + shift) % 12 == goal
        assert estimate_key(common) == (goal, mode)
        assert_frames(common, transpose(frames, shift))


@pytest.mark.parametrize(
    ("tonic", "mode", "sharps", "expected"),
    [
        (0, "major", None, (0, "major", 0)),
        (0, "major", 0, (0, "major", 0)),
        (0, "major", 1, (7, "major", 7)),  # a fifth apart: the signature's
        (0, "major", -1, (5, "major", 5)),
        (0, "major", 2, (0, "major", 0)),  # more than that: the notes'
        (2, "minor", None, (2, "minor", 5)),
        (2, "minor", -1, (2, "minor", 5)),
        (2, "minor", -2, (7, "minor", 10)),
        (2, "minor", 0, (2, "minor", 0)),  # Dorian
        (2, "minor", 4, (2, "minor", 5)),
    ],
)
def test_a_piece_is_in_the_key_of_its_signature_unless_notes_contradict(
    tonic, mode, sharps, expected
):
    weights = np.round(8 * np.array(PROFILES[mode])).astype(int)
    spans = [(0, int(n), 60 + (k + tonic) % 12) for k, n in enumerate(120 * weights)]
    piece = Piece("", [track_of(spans), track_of([(0, 96000, 60 + tonic + 1)])],
                  drums=(False, True), sharps=sharps)  # fmt: skip
    assert key_of(piece) == expected


@given(rolls(), st.integers(-6, 6))
@settings(max_examples=50)
def test_a_transposed_piece_has_a_transposed_key(frames, semitones):
    frames = frames + np.roll(frames, 1, axis=0) > 0
    frames = np.concatenate([frames, music_in(0, "major")]).astype(np.uint8)
    frames[:, :6] = frames[:, -6:] = 0
    tonic, mode = estimate_key(frames)
    moved_tonic, moved_mode = estimate_key(transpose(frames, semitones))
    assert (moved_tonic, moved_mode) == ((tonic + semitones) % 12, mode)


def test_silence_is_in_c_major():
    silence = np.zeros((3, NOTES), np.uint8)
    assert estimate_key(silence) == estimate_key(silence[:0]) == (0, "major")
    assert to_common_key(silence)[1] == 0


@pytest.mark.parametrize(("edge", "tonic", "shift"), [(LOWEST, 1, 11), (HIGHEST, 11, -11)])
def test_no_note_is_lost_where_another_octave_has_room(edge, tonic, shift):
    frames = np.concatenate([music_in(tonic, "major")] * 5)
    frames[0, edge - LOWEST] = 1
    common, chosen = to_common_key(frames)
    assert chosen == shift and common.sum() == frames.sum()


def test_where_no_octave_has_room_the_least_shift_is_taken():
    frames = np.concatenate([music_in(1, "major")] * 5)
    frames[0, [0, -1]] = 1
    common, shift = to_common_key(frames)
    assert shift == -1 and common.sum() == frames.sum() - 1


# Real music


@needs_jsb
def test_the_chorales_stand_in_c():
    # The set was transposed to C major and C minor; the rest are mostly heard in G.
    keys = [estimate_key(frames) for rolls in read_rolls(JSB).values() for frames in rolls]
    share = {key: keys.count(key) / len(keys) for key in keys}
    assert share[0, "major"] > 0.4 and share[0, "minor"] > 0.3
    assert share[0, "major"] + share[0, "minor"] > 0.75
