"""Likelihood: mean nats per token of a model and of its baselines."""

import numpy as np

from lstm_music.corpus import Corpus


def unigram_nats(corpus: Corpus, split: str) -> float:
    """Return the mean nats per token of a split under the training split's token frequencies.

    Each frequency has one added (Laplace), so that unseen tokens are possible. The end symbols
    count as tokens, as they do for a model.
    """
    V = len(corpus.vocabulary)
    counts = np.ones(V)
    for piece in corpus.splits["train"]:
        counts += np.bincount(corpus.piece_ids(piece), minlength=V)
    nats = -np.log(counts / counts.sum())
    ids = np.concatenate([corpus.piece_ids(piece) for piece in corpus.splits[split]])
    return float(nats[ids].mean())
