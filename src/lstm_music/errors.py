"""The one exception that a command turns into a line `error: …`."""

import shlex
import sys


class UserError(Exception):
    """Something the user can put right.

    The message says in one line what is wrong and what to do next; commands print it after
    `error: ` and exit with status 2.
    """


def pip_install(*packages: str) -> str:
    """Return the command that installs packages for the Python that runs this."""
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
