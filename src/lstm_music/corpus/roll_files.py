"""Boulanger-Lewandowski's data sets: files of piano rolls -> frames, by split."""

import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_music.corpus.splits import SPLITS
from lstm_music.errors import UserError
from lstm_music.midi.roll import HIGHEST, LOWEST, NOTES, Frames
from lstm_music.untrusted import TooLarge, read_bounded

LARGEST = 64 << 20  # bytes of a file; the largest of the sets has a third of it
MOST_STEPS = 1 << 22  # in all; the largest of the sets has a tenth
MOST_PITCHES = 1 << 23  # the same
CORES = ("numpy.core", "numpy._core")  # the name has changed with versions


def read_rolls(path: Path) -> dict[str, list[Frames]]:
    """Read one of the data sets: train, valid, test -> the frames (n, 88) of each piece.

    path: a .mat file (traindata, validdata, testdata: cells of 0/1 matrices), or a .pickle or .pkl
    (train, valid, test: sequences of frames, each the MIDI pitches that sound). Raises UserError
    for a file that can't be read or holds anything else. A process of its own reads the file,
    with little memory and time: the parsers believe any size that a file names.
    """
    made = subprocess.run(
        [sys.executable, "-m", "lstm_music.corpus.roll_process", str(path)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
    )
    line, _, data = made.stdout.partition(b"\n")
    if made.returncode or not line:
        raise unusable(path, "its reader broke down, or took too long")
    said = json.loads(line)
    if "error" in said:
        raise UserError(said["error"])
    return unpacked(said, data)


def rolls_in(path: Path) -> dict[str, list[Frames]]:
    """As `read_rolls`, in this process and without limits."""
    readers: dict[str, Callable[[bytes], dict[str, list[Frames]]]] = {
        ".mat": rolls_of_mat,
        ".pickle": rolls_of_pickle,
        ".pkl": rolls_of_pickle,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"'{path}' is not a .mat, .pickle or .pkl file: choose another")
    data = file_of_rolls(path)
    try:
        return reader(data)
    except MemoryError:
        raise unusable(path, "it asks for far more memory than a file of its size needs") from None
    except Exception as error:  # rubbish leads the parsers to whatever it leads them to
        raise unusable(path, " ".join(str(error).split()) or type(error).__name__) from error


def file_of_rolls(path: Path) -> bytes:
    """Return a file's content. Raises UserError where it can't be read, or is far too large."""
    try:
        return read_bounded(path, LARGEST)
    except TooLarge:
        raise unusable(path, f"it has more than {LARGEST >> 20} MB") from None
    except ValueError as error:
        raise unusable(path, str(error)) from None
    except OSError as error:
        raise UserError(f"can't read '{path}' ({error.strerror or error}): check it") from error


def unusable(path: Path, reason: str) -> UserError:
    """Return the error for a file that holds something else."""
    return UserError(f"can't use '{path}' ({reason}): get the data set anew")


def packed(rolls: Mapping[str, list[Frames]]) -> tuple[dict[str, list[int]], list[bytes]]:
    """Return the length of each piece by split, and the frames of each as bits."""
    lengths = {split: [len(frames) for frames in rolls[split]] for split in SPLITS}
    return lengths, [np.packbits(f, axis=1).tobytes() for s in SPLITS for f in rolls[s]]


def unpacked(lengths: Mapping[str, list[int]], data: bytes) -> dict[str, list[Frames]]:
    """Return what `packed` packed."""
    bits = np.frombuffer(data, np.uint8).reshape(-1, NOTES // 8)
    rolls: dict[str, list[Frames]] = {}
    at = 0
    for split in SPLITS:
        rolls[split] = []
        for length in lengths[split]:
            rolls[split].append(np.unpackbits(bits[at : at + length], axis=1))
            at += length
    return rolls


def rolls_of_mat(data: bytes) -> dict[str, list[Frames]]:
    """Return the frames in a MATLAB file. Raises ValueError, among others, for anything else."""
    import scipy.io  # takes longer to load than bin/sample to begin

    wanted = [f"{split}data" for split in SPLITS]
    found = scipy.io.loadmat(io.BytesIO(data), variable_names=wanted)
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    rolls = {}
    for split, name in zip(SPLITS, wanted, strict=True):
        cells = found[name]
        if cells.dtype != np.object_:
            raise ValueError(f"{name} is not a cell array of matrices")
        named = ((f"{name}, sequence {n + 1}", cell) for n, cell in enumerate(cells.ravel()))
        rolls[split] = [frames_of_matrix(cell, where) for where, cell in named]
    return checked(rolls)


def frames_of_matrix(matrix: Any, where: str) -> Frames:
    """Return a 0/1 matrix (steps, 88) as frames."""
    if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "biuf":
        raise ValueError(f"{where}: not a matrix of numbers")
    if matrix.ndim != 2 or matrix.shape[1] != NOTES or not len(matrix):
        raise ValueError(f"{where}: its shape is {matrix.shape}, not (steps, {NOTES})")
    if not np.isin(matrix, (0, 1)).all():
        raise ValueError(f"{where}: it holds other numbers than 0 and 1")
    return np.ascontiguousarray(matrix, np.uint8)


class NumbersUnpickler(pickle.Unpickler):
    """Builds dictionaries, lists, tuples, strings, numbers and NumPy arrays of numbers: no more.

    A pickle can otherwise run any program. Strings of Python 2 are read as Latin-1.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global that the pickle names. Raises ValueError for others."""
        stand_ins: dict[tuple[str, str], Any] = {
            ("numpy", "dtype"): number_type,
            ("numpy", "ndarray"): None,  # only ever an argument of _reconstruct
            ("_codecs", "encode"): encoded,
            ("__builtin__", "bytes"): no_bytes,
        }
        for core in CORES:
            stand_ins[f"{core}.multiarray", "_reconstruct"] = empty_array
            stand_ins[f"{core}.multiarray", "scalar"] = number_of
            stand_ins[f"{core}.numeric", "_frombuffer"] = array_of
        if (module, name) in stand_ins:
            return stand_ins[module, name]
        raise ValueError(f"it asks for {module}.{name}, which is neither a list nor a number")


class NumberType:
    """Stands for a NumPy type in a pickle: NumPy's own would take any state, and crash on some."""

    def __init__(self, code: Any) -> None:
        self.kind: np.dtype[Any] = np.dtype(code)
        if self.kind.kind not in "biuf":
            raise ValueError(f"it holds arrays of {code}, not of numbers")

    def __setstate__(self, state: Any) -> None:
        """Take a state: the second of its parts is the order of bytes, and no others matter."""
        self.kind = self.kind.newbyteorder(state[1])


class NumberArray:
    """Stands for a NumPy array in a pickle."""

    def __init__(self) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        """Take a state: version, shape, type, whether in Fortran's order, and bytes."""
        _, shape, kind, fortran, data = state
        self.array = array_of(data, kind, shape, "F" if fortran else "C").array


def number_type(code: Any, *_: Any) -> NumberType:
    """Return the NumPy type of a code such as "i8". Raises ValueError unless it is of numbers."""
    return NumberType(code)


def empty_array(*_: Any) -> NumberArray:
    """Return an array without elements, whatever size is asked for: its state gives it that."""
    return NumberArray()


def array_of(data: Any, kind: Any, shape: Any, order: Any) -> NumberArray:
    """Return the array that bytes are of a NumPy type. Raises ValueError unless they fit."""
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    if not isinstance(kind, NumberType) or max(shape, default=0) > len(raw):
        raise ValueError("it holds an array that is none")
    made = NumberArray()
    made.array = np.frombuffer(raw, kind.kind).reshape(shape, order=order)
    return made


def number_of(kind: Any, data: Any) -> Any:
    """Return the number that bytes are of a NumPy type. Raises ValueError for other bytes."""
    (number,) = array_of(data, kind, (1,), "C").array
    return number


def encoded(text: Any, encoding: Any) -> bytes:
    """Return the bytes that Python 3 writes as text for Python 2. Raises ValueError for others."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("it holds text where bytes should be")
    return text.encode("latin1")


def no_bytes() -> bytes:
    """Return the bytes that Python 3 writes as a call where there are none."""
    return b""


def rolls_of_pickle(data: bytes) -> dict[str, list[Frames]]:
    """Return the frames in a pickle. Raises ValueError, among others, for anything else."""
    found = NumbersUnpickler(data).load()
    if not isinstance(found, dict) or not set(SPLITS) <= set(found):
        raise ValueError(f"it is not a dictionary of {', '.join(SPLITS)}")
    rolls: dict[str, list[Frames]] = {}
    steps = pitches = 0
    for split in SPLITS:
        rolls[split] = []
        for n, sequence in enumerate(items(found[split], split)):
            frames, named = frames_of_pitches(sequence, f"{split}, sequence {n + 1}")
            steps, pitches = steps + len(frames), pitches + named
            if steps > MOST_STEPS or pitches > MOST_PITCHES:  # written once, and named often
                raise ValueError(f"it has more than {MOST_STEPS:,} steps or {MOST_PITCHES:,} notes")
            rolls[split].append(frames)
    return checked(rolls)


def frames_of_pitches(sequence: Any, where: str) -> tuple[Frames, int]:
    """Return a sequence of steps, each the MIDI pitches that sound, as frames; and how many."""
    steps = items(sequence, where)
    if not steps or len(steps) > MOST_STEPS:
        raise ValueError(f"{where}: it is empty" if not steps else f"{where}: it is too long")
    frames = np.zeros((len(steps), NOTES), np.uint8)
    count = 0
    for frame, step in zip(frames, steps, strict=True):
        pitches = items(step, where)
        count += len(pitches)
        if count > MOST_PITCHES:
            raise ValueError(f"{where}: it is too long")
        for pitch in pitches:
            if isinstance(pitch, bool) or not isinstance(pitch, int | float | np.number):
                raise ValueError(f"{where}: a {type(pitch).__name__} is no pitch")
            if not float(pitch).is_integer() or not LOWEST <= pitch <= HIGHEST:
                raise ValueError(f"{where}: {pitch} is no pitch from {LOWEST} to {HIGHEST}")
            frame[int(pitch) - LOWEST] = 1
    return frames, count


def items(value: Any, where: str) -> Sequence[Any]:
    """Return a list's, a tuple's or an array's items. Raises ValueError for anything else."""
    if isinstance(value, NumberArray):
        value = value.array
    if isinstance(value, np.ndarray) and value.ndim:  # a row of a table is one, too
        return list(value)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: a {type(value).__name__} where a list should be")
    return value


def checked(rolls: Mapping[str, list[Frames]]) -> dict[str, list[Frames]]:
    """Return the splits. Raises ValueError for one without pieces."""
    if empty := [split for split in SPLITS if not rolls[split]]:
        raise ValueError(f"it has no pieces in {' and '.join(empty)}")
    return dict(rolls)
