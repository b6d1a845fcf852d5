"""The parts of benchmarks/gpu.py, and the session that runs them within their limits.

This process never touches the device: work on it is a worker's (gpu_workers.py) or a program's
(gpu_tools.py), each with a limit, and is ended with all that it started where it takes longer. What
was found is written after each row.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_cases as cases
import gpu_report as report
import gpu_tools as tools
from gpu_cases import Case
from gpu_workers import LIMIT, Entry, Failed, Worker, first_line, interleaved

COMPILE_LIMIT = 45.0  # seconds, of one torch.compile
LEAST = 4.0  # seconds that must be left for a part, or another tool, to begin
RESERVE = 6.0  # seconds kept for the page, and for a process to end
HOW = ("graph", "calls")
Row = dict[str, Any]


class Session:
    """A run: sizes, time, both sides, and what was found, which is at path.json and path.md.

    H: hidden units of small sizes, 0 for those that count.
    """

    def __init__(self, path: Path, minutes: float, H: int = 0) -> None:
        self.path, self.seconds, self.small = path, 60 * minutes, bool(H)
        self.sizes = cases.sizes_of(H)
        self.end = self.until = time.monotonic() + self.seconds - RESERVE
        self.found: Row = {"hidden": H, "errors": {}, "not run": [], "seconds": {}}
        self.open()

    def open(self) -> None:
        """Make both sides anew; their processes begin with what is first asked of them."""
        few = {"most": self.sizes.calls, "launches": 1, "rounds": 1} if self.small else {}
        log = self.beside("log")
        self.ours = Worker("gpu_ours", self.left, log, **few)
        self.checks = Worker("gpu_checks", self.left, log, **few)
        self.torch = Worker("gpu_rivals", self.left, log)

    def left(self) -> float:
        """Return the seconds left to the part that runs."""
        return self.until - time.monotonic()

    def beside(self, name: str) -> Path:
        """Return where the output of programs goes."""
        return self.path.with_name(f"{self.path.name}-{name}.txt")

    def run(self, name: str, limit: float) -> None:
        """Run a part within its limit and what is left."""
        begun = time.monotonic()
        self.until = min(self.end, begun + limit)
        if self.left() < LEAST:
            self.found["not run"].append(name)
            self.write()
            return
        self.open()
        try:
            PARTS[name](self)
        except Exception as error:  # its rows so far are worth keeping
            traceback.print_exc()
            self.found["errors"][name] = first_line(error)
        finally:
            for side in (self.ours, self.checks, self.torch):
                side.close()
        if self.left() <= 0:
            self.found["errors"].setdefault(name, f"ended at its limit of {limit:.0f} s")
        self.found["seconds"][name] = time.monotonic() - begun
        self.write()

    def write(self) -> None:
        """Write what was found, whole or not at all."""
        report.write(self.found, self.path)

    def note(self, table: str, name: str, value: Any) -> None:
        """Note something by its name."""
        self.found.setdefault(table, {})[name] = value
        self.write()

    def ask(self, name: str, side: Worker, method: str, **given: Any) -> Any:
        """Return what a side answers, None after an error, which is noted."""
        try:
            return side.call(method, LIMIT, **given)
        except Failed as error:
            self.note("errors", name, str(error))
            return None

    def compare(
        self, table: str, entries: list[Entry], columns: Callable[[Row], Row] = lambda row: {}
    ) -> None:
        """Add the rows of entries, timed in turn, to a table, with columns that follow."""
        before = self.found.get(table, [])

        def keep(rows: list[Row]) -> None:
            self.found[table] = before + [
                row | (columns(row) if "seconds" in row else {}) for row in rows
            ]
            self.write()

        keep(interleaved(entries, self.left, self.sizes.rounds, keep))


# The parts --------------------------------------------------------------------------------------


def agree(session: Session) -> None:
    """Launch every kernel and hold it to the CPU; measure what the card reaches."""
    from gpu_checks import COPY, asked

    sizes = session.sizes
    T = 3 if session.small else 20
    most = 256 if sizes.narrow == 128 else sizes.narrow
    case = sizes.goals[0]._replace(V=min(sizes.goals[0].V, 1000), T=T, copy=COPY)
    every = asked(most, T, case, min(sizes.tokens, 256), sizes.trained)
    for name, method, given in every:
        found = session.ask(f"agreement, {name}", session.checks, method, **given)
        if found is not None:
            session.note("agreement", name, found)
    found = session.ask("kernels launched", session.checks, "never_launched")
    session.note("checks", "never launched", found)
    ceilings(session)


def ceilings(session: Session) -> None:
    """Measure what the card reaches: copies, and products by precision."""
    sizes = session.sizes
    N, V = sizes.losses[0]
    asked: list[tuple[str, str, Row]] = [
        ("bytes", "copy_rate", {"size": sizes.copied}),
        ("l2", "copy_rate", {"size": sizes.cached}),
        ("l2, half the size", "copy_rate", {"size": sizes.cached // 2}),
        ("bf16, rounded by cuBLAS", "gemm_rate", {"precision": "bf16", "n": sizes.square}),
    ]
    for p in cases.RIVAL_PRECISIONS:
        square = {"precision": p, "n": sizes.square, "copies": p == "bf16"}
        asked += [(p, "gemm_rate", square)]
        asked += [(f"{p}, head", "head_rate", {"precision": p, "N": N, "V": V, "H": sizes.narrow})]
    for name, method, given in asked:
        rate = session.ask(f"ceiling {name}", session.ours, method, **given)
        if rate is not None:
            session.note("ceilings", name, rate)


def steps(session: Session) -> None:
    """Time the goals' cases on both sides in turn."""
    for case in session.sizes.goals:
        session.compare("training", step_entries(session, case), step_columns(session, case))
        used = session.ask(f"bytes, {case.name}", session.ours, "device_bytes")
        session.note("device bytes", case.name, used)


