"""Put what kernel_model.py predicts into the pages: python benchmarks/predictions.py [--write]

Prints the tables that docs/gpu.md has between marks, or with --write puts them there and draws
docs/figures/roofline.png. --ceilings FILE.json: what gpu.py wrote, whose measured ceilings take the
datasheet's place.

A roofline (Williams et al. 2009) shows for each part of the work how many FLOPs it does a byte,
and how many a second, under what memory and arithmetic allow. Of the CPU the figures are those that
docs/profile.md states, measured; of the GPU they are predictions, and the picture says so.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpu_cases import GOAL_CASES as CASES
from gpu_cases import Case
from gpu_report import aligned
from kernel_model import (
    Ceilings,
    barrier_clocks,
    bf16_step_clocks,
    step,
    step_clocks,
    token,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, ROOFLINE = DOCS / "gpu.md", DOCS / "figures" / "roofline.png"
MARK = "<!-- {}: benchmarks/predictions.py --write -->"
PRECISIONS = ("fp32", "tf32", "bf16")
N, H, V = 2500, 128, 35_509  # of profile.md's steps: T·B rows, units of each of 2 layers, tokens
REAL, LAYERS = 4, 2  # bytes of a float32
MARKS = "os^vDP*Xp<>"


# Tables -----------------------------------------------------------------------------------------


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


def kernels(case: Case, c: Ceilings, page: str) -> str:
    """Return the parts of a step as Markdown: times by precision, the bounds in fp32 and bf16."""
    lines = [["a step's part", "bytes", "FLOPs", "bound by", *PRECISIONS]]
    steps = [{part.name: part for part in step(case, p, page)} for p in PRECISIONS]
    for name in ordered([list(parts) for parts in steps]):
        parts = [found.get(name) for found in steps]
        known = [part for part in parts if part]
        bound = " / ".join(dict.fromkeys((known[0].bound(c), known[-1].bound(c))))
        first = known[0]
        size = f"{amount(first.l2)} of L2" if first.l2 > first.memory else amount(first.memory)
        times = [micro(part.seconds(c)) if part else "–" for part in parts]
        lines.append([name, size, amount(first.flops, ""), bound, *times])
    totals = [micro(sum(part.seconds(c) for part in parts.values())) for parts in steps]
    lines.append(["**a step**", "", "", "", *totals])
    return aligned(lines, 1)


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
    return aligned(lines, 1)


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
    heads = ["a token's part", "bound by, batch 1 / 64", "batch 1", "batch 64"]
    lines = [heads]
    one, many = (token(CASES[0], N, top_p=False) for N in (1, 64))
    for part, other in zip(one, many, strict=True):
        bound = " / ".join(dict.fromkeys((part.bound(c), other.bound(c))))
        times = [micro(p.seconds(c)) for p in (part, other)]
        lines.append([part.name, bound, *times])
    for name, top_p in (("a token", False), ("with top-p", True)):
        totals = [
            micro(sum(part.seconds(c) for part in token(CASES[0], N, top_p))) for N in (1, 64)
        ]
        lines.append([f"**{name}**", "", *totals])
    return aligned(lines, 2)


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


# The roofline ------------------------------------------------------------------------------------


class Point(NamedTuple):
    """A part of the work: FLOPs, bytes, seconds; cached: whether the bytes come from a cache."""

    name: str
    flops: float
    bytes: float
    seconds: float
    cached: bool = False

    @property
    def intensity(self) -> float:
        """FLOPs of a byte."""
        return self.flops / self.bytes

    @property
    def rate(self) -> float:
        """FLOPs of a second."""
        return self.flops / self.seconds


class Roof(NamedTuple):
    """What a machine allows: FLOPs a second, and bytes a second from memory and from a cache."""

    flops: float
    memory: float
    cache: float | None


# What the pages state ---------------------------------------------------------------------------


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """Return the tables' rows below a heading up to the next: first cell -> the other cells."""
    part = re.split(rf"^## {re.escape(heading)}$", text, flags=re.M)[1]
    part = re.split(r"^##+ ", part, flags=re.M)[0]
    cells = (line.strip("|").split("|") for line in part.splitlines() if line.startswith("|"))
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in cells}


def stated(text: str, pattern: str) -> float:
    """Return the number that a page states; raises ValueError where it doesn't."""
    found = re.search(pattern, " ".join(text.split()))
    if found is None:
        raise ValueError(f"the page no longer says {pattern!r}")
    return float(found[1].replace(",", ""))


