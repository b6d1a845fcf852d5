"""Ours against PyTorch on this machine's CPU: `python benchmarks/rivals.py [--json FILE]`.

Each side is a process of its own (gpu_workers.py) with the same threads; rounds go A B A B, and the
other one sleeps meanwhile. Medians of the rounds. The bound of a training case is its GEMMs alone,
at the same sizes; that of sampling is the reading of the weights. Needs torch
(pip install 'lstm-music[oracle]').
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import time
from collections.abc import Callable, Iterator
from itertools import count, islice, product
from pathlib import Path
from typing import Any, NamedTuple

import lstm_music  # noqa: F401  (before NumPy: it sets how the BLAS's threads wait)

# isort: split
import numpy as np

from gpu_cases import CLIP, LR, SAMPLING_WORDS, Case
from gpu_ours import config_of, random_batch
from gpu_report import table
from gpu_workers import Entry, Made, Worker, interleaved
from lstm_music.cli.common import limit_threads
from lstm_music.network.biaxial import BELOW, OCTAVE, WINDOW
from lstm_music.network.model import Model, parameter_shapes
from lstm_music.network.optim import Optimizer
from lstm_music.ops import get_ops
from lstm_music.sampling.composer import sample_on_cpu
from lstm_music.sampling.options import Options
from lstm_music.sampling.word_rules import message_rules
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.tokenizers.vocabulary import Vocabulary
from lstm_music.training.graph_step import step_of
from lstm_music.training.step import Step

HABITS = (8000, 4, 12)  # as of the bundled Bach
MOST_LOGITS = 8_000_000  # at once, as a chunked loss takes them
AROUND = len(WINDOW) + OCTAVE  # what a note of a biaxial network reads
HOUR = 3600.0  # seconds, of a request


class Timed(NamedTuple):
    """A case and how many steps, or tokens of each piece, a round has.

    method: of both sides. strict: of sampling, words that the rules of music allow alone (the
    rival computes and draws from all the same).
    """

    method: str
    case: Case
    count: int
    strict: bool = False


CASES = {
    "train-v35509": Timed("step", Case("", 35_509, 50, 50), 1),
    "train-v600": Timed("step", Case("", 600, 50, 50), 5),
    "train-v126k": Timed("step", Case("", 126_000, 25, 25), 1),
    "train-note-sigmoid": Timed("step", Case("", 88, 50, 50, head="sigmoid"), 5),
    "train-note-nade": Timed("step", Case("", 88, 50, 50, head="nade"), 5),
    "train-note-biaxial": Timed("step", Case("", 88, 8, 32, H=64, head="biaxial"), 2),
    "train-chord-jsb": Timed("step", Case("", 2_421, 8, 64), 10),
    "train-chord-muse": Timed("step", Case("", 39_290, 32, 64), 1),
    "sample-v35509": Timed("sampling", Case("", SAMPLING_WORDS, 1, 1), 200),
    "sample-v35509-strict": Timed("sampling", Case("", SAMPLING_WORDS, 1, 1), 200, strict=True),
    "sample-v600": Timed("sampling", Case("", 600, 1, 1), 1000),
    "sample-v600-batch64": Timed("sampling", Case("", 600, 64, 1), 100),
}


# Our side ---------------------------------------------------------------------------------------


def start(threads: int, backend: str = "auto", precision: str = "fp32") -> Ours:
    """Return our side with so many threads."""
    limit_threads(threads, backend)
    return Ours(backend, precision)


class Ours:
    """What our side can be asked for, and the least work that a case takes."""

    def __init__(self, backend: str, precision: str = "fp32") -> None:
        self.ops = get_ops(backend, precision=precision)

    def check(self) -> None:
        """Raise where nothing can be asked for any more."""

    def clean(self) -> None:
        """Give back what nothing holds."""

    def peak(self) -> float:
        """Return the most memory that this process ever held, in MB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def training(self, case: Case) -> Step:
        """Return training steps of a case."""
        model = Model(config_of(case), self.ops)
        return step_of(model, Optimizer(self.ops, "adam", model.parameters), CLIP)

    def step(self, case: Case, steps: int) -> Made:
        """Make a round of training steps: seconds of one."""
        step, batch = self.training(case), random_batch(case, np.random.default_rng(0))
        return timed(lambda: step.run(batch, LR), steps)

    def sampling(self, case: Case, tokens: int, strict: bool) -> Made:
        """Make a round of drawing tokens at temperature 1: seconds of a token of all pieces."""
        model, words = Model(config_of(case), self.ops), message_words(case.V)
        rules = message_rules(words, "merge", *HABITS, free=not strict)
        primers: list[list[int]] = [[]] * case.B
        options = Options(length=tokens)
        made = timed(lambda: sample_on_cpu(model, primers, options, rules, lambda *_: None), 1)
        return made._replace(round=lambda: made.round() / tokens)

    def bound(self, case: Case, count: int, trains: bool) -> Made:
        """Make a round of the least work: the GEMMs of a step, or the weights of a token read."""
        if trains:
            calls = list(gemms(case))
            return timed(lambda: [np.matmul(a, b, out) for a, b, out in calls], count)
        sizes = parameter_shapes(config_of(case)).items()
        read = sum(math.prod(s) for name, s in sizes if not name.startswith("embedding"))
        weights = np.full(read, 0.1, np.float32)
        return timed(lambda: np.dot(weights, weights), count)


