"""Parts of pieces: from a bar line on, as many bars as fit, one piece after another."""

import numpy as np
import pytest
from small import piece_of, track_of

from lstm_music.midi.piece import Part, Piece, notes_of
from lstm_music.midi.timing import constant, end_of, mean_tempo, seconds_at, seconds_of, tempo_at
from lstm_music.sampling.excerpts import (
    in_meter,
    joined,
    keys_of,
    last_bars,
    line_of,
    since,
    without,
)
from lstm_music.sampling.token_composers import InKeyOf
from lstm_music.tokenizers.events import EventTokenizer

THREE, FOUR = 1440, 1920


def meter(*rows):
    return np.array(rows, np.int32).reshape(-1, 2)


def scale(n, first=0):
    return track_of([(first + 240 * k, first + 240 * k + 240, 60 + k % 5) for k in range(n)])


def test_a_part_has_what_sounds_from_there_on_and_who_plays_it():
    low = track_of([(0, 480, 40), (480, FOUR + 5, 43), (960, 4000, 45), (FOUR, 4000, 41)])
    gone, high = track_of([(0, 1900, 70)]), track_of([(FOUR + 10, 4000, 72)])
    piece = Piece(
        "x", [low, gone, high], meter=meter((0, FOUR)), drums=(False, True, False),
        parts=(Part("low", 1), Part("gone", 2), Part("high", 3)),
        velocities=tuple(np.array(v, np.int32) for v in ([1, 2, 3, 4], [5], [6])),
        tempo=np.array([[0, 500_000], [1000, 400_000], [FOUR + 7, 300_000]], np.int32),
        phrases=np.array([480, 2400], np.int32), sharps=2, beats={FOUR: 2},
    )  # fmt: skip
    part = since(piece, FOUR)
    assert [notes_of(track).tolist() for track in part.tracks] == [
        [[0, 4000 - FOUR, 41], [0, 5, 43], [0, 4000 - FOUR, 45]], [[10, 4000 - FOUR, 72]]
    ]  # fmt: skip
    assert [v.tolist() for v in part.velocities] == [[4, 2, 3], [6]]
    assert [p.name for p in part.parts] == ["low", "high"] and part.drums == (False, False)
    assert part.tempo.tolist() == [[0, 400_000], [7, 300_000]]
    assert (part.meter.tolist(), part.phrases.tolist()) == ([[0, FOUR]], [480])
    assert (part.sharps, part.beats, part.name) == (2, {FOUR: 2}, "x")


