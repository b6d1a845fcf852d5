"""Zip and tar archives of MIDI files, read member by member and never unpacked beside the music.

Nothing that an archive says of itself is believed: a member is read up to a size and no further, a
packed tar up to many times its own size, and a path that climbs out of the archive is refused.
"""

import bz2
import gzip
import lzma
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from lstm_music.errors import UserError
from lstm_music.midi import MOST_BYTES, MidiError

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
MOST_UNPACKED = 100  # times the size of a packed tar: MIDI files pack to a third or so
LEAST_UNPACKED = 2**24  # bytes that any may unpack to
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a bound


class Member(NamedTuple):
    """A file in an archive: its name, how to get its bytes, and what tells its content apart."""

    name: str
    read: Callable[[], bytes]
    mark: str


def is_archive(name: str) -> bool:
    """Return whether a file of this name should be an archive that `members` reads."""
    return name.lower().endswith((*ZIP_SUFFIXES, *TAR_SUFFIXES))


def members(path: Any, wanted: Callable[[str], bool]) -> list[Member]:
    """Return the files of an archive that are wanted by name, sorted by name.

    path has a name and open("rb"). Raises UserError where the archive can't be read; a member's
    read raises MidiError or OSError where that member can't.
    """
    kind = "zip" if path.name.lower().endswith(ZIP_SUFFIXES) else "tar"
    try:
        found = list((zip_members if kind == "zip" else tar_members)(path, wanted))
    except UserError:
        raise
    except Exception as error:  # zipfile and tarfile raise whatever the rubbish leads them to
        raise UserError(
            f"can't read the archive '{path}' ({error}): is it a whole {kind}?"
        ) from error
    return sorted(found, key=lambda member: member.name)


def zip_members(path: Any, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the wanted files of a zip."""
    archive = zipfile.ZipFile(path.open("rb"))
    for info in archive.infolist():
        if wanted(info.filename):
            mark = f"{info.header_offset} {info.file_size} {info.CRC}"
            yield Member(info.filename, zip_reader(archive, info), mark)


def zip_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], bytes]:
    """Return a function that reads one file of a zip."""

    def read() -> bytes:
        refuse_climbing(info.filename)
        if info.compress_type not in BOUNDED:
            raise MidiError("is packed by a method other than Deflate: make the zip anew with that")
        try:
            with archive.open(info) as file:
                return file.read(MOST_BYTES + 1)
        except Exception as error:  # here too
            raise OSError(str(error) or type(error).__name__) from error

    return read


def tar_members(path: Any, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the wanted files of a tar, packed or not."""
    file = unpacked(path)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            if wanted(info.name) and not info.isdir():
                mark = f"{info.offset_data} {info.size} {info.mtime}"
                yield Member(info.name, tar_reader(file, info), mark)
            setattr(archive, "members", [])  # noqa: B010 — tarfile would remember them all


def tar_reader(file: IO[bytes], info: tarfile.TarInfo) -> Callable[[], bytes]:
    """Return a function that reads one file of a tar."""
    plain = info.isreg() and not info.issparse()
    name, offset, size = info.name, info.offset_data, info.size

    def read() -> bytes:
        refuse_climbing(name)
        if not plain:
            raise MidiError("is a link or a device in its archive: only plain files are read")
        file.seek(offset)
        data = file.read(min(size, MOST_BYTES + 1))
        if len(data) < min(size, MOST_BYTES + 1):
            raise OSError("the archive ends in the middle of it")
        return data

    return read


def unpacked(path: Any) -> IO[bytes]:
    """Return a tar's file, unpacked to a temporary one first where it is packed."""
    file: IO[bytes] = path.open("rb")
    head = file.read(6)
    file.seek(0)
    unpack = next((unpack for magic, unpack in PACKED.items() if head.startswith(magic)), None)
    if unpack is None:
        return file
    most = max(LEAST_UNPACKED, MOST_UNPACKED * file.seek(0, 2))
    file.seek(0)
    plain = tempfile.TemporaryFile()  # noqa: SIM115 — the members read it later
    with file, unpack(file) as stream:
        while block := stream.read(2**20):
            if plain.tell() + len(block) > most:
                raise UserError(
                    f"'{path}' unpacks to more than {MOST_UNPACKED} times its size: unpack it "
                    "yourself if you trust it, and name the folder"
                )
            plain.write(block)
    plain.seek(0)
    return plain


def refuse_climbing(name: str) -> None:
    """Raise MidiError for the name of a file that would lie outside its archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = path.parts[0].endswith(":") if path.parts else False
    if path.is_absolute() or drive or ".." in path.parts:
        raise MidiError("has a path that climbs out of its archive")
