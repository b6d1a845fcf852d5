"""Opening a file with the system's program for it, as --open asks."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from lstm_music.errors import UserError

OPENER_SECONDS = 5.0  # in which the system's opener says that it can't


def check_opener() -> None:
    """Raise UserError where the system has no program that opens files."""
    if sys.platform != "win32" and shutil.which(opener()) is None:
        raise UserError(
            f"no program to open files with here ({opener()}): leave --open out, and open the "
            "file yourself"
        )


def opener() -> str:
    """Return the system's program that opens any file with the one made for it."""
    return "open" if sys.platform == "darwin" else "xdg-open"


def open_file(path: Path) -> None:
    """Open a file with the system's program for it, and let that run on."""
    check_opener()
    if sys.platform == "win32":
        os.startfile(path)
        return
    process = subprocess.Popen(
        [opener(), str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with suppress(subprocess.TimeoutExpired):  # then it's the viewer itself, and it runs
        if process.wait(OPENER_SECONDS):
            raise UserError(f"{opener()} knows no program for '{path}': open it yourself")
