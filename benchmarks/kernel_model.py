"""Predict each kernel's time and a training step's from bytes, FLOPs, clocks and occupancy: no GPU.

Run `python benchmarks/kernel_model.py [--ceilings FILE.json] [--write]`; it prints what docs/gpu.md
has between marks, or with --write puts it there. Ceilings are an H200's datasheet;
FILE is what benchmarks/gpu.py writes, whose measured ceilings take the datasheet's place.

A part of a step takes as long as the slowest of: its bytes from device memory or the L2 cache, its
FLOPs, its exponentials, the bytes its threads can have under way, its chain of clocks; and each
launch adds a gap. Parts follow each other. What no datasheet states is an assumption, and says so.
"""

import argparse
import json
import re
from pathlib import Path
from typing import NamedTuple

from lstm_music.ops.cupy_ops import CHUNK_ROWS, L2_BYTES, padded, sequence_plan
from lstm_music.ops.numpy_ops import LOGITS_BYTES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gpu.md"
MARK = "<!-- {}: benchmarks/kernel_model.py --write -->"
PRECISIONS = ("fp32", "tf32", "bf16")
MULTIPROCESSORS, THREADS = 132, 2048  # THREADS: that live on a multiprocessor at most
SHARED, SHARED_BYTES = 128, 227 << 10  # bytes a clock of a multiprocessor; bytes of a block
SPECIAL = 16  # exponentials a clock of a multiprocessor
FFMA = 128  # multiply-adds a clock of a multiprocessor
L2_CAPACITY = 50e6

# Assumed, in clocks: from published measurements of Hopper's latencies, rounded.
FROM_MEMORY, FROM_L2, FROM_SHARED, BARRIER, ACTIVATION, ADD = 700, 270, 30, 40, 60, 4
GEMM_REACH = 0.75  # assumed: cuBLAS's share of a rate at these shapes, whose sum is over 128
GAP = 1e-6  # assumed: seconds between two launches of a graph that wait for each other


class Ceilings(NamedTuple):
    """What a machine allows: bytes a second, FLOPs a second, clocks a second."""

    memory: float = 4.8e12
    l2: float = 5.5e12  # assumed: no datasheet states it
    fp32: float = 67e12
    tf32: float = 495e12
    bf16: float = 989e12
    clock: float = 1.755e9  # assumed under load; 1.98e9 at most


class Case(NamedTuple):
    """A model of V tokens, E = H, two layers; T·B tokens a step; the target's seconds of a step."""

    name: str
    V: int
    B: int
    T: int
    target: float
    H: int = 128
    L: int = 2


CASES = (
    Case("Bach", 35_509, 50, 50, 0.9e-3),
    Case("Classical", 132_437, 25, 25, 180 / (15 * 11.4e6 / 625)),
    Case("Muse-All", 39_289, 50, 50, 75 / (800 * 245_202 / 2500)),
)


class Part(NamedTuple):
    """A part of a step: what it moves and does; group: recurrent, loss, or the rest.

    rate: of Ceilings, that its FLOPs run at. share: of that rate or of a cache's, that it reaches.
    clocks: of a chain that can't be shortened. flying: bytes that its threads have under way at
    most, and whence.
    """

    name: str
    memory: float = 0
    l2: float = 0
    flops: float = 0
    rate: str = "fp32"
    share: float = 1
    exponentials: float = 0
    clocks: float = 0
    flying: tuple[float, int] | None = None
    launches: int = 1
    group: str = "rest"

    def bounds(self, c: Ceilings) -> dict[str, float]:
        """Return the seconds that each bound asks for."""
        found = {
            "bytes": self.memory / c.memory,
            "L2": (self.memory + self.l2) / c.l2,
            "FLOPs": self.flops / (self.share * getattr(c, self.rate)),
            "exponentials": self.exponentials / (MULTIPROCESSORS * SPECIAL * c.clock),
            "latency": self.clocks / c.clock,
            "launch": self.launches * GAP,
        }
        if self.flying:
            under_way, latency = self.flying
            found["loads under way"] = (self.memory + self.l2) * latency / under_way / c.clock
        return found

    def seconds(self, c: Ceilings) -> float:
        """Return the predicted time."""
        bounds = self.bounds(c)
        gap = bounds.pop("launch")
        return max(bounds.values()) + gap

    def bound(self, c: Ceilings) -> str:
        """Return what binds."""
        bounds = self.bounds(c)
        return max(bounds, key=lambda name: bounds[name])


