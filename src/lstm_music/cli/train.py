"""bin/train: train a model on a corpus, then write a sample."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lstm_music.cli.common import (
    RUNS,
    Parser,
    add_backend_options,
    limit_threads,
    newest_run,
    number,
    run,
    run_folder,
    warn,
    whole,
)
from lstm_music.errors import UserError

MINUTES = 9.0  # the default bound: with setting up, a first run ends within ten
DEFAULTS: dict[str, Any] = {
    "tracks": "flatten",
    "layers": 2,
    "hidden": 128,
    "embedding": 128,
    "dropout": 0.0,
    "batch": 50,
    "seq": 50,
    "optimizer": "adam",
    "lr": None,
    "clip": 5.0,
    "anneal_factor": 0.5,
    "anneal_patience": 2,
    "early_stop": 8,
    "seed": 0,
    "checkpoint_minutes": 2.0,
}
FREE = ("epochs", "max_steps", "max_minutes", "early_stop", "checkpoint_minutes")
EXAMPLES = """examples:
  bin/train bach                          the bundled chorales, at most 9 minutes
  bin/train bach --tracks merge           voices interleaved by time
  bin/train ~/my-midi --max-minutes 60    your own music
  bin/train --resume --max-minutes 30     go on with the newest run
"""


def main(argv: Sequence[str]) -> int:
    """Train; return the exit status."""
    started = time.monotonic()
    args = make_parser().parse_args(argv)
    limit_threads(args.threads)
    from lstm_music.corpus import load_corpus
    from lstm_music.model import Model
    from lstm_music.ops import get_ops
    from lstm_music.trainer import Trainer, new_run

    folder, options = described_run(args) if args.resume else new_options(args)
    corpus = load_corpus(
        options["corpus"],
        Path(options["data"]) if options["data"] else None,
        options["tracks"],
        progress=not args.quiet and sys.stderr.isatty(),
    )
    for skipped in corpus.skipped[:5]:
        warn(f"skipped {skipped.file}: {skipped.reason}")
    if len(corpus.skipped) > 5:
        warn(f"skipped {len(corpus.skipped)} files in all: see {folder / 'skipped.csv'}")
    ops = get_ops(args.backend)
    settings, config = settings_of(options), config_of(options, len(corpus.vocabulary))
    model = Model(config, ops, settings.seed)
    screen = Screen(args.quiet, settings)
    trainer = Trainer(corpus, model, settings, folder, screen.show, warn, started)
    if args.resume:
        trainer.resume()
    else:
        new_run(folder, config, corpus, settings, source_of(options))
    say(args.quiet, describe(corpus, model, folder, trainer.progress.step))
    try:
        reason = trainer.train()
    finally:
        screen.close()
    at = trainer.progress
    say(
        args.quiet,
        f"stopped after {reason}: step {at.step}, epoch {at.epoch}, "
        f"best validation loss {min(at.best, trainer.valid):.4f} nats per token",
    )
    write_sample(folder, args)
    return 0


def write_sample(folder: Path, args: argparse.Namespace) -> None:
    """Write one sample of the best checkpoint and print its path and what to type next."""
    from lstm_music.cli.sample import main as sample

    quiet = ["--quiet"] if args.quiet else []
    sample([str(folder), "--backend", args.backend, *quiet])
    say(args.quiet, f"more:  bin/sample {folder} --num 4 --temperature 0.9")
    say(args.quiet, f"go on: bin/train --resume --run {folder} --max-minutes 30")


def new_options(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the full options of a new run."""
    if args.corpus is None:
        raise UserError("say what to train on: bin/train bach, or a folder of MIDI files")
    options = {
        k: v if getattr(args, k, None) is None else getattr(args, k) for k, v in DEFAULTS.items()
    }
    if options["lr"] is None:
        from lstm_music.optim import DEFAULT_LR

        options["lr"] = DEFAULT_LR[options["optimizer"]]
    for name in ("epochs", "max_steps", "max_minutes"):
        options[name] = getattr(args, name)
    if options["epochs"] is None and options["max_steps"] is None and args.max_minutes is None:
        options["max_minutes"] = MINUTES
    options["corpus"] = args.corpus
    if Path(args.corpus).exists() and args.corpus != "bach":
        options["corpus"] = str(Path(args.corpus).resolve())
    options["data"] = str(args.data.resolve()) if args.data else None
    if args.run:
        return run_folder(args.run), options
    stem = Path(args.corpus).stem or "run"
    folder = RUNS / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    return free_name(folder), options


