import math

import numpy as np
import pytest
from small import small_corpus, small_model, small_rolls

from lstm_music.evaluation.likelihood import token_count, unigram_nats
from lstm_music.training.validation import mean_nats, per_piece


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    return small_corpus(tmp_path, pieces=30)


def nats_one_by_one(model, corpus, split):
    """The mean nats of a split, piece after piece and token after token."""
    losses = []
    for piece in corpus.splits[split]:
        state, before = model.zero_state(1), 0
        for id in corpus.piece_ids(piece).tolist():
            logits, state = model.step(np.array([before]), state)
            shifted = logits[0].astype(np.float64) - logits.max()
            losses.append(np.log(np.exp(shifted).sum()) - shifted[id])
            before = id
    return np.mean(losses)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize(("B", "T"), [(1, 1000), (2, 7), (50, 1)])
def test_nats_are_those_of_each_token_after_its_piece_so_far(corpus, split, B, T):
    model = small_model(corpus, seed=3)
    expected = nats_one_by_one(model, corpus, split)
    assert mean_nats(model, corpus, split, B, T) == pytest.approx(expected, rel=1e-5)


def test_dropout_is_for_training_alone(corpus):
    with_dropout = small_model(corpus, dropout=0.5)
    assert mean_nats(with_dropout, corpus, "test", 4, 9) == pytest.approx(
        mean_nats(small_model(corpus), corpus, "test", 4, 9), rel=1e-6
    )


def test_a_model_that_knows_nothing_gives_every_token_the_same(corpus):
    model = small_model(corpus)
    model.parameters["head.W"][...] = 0
    assert mean_nats(model, corpus, "test", 4, 9) == pytest.approx(math.log(len(corpus.vocabulary)))


def test_unigram_nats_are_of_the_training_frequencies(corpus):
    train = [int(id) for p in corpus.splits["train"] for id in corpus.piece_ids(p)]
    test = [int(id) for p in corpus.splits["test"] for id in corpus.piece_ids(p)]
    V = len(corpus.vocabulary)
    expected = np.mean([-math.log((train.count(id) + 1) / (len(train) + V)) for id in test])
    assert unigram_nats(corpus, "test") == pytest.approx(expected)
    assert unigram_nats(corpus, "train") < unigram_nats(corpus, "test")


def test_every_token_is_counted_the_end_included(corpus):
    pieces = corpus.splits["valid"]
    assert token_count(corpus, "valid") == sum(len(corpus.piece_ids(p)) for p in pieces)
    assert sum(token_count(corpus, split) for split in corpus.splits) == len(corpus.ids)


@pytest.fixture
def rolls(corpus, tmp_path):
    """Chords, of which some of the test split's are unseen in training."""
    made = small_rolls(tmp_path / "rolls", "chord", music={"pieces": 12, "tracks": 3})
    first, last = (made.id_offsets[p] for p in (made.splits["test"][0], made.splits["test"][0] + 1))
    assert made.unseen[first:last].any()
    return made


def test_unseen_chords_are_read_and_not_judged(rolls):
    model = small_model(rolls, seed=3)
    losses = []
    for piece in rolls.splits["test"]:
        state, before = model.zero_state(1), 0
        for at in range(rolls.id_offsets[piece], rolls.id_offsets[piece + 1]):
            logits, state = model.step(np.array([before]), state)
            shifted = logits[0].astype(np.float64) - logits.max()
            before = int(rolls.ids[at])
            if not rolls.unseen[at]:
                losses.append(np.log(np.exp(shifted).sum()) - shifted[before])
    assert mean_nats(model, rolls, "test", 2, 7) == pytest.approx(np.mean(losses), rel=1e-5)
    assert token_count(rolls, "test") == len(losses)
    assert token_count(rolls, "train") == sum(rolls.lengths[p] for p in rolls.splits["train"])


def test_frames_are_counted_without_an_end(tmp_path, corpus):
    notes = small_rolls(tmp_path)
    frames = sum(len(notes.frames(p)) for p in notes.splits["train"])
    assert token_count(notes, "train") == frames


@pytest.mark.parametrize(("B", "T"), [(1, 1000), (2, 7), (50, 1)])
def test_scores_come_piece_by_piece_in_the_splits_order(corpus, B, T):
    def score(h, targets, recall):
        assert len(h) == len(targets)
        assert recall is None
        return targets, h

    model = small_model(corpus)
    found = per_piece(model, corpus, "train", B, T, score)
    assert len(found) == len(corpus.splits["train"])
    for piece, (ids, h) in zip(corpus.splits["train"], found, strict=True):
        np.testing.assert_array_equal(ids, corpus.piece_ids(piece))
        assert h.shape == (len(ids), model.config.hidden)
