"""How training scales over ranks: `python benchmarks/scaling.py --json FILE`; `--predict FILE`.

Measures in one MPI job (default: 2 ranks of one thread) so that all sees the same machine: rounds
of one rank alone, of all with the same global batch (strong scaling) and with the same batch each
(weak), in turn; the ranks that wait sleep. Then all-reduces by size, and with --curves N the losses
of N steps on Bach, one process against all. --predict fits a cost model to what was measured and
says what it predicts for other machines. Needs the extra mpi.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from scaling_model import predict

E = H = 128
L, T, B = 2, 50, 50
VOCABULARIES = (600, 35_509)
SIZES = tuple(1 << k for k in range(12, 26))  # bytes of an all-reduce
REPEATS = 15
RATES = (1e-3, 5e-3)  # of learning, for --curves


class Work:
    """Training steps on random ids; B: streams of all ranks together."""

    def __init__(self, ops: Any, parameters: Any, V: int, B: int, ranks: Any) -> None:
        import numpy as np

        from lstm_music.arrays import Batch
        from lstm_music.network.config import Config
        from lstm_music.network.model import Model
        from lstm_music.network.optim import Optimizer

        self.ops, self.ranks = ops, ranks
        self.model = Model(Config(V, E, H, L), ops, parameters=parameters)
        self.optimizer = Optimizer(ops, "adam", parameters)
        first, stop = ranks.share_of(B)
        ids = np.random.default_rng(0).integers(0, V, (2, T, B), dtype=np.int32)
        x, y = np.ascontiguousarray(ids[:, :, first:stop])
        self.batch = Batch(x, y, None, T * B, first, B)
        self.state = self.model.zero_state(stop - first)

    def step(self) -> dict[str, float]:
        """Take a step; return seconds of its parts on this rank, and the CPU's of all."""
        from lstm_music.network.optim import clip_scale, global_norm

        ranks, sent, cpu, clock = self.ranks, self.ranks.sent, time.process_time(), Clock()
        given = self.batch, self.state, 0, 0, ranks.start
        loss, grads, self.state = self.model.loss_and_grads(*given)
        parts = {"gradients": clock.lap()}
        loss, grads = ranks.total(loss), ranks.finish(grads, self.model)
        parts["waiting"] = clock.lap()
        scale = clip_scale(global_norm(self.ops, grads), 5.0)
        self.optimizer.step(self.model.parameters, grads, 1e-3, scale)
        parts["update"] = clock.lap()
        parts["step"] = sum(parts.values())
        return parts | {"cpu": time.process_time() - cpu, "sent": float(ranks.sent - sent)}


class Clock:
    """Seconds from one lap to the next."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last lap, or since the start."""
        before, self.last = self.last, time.perf_counter()
        return self.last - before


# What the ranks do ------------------------------------------------------------------------------


def measure(args: argparse.Namespace) -> None:
    """Measure as one of the ranks; rank 0 writes the JSON."""
    import lstm_music  # noqa: F401  (before NumPy: it sets how the BLAS's threads wait)
    from lstm_music.cli.common import limit_threads
    from lstm_music.ops import get_ops
    from lstm_music.training.ranks import join

    ranks = join()
    limit_threads(args.threads, "numba")
    ops = get_ops("numba")
    ranks.connect(ops)
    found: dict[str, Any] = {
        "ranks": ranks.size, "threads": args.threads, "load": os.getloadavg(), "cpu": cpu_name(),
        "steps": {str(V): steps_of(V, args.rounds, ops, ranks) for V in args.vocabularies},
        "reduce": all_reduces(ranks),
    }  # fmt: skip
    if args.curves:
        kinds = ("float64", "float32")
        found["curves"] = {kind: curves(args.curves, kind, ranks) for kind in kinds}
    found["load after"] = os.getloadavg()
    if ranks.leads:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    ranks.leave()


