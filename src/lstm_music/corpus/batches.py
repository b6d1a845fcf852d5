"""Batches for stateful truncated back-propagation: windows (T, B) over B parallel streams.

A piece of ids k0 … kn (kn = piece-end) is the sequence of inputs piece-end, k0 … k(n-1) and
targets k0 … kn: the end symbol is also the start symbol. A piece of frames f0 … fn is the inputs
start, f0 … f(n-1) and targets f0 … fn. The state is reset where a piece starts, so that no loss
crosses from one piece to the next.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np

from lstm_music.arrays import NO_TARGET, Array, Batch
from lstm_music.network.recall import RecallRules
from lstm_music.ops import NumpyOps
from lstm_music.ops.reference.copying import NOTHING


class Segment(NamedTuple):
    """The ids start … stop-1 of a piece."""

    piece: int
    start: int
    stop: int


def cut_streams(lengths: Sequence[int], order: Sequence[int], B: int) -> list[list[Segment]]:
    """Put pieces end to end in the given order and cut the line into B equal streams.

    lengths: ids of each piece. Used in training: no stream waits for another, at the price of
    one piece a stream that starts in its middle with an empty state.
    """
    total = sum(lengths[piece] for piece in order)
    share = -(-total // B)
    streams: list[list[Segment]] = [[] for _ in range(B)]
    position = 0
    for piece in order:
        start = 0
        while start < lengths[piece]:
            stream = position // share
            stop = min(lengths[piece], start + (stream + 1) * share - position)
            streams[stream].append(Segment(piece, start, stop))
            position += stop - start
            start = stop
    return streams


class Source(Protocol):
    """What batches read: pieces of ids, or of frames."""

    def start(self, shape: tuple[int, int]) -> Array:
        """Return inputs x (T, B, …) that are the start symbol everywhere."""

    def none(self, shape: tuple[int, int]) -> Array:
        """Return targets y (T, B, …) that ask for nothing anywhere."""

    def inputs(self, piece: int, first: int, stop: int) -> Array:
        """Return a piece's steps first … stop-1 as inputs (n, …)."""

    def targets(self, piece: int, first: int, stop: int) -> Array:
        """Return a piece's steps first … stop-1 as targets (n, …)."""

    def words(self, piece: int, rules: RecallRules) -> Array:
        """Return a piece's steps as recall compares them, (n, FIELDS)."""

    def asks(self, y: Array) -> Array:
        """Return which targets (n, …) ask for something, (n,) bool."""


class TokenSource:
    """Pieces of ids.

    ids (tokens,) int32 and offsets (pieces + 1,) say where each piece lies; start_id is the start
    symbol's; unseen (tokens,) bool: ids that are inputs only, empty where there are none; shifts:
    semitones by piece; tables: by shift, the id (V,) that each id becomes.
    """

    def __init__(
        self,
        ids: Array,
        offsets: Array,
        start_id: int,
        unseen: Array | None = None,
        shifts: Sequence[int] = (),
        tables: Mapping[int, Array] | None = None,
    ) -> None:
        self.ids, self.offsets, self.start_id = ids, offsets, start_id
        self.unseen = np.zeros(0, np.bool_) if unseen is None else unseen
        self.shifts, self.tables = shifts, tables or {}

    def start(self, shape: tuple[int, int]) -> Array:
        """Return x (T, B) int32, the start symbol everywhere."""
        return np.full(shape, self.start_id, np.int32)

    def none(self, shape: tuple[int, int]) -> Array:
        """Return y (T, B) int32, NO_TARGET everywhere."""
        return np.full(shape, NO_TARGET, np.int32)

    def inputs(self, piece: int, first: int, stop: int) -> Array:
        """Return ids (n,)."""
        at = int(self.offsets[piece])
        ids = self.ids[at + first : at + stop]
        shift = self.shifts[piece] if self.shifts else 0
        return self.tables[shift][ids] if shift else ids

    def targets(self, piece: int, first: int, stop: int) -> Array:
        """Return ids (n,), NO_TARGET where the id is an input only."""
        ids = self.inputs(piece, first, stop)
        if not len(self.unseen):
            return ids
        at = int(self.offsets[piece])
        return np.where(self.unseen[at + first : at + stop], NO_TARGET, ids)

    def words(self, piece: int, rules: RecallRules) -> Array:
        """As Source.words."""
        length = int(self.offsets[piece + 1] - self.offsets[piece])
        found: Array = rules.words[self.inputs(piece, 0, length)]
        return found

    def asks(self, y: Array) -> Array:
        """As Source.asks."""
        asked: Array = y != NO_TARGET
        return asked


def transposed_ids(
    words: Sequence[str], shifts: Sequence[int], transpose_word: Callable[[str, int], str | None]
) -> dict[int, Array]:
    """Return, for each shift but 0, the id (V,) int32 that each word's id becomes.

    A word that becomes one outside the vocabulary stays itself: a piece is never shifted so far
    that it holds one.
    """
    index = {word: id for id, word in enumerate(words)}
    tables = {}
    for shift in {shift for shift in shifts if shift}:
        moved = (transpose_word(word, shift) for word in words)
        found = (index.get(word or "", id) for id, word in enumerate(moved))
        tables[shift] = np.fromiter(found, np.int32, len(words))
    return tables


