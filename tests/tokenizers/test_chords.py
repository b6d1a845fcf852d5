import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_music.corpus.roll_files import read_rolls
from lstm_music.midi.roll import HIGHEST, LOWEST, NOTES, transpose
from lstm_music.tokenizers.chords import (
    CHUNK,
    REST,
    SPECIALS,
    NearestChord,
    chord_word,
    chord_words,
    frames_of_words,
    parse,
    thin,
    transpose_word,
)
from lstm_music.tokenizers.messages import PIECE_END

REPO = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
JSB, MUSE = (DATA / "piano-roll" / name for name in ("JSB_Chorales.mat", "MuseData.mat"))
needs_jsb = pytest.mark.skipif(not JSB.exists(), reason=f"no {JSB.name} in LSTM_MUSIC_DATA")
needs_muse = pytest.mark.skipif(not MUSE.exists(), reason=f"no {MUSE.name} in LSTM_MUSIC_DATA")

pitches = st.integers(LOWEST, HIGHEST)
few_pitches = st.sampled_from([21, 60, 61, 62, 64, 108])
chords = st.one_of(st.sets(pitches), st.sets(few_pitches))
rolls = st.lists(chords, max_size=12)
known_rolls = st.lists(chords, min_size=1, max_size=12)


def frames_with(steps):
    frames = np.zeros((len(steps), NOTES), np.uint8)
    for frame, step in zip(frames, steps, strict=True):
        frame[[pitch - LOWEST for pitch in step]] = 1
    return frames


# Words


def test_words_name_pitches_from_the_lowest_up():
    assert chord_word([67, 60, 64]) == "60-64-67"
    assert chord_word(np.array([108, 21])) == "21-108"
    assert chord_word([]) == REST == "rest"
    assert SPECIALS == (PIECE_END,)


@given(rolls)
def test_words_and_frames_say_the_same(steps):
    frames = frames_with(steps)
    words = chord_words(frames)
    assert words == [chord_word(step) for step in steps]
    assert [parse(word) for word in words] == [sorted(step) for step in steps]
    again = frames_of_words(words)
    assert again.dtype == np.uint8 and again.shape == (len(steps), NOTES)
    np.testing.assert_array_equal(again, frames)


def test_words_are_those_of_frames_in_any_layout():
    frames = np.asfortranarray(frames_with([[60], [], [60, 64]] * 2))
    assert chord_words(frames[::2]) == ["60", "60-64", "rest"]


MALFORMED = (
    *("", "-", "60-", "-60", "60--64", "60 64", "64-60", "60-60", "060", "60-64\n", "20", "109"),
    *(
        "21-109",
        "20-60",
        "Rest",
        "rest-60",
        "60-rest",
        "6٠",
        "+60",
        "60.0",
        "note-on-60-0",
        "9" * 5000,
    ),
)


@pytest.mark.parametrize("word", MALFORMED)
def test_malformed_words_are_refused(word):
    with pytest.raises(ValueError):
        parse(word)
    with pytest.raises(ValueError):
        frames_of_words(["60", word])
    with pytest.raises(ValueError):
        transpose_word(word, 0)


def test_the_end_of_a_piece_is_a_word_without_a_frame():
    assert parse(PIECE_END) is None
    with pytest.raises(ValueError, match="not a chord: 'piece-end'"):
        frames_of_words([PIECE_END])


@given(st.sets(pitches), st.integers(-100, 100))
def test_a_word_moves_as_its_frame_does_or_not_at_all(chord, semitones):
    frames = frames_with([chord])
    moved = transpose(frames, semitones)
    word = transpose_word(chord_word(chord), semitones)
    assert word == (chord_words(moved)[0] if moved.sum() == len(chord) else None)


def test_the_rest_and_the_end_stay_as_they_are():
    assert transpose_word(REST, 99) == REST
    assert transpose_word(PIECE_END, 99) == PIECE_END
    assert transpose_word("60-108", 1) is None is transpose_word("21-60", -1)
    assert (transpose_word("22-60", -1), transpose_word("60-107", 1)) == ("21-59", "61-108")


# Thinning


