"""From a checkpoint to pieces: openings to continue, sampling and decoding, by representation."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from lstm_music.baselines import Baseline
from lstm_music.checkpoint import Checkpoint
from lstm_music.decoding import (
    decode_chords,
    length_in_frames,
    rows_of,
    with_drums,
    without_silence,
)
from lstm_music.errors import UserError
from lstm_music.frame_sampler import BARS, check_options, fit_thresholds, sample_frames
from lstm_music.heads import SigmoidHead
from lstm_music.midi import LAST_TICK, MidiError, Piece, read_midi
from lstm_music.model import Config, Model
from lstm_music.ops import get_ops
from lstm_music.piano_roll import (
    LOWEST,
    NOTES,
    Frames,
    frames_of,
    piece_of_frames,
    ticks_per_step,
)
from lstm_music.roll_corpus import RollCorpus, RollReading, chord_ids
from lstm_music.sampler import Options, sample, within
from lstm_music.sampling_automaton import line_after
from lstm_music.sampling_rules import Rules, rules_of
from lstm_music.tokenizers.chords import chord_words

Music = TypeVar("Music")  # as a model reads it: ids, or frames (n, 88)
Ids = list[int]
Show = Callable[[int, int], None]
Warn = Callable[[str], None]


class Opening(NamedTuple):
    """How a piece begins: its name, ids or frames, and its meter, if those don't tell it."""

    name: str
    music: Any
    meter: tuple[tuple[int, int], ...] = ()


class Composer(ABC, Generic[Music]):
    """What composes. unit: of its lengths; top_p: its default; drums: as Corpus.drums."""

    unit: str
    top_p: float
    drums: list[int] | None = None

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


class ChordComposer(Composer[Ids]):
    """Composes with a model of chords. restrike: held notes are struck anew with each chord."""

    unit, top_p = "frames", 0.9

    def __init__(self, checkpoint: Checkpoint, model: Model, restrike: bool = False) -> None:
        self.checkpoint, self.model, self.restrike = checkpoint, model, restrike
        self.vocabulary = checkpoint.vocabulary
        self.reading = reading_of(checkpoint)
        self.rules = rules_of(self.vocabulary, checkpoint.meta["tokenizer"], {})
        self.drums = drums_of(checkpoint)

    def fitted(self, options: Options) -> Options:
        """As Composer.fitted: a length is one in ticks, or after a primer in bars."""
        frames = frames_asked(options, self.reading.grid)
        if options.bars is not None and options.beyond:
            return options
        limit = None if frames is None else frames * self.rules.frame_ticks
        return replace(options, length=None, limit=limit, bars=None)

    def openings(self) -> list[Opening]:
        """As Composer.openings."""
        return [
            Opening(primer["name"], primer["ids"]) for primer in self.checkpoint.meta["primers"]
        ]

    def opening_of(self, path: Path, warn: Warn) -> Opening:
        """As Composer.opening_of, unseen chords replaced by the nearest seen."""
        piece = read_primer(path, warn, self.drums is not None)
        frames, meter = frames_of_primer(piece, path, self.reading, warn)
        ids, unseen = chord_ids([chord_words(frames)], self.vocabulary)
        if unseen.any():
            warn(
                f"{int(unseen.sum())} of {len(frames)} chords of {path} are new to the model: "
                "its nearest ones stand in"
            )
        return Opening(str(path), ids[:-1].tolist(), meter)

    def cut(self, music: Ids, n: int, limit: int | None) -> Ids:
        """As Composer.cut."""
        return within(music, self.rules, n, limit)

    def compose(self, primers: Sequence[Ids], options: Options, show: Show) -> list[Ids]:
        """As Composer.compose."""
        for n in {len(primer) for primer in primers}:
            frames_asked(options, self.reading.grid, n)
        return sample_on_cpu(self.model, primers, options, self.rules, show)

    def size(self, music: Ids, options: Options) -> int:
        """As Composer.size: the rests before bar lines count."""
        return length_in_frames(music, self.rules, options)

    def ticks(self, music: Ids) -> int:
        """As Composer.ticks."""
        return len(music) * self.rules.frame_ticks

    def piece(self, music: Ids, options: Options, name: str, primer: Ids | None = None) -> Piece:
        """As Composer.piece."""
        grid = self.reading.grid
        piece = decode_chords(music, self.vocabulary, grid, name, self.restrike, options)
        return with_drums(piece, self.drums)


