"""Whether our side is right on this GPU: every kernel launches, and agrees with the CPU.

`gpu_checks.py every MOST` launches each once at small sizes, up to so many hidden units, for
compute-sanitizer; `gpu_checks.py step VARIANT H` takes one training step of Bach's between a
profiler's marks, H as in sizes_of.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gpu_cases import BARRIER, CLIP, LR, VARIANTS, WITHOUT, Case, sizes_of
from gpu_ours import Ours, config_of, ops_of, random_batch
from lstm_music.corpus.batches import on_device
from lstm_music.network.config import Config
from lstm_music.network.copying import CopyGate
from lstm_music.network.lstm import lstm_backward, lstm_forward, lstm_init
from lstm_music.network.model import Model
from lstm_music.network.optim import Averages, Optimizer
from lstm_music.network.recall_rules import recall_rules
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda import source
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.runs.checkpoint import read_checkpoint
from lstm_music.runs.opened import bundled_model
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.options import Options
from lstm_music.training.graph_step import step_of

COPY = 9  # candidates of a copy gate
SMALL = Case("small", 101, 7, 9, 37, copy=COPY)
HEADS = ("softmax", "sigmoid", "nade")  # a factored head runs the same kernels
KERNEL = re.compile(r'extern "C" __global__ void [^;{]*?(\w+)\(\s*(?:const )?\w+[ *]')


class Layer(NamedTuple):
    """A layer to check: its hidden units, rows, and how it is computed."""

    H: int
    B: int
    variant: str = "fp32"

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"layer, H={self.H}, B={self.B}, {self.variant}"


# Each way in which an H200 of 132 multiprocessors shares a layer out: blocks of a cluster, rows of
# a block, weights in registers, shared memory and the L2 cache. Bach's and Classical's come first,
# and last what takes two launches a step.
LAYERS = (
    Layer(128, 50),
    Layer(128, 50, "bf16"),
    Layer(128, 25),
    Layer(128, 50, BARRIER),
    Layer(128, 50, WITHOUT),
    *(Layer(H, B) for H, B in ((64, 50), (77, 7), (40, 150), (60, 150), (32, 300), (100, 300))),
    *(Layer(H, B) for H, B in ((129, 64), (128, 100), (192, 132), (128, 200), (192, 264))),
    *(Layer(H, B) for H, B in ((129, 100), (256, 7), (129, 50), (256, 50), (192, 100), (200, 264))),
    Layer(256, 50, WITHOUT),
    *(Layer(H, B, "bf16") for H, B in ((64, 50), (16, 300), (128, 300), (128, 600))),
    Layer(260, 3),
)


def layers(most: int) -> list[Layer]:
    """Return the layers of at most so many hidden units, and the largest, whose way is its own."""
    return [layer for layer in LAYERS if most >= layer.H or layer is LAYERS[-1]]


def kernels() -> set[str]:
    """Return the names of all kernels."""
    texts = (source.FOLDER / f"{name}.cu" for name in source.names())
    return {name for path in texts for name in KERNEL.findall(path.read_text("utf-8"))}


def start(**settings: int) -> Checks:
    """Return the checks of the GPU here."""
    from gpu_ours import start as ours

    return Checks(ours(**settings))


class Checks:
    """What can be asked about whether our side is right.

    launched: how often each kernel was, by these checks.
    """

    def __init__(self, ours: Ours) -> None:
        self.ours, self.xp = ours, ours.xp
        self.launched: Counter[str] = Counter()

    def check(self) -> None:
        """Raise where the device no longer answers."""
        self.ours.check()

    def ops(self, variant: str) -> CupyOps:
        """Return the ops of a variant, whose launches are counted."""
        ops = ops_of(variant, self.xp)
        launch = ops.launch

        def counted(file: str, name: str, *args: Any, **given: Any) -> None:
            launch(file, name, *args, **given)
            self.launched[name] += 1

        ops.launch = counted  # type: ignore[method-assign]
        return ops

    def never_launched(self) -> list[str]:
        """Return the kernels that no check launched."""
        return sorted(kernels() - set(self.launched))

    # Against the CPU --------------------------------------------------------------------------

    def layer(self, H: int, B: int, variant: str, T: int) -> dict[str, float]:
        """Compare a layer both ways, states carried and reset, with float64 on the CPU."""

        def results(ops: NumpyOps) -> dict[str, Any]:
            rng = np.random.default_rng(0)
            p = lstm_init(ops, rng, H, H)
            x, dy = (0.5 * ops.asarray(rng.standard_normal((T, B, H))) for _ in range(2))
            h, c = (ops.asarray(rng.standard_normal((B, H))) for _ in range(2))
            keep = ops.asarray(rng.random((T, B)) < 0.8)
            y, (hT, cT), cache = lstm_forward(ops, p, x, h, c, keep)
            made = {"y": ops.to_numpy(y).copy(), "h": ops.to_numpy(hT), "c": ops.to_numpy(cT)}
            dx, (dh, dc), grads = lstm_backward(ops, p, dy, None, None, cache)
            made |= {name: ops.to_numpy(a) for name, a in (("dx", dx), ("dh", dh), ("dc", dc))}
            return made | {f"d{name}": ops.to_numpy(g) for name, g in grads.items()}

        return errors(results(self.ops(variant)), results(NumpyOps("float64")))

    def step(self, variant: str, case: Case) -> dict[str, float]:
        """Compare a step's loss and gradients with float64 on the CPU."""
        batch = random_batch(case, np.random.default_rng(0))

        def results(ops: NumpyOps) -> dict[str, Any]:
            model, sent = Model(config_of(case), ops, seed=1), on_device(ops, batch)
            losses, _ = model.losses(sent, model.zero_state(case.B))
            made = {"losses": ops.to_numpy(losses).copy()}
            _, grads, _ = model.loss_and_grads(sent, model.zero_state(case.B))
            for name, g in grads.items():
                made[name] = ops.to_numpy(g.values if isinstance(g, tuple) else g)
            return made

        return errors(results(self.ops(variant)), results(NumpyOps("float64")))

    def training(self, head: str, steps: int) -> dict[str, float]:
        """Compare steps on GPU and CPU from one seed; move the GPU's averages to the CPU."""
        host, ops, case = NumpyOps("float32"), self.ops("fp32"), SMALL._replace(head=head)
        gpu, trained = small_run(ops, steps, head)
        cpu, _ = small_run(host, steps, head)
        moved = {k: host.asarray(ops.to_numpy(v)) for k, v in trained.parameters.items()}
        there = Model(trained.config, host, parameters=moved)
        batch = random_batch(case, np.random.default_rng(1))
        on_cpu, _ = there.losses(batch, there.zero_state(case.B))
        on_gpu, _ = trained.losses(on_device(ops, batch), trained.zero_state(case.B))
        return {
            "in training": max(abs(a - b) for a, b in zip(gpu, cpu, strict=True)),
            "of one model": float(np.abs(ops.to_numpy(on_gpu) - on_cpu).max()),
        }

    def drawn(self, tokens: int) -> dict[str, float]:
        """Return the share of tokens that the bundled model draws otherwise than on the CPU.

        It has a new copy gate, which takes a candidate as often as the network's word. A tie within
        rounding may do that, and all that follows in the piece is then other music.
        """
        found = []
        for ops in (self.ops("fp32"), NumpyOps("float32")):
            checkpoint = read_checkpoint(bundled_model())
            parameters = {k: ops.asarray(v) for k, v in checkpoint.parameters.items()}
            rules = recall_rules(checkpoint.vocabulary, checkpoint.meta["tokenizer"])
            config = replace(checkpoint.config, copy=rules.candidates)
            for name, shape in CopyGate(config.hidden, config.copy).shapes().items():
                parameters[f"copy.{name}"] = ops.asarray(np.zeros(shape))
            model = Model(config, ops, parameters=parameters, words=checkpoint.words)
            options = Options(length=tokens, top_p=0.9, seed=1)
            composer = composer_of(checkpoint, model)
            found.append(composer.compose([[]] * 4, options, lambda *shown: None))
        pairs = [pair for both in zip(*found, strict=True) for pair in zip(*both, strict=False)]
        return {"other tokens": sum(a != b for a, b in pairs) / len(pairs)}

    def rest(self) -> dict[str, float]:
        """Compare what no step and no piece needs: a NADE's draws, a loss and a mean alone."""
        rng = np.random.default_rng(0)
        N, D, K = 50, 88, 128
        arrays = [rng.standard_normal(shape) for shape in ((N, D), (N, K), (D, K), (D, K))]
        draws = rng.random((N, D))
        notes = (rng.random((N, D)) < 0.05).astype(np.uint8)

        def results(ops: NumpyOps) -> dict[str, Any]:
            visible, hidden, W, U = (ops.asarray(0.3 * a) for a in arrays)
            losses, drawn = ops.asarray(np.zeros(N)), ops.asarray(np.zeros((N, D)), np.uint8)
            ops.sigmoid_nll(ops.asarray(arrays[0]), ops.asarray(notes, np.uint8), losses)
            made = {"losses": ops.to_numpy(losses).copy()}
            mean = ops.asarray(arrays[1])
            ops.average_step(ops.asarray(arrays[2][:N]), mean, 0.25)
            made["mean"] = ops.to_numpy(mean)
            ops.nade_sample(visible, hidden, W, U, ops.asarray(draws, np.float64), 1.0, drawn)
            return made | {"drawn": ops.to_numpy(drawn).astype(np.float64)}

        return errors(results(self.ops("fp32")), results(NumpyOps("float64")))


