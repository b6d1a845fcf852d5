"""Self-similarity and repetition: known answers, and the figure."""

import numpy as np
import pytest

from lstm_music.evaluation.music.excerpts import EMPTY, Music, in_order
from lstm_music.evaluation.music.judgement import MusicSet, as_json, in_words, judge, whole_of
from lstm_music.evaluation.music.memorisation import Index
from lstm_music.evaluation.music.repetition import (
    by_lag,
    equal_to_earlier,
    numbered_bars,
    repetition,
    returns,
    similarity,
    times_in_a_row,
)
from lstm_music.midi.piece import BAR
from lstm_music.rendering import figures


def bars_of(*bars):
    """A piece of bars, each the pitches of its eight eighth notes."""
    rows = [
        (n * BAR + k * 240, n * BAR + k * 240 + 240, p)
        for n, bar in enumerate(bars)
        for k, p in enumerate(bar)
    ]
    return in_order(np.array(rows, np.int32).reshape(-1, 3))


A, B, C = ([60 + k * s for k in range(8)] for s in (1, 2, 3))


def test_a_phrase_that_returns():
    matrix = similarity(bars_of(A, B, A, C, A, B, A, C))
    assert matrix.shape == (8, 8) and (np.diag(matrix) == 1).all()
    assert (matrix == matrix.T).all()
    assert matrix[0, 2] == matrix[0, 4] == 1 and matrix[0, 1] == pytest.approx(1 / 15)
    assert repetition(matrix)[4] == 1 and repetition(matrix)[1] == 0
    assert repetition(matrix)[2] == 0.5 and np.isnan(repetition(matrix)[8])
    assert by_lag(matrix)[3] == 1 and len(by_lag(matrix)) == 7


def test_rhythm_and_silence():
    matrix = similarity(bars_of(A, B, A[:4], []), bars=5, rhythm=True)
    assert matrix[0, 1] == 1 and matrix[0, 2] == 0.5
    assert matrix[3, 4] == 1 and matrix[0, 3] == 0
    assert similarity(EMPTY).shape == (0, 0)


def test_half_a_bar_in_common_repeats():
    half = [*A[:6], 90, 91]
    assert repetition(similarity(bars_of(A, half)), (1,))[1] == 1  # 6 of 10
    assert repetition(similarity(bars_of(A, A[:4] + C[4:])), (1,))[1] == 0  # 4 of 12


# Returns ----------------------------------------------------------------------------------------


def letters(word):
    """Bars as numbers, a letter each; a dot is an empty bar."""
    return np.array([-1 if letter == "." else ord(letter) for letter in word], np.int64)


def test_equal_bars_have_the_same_notes_at_the_same_places():
    music = bars_of(A, B, A, [], A, [*A[:7], 99])
    later, longer = music.copy(), music.copy()
    later[later[:, 0] == 2 * BAR, :2] += 1  # a tick
    longer[longer[:, 0] == 2 * BAR, 1] += 1
    first, second, third, none, fourth, other = numbered_bars(music)
    assert first == third == fourth and none == -1
    assert len({first, second, other, none}) == 4
    for changed in (numbered_bars(in_order(later)), numbered_bars(longer)):
        assert changed[0] == changed[4] != changed[2]
    twice = in_order(np.concatenate([music, music[:1]]))  # a unison of two parts
    np.testing.assert_array_equal(numbered_bars(twice), numbered_bars(music))
    assert len(numbered_bars(EMPTY)) == 0


def test_bars_equal_to_earlier_ones():
    assert equal_to_earlier(letters("ABABXB"), 2) == 3 / 4
    assert equal_to_earlier(letters("AAAA"), 1) == 1
    assert equal_to_earlier(letters("A.A."), 2) == 1  # two empty bars are not counted
    assert equal_to_earlier(letters("A.B."), 2) == 0
    assert np.isnan(equal_to_earlier(letters("ABAB"), 4))
    assert np.isnan(equal_to_earlier(letters("AB.."), 2))


