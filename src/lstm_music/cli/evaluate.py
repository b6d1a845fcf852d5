"""bin/evaluate: how well runs predict music that they were not trained on."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lstm_music.checkpoint import Checkpoint
from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    open_run,
    run,
)
from lstm_music.corpus import SPLITS, Corpus, load_corpus
from lstm_music.errors import UserError
from lstm_music.evaluate import mean_nats, token_count, unigram_nats
from lstm_music.model import Model
from lstm_music.ops import NumpyOps, get_ops

EXAMPLES = """examples:
  bin/evaluate my-run                      on the test split of its own corpus
  bin/evaluate run-1 run-2 --json out.json
  bin/evaluate runs/my-run/checkpoints/step-00001000 --split valid

Lower is better. Each run is followed by two baselines on the same tokens: unigram, the tokens'
frequencies in the training split, and untrained, the same network before its first step.
"""


def main(argv: Sequence[str]) -> int:
    """Print a table, and write it as JSON if asked to; return the exit status."""
    args = make_parser().parse_args(argv)
    limit_threads(args.threads, args.backend)
    ops = get_ops(args.backend)
    rows: list[dict[str, Any]] = []
    for name in args.runs:
        rows += evaluate(name, args, ops)
    print_table(rows, args.split)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    return 0


def evaluate(name: str, args: argparse.Namespace, ops: NumpyOps) -> list[dict[str, Any]]:
    """Return the results of a run and of its baselines."""
    checkpoint, folder = open_run(name)
    corpus = corpus_of(name, checkpoint, folder, args)
    settings = checkpoint.meta["settings"]
    parameters = {k: ops.asarray(v) for k, v in checkpoint.parameters.items()}
    trained = Model(checkpoint.config, ops, parameters=parameters)

    def nats(model: Model) -> float:
        size = settings["batch"], settings["seq"]
        return mean_nats(model, corpus, args.split, *size, progress=sys.stderr.isatty())

    tokens = token_count(corpus, args.split)
    return [
        result(name, nats(trained), tokens),
        result("unigram", unigram_nats(corpus, args.split), tokens),
        result("untrained", nats(Model(checkpoint.config, ops, seed=0)), tokens),
    ]


def result(name: str, nats: float, tokens: int) -> dict[str, Any]:
    """Return an object of --json. What counts frames is null: messages have none."""
    return {
        "name": name,
        "nats_per_token": nats,
        "nats_per_frame": None,
        "frame_accuracy": None,
        "frames": None,
        "tokens": tokens,
    }


def corpus_of(
    name: str, checkpoint: Checkpoint, folder: Path | None, args: argparse.Namespace
) -> Corpus:
    """Return the corpus to evaluate a run on: that of --corpus and --data, or its own.

    Raises UserError where its tokens are not those that the model knows.
    """
    source = {"corpus": args.corpus, "data": args.data} if args.corpus else source_of(name, folder)
    data = args.data or source["data"]
    corpus = load_corpus(
        source["corpus"],
        Path(data) if data else None,
        checkpoint.meta["tokenizer"]["layout"],
        progress=sys.stderr.isatty(),
    )
    if corpus.vocabulary.hash != checkpoint.vocabulary.hash:
        own = not (args.corpus or args.data)
        raise UserError(
            f"the tokens of '{corpus.name}' are not those that '{name}' was trained on: "
            + ("the corpus has changed, train a new run" if own else "use the run's own corpus")
        )
    return corpus


def source_of(name: str, folder: Path | None) -> dict[str, Any]:
    """Return where a run's corpus came from, as config.json has it."""
    if folder is None:
        raise UserError(f"'{name}' is not in a run's folder: say what to evaluate on with --corpus")
    path = folder / "config.json"
    try:
        source = json.loads(path.read_text("utf-8"))["source"]
        return {"corpus": str(source["corpus"]), "data": source["data"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' is missing or damaged: say what to evaluate on with --corpus"
        ) from error


def print_table(rows: list[dict[str, Any]], split: str) -> None:
    """Print the results, a line each."""
    width = max(12, *(len(row["name"]) for row in rows))
    print(f"{split:{width}}  {'nats per token':>14}  {'tokens':>10}")
    for row in rows:
        print(f"{row['name']:{width}}  {row['nats_per_token']:14.4f}  {row['tokens']:10,}")


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("evaluate", "Measure how well runs predict music, in nats per token.", EXAMPLES)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run, or a checkpoint (a step-… folder)")
    add("--corpus", metavar="C", help="what to evaluate on (default: the run's own corpus)")
    add("--data", type=Path, metavar="FILE", help="read a named corpus from this file or folder")
    add("--split", choices=SPLITS, default="test", help="the part of the corpus to predict")
    add("--json", type=Path, metavar="FILE", help="write the results as JSON")
    add_backend_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