def compiled(session: Session) -> None:
    """Time torch.compile's steps, as CUDA graphs, beside ours: bf16 first."""
    for precision in reversed(cases.RIVAL_PRECISIONS):
        more = {"padded": True, "half": precision == "bf16"}
        for case in session.sizes.goals:
            ours = our_steps(session, case, "ours, beside torch.compile")
            entries = [e for e in ours if cases.precision_of(e.row["precision"]) == precision]
            if not session.small:
                mode = "compile and graph"
                entries.append(rival_step(session, case, precision, mode, COMPILE_LIMIT, **more))
            session.compare("training", entries, step_columns(session, case))


def others(session: Session) -> None:
    """Time other cases."""
    for case in session.sizes.others:
        entries = step_entries(session, case)
        session.compare("other training", entries, step_columns(session, case))


def step_entries(session: Session, case: Case) -> list[Entry]:
    """Return ours in each precision, and PyTorch's eagerly and as graphs."""
    entries = our_steps(session, case, "ours")
    entries += our_steps(session, case, "ours, batches sent", sent=True)
    if case.head != "softmax":
        return entries
    for precision in cases.RIVAL_PRECISIONS:
        entries += [rival_step(session, case, precision, mode) for mode in ("eager", "graph")]
        entries.append(rival_step(session, case, precision, "graph", padded=True))
    for padded in (False, True):
        entries.append(rival_step(session, case, "bf16", "graph", padded=padded, half=True))
    return entries


def our_steps(session: Session, case: Case, who: str, **more: Any) -> list[Entry]:
    """Return our step in each precision."""
    entries = []
    for variant in cases.VARIANTS:
        row = {"case": case.name, "side": "ours", "who": who, "precision": variant}
        given = {"method": "step", "case": case, "variant": variant, "steps": session.sizes.steps}
        entries.append(Entry(row, session.ours, given | more))
    return entries