def occupancy(page: str, kernel: str) -> float:
    """Return the share of a multiprocessor's threads, from the compiler's report in docs/gpu.md."""
    found = re.search(rf"^\| {kernel} \|.*\| (\d+)% \|$", page, re.M)
    if found is None:
        raise ValueError(f"docs/gpu.md doesn't report {kernel}")
    return int(found[1]) / 100


# The parts of a step ----------------------------------------------------------------------------


def step_clocks(case: Case, backward: bool) -> float:
    """Return the clocks of a time step of the persistent kernel.

    The shared memory's pipe carries the weights that registers don't hold, and each warp's
    broadcasts of the state; multiply-adds run beside it. What follows is a chain.
    """
    H = case.H
    plan = sequence_plan(case.B, H, 4, MULTIPROCESSORS, SHARED_BYTES)
    assert plan is not None
    far = max(0, H - plan.registers - 4 * plan.held)
    weights = 4 * (H - plan.registers - far) * plan.threads / SHARED
    broadcasts = plan.rows * (H / 4) * plan.threads / 32
    from_l2 = far * plan.threads * 4 / 64  # assumed: 64 bytes a clock of a multiprocessor
    product = max(weights + broadcasts, plan.rows * H * 4 * H / FFMA, from_l2)
    chain = 2 * BARRIER + 3 * FROM_SHARED + 8 * ADD
    chain += ACTIVATION + 8 * ADD if backward else 2 * ACTIVATION
    return product + chain


def layers(case: Case, precision: str) -> list[Part]:
    """Return the parts of the recurrent layers and their GEMMs, forward and back."""
    N, H, L = case.T * case.B, case.H, case.L
    real, gemm = 4, {"rate": precision, "share": GEMM_REACH}
    row_bytes = real * N * H
    start = FROM_MEMORY * 3  # the weights and the first inputs come before the first step
    return [
        Part("x·Wx, both layers", 5 * row_bytes, flops=8 * N * H * H, **gemm, launches=L),
        Part("lstm_sequence_forward, both layers", 10 * row_bytes, flops=8 * N * H * H,
             clocks=L * (start + case.T * step_clocks(case, False)), launches=L,
             group="recurrent"),
        Part("lstm_sequence_backward, both layers", 10 * row_bytes, flops=8 * N * H * H,
             clocks=L * (start + case.T * step_clocks(case, True)), launches=L,
             group="recurrent"),
        Part("dx, dWx, dWh, db, both layers", 19 * row_bytes, flops=24 * N * H * H, **gemm,
             launches=4 * L),
    ]  # fmt: skip


def per_layer(parts: list[Part], case: Case) -> list[Part]:
    """Return parts as `layers` names them, with all layers' bytes and FLOPs."""
    return [part._replace(memory=case.L * part.memory, flops=case.L * part.flops) for part in parts]


