"""Kill one training run many times, and compare its end with a run that never stopped.

    python tools/kill_campaign.py --kills 50

Kills are SIGKILL, at random moments and, every other one, while a checkpoint is being written.
Prints what was seen; the exit status is 1 where anything was lost or differs.
"""

import argparse
import csv
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from lstm_music.runs.checkpoint import CHECKPOINTS, linked, read_arrays, read_meta

TRAIN = [sys.executable, "-m", "lstm_music.cli.train"]
COMPUTE = ["--backend", "numpy", "--threads", "1"]
SHAPE = tuple(
    word
    for option in (
        ("--hidden", "16"), ("--embedding", "8"), ("--batch", "4"), ("--seq", "16"),
        ("--average", "0.9"), ("--early-stop", "0"), ("--lr", "0.01"), ("--anneal-patience", "1"),
        ("--checkpoint-minutes", "0.0005"),
    )
    for word in option
)  # fmt: skip
PIECES = 10  # of the bundled corpus
CLOCKED = ("seconds", "tokens_per_second")
AFTER_SECONDS = 0.1


class Kill(NamedTuple):
    """Where a run stood when it was killed: its last checkpoint, and whether it wrote another."""

    step: int
    writing: bool


class Plan(NamedTuple):
    """When to kill: so many seconds after the checkpoint of a step, or in the write after that."""

    step: int
    seconds: float
    in_write: bool


def main() -> int:
    """Run both runs, print what happened; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LSTM_MUSIC_CACHE"] = str(Path(folder) / "cache")
        return campaign(Path(folder), args.kills, args.steps, args.seed)


def campaign(folder: Path, kills: int, steps: int, seed: int) -> int:
    """Compare a run without a stop with one that is killed so many times."""
    music, whole, killed = folder / "music", folder / "whole", folder / "killed"
    with zipfile.ZipFile(str(resources.files("lstm_music").joinpath("data/bach.zip"))) as bach:
        names = sorted(n for n in bach.namelist() if n.endswith(".mid"))[:PIECES]
        bach.extractall(music, names)
    new = [str(music), *SHAPE, "--max-steps", str(steps), *COMPUTE]
    quiet = [*TRAIN, *new, "--run", str(whole), "--quiet"]
    subprocess.run(quiet, check=True, stdout=subprocess.DEVNULL)
    rng = random.Random(seed)
    targets = sorted(rng.sample(range(1, steps), kills))
    done: list[Kill] = []
    losses = 0
    words = [*new, "--run", str(killed)]
    while True:
        plan = None
        if len(done) < kills:
            plan = Plan(targets[len(done)], rng.uniform(0, AFTER_SECONDS), len(done) % 2 == 1)
        begun_at, end = attempt(words, killed, plan)
        losses += bool(done) and begun_at != done[-1].step
        if end is None:
            break
        done.append(end)
        words = ["--resume", "--run", str(killed), *COMPUTE]
    wrong = differences(whole, killed)
    print(
        f"{len(done)} kills at steps {done[0].step:,} to {done[-1].step:,} of {steps:,}, "
        f"{sum(kill.writing for kill in done)} of them inside a checkpoint write; "
        f"resumed elsewhere than at the last checkpoint: {losses}; "
        f"different in the end: {', '.join(wrong) or 'nothing'}"
    )
    return int(bool(wrong) or losses > 0 or len(done) < kills)


def attempt(words: list[str], run: Path, plan: Plan | None) -> tuple[int, Kill | None]:
    """Train until the end, or to a kill; return the step it began at, and the kill."""
    process = subprocess.Popen(
        [*TRAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        first = stdout.readline()
        found = re.match(r"resumed at step ([\d,]+) ", first)
        begun_at = int(found[1].replace(",", "")) if found else 0
        if plan is None:
            stdout.read()
            if process.wait():
                raise SystemExit("a run that nobody killed failed")
            return begun_at, None
        while last_step(run) < plan.step and process.poll() is None:
            time.sleep(0.001)
        time.sleep(plan.seconds)
        while plan.in_write and not being_written(run) and process.poll() is None:
            pass
        process.kill()
        process.wait()
    return begun_at, Kill(last_step(run), bool(being_written(run)))


def last_step(run: Path) -> int:
    """Return the step of the checkpoint that `latest` names, 0 without one."""
    latest = linked(run / CHECKPOINTS, "latest")
    return int(latest.name[5:]) if latest else 0


def being_written(run: Path) -> list[Path]:
    """Return the folders of checkpoints that are not whole yet."""
    return list((run / CHECKPOINTS).glob(".step-*.tmp"))


def differences(run: Path, other: Path) -> list[str]:
    """Name what differs between two runs: losses, weights, what resuming needs, samples."""
    wrong = []
    if metrics(run) != metrics(other):
        wrong.append("metrics.csv")
    for link in ("latest", "best"):
        for name in ("model.safetensors", "train.safetensors"):
            if arrays(run, link, name) != arrays(other, link, name):
                wrong.append(f"{link}/{name}")
    if samples(run) != samples(other):
        wrong.append("samples")
    return wrong


def metrics(run: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv without what the clock says."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in CLOCKED} for row in csv.DictReader(file)]


def arrays(run: Path, link: str, name: str) -> dict[str, bytes]:
    """Return the arrays of a checkpoint as bytes, with its step."""
    path = linked(run / CHECKPOINTS, link)
    if path is None:
        return {}
    found = read_arrays(path, name, read_meta(path))
    return {"path": path.name.encode()} | {k: a.tobytes() for k, a in found.items()}


def samples(run: Path) -> set[bytes]:
    """Return what the samples hold: after a kill between a sample and the end there are two."""
    return {path.read_bytes() for path in (run / "samples").glob("*.mid")}


if __name__ == "__main__":
    sys.exit(main())
