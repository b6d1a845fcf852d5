"""What the commands share: argument types, errors in one line, files that are opened."""

import argparse
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from lstm_music.cli.commands import COMMANDS
from lstm_music.cli.printing import shown, unfailing
from lstm_music.corpus.load import PLAYED, REPRESENTATIONS, TELL_PARTS, Reading
from lstm_music.corpus.parsing import Workers
from lstm_music.corpus.sources import namesake
from lstm_music.corpus.survey import GRID
from lstm_music.errors import UserError, mpi_size_and_rank
from lstm_music.files import content_of, write_new, write_whole
from lstm_music.ops import BACKENDS
from lstm_music.training.ranks import Alone, abandon

T = TypeVar("T")
ENGINES = ("loky", "multiprocessing", "threading", "dask", "ray")
OWN = ("jobs", "open", "quiet", "threads")  # options that each rank may have of its own
PATIENCE = 1.0  # seconds that an error of a rank but the first waits for the first one's


# Arguments --------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults in --help and explains errors in one line."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"bin/{prog}", description=description, epilog=epilog, formatter_class=Formatter
        )

    def format_help(self) -> str:
        """Return the help, which names commands as they are typed here."""
        return as_typed(super().format_help())

    def error(self, message: str) -> NoReturn:
        """Raise the error that `run` prints in one line."""
        raise UserError(f"{message} (see {self.prog} --help)")


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults beside each option, and examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False:
            return action.help or ""
        return super()._get_help_string(action) or ""