class FrameComposer(Composer[Frames]):
    """Composes frames. grid: frames a whole note; restrike: as of a ChordComposer."""

    unit, top_p = "frames", 1.0

    def __init__(self, grid: int, restrike: bool = False) -> None:
        self.grid, self.restrike = grid, restrike

    def fitted(self, options: Options) -> Options:
        """As Composer.fitted: there must be a length, and without a primer it is one in frames."""
        if (options.length, options.limit, options.bars) == (None, None, None):
            options = replace(options, bars=BARS)
        frames = frames_asked(options, self.grid)
        if options.beyond:
            return options
        return replace(options, length=frames, limit=None, bars=None)

    def lengths(self, primers: Sequence[Frames], options: Options) -> list[int]:
        """Return how many frames each piece is to have."""
        asked = (frames_asked(options, self.grid, len(primer)) for primer in primers)
        return [frames for frames in asked if frames is not None]

    def cut(self, music: Frames, n: int, limit: int | None) -> Frames:
        """As Composer.cut: a length in ticks is one in frames already."""
        return music[:n]

    def size(self, music: Frames, options: Options) -> int:
        """As Composer.size."""
        return len(music)

    def ticks(self, music: Frames) -> int:
        """As Composer.ticks."""
        return len(music) * ticks_per_step(self.grid)

    def piece(
        self, music: Frames, options: Options, name: str, primer: Frames | None = None
    ) -> Piece:
        """As Composer.piece."""
        piece = piece_of_frames(music, self.grid, name, self.restrike)
        return with_drums(replace(piece, meter=rows_of(options.meter)), self.drums)


class NoteComposer(FrameComposer):
    """Composes with a model of notes."""

    def __init__(self, checkpoint: Checkpoint, model: Model, restrike: bool = False) -> None:
        self.reading = reading_of(checkpoint)
        super().__init__(self.reading.grid, restrike)
        self.checkpoint, self.model, self.drums = checkpoint, model, drums_of(checkpoint)

    def fitted(self, options: Options) -> Options:
        """As FrameComposer.fitted. Raises UserError for what the model's head can't do."""
        check_options(self.model, options)
        return super().fitted(options)

    def openings(self) -> list[Opening]:
        """As Composer.openings."""
        primers = self.checkpoint.meta["primers"]
        return [Opening(primer["name"], frames_of_pitches(primer["frames"])) for primer in primers]

    def opening_of(self, path: Path, warn: Warn) -> Opening:
        """As Composer.opening_of."""
        piece = read_primer(path, warn, self.drums is not None)
        return Opening(str(path), *frames_of_primer(piece, path, self.reading, warn))

    def compose(self, primers: Sequence[Frames], options: Options, show: Show) -> list[Frames]:
        """As Composer.compose."""
        thresholds = None
        if options.greedy and isinstance(self.model.head, SigmoidHead):
            known = [opening.music for opening in self.openings()]
            thresholds = fit_thresholds(self.model, known)
        lengths = self.lengths(primers, options)
        return sample_frames(self.model, primers, options, thresholds, show, lengths)


class FrequencyComposer(FrameComposer):
    """Draws each frame by itself from a baseline, as the paper's section 5.1 does with chords."""

    def __init__(
        self,
        baseline: Baseline,
        grid: int,
        restrike: bool = False,
        drums: list[int] | None = None,
    ) -> None:
        super().__init__(grid, restrike)
        self.baseline, self.drums = baseline, drums

    def openings(self) -> list[Opening]:
        """Return none: what was before makes no difference."""
        return []

    def opening_of(self, path: Path, warn: Warn) -> Opening:
        """Raise UserError: what was before makes no difference."""
        raise UserError("a baseline continues nothing: leave --primer out")

    def compose(self, primers: Sequence[Frames], options: Options, show: Show) -> list[Frames]:
        """As Composer.compose; primers only say how many pieces to draw."""
        lengths = self.lengths(primers, options)
        rngs = (np.random.default_rng([options.seed, options.first + k]) for k in itertools.count())
        return [self.baseline.draw(n, rng) for n, rng in zip(lengths, rngs, strict=False)]


