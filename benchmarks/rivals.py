"""Ours against PyTorch on this machine's CPU: `python benchmarks/rivals.py [--json FILE]`.

Each side is a process of its own (gpu_workers.py) with the same threads; rounds go A B A B, and the
others sleep meanwhile. Medians of the rounds. Ours trains in fp32 and, where the processor has
AVX512_BF16, in bf16; PyTorch in fp32, in fp32 whose products may round to bf16 (which counts as
fp32), and in bf16 under autocast, each eager and compiled; the quickest of a side counts. Weights
and moments are fp32 in all. To sample, PyTorch may keep its weights in bf16. The bound of a
training case is its GEMMs alone, at the same sizes and in the same precision, by whoever is
quicker; that of sampling is the reading of fp32 weights. train-bach is what `bin/train bach`
trains, on random words: with dropout, copy gate and averaged weights on both sides, but no piece
begins within a window, which PyTorch couldn't do in one call. Needs torch
(pip install 'lstm-music[oracle]').
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice, product
from pathlib import Path
from typing import Any, NamedTuple

import lstm_music  # noqa: F401  (before NumPy: it sets how the BLAS's threads wait)

# isort: split
import numpy as np

from gpu_cases import LR, SAMPLING_WORDS, Case, Product, operands
from gpu_ours import config_of, random_batch, steps_of
from gpu_report import fastest, table
from gpu_workers import Entry, Made, Worker, interleaved
from lstm_music.cli.common import limit_threads
from lstm_music.network.biaxial import BELOW, OCTAVE, WINDOW
from lstm_music.network.model import Model, parameter_shapes
from lstm_music.ops import get_ops
from lstm_music.sampling.composer import sample_on_cpu
from lstm_music.sampling.options import Options
from lstm_music.sampling.word_rules import message_rules
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.tokenizers.vocabulary import Vocabulary
from lstm_music.training.step import Step

HABITS = (8000, 4, 12)  # as of the bundled Bach
MOST_LOGITS = 8_000_000  # at once, as a chunked loss takes them
AROUND = len(WINDOW) + OCTAVE  # what a note of a biaxial network reads
HOUR = 3600.0  # seconds, of a request
PRECISIONS = ("fp32", "bf16")
THEIRS = (*PRECISIONS, "rounded")  # of PyTorch's training; the last: see gpu_rivals.py


class Timed(NamedTuple):
    """A case and how many steps, or tokens of each piece, a round has.

    method: of both sides. strict: of sampling, words that the rules of music allow alone (the
    rival computes and draws from all the same).
    """

    method: str
    case: Case
    count: int
    strict: bool = False


BACH = Case("", 525, 16, 64, 192, E=128, dropout=0.3, copy=11, average=0.998)
CASES = {
    "train-bach": Timed("step", BACH, 5),
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
        return steps_of(case, self.ops)

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

    def gemms(self, products: Sequence[Product], count: int, of_numpy: bool = False) -> Made:
        """Make a round of products alone."""
        rng = np.random.default_rng(0)
        calls = operands(products, lambda *s: rng.normal(0, 0.1, s).astype(np.float32))
        multiply: Callable[..., object] = np.matmul if of_numpy else self.ops.matmul
        return timed(lambda: [multiply(a, b, out) for a, b, out in calls], count)

    def reading(self, case: Case, count: int) -> Made:
        """Make a round of reading the weights that a token needs."""
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


def gemms(case: Case) -> Iterator[Product]:
    """Yield a step's products."""
    H = case.H

    def products(*sizes: int, of: Sequence[str] = ("y", "dx", "dW")) -> list[Product]:
        return [Product(gives, *sizes) for gives in of]

    def layer(steps: int, rows: int, inputs: int) -> list[Product]:
        recurrent = products(steps * rows, H, 4 * H, of=["dW"])  # over all steps
        step = products(rows, H, 4 * H, of=["y", "dx"])
        return [*products(steps * rows, inputs, 4 * H), *recurrent, *step * steps]

    if case.head == "biaxial":
        N = case.N * case.V
        yield from products(N, AROUND, H, of=["y", "dW"])  # what notes read has no gradient
        for _ in range(case.L):
            yield from layer(case.T, case.B * case.V, H)
        yield from [*layer(case.V, case.N, H + BELOW), *products(N, H, 1)]
        return
    V = case.V + H * (case.head == "nade")  # of what the head's linear maps give
    chunk = min(case.N, MOST_LOGITS // V)  # rows of logits
    for n in range(case.L):
        yield from layer(case.T, case.B, H if n else case.width)
    for _ in range(case.N // chunk):
        yield from products(chunk, H, V)
    if case.copy:
        yield from products(case.N, H, case.copy)


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
    """Return what is compared in a case: ours, the bounds, and PyTorch in its modes."""
    method, case, count, strict = CASES[name]

    def entry(side: str, precision: str, who: str = "", /, **given: Any) -> Entry:
        row = {"side": side, "precision": precision, "who": who or "ours"}
        if who.startswith("pytorch"):
            worker = Worker("gpu_rivals", lambda: HOUR, device="cpu", threads=threads)
        else:
            worker = Worker("rivals", lambda: HOUR, precision=precision, threads=threads)
        return Entry(row, worker, given, HOUR)

    def rival(mode: str, precision: str, also: str = "", /, **given: Any) -> Entry:
        who, counts_as = f"pytorch {mode} {precision}{also}", precision.replace("rounded", "fp32")
        given |= {"method": method, "mode": mode, "precision": precision}
        return entry("torch", counts_as, who, **given)

    if method == "sampling":
        given = {"batch": case.B, "words": case.V, "tokens": count, "H": case.H}
        return [
            entry("ours", "fp32", method=method, case=case, tokens=count, strict=strict),
            entry("bound", "fp32", method="reading", case=case, count=count),
            *(rival(mode, precision, **given) for mode in modes[:1] for precision in PRECISIONS),
        ]
    step: dict[str, Any] = {"case": case, "steps": count}
    bound = {"method": "gemms", "products": list(gemms(case)), "count": count}
    found = [entry("ours", precision, method=method, **step) for precision in ours_has()]
    found += [entry("bound", precision, **bound) for precision in ours_has()]
    found.append(entry("bound", "fp32", "numpy", **bound, of_numpy=True))
    found += [entry("bound", "bf16", "pytorch", **bound)] if modes else []
    found += [rival(mode, precision, **step) for mode in modes for precision in THEIRS]
    if case.head == "softmax":
        found += [rival(mode, "bf16", ", logits too", half=True, **step) for mode in modes]
    return found


def ours_has() -> list[str]:
    """Return the precisions that ours has here; asked in the command's process alone."""
    from lstm_music.ops.cpu.panels import HAS_BF16

    return list(PRECISIONS if HAS_BF16 else PRECISIONS[:1])


def compare(name: str, rounds: int, threads: int, modes: list[str]) -> list[dict[str, Any]]:
    """Run one case and return a row for all that was timed: seconds, and the peak of memory."""
    entries = entries_of(name, threads, modes)
    rows = interleaved(entries, lambda: HOUR, rounds)
    for row, each in zip(rows, entries, strict=True):
        if "error" in row:
            print(f"{name}: {row['side']} ({row['who']} {row['precision']}) failed: {row['error']}")
        else:
            row["peak_mb"] = each.side.call("peak")
        each.side.close()
    return rows


def summary(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a case's row: each side's quickest; NaN of what wasn't timed."""
    tokens, nothing = CASES[name].case.N, {"seconds": math.nan, "peak_mb": math.nan, "who": ""}

    def best(side: str, **wanted: str) -> dict[str, Any]:
        return fastest(rows, side=side, **wanted) or nothing

    ours, rival, rival_single = best("ours"), best("torch"), best("torch", precision="fp32")
    single, half = (best("ours", precision=precision) for precision in PRECISIONS)
    single_bound, half_bound = (best("bound", precision=precision) for precision in PRECISIONS)
    return {
        "case": name,
        "ours_fp32_tokens_per_second": tokens / single["seconds"],
        "ours_bf16_tokens_per_second": tokens / half["seconds"],
        "rival_tokens_per_second": tokens / rival["seconds"],
        "rival": rival["who"],
        "ratio": rival["seconds"] / ours["seconds"],
        "rival_fp32_tokens_per_second": tokens / rival_single["seconds"],
        "rival_fp32": rival_single["who"],
        "ratio_fp32": rival_single["seconds"] / single["seconds"],
        "ours_peak_mb": ours["peak_mb"],
        "rival_peak_mb": rival["peak_mb"],
        "share_of_fp32_bound": single_bound["seconds"] / single["seconds"],
        "fp32_bound_of": single_bound["who"],
        "share_of_bf16_bound": half_bound["seconds"] / half["seconds"],
        "bf16_bound_of": half_bound["who"],
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
    rows, timed = [], {}
    for name in args.cases:
        timed[name] = compare(name, args.rounds, args.threads, modes)
        rows.append(summary(name, timed[name]))
        print(table(rows[-1:])[-1] if len(rows) > 1 else "\n".join(table(rows)), flush=True)
    if args.json:
        found = {"threads": args.threads, "rows": rows, "timed": timed}
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
