import math
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.evaluation.frames import score_baseline
from lstm_music.midi.roll import LOWEST, NOTES
from lstm_music.network.baselines import (
    BASELINES,
    ChordFrequency,
    IndependentNotes,
    chord_frequency,
    fit_baseline,
    fit_share,
    note_unigram,
)

REPO = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
SETS = np.array(list(product((0, 1), repeat=4)), np.uint8)  # of four notes


def frames_with(*steps):
    """Frames from tuples of MIDI pitches."""
    frames = np.zeros((len(steps), NOTES), np.uint8)
    for frame, pitches in zip(frames, steps, strict=True):
        frame[np.array(pitches, int) - LOWEST] = 1
    return frames


C, F = (60, 64, 67), (60, 65, 69)
TRAIN = [frames_with(C, C, F), frames_with((), C, (21, 108))]
VALID = [frames_with(C, (60, 64), F, ())]


# Notes by their frequency -----------------------------------------------------------------------


@given(st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4))
@settings(deadline=None)
def test_independent_notes_multiply(p):
    baseline = IndependentNotes(np.array(p))
    expected = [
        -math.log(math.prod(q if on else 1 - q for q, on in zip(p, notes, strict=True)))
        for notes in SETS
    ]
    np.testing.assert_allclose(baseline.nats(SETS), expected, rtol=1e-9)
    assert np.exp(-baseline.nats(SETS)).sum() == pytest.approx(1)
    assert baseline.likeliest().tolist() == [int(q >= 0.5) for q in p]


def test_a_notes_share_is_its_frequency_in_training_with_one_added():
    p = note_unigram(TRAIN).p
    for pitch in range(LOWEST, LOWEST + NOTES):
        count = sum(int(frames[:, pitch - LOWEST].sum()) for frames in TRAIN)
        assert p[pitch - LOWEST] == pytest.approx((count + 1) / (6 + 2))
    assert p[60 - LOWEST] == 5 / 8
    assert p[22 - LOWEST] == 1 / 8


def test_independent_notes_are_drawn_as_often_as_they_should():
    p = np.linspace(0.05, 0.95, NOTES)
    found = IndependentNotes(p).draw(4000, np.random.default_rng(0))
    assert found.dtype == np.uint8
    deviations = (found.mean(axis=0) - p) / np.sqrt(p * (1 - p) / 4000)
    assert np.abs(deviations).max() < 4
    again = IndependentNotes(p).draw(4000, np.random.default_rng(0))
    np.testing.assert_array_equal(again, found)


# Chords by their frequency ----------------------------------------------------------------------


def test_chords_and_what_they_back_off_to_share_a_probability_of_1():
    chords = SETS[[3, 9, 12]]
    unseen = IndependentNotes(np.array([0.1, 0.4, 0.3, 0.6]))
    for share in (0.0, 0.2, 1.0):
        baseline = ChordFrequency(chords, np.array([0.5, 0.3, 0.2]), share, unseen)
        with np.errstate(divide="ignore"):
            total = np.exp(-baseline.nats(SETS)).sum()
        assert total == pytest.approx(1)
    assert baseline.known(SETS).tolist() == [
        {3: 0.5, 9: 0.3, 12: 0.2}.get(n, 0.0) for n in range(16)
    ]


def test_a_chords_share_is_its_frequency_in_training():
    baseline = chord_frequency(TRAIN, VALID)
    frames = frames_with(C, F, (), (21, 108), (60, 64))
    np.testing.assert_allclose(baseline.known(frames), [3 / 6, 1 / 6, 1 / 6, 1 / 6, 0])
    np.testing.assert_array_equal(baseline.likeliest(), frames[0])
    q = np.exp(-note_unigram(TRAIN).nats(frames))
    expected = -np.log((1 - baseline.share) * baseline.known(frames) + baseline.share * q)
    np.testing.assert_allclose(baseline.nats(frames), expected)
    assert np.isfinite(baseline.nats(frames)).all()


