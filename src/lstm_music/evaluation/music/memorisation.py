"""What of a piece is copied from the training set, note for note or transposed.

A link is what leads from one note to the next of a piece, in order of onset, then pitch: both
lengths, the time between the onsets, and both pitches; or, so that transposition changes nothing,
the interval alone. A run of n notes is copied exactly where its n-1 links are. Links are numbers of
64 bits, and so is a gram of them, by a polynomial whose prefixes are summed once: any gram of any
length of any piece is then one subtraction (Karp & Rabin 1987). What looks copied is compared
note by note before it is reported.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_music.evaluation.music.excerpts import EMPTY, Music
from lstm_music.midi.piece import BAR, Notes

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

SHORT, LONG = 8, 12  # notes of the grams whose share is reported
RECITED = 0.5  # share of a piece in one copied run from which on it counts as recited
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse: of the polynomial, modulo 2^64
WORD = 2**64
TABLE = 22  # bits of a hash by which a gram is first looked up: a table that a cache holds


class Copy(NamedTuple):
    """A run of notes that two pieces share.

    notes: its length; piece: where it stands in training, "" where nothing is shared; semitones:
    how much higher the copy is; the first and last bar, from 1, in the sample and in training.
    """

    notes: int
    piece: str
    semitones: int
    here: tuple[int, int]
    there: tuple[int, int]


class Recall(NamedTuple):
    """What of a sample is in training: its notes, longest runs, and shares of grams found."""

    name: str
    notes: int
    exact: Copy
    transposed: Copy
    short: float
    long: float
    short_exact: float
    long_exact: float

    @property
    def recited(self) -> float:
        """The share of the sample that its longest run is, transposed or not."""
        return self.transposed.notes / self.notes if self.notes else 0.0


class Line(NamedTuple):
    """Pieces end to end: notes (n, 3), where each piece begins (pieces + 1,), hashes of links.

    left (n,): links from each note to its piece's end; prefixes (n + 1,): sums of the polynomial
    for links that keep pitches (exact) and for links that don't (free).
    """

    notes: Notes
    offsets: Numbers
    left: npt.NDArray[np.int32]
    exact: Hashes
    free: Hashes


class Index:
    """The grams of the training set; in a set without a note, nothing is found."""

    def __init__(self, training: Sequence[Music]) -> None:
        self.names = [piece.name for piece in training]
        self.line = line_of([piece.notes for piece in training])
        self.powers = powers_of(longest(self.line) + 2)

    def recall(self, samples: Sequence[Music]) -> list[Recall]:
        """Return what of each sample is in training."""
        line = line_of([sample.notes for sample in samples])
        self.powers = powers_of(max(longest(line), longest(self.line)) + 2, self.powers)
        exact, free = self.search(line, "exact"), self.search(line, "free")
        found = []
        for n, sample in enumerate(samples):
            found.append(
                Recall(
                    sample.name,
                    len(sample.notes),
                    self.copy(line, exact.runs[n]),
                    self.copy(line, free.runs[n]),
                    free.shares[SHORT][n],
                    free.shares[LONG][n],
                    exact.shares[SHORT][n],
                    exact.shares[LONG][n],
                )
            )
        return found

    def search(self, line: Line, kind: str) -> "Found":
        """Find a line's grams in training: the shares by length, and each piece's longest run.

        A gram that is found holds only grams that are found, so places that fail drop out.
        """
        pieces = len(line.offsets) - 1
        shares: dict[int, list[float]] = {}
        runs = [(0, 0, 0)] * pieces  # links, place in the line, place in training
        here, there = all_of(line, SHORT - 1), all_of(self.line, SHORT - 1)
        links = SHORT - 1
        while len(here) or links < LONG:
            here, there, pairs = self.shared(line, kind, links, here, there)
            note_runs(line, links, pairs, runs)
            if links + 1 in (SHORT, LONG):
                shares[links + 1] = share_by_piece(line, links, here)
            links += 1
        for links in range(SHORT - 2, 0, -1):
            here = all_of(line, links)
            found = np.array([run[0] > 0 for run in runs], np.bool_)
            here = here[~found[pieces_of(line, here)]]
            if len(here):
                pairs = self.shared(line, kind, links, here, all_of(self.line, links))[2]
                note_runs(line, links, pairs, runs)
        return Found(shares, runs)

    def shared(
        self, line: Line, kind: str, links: int, here: Numbers, there: Numbers
    ) -> tuple[Numbers, Numbers, list[tuple[int, int]]]:
        """Return which places begin a gram of both lines, and for each piece one such pair."""
        here, there = here[line.left[here] >= links], there[self.line.left[there] >= links]
        mine = self.grams(getattr(line, kind), links, here)
        theirs = self.grams(getattr(self.line, kind), links, there)
        known = np.unique(mine)
        if not len(known) or not len(there):
            return here[:0], there[:0], []
        # Most grams of training are in no sample, and one look at a table of bits tells most of it.
        seen = np.zeros(1 << TABLE, np.bool_)
        seen[known >> np.uint64(64 - TABLE)] = True
        hit = seen[theirs >> np.uint64(64 - TABLE)]
        there, theirs = there[hit], theirs[hit]
        at = np.minimum(np.searchsorted(known, theirs), len(known) - 1)
        hit = known[at] == theirs
        there, at = there[hit], at[hit]
        example = np.full(len(known), -1, np.int64)
        example[at[::-1]] = there[::-1]  # the first place in training
        which = np.searchsorted(known, mine)
        kept = example[which] >= 0
        here, others = here[kept], example[which[kept]]
        _, one = np.unique(pieces_of(line, here), return_index=True)
        return here, there, list(zip(here[one].tolist(), others[one].tolist(), strict=True))

    def grams(self, prefixes: Hashes, links: int, places: Numbers) -> Hashes:
        """Return the hash of the gram of so many links that begins at each place."""
        with np.errstate(over="ignore"):
            made: Hashes = prefixes[places + links] - prefixes[places] * self.powers[links]
        return made

    def copy(self, line: Line, run: tuple[int, int, int]) -> Copy:
        """Describe a run of links between a sample and training, checked note by note."""
        links, place, other = run
        if not links:
            return Copy(0, "", 0, (0, 0), (0, 0))
        ours, theirs = line.notes[place : place + links + 1], self.line.notes[other:][: links + 1]
        shift = ours[0] - theirs[0]
        same = (ours[:, [0, 2]] - theirs[:, [0, 2]] == shift[[0, 2]]).all()
        lengths = (ours[:, 1] - ours[:, 0] == theirs[:, 1] - theirs[:, 0]).all()
        if not (same and lengths):  # one in some 10^8 searches
            return Copy(0, "", 0, (0, 0), (0, 0))
        number = int(pieces_of(self.line, np.array([other]))[0])
        here, there = bars_of(ours), bars_of(theirs)
        return Copy(links + 1, self.names[number], int(shift[2]), here, there)


class Found(NamedTuple):
    """Shares of grams by their length in notes and piece, and each piece's longest run."""

    shares: dict[int, list[float]]
    runs: list[tuple[int, int, int]]


