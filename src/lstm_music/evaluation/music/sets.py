"""The sets of music that are judged: real, composed by runs, by baselines."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.corpus.splits import SPLITS
from lstm_music.errors import UserError, Warn
from lstm_music.evaluation.music.excerpts import Music, excerpts, split_music, told_notes
from lstm_music.evaluation.music.judgement import MusicSet
from lstm_music.evaluation.music.memorisation import Index
from lstm_music.midi.piece import BAR, Piece
from lstm_music.network.baselines import BASELINES, fit_baseline
from lstm_music.network.model import Model
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.runs.opened import model_of, ops_of, own_corpus, reading_of
from lstm_music.sampling.composer import Composer, from_silence
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.roll_composers import FrequencyComposer

REAL = {"test": "held-out", "valid": "validation", "train": "training"}
UNTRAINED = "untrained"


class Asked(NamedTuple):
    """What is to be judged.

    reference, data: the corpus to judge against, None for the first run's own, and where it lies.
    split: its part. bars, num: of each set's pieces. top_p, craft, particles: None for what
    suits the model.
    """

    reference: str | None
    data: Path | None
    split: str
    bars: int
    num: int
    seed: int
    backend: str
    temperature: float
    top_p: float | None
    craft: float | None
    particles: int | None
    warn: Warn


def corpus_for(
    name: str,
    checkpoint: Checkpoint,
    folder: Path | None,
    reading: Reading,
    asked: Asked,
) -> Corpus:
    """Return the corpus that a run was trained on, read in some way.

    Where it is gone, the reference stands in, with a warning; without one, UserError is raised.
    """
    progress = sys.stderr.isatty()
    if asked.data is not None and asked.reference is None:  # the set has moved
        return load_corpus(checkpoint.meta["corpus"]["name"], asked.data, reading, progress)
    try:
        return own_corpus(name, checkpoint, folder, reading)
    except UserError as error:
        if asked.reference is None:
            raise
        asked.warn(f"{error}; {asked.reference} stands in")
        return load_corpus(asked.reference, asked.data, reading, progress)


def reference_of(first: tuple[str, Checkpoint, Path | None], own: Corpus, asked: Asked) -> Corpus:
    """Return the corpus to judge against: the reference, or the first run's own."""
    if asked.reference is None:
        return own
    return load_corpus(asked.reference, asked.data, reading_of(*first[1:]), sys.stderr.isatty())


def sets_of(
    opened: Sequence[tuple[str, Checkpoint, Path | None]],
    corpora: Sequence[Corpus],
    reference: Corpus,
    asked: Asked,
) -> list[Callable[[], MusicSet]]:
    """Return what makes each set: held-out music first, then the other real, runs, baselines.

    Raises UserError where the held-out split is too short to judge against.
    """
    indexes, first = Indexes(), corpora[0]
    splits = [asked.split, *(split for split in reversed(SPLITS) if split != asked.split)]
    real = [partial(real_set, reference, split, indexes, asked) for split in splits]
    runs = [
        partial(run_set, short(name), checkpoint, corpus, indexes, asked)
        for (name, checkpoint, _), corpus in zip(opened, corpora, strict=True)
    ]
    untrained = partial(untrained_set, opened[0][1], first, indexes, asked)
    frequency = [
        partial(frequency_set, kind, opened[0], first, indexes, asked)
        for kind in reversed(BASELINES)
    ]
    return [*real, *runs, untrained, *frequency]


class Indexes(dict[str, Index]):
    """The training music of each corpus, by which copies are found, made when first asked for."""

    def of(self, corpus: Corpus) -> Index:
        """Return a corpus's."""
        if corpus.key not in self:
            self[corpus.key] = Index(split_music(corpus, "train"))
        return self[corpus.key]


def real_set(reference: Corpus, split: str, indexes: Indexes, asked: Asked) -> MusicSet:
    """Return excerpts of a split; raises UserError where it has fewer than two."""
    music = split_music(reference, split)
    pieces = excerpts(music, asked.bars, asked.num, asked.seed)
    if len(pieces) < 2:
        raise UserError(
            f"the {split} split has music for {len(pieces)} excerpts of {asked.bars} bars, and "
            "two are needed: give a lower --bars"
        )
    own = None if split == "train" else indexes.of(reference)
    drawn = np.random.default_rng(asked.seed).permutation(len(music))[: asked.num]
    return MusicSet(REAL[split], "real", pieces, own, [music[p] for p in drawn])


def run_set(
    name: str, checkpoint: Checkpoint, corpus: Corpus, indexes: Indexes, asked: Asked
) -> MusicSet:
    """Return what a run composes."""
    composer = composer_of(checkpoint, model_of(checkpoint, asked.backend))
    pieces, whole = (composed(composer, asked, bars) for bars in (asked.bars, None))
    return MusicSet(name, "run", pieces, indexes.of(corpus), whole)


def untrained_set(
    checkpoint: Checkpoint, corpus: Corpus, indexes: Indexes, asked: Asked
) -> MusicSet:
    """Return what a run's network composes with the weights that it began with."""
    seed = checkpoint.meta["settings"]["seed"]
    model = Model(checkpoint.config, ops_of(asked.backend), seed, words=checkpoint.words)
    pieces = composed(composer_of(checkpoint, model), asked, asked.bars)
    return MusicSet(UNTRAINED, "baseline", pieces, indexes.of(corpus))


def frequency_set(
    kind: str,
    first: tuple[str, Checkpoint, Path | None],
    corpus: Corpus,
    indexes: Indexes,
    asked: Asked,
) -> MusicSet:
    """Return what a baseline of frequencies composes."""
    rolls = rolls_of(first, corpus, asked)
    baseline = fit_baseline(kind, rolls.split_frames("train"), rolls.split_frames("valid"))
    pieces = composed(FrequencyComposer(baseline, rolls.reading.grid), asked, asked.bars)
    return MusicSet(kind, "baseline", pieces, indexes.of(corpus))


def short(name: str) -> str:
    """Return a run's name as tables have room for it."""
    return Path(name).resolve().name if Path(name).name in ("", ".", "..") else Path(name).name


def rolls_of(first: tuple[str, Checkpoint, Path | None], own: Corpus, asked: Asked) -> RollCorpus:
    """Return the first run's corpus as frames, for the baselines that draw them."""
    if isinstance(own, RollCorpus):
        return own
    corpus = corpus_for(*first, Reading("note", drums=own.drums is not None), asked)
    assert isinstance(corpus, RollCorpus)
    return corpus


def composed(composer: Composer[Any], asked: Asked, bars: int | None) -> list[Music]:
    """Return the notes of composed_pieces."""
    pieces = composed_pieces(composer, asked, bars)
    return [Music(piece.name, told_notes(piece)) for piece in pieces]


def composed_pieces(composer: Composer[Any], asked: Asked, bars: int | None) -> list[Piece]:
    """Return the pieces asked for, each from silence, of so many bars or, of None, to its end."""
    options = composer.options(
        limit=bars and bars * BAR, temperature=asked.temperature, top_p=asked.top_p,
        craft=asked.craft, particles=asked.particles, seed=asked.seed,
    )  # fmt: skip
    return from_silence(composer, asked.num, options)
