"""bin/listen: a blind listening test in the browser, and what its ratings say."""

import argparse
import json
import sys
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    as_typed,
    limit_threads,
    number,
    run,
    warn,
    warn_of_namesake,
    whole,
    write,
)
from lstm_music.cli.opening import open_file
from lstm_music.cli.printing import Bar, shown
from lstm_music.errors import UserError, pip_install
from lstm_music.listening.study import Study, Wanted, create
from lstm_music.untrusted import typeable

HUMAN = "people"
DEFAULT_DB = Path("listening.sqlite")
COMPARED = ("untrained", "chord-frequency")  # the paper's baselines
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST_TOKEN = 8
TITLE = "A listening test"
EXAMPLES = """examples:
  bin/listen runs/my-run other=piece.mid take.wav --control bach   make a test and serve it
  bin/listen                                   go on with the test in listening.sqlite
  bin/listen run-1 run-2 --export report/browser/        a page for people without a server
  bin/listen --import ratings-*.json           add what they send back
  bin/listen --results listening.sqlite        means, tests, raters needed: HTML and JSON
  bin/listen bach --baselines --control bach --num 10 --make-only
                                               ten clips of each, to be served later

A clip is of the system NAME in NAME=PATH, else of one named by its file, folder or run. A run
composes --num clips, a folder gives so many of its MIDI and WAV files. --baselines are those of the
first source, which must be a run.
"""


def main(argv: Sequence[str]) -> int:
    """Make, serve, export or read a study; return the exit status."""
    args = make_parser().parse_args(argv)
    if args.results is not None:
        return show_results(args)
    if args.imported:
        return bring_in(args)
    if not (args.export or args.make_only):
        check_extra()
    check_host(args)
    limit_threads(args.threads, args.backend)
    study = find_study(args)
    if args.export:
        return export(study, args)
    return 0 if args.make_only else serve(study, args)


def check_extra() -> None:
    """Raise UserError where the server's packages are missing."""
    if not (find_spec("flask") and find_spec("waitress")):
        raise UserError(
            f"the listening test needs a small web server: {pip_install('flask', 'waitress')}"
        )


def check_host(args: argparse.Namespace) -> None:
    """Raise UserError where other computers could reach the study and need no token."""
    if args.token is not None and len(args.token) < SHORTEST_TOKEN:
        raise UserError(f"--token needs at least {SHORTEST_TOKEN} letters")
    if args.host not in LOOPBACK and args.token is None and not args.export:
        raise UserError(
            f"--host {args.host} lets other computers in: add --token CODE, which raters must know"
        )


# Making -----------------------------------------------------------------------------------------


def find_study(args: argparse.Namespace) -> Study:
    """Return the study that the arguments ask for: a new one, or that in --db."""
    wanted = [named(word) for word in args.sources]
    if args.baselines:
        if not wanted:
            raise UserError("--baselines are those of a run: say of which")
        wanted += [Wanted(kind, wanted[0].source, False, kind) for kind in COMPARED]
    if args.control is not None:
        system, _, source = args.control.rpartition("=")
        wanted.append(Wanted(system or HUMAN, source, True))
        warn_of_namesake(source, None)
    if not wanted:
        if not args.db.is_file():
            raise UserError(
                "say what to listen to: runs, MIDI or WAV files (see bin/listen --help)"
            )
        return Study(args.db)
    if args.db.exists():
        raise UserError(
            f"'{args.db}' holds a study already: bin/listen --db {typeable(args.db)} goes on with "
            "it, another --db makes a new one"
        )
    from lstm_music.listening import making  # what plays and measures takes seconds to load

    asked = making.Asked(args.num, args.seconds, args.seed, args.backend, warn)
    with Bar(args.quiet, "systems") as bar:
        rows, seconds, level = making.clips_of(wanted, asked, bar.show)
    study = create(args.db, args.title, rows, seconds, min(args.repeat, len(rows)))
    if args.quiet and args.make_only:
        print(args.db)
    if not args.quiet:
        print(f"{args.db}  ({len(rows)} clips of {seconds:.1f} s at {level:.1f} LUFS)")
    return study


def named(word: str) -> Wanted:
    """Return what NAME=PATH or PATH means."""
    name, equals, source = word.partition("=")
    if equals and name and not Path(word).exists():
        return Wanted(name, source, False)
    path = Path(word)
    return Wanted(path.stem if path.suffix else path.resolve().name, word, False)


# Serving, exporting, importing ------------------------------------------------------------------