def sample_on_cpu(
    model: Model,
    primers: Sequence[Ids],
    options: Options,
    rules: Rules,
    show: Show,
) -> list[Ids]:
    """Return one piece for each primer: `sampler.sample`, compiled where the model is on Numba.

    A factored head's model has no compiled loop.
    """
    if model.ops.name != "numba" or model.words is not None:
        return sample(model, primers, options, rules, show)
    from lstm_music.compiled_sampling import sample_compiled

    return sample_compiled(model, primers, options, rules, show)


# Making one -------------------------------------------------------------------------------------


def composer_of(
    checkpoint: Checkpoint, model: Model, free: bool = False, restrike: bool = False
) -> Composer[Any]:
    """Return what composes with a model as a checkpoint says.

    Raises UserError where free is asked of anything but messages, restrike of anything but piano
    rolls.
    """
    # It needs what is here.
    from lstm_music.token_composer import EventComposer, MessageComposer

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


def reading_of(checkpoint: Checkpoint) -> RollReading:
    """Return how a checkpoint's piano rolls were made; nothing is transposed at random any more."""
    tokenizer = dict(checkpoint.meta["tokenizer"])
    return RollReading(tokenizer.pop("name"), **tokenizer)


# Lengths and primers ----------------------------------------------------------------------------


def frames_asked(options: Options, grid: int, primed: int = 0) -> int | None:
    """Return how many frames a piece is to have whose primer has so many; None where any will do.

    Raises UserError for more than a MIDI file holds.
    """
    ticks = ticks_per_step(grid)
    line, bar = options.line_and_bar
    begin = primed if options.beyond else 0
    if options.length is not None:
        frames = begin + options.length
    elif options.bars is not None:
        end = line_after(begin * ticks, bar, line) + options.bars * bar
        frames = max(begin + 1, round(end / ticks))
    elif options.limit is not None:
        frames = begin + max(1, round(options.limit / ticks))
    else:
        return None
    if frames > LAST_TICK // ticks:
        raise UserError(
            f"a MIDI file holds at most {LAST_TICK // ticks} frames of this grid, not {frames}: "
            "ask for fewer"
        )
    return frames


def drums_of(checkpoint: Checkpoint) -> list[int] | None:
    """Return Corpus.drums of what a checkpoint was trained on."""
    pitches: list[int] | None = checkpoint.meta.get("corpus", {}).get("drums")
    return pitches


def read_primer(path: Path, warn: Warn, drums: bool) -> Piece:
    """Return the piece of a MIDI file, from its first note's bar on.

    drums: whether they are kept. Raises UserError where there is none.
    """
    if not path.is_file():
        raise UserError(f"no file '{path}': give --primer a MIDI file")
    try:
        piece, silent = without_silence(read_midi(path, path.name, drums))
    except MidiError as error:
        raise UserError(f"'{path}' {error}: give --primer another MIDI file") from error
    if silent:
        warn(f"{path} begins with {bars_in_words(silent)} of silence: left out")
    return piece


def bars_in_words(bars: int) -> str:
    """Return so many bars in words."""
    return "a bar" if bars == 1 else f"{bars} bars"


def frames_of_primer(
    piece: Piece, path: Path, reading: RollReading, warn: Warn
) -> tuple[Frames, tuple[tuple[int, int], ...]]:
    """Return a MIDI file's frames as a model read its corpus, and its meter.

    Raises UserError for silence.
    """
    frames, out_of_range = frames_of(piece, reading.grid)
    if not frames.any():
        raise UserError(
            f"no note in '{path}' sounds on the model's grid of {reading.grid} frames a whole "
            "note: choose another --primer"
        )
    if out_of_range:
        warn(f"notes of {path} that a piano lacks are left out ({out_of_range})")
    return reading.prepared(frames, 0), meter_of(piece)


def meter_of(piece: Piece) -> tuple[tuple[int, int], ...]:
    """Return a piece's meter as options have it."""
    return tuple((tick, length) for tick, length in piece.meter.tolist())


def frames_of_pitches(pitches: Sequence[Sequence[int]]) -> Frames:
    """Return frames (n, 88) from the MIDI pitches of each."""
    frames = np.zeros((len(pitches), NOTES), np.uint8)
    for frame, some in zip(frames, pitches, strict=True):
        frame[np.array(some, np.intp) - LOWEST] = 1
    return frames
