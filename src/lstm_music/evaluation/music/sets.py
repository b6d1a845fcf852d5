"""The sets of music that are judged: real, composed by runs, by baselines."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lstm_music.cli.common import warn, warn_of_namesake
from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.corpus.splits import SPLITS
from lstm_music.errors import UserError
from lstm_music.evaluation.music.excerpts import Music, excerpts, notes_of_piece, split_music
from lstm_music.evaluation.music.judgement import MusicSet
from lstm_music.evaluation.music.memorisation import Index
from lstm_music.midi.piece import BAR
from lstm_music.network.baselines import BASELINES, fit_baseline
from lstm_music.network.model import Model
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.runs.opened import model_of, ops_of, own_corpus, reading_of
from lstm_music.sampling.composer import Composer
from lstm_music.sampling.composing import composer_of, from_silence
from lstm_music.sampling.options import Options
from lstm_music.sampling.roll_composers import FrequencyComposer

REAL = {"test": "held-out", "valid": "validation", "train": "training"}
UNTRAINED = "untrained"


def corpus_for(
    name: str,
    checkpoint: Checkpoint,
    folder: Path | None,
    reading: Reading,
    args: argparse.Namespace,
) -> Corpus:
    """Return the corpus that a run was trained on, read in some way.

    Where it is gone, the reference stands in, with a warning; without one, UserError is raised.
    """
    progress = sys.stderr.isatty()
    if args.data is not None and args.reference is None:  # the set has moved
        return load_corpus(checkpoint.meta["corpus"]["name"], args.data, reading, progress)
    try:
        return own_corpus(name, checkpoint, folder, reading)
    except UserError as error:
        if args.reference is None:
            raise
        warn(f"{error}; {args.reference} stands in")
        return load_corpus(args.reference, args.data, reading, progress)


def reference_of(
    first: tuple[str, Checkpoint, Path | None], own: Corpus, args: argparse.Namespace
) -> Corpus:
    """Return the corpus to judge against: --reference, or the first run's own."""
    if args.reference is None:
        return own
    corpus = load_corpus(args.reference, args.data, reading_of(*first[1:]), sys.stderr.isatty())
    warn_of_namesake(args.reference, args.data)
    return corpus


def sets_of(
    opened: Sequence[tuple[str, Checkpoint, Path | None]],
    corpora: Sequence[Corpus],
    reference: Corpus,
    args: argparse.Namespace,
) -> list[Callable[[], MusicSet]]:
    """Return what makes each set: held-out music first, then the other real, runs, baselines.

    Raises UserError where the held-out split is too short to judge against.
    """
    indexes: dict[str, Index] = {}

    def index(corpus: Corpus) -> Index:
        if corpus.key not in indexes:
            indexes[corpus.key] = Index(split_music(corpus, "train"))
        return indexes[corpus.key]

    def real(split: str) -> MusicSet:
        pieces = excerpts(split_music(reference, split), args.bars, args.num, args.seed)
        if len(pieces) < 2:
            raise UserError(
                f"the {split} split has music for {len(pieces)} excerpts of {args.bars} bars, and "
                "two are needed: give a lower --bars"
            )
        own = None if split == "train" else index(reference)
        return MusicSet(REAL[split], "real", pieces, own)

    def generated(name: str, kind: str, corpus: Corpus, composer: Composer[Any]) -> MusicSet:
        return MusicSet(name, kind, composed(composer, args), index(corpus))

    def of_run(name: str, checkpoint: Checkpoint, corpus: Corpus) -> MusicSet:
        composer = composer_of(checkpoint, model_of(checkpoint, args.backend))
        return generated(name, "run", corpus, composer)

    def of_untrained(checkpoint: Checkpoint) -> MusicSet:
        seed = checkpoint.meta["settings"]["seed"]
        model = Model(checkpoint.config, ops_of(args.backend), seed, words=checkpoint.words)
        return generated(UNTRAINED, "baseline", corpora[0], composer_of(checkpoint, model))

    def of_frequency(kind: str) -> MusicSet:
        rolls = rolls_of(opened[0], corpora[0], args)
        baseline = fit_baseline(kind, rolls.split_frames("train"), rolls.split_frames("valid"))
        composer = FrequencyComposer(baseline, rolls.reading.grid)
        return generated(kind, "baseline", corpora[0], composer)

    first = opened[0][1]
    splits = [args.split, *(split for split in reversed(SPLITS) if split != args.split)]
    return [
        *(lambda split=split: real(split) for split in splits),
        *(
            lambda name=name, checkpoint=checkpoint, corpus=corpus: of_run(
                short(name), checkpoint, corpus
            )
            for (name, checkpoint, _), corpus in zip(opened, corpora, strict=True)
        ),
        lambda: of_untrained(first),
        *(lambda kind=kind: of_frequency(kind) for kind in reversed(BASELINES)),
    ]


def short(name: str) -> str:
    """Return a run's name as tables have room for it."""
    return Path(name).resolve().name if Path(name).name in ("", ".", "..") else Path(name).name


def rolls_of(
    first: tuple[str, Checkpoint, Path | None], own: Corpus, args: argparse.Namespace
) -> RollCorpus:
    """Return the first run's corpus as frames, for the baselines that draw them."""
    if isinstance(own, RollCorpus):
        return own
    corpus = corpus_for(*first, Reading("note", drums=own.drums is not None), args)
    assert isinstance(corpus, RollCorpus)
    return corpus


def composed(composer: Composer[Any], args: argparse.Namespace) -> list[Music]:
    """Return --num pieces of --bars, each from silence, by --seed."""
    asked = Options(
        None,
        args.bars * BAR,
        temperature=args.temperature,
        top_p=composer.top_p if args.top_p is None else args.top_p,
        seed=args.seed,
    )
    pieces = from_silence(composer, args.num, asked)
    return [Music(piece.name, notes_of_piece(piece)) for piece in pieces]
