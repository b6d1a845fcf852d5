"""bin/reproduce: the paper's experiments, with its settings and with ours, and what they gave."""

import argparse
import contextlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lstm_music.cli import train, train_options
from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    option_of,
    run,
    whole,
    write,
)
from lstm_music.cli.judging import Subject, compute, judge, judge_baselines, say, silenced
from lstm_music.errors import UserError
from lstm_music.network.baselines import BASELINES as FREQUENCIES
from lstm_music.ops import get_ops
from lstm_music.reproduction.experiments import BASELINES, CHORALES, EXPERIMENTS, MUSE, NAMES
from lstm_music.reproduction.outcome import (
    TRIAL,
    Ledger,
    Outcome,
    read_json,
    read_outcome,
    read_record,
    rounded,
)
from lstm_music.reproduction.page import page, subjects
from lstm_music.reproduction.pictures import Pictures
from lstm_music.runs.folder import described_options
from lstm_music.runs.opened import RUNS
from lstm_music.untrusted import typeable

MINUTES = 15  # of training each, at --scale cpu
SCALES = ("cpu", "gpu", "smoke")
SMOKE = "bach --max-pieces 60"  # in place of all corpora
SMALL = "--hidden 8 --embedding 8 --nade 8 --batch 16 --seq 32 --lr 0.02"
DATA = "LSTM_MUSIC_DATA"
LEDGER = "reproduction.json"
PAGE, RECORD = "results.md", "outcomes.json"
LOCATIONS = ("corpus", "data")  # options that say where, not what
EXAMPLES = f"""examples:
  bin/reproduce bach                         on the bundled chorales
  bin/reproduce --data DIR                   all whose music is in DIR; again: goes on
  bin/reproduce bach-midi --scale gpu        with all of the paper's epochs
  bin/reproduce --scale smoke                a few steps of each on the bundled Bach, to see it work
  bin/reproduce --no-train --docs docs       judge what is there, into docs/reproduction.md too,
                                             which keeps what it has of other runs

Experiments: {", ".join(NAMES)}. DIR holds
bach-417.zip, classical-2000.zip and MuseData.mat (or piano-roll/MuseData.mat). Scales:
  cpu     {MINUTES} minutes of training each at most, 14 trainings; half an hour to judge them
  gpu     as many epochs as the paper has (muse-all: 800)
  smoke   2 epochs of small networks on 60 chorales: 2 minutes
A run's folder that is copied to OUT/EXPERIMENT-paper or OUT/EXPERIMENT-tuned is taken as it is,
whole or not, if it has the same settings.
"""


def main(argv: Sequence[str]) -> int:
    """Train, judge and write the page; return the exit status."""
    args = make_parser().parse_args(argv)
    args.out = args.out or RUNS / f"reproduce-{args.scale}"
    limit_threads(args.threads, args.backend)
    chosen = chosen_experiments(args)
    if args.docs is not None:
        kept_at(args)  # what can't be joined is said before anything is trained
    asked = [one for name in chosen for one in subjects_of(name, args)]
    if args.no_train:
        asked = [one for one in asked if one.folder.exists()]
    ledger = Ledger(args.out / LEDGER)
    took: list[float] = []
    for n, one in enumerate(asked):
        began = time.monotonic()
        say(
            args,
            f"[{n + 1} of {len(asked)}] {one.name}{time_left(took, len(asked) - n, args)}",
        )
        worked = not is_trained(one, args, ledger) and not args.no_train
        if worked and (status := train_subject(one, args, ledger)):
            write_page(args, ledger)
            print(f"go on with the same command: {repeat(argv)}", file=sys.stderr)
            return status
        if judge(one, args, ledger) or worked:
            took.append(time.monotonic() - began)
    if BASELINES in chosen:
        judge_baselines(corpus_of(BASELINES, args), args, ledger)
    for path in write_page(args, ledger):
        print(path)
    return 0


def repeat(argv: Sequence[str]) -> str:
    """Return the command that was typed."""
    return " ".join(["bin/reproduce", *map(typeable, argv)])


def time_left(took: Sequence[float], parts: int, args: argparse.Namespace) -> str:
    """Return how long so many parts take, in words, by those that took some time or may take."""
    bound = MINUTES * 60.0 if args.scale == "cpu" and not args.no_train else 0.0
    mean = sum(took) / len(took) if took else bound
    minutes = math.ceil(mean * parts / 60)
    return f", about {minutes // 60} h {minutes % 60} min left" if minutes else ""


# What there is to do ----------------------------------------------------------------------------


