"""A prepared corpus: what every representation has, its batches, and how it is kept on disk."""

import atexit
import hashlib
import json
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_music.batches import Batches, Source, cut_streams, openings, whole_streams
from lstm_music.cache import cache_folder
from lstm_music.composers import composer_of
from lstm_music.errors import UserError
from lstm_music.midi import KIND, NOTE_ON, PITCH, Piece
from lstm_music.ops.numpy_ops import Array
from lstm_music.sources import Mended, Skipped, is_leftover
from lstm_music.tokenizers.vocabulary import Vocabulary

SPLITS = ("train", "valid", "test")
HELD_OUT = 0.1  # share of pieces in each of valid and test
OUTSIDE = "notes outside the piano"  # a kind of repair, which changes no corpus of an older version
RARE = 10  # occurrences: a token with fewer is rare
PRIMERS = 32  # openings of validation pieces that a checkpoint carries
MAKING, LEFT_SECONDS = ".making-", 86_400.0  # folders of unfinished corpora, and their age at most
META, HASH = "corpus.json", "sha256"  # files of a prepared corpus, beside its arrays


@dataclass(frozen=True)
class Corpus(ABC):
    """Prepared pieces.

    key: a hash of content and settings; pieces: names; splits: train, valid, test -> piece
    numbers; skipped: files that can't be used; mended: files that were repaired; copies: pieces
    left out of a split because another holds the same music; ignored: how many files of a system's
    own are no music and no loss; shifts (pieces, 2): by how many
    semitones a piece may be transposed, at least and at most; augment: semitones by which training
    pieces are; notes: of each piece, all tracks merged, or of frames, the held ones joined; drums:
    pitches that are commoner in tracks of drums than in others, where drums are read.
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

    def evaluation_batches(self, split: str, B: int, T: int, most: int | None = None) -> Batches:
        """Return the windows of a split, each piece whole, or `openings` of at most most ids."""
        pieces, lengths = self.splits[split], self.lengths
        streams = max(1, min(B, len(pieces)))
        read: Mapping[int, int] = {piece: lengths[piece] for piece in pieces}
        if most is not None and sum(read.values()) > most:
            read = openings(lengths, pieces, most, streams)
        return Batches(
            self.source([0] * len(self.pieces)), whole_streams(read, list(read), streams), T
        )

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


@dataclass
class Gathered:
    """What every representation keeps of the files that it reads, as it reads them.

    corpus: its name; names, lengths, shifts, contents, notes: by piece, the lengths in whatever a
    piece is kept as, the contents a hash of the music, the notes how many there are.
    """

    corpus: str
    names: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    shifts: list[tuple[int, int]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    notes: list[int] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    ignored: list[Skipped] = field(default_factory=list)
    mended: list[Mended] = field(default_factory=list)
    _struck: Array | None = None

    def usable(self, found: Iterable[Piece | Skipped]) -> Iterator[Piece]:
        """Yield the pieces among what was found, and note what was skipped or mended."""
        for piece in found:
            if isinstance(piece, Skipped):
                (self.ignored if is_leftover(piece.file) else self.skipped).append(piece)
                continue
            yield piece
            if not self.names or self.names[-1] != piece.name:
                continue
            if piece.repairs:
                self.mended.append(Mended(piece.name, dict(piece.repairs)))
            if piece.drums:
                self._count(piece)

    def _count(self, piece: Piece) -> None:
        """Count how often each pitch is struck in tracks of drums, and in others."""
        if self._struck is None:
            self._struck = np.zeros((2, 128), np.int64)
        for track, drums in zip(piece.tracks, piece.drums, strict=True):
            pitches = track[track[:, KIND] == NOTE_ON, PITCH]
            self._struck[int(drums)] += np.bincount(pitches, minlength=128)

    def drums(self) -> list[int] | None:
        """As Corpus.drums: all pitches, where there is nothing but drums."""
        if self._struck is None:
            return None
        others, drums = self._struck / np.maximum(self._struck.sum(axis=1, keepdims=True), 1)
        return [int(pitch) for pitch in np.flatnonzero((drums > others) | (others.sum() == 0))]

    def add(
        self, name: str, length: int, shifts: tuple[int, int], content: bytes, notes: int
    ) -> None:
        """Note a piece that is used."""
        self.names.append(name)
        self.lengths.append(length)
        self.shifts.append(shifts)
        self.contents.append(hashlib.sha256(content).digest())
        self.notes.append(notes)

    def splits(self) -> tuple[dict[str, list[int]], list[int]]:
        """Return the splits, and the pieces left out of them as copies.

        Raises UserError where no file can be used.
        """
        if not self.names:
            unusable = self.skipped + self.ignored
            raise UserError(
                f"no usable MIDI file among {len(unusable)} in '{self.corpus}', choose "
                f"another, for example {unusable[0].file}: {unusable[0].reason}"
            )
        return without_copies(split_pieces(self.names), self.contents)

    def to_json(
        self, vocabulary: Vocabulary, splits: Mapping[str, list[int]], copies: list[int]
    ) -> dict[str, Any]:
        """Return what `common_fields` reads, in JSON."""
        return {
            "vocabulary": vocabulary.to_json(),
            "pieces": self.names,
            "notes": self.notes,
            "splits": dict(splits),
            "copies": copies,
            "skipped": [s._asdict() for s in self.skipped],
            "mended": [m._asdict() for m in self.mended],
            "drums": self.drums(),
            "ignored": len(self.ignored),
        }

    def save(self, folder: Path) -> None:
        """Write offsets.npy (pieces + 1,) int64, where each piece begins, and shifts.npy."""
        np.save(folder / "offsets.npy", np.cumsum([0, *self.lengths], dtype=np.int64))
        np.save(folder / "shifts.npy", np.array(self.shifts, np.int64).reshape(-1, 2))


def without_copies(
    splits: Mapping[str, Sequence[int]], contents: Sequence[bytes]
) -> tuple[dict[str, list[int]], list[int]]:
    """Return splits that share no music, and the pieces left out for that, ascending.

    contents: what a piece's music is, by piece. What test holds is left out of valid and train,
    what valid holds out of train. Copies within a split stay. A split that would be empty stays
    as it is, and so do splits that share pieces, as those of a corpus of two pieces do.
    """
    if len({p for pieces in splits.values() for p in pieces}) < sum(map(len, splits.values())):
        return {split: list(pieces) for split, pieces in splits.items()}, []
    held: set[bytes] = set()
    kept: dict[str, list[int]] = {}
    for split in reversed(SPLITS):
        own = [p for p in splits[split] if contents[p] not in held]
        kept[split] = own or list(splits[split])
        held.update(contents[p] for p in splits[split])
    left = {p for split in SPLITS for p in splits[split]} - {p for s in kept.values() for p in s}
    return {split: kept[split] for split in SPLITS}, sorted(left)


# On disk ----------------------------------------------------------------------------------------


def places() -> Iterator[Path]:
    """Yield where prepared corpora may be kept: the cache, else a folder that goes at the end."""
    yield cache_folder()
    folder = Path(tempfile.mkdtemp(prefix="lstm-music-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    yield folder


def read_cache(folder: Path) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """Return a prepared corpus's JSON and memory-mapped arrays, None where none is whole."""
    try:
        if (folder / HASH).read_text("ascii") != cache_hash(folder):
            return None
        meta = dict(json.loads((folder / META).read_text("utf-8")))
        return meta, {p.stem: np.load(p, mmap_mode="r") for p in folder.glob("*.npy")}
    except Exception:  # NumPy raises whatever the rubbish leads it to
        return None


