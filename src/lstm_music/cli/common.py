"""What the commands share: argument types, errors in one line, where runs are, progress."""

import argparse
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from lstm_music.errors import UserError
from lstm_music.trainer import Interrupted

RUNS = Path("runs")


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults in --help and explains errors in one line."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"bin/{prog}", description=description, epilog=epilog, formatter_class=Formatter
        )

    def error(self, message: str) -> NoReturn:
        """Print one line to standard error and exit with status 2."""
        raise UserError(f"{message} (see {self.prog} --help)")


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults beside each option, and examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str:
        unset = action.default in (None, False, argparse.SUPPRESS)
        return (action.help or "") if unset else (super()._get_help_string(action) or "")


def whole(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """Return an argument type: a whole number from low to high."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            upper = f" to {high}" if high < 2**31 - 1 else " up"
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {low}{upper}")
        return value

    return parse


def number(low: float, high: float = float("inf"), above: bool = False) -> Callable[[str], float]:
    """Return an argument type: a number from low (or above it) to high."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if (
            not (low < value if above else low <= value)
            or not value <= high
            or value == float("inf")
        ):
            start = f"above {low:g}" if above else f"from {low:g}"
            upper = f" to {high:g}" if high < float("inf") else " up" * (not above)
            raise argparse.ArgumentTypeError(f"'{text}' is not a number {start}{upper}")
        return value

    return parse


def run(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run a command: one line `error: …` and status 2 for bad input, 130/143 after a signal."""
    try:
        return main(argv)
    except UserError as error:
        return fail(str(error))
    except Interrupted as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError:
        return fail("not enough memory: lower --hidden, --embedding, --batch or --seq")
    except (OSError, zipfile.BadZipFile) as error:
        where = f" '{error.filename}'" if getattr(error, "filename", None) else ""
        reason = getattr(error, "strerror", None) or error
        return fail(f"{reason}{where}: check the path and the free space")


def fail(message: str) -> int:
    """Print a message as one line `error: …` on standard error; return status 2."""
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2


def warn(line: str) -> None:
    """Print a line on standard error without breaking a progress bar."""
    from tqdm import tqdm

    tqdm.write(f"warning: {line}", file=sys.stderr)


def run_folder(name: str) -> Path:
    """Return the folder of a run: a path as it is, a bare name in runs/."""
    path = Path(name)
    bare = len(path.parts) == 1 and not path.is_absolute() and name not in (".", "..")
    return RUNS / name if bare and not (path / "checkpoints").is_dir() else path


def newest_run() -> Path | None:
    """Return the run in runs/ whose checkpoints changed last, or None."""
    found = [path.parent.parent for path in RUNS.glob("*/checkpoints/latest") if path.exists()]
    return max(found, key=lambda run: (run / "checkpoints").stat().st_mtime, default=None)


def add_backend_options(parser: argparse.ArgumentParser) -> None:
    """Add --backend and --threads."""
    from lstm_music.ops import BACKENDS

    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="where to compute; auto takes the fastest that works here",
    )
    parser.add_argument(
        "--threads", type=whole(1, 1024), metavar="N", help="CPU threads (default: all cores)"
    )


def limit_threads(threads: int | None) -> None:
    """Limit the BLAS's and Numba's threads; None leaves them at all cores."""
    if threads is None:
        return
    import numba
    import threadpoolctl

    threadpoolctl.threadpool_limits(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
