from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import piece_of, track_of

from lstm_music.midi.grid import Moved, grids_of, nearest, on_grid, points_of
from lstm_music.midi.piece import KIND, LAST_TICK, TICK, Piece, no_phrases, notes_of
from lstm_music.midi.repair import repaired_tracks
from lstm_music.tokenizers.events import EventTokenizer
from lstm_music.tokenizers.messages import MessageTokenizer

GRIDS = [8, 16, 24, 48, "16,24", "3,32"]


@st.composite
def pieces(draw):
    """Pieces of repaired tracks, with bars and phrases, at any ticks."""
    note = st.tuples(st.integers(0, 4000), st.integers(1, 900), st.integers(58, 63))
    tracks = []
    for notes in draw(st.lists(st.lists(note, min_size=1, max_size=12), min_size=1, max_size=3)):
        tracks += repaired_tracks([track_of([(t, t + length, p) for t, length, p in notes])])
    places = sorted(draw(st.sets(st.integers(0, 4000), max_size=3)))
    meter = np.array([(tick, 480 + tick % 960) for tick in places], np.int32).reshape(-1, 2)
    loud = tuple(np.arange(1, 1 + len(track) // 2, dtype=np.int32) for track in tracks)
    phrases = np.array(sorted(draw(st.sets(st.integers(1, 4000), max_size=3))), np.int32)
    return Piece("a", tracks, meter=meter, velocities=loud, phrases=phrases)


def lies_on(ticks, grid):
    return np.any([ticks % (1920 // number) == 0 for number in grids_of(grid)], axis=0)


def alike(a, b):
    arrays = zip(
        [*a.tracks, *a.velocities, a.meter, a.phrases],
        [*b.tracks, *b.velocities, b.meter, b.phrases], strict=True,
    )  # fmt: skip
    return all(np.array_equal(one, other) for one, other in arrays)


@settings(max_examples=60, deadline=None)
@given(pieces(), st.sampled_from(GRIDS))
def test_a_piece_is_put_on_a_grid(piece, grid):
    moved = Moved()
    placed = on_grid(piece, grid, moved)
    gap = int(np.diff(points_of(grid)).max())
    assert moved.notes == sum(len(track) // 2 for track in piece.tracks)
    assert moved.furthest <= gap / 2
    assert moved.ticks <= moved.notes * moved.furthest
    for track, before, loud in zip(placed.tracks, piece.tracks, placed.velocities, strict=True):
        notes = notes_of(track)
        assert lies_on(track[:, TICK], grid).all()
        assert (notes[:, 0] < notes[:, 1]).all()
        assert len(loud) == len(notes)
        assert set(nearest(notes_of(before)[:, 0].astype(np.int64), points_of(grid))) == set(
            notes[:, 0].tolist()
        )
    for ticks in (placed.meter[:, 0], placed.phrases):
        assert lies_on(ticks, grid).all()
        assert (np.diff(ticks) > 0).all()
    assert set(placed.meter[:, 1].tolist()) <= set(piece.meter[:, 1].tolist())
    again = Moved()
    assert alike(on_grid(placed, grid, again), placed)  # what lies there stays
    assert (again.ticks, again.lengthened) == (0, 0)


@settings(max_examples=30, deadline=None)
@given(pieces(), st.sampled_from(GRIDS))
def test_what_is_on_the_grid_comes_back_from_words(piece, grid):
    placed = on_grid(replace(piece, phrases=no_phrases()), grid)
    flat = MessageTokenizer("flatten")
    back = flat.piece(flat.words(placed), "a")
    assert all(map(np.array_equal, map(notes_of, back.tracks), map(notes_of, placed.tracks)))
    events = EventTokenizer()
    back = events.piece(events.words(placed), "a")
    assert all(lies_on(track[:, TICK], grid).all() for track in back.tracks)
    assert events.words(back) == events.words(placed)


def test_the_nearest_point_of_either_grid_is_taken():
    ticks = np.array([0, 39, 40, 41, 79, 100, 101, 140, 141, 1919, 1920 + 85])
    found = nearest(ticks, points_of("16,24"))
    assert found.tolist() == [0, 0, 0, 80, 80, 80, 120, 120, 160, 1920, 1920 + 80]


def test_a_short_note_lasts_to_the_next_point_and_those_that_meet_are_one():
    track = track_of([(118, 125, 60), (126, 130, 60), (300, 310, 62)])
    piece = Piece("", [track], velocities=(np.array([40, 90, 70], np.int32),))
    moved = Moved()
    placed = on_grid(piece, 16, moved)
    assert notes_of(placed.tracks[0]).tolist() == [[120, 240, 60], [240, 360, 62]]
    assert placed.velocities[0].tolist() == [90, 70]
    assert moved == Moved(notes=3, ticks=2 + 6 + 60, furthest=60, lengthened=2)


def test_of_meters_that_meet_the_last_counts():
    meter = np.array([[0, 1920], [1900, 960], [1930, 1440]], np.int32)
    placed = on_grid(Piece("", [track_of([(0, 480, 60)])], meter=meter), 16)
    assert placed.meter.tolist() == [[0, 1920], [1920, 1440]]


def test_nothing_is_put_past_the_last_tick():
    track = track_of([(LAST_TICK - 1, LAST_TICK, 60)])
    for grid in GRIDS:
        (placed,) = on_grid(Piece("", [track]), grid).tracks
        assert placed[placed[:, KIND] == 0, TICK].tolist() == [LAST_TICK]


def test_what_knows_no_velocities_gets_none():
    assert on_grid(piece_of(0), 16).velocities == ()


@pytest.mark.parametrize("grid", [7, 0, -8, "16,7", "", "16,", "a", 1921, "²"])
def test_what_is_no_grid_is_refused(grid):
    with pytest.raises(ValueError, match="must divide 1920"):
        points_of(grid)
