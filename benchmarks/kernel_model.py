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

from gpu_cases import GOAL_CASES as CASES
from gpu_cases import Case
from lstm_music.ops.cuda import lstm_sequence, softmax_head
from lstm_music.ops.cuda.layout import padded
from lstm_music.ops.cuda.lstm_sequence import bf16_sequence_rows
from lstm_music.ops.cuda.softmax import CHUNK_ROWS, L2_BYTES
from lstm_music.ops.workspace import LOGITS_BYTES

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
# Assumed likewise, of a warp's product of 16 × 16 by 16 × 8 in bf16: clocks until it is done,
# and between two on a quarter of a multiprocessor: 2,048 multiply-adds at 62 % of its 1,024 a
# clock, which is what such instructions are reported to reach on Hopper; on an A100 it is 8.
FROM_PRODUCT, PRODUCT = 33, 2048 / (0.62 * 1024)
SHUFFLE = 25  # assumed: clocks between lanes of a warp
L2_RATE = 64  # assumed: bytes a clock between the L2 cache and a multiprocessor
GEMM_REACH = 0.75  # assumed: cuBLAS's share of a rate at these shapes, whose sum is over 128
# Assumed: mma.sync's share of Hopper's matrix rate, 62 % in published measurements (wgmma: all),
# and what exponentials and loads between them leave.
MATRIX_REACH = 0.62 * 0.75
GAP = 1e-6  # assumed: seconds between two launches of a graph that wait for each other


class Ceilings(NamedTuple):
    """What a machine allows: bytes a second, FLOPs a second, clocks a second."""

    memory: float = 4.8e12
    l2: float = 5.5e12  # assumed: no datasheet states it
    fp32: float = 67e12
    tf32: float = 495e12
    bf16: float = 989e12
    clock: float = 1.755e9  # assumed under load; 1.98e9 at most


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


def plan(case: Case) -> lstm_sequence.SequencePlan:
    """Return how the persistent kernel runs on an H200."""
    sizes = (case.B, case.H, 4, MULTIPROCESSORS, SHARED_BYTES)
    found = lstm_sequence.sequence_plan(*sizes, clusters=True)
    assert found is not None
    return found


def step_clocks(case: Case, backward: bool, exchange: str = "mbarrier") -> float:
    """Return the clocks of a time step of the persistent kernel, alike in both directions."""
    return lstm_sequence.step_clocks(plan(case)._replace(exchange=exchange), case.H)


def barrier_clocks(case: Case, backward: bool) -> float:
    """Return the same where a cluster's blocks exchange by its barrier."""
    return step_clocks(case, backward, "barrier")


