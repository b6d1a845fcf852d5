"""Likelihood: what a model makes of each step of a corpus; mean nats per token."""

import sys
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from lstm_music.arrays import Array, Batch
from lstm_music.corpus.batches import Batches, on_device
from lstm_music.corpus.corpus import Corpus
from lstm_music.network.model import Model, rows_of
from lstm_music.training.ranks import ALONE, Alone

LEAST_VALIDATED = 100_000  # tokens: a split up to this long is always read whole


def mean_nats(
    model: Model,
    corpus: Corpus,
    split: str,
    B: int,
    T: int,
    progress: bool = False,
    most: int | None = None,
    ranks: Alone = ALONE,
) -> float:
    """Return the mean nats per token (or frame) of a split, each piece read whole.

    B and T say how much is read at a time, by all ranks together; most, where the split is longer,
    how much in all (`batches.openings`). The end symbols are tokens like any other; chords that
    training never showed are not counted.
    """
    every = corpus.evaluation_batches(
        split, B, T, most, bool(model.config.copy), model.config.head == "biaxial"
    )
    own = slice(*ranks.share_of(len(every.streams)))
    batches = Batches(every.source, every.streams[own], T, every.recall)
    state = model.zero_state(len(batches.streams))
    total, count = 0.0, 0
    for batch in watched(batches, split, progress):
        losses, state = model.losses(on_device(model.ops, batch), state)
        total += float(losses.sum(dtype="float64"))
        count += batch.targets
    return ranks.total(total) / max(ranks.total(count), 1)


def validation_size(corpus: Corpus, period: int) -> int:
    """Return how many tokens (or frames) are read at each validation of a run.

    All of the split, but where it is large only a fifth of those that are trained on from one
    validation to the next: all of the training split, or period. Reading one costs a third of
    training on one.
    """
    lengths, splits = corpus.lengths, corpus.splits
    train, whole = (sum(lengths[p] for p in splits[name]) for name in ("train", "valid"))
    return min(whole, max(LEAST_VALIDATED, min(train, period) // 5))


def per_piece(
    model: Model,
    corpus: Corpus,
    split: str,
    B: int,
    T: int,
    score: Callable[[Array, Array, Array | None], tuple[Array, ...]],
    progress: bool = False,
) -> list[list[Array]]:
    """Return what score makes of each step of each piece of a split, each piece read whole.

    score takes outputs (N, H), targets (N, …) and, of a model with a copy gate, Batch.recall (N, K)
    on the model's backend and returns arrays (N, …) on the host; here they come piece by piece,
    (n, …) each, in the split's order.
    """
    batches = corpus.evaluation_batches(
        split, B, T, copy=bool(model.config.copy), around=model.config.head == "biaxial"
    )
    state = model.zero_state(len(batches.streams))
    windows = []
    for batch in watched(batches, split, progress):
        on = on_device(model.ops, batch)
        h, state = model.outputs(on, state)
        recall = None if on.recall is None else rows_of(on.recall)
        found = score(h.reshape(-1, h.shape[-1]), rows_of(on.y), recall)
        windows.append([a.reshape(*batch.y.shape[:2], *a.shape[1:]) for a in found])
    whole = [np.concatenate(parts) for parts in zip(*windows, strict=True)]
    pieces: dict[int, list[Array]] = {}
    for b, stream in enumerate(batches.streams):
        t = 0
        for piece, start, stop in stream:
            pieces[piece] = [a[t : t + stop - start, b] for a in whole]
            t += stop - start
    return [pieces[piece] for piece in corpus.splits[split]]


def watched(batches: Batches, what: str, progress: bool) -> Iterator[Batch]:
    """Return the windows, with a progress bar for those who wait longer than two seconds."""
    bar = tqdm(
        batches, what, unit="window", disable=not progress, leave=False, delay=2, file=sys.stderr
    )
    return iter(bar)
