"""Draw docs/figures/roofline.png from the figures that docs/profile.md and docs/gpu.md state.

    python tools/roofline.py [--out FILE.png]

A roofline (Williams et al. 2009) shows for each part of the work how many FLOPs it does a byte,
and how many a second, under what memory and arithmetic allow. Of the CPU the figures are
measured; of the GPU they are gpu.md's predictions, and the picture says so. No rate or time is
typed in here: where a page changes, draw anew.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DOCS = Path(__file__).resolve().parent.parent / "docs"
N, H, V = 2500, 128, 35_509  # of profile.md's steps: T·B rows, units of each of 2 layers, tokens
REAL = 4  # bytes of a float32
MARKS = "os^vDP*Xp<>"
LAYERS = 2
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


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


def gpu(text: str) -> tuple[Roof, list[Point]]:
    """Return roof and predicted points of an H200, from gpu.md."""
    table = rows(text, "What is predicted")
    roof = Roof(
        stated(text, r"(\d+) TFLOPS fp32") * 1e12, stated(text, r"([\d.]+) TB/s") * 1e12, None
    )
    return roof, list(predicted(table))


def predicted(table: Mapping[str, list[str]]) -> Iterator[Point]:
    """Yield the rows that state bytes, FLOPs and a time."""
    for name, cells in table.items():
        if len(cells) < 5 or name.startswith("**"):
            continue
        moved, flops, _, time, *_, measured = cells  # of several times the first is fp32's
        size = re.match(r"([\d.]+) ([MG])B", moved)
        work = re.match(r"([\d.]+) ([MG])$", flops)
        seconds = re.match(r"([\d,]+) µs", time)
        if not (size and work and seconds):
            continue
        if measured != "not measured":
            raise ValueError(f"gpu.md has a measurement of {name}: draw it as one")
        yield Point(
            re.split(", 3 ×|, both", name)[0],
            float(work[1]) * UNITS[work[2]],
            float(size[1]) * UNITS[size[2]],
            float(seconds[1].replace(",", "")) / 1e6,
            "of L" in moved,
        )


# Drawing ----------------------------------------------------------------------------------------


def draw(out: Path) -> None:
    """Draw both machines into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    measured = cpu((DOCS / "profile.md").read_text("utf-8"))
    told = gpu((DOCS / "gpu.md").read_text("utf-8"))
    panel(left, measured, 1e9, "GFLOP/s", "One core of a Zen 4 CPU: measured")
    panel(right, told, 1e12, "TFLOP/s", "An H200, fp32: predicted, not measured")
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
    """Draw, and print the points."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=DOCS / "figures" / "roofline.png")
    args = parser.parse_args()
    draw(args.out)
    for page, read in (("profile.md", cpu), ("gpu.md", gpu)):
        roof, points = read((DOCS / page).read_text("utf-8"))
        for point in points:
            bound = min(roof.flops, point.intensity * (roof.cache or roof.memory))
            print(f"{page:10} {point.name:40} {point.intensity:7.2f} FLOP/byte "
                  f"{point.rate / 1e9:10,.1f} GFLOP/s {point.rate / bound:5.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
