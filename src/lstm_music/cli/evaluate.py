"""bin/evaluate: how well runs predict music that they were not trained on."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lstm_music.baselines import BASELINES, fit_baseline
from lstm_music.checkpoint import Checkpoint
from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    run,
    warn_of_namesake,
    whole,
    write,
)
from lstm_music.cli.printing import shown
from lstm_music.cli.runs import open_run
from lstm_music.corpus import Reading, load_corpus
from lstm_music.errors import UserError
from lstm_music.evaluate import mean_nats, token_count, unigram_nats
from lstm_music.frame_evaluation import (
    PUBLISHED,
    FrameScore,
    score_baseline,
    score_chords,
    score_notes,
)
from lstm_music.message_corpus import MessageCorpus
from lstm_music.model import Model
from lstm_music.ops import NumpyOps, get_ops
from lstm_music.prepared import SPLITS, Corpus
from lstm_music.roll_corpus import RollCorpus
from lstm_music.run_folder import CONFIG, described_options
from lstm_music.sources import NAMED

Row = dict[str, Any]

FILES_READING = ("drums", "max_pieces", "min_count", "seed")  # what only config.json tells
EXAMPLES = """examples:
  bin/evaluate my-run                      on the test split of its own corpus
  bin/evaluate run-1 run-2 --json out.json
  bin/evaluate runs/my-run/checkpoints/step-00001000 --split valid
  bin/evaluate --baseline note-unigram --corpus jsb --data JSB_Chorales.mat
  bin/evaluate --music my-run              judge what it composes (bin/evaluate --music --help)

Lower is better. Each run is followed by baselines on the same music: the frequencies of tokens,
notes or chords in the training split, and the same network before its first step. Nats per frame
compare models of piano rolls with each other and with what papers have published for the set. Nats
per note, of the pieces with their tracks merged, compare messages of any layout and events.
"""


def main(argv: Sequence[str]) -> int:
    """Print a table, and write it as JSON if asked to; return the exit status."""
    if "--music" in argv:
        from lstm_music.cli import music

        return music.main([word for word in argv if word != "--music"])
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
        checkpoint, folder = open_run(name)
        corpus = corpus_of(name, checkpoint, folder, args)
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


def evaluate(
    name: str, checkpoint: Checkpoint, corpus: Corpus, split: str, ops: NumpyOps
) -> list[Row]:
    """Return the results of a run and of its baselines."""
    settings = checkpoint.meta["settings"]
    size = settings["batch"], settings["seq"]
    progress = sys.stderr.isatty()
    parameters = {k: ops.asarray(v) for k, v in checkpoint.parameters.items()}
    models = {
        name: Model(checkpoint.config, ops, parameters=parameters, words=checkpoint.words),
        "untrained": Model(checkpoint.config, ops, seed=0, words=checkpoint.words),
    }
    tokens = token_count(corpus, split)
    rows = {}
    for which, model in models.items():
        if isinstance(corpus, RollCorpus):
            rows[which] = score_row(which, model, corpus, split, *size, progress)
        else:
            rows[which] = token_row(which, mean_nats(model, corpus, split, *size, progress), tokens)
    baselines = [
        frame_row(kind, baseline_score(kind, corpus, split))
        for kind in BASELINES[1:]
        if isinstance(corpus, RollCorpus)
    ]
    if isinstance(corpus, MessageCorpus):
        baselines.append(token_row("unigram", unigram_nats(corpus, split), tokens))
    found = [rows[name], *baselines, rows["untrained"]]
    return [per_note(row, corpus, split) for row in found]


def score_row(
    name: str, model: Model, corpus: RollCorpus, split: str, B: int, T: int, progress: bool
) -> Row:
    """Return the result of a model of piano rolls; a chord model's tokens are those it knows."""
    if model.config.reads_notes:
        return frame_row(name, score_notes(model, corpus, split, B, T, progress))
    score, share = score_chords(model, corpus, split, B, T, progress)
    nats = mean_nats(model, corpus, split, B, T, progress)
    row = frame_row(name, score) | {"nats_per_token": nats, "perplexity": perplexity(nats)}
    return row | {"tokens": token_count(corpus, split), "back_off": share}


def baseline_score(kind: str, corpus: RollCorpus, split: str) -> FrameScore:
    """Return the score of a baseline by its name."""
    train, valid = corpus.split_frames("train"), corpus.split_frames("valid")
    return score_baseline(fit_baseline(kind, train, valid), corpus.split_frames(split))


def token_row(name: str, nats: float, tokens: int) -> Row:
    """Return an object of --json. What counts frames is null: messages have none."""
    return {
        "name": name,
        "nats_per_token": nats,
        "nats_per_frame": None,
        "frame_accuracy": None,
        "frames": None,
        "tokens": tokens,
        "perplexity": perplexity(nats),
    }


def frame_row(name: str, score: FrameScore) -> Row:
    """Return an object of --json for what predicts frames; its tokens are frames."""
    return {
        "name": name,
        "nats_per_token": score.nats_per_frame,
        "nats_per_frame": score.nats_per_frame,
        "frame_accuracy": score.accuracy,
        "frames": score.frames,
        "tokens": score.frames,
        "perplexity": perplexity(score.nats_per_frame),
        "nats_per_frame_by_piece": score.nats_per_frame_by_piece,
    }