def free_name(folder: Path) -> Path:
    """Return a folder's path, with a number appended where it is taken."""
    path, n = folder, 2
    while path.exists():
        path, n = folder.with_name(f"{folder.name}-{n}"), n + 1
    return path


def described_run(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Return the folder and options of the run to resume, with new limits from the arguments."""
    folder = run_folder(args.run) if args.run else newest_run()
    if folder is None:
        raise UserError("no run to resume in runs/: begin one with bin/train bach")
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        options = {
            **config["training"],
            **{
                name: config["model"][name] for name in ("layers", "hidden", "embedding", "dropout")
            },
            "tracks": config["tokenizer"]["layout"],
            **config["source"],
        }
    except FileNotFoundError as error:
        raise UserError(f"no run at '{folder}': begin it without --resume") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{folder / 'config.json'}' is damaged: start a new run") from error
    for name, value in options.items():
        given = getattr(args, name, None)
        if given is None or name == "corpus" or (name == "data" and str(given.resolve()) == value):
            continue
        if name not in FREE and given != value:
            raise UserError(
                f"the run '{folder}' was begun with --{name.replace('_', '-')} {value}: "
                "leave the option out, or start a new run"
            )
        options[name] = given
    if all(getattr(args, name) is None for name in ("epochs", "max_steps", "max_minutes")):
        options["max_minutes"] = options["max_minutes"] or MINUTES
    elif args.max_minutes is None:
        options["max_minutes"] = None
    return folder, options


def settings_of(options: dict[str, Any]) -> Any:
    """Return the trainer's settings among the options."""
    from lstm_music.trainer import Settings

    return Settings(**{f.name: options[f.name] for f in fields(Settings)})


def config_of(options: dict[str, Any], vocabulary: int) -> Any:
    """Return the model's shape among the options."""
    from lstm_music.model import Config

    names = [f.name for f in fields(Config) if f.name != "vocabulary"]
    return replace(Config(vocabulary), **{name: options[name] for name in names})


def source_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return where the corpus came from, so that --resume finds it again."""
    return {"corpus": options["corpus"], "data": options["data"]}


def describe(corpus: Any, model: Any, folder: Path, step: int) -> str:
    """Return the line that opens a run."""
    size = sum(p.size for p in model.parameters.values())
    tokens = sum(corpus.lengths[p] for p in corpus.splits["train"])
    begun = f"resumed at step {step}" if step else "new run"
    return (
        f"{begun} {folder}: {len(corpus.splits['train'])} pieces, {tokens:,} tokens, "
        f"{len(corpus.vocabulary):,} unique; {size:,} parameters; {model.ops.name} backend"
    )


def say(quiet: bool, line: str) -> None:
    """Print a line unless the user asked for silence."""
    if not quiet:
        print(line, flush=True)


class Screen:
    """A progress bar on a terminal; elsewhere a line at each validation."""

    def __init__(self, quiet: bool, settings: Any) -> None:
        from tqdm import tqdm

        self.quiet, self.started = quiet, time.monotonic()
        self.bar: Any = None
        if not quiet and sys.stderr.isatty():
            form = "{percentage:3.0f}%|{bar}| {postfix}"
            self.bar = tqdm(total=1.0, bar_format=form, mininterval=0.2)

    def show(self, report: Any) -> None:
        """Show where training stands."""
        if self.quiet or not (self.bar is not None or report.validated):
            return
        spent = time.monotonic() - self.started
        left = spent * (1 - report.share) / report.share if report.share else 0
        valid = f"{report.valid:.3f}" if report.valid < float("inf") else "-"
        line = (
            f"epoch {report.progress.epoch + 1}, loss {report.loss:.3f}, validation {valid}, "
            f"{report.tokens_per_second:,.0f} tokens/s, {left // 60:.0f}:{left % 60:02.0f} left"
        )
        if self.bar is None:
            print(f"step {report.progress.step}, {line}", flush=True)
        else:
            self.bar.set_postfix_str(line, refresh=False)
            self.bar.update(report.share - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()


def make_parser() -> Parser:
    """Return the command's options. None stands for the default, so that --resume can tell."""
    parser = Parser(
        "train", "Train a model, keep it in a run's folder, and write a sample.", EXAMPLES
    )
    add = parser.add_argument
    add("corpus", nargs="?", metavar="CORPUS", help="bach, or a MIDI file, folder or zip")
    add("--data", type=Path, metavar="FILE", help="read a named corpus from this file or folder")
    add(
        "--tracks",
        choices=("flatten", "merge"),
        help=with_default("tracks", "tracks end to end (the paper's), or interleaved by time"),
    )
    add("--layers", type=whole(1, 64), metavar="N", help=with_default("layers", "LSTM layers"))
    add("--hidden", type=whole(1, 65536), metavar="N", help=with_default("hidden", "units a layer"))
    add(
        "--embedding",
        type=whole(1, 65536),
        metavar="N",
        help=with_default("embedding", "size of a token's embedding"),
    )
    add(
        "--dropout",
        type=number(0, 0.95),
        metavar="P",
        help=with_default("dropout", "share of activations dropped between layers"),
    )
    add(
        "--batch",
        type=whole(1, 100_000),
        metavar="N",
        help=with_default("batch", "streams trained on in parallel"),
    )
    add(
        "--seq",
        type=whole(1, 100_000),
        metavar="N",
        help=with_default("seq", "time steps that gradients reach back"),
    )
    add(
        "--optimizer",
        choices=("adam", "rmsprop", "sgd"),
        help=with_default("optimizer", "how to update weights"),
    )
    add(
        "--lr",
        type=number(0, above=True),
        metavar="X",
        help="learning rate (default: adam 0.003, rmsprop 0.002, sgd 1)",
    )
    add(
        "--clip",
        type=number(0),
        metavar="X",
        help=with_default("clip", "largest norm of all gradients together; 0 for no bound"),
    )
    add(
        "--anneal-factor",
        type=number(0, 1, above=True),
        metavar="X",
        help=with_default("anneal_factor", "multiplies the learning rate when training stalls"),
    )
    add(
        "--anneal-patience",
        type=whole(1),
        metavar="N",
        help=with_default("anneal_patience", "slow epochs in a row that count as stalling"),
    )
    add(
        "--early-stop",
        type=whole(0),
        metavar="N",
        help=with_default(
            "early_stop", "stop after so many validations without a better one; 0 for never"
        ),
    )
    add("--epochs", type=whole(1), metavar="N", help="stop after so many passes over the corpus")
    add("--max-steps", type=whole(1), metavar="N", help="stop after so many optimiser steps")
    add(
        "--max-minutes",
        type=number(0, above=True),
        metavar="X",
        help=f"stop after so many minutes (default: {MINUTES:g}, or no bound where --epochs or --max-steps is given)",
    )
    add(
        "--seed",
        type=whole(0),
        metavar="N",
        help=with_default("seed", "of weights, order and dropout"),
    )
    add(
        "--run",
        metavar="NAME|PATH",
        help="the run's folder; a bare name is in runs/ (default: corpus and time)",
    )
    add("--resume", action="store_true", help="go on with --run, or with the newest run")
    add(
        "--checkpoint-minutes",
        type=number(0, above=True),
        metavar="X",
        help=with_default("checkpoint_minutes", "minutes between checkpoints"),
    )
    add("--quiet", action="store_true", help="print nothing but errors and the sample's path")
    add_backend_options(parser)
    return parser


def with_default(name: str, text: str) -> str:
    """Return an option's help with its default."""
    return f"{text} (default: {DEFAULTS[name]})"


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
