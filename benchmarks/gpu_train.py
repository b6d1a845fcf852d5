"""The paper's three runs whole, and ours tuned, on a GPU: losses and minutes.

Where mido is, `python benchmarks/gpu_train.py --prepare MUSIC --data FOLDER` reads the corpora from
MUSIC (as bin/reproduce --data) once and puts each into FOLDER as a file that needs no mido, 18 MB
in all. Carry FOLDER along; on the GPU's machine `PYTHONPATH=src python benchmarks/gpu_train.py
--data FOLDER [--minutes 8]` trains one run after another until the time is over, the paper's first,
and the same command goes on where it ended. What came of it is in --out, gpu-train.json and .md;
the runs themselves are in --runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gpu_tools as tools
from gpu_report import table, write_whole
from lstm_music.cli.train import description, line_of, reading_of, trainer_of
from lstm_music.cli.train_options import make_parser, new_options
from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.disk import read_cache
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.rolls import rolls_from_disk
from lstm_music.corpus.words import messages_from_disk
from lstm_music.errors import UserError
from lstm_music.ops import get_ops
from lstm_music.reproduction.experiments import EXPERIMENTS, Training
from lstm_music.reproduction.outcome import read_outcome
from lstm_music.runs.folder import new_run
from lstm_music.runs.lock import RunLock
from lstm_music.runs.opened import run_folder
from lstm_music.runs.settings import Report
from lstm_music.training.signals import Interrupted

ROOT = Path(__file__).resolve().parents[1]
NAMES = [
    f"{n}-{k}" for k in ("paper", "tuned") for n in ("bach-midi", "muse-all", "classical-midi")
]
ABOUT, ARRAYS = "about.json", "corpus"  # in a corpus's file
ENDING = 0.25  # minutes kept for a run's last checkpoint
LEAST = 0.4  # minutes that must be left for a run to begin
DONE = ("--epochs", "--early-stop")  # what ends a run for good


def training_of(name: str) -> Training:
    """Return what a run is trained with."""
    experiment, _, kind = name.rpartition("-")
    found: Training = getattr(EXPERIMENTS[experiment], kind)
    return found


def options_of(name: str, args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Return a run's folder and options: the experiment's, the time that is left, and --options."""
    training = training_of(name)
    given = f"{name} {training.options} --epochs {training.epochs} --checkpoint-minutes 1"
    given += f" --max-minutes {max(args.minutes - ENDING, 0.01)} {args.options}"
    parsed = make_parser().parse_args(shlex.split(given))
    return run_folder(str(args.runs.resolve() / name)), new_options(parsed)[1]


# Corpora ----------------------------------------------------------------------------------------


