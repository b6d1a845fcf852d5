"""What a biaxial network reads beside the frames: its place, and what the piece's past tells."""

from functools import lru_cache

import numpy as np

from lstm_music.arrays import Array
from lstm_music.corpus.batches import Source
from lstm_music.midi.roll import NOTES, Frames
from lstm_music.network.biaxial import PLACES, row_width
from lstm_music.network.recall import REST, RecallRules
from lstm_music.network.recall_rules import frame_of_code, frame_says
from lstm_music.ops.reference.copying import HIT, NOTHING

MOST = 1024  # pieces whose candidates are kept, some 120 bytes a frame: more than are read at once


def start_rows(shape: tuple[int, ...], K: int) -> Array:
    """Return inputs (…, width) uint8 before a piece's first frame, of K candidates."""
    x = np.zeros((*shape, row_width(NOTES, K)), np.uint8)
    x[..., NOTES] = 1
    return x


class Surroundings:
    """Pieces of frames as a biaxial network reads them; a Source made of another.

    rules: how a copy gate compares frames, None without one.
    """

    def __init__(self, source: Source, rules: RecallRules | None) -> None:
        self.source, self.rules = source, rules
        self.none, self.targets, self.asks = source.none, source.targets, source.asks
        self.words = source.words
        self.K = rules.candidates if rules else 0
        self._candidates = lru_cache(MOST)(self._found)  # by piece

    def start(self, shape: tuple[int, int]) -> Array:
        """As Source.start."""
        return start_rows(shape, self.K)

    def inputs(self, piece: int, first: int, stop: int) -> Array:
        """Return what is read after the frames first … stop-1, (n, width) uint8."""
        frames = self.source.targets(piece, first, stop)
        x = np.zeros((len(frames), row_width(NOTES, self.K)), np.uint8)
        x[:, :NOTES] = frames
        x[:, NOTES + 1] = np.arange(first + 1, stop + 1) % PLACES
        if self.rules is not None:
            says, buckets = self._candidates(piece)
            told = np.unpackbits(says[first + 1 : stop + 1], axis=-1, count=NOTES)
            n = len(told)  # a piece's last frame is followed by none
            x[:n, NOTES + 2 : -self.K] = told.reshape(n, self.K * NOTES)
            x[:n, -self.K :] = buckets[first + 1 : stop + 1]
        return x

    def _found(self, piece: int) -> tuple[Array, Array]:
        assert self.rules is not None
        words = self.source.words(piece, self.rules)
        return candidates(words, self.source.targets(piece, 0, len(words)), self.rules)


def candidates(words: Array, frames: Frames, rules: RecallRules) -> tuple[Array, Array]:
    """Return of each step of a piece the frames told (n, K, 11), packed, and buckets (n, K).

    words (n, FIELDS): of its frames (n, 88), as `frame_words`.
    """
    from lstm_music.network.compiled_recall import recalled

    recall, codes = recalled(rules, words)
    there = recall != NOTHING
    says = {rest: frame_says(frame)[0] for rest, frame in zip(words[:, REST], frames, strict=True)}
    unique, places = np.unique(np.where(there, codes, -1), return_inverse=True)
    table = np.zeros((len(unique), NOTES), np.uint8)
    real = np.ones(len(unique), np.bool_)
    for n, code in enumerate(unique.tolist()):
        frame = frame_of_code(says, code) if code >= 0 else None
        real[n] = frame is not None
        if frame is not None:
            table[n] = frame
    places = places.reshape(codes.shape)
    buckets = np.where(there & real[places], recall % HIT + 1, 0).astype(np.uint8)
    return np.packbits(table, axis=1)[places], buckets
