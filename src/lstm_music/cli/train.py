"""bin/train: train a model on a corpus, then write a sample."""

import argparse
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lstm_music.arrays import Array
from lstm_music.cli.common import (
    as_typed,
    check_ranks,
    limit_threads,
    option_of,
    run,
    warn,
    warn_of_namesake,
    workers_from,
)
from lstm_music.cli.learning_on import Origin, began, open_origin, parameters_from
from lstm_music.cli.sample import main as sample
from lstm_music.cli.train_options import (
    LIMITS,
    READING,
    asked_for,
    limits_of,
    make_parser,
    new_options,
    resumed_options,
    suiting_head,
)
from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.left_out import how_played, told_of
from lstm_music.corpus.load import Reading, load_corpus, survey_corpus
from lstm_music.errors import UserError
from lstm_music.network.config import Config
from lstm_music.network.learning_rate import default_lr
from lstm_music.network.model import Model
from lstm_music.ops import NumpyOps, get_ops
from lstm_music.runs.checkpoint import checkpoints_of
from lstm_music.runs.folder import SHAPE, new_run
from lstm_music.runs.home import RunHome
from lstm_music.runs.opened import typed
from lstm_music.runs.settings import Report, Settings
from lstm_music.tokenizers.messages import PITCHES, word_parts
from lstm_music.training.ranks import ALONE, Alone, join
from lstm_music.training.signals import Interrupted
from lstm_music.training.trainer import Trainer
from lstm_music.untrusted import typeable

SKIPPED_SHOWN = 5  # files that a warning names one by one


def main(argv: Sequence[str]) -> int:
    """Train; return the exit status."""
    started = time.monotonic()
    ranks = join()
    args = make_parser().parse_args(argv)
    check_ranks(args, ranks)
    args.quiet = args.quiet or not ranks.leads
    limit_threads(args.threads or ranks.threads, args.backend)
    origin = ranks.from_first(lambda: open_origin(args.origin, args.resume))
    folder, options = ranks.from_first(
        lambda: resumed_options(args) if args.resume else new_options(args, origin)
    )
    # Before anything is read: the one who has the lock goes on writing.
    with RunHome(warn) as home:
        if args.resume and ranks.leads:
            home.enter(folder)
        status = train(args, folder, options, started, ranks, home, origin)
    ranks.leave()
    return status


def train(
    args: argparse.Namespace,
    folder: Path,
    options: dict[str, Any],
    started: float,
    ranks: Alone,
    home: RunHome,
    origin: Origin | None = None,
) -> int:
    """Train by the options, in a folder that home keeps; return the exit status.

    origin: the model that a new run begins with.
    """
    ops = ops_of(args)
    ranks.connect(ops)
    corpus = ranks.first_alone(
        lambda: load_corpus(
            options["corpus"],
            Path(options["data"]) if options["data"] else None,
            reading_of(options),
            progress=not args.quiet and sys.stderr.isatty(),
            workers=workers_from(args),
        )
    )
    check_same(corpus, ranks)
    if not args.quiet:
        warn_of_namesake(args.corpus, args.data)
    screen = Screen(args.quiet)
    told = warn if ranks.leads else silent
    lines = [] if args.quiet else opening(corpus, options, args)
    trainer = trainer_of(options, corpus, ops, folder, screen.show, told, started, ranks, origin)
    described = description(trainer, options)
    home.make = lambda run: new_run(run, *described, again=True)
    trainer.files.home = home if ranks.leads else None
    trainer.files.origin = options["origin"]
    if args.resume:
        go_on_with(trainer, options, args)
    else:
        made = ranks.from_first(lambda: new_run(folder, *described, again=not args.run))
        trainer.files.run = made
        if ranks.leads:
            home.enter(made)
    return to_the_end(trainer, screen, args, origin, lines)