def bf16_step_clocks(case: Case, backward: bool) -> float:
    """Return the clocks of a time step of the persistent kernel on the tensor cores.

    A warp owns 16 units and multiplies by all of their weights, 256 at a time; the quarters of a
    multiprocessor share the warps. Beside the products go h for each warp through the shared
    memory's pipe, and what the L2 cache reads and writes; all else is taken to be a chain, though
    the compiler puts some of it between products.
    """
    H = case.H
    rows = bf16_sequence_rows(case.B, H, MULTIPROCESSORS, SHARED_BYTES)
    assert rows is not None
    warps = H / 16
    products = -(-warps // 4) * 4 * warps * PRODUCT
    h = 0 if backward else warps * 8 * H * 2 / SHARED
    moved = rows * H * 4 * 10 / L2_RATE  # gates read and written; c and h written, or c and dy read
    chain = max(products, h, moved) + FROM_PRODUCT + BARRIER + 2 * FROM_SHARED + 8 * ADD
    if backward:  # to the lanes of a warp; the warps' parts of dh, written and read
        return chain + SHUFFLE + 2 * warps * rows * H * 4 / SHARED
    # Two exponentials or reciprocals for each of a unit's five activations.
    return chain + max(2 * ACTIVATION, 10 * rows * H / SPECIAL)


def fits_tensor_cores(case: Case, precision: str) -> bool:
    """Return whether the recurrent product is on the tensor cores."""
    rows = bf16_sequence_rows(case.B, case.H, MULTIPROCESSORS, SHARED_BYTES)
    return precision == "bf16" and rows is not None


def layers(case: Case, precision: str) -> list[Part]:
    """Return the parts of the recurrent layers and their GEMMs, forward and back."""
    N, H, L = case.T * case.B, case.H, case.L
    real, gemm = 4, {"rate": precision, "share": GEMM_REACH}
    row_bytes = real * N * H
    # The weights and the first inputs come before the first step.
    on_tensor_cores = fits_tensor_cores(case, precision)
    blocks = 1 if on_tensor_cores else plan(case).cluster  # that share Wh
    start = FROM_MEMORY * 3 + real * 4 * H * H / blocks / L2_RATE
    clocks = bf16_step_clocks if on_tensor_cores else step_clocks
    return [
        Part("x·Wx, both layers", 5 * row_bytes, flops=8 * N * H * H, **gemm, launches=L),
        Part("lstm_sequence_forward, both layers", 10 * row_bytes, flops=8 * N * H * H,
             clocks=L * (start + case.T * clocks(case, False)), launches=L,
             group="recurrent"),
        Part("lstm_sequence_backward, both layers", 10 * row_bytes, flops=8 * N * H * H,
             clocks=L * (start + case.T * clocks(case, True)), launches=L,
             group="recurrent"),
        Part("dx, dWx, dWh, both layers", 15 * row_bytes, flops=24 * N * H * H, **gemm,
             launches=3 * L),
        Part("db, both layers", 4 * real * case.B * H, clocks=L * 3 * FROM_L2, launches=L),
    ]  # fmt: skip


def per_layer(parts: list[Part], case: Case) -> list[Part]:
    """Return parts as `layers` names them, with all layers' bytes and FLOPs."""
    return [part._replace(memory=case.L * part.memory, flops=case.L * part.flops) for part in parts]


def loss(case: Case, precision: str, page: str) -> list[Part]:
    """Return the parts of the loss layer."""
    if precision == "bf16":
        return fused_loss(case)
    return loss_by_chunks(case, precision, page)


def fused_loss(case: Case) -> list[Part]:
    """Return the parts of the loss layer by softmax_head.cu, over all chunks of words.

    The gradient of a chunk's logits stays in the L2 cache; W's copy is read from there as often as
    there are tiles of rows, and the other way round.
    """
    N, H, V = case.T * case.B, case.H, case.V
    chunks = len(softmax_head.word_chunks(N, V))
    passes = softmax_head.tiles(N) * V * H * 2
    product = {"flops": 2 * N * H * V, "rate": "bf16", "group": "loss"}
    ours = {**product, "share": MATRIX_REACH}
    gemm = {**product, "share": GEMM_REACH, "launches": chunks}
    tiles = softmax_head.tiles(V) * 2 * H * N  # h is read for each 128 columns
    return [
        Part("copies in bf16", 6 * (H * V + N * H), launches=2, group="loss"),
        Part("softmax_head_forward", 2 * H * V, passes, exponentials=1.125 * N * V, **ours),
        Part("softmax_head_merge", 2 * H * N, 16 * N * 26, clocks=4 * FROM_MEMORY, group="loss"),
        Part("softmax_head_backward", 2 * H * V, passes + 2 * N * V, exponentials=N * V,
             launches=chunks, **ours),
        Part("head: d·Wᵀ", 2 * H * V, 2 * N * V + 8 * N * H * chunks, **gemm),
        Part("head: hᵀ·d", 4 * H * V, 2 * N * V + tiles, **gemm),
        Part("column_sum", 4 * V, 40 * V, clocks=3 * FROM_L2, group="loss"),
    ]  # fmt: skip


def loss_by_chunks(case: Case, precision: str, page: str) -> list[Part]:
    """Return the parts of the loss layer by cuBLAS and softmax_xent.cu, over all chunks of rows.

    A chunk goes through memory where the L2 cache doesn't hold it; W and its gradient go through
    memory once more for each chunk, where it doesn't hold them beside it.
    """
    N, H, V = case.T * case.B, case.H, case.V
    rows = chunk_rows(N, V)
    chunks = -(-N // rows)
    size = rows * V * 4
    far = size > L2_CAPACITY
    again = chunks if 8 * H * V + size > L2_CAPACITY else 1
    tiles = -(-V // 128) * 4 * H * N  # h is read for each 128 columns, from the L2 cache
    shared = {"launches": chunks, "group": "loss"}

    def gemm(name: str, weights: float, more: float = 0) -> Part:
        """Return a product that moves four bytes for each logit."""
        memory, l2 = (4 * N * V, 0) if far else (0, 4 * N * V)
        return Part(name, memory + again * weights, l2 + more, 2 * N * H * V, precision,
                    GEMM_REACH, **shared)  # fmt: skip

    def visit(name: str, each: int, flying: float, flops: int, exponentials: float) -> Part:
        """Return a kernel of ours likewise; each thread has so many bytes under way."""
        under_way = MULTIPROCESSORS * THREADS * occupancy(page, name) * flying
        return Part(name, flops=flops * N * V, exponentials=exponentials * N * V,
                    flying=(under_way, FROM_MEMORY if far else FROM_L2),
                    **{"memory" if far else "l2": each * N * V}, **shared)  # fmt: skip

    return [
        gemm("head: h·W", 4 * H * V, tiles),
        visit("softmax_xent_backward", 12, 32, 7, 2.25),
        gemm("head: d·Wᵀ", 4 * H * V),
        gemm("head: hᵀ·d", 8 * H * V, tiles),
        visit("column_sum", 4, 64, 1, 0),
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
    # Assumed: 5 instructions for each number that a warp compares, 4 a clock of a multiprocessor.
    count = 5 * N / 32 * N / MULTIPROCESSORS / 4
    return [
        Part("embedding_forward", 8 * N * E, clocks=2 * FROM_MEMORY),
        Part("embedding_sort, embedding_backward", 8 * N * E, clocks=count + 8 * FROM_L2,
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


def token(case: Case, N: int, top_p: bool) -> list[Part]:
    """Return the parts of drawing a token of each of N pieces, without rules, in fp32."""
    H, V, L = case.H, case.V, case.L
    terms = 2 * H / 64  # rounds of lstm_step_forward, each 16 terms of 8 sums of a thread, 8 warps
    step_of_layer = 2 * FROM_L2 + terms * (16 * (8 + 3) * 2 + 100 + 2 * BARRIER) + 3 * ACTIVATION
    # A row of logits to one multiprocessor, an exponential of some 20 instructions each, the word.
    draw = 4 * V / L2_RATE + 20 * V / FFMA + 3 * V / FFMA + 12 * BARRIER + 2 * FROM_L2
    select = 4 * (8 * V / FFMA + 4 * BARRIER + 10 * SHUFFLE)  # four digits
    return [
        Part("embedding_forward", 8 * N * H, clocks=2 * FROM_MEMORY),
        Part("lstm_step_forward, both layers", l2=L * 32 * H * H, clocks=L * step_of_layer,
             launches=L),
        Part("logits: h·W", l2=4 * H * V + 4 * N * V, flops=2 * N * H * V, share=GEMM_REACH),
        Part("logits: + b", l2=8 * N * V),
        Part("sample_forward", l2=4 * N * V, clocks=draw + 2 * select * top_p),
        Part("sample_advance", clocks=FROM_L2),
    ]  # fmt: skip


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
    steps = [{part.name: part for part in step(case, p, page)} for p in PRECISIONS]
    for name in ordered([list(parts) for parts in steps]):
        parts = [found.get(name) for found in steps]
        known = [part for part in parts if part]
        bound = " / ".join(dict.fromkeys((known[0].bound(c), known[-1].bound(c))))
        first = known[0]
        size = f"{amount(first.l2)} of L2" if first.l2 > first.memory else amount(first.memory)
        times = [micro(part.seconds(c)) if part else "–" for part in parts]
        lines.append([name, size, amount(first.flops, ""), bound, *times, "not measured"])
    totals = [micro(sum(part.seconds(c) for part in parts.values())) for parts in steps]
    lines.append(["**a step**", "", "", "", *totals, "not measured"])
    return table(lines, 1)


def ordered(lists: list[list[str]]) -> list[str]:
    """Return the names of all lists once, each after those that go before it in its list."""
    found: list[str] = []
    for names in lists:
        at = 0
        for name in names:
            if name in found:
                at = found.index(name) + 1
            else:
                found.insert(at, name)
                at += 1
    return found


def targets(c: Ceilings, page: str) -> str:
    """Return what the model says of each target as Markdown."""
    heads = "case, precision; a step; target; reached; recurrent, a time step and layer; "
    heads += "loss layer, of the matrix rate; all else, of a step; longest parts"
    lines = [heads.split("; ")]
    for case in CASES:
        target = case.seconds / case.all_epochs(1)
        for precision in PRECISIONS:
            parts = step(case, precision, page)
            times = {part: part.seconds(c) for part in parts}
            total = sum(times.values())
            of = {g: sum(t for p, t in times.items() if p.group == g)
                  for g in ("recurrent", "loss", "rest")}  # fmt: skip
            rate = 6 * case.T * case.B * case.H * case.V / of["loss"] / getattr(c, precision)
            longest = sorted(parts, key=lambda part: -times[part])[:2]
            lines.append([
                f"{case.name}, {precision}", f"{total * 1e3:.2f} ms", f"{target * 1e3:.2f} ms",
                "yes" if total <= target else "no",
                f"{of['recurrent'] / case.T / case.L / 2 * 1e6:.2f} µs", f"{rate:.0%}",
                f"{of['rest'] / total:.0%}",
                ", ".join(f"{p.name.split(', both')[0]} ({p.bound(c)})" for p in longest),
            ])  # fmt: skip
    return table(lines, 1)


def recurrent(c: Ceilings) -> str:
    """Return the clocks of a time step of the recurrent kernels as a list."""
    lines = []
    ways = {
        "fp32": step_clocks,
        "fp32, by the cluster's barrier": barrier_clocks,
        "bf16": bf16_step_clocks,
    }
    for kernel, of_step in ways.items():
        for backward, name in ((False, "forward"), (True, "backward")):
            clocks = of_step(CASES[0], backward)
            time = clocks / c.clock * 1e6
            lines.append(f"- {kernel}, {name}: {clocks:,.0f} clocks, {time:.2f} µs")
    return "\n".join(lines)


def sampling(c: Ceilings) -> str:
    """Return the parts of drawing tokens as Markdown."""
    heads = ["a token's part", "bound by, batch 1 / 64", "batch 1", "batch 64", "measured"]
    lines = [heads]
    one, many = (token(CASES[0], N, top_p=False) for N in (1, 64))
    for part, other in zip(one, many, strict=True):
        bound = " / ".join(dict.fromkeys((part.bound(c), other.bound(c))))
        times = [micro(p.seconds(c)) for p in (part, other)]
        lines.append([part.name, bound, *times, "not measured"])
    for name, top_p in (("a token", False), ("with top-p", True)):
        totals = [
            micro(sum(part.seconds(c) for part in token(CASES[0], N, top_p))) for N in (1, 64)
        ]
        lines.append([f"**{name}**", "", *totals, "not measured"])
    return table(lines, 2)


def made(c: Ceilings, page: str) -> dict[str, str]:
    """Return what docs/gpu.md says by this model, by the name in its marks."""
    return {
        "a step": kernels(CASES[0], c, page),
        "a time step": recurrent(c),
        "targets": targets(c, page),
        "sampling": sampling(c),
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
