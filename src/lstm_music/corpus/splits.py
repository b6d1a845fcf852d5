"""Pieces gathered and split: by the hash of their names, without copies across splits."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lstm_music.arrays import Array
from lstm_music.corpus.sources import Mended, Skipped, is_leftover
from lstm_music.errors import UserError
from lstm_music.midi.piece import KIND, NOTE_ON, PITCH, Piece
from lstm_music.midi.timing import mean_tempo
from lstm_music.tokenizers.vocabulary import Vocabulary

SPLITS = ("train", "valid", "test")
HELD_OUT = 0.1  # share of pieces in each of valid and test


def split_pieces(names: Sequence[str]) -> dict[str, list[int]]:
    """Split pieces into train, valid and test by the rank of a hash of their names.

    The split depends on no run's seed, so that all runs on a corpus compare. With fewer than
    three pieces there is nothing to hold out, and each split is the whole.
    """
    n = len(names)
    if n < len(SPLITS):
        return {split: list(range(n)) for split in SPLITS}
    ranked = sorted(range(n), key=lambda p: hashlib.sha256(names[p].encode()).digest())
    size = max(1, round(HELD_OUT * n))
    valid, test = ranked[:size], ranked[size : 2 * size]
    return {"train": sorted(ranked[2 * size :]), "valid": sorted(valid), "test": sorted(test)}


@dataclass
class Gathered:
    """What every representation keeps of the files that it reads, as it reads them.

    corpus: its name; names, lengths, shifts, contents, notes: by piece, the lengths in whatever a
    piece is kept as, the contents a hash of the music, the notes how many there are; tempos: in
    quarter notes a minute, of the pieces that say one.
    """

    corpus: str
    names: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    shifts: list[tuple[int, int]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    notes: list[int] = field(default_factory=list)
    tempos: dict[int, float] = field(default_factory=dict)
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
            if len(piece.tempo):
                self.tempos[len(self.names) - 1] = mean_tempo(piece)

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

    def tempo(self, pieces: Sequence[int]) -> float | None:
        """As Corpus.tempo, of some pieces."""
        found = [self.tempos[piece] for piece in pieces if piece in self.tempos]
        return round(float(np.median(found)), 2) if found else None  # files count microseconds

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
            "tempo": self.tempo(splits["train"]),
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
    held_out: set[bytes] = set()
    kept: dict[str, list[int]] = {}
    for split in reversed(SPLITS):
        own = [p for p in splits[split] if contents[p] not in held_out]
        kept[split] = own or list(splits[split])
        held_out.update(contents[p] for p in splits[split])
    left = {p for split in SPLITS for p in splits[split]} - {p for s in kept.values() for p in s}
    return {split: kept[split] for split in SPLITS}, sorted(left)


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
        "tempo": meta["tempo"],
        "ignored": meta["ignored"],
        "shifts": arrays["shifts"],
        "augment": augment,
    }
