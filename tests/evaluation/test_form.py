"""How whole pieces end, and their phrases: counted by hand."""

import numpy as np

from lstm_music.evaluation.music import form
from lstm_music.evaluation.music.excerpts import EMPTY, Music, in_order
from lstm_music.midi.piece import BAR

Q = BAR // 4
SCALE = [0, 4, 7, 0, 5, 9, 0, 5, 7, 11, 2, 7, 0, 4, 7, 0]  # of C major, 4 bars of quarters


def tune(*pitches, length=Q):
    rows = [(k * length, (k + 1) * length, p) for k, p in enumerate(pitches)]
    return in_order(np.array(rows, np.int32).reshape(-1, 3))


def in_key(tonic, *last):
    return Music("", tune(*(60 + tonic + step for step in SCALE), *last))


def test_the_lowest_note_at_the_end_is_the_tonic():
    assert form.ends_on_tonic(in_key(0, 60)) == 1
    assert form.ends_on_tonic(in_key(0, 67)) == 0
    assert form.ends_on_tonic(in_key(5, 65)) == 1 and form.ends_on_tonic(in_key(5, 60)) == 0
    music = in_key(0, 67).notes
    bass = np.array([[15 * Q, 17 * Q, 48]], np.int32)
    assert form.ends_on_tonic(Music("", in_order(np.concatenate([music, bass])))) == 1
    bass[0, 1] -= 1  # over before the end
    assert form.ends_on_tonic(Music("", in_order(np.concatenate([music, bass])))) == 0
    assert np.isnan(form.ends_on_tonic(Music("", EMPTY)))


def test_a_piece_ends_in_the_key_it_began_in():
    def joined(*tonics):
        return Music("", tune(*(60 + tonic + step for tonic in tonics for step in SCALE)))

    assert form.ends_in_first_key(joined(0, 0)) == 1
    assert form.ends_in_first_key(joined(0, 7)) == 0
    assert form.ends_in_first_key(joined(0, 7, 0)) == 1 == form.ends_in_first_key(joined(9, 2, 9))
    minor = [57 + step for step in (0, 3, 7, 0, 5, 8, 0, 5, 7, 11, 2, 7, 0, 3, 7, 0)]
    parallel = tune(*minor, *(57 + step for step in SCALE))  # a minor, A major
    assert form.ends_in_first_key(Music("", parallel)) == 0
    assert np.isnan(form.ends_in_first_key(joined(0)))
    assert np.isnan(form.ends_in_first_key(Music("", EMPTY)))


def test_phrases_end_after_held_chords():
    moving = tune(*[60] * 6)  # six quarters, then a half: two bars
    held = np.array([[6 * Q, 8 * Q, 64], [6 * Q, 8 * Q, 60]], np.int32)
    two = in_order(np.concatenate([moving, held]))
    assert form.phrases(two).tolist() == [2]
    both = in_order(np.concatenate([two, two + np.array([8 * Q, 8 * Q, 0], np.int32)]))
    assert form.phrases(both).tolist() == [2, 2]
    walking = np.array([[7 * Q, 8 * Q, 48]], np.int32)  # something moves: the first goes on
    assert form.phrases(in_order(np.concatenate([both, walking]))).tolist() == [4]
    rest = np.concatenate([both, tune(*[60] * 4) + np.array([16 * Q, 16 * Q, 0], np.int32)])
    assert form.phrases(in_order(rest)).tolist() == [2, 2, 1]  # the piece's end ends one
    assert form.phrases(EMPTY).tolist() == []


def test_phrases_of_two_to_four_bars():
    def share(*bars):  # each phrase one long note
        ends = np.cumsum(bars) * BAR
        rows = np.stack([ends - np.array(bars) * BAR, ends, np.full(len(bars), 60)], axis=1)
        return form.phrases_as_usual(rows.astype(np.int32)).tolist()

    assert share(1, 2, 3, 4, 5) == [0, 1, 1, 1, 0]
    assert share(1.75, 4.25) == [0, 0]


def test_the_length_in_bars():
    assert form.length_in_bars(EMPTY) == 0
    assert form.length_in_bars(tune(*[60] * 16)) == 4
    assert form.length_in_bars(tune(*[60] * 17)) == 5
