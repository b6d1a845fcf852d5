"""Scores by hand: one frame after the other, from the model's steps."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from small import small_model, small_rolls

from lstm_music.corpus.sources import ROLLS
from lstm_music.evaluation import frames as frame_evaluation
from lstm_music.evaluation.frames import (
    PUBLISHED,
    FrameScore,
    HeldNotes,
    chord_probabilities,
    fit_held_notes,
    score_baseline,
    score_chords,
    score_notes,
    scored,
)
from lstm_music.midi.roll import NOTES
from lstm_music.network.baselines import IndependentNotes, chord_frequency
from lstm_music.network.recall import LAGS, REST
from lstm_music.network.recall_rules import frame_words
from lstm_music.ops.reference.copying import BUCKETS
from lstm_music.tokenizers.chords import chord_words, frames_of_words
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.training.validation import mean_nats

SETS = np.array(list(product((0, 1), repeat=4)), np.uint8)  # of four notes
SIZES = [(1, 1000), (3, 7), (50, 1)]


@pytest.fixture
def corpus_of(tmp_path, monkeypatch):
    """Make a small corpus of frames: corpus_of("chord")."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    return lambda representation: small_rolls(
        tmp_path, representation, music={"pieces": 12, "tracks": 3}
    )


def eager(corpus, head=None):
    """A model with weights so large that it believes something."""
    model = small_model(corpus, seed=3, head=head)
    rng = np.random.default_rng(5)
    for p in model.parameters.values():
        p += rng.normal(0, 0.5, p.shape).astype(p.dtype)
    return model


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# What a model of notes believes -----------------------------------------------------------------


def nade_conditionals(p, h, notes):
    """The probability of each note given those below it; notes None: given the likelier ones."""
    a = h @ p["Wh"] + p["bh"]
    visible = h @ p["Wv"] + p["bv"]
    found = []
    for d in range(NOTES):
        found.append(sigmoid(visible[d] + sigmoid(a) @ p["U"][d]))
        a = a + (found[-1] > 0.5 if notes is None else notes[d]) * p["W"][d]
    return np.array(found)


def beliefs(model, frames):
    """For each frame: the probability of each note given those below it, and the likelier notes."""
    head = {n[5:]: p.astype("float64") for n, p in model.parameters.items() if n[:5] == "head."}
    state = model.zero_state(1)
    x = np.zeros((1, NOTES + 1), np.uint8)
    x[0, NOTES] = 1
    even = np.full((1, NOTES), 0.5)
    for frame in frames:
        if model.config.head == "sigmoid":
            logits, after = model.step(x, state)
            p = sigmoid(logits[0].astype("float64"))
            guess = p > 0.5
        else:
            drawn, after = model.step_and_draw(x, state, even, 1.0)
            out = after.h[-1][0].astype("float64")
            p = nade_conditionals(head, out, frame)
            guess = nade_conditionals(head, out, None) > 0.5
            np.testing.assert_array_equal(drawn[0], guess)
        yield p, guess
        state = after
        x = np.append(frame, 0).astype(np.uint8)[None]


