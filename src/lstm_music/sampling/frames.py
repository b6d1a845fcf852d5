"""Sampling of note models: prime the network, then draw frame after frame.

As in `sampling/sampler.py`, piece k of a seed is the same music whatever the number drawn beside
it.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lstm_music.arrays import Array
from lstm_music.corpus.surroundings import start_rows
from lstm_music.errors import UserError
from lstm_music.midi.roll import NOTES, Frames
from lstm_music.network.biaxial import PLACES, BiaxialHead
from lstm_music.network.config import State
from lstm_music.network.model import Model
from lstm_music.network.notes import NadeHead
from lstm_music.network.recall import RecallRules
from lstm_music.ops.philox import uniform
from lstm_music.sampling.copying import FramePast, copies_of
from lstm_music.sampling.options import Options
from lstm_music.sampling.sampler import ROWS, rows_for

FRAMES = 64  # whose random numbers are made at once
BARS = 16  # of a piece without a length: nothing in it says where it ends
COPYING = 1 << 31  # added to a block's number: of the numbers that choose what is copied
COLDEST = 1e-9  # the least temperature, whose inverse float32 can hold


def sample_frames(
    model: Model,
    primers: Sequence[Frames],
    options: Options,
    thresholds: Array | None = None,
    show: Callable[[int, int], None] = lambda done, most: None,
    lengths: Sequence[int] = (),
    recall: RecallRules | None = None,
) -> list[Frames]:
    """Draw one piece for each primer (n, 88), n perhaps 0.

    thresholds (88,): the log-odds from which each note sounds where a sigmoid head is greedy, see
    `fit_thresholds`. show is called with the frames drawn and how many there will be. lengths: how
    many frames each piece has (default: options.length). recall: how a copy gate compares
    frames. Returns them (length, 88), primers
    included. Raises UserError for options that don't fit the model.
    """
    check_options(model, options)
    lengths = lengths or [options.length or 0] * len(primers)
    longest = max(lengths)
    pieces: list[Frames] = []
    groups, copies = -(-len(primers) // ROWS), copies_of(model, recall, options)
    for first in range(0, len(primers), ROWS):
        some = primers[first : first + ROWS]
        written = np.zeros((longest, len(some), NOTES), np.uint8)
        before = first // ROWS * longest
        pasts = [FramePast(copies) for _ in some] if copies else []
        for done in _write(model, some, first, options, thresholds, written, pasts):
            show(before + done, groups * longest)
        pieces += list(written.swapaxes(0, 1))
    return [piece[:n] for piece, n in zip(pieces, lengths, strict=True)]


def check_options(model: Model, options: Options) -> None:
    """Raise UserError where options ask for what a model's head can't do."""
    if isinstance(model.head, NadeHead | BiaxialHead) and (options.top_k or options.top_p < 1):
        raise UserError(
            "--top-k and --top-p choose among notes that don't depend on one another, and those "
            f"of --head {model.config.head} do: use --temperature"
        )


def _write(
    model: Model,
    primers: Sequence[Frames],
    first: int,
    options: Options,
    thresholds: Array | None,
    written: Frames,
    pasts: Sequence[FramePast] = (),
) -> Iterator[int]:
    """Fill written (length, B, 88) with B <= ROWS pieces, the first being primer number first.

    pasts: of each piece, for a copy gate. Yields the number of frames after each.
    """
    length, B, _ = written.shape
    reader = Reader(model, rows_for(model, B))
    draws, lots = np.empty((FRAMES, reader.rows, NOTES)), np.empty((FRAMES, B))
    for t in range(length):
        block, n = divmod(t, FRAMES)
        if n == 0:
            for k in range(B):
                number = options.first + first + k
                numbers = uniform(options.seed, number, block, FRAMES * NOTES)
                draws[:, k] = numbers.reshape(FRAMES, NOTES)
                lots[:, k] = uniform(options.seed, number, COPYING + block, FRAMES)
        written[t] = reader.draw(draws[n], options, thresholds)[:B]
        if pasts:
            scores = reader.copy_scores()
            for k, past in enumerate(pasts):
                past.copy(scores[k], lots[n, k], options, written[t, k])
        for k, primer in enumerate(primers):
            if t < len(primer):
                written[t, k] = primer[t]
        for k, past in enumerate(pasts):
            past.take(written[t, k])
        reader.read(written[t], pasts)
        yield t + 1


class Reader:
    """A network that reads so many pieces side by side, frame after frame, from their start."""

    def __init__(self, model: Model, rows: int) -> None:
        self.model, self.rows = model, rows
        self.x = np.zeros((rows, NOTES + 1), np.uint8)
        self.x[:, NOTES] = 1  # the start symbol
        if model.config.head == "biaxial":
            self.x = start_rows((rows,), model.config.copy)
        self.state: State = model.zero_state(rows)

    def read(self, frames: Frames, pasts: Sequence[FramePast] = ()) -> None:
        """Say which frames (n, 88) follow in the first n pieces; pasts: which took them."""
        self.x[: len(frames), :NOTES] = frames
        self.x[:, NOTES] = 0
        if self.model.config.head == "biaxial":
            self.x[:, NOTES + 1] = (self.x[:, NOTES + 1] + 1) % PLACES
            for row, past in zip(self.x, pasts, strict=False):
                row[NOTES + 2 :] = past.told()

    def logits(self) -> Array:
        """Return each note's log-odds in the next frames (rows, 88), of a sigmoid head."""
        ops = self.model.ops
        logits, self.state = self.model.step(ops.asarray(self.x, np.uint8), self.state)
        host: Array = ops.to_numpy(logits)
        return host

    def copy_scores(self) -> Array:
        """Return a copy gate's scores (rows, K) for the next frames, once they are drawn."""
        scores: Array = self.model.ops.to_numpy(self.model.copy_scores(self.state))
        return scores

    def draw(self, draws: Array, options: Options, thresholds: Array | None) -> Frames:
        """Return the next frames (rows, 88) by uniform numbers draws (rows, 88)."""
        if not isinstance(self.model.head, NadeHead | BiaxialHead):
            return choose_notes(self.logits(), draws, options, thresholds)
        ops, temperature = self.model.ops, max(options.temperature, COLDEST)
        if options.greedy:  # each note's likelier value, given those below
            draws, temperature = np.full_like(draws, 0.5), 1.0
        x, u = ops.asarray(self.x, np.uint8), ops.asarray(draws, np.float64)
        notes, self.state = self.model.step_and_draw(x, self.state, u, temperature)
        frames: Frames = ops.to_numpy(notes)
        return frames