def loss(case: Case, precision: str, page: str) -> list[Part]:
    """Return the parts of the loss layer, over all chunks of rows.

    A chunk goes through memory where the L2 cache doesn't hold it; W and its gradient go through
    memory once more for each chunk, where it doesn't hold them beside it. With bf16 cuBLAS reads
    copies of h, W and the logits' gradient.
    """
    N, H, V = case.T * case.B, case.H, case.V
    half = precision == "bf16"
    d = w = 2 if half else 4  # bytes of an element of the logits' gradient, and of W
    rows = chunk_rows(N, V)
    chunks = -(-N // rows)
    size = rows * V * (4 + d * half)
    far = size > L2_CAPACITY
    again = chunks if (w + 4) * H * V + size > L2_CAPACITY else 1
    tiles = -(-V // 128) * d * H * N  # h is read for each 128 columns, from the L2 cache
    shared = {"launches": chunks, "group": "loss"}

    def gemm(name: str, weights: float, each: int, more: float = 0) -> Part:
        """Return a product that moves so many bytes for each logit."""
        memory, l2 = (each * N * V, 0) if far else (0, each * N * V)
        return Part(name, memory + again * weights, l2 + more, 2 * N * H * V, precision,
                    GEMM_REACH, **shared)  # fmt: skip

    def visit(name: str, each: int, flying: float, flops: int, exponentials: float) -> Part:
        """Return a kernel of ours likewise; each thread has so many bytes under way."""
        under_way = MULTIPROCESSORS * THREADS * occupancy(page, name) * flying
        return Part(name, flops=flops * N * V, exponentials=exponentials * N * V,
                    flying=(under_way, FROM_MEMORY if far else FROM_L2),
                    **{"memory" if far else "l2": each * N * V}, **shared)  # fmt: skip

    return [
        Part("copies in bf16", 6 * (H * V + N * H) * half, launches=2 * half, group="loss"),
        gemm("head: h·W", w * H * V, 4, tiles),
        visit("softmax_xent_backward", 8 + d, 32, 7, 2.25),
        gemm("head: d·Wᵀ", w * H * V, d),
        gemm("head: hᵀ·d", 8 * H * V, d, tiles),
        visit("column_sum", d, 64, 1, 0),
    ]


def chunk_rows(N: int, V: int) -> int:
    """Return the rows of a chunk, as `padded_chunks` takes them."""
    limit = min(LOGITS_BYTES, max(L2_BYTES, CHUNK_ROWS * padded(V) * 4))
    most = max(1, min(N, limit // (4 * padded(V))))
    return -(-N // -(-N // most))


def rest(case: Case, page: str) -> list[Part]:
    """Return the embedding and the optimiser."""
    N, E, V = case.T * case.B, case.H, case.V
    dense = case.H * V + V + case.L * (8 * case.H * case.H + 4 * case.H)
    flying = MULTIPROCESSORS * THREADS * occupancy(page, "adam_forward") * 64
    count = 30 * N / 4  # assumed: clocks of a thread's comparisons, four a load
    return [
        Part("embedding_forward", 8 * N * E, clocks=2 * FROM_MEMORY),
        Part("embedding_sort, embedding_backward", 8 * N * E, clocks=count + 6 * FROM_MEMORY,
             launches=2),
        Part("sum of squares, clip", 4 * (dense + N * E), flops=2 * (dense + N * E),
             clocks=4 * FROM_MEMORY, launches=2),
        Part("adam_forward", 28 * dense + 24 * V * E, flops=12 * (dense + V * E),
             flying=(flying, FROM_MEMORY), clocks=4 * FROM_MEMORY),
    ]  # fmt: skip


def step(case: Case, precision: str, page: str) -> list[Part]:
    """Return the parts of a training step."""
    parts = [*per_layer(layers(case, precision), case), *loss(case, precision, page)]
    return parts + rest(case, page)


# What is printed --------------------------------------------------------------------------------


def amount(x: float, unit: str = "B") -> str:
    """Return a number of bytes or FLOPs as 13 MB or 0.33 G."""
    if not x:
        return "–"
    size, name = next((s, n) for s, n in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if x >= s or n == "k")
    value = x / size
    return f"{value:,.{0 if value >= 10 else 1 if value >= 1 else 2}f} {name}{unit}"


def micro(seconds: float) -> str:
    """Return seconds as microseconds."""
    return f"{seconds * 1e6:,.0f} µs"


def table(lines: list[list[str]], left: int) -> str:
    """Return lines of cells as Markdown, the heads first; `left` columns aren't numbers."""
    heads, *cells = lines
    rule = ["---"] * left + ["--:"] * (len(heads) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *cells))


def kernels(case: Case, c: Ceilings, page: str) -> str:
    """Return the parts of a step as Markdown: times by precision, the bounds in fp32 and bf16."""
    lines = [["a step's part", "bytes", "FLOPs", "bound by", *PRECISIONS, "measured"]]
    steps = [step(case, precision, page) for precision in PRECISIONS]
    for parts in zip(*steps, strict=True):
        first, last = parts[0], parts[-1]
        bound = " / ".join(dict.fromkeys((first.bound(c), last.bound(c))))
        first = first if first.launches else last  # some are of bf16 alone
        size = f"{amount(first.l2)} of L2" if first.l2 > first.memory else amount(first.memory)
        times = [micro(part.seconds(c)) for part in parts]
        lines.append([first.name, size, amount(first.flops, ""), bound, *times, "not measured"])
    totals = [micro(sum(part.seconds(c) for part in parts)) for parts in steps]
    lines.append(["**a step**", "", "", "", *totals, "not measured"])
    return table(lines, 1)


def targets(c: Ceilings, page: str) -> str:
    """Return what the model says of each target as Markdown."""
    heads = "case, precision; a step; target; reached; recurrent, a time step and layer; "
    heads += "loss layer, of the matrix rate; all else, of a step; longest parts"
    lines = [heads.split("; ")]
    for case in CASES:
        for precision in PRECISIONS:
            parts = step(case, precision, page)
            times = {part: part.seconds(c) for part in parts}
            total = sum(times.values())
            of = {g: sum(t for p, t in times.items() if p.group == g)
                  for g in ("recurrent", "loss", "rest")}  # fmt: skip
            rate = 6 * case.T * case.B * case.H * case.V / of["loss"] / getattr(c, precision)
            longest = sorted(parts, key=lambda part: -times[part])[:2]
            lines.append([
                f"{case.name}, {precision}", f"{total * 1e3:.2f} ms", f"{case.target * 1e3:.2f} ms",
                "yes" if total <= case.target else "no",
                f"{of['recurrent'] / case.T / case.L / 2 * 1e6:.2f} µs", f"{rate:.0%}",
                f"{of['rest'] / total:.0%}",
                ", ".join(f"{p.name.split(', both')[0]} ({p.bound(c)})" for p in longest),
            ])  # fmt: skip
    return table(lines, 1)


def recurrent(c: Ceilings) -> str:
    """Return the clocks of a time step of the recurrent kernel as a list."""
    lines = []
    for backward, name in ((False, "forward"), (True, "backward")):
        clocks = step_clocks(CASES[0], backward)
        time = clocks / c.clock * 1e6
        lines.append(f"- {name}: {clocks:,.0f} clocks, {time:.2f} µs")
    return "\n".join(lines)


def made(c: Ceilings, page: str) -> dict[str, str]:
    """Return what docs/gpu.md says by this model, by the name in its marks."""
    bach, *others = CASES
    parts = []
    for case in others:
        sizes = f"V = {case.V:,}, T = {case.T}, B = {case.B}, H = E = {case.H}"
        parts += [f"{case.name}, {sizes}:", kernels(case, c, page)]
    return {
        "a step": kernels(bach, c, page),
        "a time step": recurrent(c),
        "targets": targets(c, page),
        "other cases": "\n\n".join(parts),
    }


def placed(page: str, name: str, text: str) -> str:
    """Return the page with a text between the marks of that name."""
    before, _, after = page.split(MARK.format(name))
    return f"{MARK.format(name)}\n\n{text}\n\n{MARK.format(name)}".join((before, after))


def measured(file: Path) -> Ceilings:
    """Return the ceilings that benchmarks/gpu.py found, with the datasheet's for all else."""
    found = json.loads(file.read_text("utf-8"))["ceilings"]
    names = {"bytes": "memory", "l2": "l2", "fp32": "fp32", "tf32": "tf32", "bf16": "bf16"}
    return Ceilings(**{names[k]: float(v) for k, v in found.items() if k in names})


def main() -> None:
    """Print the tables, or put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ceilings", type=Path, metavar="FILE.json")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/gpu.md")
    args = parser.parse_args()
    page = PAGE.read_text("utf-8")
    texts = made(measured(args.ceilings) if args.ceilings else Ceilings(), page)
    for name, text in texts.items():
        page = placed(page, name, text)
    if args.write:
        PAGE.write_text(page, "utf-8")
    else:
        print(*texts.values(), sep="\n\n")


if __name__ == "__main__":
    main()
