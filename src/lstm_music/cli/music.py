"""bin/evaluate --music: judge what runs compose against real music."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    number,
    run,
    warn,
    warn_of_namesake,
    whole,
    write,
)
from lstm_music.cli.printing import Bar, shown
from lstm_music.corpus.splits import SPLITS
from lstm_music.errors import UserError
from lstm_music.evaluation.music.form import PHRASE
from lstm_music.evaluation.music.judgement import (
    Judgement,
    as_json,
    in_words,
    judge,
    percentile_90,
    recites,
    some_mean,
)
from lstm_music.evaluation.music.memorisation import LONG, SHORT
from lstm_music.evaluation.music.repetition import WHOLE_LAGS
from lstm_music.evaluation.music.sets import Asked, corpus_for, reference_of, sets_of
from lstm_music.midi.piece import BAR
from lstm_music.runs.opened import (
    bundled_model,
    newest_run,
    open_run,
    reading_of,
)

EXAMPLES = """examples:
  bin/evaluate --music my-run                    50 pieces of 16 bars against the test split
  bin/evaluate --music run-1 run-2 --json out.json --figure bars.png
  bin/evaluate --music my-run --reference ~/my-midi

Without a run: the newest one, else the bundled model. The first run's corpus is the reference.
Of each set of pieces: what it is like (muspy's measures), how far the distances within held-out
music overlap those to it (MGEval; 1 is alike), what it has copied from training, and how often its
bars return. Of whole pieces: what returns in them, whether it loops, how they end, their phrases.
Of performances, which have no bars, what counts those is left out.
"""


def main(argv: Sequence[str]) -> int:
    """Print tables and what they say, write JSON and a figure if asked to; return the status."""
    args = make_parser().parse_args(argv)
    limit_threads(args.threads, args.backend)
    names = args.runs or [str(newest_run() or bundled_model())]
    opened = [(name, *open_run(name, warn)) for name in dict.fromkeys(names)]
    asked = asked_from(args)
    corpora = [corpus_for(*one, reading_of(*one[1:]), asked) for one in opened]
    reference = reference_of(opened[0], corpora[0], asked)
    warn_of_namesake(args.reference, args.data)
    has_bars = all(one.meta["tokenizer"]["name"] != "performance" for _, one, _ in opened)
    if args.figure and not has_bars:
        raise UserError("--figure draws bars, and a performance has none: leave it out")
    with Bar(args.quiet, "sets") as bar:
        judged = []
        makers = sets_of(opened, corpora, reference, asked)
        held_out = makers[0]()
        for n, make in enumerate(makers):
            one = held_out if n == 0 else make()
            judged.append(judge(held_out, one, args.bars, args.seed, has_bars))
            bar.show(n + 1, len(makers))
    if not args.quiet:
        print_tables(judged, args)
    for line in in_words(judged, judged[0]):
        print(shown(line))
    if args.json:
        content = {
            "bars": args.bars, "seed": args.seed, "reference": judged[0].name,
            "sets": [as_json(one, judged[0]) for one in judged],
        }  # fmt: skip
        write((json.dumps(content, indent=2) + "\n").encode(), args.json)
    if args.figure:
        from lstm_music.rendering.figures import self_similarity

        args.figure.parent.mkdir(parents=True, exist_ok=True)
        self_similarity(judged, args.figure)
    return 0


# Tables -----------------------------------------------------------------------------------------

Rows = list[tuple[str, list[str]]]
"""Names, and a cell for each set of pieces."""


def print_tables(judged: Sequence[Judgement], args: argparse.Namespace) -> None:
    """Print all tables, a column for each set of pieces."""
    first, others = judged[0], judged[1:]
    length = f"{args.bars} bars" if first.repetition else f"{args.bars * BAR / 1000:.1f} s"
    bars = "" if first.repetition else "; performances have no bars: what counts them is left out"
    print(f"Excerpts and pieces of {length}, seed {args.seed}{bars}\n")
    rows = [("pieces", [str(one.pieces) for one in judged])]
    if any(one.silent for one in judged):
        rows.append(("silent", [str(one.silent) for one in judged]))
    rows += [(name, [f"{one.numbers[name][0]:.3f}" for one in judged]) for name in first.numbers]
    print_table("means", judged, rows)
    overlaps = [one.overlap for one in others]
    rows = [
        ("all, mean", [f"{found.value:.2f}" for found in overlaps]),
        ("  95 % interval", [f"{found.low:.2f}-{found.high:.2f}" for found in overlaps]),
    ]
    divergences: Rows = []
    for name in others[0].nearness:
        near = [one.nearness[name] for one in others]
        rows.append((name, [f"{found.overlap.value:.2f}" for found in near]))
        divergences.append((name, [f"{found.divergence.value:.2f}" for found in near]))
    print_table(f"overlap with {first.name}", others, rows)
    print_table("divergence, nats", others, divergences)
    print_table("copied from training", judged, memory_rows(judged))
    if not first.repetition:
        return
    repeated = [
        (f"{lag} bar{'s' * (lag > 1)} before", [f"{o.repetition[lag].value:.1%}" for o in judged])
        for lag in first.repetition
    ]
    print_table("bars that repeat the one", judged, repeated)
    print_table("whole pieces", judged, whole_rows(judged))


def memory_rows(judged: Sequence[Judgement]) -> Rows:
    """Return the rows of the table of copies."""
    held_out = judged[0].memory

    def cells(show: Callable[[Any], str]) -> list[str]:
        return ["-" if one.memory is None else show(one.memory) for one in judged]

    def verdict(one: Judgement) -> str:
        if one.kind != "run" or one.memory is None or held_out is None:
            return "-"
        return "RECITES" if recites(one.memory, held_out) else "no"

    return [
        (f"{SHORT} notes, transposed too", cells(lambda m: f"{m.short.value:.1%}")),
        (f"{SHORT} notes, exactly", cells(lambda m: f"{m.short_exact:.1%}")),
        (f"{LONG} notes, transposed too", cells(lambda m: f"{m.long.value:.1%}")),
        (f"{LONG} notes, exactly", cells(lambda m: f"{m.long_exact:.1%}")),
        ("longest run, mean", cells(lambda m: f"{m.longest:.1f}")),
        ("longest run", cells(lambda m: str(m.worst.transposed.notes))),
        ("samples half copied", cells(lambda m: str(len(m.recited)))),
        ("recites", [verdict(one) for one in judged]),
    ]


def whole_rows(judged: Sequence[Judgement]) -> Rows:
    """Return the rows of the table of whole pieces."""
    held_out = judged[0].whole

    def cell(form: str, of: Callable[[Any], float]) -> list[str]:
        values = [math.nan if one.whole is None else of(one.whole) for one in judged]
        return ["-" if math.isnan(value) else format(value, form) for value in values]

    def equal(lag: int) -> list[str]:
        return cell(".1%", lambda whole: whole.equal[lag].value)

    return [
        ("pieces", cell("d", lambda w: len(w.bars))),
        *((f"equal to {lag} bar{'s' * (lag > 1)} before", equal(lag)) for lag in WHOLE_LAGS),
        ("returns a piece", cell(".2f", lambda w: w.returns.value)),
        ("longest return, mean", cell(".1f", lambda w: w.longest.mean())),
        ("longest return, bars", cell(".0f", lambda w: w.longest.max())),
        ("passage, median bars", cell(".1f", lambda w: some_mean(w.passages, np.median))),
        ("passage, 90th percentile", cell(".1f", lambda w: percentile_90(w.passages))),
        ("times in a row, mean", cell(".2f", lambda w: w.times.mean())),
        ("times in a row, most", cell(".0f", lambda w: w.times.max())),
        ("pieces that loop", cell("d", lambda w: w.loops(held_out))),
        ("end on the tonic", cell(".0%", lambda w: w.tonic.value)),
        ("end in their first key", cell(".0%", lambda w: w.key.value)),
        ("phrases of {} to {} bars".format(*PHRASE), cell(".0%", lambda w: w.phrases.value)),
        ("bars, median", cell(".0f", lambda w: np.median(w.bars))),
        ("bars, longest", cell(".0f", lambda w: w.bars.max())),
    ]


def print_table(title: str, judged: Sequence[Judgement], rows: Rows) -> None:
    """Print a table, a line for each row, and an empty line."""
    first = max(len(title), *(len(name) for name, _ in rows))
    widths = [max(9, len(one.name)) for one in judged]
    for name, cells in [(title, [one.name for one in judged]), *rows]:
        aligned = (f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        print(shown("  ".join([f"{name:{first}}", *aligned])))
    print()


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("evaluate --music", "Judge what runs compose against real music.", EXAMPLES)
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="a run, or a checkpoint (a step-… folder)")
    add("--reference", "--corpus", metavar="C", help="real music (default: the first run's own)")
    add_set_options(parser)
    add("--figure", type=Path, metavar="FILE.png", help="draw how bars resemble each other")
    add("--quiet", action="store_true", help="print what the figures say alone")
    add_backend_options(parser)
    return parser


def add_set_options(parser: Parser) -> None:
    """Add what says which sets of pieces to judge, but for the reference; `asked_from` reads it."""
    add = parser.add_argument
    add("--data", type=Path, metavar="FILE", help="read the named corpus from this file or folder")
    add("--split", choices=SPLITS, default="test", help="the part of the reference to judge by")
    add("--num", type=whole(2, 10_000), default=50, metavar="N", help="pieces of each set, at most")
    add("--bars", type=whole(2, 1000), default=16, metavar="N", help="bars of 4/4 of each piece")
    add("--seed", type=whole(0), default=0, metavar="N", help="of all that is drawn")
    above_0, share = number(0, 100, above=True), number(0, 1, above=True)
    add("--temperature", type=above_0, default=1.0, metavar="X", help="as of bin/sample")
    as_there = "as of bin/sample (default: as there)"
    add("--top-p", type=share, metavar="P", help=as_there)
    add("--craft", type=number(0, 100), metavar="X", help=as_there)
    add("--particles", type=whole(1, 4096), metavar="N", help=as_there)
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")


def asked_from(args: argparse.Namespace) -> Asked:
    """Return what the options ask for."""
    return Asked(
        args.reference, args.data, args.split, args.bars, args.num, args.seed, args.backend,
        args.temperature, args.top_p, args.craft, args.particles, warn,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