def per_note(row: Row, corpus: Corpus, split: str) -> Row:
    """Return a result with all its nats over the notes of the split's pieces, null without any."""
    nats, n = row["nats_per_token"], row["tokens"]
    if row["frames"] is not None:  # of chords, the likelihood of all sets of notes
        nats, n = row["nats_per_frame"], row["frames"]
    notes = sum(corpus.notes[piece] for piece in corpus.splits[split])
    return row | {"nats_per_note": nats * n / notes if notes else None, "notes": notes}


def perplexity(nats: float) -> float | None:
    """Return exp(nats) of a token or frame, None where a float can't hold it."""
    return math.exp(nats) if nats < 700 else None


def published_rows(corpus: RollCorpus, split: str) -> dict[str, list[Row]]:
    """Return what papers give for a set, by its name, where the frames are the very same."""
    r = corpus.reading
    own = corpus.pieces[corpus.splits["test"][0]] == "test-1"  # the set's file, not other music
    changed = r.max_polyphony or r.common_key or not own
    if split != "test" or changed or corpus.name not in PUBLISHED:
        return {}
    rows = PUBLISHED[corpus.name]
    return {
        corpus.name: [
            {"name": name, "nats_per_frame": nats, "frame_accuracy": percent and percent / 100}
            for name, nats, percent in rows
        ]
    }


def rolls_of(args: argparse.Namespace) -> RollCorpus:
    """Return the frames of --corpus and --data, for a baseline."""
    reading = Reading("note", grid=args.grid)
    corpus = load_corpus(args.corpus, args.data, reading, progress=sys.stderr.isatty())
    assert isinstance(corpus, RollCorpus)
    return corpus


def corpus_of(
    name: str, checkpoint: Checkpoint, folder: Path | None, args: argparse.Namespace
) -> Corpus:
    """Return the corpus to evaluate a run on: that of --corpus and --data, or its own.

    Raises UserError where its tokens are not those that the model knows.
    """
    if args.corpus:
        source = {"corpus": args.corpus, "data": args.data}
    else:
        source = source_of(name, checkpoint, folder)
    data = args.data or source["data"]
    corpus = load_corpus(
        source["corpus"],
        Path(data) if data else None,
        reading_of(checkpoint, folder),
        progress=sys.stderr.isatty(),
    )
    if corpus.vocabulary.hash != checkpoint.vocabulary.hash:
        own = not (args.corpus or args.data)
        raise UserError(
            f"the tokens of '{corpus.name}' are not those that '{name}' was trained on: "
            + ("the corpus has changed, train a new run" if own else "use the run's own corpus")
        )
    return corpus


def reading_of(checkpoint: Checkpoint, folder: Path | None) -> Reading:
    """Return how a checkpoint's corpus was read, for which a run's folder knows most."""
    tokenizer = dict(checkpoint.meta["tokenizer"])
    name, layout = tokenizer.pop("name"), tokenizer.pop("layout", Reading.tracks)
    corpus = checkpoint.meta["corpus"]
    augment, drums = int(corpus.get("augment", 0)), corpus.get("drums") is not None
    reading = Reading(name, tracks=layout, transpose_augment=augment, drums=drums, **tokenizer)
    if folder is None:
        return reading
    try:
        own = described_options(folder)
    except UserError:
        return reading
    return replace(reading, **{name: own[name] for name in FILES_READING})


def source_of(name: str, checkpoint: Checkpoint, folder: Path | None) -> dict[str, Any]:
    """Return where a run's corpus came from, as config.json has it; without a run, a named one."""
    own = checkpoint.meta["corpus"]["name"]
    if folder is None and own in NAMED:
        return {"corpus": own, "data": None}
    if folder is None:
        raise UserError(f"'{name}' is not in a run's folder: say what to evaluate on with --corpus")
    try:
        own = described_options(folder)
    except UserError as error:
        raise UserError(
            f"'{folder / CONFIG}' is missing or damaged: say what to evaluate on with --corpus"
        ) from error
    return {name: own[name] for name in ("corpus", "data")}


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


def columns(rows: list[Row]) -> list[tuple[str, str, str]]:
    """Return title, key and format of each column; those of frames where anything counts them."""
    if all(row.get("nats_per_frame") is None for row in rows):
        return [
            ("nats per token", "nats_per_token", ".4f"),
            ("nats per note", "nats_per_note", ".4f"),
            ("    tokens", "tokens", ","),
        ]
    return [
        ("nats per frame", "nats_per_frame", ".4f"),
        ("accuracy", "frame_accuracy", ".1%"),
        ("by piece", "nats_per_frame_by_piece", ".4f"),
        ("nats per token", "nats_per_token", ".4f"),
        ("nats per note", "nats_per_note", ".4f"),
        ("perplexity", "perplexity", ".4g"),
        ("    frames", "frames", ","),
    ]


def width_of(rows: list[Row], split: str = "") -> int:
    """Return the width of the names."""
    return max(12, len(split), *(len(row["name"]) for row in rows))


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("evaluate", "Measure how well runs predict music, in nats.", EXAMPLES)
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="a run, or a checkpoint (a step-… folder)")
    add("--music", action="store_true", help="judge what runs compose; has options of its own")
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
