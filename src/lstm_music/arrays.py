"""What crosses packages: arrays, sparse gradients, a window of training."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

NO_TARGET = -1
Array = NDArray[Any]
NO_NOTES = 255  # first of a row of note targets: the row has none, as -1 says of ids


class Batch(NamedTuple):
    """One window of B streams.

    Of tokens: x (T, B) ids in; y (T, B) ids to predict, -1 for none. Of notes: x (T, B, D + 1)
    uint8 0/1, the last the start symbol's; y (T, B, D) uint8 0/1, its first NO_NOTES for none.
    keep (T, B), 0 where a piece starts, None where none does; targets, how many there are to
    predict; recall (T, B, K) uint8, what a copy gate reads (network/recall.py), or None. Of
    a window of more streams that several processes share: first is this one's first stream, whole
    the number of all, and targets counts those of all.
    """

    x: Array
    y: Array
    keep: Array | None
    targets: int
    first: int = 0
    whole: int | None = None
    recall: Array | None = None


class Mixture(NamedTuple):
    """What a copy gate leaves to the network, and what it copies: log-shares (N,).

    A target's probability is exp(own) · p(target | network) + exp(copied).
    """

    own: Array
    copied: Array

    def rows(self, rows: slice) -> "Mixture":
        """Return those of some rows."""
        return Mixture(self.own[rows], self.copied[rows])


class RowGradient(NamedTuple):
    """A gradient that is zero but for some rows: rows (n,) sorted and unique, values (n, E)."""

    rows: Array
    values: Array