def cpu(text: str) -> tuple[Roof, list[Point]]:
    """Return roof and points of one core, from profile.md; times are those of the column "now"."""
    wide = now(rows(text, "A training step, V=35,509"))
    narrow = now(rows(text, "A training step, V=600"))
    softmax_ms = stated(text, r"about (\d+) of the \d+; the rest is dW")
    head = 2.0 * N * H * V
    moved = REAL * (N * V + H * V + N * H)  # logits, weights, the layer's outputs
    layer = LAYERS * 2 * 2.0 * N * H * 4 * H  # two products a layer
    both = LAYERS * 2 * REAL * (N * 4 * H + N * H + 4 * H * H)
    steps = LAYERS * 2 * REAL * (2 * N * 4 * H + 2 * N * H + 4 * H * H)  # gates in and out; h, c
    weights = REAL * H * V
    read_us = stated(text, r"the logits ([\d,]+) \(")
    points = [
        Point("logits, h·W", head, moved, wide["logits, h·W"]),
        Point("dh, d·Wᵀ", head, moved, wide["dh, d·Wᵀ"]),
        Point("dW of the head", head, moved, wide["softmax, bias, db, and dW of the head, hᵀ·d"]
              - softmax_ms / 1e3),
        Point("layers: x·Wx, dx", layer, both, narrow["the layers' x·Wx and dx"]),
        Point("layers: dW", layer, both, narrow["the layers' dW, xᵀ·d"]),
        Point("layers: time steps", layer, steps,
              narrow["their time steps, with h·Wh inside"]),
        Point("sampling: logits of a token", 2.0 * H * V, weights, read_us / 1e6, cached=True),
    ]  # fmt: skip
    rate = stated(text, r"105 to (\d+) GFLOP/s a core")
    memory = stated(text, r"the bandwidth, (\d+) GB/s")
    cache = stated(text, r"\| (\d+) GB/s of 18 MB, which the third-level cache holds")
    return Roof(rate * 1e9, memory * 1e9, cache * 1e9), points


def now(table: Mapping[str, list[str]]) -> dict[str, float]:
    """Return the seconds of the column "now", by row."""
    return {name: float(cells[1]) / 1e3 for name, cells in table.items() if is_number(cells[1])}


def is_number(cell: str) -> bool:
    """Return whether a cell is a number."""
    return re.fullmatch(r"[\d.]+", cell) is not None


def gpu(c: Ceilings, page: str) -> tuple[Roof, list[Point]]:
    """Return roof and predicted points of an H200, in fp32."""
    points = [
        Point(re.split(", 3 ×|, both", part.name)[0], part.flops, max(part.memory, part.l2),
              part.seconds(c), part.l2 > part.memory)
        for part in step(CASES[0], "fp32", page)
        if part.flops
    ]  # fmt: skip
    return Roof(c.fp32, c.memory, None), points


def draw(page: str, out: Path) -> None:
    """Draw both machines into a PNG file; page: gpu.md."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    measured = cpu((DOCS / "profile.md").read_text("utf-8"))
    panel(left, measured, 1e9, "GFLOP/s", "One core of a Zen 4 CPU: measured")
    panel(right, gpu(Ceilings(), page), 1e12, "TFLOP/s", "An H200, fp32: predicted, not measured")
    figure.savefig(out, dpi=110)


def panel(ax: Any, machine: tuple[Roof, list[Point]], unit: float, label: str, title: str) -> None:
    """Draw one machine's roof and its points, whose marks the legend explains."""
    roof, points = machine
    x = np.geomspace(0.1, 3000, 200)
    roofs = [(roof.memory, "-", "memory"), (roof.cache, "--", "third-level cache")]
    for bandwidth, style, name in roofs:
        if bandwidth:
            y = np.minimum(x * bandwidth, roof.flops) / unit
            ax.loglog(x, y, f"k{style}", lw=1.2, label=f"{name}, {bandwidth / 1e9:,.0f} GB/s")
    for n, point in enumerate(points):
        color = f"C{n % 10}"
        ax.plot(
            point.intensity, point.rate / unit, MARKS[n % len(MARKS)], ms=9, alpha=0.8, mec=color,
            mfc="none" if point.cached else color,
            label=point.name + ", from a cache" * point.cached,
        )  # fmt: skip
    ax.set(title=title, xlabel="FLOPs a byte", ylabel=label, xlim=(x[0], x[-1]))
    ax.grid(alpha=0.3, which="both", lw=0.4)
    ax.text(x[-1] * 0.8, roof.flops / unit * 1.06, f"{roof.flops / unit:.0f} {label}", ha="right")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)


def main() -> None:
    """Print the tables, or put them into the page and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ceilings", type=Path, metavar="FILE.json")
    parser.add_argument("--write", action="store_true", help="put all into docs/")
    args = parser.parse_args()
    page = PAGE.read_text("utf-8")
    texts = made(measured(args.ceilings) if args.ceilings else Ceilings(), page)
    if not args.write:
        print(*texts.values(), sep="\n\n")
        return
    for name, text in texts.items():
        page = placed(page, name, text)
    PAGE.write_text(page, "utf-8")
    draw(page, ROOFLINE)


if __name__ == "__main__":
    main()
