"""A run's folder while it is trained: locked, followed where it's moved, made anew where it's gone.

A path may come to mean another folder, or none, while training goes on for days. The folder itself
is held open, and compared with what has its name before each write.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from lstm_music.errors import UserError
from lstm_music.runs.folder import CONFIG
from lstm_music.runs.lock import RunLock

GETPATH, PATH_BYTES = 50, 1024  # macOS: fcntl's F_GETPATH, and the longest path


class RunHome:
    """The folder of a run that this process trains, from `enter` until it is released.

    run: where it is now; make: makes the folder of a new run like this one, of the name given or
    one like it, and returns it; warn is called with a line where the folder is another now.
    """

    run: Path
    make: Callable[[Path], Path]

    def __init__(self, warn: Callable[[str], None] = lambda line: None) -> None:
        self._warn = warn
        self._lock: RunLock | None = None
        self._handle: int | None = None

    def enter(self, run: Path) -> None:
        """Take a run's folder, in place of one that was taken before.

        Raises UserError as RunLock does.
        """
        lock = RunLock(run, self._warn)
        self.release()
        self._lock, self.run, self._place = lock, run, run.absolute()
        if sys.platform != "win32":  # where no folder in use is moved
            self._handle = os.open(run, os.O_RDONLY)

    def follow(self) -> Path | None:
        """Return where the folder is now, which then is `run`; None where it is gone."""
        if self._handle is None or self._is_at(self.run):
            return self.run if self.run.is_dir() else None
        found = place_of(self._handle)
        if found is None or not self._is_at(found):
            return None
        self._place = found
        found = shown(found)
        self._warn(f"the run '{self.run}' was moved: going on in '{found}'")
        self.run = found
        return found

    def _is_at(self, path: Path) -> bool:
        assert self._handle is not None
        try:
            if os.path.samestat(os.stat(path), os.fstat(self._handle)):
                return True
        except OSError:
            return False
        # Some file systems of networks number a folder anew now and then.
        return sys.platform == "linux" and place_of(self._handle) == path.resolve()

    def settle(self) -> bool:
        """Have the folder in its place before a write; return whether it's a new, empty run's.

        Raises OSError where there is none, and none can be made.
        """
        found = self.follow()
        if found is not None and (found / CONFIG).exists():
            return False
        before = self.run
        try:
            self.enter(self.make(self._place))
        except UserError as error:  # its advice is for the beginning of a run
            raise OSError(str(error)) from error
        self.run = shown(self.run)
        self._warn(f"the run '{before}' was removed: going on in a new one, '{self.run}'")
        return True

    def release(self) -> None:
        """Let others have the run."""
        if self._lock is not None:
            self._lock.release()
        if self._handle is not None:
            os.close(self._handle)
        self._lock = self._handle = None

    def __enter__(self) -> "RunHome":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def place_of(handle: int) -> Path | None:
    """Return the path of an open folder as the system knows it, None where it doesn't."""
    try:
        if sys.platform == "darwin":
            import fcntl

            found = fcntl.fcntl(handle, GETPATH, bytes(PATH_BYTES))
            return Path(os.fsdecode(found.rstrip(b"\0")))
        return Path(os.readlink(f"/proc/self/fd/{handle}"))
    except OSError:
        return None


def shown(path: Path) -> Path:
    """Return a path as it is typed here: from the current folder, where it's in that."""
    try:
        return path.relative_to(Path.cwd())
    except (OSError, ValueError):
        return path