def write_cache(folder: Path, make: Callable[[Path], Mapping[str, Any]]) -> None:
    """Keep a prepared corpus for this run and the next.

    make: writes its arrays, as .npy, into a folder, and returns its JSON. The corpus appears under
    its name once it's whole. Raises OSError where the disk refuses.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=MAKING) as made:
        new = Path(made) / "new"
        new.mkdir()
        (new / META).write_text(json.dumps(make(new)), "utf-8")
        (new / HASH).write_text(cache_hash(new), "ascii")
        if folder.exists():  # a damaged one, or another process was quicker
            folder.rename(Path(made) / "old")
        new.rename(folder)


def sweep(folder: Path) -> None:
    """Remove what preparations left that were killed more than a day ago."""
    for path in folder.glob(f"{MAKING}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_SECONDS:
                shutil.rmtree(path)


def write_array(path: Path, blocks: Iterable[Array], length: int, dtype: npt.DTypeLike) -> None:
    """Write a (length,) .npy file block by block, so that it never lies in memory whole."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": (length,)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(block.astype(dtype).tobytes())


def cache_hash(folder: Path) -> str:
    """Return a hash of what a prepared corpus consists of."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.name != HASH:
            digest.update(path.name.encode())
            digest.update(file_hash(path))
    return digest.hexdigest()


def file_hash(path: Path) -> bytes:
    """Return the SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()


def common_fields(
    name: str, key: str, meta: Mapping[str, Any], arrays: Mapping[str, Array], augment: int
) -> dict[str, Any]:
    """Return the fields that every corpus has, from what was kept on disk."""
    return {
        "name": name,
        "key": key,
        "vocabulary": Vocabulary.from_json(meta["vocabulary"]),
        "pieces": meta["pieces"],
        "notes": meta["notes"],
        "splits": meta["splits"],
        "skipped": [Skipped(**s) for s in meta["skipped"]],
        "mended": [Mended(**m) for m in meta["mended"]],
        "copies": meta["copies"],
        "drums": meta["drums"],
        "ignored": meta["ignored"],
        "shifts": arrays["shifts"],
        "augment": augment,
    }
