"""The options of bin/train: what they are, and what they come to for a new or a resumed run."""

import argparse
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    add_reading_options,
    add_worker_options,
    number,
    option_of,
    parts_told,
    whole,
    workers_from,
)
from lstm_music.cli.learning_on import Origin, inherited
from lstm_music.corpus.load import WRITTEN, Reading, Representation, suiting, survey_corpus
from lstm_music.corpus.sources import NAMED
from lstm_music.errors import UserError
from lstm_music.network.config import HEADS, HEADS_OF, Config
from lstm_music.network.learning_rate import DEFAULT_LR, MANY_WORDS, RATE_OF_MANY
from lstm_music.network.optim import OPTIMIZERS
from lstm_music.network.sampled import check_draws
from lstm_music.ops.cuda.device import PRECISIONS
from lstm_music.runs.folder import described_options, run_exists
from lstm_music.runs.meta import VOCABULARY
from lstm_music.runs.opened import RUNS, newest_run, run_folder
from lstm_music.runs.settings import Settings
from lstm_music.training.health import MOST_BAD_STEPS

MINUTES = 9.0  # the default bound: with setting up, a first run ends within ten
DEFAULTS: dict[str, Any] = {
    **asdict(Reading(tracks="merge")),
    "representation": None,  # what the other options ask for
    "head": None,  # what suits the representation and the vocabulary
    "layers": Config.layers,
    "hidden": Config.hidden,
    "embedding": Config.embedding,
    "dropout": 0.2,
    "input_dropout": Config.input_dropout,
    "output_dropout": Config.output_dropout,
    "nade": Config.nade,
    "copy": True,
    **asdict(Settings()),
    "lr": None,  # what suits the optimizer and the vocabulary
    "anneal_factor": 1,  # averages serve for it, and leave a rate to learn with
    "average": 0.998,
}
BACHS = {  # of `bin/train bach`, read as events: the best of docs/results.md's ways
    "hidden": 192,
    "dropout": 0.3,
    "batch": 16,
    "seq": 64,
    "lr": 0.003,
    "common_key": "A",
    "early_stop": 20,
}
ROWS = {"hidden": 64, "embedding": 64, "nade": 64, "batch": 4, "seq": 32}  # of 88 rows a stream
DROPPED = number(0, 0.95)
READING = tuple(field.name for field in fields(Reading))
LIMITS = ("epochs", "max_steps", "max_minutes")
FREE = (
    *LIMITS,
    "early_stop",
    "checkpoint_minutes",
    "keep",
    "skip_bad_steps",
)  # what --resume may change
EXAMPLES = """examples:
  bin/train bach                          the bundled chorales, at most 9 minutes
  bin/train bach --tracks flatten         MIDI messages, voices end to end, as in the paper
  bin/train ~/my-midi --max-minutes 60    your own music
  bin/train --resume --max-minutes 30     go on with the newest run
  bin/train ~/my-hymns --from bach        begin with the bundled model, or with a run

The defaults of `bin/train bach`, unless options ask for another representation, are
{bachs}.
Those of --head biaxial are {rows}.
"""


def new_options(
    args: argparse.Namespace, origin: Origin | None = None
) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the full options of a new run; origin: the model that it begins with.

    A folder that isn't named by --run may be taken when it's made: `new_run` finds another name.
    """
    if args.corpus is None:
        raise UserError("say what to train on: bin/train bach, or a folder of MIDI files")
    folder = new_folder(args)
    given = {name: getattr(args, name) for name in DEFAULTS}
    if origin is not None:
        usual = DEFAULTS | inherited(origin, given)
    else:
        given["representation"] = representation_of(args)
        usual = usual_options(args.corpus, given)
    options = {**usual, **source_of(args), "origin": origin.to_json() if origin else None}
    options |= {name: value for name, value in given.items() if value is not None}
    check_head(options)
    if all(options[name] is None for name in LIMITS):
        options["max_minutes"] = MINUTES
    return folder, options


def new_folder(args: argparse.Namespace) -> Path:
    """Return the folder of a new run. Raises UserError where --run names one that exists."""
    if not args.run:
        stem = Path(source_of(args)["corpus"]).stem or "run"
        return RUNS / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = run_folder(args.run)
    if folder.exists():
        raise run_exists(folder)
    return folder


def usual_options(corpus: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults that suit a corpus and the options given, None for those that aren't."""
    usual = DEFAULTS | parts_told(given["representation"], corpus, given["parts"])
    if given["head"] == "biaxial":
        return usual | ROWS
    chorales = (corpus, given["representation"]) == ("bach", "event")
    if not chorales or given["optimizer"] not in (None, "adam"):
        return usual
    keyless = given["drums"] and not usual["parts"]  # drums have no key
    return usual | BACHS | ({"common_key": None} if keyless else {})


def representation_of(args: argparse.Namespace) -> Representation:
    """Return the representation that suits a corpus and the options that only one has."""
    asked = asked_for(args)
    if asked is not None:
        return asked
    files = Reading(drums=bool(args.drums), max_pieces=args.max_pieces or 0, seed=args.seed or 0)
    progress = not args.quiet and sys.stderr.isatty()
    corpus, data = source_of(args).values()
    survey = survey_corpus(corpus, data and Path(data), files, progress, workers_from(args))
    return suiting(survey) if survey else WRITTEN  # of piano rolls loading says how to read them


def asked_for(args: argparse.Namespace) -> Representation | None:
    """Return the representation that options ask for, None where what is in the files decides."""
    if args.representation:
        asked: Representation = args.representation
        return asked
    if args.head in HEADS_OF["note"]:
        return "note"
    if args.tracks or args.min_count or args.head == "factored":
        return "message"
    return WRITTEN if args.corpus == "bach" or args.grid else None


