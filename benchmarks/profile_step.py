"""Where the time of a training step goes: `python benchmarks/profile_step.py train-v35509`.

Times every op of a step, without what the ops inside it take. --clock process counts the CPU's
time instead of the clock's: with --threads 1 it says the same on a busy machine.
"""

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from rivals import CASES, start

# isort: split
import numpy as np

from gpu_cases import LR
from gpu_ours import random_batch

CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "process": time.process_time,
}


class Profile:
    """Seconds of each op in each step; the calls of an object's methods are timed by `watch`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.steps: list[dict[str, float]] = []
        self._inside: list[float] = []  # what the ops inside each open one took

    def watch(self, owner: Any, names: list[str]) -> None:
        """Time each call of these methods of an object."""
        for name in names:
            setattr(owner, name, self._timed(name, getattr(owner, name)))

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            begun = self.clock()
            result = call(*args, **kwargs)
            took = self.clock() - begun
            inside = self._inside.pop()
            if self._inside:
                self._inside[-1] += took
            if self.steps:
                self.steps[-1][label(name, args)] += took - inside
            return result

        return timed

    def medians(self) -> dict[str, float]:
        """Return the median seconds of each op a step, the longest first."""
        ops = {op for step in self.steps for op in step}
        found = {op: statistics.median(step[op] for step in self.steps) for op in ops}
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def label(name: str, args: tuple[Any, ...]) -> str:
    """Return an op's name, a GEMM's with its sizes."""
    if name.startswith("matmul"):
        (M, K), N = args[0].shape, args[1].shape[1]
        return f"{name} ({M}, {K})·({K}, {N})"
    return name


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=[name for name in CASES if name.startswith("train")])
    parser.add_argument("--backend", choices=("numpy", "numba"), default="numba")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="default: %(default)s"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="default: %(default)s")
    args = parser.parse_args()

    side, case = start(args.threads, args.backend, args.precision), CASES[args.case].case
    step, batch = side.training(case), random_batch(case, np.random.default_rng(0))
    profile, whole = Profile(CLOCKS[args.clock]), []
    names = [name for name in dir(type(side.ops)) if not name.startswith("_")]
    quick = ("asarray", "to_numpy", "workspace", "name", "xp", "dtype", "real", "precision")
    profile.watch(side.ops, [name for name in names if name not in quick])
    for n in range(args.steps + 2):
        if n >= 2:
            profile.steps.append(defaultdict(float))
        begun = profile.clock()
        step.run(batch, LR)
        if n >= 2:
            whole.append(profile.clock() - begun)
    took = statistics.median(whole)
    how = f"{args.backend}, {args.precision}, {args.threads} threads"
    print(f"{args.case}, {how}: {took * 1e3:.1f} ms a step")
    found = profile.medians()
    for op, seconds in {**found, "the rest": took - sum(found.values())}.items():
        print(f"{op:44}{seconds * 1e3:9.2f} ms{seconds / took:7.1%}")


if __name__ == "__main__":
    main()