def test_returns_are_the_longest_passages_that_were_over():
    assert returns(letters("ABCDE")) == [] == returns(letters(""))
    assert returns(letters("ABCDABCDEF")) == [4]
    assert returns(letters("ABCDEABXCDE")) == [2, 3]
    assert returns(letters("ABCBCD")) == [2]
    assert returns(letters("ABXABCABC")) == [2, 3]  # the longest, not the first or last
    assert returns(letters("AAAA")) == [1, 2]  # no passage returns before it is over
    assert returns(letters("..A..A")) == [1]


def test_how_often_a_passage_follows_itself():
    assert times_in_a_row(letters("")) == 1 == times_in_a_row(letters("..."))
    assert times_in_a_row(letters("ABCA")) == 1
    assert times_in_a_row(letters("ABCDABCDE")) == 2
    assert times_in_a_row(letters("XAAAY")) == 3
    assert times_in_a_row(letters("XABABABA")) == 3  # and a half
    assert times_in_a_row(letters("A...A")) == 1


def whole(*words):
    bars = {"A": A, "B": B, "C": C, "D": [*A[:4], *C[4:]], "E": [*C[:4], *A[4:]], ".": []}
    return [Music(word, bars_of(*(bars[letter] for letter in word))) for word in words]


def test_whole_pieces_are_judged_beside_held_out_ones():
    pieces = whole("ABCDABCD", "ABCDE")
    index = Index(pieces)
    real = MusicSet("real", "real", pieces, index, whole("ABCDABCD", "ABCABCDD"))
    ours = MusicSet("ours", "run", pieces, index, whole("AAAAAAAA", "ABCDEABC", "E"))
    held_out, one = (judge(real, some, 4) for some in (real, ours))
    made = as_json(one, held_out)["whole"]
    assert made["pieces"] == 3
    assert made["equal_bars"]["1"]["value"] == 0.5 and made["equal_bars"]["4"]["value"] == 0.5
    assert made["equal_bars"]["16"]["value"] is None
    assert made["returns"]["value"] == 4 / 3  # of 1, 2 and 4 bars; of 3; none
    assert made["longest_return"] == {"mean": 7 / 3, "most": 4}
    assert made["passage_bars"] == {"median": 2.5, "p90": pytest.approx(3.7)}
    assert made["times_in_a_row"] == {"mean": 10 / 3, "most": 8}
    assert made["looping"] == 1 and held_out.whole.loops(held_out.whole) == 0
    assert made["bars"] == {"median": 8, "longest": 8}
    said = in_words([held_out, one], held_out)[-1]
    assert said.startswith(
        "Whole pieces of ours return 1.33 times, held-out ones 1.50 times; 1 of 3"
    )
    assert as_json(judge(real, MusicSet("none", "run", pieces, index), 4), one)["whole"] is None


def test_phrases_count_alike_in_whatever_piece_they_are():
    held = in_order(np.array([[0, BAR, 60], [BAR, 3 * BAR, 62]], np.int32))  # of 1 bar, of 2
    found = whole_of([Music("held", held), *whole("A", "AAAAA", "AAA")], 0)
    assert found.phrases.value == pytest.approx(2 / 5)  # 2 and 3 bars, of 1 2, 1, 5, 3


def test_the_figure_shows_every_set(tmp_path):
    rng = np.random.default_rng(0)
    pieces = [
        Music(str(k), bars_of(*(rng.integers(60, 72, 8).tolist() for _ in range(8))))
        for k in range(5)
    ]
    index = Index(pieces)
    real = MusicSet("real", "real", pieces[:3], index)
    judged = [judge(real, real, 8), judge(real, MusicSet("run", "run", pieces[2:], index), 8)]
    figures.self_similarity(judged, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes()[:4] == b"\x89PNG"
    assert np.isnan(judged[0].overlap.value) and 0 < judged[1].overlap.value <= 1