def suiting_head(representation: Representation, words: int) -> str:
    """Return the head that suits a representation and a vocabulary of so many words."""
    if representation == "message" and words >= MANY_WORDS:
        return "factored"
    return HEADS_OF[representation][0]


def check_head(options: dict[str, Any]) -> None:
    """Raise UserError for a head that doesn't fit the representation, or --sampled-softmax.

    With that, the head is a softmax of however many words, unless another is asked for.
    """
    fitting, head = HEADS_OF[options["representation"]], options["head"]
    if head not in (None, *fitting):
        raise UserError(
            f"--head {head} can't predict --representation {options['representation']}: "
            f"use --head {' or '.join(fitting)}"
        )
    if options["sampled_softmax"]:
        options["head"] = head or fitting[0]
        check_draws(options["head"])


def source_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return where to read the corpus, in words that hold in any working folder."""
    corpus = args.corpus
    if corpus not in NAMED and corpus and Path(corpus).exists():
        corpus = str(Path(corpus).resolve())
    return {"corpus": corpus, "data": str(args.data.resolve()) if args.data else None}


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
                f"the run '{folder}' was begun with {option_of(name, options[name])}: "
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


# The options themselves ---------------------------------------------------------------------------


def make_parser() -> Parser:
    """Return the command's options. None stands for the default, so that --resume can tell."""
    bachs, rows = ([option_of(*option) for option in own.items()] for own in (BACHS, ROWS))
    told = "\n".join([" ".join(bachs[:5]), " ".join(bachs[5:])])
    examples = EXAMPLES.format(bachs=told, rows=" ".join(rows))
    parser = Parser(
        "train", "Train a model, keep it in a run's folder, and write a sample.", examples
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
        choices=("auto", *PRECISIONS),
        default="auto",
        help="of matrix products: auto is bf16 on processors with AVX512_BF16, else fp32; tf32 and "
        "bf16 on a GPU; all else is fp32 always",
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
    add(
        parser,
        "--dropout X",
        "share of activations dropped before, between and after layers",
        type=number(0, 0.95),
    )
    add(parser, "--input-dropout X", "share of the embedding's (default: --dropout)", type=DROPPED)
    add(parser, "--output-dropout X", "share of the output's (default: --dropout)", type=DROPPED)
    add(
        parser,
        "--head",
        "what predicts: softmax for tokens, or factored for messages: pitch, then time; "
        "sigmoid, nade or biaxial for notes (default: softmax; of "
        f"{MANY_WORDS:,} different messages or more, factored; of notes, sigmoid)",
        choices=HEADS,
    )
    add(
        parser,
        "--nade N",
        "hidden units of --head nade, or of biaxial's LSTM over notes",
        type=whole(1, 65536),
    )
    add(
        parser,
        "--copy",
        "a gate that may take the next word from what the piece has said before (the paper's "
        "network has none)",
        action=argparse.BooleanOptionalAction,
    )


def add_training_options(parser: Parser) -> None:
    """Add what says how weights are found."""
    add(parser, "--batch N", "streams trained on in parallel", type=whole(1, 100_000))
    add(parser, "--seq N", "time steps that gradients reach back", type=whole(1, 100_000))
    add(parser, "--optimizer", "how to update weights", choices=OPTIMIZERS)
    rates = ", ".join(f"{name} {lr:g}" for name, lr in DEFAULT_LR.items())
    rates += f"; adam {RATE_OF_MANY:g} from {MANY_WORDS:,} words on"
    add(parser, "--lr X", f"learning rate (default: {rates})", type=number(0, above=True))
    add(parser, "--clip X", "largest norm of all gradients together, 0 for any", type=number(0))
    add(
        parser,
        "--anneal-factor X",
        "multiplies the learning rate when training stalls, 0.5 for the paper's annealing",
        type=number(0, 1, above=True),
    )
    add(
        parser,
        "--anneal-patience N",
        "slow periods (epochs, or 1,000 steps) in a row that count as stalling",
        type=whole(1),
    )
    add(parser, "--weight-decay X", "share of the weights lost a step, times --lr", type=number(0))
    add(
        parser,
        "--average X",
        "keep moving averages of the weights and use them; a share X of them stays at each step, "
        "less at first; 0 for none",
        type=number(0, 0.99999),
    )
    add(
        parser,
        "--sampled-softmax N",
        "not exact: estimate the loss of --head softmax by a window's targets and N words drawn, "
        "which is quicker where there are many; 0: by all words, as validation does",
        type=whole(0, VOCABULARY),
    )
    add(
        parser,
        "--skip-bad-steps",
        f"leave out steps whose loss or gradient is no number, up to {MOST_BAD_STEPS} in a row",
        action=argparse.BooleanOptionalAction,
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
    add(
        parser,
        "--from RUN|CHECKPOINT",
        "begin a new run with what a trained model knows, one of yours or bach, jsb or muse; what "
        "isn't given is as it was trained",
        dest="origin",
    )
    add(parser, "--checkpoint-minutes X", "minutes between checkpoints", type=number(0, above=True))
    add(parser, "--keep N", "checkpoints kept besides the best", type=whole(1))
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
    if default is not None and default is not False:
        text = f"{text} (default: {default})"
    if value:
        settings["metavar"] = value
    parser.add_argument(flag, help=text, **settings)


def limits_of(settings: Settings) -> dict[str, Any]:
    """Return a run's limits."""
    limits = {name: getattr(settings, name) for name in LIMITS}
    return {name: limit for name, limit in limits.items() if limit is not None}
