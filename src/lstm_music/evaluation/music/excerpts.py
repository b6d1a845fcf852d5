"""What is judged: the notes of corpora and of generated pieces, in excerpts of one length."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.corpus.words import MessageCorpus
from lstm_music.midi.piece import (
    BAR,
    KIND,
    LAST_TICK,
    PITCH,
    TICK,
    Messages,
    Notes,
    Piece,
    notes_of,
)
from lstm_music.midi.repair import merge_tracks, repaired_tracks, sorted_messages, without_overlaps
from lstm_music.midi.roll import piece_of_frames
from lstm_music.tokenizers.messages import PIECE_END, SPECIALS, parse

EMPTY: Notes = np.zeros((0, 3), np.int32)


class Music(NamedTuple):
    """A name, and the notes of all tracks (n, 3) int32, sorted by start, then pitch."""

    name: str
    notes: Notes


def notes_of_piece(piece: Piece) -> Notes:
    """Return the notes of all tracks, (n, 3): start, end, pitch, sorted by start, then pitch."""
    return in_order(np.concatenate([EMPTY, *map(notes_of, piece.tracks)]))


def told_notes(piece: Piece) -> Notes:
    """Return the notes (n, 3) of a piece that words told; of parts as where they are merged.

    So a unison of theirs is one note.
    """
    return notes_of(merge_tracks(piece)) if piece.parts else notes_of_piece(piece)


def piece_of_music(music: Music) -> Piece:
    """Return notes as a piece of one track, or none; a pitch struck while it sounds ends there."""
    notes = music.notes[music.notes[:, 0] < music.notes[:, 1]]
    track = sorted_messages(*without_overlaps(notes))
    return Piece(music.name, [track] if len(track) else [])


def in_order(notes: Notes) -> Notes:
    """Return notes by start, then pitch, then end."""
    return notes[np.lexsort((notes[:, 1], notes[:, 2], notes[:, 0]))]


# Corpora ----------------------------------------------------------------------------------------


def split_music(corpus: Corpus, split: str) -> list[Music]:
    """Return the notes of a split's pieces, as pieces_of_split raises."""
    if isinstance(corpus, MessageCorpus) and corpus.tokenizer.name == "message":
        words, pieces = word_table(corpus), corpus.splits[split]
        return [Music(corpus.pieces[p], message_notes(corpus.piece_ids(p), words)) for p in pieces]
    return [Music(piece.name, told_notes(piece)) for piece in pieces_of_split(corpus, split)]


def pieces_of_split(corpus: Corpus, split: str) -> list[Piece]:
    """Return the pieces of a split; raises TypeError for a corpus of no known kind."""
    pieces = corpus.splits[split]
    if isinstance(corpus, MessageCorpus):
        return [corpus.decoded(p) for p in pieces]
    if isinstance(corpus, RollCorpus):
        grid = corpus.reading.grid
        return [piece_of_frames(corpus.frames(p), grid, corpus.pieces[p]) for p in pieces]
    raise TypeError(f"no music in {type(corpus).__name__}")


def word_table(corpus: MessageCorpus) -> npt.NDArray[np.int64]:
    """Return kind, pitch and delta of each id (V, 3); kind is -1 of a track's or piece's end."""
    rows = [parse(word) or (-1, 0, 0) for word in corpus.vocabulary.words]
    assert SPECIALS[0] == PIECE_END
    return np.array(rows, np.int64)


def message_notes(ids: npt.NDArray[np.int32], words: npt.NDArray[np.int64]) -> Notes:
    """Return the notes of a piece's ids (n,), its tracks decoded as `MessageTokenizer.piece` does.

    words: as word_table.
    """
    rows = words[ids]
    ends = np.flatnonzero(rows[:, 0] < 0)
    tracks = [messages_of(part[part[:, 0] >= 0]) for part in np.split(rows, ends)]
    return notes_of_piece(Piece("", repaired_tracks(tracks)))


def messages_of(rows: npt.NDArray[np.int64]) -> Messages:
    """Return messages (n, 3) from kind, pitch and delta (n, 3)."""
    messages = np.empty((len(rows), 3), np.int32)
    messages[:, TICK] = np.minimum(np.cumsum(rows[:, 2]), LAST_TICK)
    messages[:, KIND], messages[:, PITCH] = rows[:, 0], rows[:, 1]
    return messages


# Excerpts ---------------------------------------------------------------------------------------


def excerpts(pieces: Sequence[Music], bars: int, most: int, seed: int = 0) -> list[Music]:
    """Return at most so many excerpts of so many bars of 4/4, drawn by seed.

    The pieces, in an order drawn by seed, follow one another at bar lines, as in what a model
    composes to a length. An excerpt begins where a piece does, as what a model composes does; the
    next one with the first piece that begins at or after its end. No bar is in two.
    """
    rng = np.random.default_rng(seed)
    ordered = [pieces[p] for p in rng.permutation(len(pieces))]
    laid, begins = laid_end_to_end(ordered)
    length, end = bars * BAR, int(laid[:, 1].max(initial=0))
    made: list[Music] = []
    free = 0
    for piece, begin in zip(ordered, begins, strict=True):
        if free <= begin <= end - length and len(made) < most:
            made.append(Music(piece.name, window(laid, begin, length)))
            free = begin + length
    return made


def laid_end_to_end(
    pieces: Sequence[Music],
) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Return all notes on one line of time (n, 3), and the tick at which each piece begins."""
    parts: list[npt.NDArray[np.int64]] = [np.zeros((0, 3), np.int64)]
    begins: list[int] = []
    now = 0
    for _, notes in pieces:
        begins.append(now)
        parts.append(notes.astype(np.int64) + np.array([now, now, 0]))
        now += -(-int(notes[:, 1].max(initial=0)) // BAR) * BAR
    return np.concatenate(parts), begins


def window(notes: npt.NDArray[np.int64], start: int, length: int) -> Notes:
    """Return the notes that begin within length ticks from start, cut at the end, from tick 0."""
    inside = (notes[:, 0] >= start) & (notes[:, 0] < start + length)
    cut: Notes = (notes[inside] - np.array([start, start, 0])).astype(np.int32)
    cut[:, 1] = np.minimum(cut[:, 1], length)
    return cut
