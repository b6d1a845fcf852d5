"""Zip and tar archives of MIDI files, read member by member and never unpacked beside the music.

Nothing that an archive says of itself is believed: a member is read up to a size and no further, an
archive up to many times its own size, no byte of a zip twice, and a path that climbs out of the
archive is refused.
"""

import bz2
import gzip
import lzma
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from lstm_music.errors import UserError
from lstm_music.midi.piece import MOST_BYTES, MidiError
from lstm_music.untrusted import open_plain

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
MOST_UNPACKED = 100  # times the size of a packed archive: MIDI files pack to a third or so
LEAST_UNPACKED = 2**24  # bytes that any may unpack to
MOST_READ = 2**25  # bytes at once; a list of 178,561 files takes 20 MB of a zip
LOCAL_HEADER = 30  # bytes before a member of a zip, without its name
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a bound


class Sips:
    """A file of which no more is read at once than MOST_READ bytes, whatever it says of itself."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes; raises OSError for too many."""
        if size > MOST_READ:
            raise OSError(f"it says that a part of it has {size:,} bytes")
        return self.file.read(size if size >= 0 else MOST_READ)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


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

    path: a Path, or what has a name and open("rb"). Raises UserError where the archive can't be
    read; a member's read raises MidiError or OSError where that member can't.
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
    file = opened(path)
    archive = zipfile.ZipFile(cast(IO[bytes], Sips(file)))
    infos = archive.infolist()
    refusals = zip_refusals(infos, most_unpacked(file))
    for info in infos:
        if wanted(info.filename):
            mark = f"{info.header_offset} {info.file_size} {info.CRC}"
            read = zip_reader(archive, info, refusals.get(id(info)))
            yield Member(info.filename, read, mark)


def zip_refusals(infos: Iterable[zipfile.ZipInfo], most: int) -> dict[int, str]:
    """Return why files of a zip are not read, by id of their entry.

    Two entries could share bytes, so that a small zip unpacks without end; most: bytes in all.
    """
    refusals: dict[int, str] = {}
    end = total = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            refusals[id(info)] = "shares its bytes with another file of its archive"
            continue
        end = info.header_offset + LOCAL_HEADER + info.compress_size
        if info.file_size > MOST_BYTES:
            refusals[id(info)] = f"is larger than {MOST_BYTES:,} bytes"
        elif total + info.file_size > most:
            refusals[id(info)] = f"unpacks, with its archive, to {MOST_UNPACKED} times its size"
        else:
            total += info.file_size
    return refusals


def zip_reader(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, refusal: str | None
) -> Callable[[], bytes]:
    """Return a function that reads one file of a zip, or raises MidiError for a refusal."""

    def read() -> bytes:
        refuse_climbing(info.filename)
        if refusal:
            raise MidiError(refusal)
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
    with tarfile.open(fileobj=cast(IO[bytes], Sips(file)), mode="r:") as archive:
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
    file = opened(path)
    head = file.read(6)
    file.seek(0)
    unpack = next((unpack for magic, unpack in PACKED.items() if head.startswith(magic)), None)
    if unpack is None:
        return file
    most = most_unpacked(file)
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


def opened(path: Any) -> IO[bytes]:
    """Open an archive. Raises OSError, or ValueError for a pipe or a device."""
    file: IO[bytes] = open_plain(path) if isinstance(path, Path) else path.open("rb")
    return file


def most_unpacked(file: IO[bytes]) -> int:
    """Return how many bytes an archive may unpack to, and go to its beginning."""
    most = max(LEAST_UNPACKED, MOST_UNPACKED * file.seek(0, 2))
    file.seek(0)
    return most


def refuse_climbing(name: str) -> None:
    """Raise MidiError for the name of a file that would lie outside its archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = path.parts[0].endswith(":") if path.parts else False
    if path.is_absolute() or drive or ".." in path.parts:
        raise MidiError("has a path that climbs out of its archive")
