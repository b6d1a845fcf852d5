"""MIDI files as message tokens: files -> pieces -> words -> ids."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_music.batches import TokenSource, transposed_ids
from lstm_music.errors import UserError
from lstm_music.midi import KIND, NOTE_ON, PITCH, notes_of
from lstm_music.ops.numpy_ops import Array
from lstm_music.prepared import Corpus, common_fields, common_json, split_pieces
from lstm_music.sources import Skipped, Source, read_pieces
from lstm_music.tokenizers.messages import (
    PIECE_END,
    SPECIALS,
    Layout,
    MessageTokenizer,
    transpose_word,
)
from lstm_music.tokenizers.vocabulary import Vocabulary

NOTE_LENGTHS_KEPT, VOICES_KEPT = 0.999, 0.99  # of notes: the rest are slips or rare effects
PRIMER_IDS = 64
HIGHEST = 127  # MIDI pitch


@dataclass(frozen=True)
class MessageCorpus(Corpus):
    """Pieces as ids.

    ids (tokens,) int32, all pieces end to end; offsets (pieces + 1,) int64; longest_note in
    ticks, most_notes at once in a track, max_tracks of a piece: the habits that --strict
    sampling keeps.
    """

    tokenizer: MessageTokenizer
    ids: Array
    offsets: Array
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

    def source(self, shifts: Sequence[int]) -> TokenSource:
        """As Corpus.source."""
        tables = transposed_ids(self.vocabulary.words, shifts, transpose_word)
        start = self.vocabulary.id(PIECE_END)
        return TokenSource(self.ids, self.offsets, start, shifts=shifts, tables=tables)

    def tokenizer_json(self) -> dict[str, Any]:
        """As Corpus.tokenizer_json."""
        return {"name": self.tokenizer.name, "layout": self.tokenizer.layout}

    def habits(self) -> dict[str, int]:
        """As Corpus.habits."""
        return {
            "longest_note": self.longest_note,
            "most_notes": self.most_notes,
            "max_tracks": self.max_tracks,
        }

    def primer(self, piece: int) -> list[Any]:
        """Return the first ids of a piece; a primer doesn't end it."""
        return [int(id) for id in self.piece_ids(piece)[:-1][:PRIMER_IDS]]

    def count(self, pieces: Iterable[int]) -> dict[str, int]:
        """As Corpus.count."""
        parts = [self.piece_ids(p) for p in pieces]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        ids = ids[~np.isin(ids, [self.vocabulary.id(word) for word in SPECIALS])]
        return {"pieces": len(parts), "tokens": len(ids), "unique_tokens": len(np.unique(ids))}


def prepare_messages(
    name: str, key: str, sources: Iterable[Source], files: int, layout: Layout, augment: int
) -> MessageCorpus:
    """Read, tokenize and split every file. Raises UserError where none of so many can be used."""
    tokenizer = MessageTokenizer(layout)
    words: list[list[str]] = []
    names: list[str] = []
    skipped: list[Skipped] = []
    shifts: list[tuple[int, int]] = []
    counts: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    voices: Counter[int] = Counter()
    max_tracks = 1
    for piece in read_pieces(sources, skipped):
        piece_words = tokenizer.words(piece)
        if all(word in SPECIALS for word in piece_words):
            skipped.append(Skipped(piece.name, "has only notes of length zero"))
            continue
        words.append(piece_words)
        names.append(piece.name)
        counts.update(piece_words)
        pitches = np.concatenate([track[:, PITCH] for track in piece.tracks])
        shifts.append((-int(pitches.min()), HIGHEST - int(pitches.max())))
        for track in tokenizer.tracks(piece):
            lengths.update(note_lengths(track))
            voices.update(voices_at_onsets(track))
        max_tracks = max(max_tracks, len(piece.tracks))
    if not words:
        raise no_usable(files, name, skipped)
    splits = split_pieces(names)
    for word in {word for p in splits["train"] for word in words[p]} if augment else ():
        for shift in range(-augment, augment + 1):
            counts[transpose_word(word, shift) or word] += 0
    vocabulary = Vocabulary.from_counts(counts, SPECIALS)
    index = {word: i for i, word in enumerate(vocabulary.words)}
    ids = np.fromiter((index[w] for piece_words in words for w in piece_words), np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(piece_words) for piece_words in words])])
    return MessageCorpus(
        name,
        key,
        vocabulary,
        names,
        splits,
        skipped,
        np.array(shifts),
        augment,
        tokenizer,
        ids,
        offsets.astype(np.int64),
        share_below(lengths, NOTE_LENGTHS_KEPT),
        share_below(voices, VOICES_KEPT),
        max_tracks,
    )


def no_usable(files: int, name: str, skipped: list[Skipped]) -> UserError:
    """Return the error for a corpus in which nothing can be used."""
    example = f", for example {skipped[0].file}: {skipped[0].reason}" if skipped else ""
    return UserError(f"no usable MIDI file among {files} in '{name}', choose another{example}")


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


def messages_on_disk(corpus: MessageCorpus) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return what `messages_from_disk` takes: JSON and arrays."""
    meta = common_json(corpus) | corpus.habits()
    return meta, {"ids": corpus.ids, "offsets": corpus.offsets, "shifts": corpus.shifts}


def messages_from_disk(
    name: str,
    key: str,
    meta: Mapping[str, Any],
    arrays: Mapping[str, Array],
    layout: Layout,
    augment: int,
) -> MessageCorpus:
    """Return the corpus that was kept. Raises KeyError, TypeError, UserError for anything else."""
    return MessageCorpus(
        **common_fields(name, key, meta, arrays, augment),
        tokenizer=MessageTokenizer(layout),
        ids=arrays["ids"],
        offsets=arrays["offsets"],
        longest_note=meta["longest_note"],
        most_notes=meta["most_notes"],
        max_tracks=meta["max_tracks"],
    )
