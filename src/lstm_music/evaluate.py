"""Likelihood: mean nats per token of a model and of its baselines."""

import sys

import numpy as np
from tqdm import tqdm

from lstm_music.batches import on_device
from lstm_music.corpus import Corpus
from lstm_music.model import Model


def mean_nats(
    model: Model, corpus: Corpus, split: str, B: int, T: int, progress: bool = False
) -> float:
    """Return the mean nats per token of a split, each piece read whole from an empty state.

    B and T say how much is read at a time. The end symbols are tokens like any other.
    """
    batches = corpus.evaluation_batches(split, B, T)
    state = model.zero_state(len(batches.streams))
    total, count = 0.0, 0
    bar = tqdm(
        batches, split, unit="window", disable=not progress, leave=False, delay=2, file=sys.stderr
    )
    for batch in bar:
        losses, state = model.losses(on_device(model.ops, batch), state)
        total += float(losses.sum(dtype="float64"))
        count += batch.targets
    return total / max(count, 1)


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


def token_count(corpus: Corpus, split: str) -> int:
    """Return the number of tokens that `mean_nats` and `unigram_nats` judge."""
    lengths = corpus.lengths
    return sum(lengths[piece] for piece in corpus.splits[split])
