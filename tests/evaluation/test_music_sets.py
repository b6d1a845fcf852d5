"""Nearness of sets: known answers, and the densities beside SciPy's."""

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from lstm_music.corpus.load import load_corpus
from lstm_music.evaluation.music import nearness as sets
from lstm_music.evaluation.music.excerpts import Music, excerpts, in_order, split_music
from lstm_music.evaluation.music.measures import features


def described(music):
    return [features(some.notes) for some in music]


def random_chords(n=24, bars=8):
    """Pieces of chords with no rule at all."""
    rng = np.random.default_rng(0)
    made = []
    for k in range(n):
        start = np.repeat(np.arange(bars * 8) * 240, 5)
        rows = np.stack([start, start + 240, rng.integers(21, 109, len(start))], 1)
        made.append(Music(f"chords {k}", in_order(rows.astype(np.int32))))
    return made


@pytest.fixture(scope="module")
def bach():
    return excerpts(split_music(load_corpus("bach"), "train"), 8, 72)


def test_real_against_real_is_near_1_and_random_chords_score_worst(bach):
    one, two, three = (described(bach[n::3]) for n in range(3))
    found, near = sets.compare(one, two, resamples=50)
    assert near.value > 0.9
    assert near.low > 0.75
    octave = [Music(x.name, x.notes + np.array([0, 0, 12], np.int32)) for x in bach[2::3]]
    stretched = [Music(x.name, x.notes * np.array([2, 2, 1], np.int32)) for x in bach[2::3]]
    others = [sets.compare(one, described(x), resamples=20)[1] for x in (octave, stretched)]
    _, chance = sets.compare(one, described(random_chords()), resamples=50)
    assert chance.value < min(x.value for x in others)
    assert chance.high < near.low
    assert chance.value < 0.5
    assert found["pitch_range"].divergence.value < 0.1
    assert sets.compare(one, three, resamples=0)[1].value > 0.9


def test_a_shifted_feature_is_far_in_it_alone():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, (2, 40, 1))
    real = [{"x": x, "y": y} for x, y in zip(a, b, strict=True)]
    c, d = rng.normal(0, 1, (2, 40, 1))
    other = [{"x": x + 50, "y": y} for x, y in zip(c, d, strict=True)]
    found, _ = sets.compare(real, other)
    assert found["x"].overlap.value < 0.01 < 0.85 < found["y"].overlap.value
    assert found["x"].divergence.value > 5 > 0.2 > found["y"].divergence.value
    assert found["y"].overlap.low <= found["y"].overlap.high
    again, _ = sets.compare(real, other)
    assert again == found


def test_constant_and_missing_features():
    same = [{"x": np.array([3.0])}] * 5
    found, mean = sets.compare(same, same)
    assert found["x"].overlap.value == 1 and found["x"].divergence.value == 0 and mean.value == 1
    missing = [{"x": np.array([np.nan])}] * 5
    assert np.isnan(sets.compare(same, missing)[0]["x"].overlap.value)
    mixed = [*same, {"x": np.array([np.nan])}]
    assert sets.compare(same, mixed)[0]["x"].overlap.value == 1


def test_density_is_scipys():
    rng = np.random.default_rng(2)
    distances = rng.normal(50, 4, 400)
    binned = sets.densities(distances, [np.ones(400)], 100.0)[0]
    centres = (np.arange(sets.BINS) + 0.5) * 100 / sets.BINS
    theirs = gaussian_kde(distances)(centres) * 100 / sets.BINS
    assert binned.sum() == pytest.approx(1)
    assert np.abs(binned - theirs).sum() < 0.02
    weights = rng.integers(0, 3, 400).astype(float)
    theirs = gaussian_kde(distances, weights=weights)(centres) * 100 / sets.BINS
    assert np.abs(sets.densities(distances, [weights], 100.0)[0] - theirs).sum() < 0.03
