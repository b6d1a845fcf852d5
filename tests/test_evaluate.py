import math

import numpy as np
import pytest

from lstm_music.evaluate import mean_nats, token_count, unigram_nats
from small import small_corpus, small_model


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
