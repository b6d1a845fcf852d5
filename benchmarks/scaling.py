"""A cost model of a training step over ranks: python benchmarks/scaling.py

Prints the table of predictions of docs/scaling.md. HERE is fitted to the steps measured there;
rates of GPUs and wires are assumed, as that page says.
"""

from math import log2
from typing import NamedTuple

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


HERE = Machine("2 cores of a Zen 4 CPU", 79.4e9, 0.70e-9, 10e-6, 3.7e9, overlaps=False)
NODE = HERE._replace(rate=2 * HERE.rate, update=HERE.update / 2)
MACHINES = (
    (Machine("8 GPUs, NVLink", 120e12, 28 / 3.3e12, 5e-6, 200e9, True, 1.2e-3), 8),
    (Machine("64 GPUs, 400 Gbit/s", 120e12, 28 / 3.3e12, 5e-6, 40e9, True, 1.2e-3), 64),
    (NODE._replace(name="64 CPU nodes, 100 Gbit/s", latency=5e-6, wire=11e9), 64),
    (NODE._replace(name="64 CPU nodes, 10 Gbit/s", latency=30e-6, wire=1.1e9), 64),
)


def row(shape: Shape, machine: Machine, N: int) -> str:
    """Return a row of the page's table."""
    said = cost(shape, machine, N)
    times = (said.gradients + said.update, said.exchange, said.exposed)
    cells = [
        machine.name, f"{shape.V:,}", str(shape.H), *map(milliseconds, times),
        f"{said.efficiency:.0%}".replace("%", " %"), f"{rows_for(shape, machine, N, 0.9):,}",
        milliseconds(by_vocabulary(shape, machine, N)),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def milliseconds(seconds: float) -> str:
    """Return a time as the page has it."""
    return f"{1e3 * seconds:,.{0 if seconds >= 0.1 else 1}f} ms"


def table() -> list[str]:
    """Return the table's rows."""
    shapes = [Shape(V, H) for V in (35_509, 175_467) for H in (128, 1024)]
    return [row(shape, machine, N) for machine, N in MACHINES for shape in shapes]


if __name__ == "__main__":
    print("\n".join(table()))
