"""Corpora: named ones and files of the user's -> pieces -> ids, split by piece, cached.

A corpus is prepared once for its content and settings and then memory-mapped. Nothing is
dropped silently: each file that can't be used is named with its reason in `skipped`.
"""

import hashlib
import io
import json
import os
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from lstm_music.batches import Batches, cut_streams, whole_streams
from lstm_music.errors import UserError
from lstm_music.midi import KIND, NOTE_ON, MidiError, Piece, notes_of, read_midi
from lstm_music.ops.numpy_ops import Array
from lstm_music.tokenizers.messages import PIECE_END, SPECIALS, Layout, MessageTokenizer
from lstm_music.tokenizers.vocabulary import Vocabulary

FORMAT = 2  # of prepared corpora; a new number makes old caches unused
SPLITS = ("train", "valid", "test")
NOTE_LENGTHS_KEPT, VOICES_KEPT = 0.999, 0.99  # of notes: the rest are slips or rare effects
HELD_OUT = 0.1  # share of pieces in each of valid and test
MIDI_SUFFIXES = (".mid", ".midi", ".kar")
NAMED = ("bach",)
CACHE_FILES = ("ids.npy", "offsets.npy", "corpus.json")
CACHE_HASH = "sha256"  # the file with the hash of these


class Source(NamedTuple):
    """A MIDI file not yet read: its name, and how to get its bytes."""

    name: str
    read: Callable[[], bytes]


