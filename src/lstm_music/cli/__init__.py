"""The commands: one small module each, and `lstm-music COMMAND …` for an installed package."""

import importlib
import sys
from collections.abc import Sequence

from lstm_music.cli.commands import COMMANDS, LONG
from lstm_music.errors import UserError


def main() -> int:
    """Run the command that the first argument names, and return its exit status."""
    from lstm_music.cli.common import run

    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        return run(usage, sys.argv[1:])
    command = importlib.import_module(f"lstm_music.cli.{sys.argv[1]}")
    return run(command.main, sys.argv[2:], told=sys.argv[1] not in LONG)


def usage(argv: Sequence[str]) -> int:
    """Print the commands, where that is asked for; raise UserError where it isn't."""
    line = f"usage: lstm-music {{{','.join(COMMANDS)}}} …"
    if argv[:1] not in (["-h"], ["--help"]):
        raise UserError(line)
    print(line)
    return 0