def bars_of(notes: Notes) -> tuple[int, int]:
    """Return the first and the last bar in which a note begins, from 1."""
    return int(notes[0, 0]) // BAR + 1, int(notes[-1, 0]) // BAR + 1


# Lines ------------------------------------------------------------------------------------------


def line_of(pieces: Sequence[Notes]) -> Line:
    """Lay pieces end to end and hash their links."""
    sizes = np.array([len(notes) for notes in pieces], np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    notes = np.concatenate([EMPTY, *pieces])
    left = (np.repeat(offsets[1:], sizes) - np.arange(len(notes)) - 1).astype(np.int32)
    return Line(notes, offsets, left, *(prefixes_of(links(notes, keep)) for keep in (True, False)))


def links(notes: Notes, keep_pitch: bool) -> Hashes:
    """Return a number for what leads from each note to the next (n,), 0 for the last."""
    made = np.zeros(len(notes), np.uint64)
    if len(notes) < 2:
        return made
    start, end, pitch = notes.astype(np.int64).T
    length = end - start
    gap, step = np.diff(start), np.diff(pitch)
    value = mixed(length[:-1].astype(np.uint64))
    for part in (length[1:], gap, step, *((pitch[:-1],) if keep_pitch else ())):
        value = mixed(value ^ part.astype(np.uint64))
    made[:-1] = value
    return made


def mixed(x: Hashes) -> Hashes:
    """Return numbers whose every bit depends on all of x's (SplitMix64's finisher and step)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(BASE)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        made: Hashes = x ^ (x >> np.uint64(31))
    return made


def prefixes_of(values: Hashes) -> Hashes:
    """Return the polynomials of all prefixes, (n + 1,): p[k+1] = p[k]·BASE + value[k].

    As BASE has an inverse modulo 2^64, p[k] = BASE^k · Σ value[j]·BASE^-(j+1): two running
    products and a running sum.
    """
    n = len(values)
    made = np.zeros(n + 1, np.uint64)
    with np.errstate(over="ignore"):
        inverse = powers_of(n + 1, base=pow(BASE, -1, WORD))[1:]
        np.cumsum(values * inverse, out=made[1:], dtype=np.uint64)
        made *= powers_of(n + 1)
    return made


def powers_of(n: int, known: Hashes | None = None, base: int = BASE) -> Hashes:
    """Return base^0 … base^(n-1) modulo 2^64; known: a table that may be long enough."""
    if known is not None and len(known) >= n:
        return known
    made = np.full(n, base, np.uint64)
    made[:1] = 1
    with np.errstate(over="ignore"):
        np.cumprod(made, out=made)
    return made


def longest(line: Line) -> int:
    """Return the links of the longest piece."""
    return max(0, int(np.diff(line.offsets).max(initial=0)) - 1)


def all_of(line: Line, links: int) -> Numbers:
    """Return all places at which a gram of so many links begins."""
    return np.flatnonzero(line.left >= links)


def pieces_of(line: Line, places: Numbers) -> Numbers:
    """Return the number of the piece that each place is in."""
    numbers: Numbers = np.searchsorted(line.offsets, places, side="right") - 1
    return numbers


def note_runs(
    line: Line, links: int, pairs: Sequence[tuple[int, int]], runs: list[tuple[int, int, int]]
) -> None:
    """Note runs of so many links, each a place in the line and one in training, by piece."""
    for place, other in pairs:
        runs[int(pieces_of(line, np.array([place]))[0])] = (links, place, other)


def share_by_piece(line: Line, links: int, found: Numbers) -> list[float]:
    """Return the share of each piece's grams that are among those found; NaN where it has none."""
    pieces = len(line.offsets) - 1
    grams = np.maximum(np.diff(line.offsets) - links, 0)
    counts = np.bincount(pieces_of(line, found), minlength=pieces)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = counts[:pieces] / grams
    return [float(x) for x in shares]