def errors(found: dict[str, Any], exact: dict[str, Any]) -> dict[str, float]:
    """Return how far results are from exact ones: norms of differences over norms, by name."""
    norm = np.linalg.norm
    made = {k: norm(found[k] - exact[k]) / (norm(exact[k]) or 1) for k in exact}
    return {k: float(error) for k, error in made.items()}


# Programs that tools run ------------------------------------------------------------------------


def small_run(ops: NumpyOps, steps: int, head: str = "softmax") -> tuple[list[float], Model]:
    """Take steps with a small model; return losses and the model. On a GPU each is a graph."""
    case = SMALL._replace(head=head)
    rng = np.random.default_rng(0)
    config = Config(case.V, 24, case.H, case.L, 0.2, head=head, copy=case.copy)
    model = Model(config, ops, seed=1)
    optimizer = Optimizer(ops, "adam", model.parameters, 0.01)
    averages = Averages(model, 0.9)
    step, losses = step_of(model, optimizer, CLIP, 0, averages), []
    for _ in range(steps):
        keep = (rng.random((case.T, case.B)) < 0.9).astype(np.float32)
        batch = random_batch(case, rng)._replace(keep=keep)
        step.run(batch, LR)
        losses.append(step.read().loss)
    return losses, averages.model


def asked(most: int, T: int, case: Case, tokens: int, steps: int) -> list[tuple[str, str, Any]]:
    """Return all that is checked at hidden sizes up to `most`: a name, a method, its arguments."""
    return [
        *((each.name, "layer", {**each._asdict(), "T": T}) for each in layers(most)),
        *((f"a step, {v}", "step", {"variant": v, "case": case}) for v in VARIANTS),
        ("the rest", "rest", {}),
        ("drawn", "drawn", {"tokens": tokens}),
        *((f"training, {head}", "training", {"head": head, "steps": steps}) for head in HEADS),
    ]