def rival_step(
    session: Session, case: Case, precision: str, mode: str, limit: float = LIMIT, **more: bool
) -> Entry:
    """Return PyTorch's step in a mode."""
    row = {"case": case.name, "side": "torch", "who": f"torch {mode}{more_of(more)}"}
    row["precision"] = precision
    given = {"method": "step", "case": case, "precision": precision, "mode": mode, **more}
    return Entry(row, session.torch, {**given, "steps": session.sizes.steps}, limit)


def more_of(more: dict[str, bool]) -> str:
    """Return what a rival was given more, in words."""
    words = {"padded": ", V padded to 64", "half": ", logits in bf16"}
    return "".join(words[name] for name, wanted in more.items() if wanted)


def step_columns(session: Session, case: Case) -> Callable[[Row], Row]:
    """Return what makes the columns that follow from a step's seconds."""
    from gpu_ours import step_bound

    def columns(row: Row) -> Row:
        took, precision = row["seconds"], cases.precision_of(row["precision"])
        bound = step_bound(case, session.found.get("ceilings", {}), precision)
        made = {"tokens_per_second": case.N / took, "share_of_bound": bound / took}
        return made | ({"epochs_seconds": case.all_epochs(took)} if case.epochs else {})

    return columns


def recurrent(session: Session) -> None:
    """Time LSTM layers beside cuDNN's, at each number of hidden units."""
    sizes = session.sizes

    def columns(row: Row) -> Row:
        layers = cases.LAYERS if row["part"] == "layers" else 1
        return {"us_a_step_and_layer": row["seconds"] * 1e6 / sizes.length / layers}

    for H in (sizes.narrow, *sizes.wide):
        session.compare("recurrent", layer_entries(session, H), columns)


def layer_entries(session: Session, H: int) -> list[Entry]:
    """Return LSTM layers, both ways: ours, our kernels alone (one layer), and cuDNN's."""
    size = {"H": H, "B": session.sizes.batch, "T": session.sizes.length}
    entries = []
    for variant in cases.VARIANTS:
        common = {"H": H, "side": "ours", "precision": variant}
        given = {"variant": variant, **size}
        for how in HOW:
            row = {**common, "part": "layers", "who": f"ours, {how}"}
            layers = {"method": "layers", "L": cases.LAYERS, "how": how, **given}
            entries.append(Entry(row, session.ours, layers))
    for variant in (*cases.VARIANTS, cases.BARRIER) if session.sizes.narrow == H else ():
        row = {"H": H, "side": "ours", "precision": variant, "part": "kernels"}
        row["who"] = "ours, kernels alone"
        given = {"variant": variant, **size}
        entries.append(Entry(row, session.ours, {"method": "sequences", **given}))
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
            entries.append(Entry(row, session.torch, {**given, "L": cases.LAYERS, **size}))
    return entries


def loss(session: Session) -> None:
    """Time the loss layer alone beside PyTorch's."""
    H, known = session.sizes.narrow, session.found.get("ceilings", {})
    for N, V in session.sizes.losses:

        def columns(row: Row, N: int = N, V: int = V) -> Row:
            rate = 6 * N * V * H / row["seconds"]
            precision = cases.precision_of(row["precision"])
            names = {"share_of_matrix_rate": precision, "share_of_head_rate": f"{precision}, head"}
            return {column: rate / known[name] for column, name in names.items() if name in known}

        session.compare("loss", loss_entries(session, N, V), columns)


def loss_entries(session: Session, N: int, V: int) -> list[Entry]:
    """Return the loss layer of ours and of PyTorch's, as graphs and as plain calls."""
    given = {"method": "loss", "N": N, "V": V, "H": session.sizes.narrow}
    entries = []
    for how in HOW:
        for variant in cases.VARIANTS:
            row = {"V": V, "side": "ours", "who": f"ours, {how}", "precision": variant}
            entries.append(Entry(row, session.ours, {**given, "variant": variant, "how": how}))
        for precision in cases.RIVAL_PRECISIONS:
            for padded in (False, True):
                more = {"padded": padded, "half": padded and precision == "bf16"}
                row = {"V": V, "side": "torch", "who": f"torch, {how}{more_of(more)}"}
                asked = {**given, "precision": precision, "how": how, **more}
                entries.append(Entry({**row, "precision": precision}, session.torch, asked))
    return entries