def timed(call: Callable[[], object], count: int) -> Made:
    """Make the round of so many calls, warmed up: seconds of one."""

    def run() -> float:
        begun = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - begun) / count

    run()
    return Made(run, {})


def gemms(case: Case) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the factors of a step's products, and room for each."""
    H = case.H
    rng = np.random.default_rng(0)

    def real(*shape: int) -> Any:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    def products(rows: int, inputs: int, outputs: int, weights: bool = True) -> list[Any]:
        x, W, d = real(rows, inputs), real(inputs, outputs), real(rows, outputs)
        made = [(x, W, np.empty_like(d)), (d, W.T, np.empty_like(x))]
        return [*made, (x.T, d, np.empty_like(W))] if weights else made

    def layer(steps: int, rows: int, inputs: int) -> list[Any]:
        recurrent = products(steps * rows, H, 4 * H)[2:]  # the weights' gradient, over all steps
        step = products(rows, H, 4 * H, weights=False)
        return [*products(steps * rows, inputs, 4 * H), *recurrent, *step * steps]

    if case.head == "biaxial":
        N = case.N * case.V
        near = products(N, AROUND, H)
        yield from [near[0], near[2]]  # what notes read has no gradient
        for _ in range(case.L):
            yield from layer(case.T, case.B * case.V, H)
        yield from [*layer(case.V, case.N, H + BELOW), *products(N, H, 1)]
        return
    V = case.V + H * (case.head == "nade")  # of what the head's linear maps give
    chunk = min(case.N, MOST_LOGITS // V)  # rows of logits
    for _ in range(case.L):
        yield from layer(case.T, case.B, H)
    for _ in range(case.N // chunk):
        yield from products(chunk, H, V)


def message_words(V: int) -> Vocabulary:
    """Return a vocabulary of messages of all keys of a piano, with as many times as V asks for."""
    messages = (
        f"note-{kind}-{pitch}-{ticks}"
        for ticks in count(0, 20)
        for pitch, kind in product(range(21, 109), ("on", "off"))
    )
    words = list(islice(messages, V - 1))
    np.random.default_rng(0).shuffle(words)  # as by frequency, not by kind
    return Vocabulary([PIECE_END, *words])


# Comparing --------------------------------------------------------------------------------------


def entries_of(name: str, threads: int, modes: list[str]) -> list[Entry]:
    """Return what is compared in a case: ours, PyTorch in its modes, and the bound."""
    method, case, count, strict = CASES[name]
    trains = method == "step"
    ours: dict[str, Any] = {"case": case, "steps": count}
    theirs = {**ours, "precision": "fp32"}
    if not trains:
        ours = {"case": case, "tokens": count, "strict": strict}
        theirs, modes = {"batch": case.B, "words": case.V, "tokens": count, "H": case.H}, modes[:1]

    def entry(who: str, module: str, given: dict[str, Any], **settings: Any) -> Entry:
        side = Worker(module, lambda: HOUR, threads=threads, **settings)
        return Entry({"who": who}, side, given, HOUR)

    bound = {"method": "bound", "case": case, "count": count, "trains": trains}
    found = [entry("ours", "rivals", {"method": method, **ours}), entry("bound", "rivals", bound)]
    for mode in modes:
        given = {"method": method, "mode": mode, **theirs}
        found.append(entry(f"pytorch {mode}", "gpu_rivals", given, device="cpu"))
    return found


def compare(name: str, rounds: int, threads: int, modes: list[str]) -> dict[str, Any]:
    """Run one case and return its row."""
    entries = entries_of(name, threads, modes)
    rows = {row["who"]: row for row in interleaved(entries, lambda: HOUR, rounds)}
    for who, row in rows.items():
        if "error" in row:
            print(f"{name}: {who} failed: {row['error']}")
    peaks = {e.row["who"]: e.side.call("peak") for e in entries if "seconds" in rows[e.row["who"]]}
    for each in entries:
        each.side.close()
    took = {who: row["seconds"] for who, row in rows.items() if "seconds" in row}
    rivals = [who for who in took if who.startswith("pytorch")]
    best = min(rivals, key=lambda who: took[who], default="")
    case = CASES[name].case
    nothing = float("nan")
    return {
        "case": name,
        "ours_tokens_per_second": case.N / took["ours"],
        "rival_tokens_per_second": case.N / took.get(best, nothing),
        "ratio": took.get(best, nothing) / took["ours"],
        "rival": best,
        "ours_peak_mb": peaks["ours"],
        "rival_peak_mb": peaks.get(best, nothing),
        "share_of_bound": took["bound"] / took["ours"],
    }


def main() -> None:
    """Compare, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu",), default="cpu", help="a GPU: gpu.py")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: %(default)s")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    modes = ["eager"] if args.no_compile else ["eager", "compile"]
    rows = []
    for name in args.cases:
        rows.append(compare(name, args.rounds, args.threads, modes))
        print(table(rows[-1:])[-1] if len(rows) > 1 else "\n".join(table(rows)), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"threads": args.threads, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
