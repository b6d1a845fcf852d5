"""Everything about a GPU in one command: checks first, then speeds beside PyTorch's.

Run `python benchmarks/gpu.py [--minutes 8] [--out benchmarks/results]` in an environment with the
package, CuPy (pip install 'lstm-music[cuda13,test]') and, for the rivals, a CUDA build of torch.
compute-sanitizer is used where it is on PATH. Writes OUT/<gpu>-<date>.json and .md. Without a GPU
it exits with status 2 and one line. A part for which no time is left is named as not run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lstm_music.device_sampling import DeviceSampler
from lstm_music.errors import UserError
from lstm_music.graph import GraphStep
from lstm_music.model import Batch, Config, Model, parameter_shapes
from lstm_music.ops import NumpyOps, get_ops
from lstm_music.ops.cupy_ops import PRECISIONS, CupyOps, Parameter, padded_chunks
from lstm_music.optim import Averages, Optimizer, clip_scale, global_norm
from lstm_music.sampler import Options

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["tests/ops", "tests/test_model.py", "tests/test_lstm.py", "tests/test_heads.py"]
CLIP, LR = 5.0, 1e-3
HEADS = ("softmax", "sigmoid", "nade")  # a factored head runs the same kernels
ROUNDS, STEPS = 5, 20


Timed: TypeAlias = tuple[str, float, float, Callable[[], None]]
"""A kernel's name, FLOPs and bytes, and a launch."""


class Case(NamedTuple):
    """A model's sizes and its batches'."""

    name: str
    V: int
    B: int
    T: int
    H: int = 128
    L: int = 2
    head: str = "softmax"


CASES = [
    Case("the paper's Bach", 35_509, 50, 50),
    Case("Muse-All", 39_289, 50, 50),
    Case("Classical", 132_437, 25, 25),
    Case("bundled Bach", 950, 50, 50),
    Case("largest vocabulary", 175_467, 50, 50),
    Case("independent notes", 88, 50, 50, head="sigmoid"),
    Case("NADE of notes", 88, 50, 50, head="nade"),
]


def config_of(case: Case, embedding: int = 128, dropout: float = 0.0) -> Config:
    """Return the model of a case."""
    return Config(case.V, embedding, case.H, case.L, dropout, head=case.head)


def random_batch(case: Case, rng: np.random.Generator) -> Batch:
    """Return a batch of ids, or of notes of which one in twenty is on."""
    shape = (case.T, case.B)
    if case.head == "softmax":
        x, y = rng.integers(case.V, size=(2, *shape), dtype=np.int32)
    else:
        x, y = ((rng.random((*shape, case.V + k)) < 0.05).astype(np.uint8) for k in (1, 0))
    return Batch(x, y, None, case.T * case.B)


# Timing -----------------------------------------------------------------------------------------


def seconds(xp: Any, call: Callable[[], None], rounds: int = ROUNDS, repeats: int = 1) -> float:
    """Return the median seconds of a call, by events of the device; the first isn't counted."""
    call()
    found = []
    for _ in range(rounds):
        begin, end = xp.cuda.Event(), xp.cuda.Event()
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        found.append(xp.cuda.get_elapsed_time(begin, end) / 1e3 / repeats)
    return statistics.median(found)


def graph_seconds(xp: Any, call: Callable[[], None], launches: int = 20) -> float:
    """Return the seconds of a call inside a graph of many, so that launching costs nothing."""
    stream, pool = xp.cuda.Stream(), xp.cuda.MemoryPool()
    with stream, xp.cuda.using_allocator(pool.malloc):
        call()
        stream.synchronize()
        stream.begin_capture()
        for _ in range(launches):
            call()
        graph = stream.end_capture()
        return seconds(xp, lambda: graph.launch(stream)) / launches