class Skipped(NamedTuple):
    """A file that can't be used, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Prepared pieces.

    ids (tokens,) int32, all pieces end to end; offsets (pieces + 1,) int64; pieces: names;
    splits: train, valid, test -> piece numbers; longest_note in ticks, most_notes at
    once in a track, max_tracks of a piece: the habits that --strict sampling keeps;
    key: a hash of content and settings.
    """

    name: str
    key: str
    tokenizer: MessageTokenizer
    vocabulary: Vocabulary
    ids: Array
    offsets: Array
    pieces: Sequence[str]
    splits: dict[str, list[int]]
    skipped: list[Skipped]
    longest_note: int
    most_notes: int
    max_tracks: int

    @property
    def lengths(self) -> list[int]:
        """Ids of each piece, its end symbol included."""
        return [int(n) for n in np.diff(self.offsets)]

    def piece_ids(self, piece: int) -> Array:
        """Return the ids of one piece (n,) int32."""
        return self.ids[int(self.offsets[piece]) : int(self.offsets[piece + 1])]

    def training_batches(self, B: int, T: int, seed: int, epoch: int) -> Batches:
        """Return an epoch's windows: the training pieces in an order drawn from (seed, epoch).

        B falls where the corpus is too short to fill that many streams with a window each.
        """
        train = self.splits["train"]
        order = np.random.default_rng([seed, epoch]).permutation(train)
        lengths = self.lengths
        streams = max(1, min(B, sum(lengths[p] for p in train) // T))
        cut = cut_streams(lengths, [int(p) for p in order], streams)
        return Batches(self.ids, self.offsets, cut, T, self.vocabulary.id(PIECE_END))

    def evaluation_batches(self, split: str, B: int, T: int) -> Batches:
        """Return the windows of a split, each piece whole."""
        pieces = self.splits[split]
        whole = whole_streams(self.lengths, pieces, max(1, min(B, len(pieces))))
        return Batches(self.ids, self.offsets, whole, T, self.vocabulary.id(PIECE_END))

    def summary(self) -> dict[str, Any]:
        """Return the counts that `bin/corpus --json` prints; special tokens are not counted."""
        special = [self.vocabulary.id(word) for word in SPECIALS]
        parts = {split: self._count(self.splits[split], special) for split in SPLITS}
        everything = self._count(range(len(self.pieces)), special)
        return {
            **everything,
            "skipped": [s._asdict() for s in self.skipped],
            "splits": parts,
        }

    def _count(self, pieces: Iterable[int], special: list[int]) -> dict[str, int]:
        parts = [self.piece_ids(p) for p in pieces]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        ids = ids[~np.isin(ids, special)]
        return {"pieces": len(parts), "tokens": len(ids), "unique_tokens": len(np.unique(ids))}


def load_corpus(
    name: str,
    data: Path | None = None,
    layout: Layout = "flatten",
    progress: bool = False,
) -> Corpus:
    """Return a corpus, from the cache where it was prepared before.

    name: "bach", or the path of a MIDI file, a folder or a zip; data: a file or folder to read
    a named corpus from instead. Raises UserError where there is nothing to read.
    """
    sources = find_sources(name, data)
    tokenizer = MessageTokenizer(layout)
    key = content_key(sources, layout, progress)
    folder = cache_folder() / key
    cached = read_cache(folder, name, key, tokenizer)
    if cached is not None:
        return cached
    corpus = prepare(name, key, sources, tokenizer, progress)
    write_cache(folder, corpus)
    return corpus


# Files ------------------------------------------------------------------------------------------


def find_sources(name: str, data: Path | None = None) -> list[Source]:
    """List the MIDI files of a corpus in a fixed order."""
    if data is not None:
        return files_at(data)
    if name == "bach":
        return zipped(resources.files("lstm_music").joinpath("data/bach.zip"))
    if name and Path(name).exists():
        return files_at(Path(name))
    if os.sep in name or Path(name).suffix:
        raise UserError(f"no file or folder '{name}': check the path")
    raise UserError(
        f"unknown corpus '{name}': use {', '.join(NAMED)}, "
        "or the path of a MIDI file, a folder of them, or a zip"
    )


def files_at(path: Path) -> list[Source]:
    """List the MIDI files at a path: one file, a folder (recursively) or a zip."""
    if not path.exists():
        raise UserError(f"no file or folder '{path}': check the path")
    if path.is_dir():
        sources = [
            Source(printable(file.relative_to(path).as_posix()), file.read_bytes)
            for file in sorted(path.rglob("*"))
            if is_midi(file.name) and not file.is_dir()
        ]
    elif path.suffix.lower() == ".zip":
        sources = zipped(path)
    elif is_midi(path.name):
        sources = [Source(printable(path.name), path.read_bytes)]
    else:
        raise UserError(f"'{path}' is not a MIDI file, a folder or a zip: choose another")
    if not sources:
        raise UserError(f"no MIDI files (.mid, .midi, .kar) in '{path}': choose another")
    return sources


def is_midi(name: str) -> bool:
    """Return whether a file of this name should be a MIDI file."""
    return name.lower().endswith(MIDI_SUFFIXES)


def printable(name: str) -> str:
    """Return a file's name as UTF-8 can hold it: not every name on a disk is text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def zipped(path: Any) -> list[Source]:
    """List the MIDI files of a zip archive, in order of name."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    except Exception as error:  # zipfile raises whatever the rubbish leads it to
        raise UserError(f"can't read the archive '{path}' ({error}): is it a whole zip?") from error

    def reader(member: str) -> Callable[[], bytes]:
        def read() -> bytes:
            try:
                return archive.read(member)
            except Exception as error:  # here too
                raise OSError(str(error) or type(error).__name__) from error

        return read

    return [Source(name, reader(name)) for name in sorted(filter(is_midi, archive.namelist()))]


def content_key(sources: list[Source], layout: str, progress: bool = False) -> str:
    """Return a hash of every file's name and bytes, the settings and the format."""
    digest = hashlib.sha256(f"{FORMAT} message {layout} {HELD_OUT}".encode())
    for source in watched(sources, "looking for changes", progress):
        digest.update(hashlib.sha256(source.name.encode()).digest())
        try:
            digest.update(hashlib.sha256(source.read()).digest())
        except OSError:
            digest.update(b"unreadable")
    return digest.hexdigest()[:32]


def watched(sources: list[Source], what: str, progress: bool) -> Iterable[Source]:
    """Return the sources, with a progress bar for those who wait longer than two seconds."""
    return tqdm(
        sources, what, unit="file", disable=not progress, leave=False, delay=2, file=sys.stderr
    )


# Preparing --------------------------------------------------------------------------------------


def prepare(
    name: str, key: str, sources: list[Source], tokenizer: MessageTokenizer, progress: bool
) -> Corpus:
    """Read, tokenize and split every file. Raises UserError where none can be used."""
    words: list[list[str]] = []
    names: list[str] = []
    skipped: list[Skipped] = []
    counts: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    voices: Counter[int] = Counter()
    max_tracks = 1
    for piece in read_pieces(watched(sources, f"reading {name}", progress), skipped):
        piece_words = tokenizer.words(piece)
        if all(word in SPECIALS for word in piece_words):
            skipped.append(Skipped(piece.name, "has only notes of length zero"))
            continue
        words.append(piece_words)
        names.append(piece.name)
        counts.update(piece_words)
        for track in tokenizer.tracks(piece):
            lengths.update(note_lengths(track))
            voices.update(voices_at_onsets(track))
        max_tracks = max(max_tracks, len(piece.tracks))
    if not words:
        example = f", for example {skipped[0].file}: {skipped[0].reason}" if skipped else ""
        raise UserError(
            f"no usable MIDI file among {len(sources)} in '{name}', choose another{example}"
        )
    vocabulary = Vocabulary.from_counts(counts, SPECIALS)
    index = {word: i for i, word in enumerate(vocabulary.words)}
    ids = np.fromiter((index[w] for piece_words in words for w in piece_words), np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(piece_words) for piece_words in words])])
    return Corpus(
        name,
        key,
        tokenizer,
        vocabulary,
        ids,
        offsets.astype(np.int64),
        names,
        split_pieces(names),
        skipped,
        share_below(lengths, NOTE_LENGTHS_KEPT),
        share_below(voices, VOICES_KEPT),
        max_tracks,
    )


