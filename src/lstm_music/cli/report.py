"""bin/report: one HTML page about runs, with everything inside."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    run,
    warn,
    warn_of_namesake,
    whole,
    write,
)
from lstm_music.cli.opening import check_opener, open_file
from lstm_music.corpus.splits import SPLITS
from lstm_music.errors import UserError
from lstm_music.report.gathering import (
    TEMPERATURES,
    Asked,
    Chosen,
    chosen_runs,
    corpora_of,
    likelihoods,
    pictures_of,
    report_of,
    room_for,
)
from lstm_music.report.page import MOST, page

EXAMPLES = """examples:
  bin/report my-run                        writes runs/my-run/report.html
  bin/report my-run --open                 and shows it
  bin/report run-1 run-2 --out both.html   two runs beside each other
  bin/report                               the newest run, else the bundled model
"""


def main(argv: Sequence[str]) -> int:
    """Write the page and print its path; return the exit status."""
    args = make_parser().parse_args(argv)
    if args.open:
        check_opener()
    limit_threads(args.threads, args.backend)
    asked = Asked(args.num, args.seed, args.split, args.corpus, args.data, args.backend)
    chosen = chosen_runs(args.runs, warn)
    samples = len(chosen) * len(TEMPERATURES) * args.num
    room = room_for(chosen, samples)
    out = args.out or default_path(chosen)
    with Steps(3 * len(chosen) + samples) as steps:
        warn_of_namesake(args.corpus, args.data)
        corpora = corpora_of(chosen, asked, steps)
        tables, remarks = likelihoods(chosen, corpora, asked, steps)
        pictures = pictures_of(chosen, corpora, args.seed, steps)
        reports = [report_of(*one, pictures[one[0]], room, asked, steps) for one in chosen]
        content = page(reports, tables, remarks).encode()
    if len(content) > MOST:
        raise UserError(
            f"the page would have {len(content) / 1e6:.1f} MB, more than {MOST / 1e6:.0f}: "
            "give fewer runs, or a lower --num"
        )
    write(content, out)
    print(out if args.quiet else f"{out}  ({len(content) / 1e6:.1f} MB, {samples} samples)")
    if args.open:
        open_file(out)
    return 0


# Runs -------------------------------------------------------------------------------------------


def default_path(chosen: Sequence[Chosen]) -> Path:
    """Return where the page goes: into the run's folder, or of several or none, this one."""
    folder = chosen[0][2] if len(chosen) == 1 else None
    return (folder or Path()) / "report.html"


# The file ---------------------------------------------------------------------------------------


class Steps:
    """A progress bar that appears after two seconds, on a terminal."""

    def __init__(self, steps: int) -> None:
        from tqdm import tqdm

        hide = not sys.stderr.isatty()
        self.said: set[str] = set()
        self.bar: Any = tqdm(total=steps, unit="step", delay=2, leave=False, disable=hide)

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def show(self, what: str) -> None:
        """Say what is being made, and count it."""
        self.bar.set_description(what)
        self.bar.update()

    def warn(self, line: str) -> None:
        """Print a warning, unless it is empty or was printed before."""
        if line and line not in self.said:
            warn(line)
        self.said.add(line)


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser(
        "report",
        "Write one HTML page about runs, with curves, likelihoods, sounds and the networks inside.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="runs or checkpoints; several are compared")
    add(
        "--out",
        type=Path,
        metavar="FILE.html",
        help="where to write (default: report.html in the run's folder; of several, here)",
    )
    add("--open", action="store_true", help="show the page in the browser")
    add(
        "--num",
        type=whole(1, 100),
        default=1,
        metavar="N",
        help=f"samples of each run at each temperature, {', '.join(map(str, TEMPERATURES))}",
    )
    add("--seed", type=whole(0), default=0, metavar="N", help="another seed gives other samples")
    add("--split", choices=SPLITS, default="test", help="the part of the corpus to predict")
    add("--corpus", metavar="C", help="what to evaluate on (default: the run's own corpus)")
    add("--data", type=Path, metavar="FILE", help="read a named corpus from this file or folder")
    add("--quiet", action="store_true", help="print nothing but the path")
    add_backend_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
