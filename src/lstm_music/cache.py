"""Where what can be made again is kept: prepared corpora, compiled code."""

import atexit
import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from lstm_music.errors import UserError


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
    from lstm_music.ranks import launched

    if (launched() or (1, 0))[1] == 0:
        print(
            "note: your cache folder can't be written: what can be made again is kept in "
            f"'{folder}' (LSTM_MUSIC_CACHE names another place)",
            file=sys.stderr,
        )
    return folder
