"""Files that appear whole or not at all; the folder of what can be made again.

Of two processes that look for a free name at once both find the same; only making it tells who
has it. The names of what is still being written are nobody else's either: in two containers that
share a folder, two processes may have the same number.
"""

import atexit
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from lstm_music.errors import UserError

T = TypeVar("T")


def beside(path: Path) -> Path:
    """Return a hidden name in a path's folder that nobody else has, for what is being written."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def write_whole(content: bytes, path: Path) -> None:
    """Write a file and its folders; in one step it takes the place of what has its name.

    Raises OSError where the disk refuses; what was there then stays.
    """
    _write(content, path, lambda made: made.replace(path))


def write_new(content: bytes, path: Path) -> Path:
    """Write a file and its folders; return its path, the next free number's where path is taken.

    path: its stem ends with a number, as sample-0001. Raises OSError where the disk refuses.
    """
    taken = path

    def place(made: Path) -> None:
        nonlocal taken
        while not move_in(made, taken):
            stem = taken.stem.rpartition("-")[0]
            taken = numbered(taken.parent, stem, taken.suffix, free_number(taken.parent, stem))

    _write(content, path, place)
    return taken


def _write(content: bytes, path: Path, place: Callable[[Path], object]) -> None:
    """Write a file beside a path, and have it put in its place."""
    made = beside(path)
    try:
        with suppress(FileExistsError):  # where that is no folder, writing says so
            path.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(content)
        place(made)
    except BaseException:
        with suppress(OSError):
            made.unlink()
        raise


def move_in(made: Path, path: Path) -> bool:
    """Give a file its name; return whether nothing had it. Raises OSError where the disk refuses.

    Hard links would do it in one step, but not every file system has them.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    try:
        made.replace(path)
    except OSError:
        path.unlink()
        raise
    return True


def numbered(folder: Path, stem: str, suffix: str, number: int) -> Path:
    """Return the path of a numbered file, such as sample-0001.mid."""
    return folder / f"{stem}-{number:04d}{suffix}"


def free_number(folder: Path, stem: str) -> int:
    """Return the number after the highest of a folder's files stem-NUMBER, of any kind."""
    ends = [path.stem.rpartition("-")[2] for path in folder.glob(f"{stem}-*")]
    return 1 + max((int(end) for end in ends if end.isdecimal()), default=0)


def move_new(made: Path, folder: Path, again: bool) -> Path:
    """Give a folder that isn't empty its name; return it, with a number appended where it's taken.

    again: whether another name will do. Raises FileExistsError where it won't, and OSError where
    the disk refuses.
    """
    path, n = folder, 2
    while True:
        if not os.path.lexists(path):
            try:
                return made.rename(path)
            except OSError:
                if not os.path.lexists(path):
                    raise
        if not again:
            raise FileExistsError(path)
        path, n = folder.with_name(f"{folder.name}-{n}"), n + 1


def cache_folder() -> Path:
    """Return the folder for it: $LSTM_MUSIC_CACHE, else the user's cache folder.

    Where that can't be written it's a temporary one. Raises UserError where there is none either.
    """
    own = os.environ.get("LSTM_MUSIC_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):  # a user without a home
        folder = (Path(base) if base else Path.home() / ".cache") / "lstm-music"
        if can_write(folder):
            return folder
    return temporary_folder()


def can_write(folder: Path) -> bool:
    """Return whether a folder can be written, or made where it isn't there."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


@cache
def temporary_folder() -> Path:
    """Return a temporary folder that this user alone can write, and say so once.

    It stays for the next time, unless somebody else has taken its name. Raises UserError.
    """
    user = getattr(os, "getuid", lambda: "")()
    try:
        folder = Path(tempfile.gettempdir()) / f"lstm-music-{user}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        ours = stat.S_ISDIR(found.st_mode) and (not user or found.st_uid == user)
        if not ours or (os.name == "posix" and found.st_mode & 0o077):
            folder = Path(tempfile.mkdtemp(prefix="lstm-music-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"no folder here can be written, not even a temporary one ({error.strerror}): "
            "set TMPDIR to one that can"
        ) from error
    from lstm_music.errors import mpi_size_and_rank

    if (mpi_size_and_rank() or (1, 0))[1] == 0:
        print(
            "note: your cache folder can't be written: what can be made again is kept in "
            f"'{folder}' (LSTM_MUSIC_CACHE names another place)",
            file=sys.stderr,
        )
    return folder


def content_of(draw: Callable[[Path], T]) -> tuple[bytes, T]:
    """Return the file that draw writes to a path, and what it returns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure"
        drawn = draw(path)
        return path.read_bytes(), drawn
