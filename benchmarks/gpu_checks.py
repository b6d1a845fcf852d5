"""Whether our side is right on this GPU, for benchmarks/gpu.py: agreement with the CPU, and tools.

The tools are the tests of the cupy backend, compute-sanitizer and Nsight Compute, each a process
with a limit of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpu_cases import CLIP, LR, Case
from gpu_ours import Ours, config_of, ops_of, random_batch
from lstm_music.graph import GraphStep
from lstm_music.model import Batch, Config, Model
from lstm_music.ops import NumpyOps
from lstm_music.ops.cupy_ops import CupyOps
from lstm_music.optim import Averages, Optimizer, clip_scale, global_norm

ROOT = Path(__file__).resolve().parents[1]
COMMAND = Path(__file__).with_name("gpu.py")
TESTS = ("tests/ops", "tests/test_model.py", "tests/test_lstm.py", "tests/test_heads.py")
TESTS_AT_ONCE = "8"  # most of their time goes into compiling
SECTIONS = ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats", "WarpStateStats")
SMALL = Case("small", 101, 7, 9, 37)
HEADS = ("softmax", "sigmoid", "nade")  # a factored head runs the same kernels


# Programs ---------------------------------------------------------------------------------------


class Done(NamedTuple):
    """How a program ended: None for one that was ended at its limit; the lines it wrote."""

    status: int | None
    lines: list[str]


def limited(command: list[str], limit: float) -> Done:
    """Run a program, and end it and all it started where it takes longer."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as program:
        status: int | None = None
        try:
            output, _ = program.communicate(timeout=max(limit, 0))
            status = program.returncode
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            output, _ = program.communicate()
    return Done(status, output.strip().splitlines() or ["no output"])


def said(done: Done, limit: float) -> str:
    """Return a program's last line, and whether it was ended at its limit."""
    return done.lines[-1] if done.status is not None else f"not finished in {limit:.0f} s"


def run_tests(limit: float) -> dict[str, Any]:
    """Run the ops' and models' tests of the cupy backend; return pytest's summary."""
    command = [sys.executable, "-m", "pytest", "-q", "--maxfail=20", "-k", "cupy", *TESTS]
    if importlib.util.find_spec("xdist"):
        command += ["-n", TESTS_AT_ONCE]
    done = limited(command, limit)
    failures = [line for line in done.lines if line.startswith(("FAILED", "ERROR"))]
    return {"summary": said(done, limit), "failures": failures[:20]}


def run_sanitizer(tool: str, limit: float) -> str:
    """Run a small training under compute-sanitizer; return its last line."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return "compute-sanitizer isn't here"
    command = [program, "--tool", tool, sys.executable, str(COMMAND), "--small-run"]
    return said(limited(command, limit), limit)


def run_profiler(file: Path, variant: str, limit: float) -> str:
    """Run one training step under Nsight Compute, clocks left alone; its tables go to a file."""
    program = shutil.which("ncu")
    if program is None:
        return "ncu isn't here"
    command = [program, "--clock-control", "none", "--profile-from-start", "off"]
    command += [word for section in SECTIONS for word in ("--section", section)]
    command += [sys.executable, str(COMMAND), "--one-step", variant]
    done = limited(command, limit)
    file.write_text("\n".join(done.lines) + "\n", "utf-8")
    return said(done, limit)


# Programs that the tools run --------------------------------------------------------------------


def small_run(ops: NumpyOps, steps: int = 100, head: str = "softmax") -> tuple[list[float], Model]:
    """Take steps with a small model; return losses and the model. On a GPU each is a graph."""
    case = SMALL._replace(head=head)
    rng = np.random.default_rng(0)
    config = Config(case.V, 24, case.H, case.L, 0.2, head=head)
    model = Model(config, ops, seed=1)
    optimizer = Optimizer(ops, "adam", model.parameters, 0.01)
    averages = Averages(model, 0.9)
    graph = None
    if isinstance(ops, CupyOps):
        graph = GraphStep(model, optimizer, CLIP, 0, averages.means, averages.rate)
    state, losses = model.zero_state(case.B), []
    for step in range(steps):
        keep = (rng.random((case.T, case.B)) < 0.9).astype(np.float32)
        batch = random_batch(case, rng)._replace(keep=keep)
        if graph is not None:
            graph.run(batch, LR, step)
            losses.append(graph.read().loss)
            continue
        loss, grads, state = model.loss_and_grads(batch, state, 0, step)
        scale = clip_scale(global_norm(ops, grads), CLIP)
        optimizer.step(model.parameters, grads, LR, scale)
        averages.update()
        losses.append(loss)
    return losses, averages.model


def one_step(ours: Ours, case: Case, variant: str) -> None:
    """Take one step op by op, between marks for a profiler, after one that isn't between them."""
    graph = ours.graph_step(case, variant)
    graph.run(random_batch(case, np.random.default_rng(0)), LR, 0)
    graph.read()
    (captured,) = graph._graphs.values()
    twin, table, partial, slots = captured.alive
    ours.xp.cuda.runtime.profilerStart()
    with graph.stream:
        graph._update(twin, captured.sent, slots, table, partial)
        graph.stream.synchronize()
    ours.xp.cuda.runtime.profilerStop()


