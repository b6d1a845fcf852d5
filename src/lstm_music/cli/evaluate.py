"""bin/evaluate: how well runs predict music that they were not trained on."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

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
from lstm_music.cli.printing import shown
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.corpus.splits import SPLITS
from lstm_music.errors import UserError
from lstm_music.evaluation.likelihood import (
    Row,
    baseline_score,
    columns,
    evaluate,
    frame_row,
    per_note,
    published_rows,
)
from lstm_music.network.baselines import BASELINES
from lstm_music.ops import get_ops
from lstm_music.runs.opened import evaluation_corpus, open_run

EXAMPLES = """examples:
  bin/evaluate my-run                      on the test split of its own corpus
  bin/evaluate run-1 run-2 --json out.json
  bin/evaluate runs/my-run/checkpoints/step-00001000 --split valid
  bin/evaluate --baseline note-unigram --corpus jsb --data JSB_Chorales.mat
  bin/evaluate --music my-run              judge what it composes (bin/evaluate --music --help)
  bin/evaluate --chorales my-run           how well it writes four voices

Lower is better. Each run is followed by baselines on the same music: the frequencies of tokens,
notes or chords in the training split, and the same network before its first step. Nats per frame
compare models of piano rolls with each other and with what papers have published for the set. Nats
per note, of the pieces with their tracks merged, compare messages of any layout, events and
performances; nats per second are of performances, whose tokens tell the time.
"""


def main(argv: Sequence[str]) -> int:
    """Print a table, and write it as JSON if asked to; return the exit status."""
    if "--music" in argv:
        from lstm_music.cli import music

        return music.main([word for word in argv if word != "--music"])
    if "--chorales" in argv:
        from lstm_music.cli import chorales

        return chorales.main([word for word in argv if word != "--chorales"])
    args = make_parser().parse_args(argv)
    if not args.runs and not args.baseline:
        raise UserError("say what to evaluate: a run, or --baseline with --corpus")
    if args.baseline and not args.corpus:
        raise UserError(f"say what to evaluate --baseline {args.baseline} on, with --corpus")
    limit_threads(args.threads, args.backend)
    rows: list[Row] = []
    published: dict[str, list[Row]] = {}
    if args.baseline:
        rolls = rolls_of(args)
        row = frame_row(args.baseline, baseline_score(args.baseline, rolls, args.split))
        rows.append(per_note(row, rolls, args.split))
        published |= published_rows(rolls, args.split)
    for name in args.runs:
        checkpoint, folder = open_run(name, warn)
        corpus = evaluation_corpus(name, checkpoint, folder, args.corpus, args.data)
        rows += evaluate(name, checkpoint, corpus, args.split, get_ops(args.backend))
        if isinstance(corpus, RollCorpus):
            published |= published_rows(corpus, args.split)
    warn_of_namesake(args.corpus, args.data)
    print_table(rows, args.split)
    for name, others in published.items():
        print(f"\npublished for {name}, test:")
        print_rows(others, width_of([*rows, *others]))
    if args.json:
        write((json.dumps(rows, indent=2) + "\n").encode(), args.json)
    return 0


def rolls_of(args: argparse.Namespace) -> RollCorpus:
    """Return the frames of --corpus and --data, for a baseline."""
    reading = Reading("note", grid=args.grid)
    corpus = load_corpus(args.corpus, args.data, reading, progress=sys.stderr.isatty())
    assert isinstance(corpus, RollCorpus)
    return corpus


def print_table(rows: list[Row], split: str) -> None:
    """Print the results, a line each."""
    width = width_of(rows, split)
    heads = [title for title, _, _ in columns(rows)]
    print(f"{split:{width}}" + "".join(f"  {title:>{len(title)}}" for title in heads))
    print_rows(rows, width)


def print_rows(rows: list[Row], width: int) -> None:
    """Print rows of the table."""
    for row in rows:
        cells = [
            f"{format(row[key], form) if row.get(key) is not None else '-':>{len(title)}}"
            for title, key, form in columns(rows)
        ]
        print(shown("  ".join([f"{row['name']:{width}}", *cells])))


def width_of(rows: list[Row], split: str = "") -> int:
    """Return the width of the names."""
    return max(12, len(split), *(len(row["name"]) for row in rows))


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("evaluate", "Measure how well runs predict music, in nats.", EXAMPLES)
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="a run, or a checkpoint (a step-… folder)")
    add("--music", action="store_true", help="judge what runs compose; has options of its own")
    add("--chorales", action="store_true", help="judge four-part writing; has options of its own")
    add("--baseline", choices=BASELINES, help="a distribution without a network, of piano rolls")
    add("--grid", type=whole(1, 1920), metavar="N", help="frames a whole note, for --baseline")
    add("--corpus", metavar="C", help="what to evaluate on (default: the run's own corpus)")
    add("--data", type=Path, metavar="FILE", help="read a named corpus from this file or folder")
    add("--split", choices=SPLITS, default="test", help="the part of the corpus to predict")
    add("--json", type=Path, metavar="FILE", help="write the results as JSON")
    add_backend_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
