"""From a checkpoint to what composes, its baselines, and where pieces begin."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_music.corpus.load import Reading
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.errors import UserError
from lstm_music.midi.piece import Piece
from lstm_music.network.baselines import chord_frequency
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.ops import get_ops
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.runs.opened import model_of, ops_of, own_corpus, reading_of
from lstm_music.sampling.composer import Composer, Opening
from lstm_music.sampling.options import Options
from lstm_music.sampling.roll_composers import ChordComposer, FrequencyComposer, NoteComposer


def composers(
    name: str, checkpoint: Checkpoint, run_folder: Path | None, backend: str
) -> dict[str, Callable[[], Composer[Any]]]:
    """Return what composes, by title: the model, and the paper's baselines."""

    def frequency() -> Composer[Any]:
        grid = checkpoint.meta["tokenizer"].get("grid")
        drums = reading_of(checkpoint, run_folder).drums
        rolls = own_corpus(name, checkpoint, run_folder, Reading("note", grid=grid, drums=drums))
        assert isinstance(rolls, RollCorpus)
        baseline = chord_frequency(rolls.split_frames("train"), rolls.split_frames("valid"))
        return FrequencyComposer(baseline, rolls.reading.grid, drums=rolls.drums)

    def untrained() -> Composer[Any]:
        seed = checkpoint.meta["settings"]["seed"]
        model = Model(checkpoint.config, ops_of(backend), seed, words=checkpoint.words)
        return composer_of(checkpoint, model)

    return {
        "model": lambda: composer_of(checkpoint, model_of(checkpoint, backend)),
        "untrained": untrained,
        "chord-frequency": frequency,
    }


def primers_of(
    composer: Composer[Any],
    options: Options,
    num: int,
    n: int,
    openings: Sequence[Opening] | None = None,
) -> tuple[list[Any], list[str]]:
    """Return the primers of so many pieces, at most n tokens or frames of openings, and of which.

    openings: to draw among (default: the composer's own). A primer that the length counts is at
    most half of it, so that something is composed.
    """
    length, limit = options.length, options.limit
    if options.bars is not None:
        limit = options.bars * options.line_and_bar[1]
    length, limit = length and length // 2, limit and limit // 2
    if options.beyond:
        length = limit = None
    n = n if length is None else min(n, length)
    candidates = openings or composer.openings() or [Opening("", [])]
    chosen = np.random.default_rng(options.seed).integers(len(candidates), size=num)
    primers, origins = [], []
    for name, music, _ in (candidates[k] for k in chosen):
        primer = composer.cut(music, n, limit)
        primers.append(primer)
        first = f"the first {composer.size(primer, options)} {composer.unit} of {name}"
        origins.append(first if len(primer) else "")
    return primers, origins


def composer_of(
    checkpoint: Checkpoint, model: Model, free: bool = False, restrike: bool = False
) -> Composer[Any]:
    """Return what composes with a model as a checkpoint says.

    Raises UserError where free is asked of anything but messages, restrike of anything but piano
    rolls.
    """
    # It needs what is here.
    from lstm_music.sampling.token_composers import EventComposer, MessageComposer

    representation = checkpoint.meta["tokenizer"]["name"]
    if representation in ("message", "event") and restrike:
        raise UserError(
            f"--restrike is only for piano-roll models, and this one writes {representation}s: "
            "leave it out"
        )
    if representation == "message":
        return MessageComposer(checkpoint, model, free)
    if free and representation == "event":
        raise UserError(
            "--free is only for models of messages, and events out of order mean nothing: "
            "leave it out"
        )
    if representation == "event":
        return EventComposer(checkpoint, model)
    if free:
        raise UserError(
            "--free is only for models of messages, and a piano roll has no rules to break: "
            "leave it out"
        )
    kind = ChordComposer if representation == "chord" else NoteComposer
    return kind(checkpoint, model, restrike)


def untrained(corpus: RollCorpus) -> Checkpoint:
    """Return a model of a corpus's chords as training would begin with it, all sizes default."""
    config = Config(len(corpus.vocabulary))
    meta = {"tokenizer": corpus.tokenizer_json(), "primers": corpus.primers()}
    parameters = Model(config, get_ops("numpy")).parameters
    return Checkpoint(Path(corpus.name), meta, config, corpus.vocabulary, parameters)


def from_silence(composer: Composer[Any], num: int, asked: Options) -> list[Piece]:
    """Return so many pieces that a composer makes without an opening, by number."""
    options = composer.fitted(asked)
    opening = (composer.openings() or [Opening("", [])])[0]
    silence = composer.cut(opening.music, 0, None)
    made = composer.compose([silence] * num, options, lambda *_: None)
    return [composer.piece(music, options, f"sample {n + 1}") for n, music in enumerate(made)]