def opening(corpus: Corpus, options: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """Return what to say of a corpus: how it is read and why, and what that comes to."""
    data, reading = options["data"], reading_of(options)
    survey = survey_corpus(
        options["corpus"], data and Path(data), reading, workers=workers_from(args)
    )
    lines = told_of(survey, reading, corpus)
    chosen = args.resume or options["origin"] or asked_for(args) is not None
    if survey is None or chosen:
        return lines
    return [f"{how_played(survey)}; read as {reading.representation}s", *lines]


def go_on_with(trainer: Trainer, options: dict[str, Any], args: argparse.Namespace) -> None:
    """Take up a run where it stands; given new limits, with a rate that there is left to learn at.

    Raises UserError for a run that was to begin with a model, and didn't come to that.
    """
    trainer.resume()
    if options["origin"] and trainer.files.last is None:
        name = typeable(options["origin"]["name"])
        raise UserError(f"the run '{trainer.run}' never began: train a new one with --from {name}")
    annealing, new = trainer.annealing, any(getattr(args, name) is not None for name in LIMITS)
    fallen = annealing.lr
    if new and annealing.thaw(trainer.settings.lr):
        say(
            args.quiet,
            f"the learning rate had fallen to {fallen:.2g}: from here on it is {annealing.lr:.2g}, "
            "a tenth of --lr",
        )


def reading_of(options: dict[str, Any]) -> Reading:
    """Return how a corpus is read by the options of a run."""
    return Reading(**{name: options[name] for name in READING})


def trainer_of(
    options: dict[str, Any],
    corpus: Corpus,
    ops: NumpyOps,
    folder: Path,
    show: Callable[[Report], None],
    told: Callable[[str], None],
    started: float,
    ranks: Alone = ALONE,
    origin: Origin | None = None,
) -> Trainer:
    """Return the trainer of a run's options, whose head and learning rate suit the corpus.

    origin: the model that a new run begins with.
    """
    words = len(corpus.vocabulary)
    options["head"] = options["head"] or suiting_head(options["representation"], words)
    options["lr"] = options["lr"] or default_lr(options["optimizer"], words)
    settings = Settings(**{f.name: options[f.name] for f in fields(Settings)})
    parts = word_parts(corpus.vocabulary) if options["head"] == "factored" else None
    copy = corpus.recall.candidates if options["copy"] else 0
    config, parameters = config_of(options, words, parts, copy), None
    if origin is not None:
        found = parameters_from(origin, config, corpus, settings.seed)
        parameters = {name: ops.asarray(value) for name, value in found.items()}
    model = Model(config, ops, settings.seed, parameters, parts)
    return Trainer(corpus, model, settings, folder, show, told, started, ranks)


def description(
    trainer: Trainer, options: dict[str, Any]
) -> tuple[Config, Corpus, Settings, dict[str, Any], dict[str, Any]]:
    """Return what describes a new run, as run_folder.new_run takes it."""
    source: dict[str, Any] = {name: options[name] for name in ("corpus", "data", "origin")}
    reading = asdict(reading_of(options))
    return trainer.model.config, trainer.corpus, trainer.settings, source, reading


def config_of(
    options: dict[str, Any], V: int, words: tuple[Array, Array] | None, copy: int = 0
) -> Config:
    """Return the shape of a new model of V words.

    words: their classes and deltas (V,), if any; copy: candidates of its copy gate.
    """
    classes, deltas = (int(part.max()) + 1 for part in words) if words else (0, 0)
    shape = {name: options[name] for name in SHAPE}
    return Config(V, **shape, classes=classes, deltas=deltas, copy=copy)


def check_same(corpus: Corpus, ranks: Alone) -> None:
    """Raise UserError where this rank reads another corpus than rank 0."""
    if ranks.from_first(lambda: corpus.key) != corpus.key:
        raise UserError(
            f"rank {ranks.rank} reads another '{corpus.name}' than rank 0: give all of them the "
            "same files"
        )


def silent(line: str) -> None:
    """Say nothing: rank 0 does."""


def ops_of(args: argparse.Namespace) -> NumpyOps:
    """Return the ops of --backend and --precision."""
    ops = get_ops(args.backend, precision=args.precision)
    if args.precision not in ("auto", ops.precision):
        where = " or a processor with AVX512_BF16 (--backend numba)"
        raise UserError(
            f"--precision {args.precision} is for a GPU (--backend cupy)"
            f"{where if args.precision == 'bf16' else ''}, and this run computes with "
            f"{ops.name} in {ops.precision}: leave --precision out"
        )
    return ops


def to_the_end(
    trainer: Trainer,
    screen: "Screen",
    args: argparse.Namespace,
    origin: Origin | None = None,
    lines: Sequence[str] = (),
) -> int:
    """Run a trainer to its end, write a sample, and return the exit status; lines: said first."""
    at, ranks = trainer.progress, trainer.ranks
    if not args.quiet:
        warn_of_skipped(trainer.corpus, trainer.run)
    say(args.quiet, "\n".join([*lines, describe(trainer, origin)]))
    try:
        with screen:
            if origin is not None:
                trainer.end_period()  # which judges and keeps what it begins with
            reason = trainer.train()
    except Interrupted as stopped:
        again = go_on(trainer.run, limits_of(trainer.settings))
        if ranks.leads:
            print(f"stopped at step {at.step} and saved; go on with {again}", file=sys.stderr)
        return 128 + stopped.number
    except BaseException as error:
        if not args.resume and not at.step and ranks.leads:
            shutil.rmtree(trainer.run, ignore_errors=True)  # a run that never began
        elif isinstance(error, MemoryError):
            raise out_of_memory(trainer) from error
        raise
    say(args.quiet, f"stopped by {reason}: {standing(trainer)}")
    folder = typed(trainer.run)
    if ranks.leads:
        sample([folder, "--backend", args.backend, *["--quiet"] * args.quiet], ALONE)
    limits = {"max_minutes": 30, **({"early_stop": 0} if "early-stop" in reason else {})}
    more = as_typed(f"bin/sample {typeable(folder)} --num 4 --temperature 0.9")
    say(args.quiet, f"more:  {more}")
    say(args.quiet, f"go on: {go_on(trainer.run, limits)}")
    return 0


def out_of_memory(trainer: Trainer) -> UserError:
    """Return the error for a run that went on for a while before there was too little memory."""
    kept = checkpoints_of(trainer.run)
    step = f"step {trainer.progress.step + 1:,}"
    if not kept:
        return UserError(
            f"not enough memory at {step}, and nothing is saved: close other programs, or train "
            "with a lower --hidden, --embedding, --batch or --seq"
        )
    return UserError(
        f"not enough memory at {step}; {kept[0].name} is whole: close other programs, then go on "
        f"with {go_on(trainer.run, limits_of(trainer.settings))}"
    )


# What is printed --------------------------------------------------------------------------------


def describe(trainer: Trainer, origin: Origin | None = None) -> str:
    """Return the line that opens a run; origin: the model that a new one begins with."""
    corpus, model, step = trainer.corpus, trainer.model, trainer.progress.step
    size = sum(p.size for p in model.parameters.values())
    lengths = corpus.lengths
    steps = sum(lengths[p] for p in corpus.splits["train"])
    opening = f"resumed at step {step:,}" if step else "new run"
    tokens = f"{steps:,} tokens, {len(corpus.vocabulary):,} unique"
    valid = sum(lengths[p] for p in corpus.splits["valid"])
    part = f"; validates on {trainer.validated:,} of {valid:,}" if trainer.validated < valid else ""
    ranks = "" if trainer.ranks.alone else f"; {trainer.ranks.size} ranks"
    precision = "" if model.ops.precision == "fp32" else f", products in {model.ops.precision}"
    start = f" {began(origin, corpus)}" if origin is not None else ""
    return (
        f"{opening} {trainer.run}{start}: {len(corpus.splits['train']):,} pieces, "
        f"{f'{steps:,} frames' if model.config.reads_notes else tokens}{part}; "
        f"{size:,} parameters; {model.ops.name} backend{precision}{ranks}"
    )


def warn_of_skipped(corpus: Corpus, folder: Path) -> None:
    """Name the first files that can't be used, and where the others are named."""
    for skipped in corpus.skipped[:SKIPPED_SHOWN]:
        warn(f"skipped {skipped.file}: {skipped.reason}")
    if len(corpus.skipped) > SKIPPED_SHOWN:
        warn(f"skipped {len(corpus.skipped)} files in all: see {folder / 'skipped.csv'}")
    told = corpus.tokenizer_json()
    apart = told.get("layout") == "flatten" or "parts" in told
    if corpus.drums and len(corpus.drums) < PITCHES and not apart:
        warn(
            "drums and other notes share one track, which samples play as one instrument: "
            "--representation event keeps them apart"
        )
    if corpus.mended:
        mended = f"mended {len(corpus.mended):,} of the {len(corpus.pieces):,} files"
        warn(f"{mended}: see {folder / 'mended.csv'}")


def standing(trainer: Trainer) -> str:
    """Return where a run stands when it ends."""
    at = trainer.progress
    best = min(at.best, trainer.valid)
    unit = "frame" if trainer.model.config.reads_notes else "token"
    validated = f", best validation loss {best:.4f} nats per {unit}" if best < math.inf else ""
    skipped = f", {at.skipped:,} steps skipped" if at.skipped else ""
    return f"step {at.step:,}{validated}{skipped}"


def go_on(folder: Path, limits: dict[str, Any]) -> str:
    """Return the command that goes on with a run to new limits."""
    words = ["bin/train", "--resume", "--run", typeable(typed(folder))]
    words += [option_of(name, value) for name, value in limits.items()]
    return as_typed(" ".join(words))


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


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:], told=False))