def whole(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """Return an argument type: a whole number from low to high."""
    upper = f" to {high}" if high < 2**31 - 1 else " up"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {low}{upper}")
        return value

    return parse


def number(low: float, high: float = math.inf, above: bool = False) -> Callable[[str], float]:
    """Return an argument type: a finite number from low (or above it) to high."""
    start = f"above {low:g}" if above else f"from {low:g}"
    upper = f" to {high:g}" if high < math.inf else " up" * (not above)

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        low_enough = value <= high and value < math.inf
        if not (low_enough and (low < value if above else low <= value)):
            raise argparse.ArgumentTypeError(f"'{text}' is not a number {start}{upper}")
        return value

    return parse


def grid(text: str) -> int | str:
    """An argument type: a whole number from 1 to 1920, or several with commas between them."""
    numbers = sorted({whole(1, 1920)(number) for number in text.split(",")})
    return numbers[0] if len(numbers) == 1 else ",".join(map(str, numbers))


def option_of(name: str, value: Any = True) -> str:
    """Return an option as it is typed: of a truth as --parts or --no-parts, of None `no --grid`."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"no --{flag}" if value is None else f"--{flag} {value}"


# What says how to read a corpus: flag, help, and what argparse is to know beside them.
READING_OPTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "--representation",
        "messages; events, in which bars and places in them have tokens of their own; "
        "performances: the timing, dynamics and pedal of recordings; or frames of a piano roll as "
        "chord tokens or note vectors",
        {"choices": REPRESENTATIONS},
    ),
    (
        "--tracks",
        "tracks of messages end to end (the paper's), or interleaved by time",
        {"choices": ("flatten", "merge")},
    ),
    (
        "--grid",
        "steps a whole note, 8 for eighth notes: frames of a piano roll (default: the corpus's "
        "own, else 8); of messages and events, where notes are put, with N,N at the nearest "
        "point of either (default: they stay where they are)",
        {"type": grid, "metavar": "N"},
    ),
    (
        "--max-polyphony",
        "where more notes than N sound in a frame, N-1 at random stay; 0 for all",
        {"type": whole(0, 88), "metavar": "N"},
    ),
    (
        "--common-key",
        "write each piece of events or of a piano roll in C major, or in A or C minor, by its "
        "estimated key, which events tell; none leaves it as it sounds",
        {"choices": ("none", "A", "C")},
    ),
    (
        "--transpose-augment",
        "each epoch, transpose each training piece by up to N semitones, at random",
        {"type": whole(0, 64), "metavar": "N"},
    ),
    (
        "--min-count",
        "a message that training holds fewer times than N becomes the one nearest in time, of the "
        "same pitch and kind; 0 keeps all",
        {"type": whole(0), "metavar": "N"},
    ),
    (
        "--max-pieces",
        "so many MIDI files alone, drawn by --seed; 0 for all",
        {"type": whole(0), "metavar": "N"},
    ),
)
CHOSEN = (
    " (default: what --tracks, --min-count, --grid or --head ask for, else event of written music "
    f"and {PLAYED} of played, of whose onsets fewer than half lie on a grid of {GRID} to a whole "
    "note)"
)


def add_reading_options(parser: argparse.ArgumentParser, defaults: Mapping[str, Any]) -> None:
    """Add what says how to read a corpus, with defaults by the names of Reading's fields.

    A default stands in the help alone, and `reading_from` fills it in: `bin/train --resume` must
    know what was given.
    """
    for flag, text, settings in READING_OPTIONS:
        default = defaults[flag.removeprefix("--").replace("-", "_")]
        if default is not None:
            text += f" (default: {default})"
        elif flag == "--representation":
            text += CHOSEN
        parser.add_argument(flag, help=text, default=None, **settings)
    for flag, text in (
        ("--parts", "events and performances tell who plays each note, where a corpus has several "
         "parts, of performances more than a piano's hands (default: they do)"),
        ("--drums", "keep the drums, MIDI's channel 10 (default: where words tell parts)"),
    ):  # fmt: skip
        action = argparse.BooleanOptionalAction
        parser.add_argument(flag, help=text, default=None, action=action)


def parts_told(representation: str | None, corpus: str, parts: bool | None) -> dict[str, Any]:
    """Return what a reading adds where nothing else is asked: the parts, drums among them.

    The bundled chorales have no drums.
    """
    told = representation in TELL_PARTS and parts is not False
    return {"parts": True, "drums": corpus != "bach"} if told else {}


def reading_from(args: argparse.Namespace) -> Reading:
    """Return the Reading of the options given."""
    given = {field.name: getattr(args, field.name) for field in fields(Reading)}
    return Reading(**{name: value for name, value in given.items() if value is not None})


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add who parses MIDI files."""
    parser.add_argument(
        "--jobs",
        type=whole(1, 4096),
        metavar="N",
        help="processes that read MIDI files (default: one a core)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        help="joblib's backend that reads MIDI files; dask takes the scheduler that "
        "DASK_SCHEDULER_ADDRESS names, ray the cluster that RAY_ADDRESS names (default: loky, "
        "processes here)",
    )


def workers_from(args: argparse.Namespace) -> Workers:
    """Return who parses MIDI files by the options given, and connect to where they are."""
    if args.engine is not None:
        connect(args.engine)
    return Workers(args.jobs, args.engine)


@cache
def connect(engine: str) -> None:
    """Connect to where an engine's workers are, once. Raises UserError where it isn't installed."""
    try:
        if engine == "dask":
            from distributed import Client

            Client(os.environ.get("DASK_SCHEDULER_ADDRESS"), set_as_default=True)
        if engine == "ray":
            from ray.util.joblib import register_ray

            register_ray()
    except ImportError as error:
        raise UserError(
            f"--engine {engine} isn't installed here: pip install 'lstm-music[{engine}]'"
        ) from error


def add_backend_options(parser: argparse.ArgumentParser) -> None:
    """Add --backend and --threads."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="where to compute; auto takes the fastest that works here",
    )
    parser.add_argument(
        "--threads", type=whole(1, 1024), metavar="N", help="CPU threads (default: all cores)"
    )


def limit_threads(threads: int | None, backend: str) -> None:
    """Limit the BLAS's and Numba's threads; None leaves them at all cores."""
    if threads is None:
        return
    import threadpoolctl

    threadpoolctl.threadpool_limits(threads)
    if backend != "numpy":
        from lstm_music.ops.cpu.jit import limit_threads as limit_numba

        limit_numba(threads)


# Running ----------------------------------------------------------------------------------------


def run(main: Callable[[Sequence[str]], int], argv: Sequence[str], told: bool = True) -> int:
    """Run a command: one line `error: …` and status 2 for bad input, 130 after Ctrl-C.

    After SIGTERM it is 143, after a closed terminal 129, and processes that the command began end
    with it. What can't be printed ends nothing; told: whether the command is run for what it
    prints, so that its status says if something of that is missing.
    """
    if threading.current_thread() is threading.main_thread():
        for number in ends_by():
            signal.signal(number, lambda given, _: sys.exit(128 + given))
        forks_end_at_once()
    with unfailing() as out:
        status = status_of(main, argv)
        out.flush()
        if out.error is not None:
            status = status or unprinted(out.error, told)
        if status:
            abandon(status)
    return status


def status_of(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Return a command's exit status, its errors told."""
    try:
        return main(argv)
    except UserError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except MemoryError:
        return fail(
            "not enough memory: close other programs, or train with a lower --hidden, "
            "--embedding, --batch or --seq"
        )
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        return fail(f"{error.strerror or error}{where}: check the path and the free space")


def unprinted(error: OSError, told: bool) -> int:
    """Return the status of a command that did all but print it, and say why it couldn't."""
    if isinstance(error, BrokenPipeError):  # nobody reads on, nor wants to know
        return 141 if told else 0
    line = f"can't print all ({error.strerror}), the rest is done: print to another place"
    if told:
        return fail(line)
    warn(line)
    return 0


def ends_by() -> list[int]:
    """Return the signals that end a command; nohup has a closed terminal ignored: so it stays."""
    every = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in every if signal.getsignal(number) != signal.SIG_IGN]