def every(checks: Checks, most: int, show: Callable[[str], None] = lambda name: None) -> None:
    """Launch every kernel, in every way that there is at hidden sizes up to `most`.

    show is called with a name as each check begins.
    """
    # Arrays of their own, not parts of a pool's: what is read beside one is then seen.
    checks.xp.cuda.set_allocator(None)
    case = Case("", 301, 50, 2, min(most, 128), copy=COPY)
    for name, method, given in asked(most, 2, case, tokens=4, steps=2):
        show(name)
        getattr(checks, method)(**given)


def one_step(ours: Ours, case: Case, variant: str) -> None:
    """Take one step op by op, between marks for a profiler, after one that isn't between them."""
    graph = ours.graph_step(case, variant)
    graph.run(random_batch(case, np.random.default_rng(0)), LR)
    graph.read()
    (known,) = graph._graphs.values()
    twin, table, partial, slots = known.alive
    ours.xp.cuda.runtime.profilerStart()
    with graph.stream:
        graph._update(twin, known.buffers, slots, table, partial)
        graph.stream.synchronize()
    ours.xp.cuda.runtime.profilerStop()


def main() -> None:
    """Run what the arguments name."""
    checks = start()
    if sys.argv[1] == "every":
        every(checks, int(sys.argv[2]), lambda name: print(name, flush=True))
    else:
        one_step(checks.ours, sizes_of(int(sys.argv[3])).goals[0], sys.argv[2])


if __name__ == "__main__":
    main()