def ceilings(ops: CupyOps) -> dict[str, float]:
    """Return what this card reaches: bytes a second of a copy, FLOP a second of GEMMs."""
    xp = ops.xp
    a = xp.zeros(1 << 28, np.float32)
    b = xp.empty_like(a)
    found = {"bytes": 2 * a.nbytes / seconds(xp, lambda: xp.copyto(b, a), repeats=5)}
    n = 8192
    x, y = (xp.random.standard_normal((n, n), dtype=np.float32) for _ in range(2))
    out = xp.empty_like(x)
    for precision in PRECISIONS:
        gemm = CupyOps("float32", precision)
        took = seconds(xp, lambda gemm=gemm: gemm.matmul(x, y, out), repeats=2)
        found[precision] = 2 * n**3 / took
    return found


# Checks -----------------------------------------------------------------------------------------


def run_tests(limit: float) -> str:
    """Run the ops' and models' tests of the cupy backend; return pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cupy", *TESTS]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not finished in {limit:.0f} s"
    return (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]


def run_sanitizer(tool: str, limit: float) -> str:
    """Run a small training under compute-sanitizer; return its last line."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return "compute-sanitizer isn't here"
    command = [program, "--tool", tool, sys.executable, __file__, "--small-run"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not finished in {limit:.0f} s"
    return ((done.stdout + done.stderr).strip().splitlines() or ["no output"])[-1]


def small_run(ops: NumpyOps, steps: int = 100, head: str = "softmax") -> tuple[list[float], Model]:
    """Take steps with a small model; return losses and the model. On a GPU each is a graph."""
    case = Case("small", 101, 7, 9, 37, head=head)
    rng = np.random.default_rng(0)
    model = Model(config_of(case, 24, 0.2), ops, seed=1)
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


def agreement(ops: CupyOps, head: str) -> dict[str, float]:
    """Compare 100 steps on GPU and CPU from one seed; move the GPU's averages to the CPU."""
    host, case = NumpyOps("float32"), Case("small", 101, 7, 9, 37, head=head)
    gpu, trained = small_run(ops, head=head)
    cpu, _ = small_run(host, head=head)
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


def precision_errors() -> dict[str, float]:
    """Return each precision's largest relative error of a gradient, against float64."""
    config = Config(301, 64, 128, 2)
    rng = np.random.default_rng(0)
    x, y = rng.integers(config.vocabulary, size=(2, 12, 8), dtype=np.int32)

    def gradients(ops: NumpyOps) -> dict[str, Any]:
        batch = Batch(ops.asarray(x, "int32"), ops.asarray(y, "int32"), None, x.size)
        model = Model(config, ops, seed=1)
        _, grads, _ = model.loss_and_grads(batch, model.zero_state(8))
        return {
            name: ops.to_numpy(g.values if isinstance(g, tuple) else g) for name, g in grads.items()
        }

    exact = gradients(NumpyOps("float64"))
    errors = {}
    for precision in PRECISIONS:
        found = gradients(CupyOps("float32", precision))
        errors[precision] = max(
            float(np.linalg.norm(found[k] - g) / np.linalg.norm(g)) for k, g in exact.items()
        )
    return errors


# Kernels ----------------------------------------------------------------------------------------


def kernel_times(
    ops: CupyOps, ceiling: dict[str, float], case: Case = CASES[0]
) -> list[dict[str, Any]]:
    """Time each kernel alone at the sizes of a case, with its share of the bound."""
    T, B, V = case.T, case.B, case.V
    H = E = case.H
    N, xp = T * B, ops.xp
    rng = np.random.default_rng(0)

    def real(*shape: int) -> Any:
        return ops.asarray(0.1 * rng.standard_normal(shape))

    gates, Wh, b = real(T, B, 4 * H), real(H, 4 * H), real(4 * H)
    c, h, dy, dh, dc = (real(*s) for s in ((T + 1, B, H),) * 2 + ((T, B, H), (B, H), (B, H)))
    W, head, hs = real(V, E), real(H, V), real(N, H)
    ids = ops.asarray(rng.integers(V, size=N), "int32")
    x, losses, work = real(N, E), real(N), ops.workspace()
    dW, db, dhs, bias = real(H, V), real(V), real(N, H), real(V)
    logits = next(padded_chunks(N, V, work))[1]
    moments = [xp.zeros_like(W), xp.zeros_like(W)]
    table = ops.table([Parameter(W, dW.reshape(V, E), *moments)])
    partial, scalars = xp.empty(table.norm_blocks, np.float64), xp.zeros(11, np.float64)
    step, where = xp.zeros(1, np.uint32), xp.zeros(V, np.int32)
    slots: dict[str, Any] = {}

    def embedding_backward() -> None:
        with ops.recording(step, where, slots):
            ops.embedding_backward(ids, x)

    def head_loss() -> None:
        ops.linear_softmax_xent(hs, head, bias, ids, 1.0, losses, dhs, dW, db, work)

    n = len(logits)
    flops, moved = 2 * N * H * 4 * H, 4 * N * (2 * 4 * H + 2 * H)
    timed: list[Timed] = [
        ("lstm_sequence_forward", flops, moved,
         lambda: ops.lstm_sequence_forward(gates, Wh, b, None, c, h, work)),
        ("lstm_sequence_backward", flops, moved + 4 * N * H,
         lambda: ops.lstm_sequence_backward(gates, Wh, None, c, dy, dh, dc, work)),
        ("softmax_xent_backward, a chunk", 0, 8 * n * V,
         lambda: ops.softmax_xent(logits, ids[:n], losses[:n], 1.0)),
        ("linear_softmax_xent, whole", 6 * N * H * V, 4 * 3 * H * V, head_loss),
        ("embedding_forward", 0, 8 * N * E, lambda: ops.embedding_forward(W, ids, x)),
        ("embedding_backward", 0, 8 * N * E, embedding_backward),
        ("dropout", 0, 8 * N * E, lambda: ops.dropout(x, 0.1, 0, 0, 0)),
        ("clip, head.W", 0, 4 * V * E, lambda: ops.clip_all(table, losses, scalars, partial)),
        ("adam, head.W", 0, 28 * V * E, lambda: ops.adam_all(table, scalars)),
    ]  # fmt: skip
    return timed_rows(ops, ceiling, timed + note_kernels(ops, N, E, H))


def note_kernels(ops: CupyOps, N: int, E: int, K: int, D: int = 88) -> list[Timed]:
    """Return the kernels of N rows of notes, of which one in twenty is on, with their bounds."""
    rng = np.random.default_rng(0)

    def real(*shape: int) -> Any:
        return ops.asarray(0.1 * rng.standard_normal(shape))

    x = ops.asarray(rng.random((N, D)) < 0.05, np.uint8)
    out, visible, hidden, losses = real(N, E), real(N, D), real(N, K), real(N)
    embedding, dE, W, U, dW, dU = real(D, E), real(D, E), *(real(D, K) for _ in range(4))
    draws, drawn = ops.asarray(rng.random((N, D))), ops.xp.zeros_like(x)
    biases, work = 4 * N * (D + K), ops.workspace()
    return [
        ("note_embedding_forward", 0, 4 * N * E + N * D,
         lambda: ops.note_embedding_forward(embedding, x, out)),
        ("note_embedding_backward", 0, 4 * N * E + N * D,
         lambda: ops.note_embedding_backward(x, out, dE)),
        ("sigmoid_xent_backward", 0, 9 * N * D,
         lambda: ops.sigmoid_xent(visible, x, losses, 1.0)),
        ("nade_forward", 2 * N * D * K, biases,
         lambda: ops.nade_nll(visible, hidden, x, W, U, losses)),
        ("nade_forward, nade_backward, sums", 6 * N * D * K, 2 * biases,
         lambda: ops.nade_xent(visible, hidden, x, W, U, 1.0, losses, dW, dU, work)),
        ("nade_sample", 2 * N * D * K, biases,
         lambda: ops.nade_sample(visible, hidden, W, U, draws, 1.0, drawn)),
    ]  # fmt: skip


def timed_rows(ops: CupyOps, ceiling: dict[str, float], timed: list[Timed]) -> list[dict[str, Any]]:
    """Time each kernel; return a row each."""
    rows = []
    for name, flop, size, call in timed:
        took = graph_seconds(ops.xp, call)
        bound = max(flop / ceiling[ops.precision], size / ceiling["bytes"])
        rows.append({"kernel": name, "microseconds": took * 1e6, "share_of_bound": bound / took})
    return rows


# Training ---------------------------------------------------------------------------------------


def training_bound(case: Case, ceiling: dict[str, float], precision: str) -> float:
    """Return the seconds a step takes at least: FLOPs at the GEMM rate, or bytes of Adam."""
    sizes = parameter_shapes(config_of(case))
    N = case.T * case.B
    gemm = sum(math.prod(s) for name, s in sizes.items() if ".W" in name and name[0] != "e")
    adam = 4 * (7 * sum(math.prod(s) for s in sizes.values()) - case.V * 128)
    return max(6 * N * gemm / ceiling[precision], adam / ceiling["bytes"])


def our_round(case: Case, precision: str) -> Callable[[], float]:
    """Return a round of ours: the seconds of a step."""
    ops = get_ops("cupy", precision=precision)
    model = Model(config_of(case), ops)
    graph = GraphStep(model, Optimizer(ops, "adam", model.parameters), CLIP)
    batch = random_batch(case, np.random.default_rng(0))

    def run() -> float:
        begun = time.perf_counter()
        for step in range(STEPS):
            graph.run(batch, LR, step)
        assert not graph.read().failed
        return (time.perf_counter() - begun) / STEPS

    return run


def torch_round(case: Case, precision: str, compiled: bool) -> Callable[[], float]:
    """Return a round of PyTorch's: the same model, optimiser and clipping."""
    import torch

    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    embedding = torch.nn.Embedding(case.V, 128)
    lstm = torch.nn.LSTM(128, case.H, case.L)
    head = torch.nn.Linear(case.H, case.V)
    net = torch.nn.ModuleList([embedding, lstm, head]).cuda()
    adam = torch.optim.Adam(net.parameters(), lr=LR, fused=True)
    batch = random_batch(case, np.random.default_rng(0))
    x, y = (torch.from_numpy(a).long().cuda() for a in (batch.x, batch.y))

    def loss_of(x: Any, y: Any, state: Any) -> tuple[Any, Any]:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            out, state = lstm(embedding(x), state)
            logits = head(out).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits.float(), y.flatten()), state

    forward = torch.compile(loss_of) if compiled else loss_of
    zero = torch.zeros(case.L, case.B, case.H, device="cuda")
    kept = [(zero, zero)]

    def run() -> float:
        # Set anew: rivals of other precisions run in between.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(STEPS):
            loss, state = forward(x, y, kept[0])
            kept[0] = tuple(s.detach().float() for s in state)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            adam.step()
        torch.cuda.synchronize()
        return (time.perf_counter() - begun) / STEPS

    return run


