"""Nats per frame on Boulanger-Lewandowski's four sets: networks chosen on validation, tested once.

    python benchmarks/likelihoods.py --data FOLDER [--out runs] [--only jsb muse] [--test]

FOLDER holds the .mat files. Each trial of TRIALS is trained by `bin/train` in a run of its own;
begun again, a run goes on where it stood. Networks with a memory of the piece and without stand
apart. With --test the trial of each that is best on the validation split is judged on the test
split, and so is what several of them come to together: an ensemble, whose probability of a frame
is the mean of theirs, built by adding whichever helps most on validation. Writes likelihoods.json,
the table, beside the runs.

A row's nats are all of its test frames', the first ones included, over all 2^88 sets of notes
(docs/design.md, "evaluation").
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import lstm_music  # noqa: F401  (before NumPy: it sets how the BLAS's threads wait)

# isort: split
import numpy as np
import numpy.typing as npt

from gpu_report import table
from lstm_music.cli.common import limit_threads
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.evaluation.frames import FrameScore, score_notes
from lstm_music.ops.cuda.device import PRECISIONS
from lstm_music.runs.opened import evaluation_corpus, model_of, open_run

ROOT = Path(__file__).resolve().parents[1]
COMMON = "--representation note --head biaxial --batch 4"
OUT = "RUNS"  # in options: the folder of the runs
MOST = 4  # networks of an ensemble
FOUND = "likelihoods.json"
ENDED = "minutes.txt"  # in a run: for how long it was trained

Nats: TypeAlias = npt.NDArray[np.float64]
Row: TypeAlias = dict[str, Any]


class Trial(NamedTuple):
    """A network to train: options of `bin/train` beside COMMON, and minutes at most."""

    corpus: str
    options: str
    minutes: float

    @property
    def remembers(self) -> bool:
        """Whether it has a copy gate, and so a memory of the piece besides its state."""
        return "--no-copy" not in self.options.split()


SMALL = "--hidden 64 --embedding 64 --nade 64"
FEW = f"{SMALL} --dropout 0.3 --seq 32 --anneal-factor 1"  # pieces
SLOW = "--lr 0.002 --average 0.998"
POOLED = f"--from {OUT}/muse-{{}} --dropout 0.3 --seq 32 --anneal-factor 1 {SLOW}"
SHORT = f"{SMALL} --dropout 0.1 --seq 32 --anneal-factor 1"
MANY = f"{SMALL} --dropout 0.1 --seq 64 --lr 0.008 --average 0.998 --anneal-factor 0.5"
NADE = (
    "--head nade --batch 8 --seq 64 --lr 0.005 --anneal-factor 1 --dropout 0.4 --average 0.995 "
    "--hidden 128 --embedding 128 --nade 128 --early-stop 0 --no-copy"
)
KEYS = "--transpose-augment 6"
WIDE = "--hidden 256 --embedding 256 --nade 256"
TRIALS = {
    "jsb-memory": Trial("jsb", f"{FEW} --lr 0.003 --average 0.995", 15),
    "jsb-alone": Trial("jsb", f"{FEW} --lr 0.003 --average 0.995 --no-copy", 12),
    "piano-memory": Trial("piano-midi", f"{FEW} --lr 0.004 --average 0.998", 20),
    "piano-alone": Trial("piano-midi", f"{FEW} --lr 0.004 --average 0.998 --no-copy", 22),
    "nottingham-memory": Trial("nottingham", MANY, 25),
    "nottingham-alone": Trial("nottingham", f"{MANY} --no-copy", 25),
    "muse-memory": Trial("muse", MANY, 45),
    "muse-alone": Trial("muse", f"{MANY} --no-copy", 47),
    "piano-memory-pooled": Trial("piano-midi", POOLED.format("memory"), 6),
    "piano-alone-pooled": Trial("piano-midi", POOLED.format("alone") + " --no-copy", 6),
    "jsb-memory-lr6": Trial("jsb", f"{FEW} --lr 0.006 --average 0.995", 3),
    "jsb-memory-lr12": Trial("jsb", f"{FEW} --lr 0.012 --average 0.995", 4),
    "jsb-memory-sparse": Trial("jsb", f"{SHORT} --lr 0.003 --average 0.995", 3),
    "piano-memory-lr10": Trial("piano-midi", f"{FEW} --lr 0.01 --average 0.998", 4),
    "nottingham-memory-short": Trial("nottingham", f"{SHORT} --lr 0.006 --average 0.995", 4),
    "muse-memory-short": Trial("muse", f"{SHORT} --lr 0.01 --average 0.998", 6),
    "jsb-nade": Trial("jsb", NADE, 2),
    "jsb-nade-keys": Trial("jsb", f"{NADE} {KEYS}", 4),
    "jsb-nade-wide": Trial("jsb", f"{NADE} {WIDE}", 2),
    "jsb-nade-wide-keys": Trial("jsb", f"{NADE} {WIDE} {KEYS}", 4),
}


def main() -> int:
    """Train what is not yet trained, judge, and print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the .mat files")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs are")
    parser.add_argument("--only", nargs="*", help="these sets or trials alone")
    parser.add_argument("--minutes", type=float, help="for each trial, in place of its own")
    parser.add_argument("--test", action="store_true", help="judge the best on the test split, too")
    parser.add_argument("--precision", choices=PRECISIONS, help="of training, as bin/train has it")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    limit_threads(args.threads, "numba")
    known = {*TRIALS, *(trial.corpus for trial in TRIALS.values())}
    if unknown := sorted({*(args.only or ())} - known):
        parser.error(f"--only {unknown[0]} is none of {', '.join(sorted(known))}")
    chosen = {
        name: trial if args.minutes is None else trial._replace(minutes=args.minutes)
        for name, trial in TRIALS.items()
        if not args.only or name in args.only or trial.corpus in args.only
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name, trial in chosen.items():
        train(args.out / name, trial, args.data, args.threads, args.precision or "fp32")
    rows = judged({name: args.out / name for name in chosen}, chosen, args.test)
    (args.out / FOUND).write_text(json.dumps(rows, indent=2) + "\n")
    print("\n".join(table([printed(row) for row in rows])))
    return 0


def printed(row: Row) -> Row:
    """Return a row as it is printed, likelihoods with all their digits."""
    return {k: f"{v:.4f}" if k in ("valid", "test") and v != "" else v for k, v in row.items()}


def train(run: Path, trial: Trial, data: Path, threads: int, precision: str) -> None:
    """Train a trial to its end, from where its run stands."""
    ended = run / ENDED
    if ended.exists() and float(ended.read_text()) >= trial.minutes:
        return
    left = max(trial.minutes - seconds_of(run) / 60, 0.01)
    begun = (run / "checkpoints" / "latest").exists()
    options = f"{COMMON} {trial.options}".replace(OUT, str(run.parent)).split()
    asked = ["--resume"] if begun else [trial.corpus, *options]
    own = [] if begun else ["--data", str(data)]
    limits = ["--run", str(run), "--max-minutes", f"{left:.2f}", "--threads", str(threads)]
    limits += ["--precision", precision]
    done = subprocess.run([ROOT / "bin" / "train", *asked, *own, *limits], check=False)
    if done.returncode:
        sys.exit(done.returncode)  # bin/train has said why
    ended.write_text(f"{trial.minutes}\n")


def seconds_of(run: Path) -> float:
    """Return how long a run has been trained, 0 where it isn't begun."""
    if not (run / "metrics.csv").exists():
        return 0.0
    with (run / "metrics.csv").open() as lines:
        return max((float(row["seconds"]) for row in csv.DictReader(lines)), default=0.0)


def judged(runs: dict[str, Path], trials: dict[str, Trial], test: bool) -> list[Row]:
    """Return a row for each trial; test: and of each set's best, single and together."""
    rows: list[Row] = []
    for corpus in dict.fromkeys(trial.corpus for trial in trials.values()):
        for remembers in (False, True):
            own = [n for n, t in trials.items() if (t.corpus, t.remembers) == (corpus, remembers)]
            if own:
                rows += rows_of({name: runs[name] for name in own}, trials, test)
    return rows


def rows_of(runs: dict[str, Path], trials: dict[str, Trial], test: bool) -> list[Row]:
    """Return the rows of trials of one kind, the best on validation first."""
    valid = {name: score(run, "valid") for name, run in runs.items()}
    order = sorted(valid, key=lambda name: valid[name].nats_per_frame)
    rows: list[Row] = [
        {
            "set": trials[name].corpus,
            "memory of the piece": "yes" if trials[name].remembers else "no",
            "network": name,
            "valid": round(valid[name].nats_per_frame, 4),
            "test": "",
            "accuracy": "",
            "minutes": trials[name].minutes,
            "machine": machine(),
            "options": trials[name].options,
        }
        for name in order
    ]
    members = ensemble({name: flat(valid[name]) for name in order})
    together = mixed([flat(valid[name]) for name in members])
    if len(members) > 1:
        more = {
            "network": f"ensemble of {', '.join(members)}",
            "valid": round(float(together.mean()), 4),
            "minutes": sum(trials[name].minutes for name in members),
            "options": "",
        }
        rows.append(rows[0] | more)
    if test:
        tested = {name: score(runs[name], "test") for name in {order[0], *members}}
        best, together = tested[order[0]], mixed([flat(tested[name]) for name in members])
        rows[0] |= {"test": round(best.nats_per_frame, 4), "accuracy": f"{best.accuracy:.1%}"}
        if len(members) > 1:
            rows[-1]["test"] = round(float(together.mean()), 4)
    return rows


def score(run: Path, split: str) -> FrameScore:
    """Return how well a run's network predicts the frames of a split."""
    checkpoint, folder = open_run(str(run), lambda line: print(line, file=sys.stderr))
    corpus = evaluation_corpus(str(run), checkpoint, folder, None, None)
    assert isinstance(corpus, RollCorpus)
    B, T = (checkpoint.meta["settings"][name] for name in ("batch", "seq"))
    return score_notes(model_of(checkpoint, "numba"), corpus, split, B, T)


def flat(found: FrameScore) -> Nats:
    """Return the nats of all frames, piece by piece."""
    return np.concatenate(found.nats).astype(np.float64)


def mixed(nats: Sequence[Nats]) -> Nats:
    """Return the nats of frames under the mean of several networks' probabilities."""
    total: Nats = -np.logaddexp.reduce([-n for n in nats], axis=0) + np.log(len(nats))
    return total


def ensemble(nats: dict[str, Nats]) -> list[str]:
    """Return which networks to take together: the best, and whichever then helps most, if any."""
    chosen: list[str] = []
    best = np.inf
    while len(chosen) < MOST:
        left = [name for name in nats if name not in chosen]
        tried = {name: float(mixed([nats[n] for n in [*chosen, name]]).mean()) for name in left}
        if not tried or min(tried.values()) >= best:
            break
        chosen.append(min(tried, key=lambda name: tried[name]))
        best = tried[chosen[-1]]
    return chosen


def machine() -> str:
    """Return the name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
