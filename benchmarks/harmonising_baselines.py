"""What benchmarks/harmonising.py compares with: chords by frequency, and memory alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lstm_music.evaluation.music.voices import VOICES, chords_of
from lstm_music.midi.piece import Notes, Part, Piece, notes_of
from lstm_music.midi.repair import repair_track, sorted_messages
from lstm_music.midi.roll import key_of
from lstm_music.tokenizers.events import sounding_above

CHOIR = tuple(Part(name.capitalize(), 52) for name in VOICES)
LOWER = VOICES[1:]

Voicing: TypeAlias = tuple[int, ...]  # pitches of the lower voices
Span: TypeAlias = tuple[int, int, int]  # a note's start, end and pitch


class Frequencies:
    """Draws what stands below each note of a tune as often as it does in training, in its key.

    A pitch that no training tune has in this key is taken as the nearest that one has.
    """

    def __init__(self, training: Sequence[Piece], seed: int) -> None:
        self.seed = seed
        counts: defaultdict[int, Counter[Voicing]] = defaultdict(Counter)
        for piece in training:
            chords, above = chords_of(piece), above_common(piece)
            told = chords.full & chords.begins[:, 0]
            for soprano, *others in (chords.pitches[told] - above).tolist():
                counts[soprano][tuple(others)] += 1
        self.known = {pitch: ([*found], [*found.values()]) for pitch, found in counts.items()}

    def __call__(self, tune: Piece, n: int) -> Piece:
        """Set a tune, each chord as long as its note; see Setter."""
        rng = np.random.default_rng((self.seed, n))
        voices: list[list[Span]] = [[] for _ in LOWER]
        above = above_common(tune)
        for start, end, pitch in notes_of(tune.tracks[0]).tolist():
            nearest = min(self.known, key=lambda known: (abs(known - pitch + above), known))
            chords, counts = self.known[nearest]
            drawn = chords[rng.choice(len(chords), p=np.array(counts) / sum(counts))]
            for voice, below in zip(voices, drawn, strict=True):
                voice.append((start, end, below + above))
        return set_below(tune, voices)


class NearestNeighbour:
    """Takes what stands below the longest passage of a training tune that a tune goes on with.

    Passages match in intervals and rhythm; of several as long, the least transposed one counts, and
    of those the first. Where no training note is as long, the last note of all is cut or held.
    """

    def __init__(self, training: Sequence[Piece]) -> None:
        self.voices = [[notes_of(track) for track in piece.tracks] for piece in training]
        melodies = [melody(voices[0]) for voices in self.voices]
        self.notes = np.concatenate(melodies)
        self.piece = np.repeat(np.arange(len(melodies)), [len(some) for some in melodies])

    def longest(self, tune: npt.NDArray[np.int64]) -> tuple[int, int]:
        """Return where the passage begins, and how many of the tune's first notes (n, 3) it has."""
        found = np.flatnonzero(self.notes[:, 1] == tune[0, 1])
        size = min(len(found), 1)
        found = found if size else np.arange(len(self.notes))
        while 0 < size < len(tune):
            on = found[found + size < len(self.notes)]
            same = self.piece[on + size] == self.piece[on]
            same &= self.notes[on + size, 1] == tune[size, 1]
            same &= self.notes[on + size, 2] - self.notes[on, 2] == tune[size, 2] - tune[0, 2]
            if not same.any():
                break
            found, size = on[same], size + 1
        shifts = np.abs(tune[0, 2] - self.notes[found, 2])
        return int(found[np.argmin(shifts)]), max(size, 1)

    def __call__(self, tune: Piece, n: int = 0) -> Piece:
        """Set a tune; see Setter."""
        own = melody(notes_of(tune.tracks[0]))
        voices: list[list[Span]] = [[] for _ in LOWER]
        at = 0
        while at < len(own):
            there, size = self.longest(own[at:])
            begin, shift = self.notes[there, 0], own[at, 2] - self.notes[there, 2]
            length = own[at : at + size, 1].sum()
            for voice, notes in zip(voices, self.voices[self.piece[there]][1:], strict=True):
                inside = notes[(notes[:, 1] > begin) & (notes[:, 0] < begin + length)]
                spans = np.clip(inside[:, :2] - begin, 0, length) + own[at, 0]
                voice += [(*span, p) for span, p in zip(spans, inside[:, 2] + shift, strict=True)]
            at += size
        return set_below(tune, voices)


def melody(notes: Notes) -> npt.NDArray[np.int64]:
    """Return where a voice's notes begin, the ticks to the next, and their pitches, (n, 3)."""
    ends = np.append(notes[1:, 0], notes[-1:, 1])
    return np.stack([notes[:, 0], ends - notes[:, 0], notes[:, 2]], axis=1).astype(np.int64)


def above_common(piece: Piece) -> int:
    """Return by how many semitones a piece sounds above C major or A minor, -6 to 5."""
    return sounding_above(key_of(piece).major)


def set_below(tune: Piece, voices: Sequence[Sequence[Span]]) -> Piece:
    """Return a tune with lower voices of notes: start, end and pitch."""
    rows = [np.array(notes, np.int64).reshape(-1, 3).T for notes in voices]
    tracks = [repair_track(sorted_messages(*row), int(row[1].max(initial=0))) for row in rows]
    return replace(tune, tracks=[*tune.tracks, *tracks], parts=CHOIR)
