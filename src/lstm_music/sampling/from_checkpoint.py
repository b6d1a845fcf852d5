"""From a checkpoint to the composer of its representation, and to the baselines beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lstm_music.corpus.load import OF_WORDS, Reading
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.errors import UserError
from lstm_music.network.baselines import chord_frequency
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.ops import get_ops
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.runs.opened import model_of, ops_of, own_corpus, reading_of
from lstm_music.sampling.composer import Composer
from lstm_music.sampling.roll_composers import ChordComposer, FrequencyComposer, NoteComposer
from lstm_music.sampling.token_composers import (
    EventComposer,
    MessageComposer,
    PerformanceComposer,
)


def composers(
    name: str, checkpoint: Checkpoint, run_folder: Path | None, backend: str
) -> dict[str, Callable[[], Composer[Any]]]:
    """Return what composes, by title: the model, and the paper's baselines."""

    def frequency() -> Composer[Any]:
        told = checkpoint.meta["tokenizer"].get("grid")
        grid = told if isinstance(told, int) else None  # notes may be on several
        drums = reading_of(checkpoint, run_folder).drums
        rolls = own_corpus(name, checkpoint, run_folder, Reading("note", grid=grid, drums=drums))
        assert isinstance(rolls, RollCorpus)
        baseline = chord_frequency(rolls.split_frames("train"), rolls.split_frames("valid"))
        return FrequencyComposer(baseline, rolls.reading.grid, drums=rolls.drums, tempo=rolls.tempo)

    def untrained() -> Composer[Any]:
        seed = checkpoint.meta["settings"]["seed"]
        model = Model(checkpoint.config, ops_of(backend), seed, words=checkpoint.words)
        return composer_of(checkpoint, model)

    return {
        "model": lambda: composer_of(checkpoint, model_of(checkpoint, backend)),
        "untrained": untrained,
        "chord-frequency": frequency,
    }


def composer_of(
    checkpoint: Checkpoint, model: Model, free: bool = False, restrike: bool = False
) -> Composer[Any]:
    """Return what composes with a model as a checkpoint says.

    Raises UserError where free is asked of anything but messages, restrike of anything but piano
    rolls.
    """
    representation = checkpoint.meta["tokenizer"]["name"]
    if representation in OF_WORDS and restrike:
        raise UserError(
            f"--restrike is only for piano-roll models, and this one writes {representation}s: "
            "leave it out"
        )
    if representation == "message":
        return MessageComposer(checkpoint, model, free)
    if free and representation in OF_WORDS:
        raise UserError(
            f"--free is only for models of messages, and {representation}s out of order mean "
            "nothing: leave it out"
        )
    if representation == "event":
        return EventComposer(checkpoint, model)
    if representation == "performance":
        return PerformanceComposer(checkpoint, model)
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
