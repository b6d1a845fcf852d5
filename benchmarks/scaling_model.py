"""A cost model of a training step over ranks, fitted to what benchmarks/scaling.py measured."""

from math import log2
from typing import Any, NamedTuple

BACKWARD = 4 / 6  # of the layers' FLOPs: they come after the head's gradient, and can hide it
# Different words of 2,500 tokens, and the power by which they grow with more, in 417 files of Bach
# (V=38,338, tracks flattened): 559 of 1,250, 989 of 2,500, 4,283 of 20,000.
DIFFERENT, HEAPS = 989, 0.7
GROUP = 8  # ranks that share a softmax


class Shape(NamedTuple):
    """A network: V words, H units a layer and in the embedding, two layers; T·B rows a rank."""

    V: int
    H: int
    rows: int = 2500

    @property
    def dense(self) -> int:
        """Parameters whose gradient is dense: all but the embedding."""
        return self.H * self.V + self.V + self.layers

    @property
    def layers(self) -> int:
        """Parameters of the layers."""
        return 2 * (2 * self.H * 4 * self.H + 4 * self.H)

    @property
    def flops(self) -> float:
        """Of a rank's gradients: each dense parameter 2 forward and 4 backward a row."""
        return 6.0 * self.dense * self.rows

    @property
    def row_bytes(self) -> int:
        """Of the embedding's rows that a rank sends."""
        different = min(self.V, DIFFERENT * (self.rows / 2500) ** HEAPS)
        return round(different * (4 * self.H + 4))


class Machine(NamedTuple):
    """A rank's FLOP/s; seconds that Adam takes for a parameter; the wire's seconds a message and
    bytes a second; whether it carries while the rank computes; fixed seconds of a step.
    """

    name: str
    rate: float
    update: float
    latency: float
    wire: float
    overlaps: bool
    fixed: float = 0.0


class Cost(NamedTuple):
    """Seconds of a step: gradients, update, exchange, and how much of that nothing hides."""

    gradients: float
    update: float
    exchange: float
    exposed: float

    @property
    def efficiency(self) -> float:
        """The share of its time that a rank computes."""
        return (self.gradients + self.update) / (self.gradients + self.update + self.exposed)


def cost(shape: Shape, machine: Machine, N: int) -> Cost:
    """Return what a step of N ranks costs: two all-reduces and five all-gathers, log2 N deep."""
    gradients = shape.flops / machine.rate + machine.fixed
    update = (shape.dense + shape.V * shape.H) * machine.update
    messages = (2 * 2 + 5) * log2(N)  # head, layers; rows, values, their count, loss, time
    reduced = 2 * (N - 1) / N * 4 * shape.dense / machine.wire
    exchange = messages * machine.latency + reduced + embedding_bytes(shape, N) / machine.wire
    head = reduced * (shape.dense - shape.layers) / shape.dense
    behind = shape.flops / machine.rate * shape.layers / shape.dense * BACKWARD
    hidden = min(head, behind) if machine.overlaps else 0.0
    return Cost(gradients, update, exchange, exchange - hidden)


def embedding_bytes(shape: Shape, N: int) -> float:
    """Return what the embedding's gradient moves: its rows gathered, or all-reduced as a whole."""
    return min((N - 1) * shape.row_bytes, 2 * (N - 1) / N * 4 * shape.V * shape.H)


