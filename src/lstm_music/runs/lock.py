"""One process on a run's folder: a lock that the system lets go of when its process ends.

The lock is the system's own on the file `lock`, not the file's existence nor the process id in
it: a process that is killed leaves no lock behind, whoever has its id later, in whatever
container. What the file says is only for the message to the second process.
"""

import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lstm_music.errors import UserError
from lstm_music.runs.folder import not_writable

NAME = "lock"
LOCKED_BYTE = 1 << 30  # on Windows, whose locks are of bytes that nobody else may read
LARGEST = 4096  # bytes of what a lock file says
# A link could have this process empty a file elsewhere, and a pipe have it wait.
FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class RunLock:
    """Keeps a run's folder from other processes until it is released or the process ends.

    warn is called with a line where the last process was killed, and where the file system has no
    locks. Raises UserError where another process has the run, or the folder can't be written.
    """

    def __init__(self, run: Path, warn: Callable[[str], None] = lambda line: None) -> None:
        self.run = run
        try:
            self._handle: int | None = os.open(run / NAME, FLAGS, 0o666)
        except OSError as error:
            raise not_writable(run, error) from error
        try:
            before = self._lock(warn)
            if before is not None:
                warn(
                    f"{before}, which trained '{run}' before, was killed: "
                    "going on from its last checkpoint"
                )
            self._write(described())
        except BaseException:
            self._close()
            raise

    def _lock(self, warn: Callable[[str], None]) -> str | None:
        """Take the lock; return who was killed with it, if somebody was."""
        assert self._handle is not None
        try:
            lock(self._handle)
        except BlockingIOError as error:
            raise UserError(
                f"{holder(self._handle) or 'another process'} trains the run '{self.run}': "
                "stop it first, or wait for its end"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise not_writable(self.run, error) from error
            warn(f"no locks in '{self.run}' ({error.strerror}): train it in one process alone")
            return None
        return holder(self._handle)

    def _write(self, text: str) -> None:
        assert self._handle is not None
        try:
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.write(self._handle, text.encode())
        except OSError:  # a full disk: the lock holds without a name
            return

    def release(self) -> None:
        """Let others have the run. The file stays, empty: whoever waits for it has it open."""
        if self._handle is not None:
            self._write("")
            self._close()

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)  # which unlocks
            self._handle = None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def described() -> str:
    """Return what a lock file says of this process."""
    return json.dumps({"process": os.getpid(), "host": socket.gethostname()}) + "\n"


def holder(handle: int) -> str | None:
    """Return the process that a lock file names, None where it names none."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        found: Any = json.loads(os.read(handle, LARGEST))
        host = "".join(c for c in str(found["host"])[:64] if c.isprintable())
        return f"process {int(found['process'])} on {host}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def lock(handle: int) -> None:
    """Lock an open file for this process. Raises BlockingIOError where another has it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