def read_pieces(sources: Iterable[Source], skipped: list[Skipped]) -> Iterator[Piece]:
    """Yield every piece that can be read; append the others to skipped."""
    for source in sources:
        try:
            yield read_midi(source.read(), source.name)
        except MidiError as error:
            skipped.append(Skipped(source.name, str(error)))
        except OSError as error:
            skipped.append(Skipped(source.name, f"can't be read: {error.strerror or error}"))


def note_lengths(track: Array) -> list[int]:
    """Return the length of each note of a track, in ticks."""
    notes = notes_of(track)
    return [int(n) for n in notes[:, 1] - notes[:, 0]]


def voices_at_onsets(track: Array) -> list[int]:
    """Return how many notes sound after each note-on of a track."""
    on = track[:, KIND] == NOTE_ON
    return [int(n) for n in np.cumsum(np.where(on, 1, -1))[on]]


def share_below(counts: Counter[int], share: float) -> int:
    """Return the smallest value that at least a share of what was counted doesn't exceed."""
    values = np.sort(np.fromiter(counts.elements(), np.int64))
    return int(values[int(np.ceil(share * len(values))) - 1]) if len(values) else 1


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


# The cache --------------------------------------------------------------------------------------


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


def read_cache(folder: Path, name: str, key: str, tokenizer: MessageTokenizer) -> Corpus | None:
    """Return a prepared corpus, memory-mapped, or None where the cache has no whole one."""
    try:
        if (folder / CACHE_HASH).read_text("ascii") != cache_hash(folder):
            return None
        meta = json.loads((folder / "corpus.json").read_text("utf-8"))
        return Corpus(
            name,
            key,
            tokenizer,
            Vocabulary.from_json(meta["vocabulary"]),
            np.load(folder / "ids.npy", mmap_mode="r"),
            np.load(folder / "offsets.npy", mmap_mode="r"),
            meta["pieces"],
            meta["splits"],
            [Skipped(**s) for s in meta["skipped"]],
            meta["longest_note"],
            meta["most_notes"],
            meta["max_tracks"],
        )
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def write_cache(folder: Path, corpus: Corpus) -> None:
    """Keep a prepared corpus for the next run; where that fails, the next run prepares it again."""
    meta = {
        "vocabulary": corpus.vocabulary.to_json(),
        "pieces": list(corpus.pieces),
        "splits": corpus.splits,
        "skipped": [s._asdict() for s in corpus.skipped],
        "longest_note": corpus.longest_note,
        "most_notes": corpus.most_notes,
        "max_tracks": corpus.max_tracks,
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            new = Path(made) / "new"
            new.mkdir()
            np.save(new / "ids.npy", corpus.ids)
            np.save(new / "offsets.npy", corpus.offsets)
            (new / "corpus.json").write_text(json.dumps(meta), "utf-8")
            (new / CACHE_HASH).write_text(cache_hash(new), "ascii")
            if folder.exists():  # a damaged one, or another process was quicker
                folder.rename(Path(made) / "old")
            new.rename(folder)
    except OSError:
        return


def cache_hash(folder: Path) -> str:
    """Return a hash of what a prepared corpus consists of."""
    digest = hashlib.sha256()
    for name in CACHE_FILES:
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()