def choose_notes(
    logits: Array, draws: Array, options: Options, thresholds: Array | None = None
) -> Frames:
    """Choose independent notes by their log-odds and uniform numbers in [0, 1).

    logits, draws (B, 88); thresholds (88,), which greedy needs. The log-odds are divided by the
    temperature. Of the notes that sound, only the top_k likeliest stay, and the fewest of the
    likeliest whose probabilities add up to a share top_p of all notes'. Returns (B, 88) uint8.
    """
    z = logits.astype(np.float64) / max(options.temperature, COLDEST)
    p = (1 + np.tanh(z / 2)) / 2
    if options.greedy:
        assert thresholds is not None
        notes = logits >= thresholds
    else:
        notes = draws < p
    if options.top_k or options.top_p < 1:
        notes &= likeliest_notes(z, p, options)
    return notes.astype(np.uint8)


def likeliest_notes(z: Array, p: Array, options: Options) -> Array:
    """Return which notes top_k and top_p leave, (B, 88) bool; z: log-odds, p: probabilities."""
    order = np.argsort(-z, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked  # what the likelier notes add up to
    left = before < options.top_p * ranked.sum(axis=1, keepdims=True)
    if options.top_k:
        left[:, options.top_k :] = False
    kept: Array = np.empty_like(left)
    np.put_along_axis(kept, order, left, axis=1)
    return kept


def fit_thresholds(model: Model, pieces: Sequence[Frames]) -> Array:
    """Return for each note the log-odds (88,) from which it is to sound, for a sigmoid head.

    Few notes are ever likelier to sound than not, so that taking the likelier value of each falls
    silent. With these thresholds the network, reading the pieces (n, 88), predicts each note as
    often as it sounds there, and never one that doesn't. Raises UserError without any pieces.
    """
    if not pieces:
        raise UserError("this model keeps no music to fit --greedy to: leave --greedy out")
    lengths = [len(frames) for frames in pieces]
    padded = np.zeros((max(lengths), len(pieces), NOTES), np.uint8)
    for k, frames in enumerate(pieces):
        padded[: len(frames), k] = frames
    reader = Reader(model, len(pieces))
    logits = np.empty(padded.shape, model.ops.dtype)
    for t, frames in enumerate(padded):
        logits[t] = reader.logits()
        reader.read(frames)
    inside = np.arange(max(lengths))[:, None] < lengths
    falling = -np.sort(-logits[inside], axis=0)
    sounds = padded.sum(axis=(0, 1), dtype=np.intp)
    last = np.take_along_axis(falling, np.maximum(sounds - 1, 0)[None], axis=0)[0]
    thresholds: Array = np.where(sounds > 0, last, np.inf)
    return thresholds