def rows_for(shape: Shape, machine: Machine, N: int, efficiency: float) -> int:
    """Return how many rows a rank needs for that efficiency, to the next 100."""
    rows = 100
    while cost(shape._replace(rows=rows), machine, N).efficiency < efficiency and rows < 10**7:
        rows = -(-rows * 105 // 10_000) * 100
    return rows


def by_vocabulary(shape: Shape, machine: Machine, N: int) -> float:
    """Return the seconds of exchange where the ranks of a group each have a part of the words.

    Each then computes its words' logits for the rows of the whole group: outputs h go to all of
    it, the gradients of h come back as sums; a part of the head is reduced over the groups alone.
    """
    others, groups = min(GROUP, N) - 1, max(N // GROUP, 1)
    h = 2 * others * shape.rows * 4 * shape.H
    head = 2 * (groups - 1) / groups * 4 * (shape.dense - shape.layers) / (others + 1)
    layers = 2 * (N - 1) / N * 4 * shape.layers
    moved = h + head + layers + embedding_bytes(shape, N)
    return moved / machine.wire + 15 * log2(N) * machine.latency


def fitted(found: dict[str, Any]) -> Machine:
    """Return this machine, by least squares over the steps of one rank alone, and its wire."""
    points = []
    for V, rows in found["steps"].items():
        for name, B in (("alone", 50), ("alone, its share", 50 // found["ranks"])):
            points.append((Shape(int(V), 128, 50 * B).flops, rows[name]["gradients"]))
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points)
    slope /= sum((x - mean_x) ** 2 for x, _ in points)
    V = max(found["steps"], key=int)
    shape = Shape(int(V), 128)
    update = found["steps"][V]["alone"]["update"] / (shape.dense + shape.V * shape.H)
    N, reduce = found["ranks"], {int(k): s for k, s in found["reduce"].items()}
    size = max(k for k in reduce if k <= 4 * shape.dense)  # about what a step reduces
    wire = 2 * (N - 1) / N * size / reduce[size]
    latency = reduce[min(reduce)] / (2 * log2(N))
    fixed = max(0.0, mean_y - slope * mean_x)
    return Machine("measured here", 1 / slope, update, latency, wire, False, fixed)


def predict(found: dict[str, Any]) -> None:
    """Print the fit, how well it tells what was measured, and what it says of others."""
    here, N = fitted(found), found["ranks"]
    print(
        f"fit: {here.rate / 1e9:.0f} GFLOP/s and {1e3 * here.fixed:.1f} ms a step, update "
        f"{1e9 * here.update:.2f} ns a parameter, {1e6 * here.latency:.1f} µs a message, "
        f"{here.wire / 1e9:.2f} GB/s"
    )
    for V, rows in found["steps"].items():
        for name, share in (("strong", N), ("weak", 1)):
            said = cost(Shape(int(V), 128, 2500 // share), here, N)
            step = said.gradients + said.update + said.exposed
            measured = rows[name]["step"]
            print(
                f"V={V} {name}: predicted {1e3 * step:.0f} ms (exchange {1e3 * said.exchange:.1f}),"
                f" measured {1e3 * measured:.0f} (waiting {1e3 * rows[name]['waiting']:.1f})"
            )
    node = here._replace(rate=2 * here.rate, update=here.update / 2)
    print("all else is a prediction; rates of GPUs and wires are assumed, see docs/scaling.md")
    print(
        f"{'machine':34} {'N':>3} {'V':>7} {'H':>5} {'compute':>9} {'exchange':>9} {'exposed':>9} "
        f"{'efficient':>9} {'rows for 90 %':>13} {'by vocabulary':>13}"
    )
    for machine, ranks in (
        (Machine("8 GPUs, NVLink", 120e12, 28 / 3.3e12, 5e-6, 200e9, True, 1.2e-3), 8),
        (Machine("64 GPUs, 400 Gbit/s", 120e12, 28 / 3.3e12, 5e-6, 40e9, True, 1.2e-3), 64),
        (node._replace(name="64 nodes, 100 Gbit/s", latency=5e-6, wire=11e9), 64),
        (node._replace(name="64 nodes, 10 Gbit/s", latency=30e-6, wire=1.1e9), 64),
    ):
        for V in (35_509, 175_467):
            for H in (128, 1024):
                shape = Shape(V, H)
                said = cost(shape, machine, ranks)
                other = by_vocabulary(shape, machine, ranks)
                times = (said.gradients + said.update, said.exchange, said.exposed)
                print(
                    f"{machine.name:34} {ranks:>3} {V:>7} {H:>5} "
                    + " ".join(f"{1e3 * t:>6.1f} ms" for t in times)
                    + f" {said.efficiency:>9.0%} {rows_for(shape, machine, ranks, 0.9):>13,}"
                    f" {1e3 * other:>10.1f} ms"
                )
