"""What composes: the contract of each representation's composer, and how its pieces begin."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from lstm_music.errors import UserError, Warn
from lstm_music.midi.files import read_midi
from lstm_music.midi.piece import TEMPO, MidiError, Piece
from lstm_music.network.model import Model
from lstm_music.network.recall import RecallRules
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.sampling.decoding import without_silence
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import Rules
from lstm_music.sampling.sampler import sample

Music = TypeVar("Music")  # as a model reads it: ids, or frames (n, 88)
Ids = list[int]
Show = Callable[[int, int], None]


class Opening(NamedTuple):
    """How a piece begins: its name, ids or frames, and its meter, if those don't tell it."""

    name: str
    music: Any
    meter: tuple[tuple[int, int], ...] = ()


class Composer(ABC, Generic[Music]):
    """What composes. unit: of its lengths; top_p: its default; drums: as Corpus.drums.

    tempo: of what it writes, in quarter notes a minute. recall: how its copy gate compares words,
    None without one.
    """

    unit: str
    top_p: float
    tempo: float = TEMPO
    drums: list[int] | None = None
    recall: RecallRules | None = None

    @abstractmethod
    def fitted(self, options: Options) -> Options:
        """Return options with the length in what the sampler counts."""

    @abstractmethod
    def openings(self) -> list[Opening]:
        """Return the openings of held-out pieces that it knows."""

    @abstractmethod
    def opening_of(self, path: Path, warn: Warn) -> Opening:
        """Return a MIDI file as it reads one. Raises UserError where nothing is left of it."""

    @abstractmethod
    def cut(self, music: Music, n: int, limit: int | None) -> Music:
        """Return the first n tokens or frames, or fewer that end by a limit in ticks."""

    @abstractmethod
    def compose(self, primers: Sequence[Music], options: Options, show: Show) -> list[Music]:
        """Return one piece for each primer; see `sampler.sample`."""

    @abstractmethod
    def size(self, music: Music, options: Options) -> int:
        """Return the length in units of what it composed with these options."""

    @abstractmethod
    def ticks(self, music: Music) -> int:
        """Return how long music that no piece's end is in lasts."""

    @abstractmethod
    def piece(
        self, music: Music, options: Options, name: str, primer: Music | None = None
    ) -> Piece:
        """Decode what it composed with these options after a primer (default: none)."""


def sample_on_cpu(
    model: Model,
    primers: Sequence[Ids],
    options: Options,
    rules: Rules,
    show: Show,
    recall: RecallRules | None = None,
) -> list[Ids]:
    """Return one piece for each primer: `sampler.sample`, compiled where the model is on Numba.

    A factored head's model has no compiled loop.
    """
    if model.ops.name != "numba" or model.words is not None:
        return sample(model, primers, options, rules, show, recall)
    from lstm_music.sampling.compiled import sample_compiled

    return sample_compiled(model, primers, options, rules, show, recall)


# How pieces begin --------------------------------------------------------------------------------


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


def from_silence(composer: Composer[Any], num: int, asked: Options) -> list[Piece]:
    """Return so many pieces that a composer makes without an opening, by number."""
    options = composer.fitted(asked)
    opening = (composer.openings() or [Opening("", [])])[0]
    silence = composer.cut(opening.music, 0, None)
    made = composer.compose([silence] * num, options, lambda *_: None)
    return [composer.piece(music, options, f"sample {n + 1}") for n, music in enumerate(made)]


def drums_of(checkpoint: Checkpoint) -> list[int] | None:
    """Return Corpus.drums of what a checkpoint was trained on."""
    pitches: list[int] | None = checkpoint.meta.get("corpus", {}).get("drums")
    return pitches


def read_primer(path: Path, warn: Warn, drums: bool, played: bool = False) -> Piece:
    """Return the piece of a MIDI file, from its first note's bar on.

    drums, played: as of read_midi. Raises UserError where there is none.
    """
    if not path.is_file():
        raise UserError(f"no file '{path}': give --primer a MIDI file")
    try:
        piece = read_midi(path, path.name, drums, played)
    except MidiError as error:
        raise UserError(f"'{path}' {error}: give --primer another MIDI file") from error
    if played:  # it has no bars, and its words begin with its first note
        return piece
    piece, silent = without_silence(piece)
    if silent:
        warn(f"{path} begins with {bars_in_words(silent)} of silence: left out")
    return piece


def bars_in_words(bars: int) -> str:
    """Return so many bars in words."""
    return "a bar" if bars == 1 else f"{bars} bars"


def meter_of(piece: Piece) -> tuple[tuple[int, int], ...]:
    """Return a piece's meter as options have it."""
    return tuple((tick, length) for tick, length in piece.meter.tolist())
