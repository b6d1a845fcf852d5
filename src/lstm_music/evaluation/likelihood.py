"""How well a model predicts a corpus, in nats: rows of a table, baselines beside them."""

import math
import sys
from typing import Any

import numpy as np

from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.corpus.words import MessageCorpus
from lstm_music.evaluation.frames import (
    PUBLISHED,
    FrameScore,
    score_baseline,
    score_chords,
    score_notes,
)
from lstm_music.network.baselines import BASELINES, fit_baseline
from lstm_music.network.model import Model
from lstm_music.ops import NumpyOps
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.tokenizers.performance import STEP, steps_told
from lstm_music.training.validation import mean_nats

Row = dict[str, Any]


def evaluate(
    name: str, checkpoint: Checkpoint, corpus: Corpus, split: str, ops: NumpyOps
) -> list[Row]:
    """Return the results of a run and of its baselines."""
    settings = checkpoint.meta["settings"]
    size = settings["batch"], settings["seq"]
    progress = sys.stderr.isatty()
    parameters = {k: ops.asarray(v) for k, v in checkpoint.parameters.items()}
    models = {
        name: Model(checkpoint.config, ops, parameters=parameters, words=checkpoint.words),
        "untrained": Model(checkpoint.config, ops, seed=0, words=checkpoint.words),
    }
    tokens = token_count(corpus, split)
    rows = {}
    for which, model in models.items():
        if isinstance(corpus, RollCorpus):
            rows[which] = score_row(which, model, corpus, split, *size, progress)
        else:
            rows[which] = token_row(which, mean_nats(model, corpus, split, *size, progress), tokens)
    baselines = [
        frame_row(kind, baseline_score(kind, corpus, split))
        for kind in BASELINES[1:]
        if isinstance(corpus, RollCorpus)
    ]
    if isinstance(corpus, MessageCorpus):
        baselines.append(token_row("unigram", unigram_nats(corpus, split), tokens))
    found = [rows[name], *baselines, rows["untrained"]]
    return [per_note(row, corpus, split) for row in found]


def score_row(
    name: str, model: Model, corpus: RollCorpus, split: str, B: int, T: int, progress: bool
) -> Row:
    """Return the result of a model of piano rolls; a chord model's tokens are those it knows."""
    if model.config.reads_notes:
        return frame_row(name, score_notes(model, corpus, split, B, T, progress))
    score, share = score_chords(model, corpus, split, B, T, progress)
    nats = mean_nats(model, corpus, split, B, T, progress)
    row = frame_row(name, score) | {"nats_per_token": nats, "perplexity": perplexity(nats)}
    return row | {"tokens": token_count(corpus, split), "back_off": share}


def baseline_score(kind: str, corpus: RollCorpus, split: str) -> FrameScore:
    """Return the score of a baseline by its name."""
    train, valid = corpus.split_frames("train"), corpus.split_frames("valid")
    return score_baseline(fit_baseline(kind, train, valid), corpus.split_frames(split))


def token_row(name: str, nats: float, tokens: int) -> Row:
    """Return an object of --json. What counts frames is null: messages have none."""
    return {
        "name": name,
        "nats_per_token": nats,
        "nats_per_frame": None,
        "frame_accuracy": None,
        "frames": None,
        "tokens": tokens,
        "perplexity": perplexity(nats),
    }


def frame_row(name: str, score: FrameScore) -> Row:
    """Return an object of --json for what predicts frames; its tokens are frames."""
    return {
        "name": name,
        "nats_per_token": score.nats_per_frame,
        "nats_per_frame": score.nats_per_frame,
        "frame_accuracy": score.accuracy,
        "frames": score.frames,
        "tokens": score.frames,
        "perplexity": perplexity(score.nats_per_frame),
        "nats_per_frame_by_piece": score.nats_per_frame_by_piece,
    }


def per_note(row: Row, corpus: Corpus, split: str) -> Row:
    """Return a result with all its nats over the notes of the split's pieces, null without any.

    Of performances, whose words tell the time, over the seconds too.
    """
    nats, n = row["nats_per_token"], row["tokens"]
    if row["frames"] is not None:  # of chords, the likelihood of all sets of notes
        nats, n = row["nats_per_frame"], row["frames"]
    notes = sum(corpus.notes[piece] for piece in corpus.splits[split])
    row = row | {"nats_per_note": nats * n / notes if notes else None, "notes": notes}
    if not isinstance(corpus, MessageCorpus) or corpus.tokenizer.name != "performance":
        return row
    seconds = seconds_in(corpus, split)
    return row | {"nats_per_second": nats * n / seconds if seconds else None, "seconds": seconds}


def seconds_in(corpus: MessageCorpus, split: str) -> float:
    """Return how long the pieces of a split of performances are, from their first notes on."""
    steps = np.array(steps_told(corpus.vocabulary.words))
    return sum(int(steps[corpus.piece_ids(p)].sum()) for p in corpus.splits[split]) * STEP / 1000


def perplexity(nats: float) -> float | None:
    """Return exp(nats) of a token or frame, None where a float can't hold it."""
    return math.exp(nats) if nats < 700 else None


def published_rows(corpus: RollCorpus, split: str) -> dict[str, list[Row]]:
    """Return what papers give for a set, by its name, where the frames are the very same."""
    r = corpus.reading
    own = corpus.pieces[corpus.splits["test"][0]] == "test-1"  # the set's file, not other music
    changed = r.max_polyphony or r.common_key or not own
    if split != "test" or changed or corpus.name not in PUBLISHED:
        return {}
    rows = PUBLISHED[corpus.name]
    return {
        corpus.name: [
            {"name": name, "nats_per_frame": nats, "frame_accuracy": percent and percent / 100}
            for name, nats, percent in rows
        ]
    }


def columns(rows: list[Row]) -> list[tuple[str, str, str]]:
    """Return title, key and format of each column; those of frames where anything counts them."""
    timed = any("nats_per_second" in row for row in rows)
    if all(row.get("nats_per_frame") is None for row in rows):
        return [
            ("nats per token", "nats_per_token", ".4f"),
            ("nats per note", "nats_per_note", ".4f"),
            *([("nats per second", "nats_per_second", ".4f")] if timed else []),
            ("    tokens", "tokens", ","),
        ]
    return [
        ("nats per frame", "nats_per_frame", ".4f"),
        ("accuracy", "frame_accuracy", ".1%"),
        ("by piece", "nats_per_frame_by_piece", ".4f"),
        ("nats per token", "nats_per_token", ".4f"),
        ("nats per note", "nats_per_note", ".4f"),
        ("perplexity", "perplexity", ".4g"),
        ("    frames", "frames", ","),
    ]


def unigram_nats(corpus: MessageCorpus, split: str) -> float:
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
    source, lengths = corpus.source([0] * len(corpus.pieces)), corpus.lengths
    targets = (source.targets(p, 0, lengths[p]) for p in corpus.splits[split])
    return sum(int(np.count_nonzero(source.asks(y))) for y in targets)