@pytest.mark.parametrize("bars", [1, 2, 3, 7, 8, 9, 40])
@pytest.mark.parametrize("most", [0, 1, 6, 11, 12, 13, 50, 500])
def test_the_last_bars_are_as_many_as_fit(bars, most):
    """Six notes a bar; the size is counted in notes. No long piece is measured as a whole."""
    asked = []

    def size(piece):
        asked.append(sum(len(track) // 2 for track in piece.tracks))
        return asked[-1]

    piece = Piece("x", [scale(6 * bars)], meter=meter((0, THREE)))
    part = last_bars(piece, most, size)
    assert len(part.tracks[0]) // 2 == 6 * min(max(most // 6, 1), bars)
    assert max(asked, default=0) <= max(2 * most, 6) + 12


def test_the_last_bars_begin_with_the_first_that_sounds():
    """A rest of four bars fits as well, but there is nothing in it to go on from."""
    track = np.concatenate([scale(6), scale(12, 5 * THREE)])
    part = last_bars(Piece("x", [track], meter=meter((0, THREE))), 12, lambda p: len(keys_of(p)))
    assert notes_of(part.tracks[0]).tolist() == notes_of(scale(12)).tolist()


def test_a_meter_that_is_asked_for_keeps_the_upbeat():
    for rows, expected in (
        ([], [[0, THREE]]),
        ([(0, FOUR)], [[0, THREE]]),
        ([(0, 480), (480, FOUR), (9000, 960)], [[0, 480], [480, THREE]]),
        ([(0, FOUR), (480, FOUR)], [[0, 480], [480, THREE]]),  # a bar that is cut off
        ([(0, FOUR), (1920, 960)], [[0, THREE]]),
        ([(480, FOUR)], [[0, THREE]]),
    ):
        assert in_meter(Piece("x", [], meter=meter(*rows)), THREE).meter.tolist() == expected


def test_the_next_bar_line():
    piece = Piece("x", [], meter=meter((0, 480), (480, THREE)))
    lines = [line_of(piece, tick) for tick in (0, 1, 480, 481, 1920, 1921)]
    assert lines == [0, 480, 480, 1920, 1920, 3360]


def test_a_piece_follows_another_from_a_bar_line_on():
    first = Piece(
        "x", [scale(9), scale(1)], meter=meter((0, 480), (480, THREE)), drums=(True, False)
    )
    other = Piece("x", [scale(2), scale(1), scale(3)], meter=meter((0, THREE)), drums=(True,) * 3)
    line = 480 + 2 * THREE
    both = joined(first, 0, other)
    assert [len(keys_of(Piece("", [track]))) for track in both.tracks] == [11, 2, 3]
    assert both.tracks[0][18:, 0].tolist() == (scale(2)[:, 0] + line).tolist()
    assert both.tracks[2][0, 0] == line and both.drums == (True, False, True)
    assert both.meter.tolist() == [[0, 480], [480, THREE]]
    assert joined(first, line + 1, other).tracks[2][0, 0] == line + THREE  # it ends with a rest
    five = Piece("x", [scale(1)], meter=meter((0, 2400)))
    assert joined(first, 0, five).meter.tolist() == [[0, 480], [480, THREE], [line, 2400]]


def test_notes_may_be_left_out():
    piece = piece_of(3)
    some = set(keys_of(piece)[::2])
    assert keys_of(without(piece, some)) == keys_of(piece)[1::2]
    assert keys_of(without(piece, {*keys_of(piece)})) == []


def test_a_part_is_written_in_the_key_of_the_whole():
    """The last bars of a piece in C may be in A."""
    c, a = (0, 4, 7, 12, 11, 7, 5, 2), (9, 13, 16, 21, 20, 16, 14, 11)
    pitches = [60 + p for p in c * 5] + [48 + p for p in a]
    track = track_of([(240 * n, 240 * n + 240, p) for n, p in enumerate(pitches)])
    whole = Piece("x", [track])
    part = since(whole, 5 * FOUR)
    keys = [EventTokenizer("A").words(piece)[0] for piece in (whole, part)]
    assert keys == ["key-0", "key-9"]
    tokenizer = InKeyOf(whole, "A", ())
    assert [tokenizer.words(piece)[0] for piece in (whole, part)] == ["key-0", "key-0"]
    assert notes_of(tokenizer.piece(tokenizer.words(part), "x").tracks[0]).tolist() == (
        notes_of(part.tracks[0]).tolist()
    )
    assert InKeyOf(whole, None, ()).words(part)[0] == "bar-1920"


def test_ticks_are_seconds_at_the_tempo_of_each():
    tempo = np.array([[480, 1_000_000], [960, 250_000]], np.int32)
    for tick, seconds in ((0, 0), (240, 0.25), (480, 0.5), (720, 1), (960, 1.5), (1920, 2)):
        assert seconds_at(tempo, tick) == pytest.approx(seconds)
    piece = Piece("x", [scale(8)])
    assert end_of(piece) == FOUR and seconds_of(piece) == pytest.approx(4 * 60 / 90, rel=1e-6)
    slow = Piece("x", [scale(8)], tempo=np.array([[0, 500_000], [960, 1_500_000]], np.int32))
    assert seconds_of(slow) == pytest.approx(4) and mean_tempo(slow) == pytest.approx(60)
    assert mean_tempo(Piece("x", [])) == 90
    for extreme, found in ((1, 1000), (16_000_000, 10)):
        fast = Piece("x", [scale(8)], tempo=np.array([[0, extreme]], np.int32))
        assert mean_tempo(fast) == found
    assert [round(tempo_at(tempo, tick)) for tick in (0, 480, 959, 960)] == [60, 60, 60, 240]
    assert constant(120).tolist() == [[0, 500_000]]


def of_parts(*named):
    """A piece of parts, each a name and its notes in eighths."""
    tracks = [track_of([(240 * at, 240 * at + 240, pitch) for at, pitch in n]) for _, n in named]
    parts = tuple(Part(name) for name, _ in named)
    loud = tuple(np.full(len(notes), len(name), np.int32) for name, notes in named)
    return Piece("", tracks, parts=parts, velocities=loud)


def test_who_plays_a_note_is_known_by_part():
    """The opening's bass is its first track, and the whole piece's second."""
    opening, whole = (
        of_parts(("bass", [(0, 40)])),
        of_parts(("oboe", [(1, 72)]), ("bass", [(0, 40)])),
    )
    assert {*keys_of(opening)} < {*keys_of(whole)}
    rest = without(whole, {*keys_of(opening)})
    assert [len(track) for track in rest.tracks] == [2, 0]
    assert [v.tolist() for v in rest.velocities] == [[4], []]


def test_pieces_that_follow_one_another_go_on_part_by_part():
    piece = joined(
        of_parts(("bass", [(0, 40)])), 240, of_parts(("oboe", [(0, 72)]), ("bass", [(1, 41)]))
    )
    assert [part.name for part in piece.parts] == ["bass", "oboe"]
    found = [notes_of(track).tolist() for track in piece.tracks]
    assert found == [[[0, 240, 40], [2160, 2400, 41]], [[1920, 2160, 72]]]
    assert [v.tolist() for v in piece.velocities] == [[4, 4], [4]]