@pytest.mark.parametrize("head", ["nade", "biaxial"])
def test_what_comes_later_changes_no_likelihood(corpus_of, head):
    """Of a network that remembers, which is told whether its candidates are right."""
    corpus = corpus_of("note")
    model = small_model(corpus, head=head, copy=True, seed=3)
    piece = corpus.splits["test"][0]
    first, stop = (int(n) for n in corpus.offsets[piece : piece + 2])
    cut = (stop - first) // 2
    packed = corpus.packed.copy()
    packed[first + cut : stop] = np.random.default_rng(0).integers(
        256, size=(stop - first - cut, 11)
    )
    other = replace(corpus, packed=packed)
    a, b = (score_notes(model, one, "test", 4, 7).nats[0] for one in (corpus, other))
    np.testing.assert_array_equal(a[:cut], b[:cut])
    assert not np.isclose(a[cut:], b[cut:]).any()


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("head", ["sigmoid", "nade"])
def test_notes_are_scored_frame_by_frame(corpus_of, head, split):
    corpus = corpus_of("note")
    model = eager(corpus, head)
    nats, counts = [], np.zeros(3, int)
    for frames in corpus.split_frames(split):
        piece = []
        for frame, (p, guess) in zip(frames, beliefs(model, frames), strict=True):
            piece.append(-np.log(np.where(frame, p, 1 - p)).sum())
            on, held = set(np.flatnonzero(frame)), set(np.flatnonzero(guess))
            counts += len(on & held), len(on - held), len(held - on)
        nats.append(piece)
    assert (counts > 0).all()
    for B, T in SIZES:
        score = score_notes(model, corpus, split, B, T)
        for found, expected in zip(score.nats, nats, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert [score.hits, score.misses, score.false_alarms] == counts.tolist()
        assert score.frames == sum(map(len, nats))
        assert score.nats_per_frame == pytest.approx(np.mean(np.concatenate(nats)), rel=1e-5)
        assert score.nats_per_frame == pytest.approx(mean_nats(model, corpus, split, B, T))
        by_piece = np.mean([np.mean(piece) for piece in nats])
        assert score.nats_per_frame_by_piece == pytest.approx(by_piece, rel=1e-5)
        assert score.accuracy == counts[0] / counts.sum()


# Held notes -------------------------------------------------------------------------------------


def test_notes_are_held_or_begin_as_often_as_in_training():
    train = [np.zeros((4, NOTES), np.uint8), np.zeros((3, NOTES), np.uint8)]
    train[0][:, 5] = 0, 1, 1, 0
    train[1][:, 5] = 1, 0, 1
    held = fit_held_notes(train)
    off, on = held.on[:, 5]
    assert off == pytest.approx((2 + 1) / (2 + 2))  # after two silences it began twice
    assert on == pytest.approx((1 + 1) / (3 + 2))  # of three times it was held once
    assert held.first.p[5] == pytest.approx((4 + 1) / (7 + 2))
    assert held.on[:, 6].tolist() == [1 / 7, 1 / 2]


def test_the_probabilities_of_what_follows_a_frame_are_1_in_all():
    rng = np.random.default_rng(0)
    held = HeldNotes(IndependentNotes(rng.random(4)), rng.random((2, 4)))
    first = [held.probabilities(notes[None])[0] for notes in SETS]
    assert sum(first) == pytest.approx(1)
    for before in SETS:
        after = [held.probabilities(np.array([before, notes]))[1] for notes in SETS]
        assert sum(after) == pytest.approx(1)
        for p, notes in zip(after, SETS, strict=True):
            each = [
                q if on else 1 - q
                for on, q in zip(notes, np.where(before, held.on[1], held.on[0]), strict=True)
            ]
            assert p == pytest.approx(math.prod(each))


def test_a_softmax_over_chords_and_held_notes_are_1_in_all():
    """Over all sets of four notes, five of them known chords: (1-λ)·softmax + λ·q."""
    rng = np.random.default_rng(1)
    softmax = np.zeros(16)
    softmax[[0, 3, 5, 11, 15]] = rng.dirichlet(np.ones(5))
    held = HeldNotes(IndependentNotes(rng.random(4)), rng.random((2, 4)))
    for before in SETS:
        q = [held.probabilities(np.array([before, notes]))[1] for notes in SETS]
        for share in (0.01, 0.4):
            assert ((1 - share) * softmax + share * np.array(q)).sum() == pytest.approx(1)


# Chords -----------------------------------------------------------------------------------------


def chord_beliefs(model, corpus, piece):
    """For each frame: the softmax over all words but the end of the piece, by word."""
    state, words = model.zero_state(1), corpus.vocabulary.words
    ids = corpus.ids[corpus.id_offsets[piece] : corpus.id_offsets[piece + 1] - 1]
    before = corpus.vocabulary.id(PIECE_END)
    for id in ids:
        logits, state = model.step(np.array([before], np.int32), state)
        p = np.exp(logits[0].astype("float64"))
        p[corpus.vocabulary.id(PIECE_END)] = 0
        yield dict(zip(words, p / p.sum(), strict=True))
        before = int(id)


def chords_by_hand(model, corpus, split):
    """The probabilities of the chords of each piece of a split, and the likeliest chords."""
    known, guesses = [], []
    for piece in corpus.splits[split]:
        own = chord_words(corpus.frames(piece))
        found = list(chord_beliefs(model, corpus, piece))
        assert all(sum(p.values()) == pytest.approx(1) for p in found)
        known.append([p.get(word, 0.0) for word, p in zip(own, found, strict=True)])
        guesses.append([max(p, key=p.get) for p in found])
    return known, guesses


@pytest.mark.parametrize("rows", [1, 5, 1000], ids=lambda rows: f"chunks of {rows}")
def test_a_chords_probability_is_its_softmax_without_the_end(corpus_of, monkeypatch, rows):
    corpus = corpus_of("chord")
    model = eager(corpus)
    monkeypatch.setattr(frame_evaluation, "CHUNK", rows * len(corpus.vocabulary) * 4)
    known, guesses = chords_by_hand(model, corpus, "test")
    assert min(map(min, known)) == 0 < max(map(max, known))  # some are unseen
    for B, T in SIZES:
        found, likeliest = chord_probabilities(model, corpus, "test", B, T)
        for a, b in zip(found, known, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)
        assert [chord_words(frames) for frames in likeliest] == guesses


def test_chords_are_scored_frame_by_frame_with_held_notes_behind_them(corpus_of):
    corpus = corpus_of("chord")
    model = eager(corpus)
    score, share = score_chords(model, corpus, "test", 3, 7)
    held = fit_held_notes(corpus.split_frames("train"))
    known, guesses = chords_by_hand(model, corpus, "test")
    nats, counts = [], np.zeros(3, int)
    for p, words, frames in zip(known, guesses, corpus.split_frames("test"), strict=True):
        q = held.probabilities(frames)
        nats.append([-math.log((1 - share) * a + share * b) for a, b in zip(p, q, strict=True)])
        for word, own in zip(words, chord_words(frames), strict=True):
            guess, real = (set(w.split("-")) - {"rest"} for w in (word, own))
            counts += len(guess & real), len(real - guess), len(guess - real)
    for a, b in zip(score.nats, nats, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    assert np.isfinite(score.nats_per_frame)
    assert [score.hits, score.misses, score.false_alarms] == counts.tolist()
    assert score.frames == sum(map(len, corpus.split_frames("test")))


def test_the_back_offs_share_makes_the_validation_split_likeliest(corpus_of):
    corpus = corpus_of("chord")
    model = eager(corpus)
    _, share = score_chords(model, corpus, "test", 3, 7)
    held = fit_held_notes(corpus.split_frames("train"))
    p = np.concatenate(chords_by_hand(model, corpus, "valid")[0])
    q = np.concatenate([held.probabilities(frames) for frames in corpus.split_frames("valid")])
    grid = np.linspace(0.001, 0.999, 999)
    likelihoods = [np.log((1 - s) * p + s * q).sum() for s in grid]
    assert 0.01 < share < 0.99
    assert share == pytest.approx(grid[int(np.argmax(likelihoods))], abs=1e-3)
    assert score_chords(model, corpus, "valid", 50, 9)[1] == pytest.approx(share, abs=1e-6)


# Copies -----------------------------------------------------------------------------------------


def copying_the_last_frame(corpus, share):
    """A model that copies nothing but the frame before, with a share of the probability."""
    model = eager(corpus, None)
    copying = small_model(corpus, seed=3, copy=True)
    table = np.full((corpus.recall.candidates, BUCKETS), -99.0)
    table[LAGS] = math.log(share / (1 - share))  # the first lag is one frame
    gate = {"copy.G": np.zeros((8, len(table)), np.float32), "copy.R": table.astype(np.float32)}
    return model, copying.with_parameters(model.parameters | gate)


def again(frames):
    """Whether each frame is the one before."""
    return np.append(False, (frames[1:] == frames[:-1]).all(axis=1))


def test_copies_count_in_the_likelihood_of_notes_and_guess_where_they_are_likelier(corpus_of):
    corpus = corpus_of("note")
    for share, copies in ((0.3, False), (0.7, True)):
        model, copying = copying_the_last_frame(corpus, share)
        alone, score = (score_notes(m, corpus, "test", 3, 7) for m in (model, copying))
        guesses = []
        for own, nats, frames in zip(
            alone.nats, score.nats, corpus.split_frames("test"), strict=True
        ):
            first = np.arange(len(frames)) == 0  # nothing to copy yet
            p = np.where(first, 1, 1 - share) * np.exp(-own) + share * again(frames)
            np.testing.assert_allclose(nats, -np.log(p), rtol=1e-3)
            guesses.append(frames[:-1])
        assert score.nats_per_frame == pytest.approx(mean_nats(copying, corpus, "test", 3, 7))
        hits = sum(
            int((g & f[1:]).sum())
            for g, f in zip(guesses, corpus.split_frames("test"), strict=True)
        )
        assert (score.hits - hits in (0, 1, 2, 3, 4)) == copies  # the first frames' own hits
        assert copies or (score.hits, score.misses) == (alone.hits, alone.misses)


def test_copies_count_in_the_likelihood_of_chords(corpus_of):
    corpus = corpus_of("chord")
    model, copying = copying_the_last_frame(corpus, 0.7)
    pairs = [chord_probabilities(m, corpus, "test", 3, 7) for m in (model, copying)]
    for piece, own, found, guess in zip(
        corpus.splits["test"], pairs[0][0], pairs[1][0], pairs[1][1], strict=True
    ):
        frames, ids = corpus.frames(piece), corpus.source([]).inputs(piece, 0, len(own) - 1)
        read = frames_of_words([corpus.vocabulary.words[id] for id in ids])
        known = own > 0
        first = np.arange(len(frames)) == 0
        p = np.where(first, 1, 0.3) * own + 0.7 * again(frames) * known
        np.testing.assert_allclose(found, p, rtol=1e-3, atol=1e-12)
        copied = known & ~first  # of a chord that training never showed nothing is asked
        np.testing.assert_array_equal(guess[copied], read[copied[1:]])


def test_what_is_copied_is_what_the_network_read(corpus_of, monkeypatch):
    """A chord that training never showed is read as the nearest, and so is it remembered."""
    corpus = corpus_of("chord")
    read = []
    monkeypatch.setattr(frame_evaluation, "copy_likelier", lambda *given: read.append(given[1:3]))
    chord_probabilities(copying_the_last_frame(corpus, 0.7)[1], corpus, "test", 3, 7)
    for piece, (words, frames) in zip(corpus.splits["test"], read, strict=True):
        own = corpus.source([]).words(piece, corpus.recall)
        np.testing.assert_array_equal(words, own[:-1])
        same = frame_words(frames)  # but for the numbers of what is said
        assert len(np.unique(np.stack([words[:, REST], same[:, REST]]), axis=1).T) == len(
            np.unique(words[:, REST])
        )
        np.testing.assert_array_equal(np.delete(words, REST, 1), np.delete(same, REST, 1))
    written = corpus.split_frames("test")
    assert any((own != frames).any() for own, (_, frames) in zip(written, read, strict=True))


# Scores -----------------------------------------------------------------------------------------


def test_a_score_by_hand():
    real = [np.zeros((2, NOTES), np.uint8), np.zeros((1, NOTES), np.uint8)]
    guess = [np.zeros_like(frames) for frames in real]
    real[0][0, [1, 2, 3]] = 1
    guess[0][0, [2, 3, 4, 5]] = 1  # two right, one missed, two made up
    real[0][1, 7] = 1  # one missed
    guess[1][0, [8, 9]] = 1  # two made up
    score = scored([np.array([1.0, 2.0]), np.array([6.0])], guess, real)
    assert score == FrameScore(score.nats, hits=2, misses=2, false_alarms=4)
    assert score.accuracy == 2 / 8
    assert score.frames == 3
    assert score.nats_per_frame == 3
    assert score.nats_per_frame_by_piece == (1.5 + 6) / 2


def test_silence_predicted_right_has_no_accuracy():
    silence = [np.zeros((2, NOTES), np.uint8)]
    assert scored([np.ones(2)], silence, silence).accuracy == 0


def test_a_baseline_predicts_the_same_in_each_frame(corpus_of):
    corpus = corpus_of("note")
    baseline = chord_frequency(corpus.split_frames("train"), corpus.split_frames("valid"))
    score = score_baseline(baseline, corpus.split_frames("test"))
    guess = set(np.flatnonzero(baseline.likeliest()))
    counts = np.zeros(3, int)
    for frame in np.concatenate(corpus.split_frames("test")):
        on = set(np.flatnonzero(frame))
        counts += len(on & guess), len(on - guess), len(guess - on)
    assert [score.hits, score.misses, score.false_alarms] == counts.tolist()
    nats = baseline.nats(np.concatenate(corpus.split_frames("test")))
    assert score.nats_per_frame == pytest.approx(nats.mean())


def test_published_results_are_of_the_named_sets():
    assert set(PUBLISHED) == set(ROLLS)
    nade = {name: {n: r for n, *r in rows}["RNN-NADE"] for name, rows in PUBLISHED.items()}
    assert nade == {
        "piano-midi": [7.48, 20.7],
        "nottingham": [2.91, 65.0],
        "muse": [6.74, 24.9],
        "jsb": [5.83, 32.1],
    }