def chosen_experiments(args: argparse.Namespace) -> list[str]:
    """Return the experiments asked for; of none, all whose data is at hand.

    Raises UserError where the data of one is missing that was asked for, or of all.
    """
    asked = args.experiments or NAMES
    missing = {
        name: file
        for name in asked
        if args.scale != "smoke"
        and (file := file_of(name)) != CHORALES
        and find_file(file, args.data) is None
    }
    if missing:
        where = f"'{args.data}'" if args.data else f"the folder that --data or {DATA} should name"
        names = ", ".join(f"{name} (no {file})" for name, file in missing.items())
        if args.experiments or len(missing) == len(asked):
            raise UserError(f"no data in {where} for {names}: put it there, or --scale smoke")
        say(args, f"left out, for want of data in {where}: {names}")
    return [name for name in asked if name not in missing]


def file_of(name: str) -> str:
    """Return the file that an experiment needs."""
    return MUSE if name == BASELINES else EXPERIMENTS[name].file


def find_file(name: str, folder: Path | None) -> Path | None:
    """Return where a file is in the data folder, None where it isn't."""
    places = [folder / name, folder / "piano-roll" / name] if folder else []
    return next((place for place in places if place.is_file()), None)


def corpus_of(name: str, args: argparse.Namespace) -> list[str]:
    """Return an experiment's corpus as options of bin/train."""
    if args.scale == "smoke":
        return SMOKE.split()[: 1 if name == BASELINES else None]
    if file_of(name) == CHORALES:
        return [CHORALES]
    path = find_file(file_of(name), args.data)
    return ["muse", "--data", str(path)] if path and path.name == MUSE else [str(path)]


def subjects_of(name: str, args: argparse.Namespace) -> list[Subject]:
    """Return the two trainings of an experiment."""
    if name == BASELINES:
        return []
    found = []
    experiment = EXPERIMENTS[name]
    corpus = corpus_of(name, args)
    for kind, training in (("paper", experiment.paper), ("tuned", experiment.tuned)):
        limits = {
            "gpu": ["--epochs", str(training.epochs)],
            "cpu": ["--epochs", str(training.epochs), "--max-minutes", str(MINUTES)],
            "smoke": ["--epochs", "2"],
        }[args.scale]
        folder = args.out / f"{name}-{kind}"
        options = f"{training.options} {SMALL if args.scale == 'smoke' else ''}".split()
        four_parts = experiment.file == CHORALES
        found.append(Subject(folder.name, folder, corpus, options, limits, four_parts))
    return found


# Training ---------------------------------------------------------------------------------------


def is_trained(one: Subject, args: argparse.Namespace, ledger: Ledger) -> bool:
    """Return whether a subject needs no training; notes a run that was trained elsewhere.

    Raises UserError where such a run has other settings.
    """
    known = ledger.of(one.name)
    adopted = known.get("adopted", not known and one.folder.exists())
    if adopted:
        check_adopted(one)
        told = args.hardware or known.get("hardware", "not recorded")
        ledger.note(one.name, adopted=True, hardware=told)
    return bool(adopted) or known.get("ended") == one.limits


def check_adopted(one: Subject) -> None:
    """Raise UserError unless a run that stands in a subject's place has the same settings."""
    elsewhere = ["--run", str(one.folder.with_name(f".{one.name}.none"))]
    words = [*one.corpus, *one.training, *one.limits, *elsewhere]
    _, wanted = train_options.new_options(train_options.make_parser().parse_args(words))
    found = described_options(one.folder)
    for option, value in wanted.items():
        by_default = option in ("head", "lr") and value is None  # what suits the corpus
        if by_default or option in (*train_options.FREE, *LOCATIONS):
            continue
        if found[option] != value:
            raise UserError(
                f"the run '{one.folder}' isn't this experiment's (it has "
                f"{option_of(option, found[option])}, not {option_of(option, value)}): move it away"
            )


def train_subject(one: Subject, args: argparse.Namespace, ledger: Ledger) -> int:
    """Train, or go on; return bin/train's exit status."""
    before = minutes_spent(one, ledger)
    words = [*one.corpus, "--run", str(one.folder), *compute(args), *["--quiet"] * args.quiet]
    if one.folder.exists():
        words += ["--resume", *left_of(one.limits, before)]
    else:
        words += [*one.training, *one.limits]
    ledger.note(one.name, hardware=hardware(args), minutes=before)
    began = time.monotonic()
    try:
        with silenced(args.quiet):
            status = train.main(words)
    finally:
        ledger.note(one.name, minutes=before + (time.monotonic() - began) / 60)
    if not status:
        ledger.note(one.name, ended=one.limits)
    return status


