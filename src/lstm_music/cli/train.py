"""bin/train: train a model on a corpus, then write a sample."""

import argparse
import json
import math
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lstm_music.cli.common import (
    RUNS,
    Parser,
    add_backend_options,
    add_reading_options,
    add_worker_options,
    limit_threads,
    newest_run,
    number,
    run,
    run_folder,
    typed,
    warn,
    whole,
    workers_from,
)
from lstm_music.cli.sample import main as sample
from lstm_music.corpus import Reading, load_corpus
from lstm_music.errors import UserError
from lstm_music.model import HEADS, Config, Model
from lstm_music.ops import NumpyOps, get_ops
from lstm_music.ops.cupy_ops import PRECISIONS
from lstm_music.optim import DEFAULT_LR, OPTIMIZERS
from lstm_music.prepared import Corpus
from lstm_music.sources import NAMED
from lstm_music.trainer import FORMAT, Interrupted, Report, Settings, Trainer, new_run, run_exists

MINUTES = 9.0  # the default bound: with setting up, a first run ends within ten
SKIPPED_SHOWN = 5  # files that a warning names one by one
DEFAULTS: dict[str, Any] = {
    **asdict(Reading(tracks="merge")),
    "head": None,  # the representation's own
    "layers": Config.layers,
    "hidden": Config.hidden,
    "embedding": Config.embedding,
    "dropout": 0.2,
    "input_dropout": Config.input_dropout,
    "output_dropout": Config.output_dropout,
    "nade": Config.nade,
    **asdict(Settings()),
    "lr": None,  # the optimizer's own
}
DROPPED = number(0, 0.95)
READING = tuple(field.name for field in fields(Reading))
SHAPE = (
    "layers", "hidden", "embedding", "dropout", "input_dropout", "output_dropout", "head", "nade",
)  # fmt: skip
LIMITS = ("epochs", "max_steps", "max_minutes")
FREE = (*LIMITS, "early_stop", "checkpoint_minutes")  # what --resume may change
EXAMPLES = """examples:
  bin/train bach                          the bundled chorales, at most 9 minutes
  bin/train bach --tracks flatten         voices end to end, as in the paper
  bin/train ~/my-midi --max-minutes 60    your own music
  bin/train --resume --max-minutes 30     go on with the newest run
"""


def main(argv: Sequence[str]) -> int:
    """Train; return the exit status."""
    started = time.monotonic()
    args = make_parser().parse_args(argv)
    limit_threads(args.threads, args.backend)
    folder, options = resumed_options(args) if args.resume else new_options(args)
    ops = ops_of(args)
    reading = Reading(**{name: options[name] for name in READING})
    corpus = load_corpus(
        options["corpus"],
        Path(options["data"]) if options["data"] else None,
        reading,
        progress=not args.quiet and sys.stderr.isatty(),
        workers=workers_from(args),
    )
    if not args.quiet:
        warn_of_skipped(corpus, folder)
    settings = Settings(**{f.name: options[f.name] for f in fields(Settings)})
    config = Config(len(corpus.vocabulary), **{name: options[name] for name in SHAPE})
    model = Model(config, ops, settings.seed)
    screen = Screen(args.quiet)
    trainer = Trainer(corpus, model, settings, folder, screen.show, warn, started)
    if args.resume:
        trainer.resume()
    else:
        source = {name: options[name] for name in ("corpus", "data")}
        new_run(folder, config, corpus, settings, source, asdict(reading))
    say(args.quiet, describe(trainer))
    return train(trainer, screen, args)


def ops_of(args: argparse.Namespace) -> NumpyOps:
    """Return the ops of --backend and --precision."""
    ops = get_ops(args.backend, precision=args.precision)
    if args.precision != "fp32" and ops.name != "cupy":
        raise UserError(
            f"--precision {args.precision} is for a GPU (--backend cupy), and this run computes "
            f"with {ops.name}: leave --precision out"
        )
    return ops


