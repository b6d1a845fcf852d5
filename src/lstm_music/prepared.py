"""A prepared corpus: what every representation has, its batches, and how it is kept on disk."""

import hashlib
import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lstm_music.batches import Batches, Source, cut_streams, whole_streams
from lstm_music.ops.numpy_ops import Array
from lstm_music.sources import Skipped
from lstm_music.tokenizers.vocabulary import Vocabulary

SPLITS = ("train", "valid", "test")
HELD_OUT = 0.1  # share of pieces in each of valid and test
PRIMERS = 32  # openings of validation pieces that a checkpoint carries
META, HASH = "corpus.json", "sha256"  # files of a prepared corpus, beside its arrays


@dataclass(frozen=True)
class Corpus(ABC):
    """Prepared pieces.

    key: a hash of content and settings; pieces: names; splits: train, valid, test -> piece
    numbers; shifts (pieces, 2): by how many semitones a piece may be transposed, at least and at
    most; augment: semitones by which training pieces are.
    """

    name: str
    key: str
    vocabulary: Vocabulary
    pieces: Sequence[str]
    splits: dict[str, list[int]]
    skipped: list[Skipped]
    shifts: Array
    augment: int

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
    def count(self, pieces: Iterable[int]) -> dict[str, int]:
        """Return "pieces", "tokens", "unique_tokens" of some pieces, no special tokens counted."""

    def training_batches(self, B: int, T: int, seed: int, epoch: int) -> Batches:
        """Return an epoch's windows: the training pieces in an order drawn from (seed, epoch).

        B falls where the corpus is too short to fill that many streams with a window each.
        """
        train = self.splits["train"]
        rng = np.random.default_rng([seed, epoch])
        order = [int(p) for p in rng.permutation(train)]
        low, high = np.clip(self.shifts, -self.augment, self.augment).T
        shifts = rng.integers(low, high + 1).tolist()
        lengths = self.lengths
        streams = max(1, min(B, sum(lengths[p] for p in train) // T))
        return Batches(self.source(shifts), cut_streams(lengths, order, streams), T)

    def evaluation_batches(self, split: str, B: int, T: int) -> Batches:
        """Return the windows of a split, each piece whole."""
        pieces = self.splits[split]
        whole = whole_streams(self.lengths, pieces, max(1, min(B, len(pieces))))
        return Batches(self.source([0] * len(self.pieces)), whole, T)

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
            "splits": {split: self.count(self.splits[split]) for split in SPLITS},
        }


def split_pieces(names: Sequence[str]) -> dict[str, list[int]]:
    """Split pieces into train, valid and test by the rank of a hash of their names.

    The split depends on no run's seed, so that all runs on a corpus compare. With fewer than
    three pieces there is nothing to hold out, and each split is the whole.
    """
    n = len(names)
    if n < len(SPLITS):
        return {split: list(range(n)) for split in SPLITS}
    ranked = sorted(range(n), key=lambda p: hashlib.sha256(names[p].encode()).digest())
    held = max(1, round(HELD_OUT * n))
    valid, test = ranked[:held], ranked[held : 2 * held]
    return {"train": sorted(ranked[2 * held :]), "valid": sorted(valid), "test": sorted(test)}


# On disk ----------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Return the folder of prepared corpora: $LSTM_MUSIC_CACHE, else the user's cache folder."""
    own = os.environ.get("LSTM_MUSIC_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "lstm-music"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / "lstm-music"


def read_cache(folder: Path) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """Return a prepared corpus's JSON and memory-mapped arrays, None where none is whole."""
    try:
        if (folder / HASH).read_text("ascii") != cache_hash(folder):
            return None
        meta = dict(json.loads((folder / META).read_text("utf-8")))
        return meta, {p.stem: np.load(p, mmap_mode="r") for p in folder.glob("*.npy")}
    except (OSError, ValueError, TypeError):
        return None


def write_cache(folder: Path, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Keep a prepared corpus for the next run; where that fails, the next run prepares it again."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            new = Path(made) / "new"
            new.mkdir()
            for name, array in arrays.items():
                np.save(new / f"{name}.npy", array)
            (new / META).write_text(json.dumps(meta), "utf-8")
            (new / HASH).write_text(cache_hash(new), "ascii")
            if folder.exists():  # a damaged one, or another process was quicker
                folder.rename(Path(made) / "old")
            new.rename(folder)
    except OSError:
        return


def cache_hash(folder: Path) -> str:
    """Return a hash of what a prepared corpus consists of."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.name != HASH:
            digest.update(path.name.encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def common_json(corpus: Corpus) -> dict[str, Any]:
    """Return what `common_fields` reads, in JSON."""
    return {
        "vocabulary": corpus.vocabulary.to_json(),
        "pieces": list(corpus.pieces),
        "splits": corpus.splits,
        "skipped": [s._asdict() for s in corpus.skipped],
    }


def common_fields(
    name: str, key: str, meta: Mapping[str, Any], arrays: Mapping[str, Array], augment: int
) -> dict[str, Any]:
    """Return the fields that every corpus has, from what was kept on disk."""
    return {
        "name": name,
        "key": key,
        "vocabulary": Vocabulary.from_json(meta["vocabulary"]),
        "pieces": meta["pieces"],
        "splits": meta["splits"],
        "skipped": [Skipped(**s) for s in meta["skipped"]],
        "shifts": arrays["shifts"],
        "augment": augment,
    }