def training_times(
    case: Case, ceiling: dict[str, float], with_torch: bool, out_of_time: Callable[[], bool]
) -> list[dict[str, Any]]:
    """Time a case on everything there is, a round of each in turn."""
    makers: dict[tuple[str, str], Callable[[], Callable[[], float]]] = {}
    for precision in PRECISIONS:
        makers["ours", precision] = lambda p=precision: our_round(case, p)
        if with_torch and case.head == "softmax":
            makers["torch eager", precision] = lambda p=precision: torch_round(case, p, False)
            makers["torch.compile", precision] = lambda p=precision: torch_round(case, p, True)
    rounds: dict[tuple[str, str], Callable[[], float]] = {}
    rows = []
    for key, make in makers.items():
        if out_of_time():
            break
        try:
            rounds[key] = make()
            rounds[key]()  # compiles
        except Exception as error:  # a rival that fails is a row, not the end
            rounds.pop(key, None)
            rows.append(
                {"case": case.name, "who": key[0], "precision": key[1], "error": str(error)}
            )
    times: dict[tuple[str, str], list[float]] = {key: [] for key in rounds}
    for _ in range(ROUNDS):
        for key, call in rounds.items():
            times[key].append(call())
    for (who, precision), found in times.items():
        took = statistics.median(found)
        rows.append(
            {
                "case": case.name,
                "who": who,
                "precision": precision,
                "milliseconds": took * 1e3,
                "tokens_per_second": case.T * case.B / took,
                "share_of_bound": training_bound(case, ceiling, precision) / took,
            }
        )
    return rows


