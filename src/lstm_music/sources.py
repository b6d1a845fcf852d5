"""Where music comes from: the MIDI files of a folder, a zip or a named corpus, read one by one."""

import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from lstm_music.errors import UserError
from lstm_music.midi import MidiError, Piece, read_midi

MIDI_SUFFIXES = (".mid", ".midi", ".kar")
ROLLS = {
    "muse": ("MuseData", 8),
    "jsb": ("JSB_Chorales", 4),
    "nottingham": ("Nottingham", 8),
    "piano-midi": ("Piano_midi", 8),
}
"""Boulanger-Lewandowski's sets: the name of the file, and frames a whole note."""
ROLL_SUFFIXES = (".mat", ".pickle", ".pkl")
NAMED = ("bach", *ROLLS)


class Source(NamedTuple):
    """A MIDI file not yet read: its name, and how to get its bytes."""

    name: str
    read: Callable[[], bytes]


class Skipped(NamedTuple):
    """A file that can't be used, and why."""

    file: str
    reason: str


def find_sources(name: str, data: Path | None = None) -> list[Source]:
    """List the MIDI files of a corpus in a fixed order."""
    if data is not None:
        return files_at(data)
    if name == "bach":
        return zipped(resources.files("lstm_music").joinpath("data/bach.zip"))
    if name in ROLLS:
        raise UserError(
            f"'{name}' holds piano rolls, which have no MIDI messages: "
            "read it with --representation chord or note"
        )
    if name and Path(name).exists():
        return files_at(Path(name))
    if os.sep in name or Path(name).suffix:
        raise UserError(f"no file or folder '{name}': check the path")
    raise UserError(
        f"unknown corpus '{name}': use {', '.join(NAMED)}, "
        "or the path of a MIDI file, a folder of them, or a zip"
    )


def find_rolls(name: str, data: Path | None = None) -> Path | None:
    """Return the file of piano rolls that a corpus is, None where it is made of MIDI files.

    Without data, a named set is looked for in the folder that LSTM_MUSIC_DATA names.
    """
    path = data or Path(name)
    if name not in ROLLS or (data is not None and not data.is_dir()):
        return path if path.suffix.lower() in ROLL_SUFFIXES and path.is_file() else None
    folder = data or Path(os.environ.get("LSTM_MUSIC_DATA", ""))
    stem = ROLLS[name][0]
    wanted = {letters(stem), letters(f"{stem}.de"), letters(name)}  # Piano-midi.de.pickle
    named = data is not None or bool(os.environ.get("LSTM_MUSIC_DATA"))
    for file in sorted(folder.rglob("*")) if named else ():
        if file.suffix.lower() in ROLL_SUFFIXES and letters(file.stem) in wanted:
            return file
    raise UserError(
        f"no {stem}.mat or {stem}.pickle in "
        + (f"'{folder}'" if named else "the folder that LSTM_MUSIC_DATA should name")
        + f": say where it is, with --data {stem}.mat"
    )


def letters(name: str) -> str:
    """Return the letters of a name alone: JSB_Chorales is also JSB Chorales or jsb-chorales."""
    return "".join(filter(str.isalpha, name.lower()))


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


def read_pieces(sources: Iterable[Source], skipped: list[Skipped]) -> Iterator[Piece]:
    """Yield every piece that can be read; append the others to skipped."""
    for source in sources:
        try:
            yield read_midi(source.read(), source.name)
        except MidiError as error:
            skipped.append(Skipped(source.name, str(error)))
        except OSError as error:
            skipped.append(Skipped(source.name, f"can't be read: {error.strerror or error}"))
