"""Everything about a GPU in one command: checks first, then speeds beside PyTorch's.

Run `python benchmarks/gpu.py [--minutes 8] [--out benchmarks/results]` in an environment with the
package, CuPy (pip install 'lstm-music[cuda13,test]') and, for the rivals, a CUDA build of torch.
compute-sanitizer and Nsight Compute are used where they are on PATH. Writes OUT/<gpu>-<date>.json
and .md after each part, and ends with the table of goals. Ours and PyTorch's run in turn, each in a
process of its own (gpu_workers.py). Without a GPU it exits with status 2 and one line. What there
is no time for is named as not run.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gpu_cases as cases
import gpu_checks as checks
from gpu_cases import Case, precision_of
from gpu_ours import Ours, by_events, ops_of, step_bound
from gpu_report import goal_table, part_lines, write
from gpu_workers import LIMIT, Entry, Failed, Worker, first_line, interleaved
from lstm_music.errors import UserError
from lstm_music.ops.cupy_ops import usable_cupy

ROOT = Path(__file__).resolve().parents[1]
LEAST = 5.0  # seconds that must be left for a part to begin
COMPILE_LIMIT = 45.0  # seconds, of one torch.compile
HOW = ("graph", "calls")


class Run:
    """One run of the command: what was found, where it goes, and the time that is left."""

    def __init__(self, minutes: float, path: Path, clock: Callable[[], float] = time.monotonic):
        self.clock, self.begun, self.limit, self.path = clock, clock(), 60 * minutes, path
        self.found: dict[str, Any] = {"machine": {}, "checks": {}, "ceilings": {}}
        self.found |= {"errors": {}, "not run": [], "seconds": {}}
        self.kept_back = 0.0  # what the goals' parts to come are expected to take
        self.ours, self.torch = Worker("gpu_ours"), Worker("gpu_rivals")

    def left(self) -> float:
        """Return the seconds left."""
        return self.limit - (self.clock() - self.begun)

    def spare(self) -> float:
        """Return the seconds left beside what the goals' parts to come are expected to take."""
        return self.left() - self.kept_back

    def attempt(self, name: str, call: Callable[[], Any]) -> Any:
        """Return what a call does, None after an error, which becomes a line of the results."""
        if self.left() <= 0:
            self.found["not run"].append(name)
            return None
        try:
            return call()
        except Exception as error:  # whatever it is, the other parts are worth running
            text = str(error) if isinstance(error, Failed) else first_line(error)
            self.found["errors"][name] = text
            return None

    def ask(self, name: str, side: Worker, method: str, **given: Any) -> Any:
        """Return what a side answers, None after an error."""
        return self.attempt(name, lambda: side.call(method, min(LIMIT, self.left()), **given))

    def add(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Add rows to a table of the results."""
        self.found.setdefault(table, []).extend(rows)

    def close(self) -> None:
        """End both sides."""
        self.ours.close()
        self.torch.close()


class Part(NamedTuple):
    """A part of a run; seconds: what it is expected to take on an H200, an estimate."""

    name: str
    seconds: float
    call: Callable[[Run], None]
    goal: bool = True


# Parts ------------------------------------------------------------------------------------------


def machine(run: Run) -> None:
    """Say what the machine and its software are."""
    known = run.found["machine"]
    for side in (run.ours, run.torch):
        known |= run.ask(f"machine, {side.module}", side, "machine") or {}


def agreement(run: Run) -> None:
    """Hold training and gradients to the CPU's, and the large sizes to fp32's."""
    side = Worker("gpu_checks")
    asked: list[tuple[str, Worker, str, dict[str, Any]]] = [
        (f"agreement, {head}", side, "agreement", {"head": head}) for head in checks.HEADS
    ]
    asked += [
        (f"gradients' errors, {variant}", side, "precision_error", {"variant": variant})
        for variant in cases.VARIANTS
    ]
    asked += [
        (
            f"differences from fp32 at V={V}, {variant}",
            run.ours,
            "differences",
            {
                "variant": variant,
                "N": N,
                "V": V,
                "H": cases.NARROW,
                "B": cases.BATCH,
                "T": cases.LENGTH,
            },
        )
        for N, V in cases.LOSS_SIZES
        for variant in cases.VARIANTS[1:]
    ]
    for name, worker, method, given in asked:
        found = run.ask(name, worker, method, **given)
        if found is not None:
            run.found["checks"][name] = found
    side.close()


def ceilings(run: Run) -> None:
    """Measure what the card reaches: copies, and products by precision."""
    N, V = cases.LOSS_SIZES[0]
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("bytes", "copy_rate", {"size": cases.COPIED}),
        ("l2", "copy_rate", {"size": cases.CACHED}),
        ("l2, half the size", "copy_rate", {"size": cases.CACHED // 2}),
        ("bf16, rounded by cuBLAS", "gemm_rate", {"precision": "bf16", "n": cases.SQUARE}),
    ]
    for p in cases.RIVAL_PRECISIONS:
        square = {"precision": p, "n": cases.SQUARE, "copies": p == "bf16"}
        asked += [(p, "gemm_rate", square)]
        asked += [(f"{p}, head", "head_rate", {"precision": p, "N": N, "V": V, "H": cases.NARROW})]
    for name, method, given in asked:
        rate = run.ask(f"ceiling {name}", run.ours, method, **given)
        if rate is not None:
            run.found["ceilings"][name] = rate


def tests(run: Run) -> None:
    """Run the tests of the cupy backend."""
    limit = min(60, run.left())
    run.found["checks"]["tests"] = checks.run_tests(limit)


def training(case: Case, table: str = "training", compiled: bool = True) -> Callable[[Run], None]:
    """Return the part that times a case on all sides in turn, torch.compile last."""

    def part(run: Run) -> None:
        rows = interleaved(step_entries(run, case), run.left)
        if compiled:
            rows += interleaved(compile_entries(run, case), run.left, run.spare)
        for row in rows:
            row |= step_columns(case, row, run.found["ceilings"])
        run.add(table, rows)
        used = run.ask(f"bytes, {case.name}", run.ours, "device_bytes")
        run.found.setdefault("device bytes", {})[case.name] = used

    return part


def step_entries(run: Run, case: Case) -> list[Entry]:
    """Return ours in each precision, and PyTorch's eagerly and as graphs."""
    rivals = cases.RIVAL_PRECISIONS if case.head == "softmax" else ()
    return our_steps(run, case, "ours") + [
        rival_step(run, case, precision, mode)
        for precision in rivals
        for mode in ("eager", "graph")
    ]


def compile_entries(run: Run, case: Case) -> list[Entry]:
    """Return ours again, and PyTorch's compiled, bf16 first: its steps one by one and as graphs."""
    return our_steps(run, case, "ours, beside torch.compile") + [
        rival_step(run, case, precision, mode, COMPILE_LIMIT)
        for precision in reversed(cases.RIVAL_PRECISIONS)
        for mode in ("compile", "compile and graph")
    ]


def our_steps(run: Run, case: Case, who: str) -> list[Entry]:
    """Return our step in each precision."""
    entries = []
    for variant in cases.VARIANTS:
        row = {"case": case.name, "side": "ours", "who": who, "precision": variant}
        given = {"method": "step", "case": case, "variant": variant}
        entries.append(Entry(row, run.ours, given))
    return entries


def rival_step(run: Run, case: Case, precision: str, mode: str, limit: float = 60) -> Entry:
    """Return PyTorch's step in a mode."""
    row = {"case": case.name, "side": "torch", "who": f"torch {mode}", "precision": precision}
    given = {"method": "step", "case": case, "precision": precision, "mode": mode}
    return Entry(row, run.torch, given, limit)


def step_columns(case: Case, row: dict[str, Any], known: dict[str, float]) -> dict[str, Any]:
    """Return what follows from a step's seconds."""
    if "seconds" not in row:
        return {}
    took = row["seconds"]
    columns = {
        "tokens_per_second": case.N / took,
        "share_of_bound": step_bound(case, known, precision_of(row["precision"])) / took,
    }
    return columns | ({"epochs_seconds": case.all_epochs(took)} if case.epochs else {})


def recurrent(*sizes: int) -> Callable[[Run], None]:
    """Return the part that times LSTM layers of these hidden units beside cuDNN's."""

    def part(run: Run) -> None:
        for H in sizes:
            rows = interleaved(layer_entries(run, H), run.left)
            for row in rows:
                if "seconds" in row:
                    layers = cases.LAYERS if row["part"] == "layers" else 1
                    row["us_a_step_and_layer"] = row["seconds"] * 1e6 / cases.LENGTH / layers
            run.add("recurrent", rows)

    return part


def layer_entries(run: Run, H: int) -> list[Entry]:
    """Return LSTM layers, both ways: ours, our kernels alone (one layer), and cuDNN's."""
    size = {"H": H, "B": cases.BATCH, "T": cases.LENGTH}
    entries = []
    for variant in cases.VARIANTS:
        common = {"H": H, "side": "ours", "precision": variant}
        given = {"variant": variant, **size}
        for how in HOW:
            row = {**common, "part": "layers", "who": f"ours, {how}"}
            layers = {"method": "layers", "L": cases.LAYERS, "how": how, **given}
            entries.append(Entry(row, run.ours, layers))
        if H == cases.NARROW:
            row = {**common, "part": "kernels", "who": "ours, kernels alone"}
            entries.append(Entry(row, run.ours, {"method": "sequences", **given}))
    for precision, module, name in (
        ("fp32", False, "cuDNN"),
        ("tf32", False, "cuDNN"),
        ("bf16", False, "cuDNN under autocast"),
        ("bf16", True, "cuDNN, bf16 module"),
    ):
        for how in HOW:
            row = {"H": H, "side": "torch", "precision": precision, "part": "layers"}
            row["who"] = f"{name}, {how}"
            given = {"method": "layers", "precision": precision, "module": module, "how": how}
            entries.append(Entry(row, run.torch, {**given, "L": cases.LAYERS, **size}))
    return entries


def loss(run: Run) -> None:
    """Time the loss layer alone at both vocabularies beside PyTorch's."""
    for N, V in cases.LOSS_SIZES:
        rows = interleaved(loss_entries(run, N, V), run.left)
        for row in rows:
            row |= loss_columns(N, V, row, run.found["ceilings"])
        run.add("loss", rows)


def loss_entries(run: Run, N: int, V: int) -> list[Entry]:
    """Return the loss layer of ours and of PyTorch's, as graphs and as plain calls."""
    given = {"method": "loss", "N": N, "V": V, "H": cases.NARROW}
    entries = []
    for how in HOW:
        for variant in cases.VARIANTS:
            row = {"V": V, "side": "ours", "who": f"ours, {how}", "precision": variant}
            entries.append(Entry(row, run.ours, {**given, "variant": variant, "how": how}))
        for precision in cases.RIVAL_PRECISIONS:
            row = {"V": V, "side": "torch", "who": f"torch, {how}", "precision": precision}
            entries.append(Entry(row, run.torch, {**given, "precision": precision, "how": how}))
    return entries


def loss_columns(N: int, V: int, row: dict[str, Any], known: dict[str, float]) -> dict[str, Any]:
    """Return the shares of the measured matrix rates: of square products, and of the head's own."""
    precision = precision_of(row["precision"])
    if "seconds" not in row:
        return {}
    rate = 6 * N * V * cases.NARROW / row["seconds"]
    names = {"share_of_matrix_rate": precision, "share_of_head_rate": f"{precision}, head"}
    return {column: rate / known[name] for column, name in names.items() if name in known}


def steps(run: Run) -> None:
    """Time the parts of a step by themselves, and what is left of it."""
    for case in cases.GOAL_CASES:
        for variant in cases.VARIANTS:
            row: dict[str, Any] = {"case": case.name, "precision": variant}
            name = f"parts of a step, {case.name}, {variant}"
            found = run.ask(name, run.ours, "parts", case=case, variant=variant)
            row |= part_columns(found) if found else {"error": run.found["errors"].get(name, "")}
            run.add("step", [row])


def part_columns(found: dict[str, float]) -> dict[str, float]:
    """Return microseconds of a step's parts and the share of all that isn't layers or loss."""
    whole = found["step"]
    rest = whole - found["recurrent"] - found["loss"]
    columns = {f"us_{name}": took * 1e6 for name, took in found.items()}
    timed = (found["embedding"] + found["optimizer"]) / whole
    return columns | {"rest_share": rest / whole, "rest_timed_share": timed}


def sampling(run: Run) -> None:
    """Time the loop over tokens at each batch, beside PyTorch's."""
    for batch in cases.SAMPLING_BATCHES:
        given: dict[str, Any] = {"method": "sampling", "batch": batch}
        given |= {"words": cases.SAMPLING_WORDS, "tokens": cases.SAMPLING_TOKENS}
        common: dict[str, Any] = {"batch": batch, "precision": "fp32"}
        entries = [Entry({**common, "side": "ours", "who": "ours"}, run.ours, given)]
        for mode in ("eager", "graph"):
            row = {**common, "side": "torch", "who": f"torch {mode}"}
            entries.append(Entry(row, run.torch, {**given, "mode": mode}))
        rows = interleaved(entries, run.left)
        for row in rows:
            if "seconds" in row:
                row["tokens_per_second"] = batch / row["seconds"]
        run.add("sampling", rows)


def kernels(run: Run) -> None:
    """Time each kernel alone."""
    for variant in ("fp32", "bf16"):
        given = {"variant": variant, "ceilings": run.found["ceilings"]}
        found = run.ask(
            f"kernels, {variant}", run.ours, "kernels", case=cases.GOAL_CASES[0], **given
        )
        run.add("kernels", found or [])


def sanitizers(run: Run) -> None:
    """Look for bad accesses and races in a small training."""
    for tool in ("memcheck", "racecheck"):
        if run.left() < 20:
            run.found["not run"].append(tool)
        else:
            run.found["checks"][tool] = checks.run_sanitizer(tool, min(45, run.left()))


def profile(run: Run) -> None:
    """Profile one training step with Nsight Compute; its tables go to a file of their own."""
    file = run.path.with_name(f"{run.path.name}-ncu.txt")
    run.close()  # the profiler has the device to itself
    run.found["checks"]["profile"] = checks.run_profiler(file, "bf16", min(90, run.left()))


def all_parts() -> tuple[Part, ...]:
    """Return the parts in the order in which they run."""
    return (
        Part("machine", 15, machine),
        Part("agreement", 40, agreement),
        Part("ceilings", 12, ceilings),
        Part("tests", 60, tests),
        *(Part(f"training, {case.name}", 40, training(case)) for case in cases.GOAL_CASES),
        Part(f"recurrent, H={cases.NARROW}", 15, recurrent(cases.NARROW)),
        Part("loss", 30, loss),
        Part("parts of a step", 25, steps),
        Part("sampling", 12, sampling),
        *(Part(f"recurrent, H={H}", 15, recurrent(H)) for H in cases.WIDE),
        Part("kernels", 20, kernels, goal=False),
        *(
            Part(f"training, {case.name}", 12, training(case, "other training", False), goal=False)
            for case in cases.OTHER_CASES
        ),
        Part("sanitizers", 60, sanitizers, goal=False),
        Part("profile", 60, profile, goal=False),
    )


# The command ------------------------------------------------------------------------------------


def run_parts(run: Run, parts: tuple[Part, ...], show: Callable[[str], None]) -> None:
    """Run the parts in order while there is time; write what was found after each."""
    for k, part in enumerate(parts):
        if run.left() < LEAST:
            run.found["not run"].append(part.name)
            continue
        begun, before = run.clock(), set(run.found)
        run.kept_back = sum(later.seconds for later in parts[k + 1 :] if later.goal)
        run.attempt(part.name, lambda part=part: part.call(run))
        run.found["seconds"][part.name] = run.clock() - begun
        part_lines(run.found, before, show)
        show(f"{part.name}: {run.clock() - begun:.1f} s, {run.left():.0f} s left")
        write(run.found, run.path)
    write(run.found, run.path)


def commit() -> str:
    """Return the commit that is checked out, with a mark where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    return first_output(command)


def driver() -> str:
    """Return the driver's version, as nvidia-smi tells it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return first_output(command)


def first_output(command: list[str]) -> str:
    """Return the first line that a program writes, "unknown" where it can't be run."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (done.stdout.strip().splitlines() or ["unknown"])[0]


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--commit", help="of a copy without git's folder")
    parser.add_argument("--small-run", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one-step", metavar="VARIANT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        xp = usable_cupy()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.small_run:
        for head in checks.HEADS:
            checks.small_run(ops_of("fp32", xp), 3, head)
        checks.small_run(ops_of("bf16", xp), 3)
        return 0
    if args.one_step:
        checks.one_step(Ours(xp, by_events(xp)), cases.GOAL_CASES[0], args.one_step)
        return 0
    name = Ours(xp, by_events(xp)).machine()["gpu"]
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    slug = re.sub(r"[^a-z0-9]+", "-", f"{name}-{date[:10]}".lower()).strip("-")
    run = Run(args.minutes, args.out / slug)
    run.found["machine"] = {"gpu": name, "date": date, "commit": args.commit or commit()}
    run.found["machine"]["driver"] = driver()
    try:
        run_parts(run, all_parts(), lambda text: print(text, flush=True))
    finally:
        run.close()
    print(goal_table(run.found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
