"""What was played without a metronome gets the rhythm that was meant."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.midi.beats import in_time
from lstm_music.midi.grid import on_grid
from lstm_music.midi.piece import Piece, notes_of
from lstm_music.midi.repair import sorted_messages
from lstm_music.midi.timing import constant, tempo_at

RHYTHM = (0, 1, 2, 3, 3.5, 4, 5.5, 6, 7, 8, 8.5, 9, 10, 11, 11.25, 11.5, 12)  # in quarters


def played(slower=1.0, deviation=0.0, seed=0, rhythm=RHYTHM):
    """The rhythm as somebody plays it, from the first note on, in ticks of 96 quarters a minute."""
    rng = np.random.default_rng(seed)
    starts = np.array(rhythm) * 480 * slower + rng.normal(0, deviation, len(rhythm))
    starts = np.rint(np.sort(starts) - starts.min()).astype(np.int64)
    track = sorted_messages(starts, starts + 60, 60 + np.arange(len(starts)))
    return Piece("", [track], tempo=constant(96.0))


def meant(piece):
    """The beginnings of a piece's notes on a grid of sixteenths, in quarters."""
    return tuple((notes_of(on_grid(piece, 16).tracks[0])[:, 0] / 480).tolist())


@settings(max_examples=60, deadline=None)
@given(st.floats(0.89, 1.12), st.integers(0, 10_000))
def test_the_rhythm_and_the_tempo_are_those_that_were_meant(slower, seed):
    piece = in_time(played(slower, 12, seed), 16)
    assert meant(piece) == RHYTHM
    assert tempo_at(piece.tempo, 0) == pytest.approx(96 / slower, rel=0.015)


def test_without_it_they_are_not():
    assert meant(played(1.05)) != RHYTHM
    pieces = [played(1.0, 22, seed) for seed in range(60)]  # 29 ms, at the very tempo
    raw, found = (
        sum(meant(piece) == RHYTHM for piece in some)
        for some in (pieces, [in_time(piece, 16) for piece in pieces])
    )
    assert raw < 45 < 50 < found


def test_what_is_in_time_stays_as_it_is():
    for rhythm in (RHYTHM, (0,), (0, 2), (0, 0.25, 0.5)):
        piece = played(rhythm=rhythm)
        same = in_time(piece, 16)
        assert np.array_equal(same.tracks[0], piece.tracks[0])
        assert same.tempo.tolist() == piece.tempo.tolist()


def test_all_move_where_the_first_note_alone_is_early():
    piece = played(rhythm=(0, 1.15, 2.15, 3.15, 4.15))
    assert meant(piece) == (0, 1.25, 2.25, 3.25, 4.25)
    assert meant(in_time(piece, 16)) == (0, 1, 2, 3, 4)


def test_a_rhythm_of_beats_is_likelier_than_one_between_them():
    """Quarters played 14 % slow are as near to sixteenths at another tempo."""
    piece = in_time(played(1.12, rhythm=range(9)), 16)
    assert meant(piece) == tuple(range(9))