def minutes_spent(one: Subject, ledger: Ledger) -> float:
    """Return how long a subject was trained; of a killed process, steps alone count."""
    outcome = read_outcome(one.folder)
    steps = outcome.seconds / 60 if outcome else 0.0
    return max(steps, float(ledger.of(one.name).get("minutes", 0.0)))


def left_of(limits: Sequence[str], minutes: float) -> list[str]:
    """Return limits, of which so many minutes are used up."""
    left = list(limits)
    if "--max-minutes" in left:
        at = left.index("--max-minutes") + 1
        left[at] = str(max(0.01, round(float(left[at]) - minutes, 2)))
    return left


def hardware(args: argparse.Namespace) -> str:
    """Return what computes: the GPU's name, or the processor's, its cores and the threads."""
    if get_ops(args.backend).name == "cupy":
        import cupy

        name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"]
        return str(name.decode() if isinstance(name, bytes) else name)
    cores = os.cpu_count() or 1
    threads = min(args.threads or cores, cores)
    return f"{processor()}, {cores} cores, {threads} thread{'s' * (threads > 1)}"


def processor() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_page(args: argparse.Namespace, ledger: Ledger) -> list[Path]:
    """Write what there is as a page, into OUT and where --docs says; return the pages.

    Beside the pictures of the latter lies what came of each run, so that others may join them.
    """
    noted = ledger.all()
    runs = {name: read_outcome(args.out / name, noted.get(name)) for name in subjects()}
    found = {name: rounded(one._asdict()) for name, one in runs.items() if one}
    kinds = [f"{kind}-{split}" for kind in FREQUENCIES for split in ("valid", "test")]
    chances = {name: read_json(args.out / BASELINES / f"{name}.json") for name in kinds}
    found |= {BASELINES: chances} if all(chances.values()) else {}
    pages = [args.out / PAGE]
    places: list[tuple[Path, Path, dict[str, Any]]] = [(pages[0], args.out / "figures", {})]
    if args.docs is not None:
        drawn, before = kept_at(args)
        pages.append(args.docs / "reproduction.md")
        places.append((pages[1], drawn, before))
    found[TRIAL] = args.scale == "smoke"
    for path, drawn, before in places:
        known = before | found
        without = known.get(BASELINES, {})
        told = {name: Outcome(**known[name]) for name in subjects() if name in known}
        content = page(told, without, args.scale == "smoke", Pictures(args.out, drawn, path.parent))
        write(content.encode(), path)
        lines = [f"{json.dumps(name)}: {json.dumps(one)}" for name, one in known.items()]
        write(("{\n" + ",\n".join(lines) + "\n}\n").encode(), drawn / RECORD)
    return pages


def kept_at(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Return where --docs has its pictures, and what its record holds of other runs.

    Raises UserError where a trial and whole runs would come together.
    """
    drawn = args.docs / "figures" / "reproduction"
    record = read_record(drawn / RECORD)
    if record and record.get(TRIAL, False) != (args.scale == "smoke"):
        raise UserError(f"'{drawn / RECORD}' is of another --scale: choose another --docs")
    return drawn, record


def experiment(name: str) -> str:
    """Return the argument, if it is an experiment."""
    if name not in NAMES:
        raise argparse.ArgumentTypeError(f"no experiment '{name}': use {', '.join(NAMES)}")
    return name


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("reproduce", "Repeat the paper's experiments, and surpass them.", EXAMPLES)
    add = parser.add_argument
    add("experiments", nargs="*", metavar="EXPERIMENT", type=experiment,
        help="which (default: all whose data is at hand)")  # fmt: skip
    add("--scale", choices=SCALES, default="cpu", help="how much of each: see below")
    folder = os.environ.get(DATA)
    add("--data", type=Path, metavar="DIR", default=Path(folder) if folder else None,
        help=f"the folder of the data sets (default: what {DATA} names)")  # fmt: skip
    add("--out", type=Path, metavar="DIR",
        help=f"the folder of the runs and of {PAGE} (default: runs/reproduce-SCALE)")  # fmt: skip
    add("--docs", type=Path, metavar="DIR", help="also write reproduction.md and its figures here")
    add("--num", type=whole(2), default=50, metavar="N",
        help="pieces that each model composes to be judged")  # fmt: skip
    add("--no-train", action="store_true", help="train nothing: judge the runs that are in OUT")
    add("--hardware", metavar="TEXT", help="what trained the runs that were copied into OUT")
    add("--quiet", action="store_true", help="print warnings, errors and the page's path alone")
    add_backend_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:], told=False))
