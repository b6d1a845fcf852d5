"""The commands: one small module each, and `lstm-music COMMAND …` for an installed package."""

import importlib
import sys

COMMANDS = (
    "train",
    "sample",
    "corpus",
    "evaluate",
    "figures",
    "report",
    "listen",
    "reproduce",
    "completion",
)


def main() -> int:
    """Run the command that the first argument names, and return its exit status."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        wants_help = len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help")
        usage = f"usage: lstm-music {{{','.join(COMMANDS)}}} …"
        print(usage if wants_help else f"error: {usage}", file=None if wants_help else sys.stderr)
        return 0 if wants_help else 2
    from lstm_music.cli.common import run

    command = importlib.import_module(f"lstm_music.cli.{sys.argv[1]}")
    return run(command.main, sys.argv[2:])
