"""The chord representation: a word for the notes that sound together at a step of a grid."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from lstm_music.midi.roll import HIGHEST, LOWEST, NOTES, Frames, pack
from lstm_music.tokenizers.messages import NUMBER, PIECE_END

REST = "rest"
SPECIALS = (PIECE_END,)  # it gets id 0 and is the start symbol too
WORD = re.compile(f"{NUMBER}(-{NUMBER})*")
CHUNK = 2**23  # similarities at a time, 32 MB: a matrix product of few rows is a slow one


def chord_word(pitches: Iterable[int]) -> str:
    """Return the word for the MIDI pitches that sound together, in whatever order they come."""
    return "-".join(map(str, sorted(pitches))) or REST


def parse(word: str) -> list[int] | None:
    """Return a word's MIDI pitches, ascending, and none for a rest; None for a special.

    Raises ValueError for anything else.
    """
    if word in SPECIALS:
        return None
    if word == REST:
        return []
    pitches = [int(pitch) for pitch in word.split("-")] if WORD.fullmatch(word) else [0]
    if pitches != sorted({*pitches}) or pitches[0] < LOWEST or pitches[-1] > HIGHEST:
        raise ValueError(f"not a chord: {word!r}")
    return pitches


def transpose_word(word: str, semitones: int) -> str | None:
    """Return the word some semitones higher, or None where a note would leave the piano.

    A special stays as it is. Raises ValueError for a malformed word.
    """
    pitches = parse(word)
    if pitches is None:
        return word
    moved = [pitch + semitones for pitch in pitches]
    return chord_word(moved) if all(LOWEST <= pitch <= HIGHEST for pitch in moved) else None


def chord_words(frames: Frames) -> list[str]:
    """Return a word for each frame (steps, 88)."""
    distinct, numbers = _distinct(frames)
    words = [chord_word((np.flatnonzero(frame) + LOWEST).tolist()) for frame in distinct]
    return [words[n] for n in numbers.tolist()]


def frames_of_words(words: Sequence[str]) -> Frames:
    """Return a frame for each word; raises ValueError for a special or a malformed word."""
    frames = np.zeros((len(words), NOTES), np.uint8)
    for frame, word in zip(frames, words, strict=True):
        pitches = parse(word)
        if pitches is None:
            raise ValueError(f"not a chord: {word!r}")
        frame[np.array(pitches, np.intp) - LOWEST] = 1
    return frames


def thin(frames: Frames, most: int, keep: int, rng: np.random.Generator) -> Frames:
    """Return frames in which, where more than most notes sound, only keep of them do.

    They are drawn without replacement. Raises ValueError unless 1 <= keep <= most.
    """
    if not 1 <= keep <= most:
        raise ValueError(f"of more than {most} notes, 1 to {most} can stay, not {keep}")
    thinned = frames.copy()
    full = np.flatnonzero(frames.sum(axis=1) > most)
    lots = rng.random((len(full), NOTES), np.float32)
    lots[frames[full] == 0] = 2  # more than any note's
    chosen = np.argpartition(lots, keep - 1, axis=1)[:, :keep]
    thinned[full] = 0
    thinned[full[:, None], chosen] = 1
    return thinned


class NearestChord:
    """Finds the known chord with the largest Jaccard similarity: notes shared by notes of either.

    known: (n, 88) 0/1; of chords as similar the first is the nearest. Silence resembles only
    itself. Raises ValueError where no chord is known.
    """

    def __init__(self, known: Frames) -> None:
        if not len(known):
            raise ValueError("no chord is known")
        notes = _with_rest(known)
        self._sizes = notes.sum(axis=1)
        self._columns = np.ascontiguousarray(notes.T)

    def __call__(self, frame: Frames) -> int:
        """Return the number of the known chord that is nearest to a frame (88,)."""
        return int(self.many(frame[None])[0])

    def many(self, frames: Frames) -> npt.NDArray[np.intp]:
        """Return the number (steps,) of the known chord that is nearest to each frame."""
        distinct, numbers = _distinct(frames)
        rows = max(1, CHUNK // len(self._sizes))
        parts = [distinct[at : at + rows] for at in range(0, len(distinct), rows)]
        nearest = [np.zeros(0, np.intp), *map(self._nearest, parts)]
        return np.concatenate(nearest)[numbers]

    def _nearest(self, frames: Frames) -> npt.NDArray[np.intp]:
        notes = _with_rest(frames)
        shared = notes @ self._columns  # whole numbers, so that equal quotients have equal bits
        # With q = shared / (notes of one + notes of the other), Jaccard's is q / (1 - q).
        shared /= notes.sum(axis=1, keepdims=True) + self._sizes
        nearest: npt.NDArray[np.intp] = np.argmax(shared, axis=1)
        return nearest


def _with_rest(frames: Frames) -> npt.NDArray[np.float32]:
    """Return frames (steps, 89), in which silence is a note of its own."""
    silent = ~frames.any(axis=1, keepdims=True)
    return np.concatenate([frames, silent], axis=1, dtype=np.float32)


def _distinct(frames: Frames) -> tuple[Frames, npt.NDArray[np.intp]]:
    """Return each different frame once, and (steps,) which of them each frame is."""
    rows = np.ascontiguousarray(pack(frames)).view("V11")[:, 0]
    _, first, numbers = np.unique(rows, return_index=True, return_inverse=True)
    return frames[first], numbers