class Laid(NamedTuple):
    """A segment's inputs x, targets y (n, …), and what could be copied (n, K), if asked for."""

    x: Array
    y: Array
    recall: Array | None


class Batches:
    """The windows of some streams, by number, so that a run can go on from any of them.

    T is the window's length. `len()` is the number of windows. recall: of a network with a copy
    gate, how it compares words.
    """

    def __init__(
        self,
        source: Source,
        streams: list[list[Segment]],
        T: int,
        recall: RecallRules | None = None,
    ) -> None:
        self.source, self.streams, self.T, self.recall = source, streams, T, recall
        self._kept: dict[int, tuple[int, Laid]] = {}  # by stream: one of its segments
        self._ends = [list(accumulate(s.stop - s.start for s in stream)) for stream in streams]
        lengths = [ends[-1] if ends else 0 for ends in self._ends]
        self.windows = -(-max(lengths, default=0) // T)
        self.first, self.whole = 0, len(streams)
        self._lengths: Array | None = None  # of all streams, where these are but some of them

    def part(self, first: int, stop: int) -> "Batches":
        """Return the same windows of the streams first … stop-1 alone, for one of several ranks.

        Each batch counts the targets of all streams; each step must ask for one, as in training.
        """
        made = Batches(self.source, self.streams[first:stop], self.T, self.recall)
        made.windows, made.first, made.whole = self.windows, first, len(self.streams)
        made._lengths = np.array([ends[-1] if ends else 0 for ends in self._ends])
        return made

    def __len__(self) -> int:
        return self.windows

    def __getitem__(self, window: int) -> Batch:
        """Return a window: x, y (T, B, …) as the source has them, keep (T, B) float32 or None."""
        if not 0 <= window < self.windows:
            raise IndexError(window)
        shape = (self.T, len(self.streams))
        x, y = self.source.start(shape), self.source.none(shape)
        keep = np.ones(shape, np.float32)
        recall = None
        if self.recall is not None:
            recall = np.full((*shape, self.recall.candidates), NOTHING, np.uint8)
        for b in range(shape[1]):
            own = None if recall is None else recall[:, b]
            self._fill(b, window * self.T, x[:, b], y[:, b], keep[:, b], own)
        targets = int(np.count_nonzero(self.source.asks(y)))
        batch = Batch(x, y, None if keep.all() else keep, targets, recall=recall)
        if self._lengths is None:
            return batch
        targets = int(np.clip(self._lengths - window * self.T, 0, self.T).sum())
        return batch._replace(targets=targets, first=self.first, whole=self.whole)

    def __iter__(self) -> Iterator[Batch]:
        for window in range(self.windows):
            yield self[window]

    def _fill(
        self, b: int, position: int, x: Array, y: Array, keep: Array, recall: Array | None
    ) -> None:
        """Fill column b, which begins at a position of its stream."""
        segments, ends = self.streams[b], self._ends[b]
        k, t = bisect_right(ends, position), 0
        while t < self.T and k < len(segments):
            laid, length = self._laid(b, k), segments[k].stop - segments[k].start
            first = length - (ends[k] - position - t)
            n = min(self.T - t, length - first)
            x[t : t + n] = laid.x[first : first + n]
            y[t : t + n] = laid.y[first : first + n]
            if recall is not None and laid.recall is not None:
                recall[t : t + n] = laid.recall[first : first + n]
            if first == 0:
                keep[t] = 0  # or a piece cut by cut_streams: its first half is another stream's
            t += n
            k += 1

    def _laid(self, b: int, k: int) -> Laid:
        """Return segment k of stream b as windows have it; kept until the stream's next one."""
        if self._kept.get(b, (-1,))[0] != k:
            self._kept[b] = k, self._lay(self.streams[b][k])
        return self._kept[b][1]

    def _lay(self, segment: Segment) -> Laid:
        (piece, start, stop), source = segment, self.source
        x = source.start((stop - start, 1))[:, 0]
        given = source.inputs(piece, max(start - 1, 0), stop - 1)
        x[len(x) - len(given) :] = given
        y = source.targets(piece, start, stop)
        if self.recall is None:
            return Laid(x, y, None)
        from lstm_music.network.compiled_recall import recalled

        some = recalled(self.recall, source.words(piece, self.recall))[0][start:stop]
        asked = source.asks(y)[:, None]  # else nothing is to be learnt
        return Laid(x, y, np.where(asked, some, np.uint8(NOTHING)))


def on_device(ops: NumpyOps, batch: Batch) -> Batch:
    """Return a batch's arrays on a backend."""
    return batch._replace(
        x=ops.asarray(batch.x, batch.x.dtype),
        y=ops.asarray(batch.y, batch.y.dtype),
        keep=None if batch.keep is None else ops.asarray(batch.keep),
        recall=None if batch.recall is None else ops.asarray(batch.recall, np.uint8),
    )