def serve(study: Study, args: argparse.Namespace) -> int:
    """Serve a study until Ctrl-C; return the exit status."""
    from lstm_music.listening import server

    local = args.host in LOOPBACK
    app = server.make_app(study, args.token, LOOPBACK if local else (), warn)

    def ready(address: str) -> None:
        print(address, flush=True)
        if not args.quiet:
            if args.token:
                print("raters need the code that --token gave", flush=True)
            print(f"ratings go to {study.path}; Ctrl-C ends, the same command goes on", flush=True)
        if args.open:
            webbrowser.open(address)

    server.serve(app, args.host, args.port, ready)
    return 130  # the server ends by Ctrl-C alone


def export(study: Study, args: argparse.Namespace) -> int:
    """Write the page that needs no server; return the exit status."""
    from lstm_music.listening.export import static_page

    content = static_page(study).encode()
    path = args.export / "index.html"
    write(content, path)
    back = as_typed(f"bin/listen --db {typeable(study.path)} --import FILE.json…")
    more = f"  ({len(content) / 1e6:.1f} MB); ratings that people send back: {back}"
    print(f"{path}{'' if args.quiet else more}")
    return 0


def bring_in(args: argparse.Namespace) -> int:
    """Add the files of raters who had no server; return the exit status."""
    from lstm_music.listening.export import read_back

    study = Study(args.db)
    added = sum(read_back(study, path) for path in args.imported)
    known = len(args.imported) - added
    print(f"{added} raters added" + (f", {known} were there before" if known else ""))
    return 0


def show_results(args: argparse.Namespace) -> int:
    """Print what a study's ratings say and write it as a page and as JSON; return the status."""
    from lstm_music.listening import results as told
    from lstm_music.listening.statistics import analyse

    study = Study(args.results)
    results = analyse(study, args.keep_all, args.seed)
    page = args.out or args.results.with_suffix(".html")
    table = args.json or args.results.with_suffix(".json")
    write(told.page(study, results).encode(), page)
    content = json.dumps(told.as_json(study, results), indent=2, ensure_ascii=False)
    write((content + "\n").encode(), table)
    if not args.quiet:
        print("\n".join(shown(line) for line in told.lines(results)))
    print(page)
    print(table)
    if args.open:
        open_file(page)
    return 0


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("listen", "A blind listening test in the browser.", EXAMPLES)
    add = parser.add_argument
    add("sources", nargs="*", metavar="[NAME=]FILE_OR_RUN",
        help="runs, bundled models, MIDI or WAV files, folders of them")  # fmt: skip
    add("--control", metavar="[NAME=]C", help="music by people: a corpus, a file or a folder")
    add(
        "--num", type=whole(1, 30), default=3, metavar="N", help="clips of each run, folder, corpus"
    )
    add("--baselines", action="store_true",
        help="also clips of the first run untrained, and of chords by frequency")  # fmt: skip
    add("--repeat", type=whole(0, 5), default=0, metavar="N",
        help="clips that each rater hears twice, to find careless ones")  # fmt: skip
    add("--seconds", type=number(1, 120), default=20.0, metavar="S", help="of each clip, at most")
    add("--title", default=TITLE, metavar="TEXT", help="what the page is headed")
    add("--seed", type=whole(0), default=0, metavar="N", help="of what is composed or drawn")
    add("--db", type=Path, default=DEFAULT_DB, metavar="FILE", help="the study and its ratings")
    add("--host", default=LOOPBACK[0], metavar="H",
        help="address to serve on; any but this computer's own needs --token")  # fmt: skip
    add("--port", type=whole(0, 65_535), default=8765, metavar="N", help="0 for any that is free")
    add("--token", metavar="CODE", help="what raters must know to begin")
    add("--make-only", action="store_true", help="make the study, and serve it another time")
    add("--export", type=Path, metavar="DIR", help="write a page that needs no server, don't serve")
    add("--import", dest="imported", nargs="+", type=Path, metavar="FILE.json",
        help="add what raters of such a page send back")  # fmt: skip
    add("--results", type=Path, metavar="DB", help="tell what a study's ratings say")
    add(
        "--keep-all", action="store_true", help="of --results: exclude no rater who rated all clips"
    )
    add("--out", type=Path, metavar="FILE.html", help="of --results (default: beside the study)")
    add("--json", type=Path, metavar="FILE", help="of --results (default: beside the study)")
    add("--open", action="store_true", help="show the page")
    add("--quiet", action="store_true", help="print addresses and paths alone")
    add_backend_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
