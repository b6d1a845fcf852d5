"""A prepared corpus: what every representation has, and its batches."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lstm_music.arrays import Array
from lstm_music.corpus.batches import (
    Batches,
    Segment,
    Source,
    cut_streams,
)
from lstm_music.corpus.composer_names import composer_of
from lstm_music.corpus.sources import Mended, Skipped
from lstm_music.corpus.splits import SPLITS
from lstm_music.corpus.surroundings import Surroundings
from lstm_music.corpus.whole_pieces import openings, whole_streams
from lstm_music.network.recall import RecallRules
from lstm_music.network.recall_rules import recall_rules
from lstm_music.tokenizers.vocabulary import Vocabulary

OUTSIDE = "notes outside the piano"  # a kind of repair, which changes no corpus of an older version
RARE = 10  # occurrences: a token with fewer is rare
PRIMERS = 32  # openings of validation pieces that a checkpoint carries


@dataclass(frozen=True)
class Corpus(ABC):
    """Prepared pieces.

    key: a hash of content and settings; pieces: names; splits: train, valid, test -> piece
    numbers; skipped: files that can't be used; mended: files that were repaired; copies: pieces
    left out of a split because another holds the same music; ignored: how many files of a system's
    own are no music and no loss; shifts (pieces, 2): by how many
    semitones a piece may be transposed, at least and at most; augment: semitones by which training
    pieces are; notes: of each piece, all tracks merged, or of frames, the held ones joined; drums:
    pitches that are commoner in tracks of drums than in others, where drums are read; tempo: the
    median of the training pieces' quarter notes a minute, None where none says one.
    """

    name: str
    key: str
    vocabulary: Vocabulary
    pieces: Sequence[str]
    splits: dict[str, list[int]]
    skipped: list[Skipped]
    mended: list[Mended]
    copies: list[int]
    shifts: Array
    augment: int
    notes: Sequence[int]
    drums: list[int] | None
    ignored: int
    tempo: float | None

    @property
    @abstractmethod
    def lengths(self) -> list[int]:
        """What there is to predict in each piece: tokens with the end symbol, or frames."""

    @abstractmethod
    def source(self, shifts: Sequence[int]) -> Source:
        """Return what batches read, each piece transposed by so many semitones."""

    @abstractmethod
    def tokenizer_json(self) -> dict[str, Any]:
        """Return how pieces are read, as checkpoints keep it."""

    @abstractmethod
    def habits(self) -> dict[str, int]:
        """Return what strict sampling keeps to, as checkpoints keep it."""

    @abstractmethod
    def primer(self, piece: int) -> list[Any]:
        """Return the opening of a piece: ids, or a list of pitches for each frame."""

    @abstractmethod
    def occurrences(self, pieces: Sequence[int]) -> Array:
        """Return how often each token occurs in some pieces (n,), no special tokens among them.

        A token has the same place for any pieces.
        """

    def count(self, pieces: Sequence[int]) -> dict[str, float]:
        """Return the counts of some pieces, no special tokens among them.

        "pieces", "tokens", "unique_tokens"; "rare_share" of the unique ones, which occur fewer
        than RARE times; "unseen_share" of the tokens, which the training split doesn't hold.
        """
        found = self.occurrences(pieces)
        tokens, unique = int(found.sum()), int(np.count_nonzero(found))
        rare = np.count_nonzero(found[found > 0] < RARE)
        unseen = found[~self._trained].sum()
        return {
            "pieces": len(pieces),
            "tokens": tokens,
            "unique_tokens": unique,
            "rare_share": float(rare / max(unique, 1)),
            "unseen_share": float(unseen / max(tokens, 1)),
        }

    @cached_property
    def _trained(self) -> Array:
        """Which tokens the training split holds (n,), by their places in `occurrences`."""
        trained: Array = self.occurrences(self.splits["train"]) > 0
        return trained

    @cached_property
    def recall(self) -> RecallRules:
        """How a copy gate compares the words of pieces."""
        return recall_rules(self.vocabulary, self.tokenizer_json())

    def training_batches(
        self, B: int, T: int, seed: int, epoch: int, copy: bool = False, around: bool = False
    ) -> Batches:
        """Return an epoch's windows: the training pieces in an order drawn from (seed, epoch).

        B falls where the corpus is too short to fill that many streams with a window each. copy:
        for a network with a copy gate; around: for a biaxial one.
        """
        train = self.splits["train"]
        rng = np.random.default_rng([seed, epoch])
        order = [int(p) for p in rng.permutation(train)]
        low, high = np.clip(self.shifts, -self.augment, self.augment).T
        shifts = rng.integers(low, high + 1).tolist()
        lengths = self.lengths
        streams = max(1, min(B, sum(lengths[p] for p in train) // T))
        streams_of = cut_streams(lengths, order, streams)
        return self._batches(shifts, streams_of, T, copy, around)

    def evaluation_batches(
        self,
        split: str,
        B: int,
        T: int,
        most: int | None = None,
        copy: bool = False,
        around: bool = False,
    ) -> Batches:
        """Return the windows of a split, each piece whole, or `openings` of at most most ids."""
        pieces, lengths = self.splits[split], self.lengths
        streams = max(1, min(B, len(pieces)))
        read: Mapping[int, int] = {piece: lengths[piece] for piece in pieces}
        if most is not None and sum(read.values()) > most:
            read = openings(lengths, pieces, most, streams)
        shifts = [0] * len(self.pieces)
        return self._batches(shifts, whole_streams(read, list(read), streams), T, copy, around)

    def _batches(
        self, shifts: Sequence[int], streams: list[list[Segment]], T: int, copy: bool, around: bool
    ) -> Batches:
        source, recall = self.source(shifts), self.recall if copy else None
        return Batches(Surroundings(source, recall) if around else source, streams, T, recall)

    def primers(self) -> list[dict[str, Any]]:
        """Return the openings of some validation pieces, for samplers that want a seed sequence."""
        chosen = self.splits["valid"][:PRIMERS]
        return [{"name": self.pieces[p], self.primer_kind: self.primer(p)} for p in chosen]

    @property
    def primer_kind(self) -> str:
        """What a primer is a list of: "ids" or "frames"."""
        return "ids"

    def summary(self) -> dict[str, Any]:
        """Return the counts that `bin/corpus --json` prints."""
        return {
            **self.count(range(len(self.pieces))),
            "skipped": [s._asdict() for s in self.skipped],
            "mended": [m._asdict() for m in self.mended],
            "copies": [self.pieces[p] for p in self.copies],
            "ignored": self.ignored,
            "splits": {split: self.count(self.splits[split]) for split in SPLITS},
            "composers": {name: self.count(own) for name, own in self.composers().items()},
        }

    def composers(self) -> dict[str, list[int]]:
        """Return the pieces of each composer that names tell, by falling number of pieces."""
        found: dict[str, list[int]] = {}
        for piece, name in enumerate(self.pieces):
            composer = composer_of(name)
            if composer is not None:
                found.setdefault(composer, []).append(piece)
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))
