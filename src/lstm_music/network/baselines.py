"""Baselines that have no network: random notes, and notes or chords by their frequency.

The paper's section 5.1 draws chords by frequency; the other two pin our likelihood to the
literature (Boulanger-Lewandowski et al. 2012, table 1).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.roll import NOTES, Frames, pack, unpack

LEAST = 1e-250  # of a probability: a frame of 88 notes, each of them unlikely, is below any float
BASELINES = ("random", "note-unigram", "chord-frequency")


class Baseline(ABC):
    """A distribution of frames that looks at nothing before them."""

    @abstractmethod
    def nats(self, frames: Frames) -> Array:
        """Return the negative log-likelihood of each frame (n, 88) in nats, (n,)."""

    @abstractmethod
    def likeliest(self) -> Array:
        """Return the notes (88,) uint8 to predict."""

    @abstractmethod
    def draw(self, n: int, rng: np.random.Generator) -> Frames:
        """Return n frames (n, 88) uint8."""


@dataclass(frozen=True)
class IndependentNotes(Baseline):
    """Each note on with a probability of its own: p (88,)."""

    p: Array

    def nats(self, frames: Frames) -> Array:
        """As Baseline.nats."""
        on, off = np.log(self.p), np.log1p(-self.p)
        nats: Array = -(frames @ (on - off) + off.sum())
        return nats

    def likeliest(self) -> Array:
        """As Baseline.likeliest."""
        return (self.p >= 0.5).astype(np.uint8)

    def draw(self, n: int, rng: np.random.Generator) -> Frames:
        """As Baseline.draw."""
        return (rng.random((n, NOTES)) < self.p).astype(np.uint8)


@dataclass(frozen=True)
class ChordFrequency(Baseline):
    """Chords by frequency, and with a share λ any set of notes, by independent notes.

    chords (c, 88) uint8, sorted as packed bytes; p (c,) their shares; unseen: the notes'.
    """

    chords: Frames
    p: Array
    share: float
    unseen: IndependentNotes

    def nats(self, frames: Frames) -> Array:
        """As Baseline.nats."""
        return mixed_nats(self.share, self.known(frames), np.exp(-self.unseen.nats(frames)))

    def known(self, frames: Frames) -> Array:
        """Return the shares (n,) of the frames' chords, 0 for chords not among them."""
        table = {chord.tobytes(): p for chord, p in zip(pack(self.chords), self.p, strict=True)}
        return np.array([table.get(frame.tobytes(), 0.0) for frame in pack(frames)])

    def likeliest(self) -> Array:
        """As Baseline.likeliest."""
        chord: Array = self.chords[int(np.argmax(self.p))]
        return chord

    def draw(self, n: int, rng: np.random.Generator) -> Frames:
        """Return n chords by frequency, as in the paper: none that wasn't seen."""
        frames: Frames = self.chords[rng.choice(len(self.chords), n, p=self.p)]
        return frames


def note_unigram(train: Sequence[Frames]) -> IndependentNotes:
    """Return the notes' shares of some pieces' frames, one added to each count (Laplace)."""
    frames = np.concatenate(train)
    return IndependentNotes((frames.sum(axis=0) + 1) / (len(frames) + 2))


def chord_frequency(train: Sequence[Frames], valid: Sequence[Frames]) -> ChordFrequency:
    """Return the chords of the training pieces, λ fitted on the validation pieces."""
    packed, counts = np.unique(pack(np.concatenate(train)), axis=0, return_counts=True)
    unseen = note_unigram(train)
    plain = ChordFrequency(unpack(packed), counts / counts.sum(), 0.0, unseen)
    frames = np.concatenate(valid)
    share = fit_share(plain.known(frames), np.exp(-unseen.nats(frames)))
    return ChordFrequency(plain.chords, plain.p, share, unseen)


def fit_baseline(kind: str, train: Sequence[Frames], valid: Sequence[Frames]) -> Baseline:
    """Return a baseline of BASELINES, by its name."""
    if kind == "random":
        return IndependentNotes(np.full(NOTES, 0.5))
    return note_unigram(train) if kind == "note-unigram" else chord_frequency(train, valid)


def mixed_nats(share: float, known: Array, back_off: Array) -> Array:
    """Return the nats (n,) of (1-share)·known + share·back_off (n,), at most those of LEAST."""
    nats: Array = -np.log((1 - share) * known + share * np.maximum(back_off, LEAST))
    return nats


def fit_share(known: Array, back_off: Array) -> float:
    """Return the λ for which (1-λ)·known + λ·back_off (n,) makes the data likeliest.

    Their log-likelihood is concave in λ, so that a search in one dimension finds it.
    """
    from scipy.optimize import minimize_scalar  # takes longer to load than bin/sample to begin

    def nats(share: float) -> float:
        return float(mixed_nats(share, known, back_off).sum())

    found = minimize_scalar(nats, bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
    return float(found.x)