# Against the CPU --------------------------------------------------------------------------------


def start() -> Checks:
    """Return the checks of the GPU here."""
    from gpu_ours import start as ours

    return Checks(ours())


class Checks:
    """What can be asked about whether our side is right."""

    def __init__(self, ours: Ours) -> None:
        self.ours, self.xp = ours, ours.xp

    def check(self) -> None:
        """Raise where the device no longer answers."""
        self.ours.check()

    def agreement(self, head: str, variant: str = "fp32", steps: int = 100) -> dict[str, float]:
        """Compare steps on GPU and CPU from one seed; move the GPU's averages to the CPU."""
        host, ops, case = NumpyOps("float32"), ops_of(variant, self.xp), SMALL._replace(head=head)
        gpu, trained = small_run(ops, steps, head)
        cpu, _ = small_run(host, steps, head)
        moved = {k: host.asarray(ops.to_numpy(v)) for k, v in trained.parameters.items()}
        there = Model(trained.config, host, parameters=moved)
        batch = random_batch(case, np.random.default_rng(1))
        x, y = (ops.asarray(a, a.dtype) for a in (batch.x, batch.y))
        on_cpu, _ = there.losses(batch, there.zero_state(case.B))
        on_gpu, _ = trained.losses(Batch(x, y, None, 1), trained.zero_state(case.B))
        return {
            "difference_in_training": max(abs(a - b) for a, b in zip(gpu, cpu, strict=True)),
            "difference_of_one_model": float(np.abs(ops.to_numpy(on_gpu) - on_cpu).max()),
        }

    def precision_error(self, variant: str) -> dict[str, float]:
        """Return the largest relative error of each gradient, against float64 on the CPU."""
        case = Case("small", 301, 8, 12)
        rng = np.random.default_rng(0)
        batch = random_batch(case, rng)

        def gradients(ops: NumpyOps) -> dict[str, Any]:
            x, y = (ops.asarray(a, "int32") for a in (batch.x, batch.y))
            model = Model(config_of(case), ops, seed=1)
            sent = Batch(x, y, None, case.N)
            _, grads, _ = model.loss_and_grads(sent, model.zero_state(case.B))
            return {
                name: ops.to_numpy(g.values if isinstance(g, tuple) else g)
                for name, g in grads.items()
            }

        exact, found = gradients(NumpyOps("float64")), gradients(ops_of(variant, self.xp))
        return {
            name: float(np.linalg.norm(found[name] - g) / np.linalg.norm(g))
            for name, g in exact.items()
        }