def train(trainer: Trainer, screen: "Screen", args: argparse.Namespace) -> int:
    """Run a trainer to its end, write a sample, and return the exit status."""
    at, folder = trainer.progress, trainer.run
    try:
        with screen:
            reason = trainer.train()
    except Interrupted as stopped:
        again = go_on(folder, limits_of(trainer.settings))
        print(f"stopped at step {at.step} and saved; go on with {again}", file=sys.stderr)
        return 128 + stopped.number
    except BaseException:
        if not args.resume and not at.step:
            shutil.rmtree(folder, ignore_errors=True)  # a run that never began: nothing is lost
        raise
    say(args.quiet, f"stopped by {reason}: {standing(trainer)}")
    sample([typed(folder), "--backend", args.backend, *["--quiet"] * args.quiet])
    limits = {"max_minutes": 30, **({"early_stop": 0} if "early-stop" in reason else {})}
    say(args.quiet, f"more:  bin/sample {shlex.quote(typed(folder))} --num 4 --temperature 0.9")
    say(args.quiet, f"go on: {go_on(folder, limits)}")
    return 0


# Options ----------------------------------------------------------------------------------------


def new_options(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the full options of a new run."""
    if args.corpus is None:
        raise UserError("say what to train on: bin/train bach, or a folder of MIDI files")
    given = {name: getattr(args, name) for name in DEFAULTS}
    options = {**DEFAULTS, **{k: v for k, v in given.items() if v is not None}, **source_of(args)}
    options["head"] = head_of(options)
    if options["lr"] is None:
        options["lr"] = DEFAULT_LR[options["optimizer"]]
    if all(options[name] is None for name in LIMITS):
        options["max_minutes"] = MINUTES
    if not args.run:
        stem = Path(options["corpus"]).stem or "run"
        return free_name(RUNS / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"), options
    folder = run_folder(args.run)
    if folder.exists():
        raise run_exists(folder)
    return folder, options


def head_of(options: dict[str, Any]) -> str:
    """Return the head that fits the representation. Raises UserError for one that doesn't."""
    notes = options["representation"] == "note"
    head = options["head"] or ("sigmoid" if notes else "softmax")
    if notes == (head == "softmax"):
        fits = "sigmoid or nade" if notes else "softmax"
        raise UserError(
            f"--head {head} can't predict --representation {options['representation']}: "
            f"use --head {fits}"
        )
    return str(head)


def source_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return where to read the corpus, in words that hold in any working folder."""
    corpus = args.corpus
    if corpus not in NAMED and corpus and Path(corpus).exists():
        corpus = str(Path(corpus).resolve())
    return {"corpus": corpus, "data": str(args.data.resolve()) if args.data else None}


def free_name(folder: Path) -> Path:
    """Return a folder's path, with a number appended where it is taken."""
    path, n = folder, 2
    while path.exists():
        path, n = folder.with_name(f"{folder.name}-{n}"), n + 1
    return path


def resumed_options(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Return the folder and options of the run to resume, with new limits from the arguments.

    A corpus that is given may be the old one at another place: the trainer compares the contents.
    """
    folder = run_folder(args.run) if args.run else newest_run()
    if folder is None:
        raise UserError("no run to resume in runs/: begin one with bin/train bach")
    options = described_options(folder)
    for name in DEFAULTS:
        given = getattr(args, name)
        if given is None or given == options[name]:
            continue
        if name not in FREE:
            raise UserError(
                f"the run '{folder}' was begun with {flag_of(name)} {options[name]}: "
                "leave the option out, or start a new run"
            )
        options[name] = given
    limits = {name: getattr(args, name) for name in LIMITS}
    if any(limit is not None for limit in limits.values()):
        options |= limits  # a limit that isn't given no longer holds
    if args.corpus is not None:
        options |= source_of(args)
    elif args.data is not None:
        options["data"] = source_of(args)["data"]
    return folder, options


def described_options(folder: Path) -> dict[str, Any]:
    """Return the options that a run was begun with, from its config.json."""
    path = folder / "config.json"
    try:
        described = json.loads(path.read_text("utf-8"))
        if described["format"] > FORMAT:
            raise UserError(f"'{path}' is of a newer version: upgrade lstm-music")
        tokenizer = described["tokenizer"]
        options = {
            # What older versions had no option for is as it was then.
            **asdict(Reading()),
            **described.get("reading", {"tracks": tokenizer.get("layout")}),
            **{f.name: described["training"].get(f.name, f.default) for f in fields(Settings)},
            **{name: described["model"].get(name, getattr(Config, name)) for name in SHAPE},
            **{name: described["source"][name] for name in ("corpus", "data")},
        }
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"no run at '{folder}': begin it without --resume") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is damaged: train a new run with another --run") from error
    return options


# What is printed --------------------------------------------------------------------------------


def describe(trainer: Trainer) -> str:
    """Return the line that opens a run."""
    corpus, model, step = trainer.corpus, trainer.model, trainer.progress.step
    size = sum(p.size for p in model.parameters.values())
    lengths = corpus.lengths
    steps = sum(lengths[p] for p in corpus.splits["train"])
    begun = f"resumed at step {step:,}" if step else "new run"
    tokens = f"{steps:,} tokens, {len(corpus.vocabulary):,} unique"
    return (
        f"{begun} {trainer.run}: {len(corpus.splits['train']):,} pieces, "
        f"{f'{steps:,} frames' if model.config.reads_notes else tokens}; "
        f"{size:,} parameters; {model.ops.name} backend"
    )


def warn_of_skipped(corpus: Corpus, folder: Path) -> None:
    """Name the first files that can't be used, and where the others are named."""
    for skipped in corpus.skipped[:SKIPPED_SHOWN]:
        warn(f"skipped {skipped.file}: {skipped.reason}")
    if len(corpus.skipped) > SKIPPED_SHOWN:
        warn(f"skipped {len(corpus.skipped)} files in all: see {folder / 'skipped.csv'}")
    if corpus.mended:
        mended = f"mended {len(corpus.mended):,} of the {len(corpus.pieces):,} files"
        warn(f"{mended}: bin/corpus says what was wrong with them")


def standing(trainer: Trainer) -> str:
    """Return where a run stands when it ends."""
    at = trainer.progress
    best = min(at.best, trainer.valid)
    unit = "frame" if trainer.model.config.reads_notes else "token"
    validated = f", best validation loss {best:.4f} nats per {unit}" if best < math.inf else ""
    return f"step {at.step:,}{validated}"


def go_on(folder: Path, limits: dict[str, Any]) -> str:
    """Return the command that goes on with a run to new limits."""
    words = ["bin/train", "--resume", "--run", shlex.quote(typed(folder))]
    return " ".join([*words, *(f"{flag_of(name)} {value}" for name, value in limits.items())])


def limits_of(settings: Settings) -> dict[str, Any]:
    """Return a run's limits."""
    limits = {name: getattr(settings, name) for name in LIMITS}
    return {name: limit for name, limit in limits.items() if limit is not None}


def flag_of(name: str) -> str:
    """Return the option that sets a field."""
    return f"--{name.replace('_', '-')}"


def say(quiet: bool, line: str) -> None:
    """Print a line unless the user asked for silence."""
    if not quiet:
        print(line, flush=True)


class Screen:
    """A progress bar on a terminal; elsewhere a line at each validation."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: tqdm[Any] | None = None

    def __enter__(self) -> "Screen":
        if not self.quiet and sys.stderr.isatty():
            size = shutil.get_terminal_size()  # never 0 by 0, as some terminals say they are
            self.bar = tqdm(
                total=1.0,
                bar_format="{percentage:3.0f}%|{bar}| {desc}",
                mininterval=0.2,
                file=sys.stderr,
                ncols=size.columns,
                nrows=size.lines,
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, report: Report) -> None:
        """Show where training stands."""
        if self.bar is not None:
            self.bar.set_description_str(line_of(report), refresh=False)
            self.bar.update(report.share - self.bar.n)
        elif report.validated and not self.quiet:
            print(f"step {report.progress.step}, {line_of(report)}", flush=True)


def line_of(report: Report) -> str:
    """Return where training stands, in a line."""
    valid = f"{report.valid:.3f}" if report.valid < math.inf else "-"
    minutes, seconds = divmod(round(report.seconds_left), 60)
    return (
        f"{minutes}:{seconds:02} left, epoch {report.progress.epoch + 1}, loss {report.loss:.3f}, "
        f"validation {valid}, {report.tokens_per_second:,.0f} tokens/s"
    )


# The options ------------------------------------------------------------------------------------


def make_parser() -> Parser:
    """Return the command's options. None stands for the default, so that --resume can tell."""
    parser = Parser(
        "train", "Train a model, keep it in a run's folder, and write a sample.", EXAMPLES
    )
    parser.add_argument(
        "corpus",
        nargs="?",
        metavar="CORPUS",
        help=f"{', '.join(NAMED)}, or a MIDI file, a folder, a zip, a .mat or .pickle of rolls",
    )
    add_corpus_options(parser)
    add_model_options(parser)
    add_training_options(parser)
    add_limits(parser)
    add_run_options(parser)
    add_backend_options(parser)
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of matrix products on a GPU; all else is fp32 always",
    )
    return parser


def add_corpus_options(parser: Parser) -> None:
    """Add what says how to read the corpus."""
    add(parser, "--data FILE", "read a named corpus from this file or folder", type=Path)
    add_reading_options(parser, DEFAULTS)
    add_worker_options(parser)


def add_model_options(parser: Parser) -> None:
    """Add what gives the network its shape."""
    add(parser, "--layers N", "LSTM layers", type=whole(1, 64))
    add(parser, "--hidden N", "units a layer", type=whole(1, 65536))
    add(parser, "--embedding N", "size of a token's embedding", type=whole(1, 65536))
    add(parser, "--dropout X", "share of activations dropped between layers", type=number(0, 0.95))
    add(parser, "--input-dropout X", "share of the embedding's (default: --dropout)", type=DROPPED)
    add(parser, "--output-dropout X", "share of the output's (default: --dropout)", type=DROPPED)
    add(parser, "--head", "what predicts: softmax for tokens, the others for notes", choices=HEADS)
    add(parser, "--nade N", "hidden units of --head nade", type=whole(1, 65536))


def add_training_options(parser: Parser) -> None:
    """Add what says how weights are found."""
    add(parser, "--batch N", "streams trained on in parallel", type=whole(1, 100_000))
    add(parser, "--seq N", "time steps that gradients reach back", type=whole(1, 100_000))
    add(parser, "--optimizer", "how to update weights", choices=OPTIMIZERS)
    rates = ", ".join(f"{name} {lr:g}" for name, lr in DEFAULT_LR.items())
    add(parser, "--lr X", f"learning rate (default: {rates})", type=number(0, above=True))
    add(parser, "--clip X", "largest norm of all gradients together, 0 for any", type=number(0))
    add(
        parser,
        "--anneal-factor X",
        "multiplies the learning rate when training stalls",
        type=number(0, 1, above=True),
    )
    add(parser, "--anneal-patience N", "slow epochs in a row that count as stalling", type=whole(1))
    add(parser, "--weight-decay X", "share of the weights lost a step, times --lr", type=number(0))
    add(
        parser,
        "--average X",
        "keep moving averages of the weights, of which a share X stays at each step, and use them",
        type=number(0, 0.99999),
    )
    add(parser, "--seed N", "of weights, order, dropout and thinned chords", type=whole(0))


def add_limits(parser: Parser) -> None:
    """Add what ends training."""
    add(parser, "--epochs N", "stop after so many passes over the corpus", type=whole(1))
    add(parser, "--max-steps N", "stop after so many optimiser steps", type=whole(1))
    add(
        parser,
        "--max-minutes X",
        f"stop after so many minutes (default: {MINUTES:g} where no other limit is given)",
        type=number(0, above=True),
    )
    add(
        parser,
        "--early-stop N",
        "stop after so many validations in a row without a better one, 0 for never",
        type=whole(0),
    )


def add_run_options(parser: Parser) -> None:
    """Add what says where the run is kept."""
    add(
        parser,
        "--run NAME|PATH",
        "the run's folder; a bare name is in runs/ (default: corpus and time)",
    )
    add(parser, "--resume", "go on with --run, or with the newest run", action="store_true")
    add(parser, "--checkpoint-minutes X", "minutes between checkpoints", type=number(0, above=True))
    add(
        parser,
        "--quiet",
        "print nothing but warnings, errors and the sample's path",
        action="store_true",
    )


def add(parser: Parser, usage: str, text: str, **settings: Any) -> None:
    """Add an option, written as in a usage line, with its default in its help."""
    flag, _, value = usage.partition(" ")
    default = DEFAULTS.get(flag.removeprefix("--").replace("-", "_"))
    if default is not None:
        text = f"{text} (default: {default})"
    if value:
        settings["metavar"] = value
    parser.add_argument(flag, help=text, **settings)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