def steps_of(V: int, rounds: int, ops: Any, ranks: Any) -> dict[str, Any]:
    """Return medians of the parts of a step, by who takes it."""
    from lstm_music.network.config import Config
    from lstm_music.network.model import init_parameters
    from lstm_music.training.ranks import ALONE

    parameters = init_parameters(Config(V, E, H, L), ops, 0)
    works = {
        "alone": Work(ops, parameters, V, B, ALONE),
        "alone, its share": Work(ops, parameters, V, B // ranks.size, ALONE),
        "strong": Work(ops, parameters, V, B, ranks),
        "weak": Work(ops, parameters, V, B * ranks.size, ranks),
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in works}
    for n in range(rounds + 1):
        for name, work in works.items():
            if name.startswith("alone"):
                parts = ranks.first_alone(work.step if ranks.leads else dict)
            else:
                ranks.total(0.0)  # all begin at once
                parts = work.step()
            if n:  # the first one compiles, and touches its memory
                taken[name].append(parts)
    if not ranks.leads:
        return {}
    return {name: medians(parts) for name, parts in taken.items()}


def medians(parts: list[dict[str, float]]) -> dict[str, Any]:
    """Return the median of each part over rounds, and all rounds of the whole step."""
    found: dict[str, Any] = {k: statistics.median(p[k] for p in parts) for k in parts[0]}
    return found | {"rounds": [p["step"] for p in parts]}


def all_reduces(ranks: Any) -> dict[str, float]:
    """Return the median seconds of an all-reduce in place, by bytes."""
    import numpy as np

    found = {}
    for size in SIZES:
        a, taken = np.ones(size // 4, np.float32), []
        for _ in range(REPEATS):
            a[...] = 1
            ranks.total(0.0)
            clock = Clock()
            ranks._sums.start([a])
            ranks._sums.finish()
            taken.append(clock.lap())
        found[str(size)] = statistics.median(taken)
    return found


def curves(steps: int, dtype: str, ranks: Any) -> dict[str, float]:
    """Return how far the losses of one process and of all ranks are apart on Bach, at most.

    By learning rate.
    """
    from lstm_music.corpus.load import Reading, load_corpus
    from lstm_music.ops import get_ops
    from lstm_music.training.ranks import ALONE

    ops = get_ops("numba", dtype)
    corpus = ranks.first_alone(lambda: load_corpus("bach", reading=Reading(tracks="merge")))
    found = {}
    for lr in RATES:
        alone = ranks.first_alone(partial(curve, steps, lr, ops, corpus, ALONE, ranks.leads))
        together = curve(steps, lr, ops, corpus, ranks)
        if ranks.leads:
            found[str(lr)] = max(abs(a - b) for a, b in zip(alone, together, strict=True))
    return found


def curve(
    steps: int, lr: float, ops: Any, corpus: Any, ranks: Any, take: bool = True
) -> list[float]:
    """Return the losses of the first steps of a run, of default settings but for the rate."""
    from lstm_music.network.config import Config
    from lstm_music.network.model import Model
    from lstm_music.runs.folder import new_run
    from lstm_music.runs.settings import Settings
    from lstm_music.training.trainer import Trainer

    if not take:
        return []
    settings = Settings(batch=B, seq=T, max_steps=steps, lr=lr, checkpoint_minutes=1e6)
    model = Model(Config(len(corpus.vocabulary), E, H, L, 0.2), ops, 0)
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        if ranks.leads:
            new_run(run, model.config, corpus, settings, {"corpus": "bach", "data": None}, {})
        show: Callable[[Any], None] = lambda report: found.append(report.loss)  # noqa: E731
        Trainer(corpus, model, settings, run, show, ranks=ranks).train()
    return found


def cpu_name() -> str:
    """Return the processor's name, where the system says it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


# What is printed --------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> None:
    """Print what was measured."""
    N = found["ranks"]
    before, after = found["load"][0], found["load after"][0]
    print(f"{N} ranks of {found['threads']} thread; {found['cpu']}; load {before:.1f}, {after:.1f}")
    columns = ("step", "gradients", "waiting", "update", "cpu")
    print("ms, medians      V  " + "".join(f"{c:>11}" for c in columns) + "   speed-up  MB sent")
    for V, rows in found["steps"].items():
        base = rows["alone"]["step"]
        for name, parts in rows.items():
            work = {"weak": N, "alone, its share": 1 / N}.get(name, 1)
            cells = "".join(f"{1e3 * parts[c]:>11.1f}" for c in columns)
            sent = f"{parts['sent'] / 1e6:9.2f}"
            print(f"{name:16} {int(V):>6}{cells} {base * work / parts['step']:>9.2f} {sent}")
    print(
        "all-reduce: "
        + ", ".join(f"{int(k):,} B {1e6 * s:,.0f} µs" for k, s in found["reduce"].items())
    )
    for dtype, apart in found.get("curves", {}).items():
        print(f"losses apart at most, {dtype}, by learning rate: {json.dumps(apart)}")


def main() -> None:
    """Measure and print, or predict."""
    from lstm_music.errors import mpi_size_and_rank

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--json", type=Path, default=Path("scaling.json"), help="default: %(default)s")
    add("--ranks", type=int, default=2, help="default: %(default)s")
    add("--threads", type=int, default=1, help="of each rank, default: %(default)s")
    add("--rounds", type=int, default=7, help="default: %(default)s")
    add("--curves", type=int, default=0, metavar="N", help="steps to compare, default: %(default)s")
    add("--vocabularies", type=int, nargs="*", default=VOCABULARIES, help="default: %(default)s")
    add("--predict", type=Path, metavar="FILE", help="what the model says, fitted to a --json FILE")
    args = parser.parse_args()
    if args.predict:
        predict(json.loads(args.predict.read_text()))
    elif mpi_size_and_rank():
        measure(args)
    else:
        beside = Path(sys.executable).with_name("mpirun")
        mpirun = str(beside) if beside.exists() else "mpirun"
        command = [mpirun, "-n", str(args.ranks), sys.executable, *sys.argv]
        subprocess.run(command, check=True)
        report(json.loads(args.json.read_text()))


if __name__ == "__main__":
    main()