def peak_bytes(ops: CupyOps) -> int:
    """Return the device bytes in use now, by CuPy's pools and all else."""
    free, total = ops.xp.cuda.runtime.memGetInfo()
    return int(total - free)


def sampling_times(ops: CupyOps) -> list[dict[str, Any]]:
    """Time the token loop on the device at batch 1 and 64."""
    V, most = 35_509, 512
    model = Model(Config(V), ops)
    rows = []
    for B in (1, 64):
        # A start symbol that no draw gives: every piece has its full length.
        allowed = np.ones(V, np.uint8)
        allowed[0] = 0
        found = []
        for seed in range(ROUNDS):
            sampler = DeviceSampler(model, B, Options(seed=seed), 0, allowed=allowed)
            begun = time.perf_counter()
            sampler.run(most)
            found.append(time.perf_counter() - begun)
        rate = most * B / statistics.median(found)
        rows.append({"case": f"sampling, batch {B}", "tokens_per_second": rate})
    return rows


# Results ----------------------------------------------------------------------------------------


def markdown(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [f"# {found['gpu']}, {found['date']}", ""]
    for name in ("checks", "ceilings", "agreement", "precision_errors"):
        lines += [f"- {name}: `{json.dumps(found.get(name, 'not run'))}`"]
    for name in ("kernels", "training", "sampling"):
        rows = found.get(name) or []
        if not rows:
            lines += ["", f"{name}: not run"]
            continue
        keys = list(dict.fromkeys(k for r in rows for k in r))
        lines += ["", "| " + " | ".join(keys) + " |", "|" + " --- |" * len(keys)]
        for r in rows:
            cells = (r.get(k, "") for k in keys)
            shown = (f"{c:,.3g}" if isinstance(c, float) else str(c) for c in cells)
            lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def measure(ops: CupyOps, minutes: float) -> dict[str, Any]:
    """Run every part for which there is time."""
    begun = time.monotonic()

    def left() -> float:
        return minutes * 60 - (time.monotonic() - begun)

    try:
        import torch

        with_torch = torch.cuda.is_available()
    except ImportError:
        with_torch = False
    device = ops.xp.cuda.runtime.getDeviceProperties(0)["name"]
    gpu = device.decode() if isinstance(device, bytes) else str(device)
    found: dict[str, Any] = {"gpu": gpu, "date": datetime.date.today().isoformat()}
    found["checks"] = {"tests": run_tests(min(150, left()))}
    for tool in ("memcheck", "racecheck"):
        found["checks"][tool] = run_sanitizer(tool, min(45, left()))
    found["agreement"] = {head: agreement(ops, head) for head in HEADS}
    found["precision_errors"] = precision_errors()
    found["ceilings"] = ceilings(ops)
    found["kernels"] = kernel_times(ops, found["ceilings"])
    found["sampling"] = sampling_times(ops)
    found["training"] = []
    for case in CASES:
        if left() < 20:
            break
        rows = training_times(case, found["ceilings"], with_torch, lambda: left() < 20)
        found["training"] += rows
        found[f"device bytes after {case.name}"] = peak_bytes(ops)
        ops.xp.get_default_memory_pool().free_all_blocks()
    found["seconds"] = time.monotonic() - begun
    return found


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--small-run", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        ops = get_ops("cupy")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    assert isinstance(ops, CupyOps)
    if args.small_run:
        for head in HEADS:
            small_run(ops, 3, head)
        return 0
    found = measure(ops, args.minutes)
    slug = re.sub(r"[^a-z0-9]+", "-", found["gpu"].lower()).strip("-")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{slug}-{found['date']}"
    path.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    path.with_suffix(".md").write_text(markdown(found), "utf-8")
    print(markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