@cache
def forks_end_at_once() -> None:
    """Have processes forked from this one end by signals themselves, not by Python's handler.

    A worker that is still starting, or waits for a lock, would miss it and be waited for for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=plain_signals)


def plain_signals() -> None:
    """Leave the signals that end a command to the system."""
    for number in ends_by():
        signal.signal(number, signal.SIG_DFL)


def check_ranks(args: argparse.Namespace, ranks: Alone) -> None:
    """Raise UserError where ranks were given different options, but for those of each machine."""
    ranks.check_alike({name: v for name, v in vars(args).items() if name not in OWN})


def fail(message: str) -> int:
    """Print a message as one line `error: …` on standard error; return status 2.

    Of an MPI launcher's processes the first speaks at once, the others if they are still there a
    little later: once one has left, all are ended, and so what is wrong for all is said once.
    """
    _, rank = mpi_size_and_rank() or (1, 0)
    if rank:
        time.sleep(PATIENCE)
        message = f"rank {rank}: {message}"
    print("error:", shown(as_typed(" ".join(message.split()))), file=sys.stderr, flush=True)
    return 2


def as_typed(text: str) -> str:
    """Return a text with each `bin/train` as who installed the package types it."""
    if Path(sys.argv[0]).stem != "lstm-music":
        return text
    return re.sub(rf"(?<![\w/.-])bin/(?=({'|'.join(COMMANDS)})\b)", "lstm-music ", text)


def warn(line: str) -> None:
    """Print a line on standard error without breaking a progress bar."""
    from tqdm import tqdm

    tqdm.write(shown(as_typed(f"warning: {' '.join(line.split())}")), file=sys.stderr)


def warn_of_namesake(name: str | None, data: Path | None) -> None:
    """Say which is taken where a corpus and something here have the name that was given."""
    own = namesake(name) if name and data is None else None
    if own:
        warn(f"'{name}' is the corpus of that name, not what lies here: write {own} for that")


def write(content: bytes, path: Path, new: bool = False) -> Path:
    """Write a file and return its path; where the disk refuses, what was there stays.

    new: whether it replaces none, and gets the next free number where there is one.
    """
    try:
        if new:
            return write_new(content, path)
        write_whole(content, path)
    except OSError as error:
        raise UserError(
            f"can't write '{path}' ({error.strerror}): choose another place, or free some space"
        ) from error
    return path


def put(draw: Callable[[Path], T], path: Path) -> T:
    """Have a file drawn, then write it; return what draw returns.

    What has that name is replaced, whether it's a file, a pipe or a link to elsewhere.
    """
    content, drawn = content_of(draw)
    write(content, path)
    return drawn
