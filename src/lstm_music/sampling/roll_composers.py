"""Composing piano rolls: chords, frames, notes, and frames drawn by frequency."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lstm_music.corpus.rolls import RollReading, chord_ids
from lstm_music.errors import UserError, Warn
from lstm_music.midi.piece import LAST_TICK, TEMPO, Piece
from lstm_music.midi.roll import LOWEST, NOTES, Frames, frames_of, piece_of_frames, ticks_per_step
from lstm_music.midi.timing import end_of
from lstm_music.network.baselines import Baseline
from lstm_music.network.model import Model
from lstm_music.network.notes import SigmoidHead
from lstm_music.network.recall_rules import recall_of
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.sampling.automaton import line_after
from lstm_music.sampling.composer import (
    Composer,
    Ids,
    Opening,
    Show,
    UnknownNotes,
    drums_of,
    sample_on_cpu,
    tempo_of,
)
from lstm_music.sampling.decoding import decode_chords, length_in_frames, rows_of, with_drums
from lstm_music.sampling.frames import BARS, check_options, fit_thresholds, sample_frames
from lstm_music.sampling.options import Options
from lstm_music.sampling.token_composers import TokenComposer
from lstm_music.tokenizers.chords import chord_words


class ChordComposer(TokenComposer):
    """Composes with a model of chords. restrike: held notes are struck anew with each chord."""

    unit = "frames"

    def __init__(self, checkpoint: Checkpoint, model: Model, restrike: bool = False) -> None:
        super().__init__(checkpoint, model)
        self.restrike, self.reading = restrike, reading_of(checkpoint)

    def fitted(self, options: Options) -> Options:
        """As Composer.fitted: a length is one in ticks, or after a primer in bars."""
        frames = frames_asked(options, self.reading.grid)
        if options.bars is not None and options.beyond:
            return options
        limit = None if frames is None else frames * self.rules.frame_ticks
        return replace(options, length=None, limit=limit, bars=None)

    def read(self, piece: Piece, whole: Piece, path: Path, warn: Warn) -> Ids:
        """As Composer.read, unseen chords replaced by the nearest seen."""
        frames = frames_of_primer(piece, path, self.reading, warn)
        ids, unseen = chord_ids([chord_words(frames)], self.vocabulary)
        if unseen.any():
            warn(
                f"{int(unseen.sum())} of {len(frames)} chords of {path} are new to the model: "
                "its nearest ones stand in"
            )
        return [int(id) for id in ids[:-1]]

    def size_of(self, piece: Piece) -> int:
        """As Composer.size_of."""
        return -(-end_of(piece) // self.rules.frame_ticks)

    def compose(self, primers: Sequence[Ids], options: Options, show: Show) -> list[Ids]:
        """As Composer.compose."""
        for n in {len(primer) for primer in primers}:
            frames_asked(options, self.reading.grid, n)
        return sample_on_cpu(self.model, primers, options, self.rules, show, self.recall)

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

    def cut(self, music: Frames, n: int | None, limit: int | None) -> Frames:
        """As Composer.cut: a length in ticks is one in frames already."""
        return music[:n]

    def size(self, music: Frames, options: Options) -> int:
        """As Composer.size."""
        return len(music)

    def size_of(self, piece: Piece) -> int:
        """As Composer.size_of."""
        return -(-end_of(piece) // ticks_per_step(self.grid))

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
        self.tempo = tempo_of(checkpoint)
        self.recall = recall_of(model, checkpoint.vocabulary, checkpoint.meta["tokenizer"])

    def fitted(self, options: Options) -> Options:
        """As FrameComposer.fitted. Raises UserError for what the model's head can't do."""
        check_options(self.model, options)
        return super().fitted(options)

    def openings(self) -> list[Opening]:
        """As Composer.openings."""
        primers = self.checkpoint.meta["primers"]
        return [Opening(primer["name"], frames_of_pitches(primer["frames"])) for primer in primers]

    def read(self, piece: Piece, whole: Piece, path: Path, warn: Warn) -> Frames:
        """As Composer.read."""
        return frames_of_primer(piece, path, self.reading, warn)

    def compose(self, primers: Sequence[Frames], options: Options, show: Show) -> list[Frames]:
        """As Composer.compose."""
        thresholds = None
        if options.greedy and isinstance(self.model.head, SigmoidHead):
            known = [opening.music for opening in self.openings()]
            thresholds = fit_thresholds(self.model, known)
        lengths = self.lengths(primers, options)
        return sample_frames(self.model, primers, options, thresholds, show, lengths, self.recall)


class FrequencyComposer(FrameComposer):
    """Draws each frame by itself from a baseline, as the paper's section 5.1 does with chords."""

    def __init__(
        self,
        baseline: Baseline,
        grid: int,
        restrike: bool = False,
        drums: list[int] | None = None,
        tempo: float | None = None,
    ) -> None:
        super().__init__(grid, restrike)
        self.baseline, self.drums, self.tempo = baseline, drums, tempo or TEMPO

    def openings(self) -> list[Opening]:
        """Return none: what was before makes no difference."""
        return []

    def read(self, piece: Piece, whole: Piece, path: Path, warn: Warn) -> Frames:
        """Raise UserError: what was before makes no difference."""
        raise UserError("a baseline continues nothing: leave --primer out")

    def compose(self, primers: Sequence[Frames], options: Options, show: Show) -> list[Frames]:
        """As Composer.compose; primers only say how many pieces to draw."""
        lengths = self.lengths(primers, options)
        rngs = (np.random.default_rng([options.seed, options.first + k]) for k in itertools.count())
        return [self.baseline.draw(n, rng) for n, rng in zip(lengths, rngs, strict=False)]


def reading_of(checkpoint: Checkpoint) -> RollReading:
    """Return how a checkpoint's piano rolls were made; nothing is transposed at random any more."""
    tokenizer = dict(checkpoint.meta["tokenizer"])
    return RollReading(tokenizer.pop("name"), **tokenizer)


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


def frames_of_primer(piece: Piece, path: Path, reading: RollReading, warn: Warn) -> Frames:
    """Return a MIDI file's frames as a model read its corpus. Raises UnknownNotes for silence."""
    frames, out_of_range = frames_of(piece, reading.grid)
    if not frames.any():
        raise UnknownNotes(
            f"no note in '{path}' sounds on the model's grid of {reading.grid} frames a whole "
            "note: choose another --primer"
        )
    if out_of_range:
        warn(f"notes of {path} that a piano lacks are left out ({out_of_range})")
    return reading.prepared(frames, 0)


def frames_of_pitches(pitches: Sequence[Sequence[int]]) -> Frames:
    """Return frames (n, 88) from the MIDI pitches of each."""
    frames = np.zeros((len(pitches), NOTES), np.uint8)
    for frame, some in zip(frames, pitches, strict=True):
        frame[np.array(some, np.intp) - LOWEST] = 1
    return frames