def test_the_share_of_unseen_chords_makes_the_validation_pieces_likeliest():
    found = chord_frequency(TRAIN, VALID)
    frames = np.concatenate(VALID)

    def nats(share):
        return ChordFrequency(found.chords, found.p, share, found.unseen).nats(frames).sum()

    best = nats(found.share)
    assert all(best <= nats(share) + 1e-9 for share in np.linspace(0.001, 0.999, 999))
    assert found.share == pytest.approx(1 / 4, abs=0.01)  # one frame of four is unseen


def test_only_chords_that_were_seen_are_drawn():
    found = chord_frequency(TRAIN, VALID).draw(3000, np.random.default_rng(0))
    chords, counts = np.unique(found, axis=0, return_counts=True)
    seen = {chord.tobytes(): 1 / 6 for frames in TRAIN for chord in frames}
    seen[frames_with(C)[0].tobytes()] = 3 / 6
    assert {chord.tobytes() for chord in chords} == set(seen)
    for chord, count in zip(chords, counts, strict=True):
        p = seen[chord.tobytes()]
        assert abs(count / 3000 - p) < 4 * math.sqrt(p * (1 - p) / 3000)


# The share λ ------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 40))
@settings(deadline=None)
def test_the_share_is_that_of_a_grid_search(seed, n):
    rng = np.random.default_rng(seed)
    known = rng.random(n) * (rng.random(n) < 0.7)
    back_off = rng.random(n) ** 4 + 1e-6
    found = fit_share(known, back_off)
    assert 0 <= found <= 1
    grid = np.linspace(0.001, 0.999, 999)[:, None]
    likelihoods = np.log((1 - grid) * known + grid * back_off).sum(axis=1)
    at = np.log((1 - found) * known + found * back_off).sum() if 0 < found < 1 else np.inf
    assert at >= likelihoods.max() - 1e-3


def test_the_share_at_the_ends():
    assert fit_share(np.zeros(5), np.full(5, 0.1)) == pytest.approx(1)
    assert fit_share(np.full(5, 0.5), np.full(5, 1e-6)) == pytest.approx(0, abs=1e-5)
    assert fit_share(np.array([0.5, 0]), np.array([1e-9, 0.1])) == pytest.approx(0.5)


# On real music ----------------------------------------------------------------------------------


def test_each_name_is_a_baseline():
    kinds = [fit_baseline(kind, TRAIN, VALID) for kind in BASELINES]
    assert [type(kind) for kind in kinds] == [IndependentNotes, IndependentNotes, ChordFrequency]
    assert (kinds[0].p == 0.5).all()
    np.testing.assert_array_equal(kinds[1].p, note_unigram(TRAIN).p)


def test_random_notes_need_a_bit_each():
    score = score_baseline(fit_baseline("random", TRAIN, VALID), TRAIN)
    assert score.nats_per_frame == pytest.approx(88 * math.log(2))
    assert score.nats_per_frame == pytest.approx(61.00, abs=0.01)


@pytest.mark.parametrize(
    ("name", "file", "nats"),
    [("jsb", "JSB_Chorales.mat", 11.06), ("muse", "MuseData.mat", 11.51)],
)
def test_note_frequencies_have_the_likelihood_of_the_literature(
    tmp_path, monkeypatch, name, file, nats
):
    if not (DATA / "piano-roll" / file).exists():
        pytest.skip(f"no {file} in LSTM_MUSIC_DATA")
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path))
    corpus = load_corpus(name, DATA, Reading("note"))
    train, valid, test = (corpus.split_frames(split) for split in ("train", "valid", "test"))
    score = score_baseline(fit_baseline("note-unigram", train, valid), test)
    assert score.nats_per_frame == pytest.approx(nats, abs=0.01)
    assert score.frames == {"jsb": 4_725, "muse": 64_339}[name]
    random = score_baseline(fit_baseline("random", train, valid), test)
    assert random.nats_per_frame == pytest.approx(60.997, abs=5e-4)
    notes = sum(int(frames.sum()) for frames in test)
    assert random.accuracy == pytest.approx(notes / (NOTES * score.frames))


def test_a_frame_of_every_note_has_finite_nats():
    train = [np.zeros((100_000, 88), np.uint8)]
    full = np.ones((1, 88), np.uint8)
    baseline = fit_baseline("chord-frequency", train, [full])
    assert np.isfinite(baseline.share)
    assert 500 < baseline.nats(full)[0] < 1000
