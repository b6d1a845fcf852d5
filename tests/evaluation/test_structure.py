"""Self-similarity and repetition: known answers, and the figure."""

import numpy as np
import pytest

from lstm_music.evaluation.music.excerpts import EMPTY, Music, in_order
from lstm_music.evaluation.music.judgement import MusicSet, judge
from lstm_music.evaluation.music.memorisation import Index
from lstm_music.evaluation.music.repetition import by_lag, repetition, similarity
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
