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

from rivals import CASES, random_batch

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
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="default: %(default)s")
    args = parser.parse_args()

    import lstm_music  # noqa: F401  (before NumPy: it sets how the BLAS's threads wait)
    from lstm_music.arrays import Batch
    from lstm_music.cli.common import limit_threads
    from lstm_music.network.config import Config
    from lstm_music.network.model import Model
    from lstm_music.network.optim import Optimizer, clip_scale, global_norm
    from lstm_music.ops import get_ops

    case = CASES[args.case]
    limit_threads(args.threads, args.backend)
    ops = get_ops(args.backend)
    model = Model(Config(case.V, case.E, case.H, case.L, head=case.head, nade=case.K), ops)
    optimizer = Optimizer(ops, "adam", model.parameters)
    batch = Batch(*random_batch(case), None, case.T * case.B)
    profile = Profile(CLOCKS[args.clock])
    names = [name for name in dir(type(ops)) if not name.startswith("_")]
    quick = ("asarray", "to_numpy", "workspace", "name", "xp", "dtype", "real")
    profile.watch(ops, [name for name in names if name not in quick])
    state, whole = model.zero_state(case.B), []
    for n in range(args.steps + 2):
        if n >= 2:
            profile.steps.append(defaultdict(float))
        begun = profile.clock()
        _, grads, state = model.loss_and_grads(batch, state)
        scale = clip_scale(global_norm(ops, grads), 5.0)
        optimizer.step(model.parameters, grads, 1e-3, scale)
        if n >= 2:
            whole.append(profile.clock() - begun)
    step = statistics.median(whole)
    print(f"{args.case}, {args.backend}, {args.threads} threads: {step * 1e3:.1f} ms a step")
    found = profile.medians()
    for op, seconds in {**found, "the rest": step - sum(found.values())}.items():
        print(f"{op:44}{seconds * 1e3:9.2f} ms{seconds / step:7.1%}")


if __name__ == "__main__":
    main()