def packed(corpus: Corpus, reading: Reading, file: Path) -> None:
    """Put a prepared corpus into a file, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {"name": Path(corpus.name).name, "key": corpus.key, "reading": asdict(reading)}
    draft = file.with_suffix(".part")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(draft, "w:xz") as archive:
        (Path(folder) / ABOUT).write_text(json.dumps(about), "utf-8")
        archive.add(Path(folder) / ABOUT, ABOUT)
        arrays: Any = corpus  # whose arrays lie in the cache
        archive.add(Path(arrays.offsets.filename).parent, ARRAYS)
    draft.replace(file)


def unpacked(file: Path, folder: Path) -> Corpus:
    """Return the corpus of a file, put into a folder; raises UserError where there is none."""
    if not file.exists():
        raise UserError(f"no '{file}': make it with --prepare")
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    about = json.loads((folder / ABOUT).read_text("utf-8"))
    kept, reading = read_cache(folder / ARRAYS), Reading(**about["reading"])
    if kept is None:
        raise UserError(f"'{file}' is damaged: make it anew with --prepare")
    rolls = reading.rolls(about["name"])
    if rolls is None:
        return messages_from_disk(about["name"], about["key"], *kept, reading.messages())
    return rolls_from_disk(about["name"], about["key"], *kept, rolls)


def prepare(names: list[str], args: argparse.Namespace) -> None:
    """Read the corpora of runs and pack them."""
    from lstm_music.cli.reproduce import corpus_of

    for name in names:
        music = argparse.Namespace(scale="gpu", data=args.prepare)
        corpus, *data = corpus_of(name.rpartition("-")[0], music)
        reading = reading_of(options_of(name, args)[1])
        found = load_corpus(corpus, Path(data[1]) if data else None, reading, sys.stderr.isatty())
        packed(found, reading, file := args.data / f"{name}.tar.xz")
        print(f"{file}: {len(found.vocabulary):,} words, {sum(found.lengths):,} tokens", flush=True)


# Runs -------------------------------------------------------------------------------------------


def train(name: str, args: argparse.Namespace) -> str:
    """Train a run, or go on with it, until its epochs or its minutes are over; return which."""
    started = time.monotonic()
    folder, options = options_of(name, args)
    with tempfile.TemporaryDirectory() as place:
        corpus = unpacked(args.data / f"{name}.tar.xz", Path(place))
        ops = get_ops("cupy", precision=args.precision)
        trainer = trainer_of(options, corpus, ops, folder, show, warn, started)
        new = not folder.exists()
        if new:
            new_run(folder, *description(trainer, options))
        with RunLock(folder, warn):
            if not new:
                trainer.resume()
            try:
                return trainer.train()
            except Interrupted as stopped:
                return f"signal {stopped.number}"


def show(report: Report) -> None:
    """Print where training stands, at each validation."""
    if report.validated:
        print(f"step {report.progress.step}, {line_of(report)}", flush=True)


def warn(line: str) -> None:
    """Print a warning."""
    print(line, flush=True)


def row_of(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return what is known of a run."""
    outcome = read_outcome(args.runs / name)
    whole = training_of(name).epochs
    if outcome is None:
        return {"run": name, "epochs": f"0 of {whole}"}
    valid = [loss for _, loss in outcome.curves["valid"]]
    return {
        "run": name,
        "epochs": f"{outcome.epochs:.1f} of {whole}",
        "training minutes": outcome.seconds / 60,
        "minutes of all epochs": (outcome.epoch_seconds or 0) * whole / 60,
        "training loss": outcome.curves["train"][-1][1] if outcome.curves["train"] else "",
        "best validation loss": min(valid) if valid else "",
        "of": outcome.unit,
    }


def trained(names: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train runs one after another in processes of their own; write the table after each."""
    end = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    known = read_json(args.out / "gpu-train.json")
    for name in names:
        left = (end - time.monotonic() - 2 * tools.END) / 60
        before = known.get(name, row_of(name, args) | {"minutes": 0.0, "ended": ""})
        if left >= LEAST and not before["ended"].endswith(DONE):
            begun = time.monotonic()
            file = args.out / "gpu-train-log.txt"
            done = tools.limited(command_of(name, left, args), 60 * left, file)
            took = before["minutes"] + (time.monotonic() - begun) / 60
            before = row_of(name, args) | {"precision": args.precision, "minutes": took}
            before["ended"] = done.said(60 * left)
        known[name] = before
        page = ["# Training on a GPU", "", *table(list(known.values())), ""]
        facts = json.dumps(known, indent=1) + "\n"
        write_whole(args.out / "gpu-train", facts, "\n".join(page))
    return [known[name] for name in names]


def command_of(name: str, minutes: float, args: argparse.Namespace) -> list[str]:
    """Return the command of one run in a process of its own."""
    return [
        sys.executable, __file__, name, "--here", "--minutes", str(minutes),
        "--data", str(args.data), "--precision", args.precision, f"--options={args.options}",
        "--runs", str(args.runs),
    ]  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file of ours holds, nothing where there is none."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def parsed() -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="RUN", help=f"of {', '.join(NAMES)} (all)")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="corpora")
    parser.add_argument("--prepare", type=Path, metavar="MUSIC", help="make them from here")
    parser.add_argument("--minutes", type=float, default=8.0, help="a hard limit (default: 8)")
    parser.add_argument("--precision", default="bf16", help="fp32, tf32 or bf16 (default: bf16)")
    parser.add_argument("--options", default="", help="more options of bin/train, for trials")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "gpu-train")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.names = args.names or NAMES
    return args


def main() -> int:
    """Run the command; return its exit status."""
    args = parsed()
    try:
        unknown = [name for name in args.names if name not in NAMES]
        if unknown:
            raise UserError(f"unknown run '{unknown[0]}': choose of {', '.join(NAMES)}")
        if args.prepare is not None:
            prepare(args.names, args)
        elif args.here:
            print(f"{args.names[0]}: stopped by {train(args.names[0], args).split()[0]}")
        else:
            print("\n".join(table(trained(args.names, args))))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