def sampling(session: Session) -> None:
    """Time the loop over tokens at each batch, beside PyTorch's."""
    sizes = session.sizes
    for batch in sizes.batches:
        given: Row = {"method": "sampling", "batch": batch, "words": sizes.words}
        given |= {"tokens": sizes.tokens, "H": sizes.narrow}
        common: Row = {"batch": batch, "precision": "fp32"}
        entries = [Entry({**common, "side": "ours", "who": "ours"}, session.ours, given)]
        for mode in ("eager", "graph"):
            row = {**common, "side": "torch", "who": f"torch {mode}"}
            entries.append(Entry(row, session.torch, {**given, "mode": mode}))
        session.compare(
            "sampling", entries, lambda row: {"tokens_per_second": row["batch"] / row["seconds"]}
        )


def rest(session: Session) -> None:
    """Time the parts of a step by themselves, and what is left of it."""
    for case in session.sizes.goals:
        for variant in cases.VARIANTS:
            name = f"parts of a step, {case.name}, {variant}"
            given = {"case": case, "variant": variant, "steps": session.sizes.steps}
            found = session.ask(name, session.ours, "parts", **given)
            if found is not None:
                row = {"case": case.name, "precision": variant, **part_columns(found)}
                session.found.setdefault("step", []).append(row)
                session.write()


def part_columns(found: dict[str, float]) -> dict[str, float]:
    """Return microseconds of a step's parts and the share of all that isn't layers or loss."""
    whole = found["step"]
    left = whole - found["recurrent"] - found["loss"]
    columns = {f"us_{name}": took * 1e6 for name, took in found.items()}
    timed = (found["embedding"] + found["optimizer"]) / whole
    return columns | {"rest_share": left / whole, "rest_timed_share": timed}


def kernels(session: Session) -> None:
    """Time each kernel alone."""
    for variant in ("fp32", "bf16"):
        given = {"variant": variant, "ceilings": session.found.get("ceilings", {})}
        case = session.sizes.goals[0]
        found = session.ask(f"kernels, {variant}", session.ours, "kernels", case=case, **given)
        session.found.setdefault("kernels", []).extend(found or [])
        session.write()


def tests(session: Session) -> None:
    """Run the tests of the cupy backend."""
    file = session.beside("tests")
    session.note("checks", "tests", tools.run_tests(session.left(), file, session.small))


def sanitizers(session: Session) -> None:
    """Look for bad accesses and races where every kernel is launched once."""
    for k, tool in enumerate(tools.TOOLS):
        limit = session.left() / (len(tools.TOOLS) - k)
        if limit < LEAST:
            session.note("checks", tool, "not run: no time was left")
            continue
        file = session.beside("sanitizers")
        session.note("checks", tool, tools.run_sanitizer(tool, limit, file, session.small))


def profile(session: Session) -> None:
    """Profile one training step with Nsight Compute; its tables go to a file of their own."""
    file = session.beside("profile")
    found = tools.run_profiler("bf16", session.left(), file, session.small)
    session.note("checks", "profile", found)


def machine(session: Session) -> None:
    """Say what the machine and its software are."""
    for side in (session.ours, session.torch):
        found = session.ask(f"machine, {side.module}", side, "machine")
        if found is None and side is session.ours:
            return
        session.found["machine"] = session.found.get("machine", {}) | (found or {})


PARTS = {
    "machine": machine, "agree": agree, "steps": steps, "compiled": compiled, "loss": loss,
    "recurrent": recurrent, "sampling": sampling, "rest": rest, "tests": tests,
    "sanitizers": sanitizers, "kernels": kernels, "others": others, "profile": profile,
}  # fmt: skip
