"""Where music comes from: the MIDI files of a folder, an archive or a named corpus."""

import os
import stat
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lstm_music.corpus.archives import is_archive, members
from lstm_music.errors import UserError
from lstm_music.midi.piece import MOST_BYTES, MidiError
from lstm_music.untrusted import open_plain, printable

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi")
ROLLS = {
    "muse": ("MuseData", 8),
    "jsb": ("JSB_Chorales", 4),
    "nottingham": ("Nottingham", 8),
    "piano-midi": ("Piano_midi", 8),
}
"""Boulanger-Lewandowski's sets: the name of the file, and frames a whole note."""
ROLL_SUFFIXES = (".mat", ".pickle", ".pkl")
NAMED = ("bach", "classical", *ROLLS)


class Source(NamedTuple):
    """A MIDI file not yet read: its name, how to get its bytes, and what changes if they do.

    read returns at most MOST_BYTES + 1 bytes and raises MidiError or OSError. stamp is cheap to
    know: where, how large and how old the file is; "" where that can't be known.
    """

    name: str
    read: Callable[[], bytes]
    stamp: str = ""


class Skipped(NamedTuple):
    """A file that can't be used, and why."""

    file: str
    reason: str


class Mended(NamedTuple):
    """A file in which something was mended: kind of repair -> how often, as in midi.REPAIRS."""

    file: str
    repairs: dict[str, int]


def namesake(name: str) -> str | None:
    """Return what to type for a file or folder that has the name of a corpus, if one is here."""
    return os.path.join(".", name) if name in NAMED and Path(name).exists() else None


def or_namesake(name: str) -> str:
    """Return how an error about a named corpus goes on where a file or folder has its name."""
    own = namesake(name)
    return f", or write {own} for what lies here" if own else ""


def find_sources(name: str, data: Path | None = None, built: Path | None = None) -> list[Source]:
    """List the MIDI files of a corpus in a fixed order.

    built: where the corpus "classical" is kept once it is built.
    """
    if data is not None:
        return files_at(data)
    if name == "bach":
        return archived(resources.files("lstm_music").joinpath("data/bach.zip"))
    if name == "classical":
        if built is not None and built.is_file():
            return archived(built)
        raise UserError(
            "the corpus 'classical' isn't built yet: build it with bin/corpus classical --build, "
            f"or say where yours is with --data FILE{or_namesake(name)}"
        )
    if name in ROLLS:
        raise UserError(
            f"'{name}' holds piano rolls, which have no MIDI messages: "
            f"read it with --representation chord or note{or_namesake(name)}"
        )
    if name and Path(name).exists():
        return files_at(Path(name))
    if os.sep in name or Path(name).suffix:
        raise UserError(f"no file or folder '{name}': check the path")
    raise UserError(
        f"unknown corpus '{name}': use {', '.join(NAMED)}, "
        "or the path of a MIDI file, a folder of them, a zip or a tar"
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
        kind = file.suffix.lower() in ROLL_SUFFIXES and not is_leftover(file.as_posix())
        if kind and letters(file.stem) in wanted:
            return file
    raise UserError(
        f"no {stem}.mat or {stem}.pickle in "
        + (f"'{folder}'" if named else "the folder that LSTM_MUSIC_DATA should name")
        + f": say where it is, with --data {stem}.mat{'' if data else or_namesake(name)}"
    )


def letters(name: str) -> str:
    """Return the letters of a name alone: JSB_Chorales is also JSB Chorales or jsb-chorales."""
    return "".join(filter(str.isalpha, name.lower()))


def files_at(path: Path) -> list[Source]:
    """List the MIDI files at a path: one file, a folder with its folders, a zip or a tar."""
    if not path.exists():
        raise UserError(f"no file or folder '{path}': check the path")
    if path.is_dir():
        sources = sorted(in_folder(path), key=lambda source: Path(source.name).parts)
    elif is_archive(path.name):
        sources = archived(path)
    elif is_midi(path.name):
        sources = [file_source(path, path.name)]
    else:
        raise UserError(f"'{path}' is not a MIDI file, a folder, a zip or a tar: choose another")
    if not sources:
        raise UserError(f"no MIDI files ({', '.join(MIDI_SUFFIXES)}) in '{path}': choose another")
    return sources


def is_midi(name: str) -> bool:
    """Return whether a file of this name should be a MIDI file."""
    return name.lower().endswith(MIDI_SUFFIXES)


def is_leftover(name: str) -> bool:
    """Return whether a file of this name is one of those that macOS puts beside others."""
    path = PurePosixPath(name)
    return path.name.startswith("._") or "__MACOSX" in path.parts


def in_folder(top: Path) -> Iterator[Source]:
    """Yield the MIDI files of a folder and its folders, links followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    closed: list[OSError] = []
    for folder, below, files in os.walk(top, onerror=closed.append, followlinks=True):
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:
            below.clear()
            name = os.path.relpath(folder, top)
            yield refused(name, "is a link to a folder that is read already")
            continue
        seen.add((here.st_dev, here.st_ino))
        below.sort()
        for file in files:
            if is_midi(file):
                path = Path(folder, file)
                yield file_source(path, path.relative_to(top).as_posix())
    for error in closed:
        name = os.path.relpath(error.filename, top)
        yield refused(name, f"is a folder that can't be read: {error.strerror}")


def refused(name: str, reason: str) -> Source:
    """Return a source that can't be read, for a reason known before."""

    def read() -> bytes:
        raise MidiError(reason)

    return Source(printable(name), read)


def file_source(path: Path, name: str) -> Source:
    """Return the source that a file on the disk is."""
    try:
        status = path.stat()
    except OSError as error:
        return refused(name, f"can't be read: {error.strerror}")
    if not stat.S_ISREG(status.st_mode):
        return refused(name, "is no plain file")  # reading a pipe would never end

    def read() -> bytes:
        try:
            with open_plain(path) as file:
                return file.read(MOST_BYTES + 1)
        except ValueError as error:  # it has become a pipe since
            raise MidiError("is no plain file") from error

    return Source(printable(name), read, stamp_of(path, status))


def stamp_of(path: Path, status: os.stat_result) -> str:
    """Return what tells a file's content from what it was before, as far as that is cheap."""
    changed = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{path.absolute()} {status.st_ino} {status.st_size} {changed}"


def archived(path: Any) -> list[Source]:
    """List the MIDI files of an archive, in order of name."""
    try:
        own = stamp_of(path, path.stat())
    except (AttributeError, OSError):  # a package in a zip has files without a status
        own = ""
    return [
        Source(printable(member.name), member.read, own and f"{own} {member.mark}")
        for member in members(path, is_midi)
    ]