@given(st.lists(st.sets(pitches, max_size=12), max_size=12), st.data(), st.integers(0, 99))
def test_only_chords_too_full_lose_notes(steps, data, seed):
    most = data.draw(st.integers(1, 8))
    keep = data.draw(st.integers(1, most))
    frames = frames_with(steps)
    before = frames.copy()
    thinned = thin(frames, most, keep, np.random.default_rng(seed))
    np.testing.assert_array_equal(frames, before)
    assert thinned.dtype == np.uint8 and (thinned <= frames).all()
    counts = frames.sum(axis=1)
    np.testing.assert_array_equal(thinned.sum(axis=1), np.where(counts > most, keep, counts))
    again = thin(frames, most, keep, np.random.default_rng(seed))
    np.testing.assert_array_equal(thinned, again)


def test_each_note_is_as_likely_to_stay():
    frames = frames_with([[21, 40, 60, 80, 108]] * 20_000)
    thinned = thin(frames, 4, 3, np.random.default_rng(0))
    kept = thinned.mean(axis=0)[frames[0] == 1]
    np.testing.assert_allclose(kept, 0.6, atol=0.015)  # four standard deviations
    sets, counts = np.unique(thinned, axis=0, return_counts=True)
    assert len(sets) == 10
    np.testing.assert_allclose(counts / len(frames), 0.1, atol=0.01)


@pytest.mark.parametrize(("most", "keep"), [(4, 0), (4, 5), (0, 0), (-1, -1)])
def test_what_stays_must_be_possible(most, keep):
    with pytest.raises(ValueError, match="can stay"):
        thin(frames_with([[60]]), most, keep, np.random.default_rng(0))


# The nearest chord


def similarity(a, b):
    return len(a & b) / len(a | b) if a | b else 1.0


@given(known_rolls, rolls)
def test_the_nearest_chord_is_the_first_of_the_most_similar(known, steps):
    nearest = NearestChord(frames_with(known))
    expected = []
    for step in steps:
        similar = [similarity(step, chord) for chord in known]
        expected.append(similar.index(max(similar)))
    frames = frames_with(steps)
    found = nearest.many(frames)
    assert found.dtype == np.intp and found.tolist() == expected
    assert [nearest(frame) for frame in frames] == expected


def test_ties_go_to_the_first_and_silence_only_to_itself():
    nearest = NearestChord(frames_with([[60, 64], [60, 67], [], [60]]))
    assert nearest(frames_with([[60, 62]])[0]) == 3  # a half, against thirds
    assert nearest(frames_with([[64, 67]])[0]) == 0  # a third twice
    assert nearest(frames_with([[]])[0]) == 2
    assert nearest(frames_with([[80]])[0]) == 0
    assert NearestChord(frames_with([[60], [64]]))(frames_with([[]])[0]) == 0


def test_many_chords_are_found_in_parts():
    rng = np.random.default_rng(0)
    known = (rng.random((CHUNK // 50, NOTES)) < 0.05).astype(np.uint8)
    asked = (rng.random((120, NOTES)) < 0.05).astype(np.uint8)
    nearest = NearestChord(known)
    found = nearest.many(asked)
    assert [nearest(frame) for frame in asked[45:55]] == found[45:55].tolist()
    own = rng.integers(len(known), size=120)
    np.testing.assert_array_equal(known[nearest.many(known[own])], known[own])


def test_something_must_be_known():
    with pytest.raises(ValueError, match="no chord"):
        NearestChord(frames_with([]))


# Real music


@needs_muse
def test_musedata_has_the_chords_that_were_published():
    frames = np.concatenate(read_rolls(MUSE)["train"])
    assert len(set(chord_words(frames))) == 39_289
    thinned = thin(frames, 4, 3, np.random.default_rng(0))
    assert abs(len(set(chord_words(thinned))) - 21_500) < 100


@needs_jsb
def test_the_chorales_chords_are_counted_and_the_unseen_have_near_ones():
    rolls = {split: np.concatenate(frames) for split, frames in read_rolls(JSB).items()}
    known = sorted(set(chord_words(rolls["train"])))
    assert len(known) == 2_420
    words = chord_words(rolls["test"])
    seen = np.array([word in set(known) for word in words])
    assert 0.09 < 1 - seen.mean() < 0.11
    chords = frames_of_words(known)
    found = chords[NearestChord(chords).many(rolls["test"])]
    np.testing.assert_array_equal(found[seen], rolls["test"][seen])
    shared = np.sum(found & rolls["test"], axis=1) / np.sum(found | rolls["test"], axis=1).clip(1)
    assert 0.6 < shared[~seen].mean() < 1
