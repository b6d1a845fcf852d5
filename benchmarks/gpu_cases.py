"""What benchmarks/gpu.py measures and what is to be reached on an H200: sizes and figures alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lstm_music.ops.reference.copying import BUCKETS, HIT, NOTHING

CLIP, LR = 5.0, 1e-3
STEPS = 50  # of training, a round
COPIED, CACHED = 1 << 30, 20_000_000  # bytes of a copy: past the L2 cache, and inside it
SQUARE = 8192  # rows of a matrix whose product gives the matrix rate
SAMPLING_WORDS = 35_509

WITHOUT = "bf16 without our matrix kernels"
VARIANTS = ("fp32", "tf32", WITHOUT, "bf16")  # the newest kernels come last
BARRIER = "fp32 by a cluster's barrier"  # in place of mbarriers: of the recurrent part alone
RIVAL_PRECISIONS = ("fp32", "tf32", "bf16")
LAYERS = 2
# Candidates of every run, a third of them right, and one that is none.
CANDIDATES = (*range(BUCKETS), *range(HIT, HIT + BUCKETS // 2), NOTHING)


def precision_of(variant: str) -> str:
    """Return the precision that a rival of a variant of ours has."""
    return variant.split(maxsplit=1)[0]


class Case(NamedTuple):
    """A model's sizes and its batches'; the tokens of an epoch, and the seconds of all epochs.

    copy: candidates of a copy gate; E: of the embedding, 0 for H; average: the decay of averaged
    weights, 0 without.
    """

    name: str
    V: int
    B: int
    T: int
    H: int = 128
    L: int = 2
    head: str = "softmax"
    tokens: float = 0
    epochs: int = 0
    seconds: float = 0
    copy: int = 0
    E: int = 0
    dropout: float = 0
    average: float = 0

    @property
    def width(self) -> int:
        """The size of what the first layer reads."""
        return self.E or self.H

    @property
    def N(self) -> int:  # noqa: N802
        """The tokens of a step."""
        return self.B * self.T

    def all_epochs(self, step: float) -> float:
        """Return the seconds of all epochs whose steps take so many seconds."""
        return step * self.tokens * self.epochs / self.N


class Product(NamedTuple):
    """A linear map's product: of "y" = x·W, "dx" = dy·Wᵀ or "dW" = xᵀ·dy, by what it gives."""

    gives: str
    rows: int
    inputs: int
    outputs: int


def operands(products: Iterable[Product], real: Callable[..., Any]) -> list[tuple[Any, Any, Any]]:
    """Return the factors of products and room for each, the same arrays for the same sizes.

    real: makes an array of a shape.
    """
    made: dict[tuple[int, ...], dict[str, tuple[Any, Any, Any]]] = {}

    def of(gives: str, *sizes: int) -> tuple[Any, Any, Any]:
        if sizes not in made:
            rows, inputs, outputs = sizes
            shapes = (rows, inputs), (inputs, outputs), (rows, outputs)
            (x, W, d), (dx, dW, y) = ([real(*shape) for shape in shapes] for _ in range(2))
            made[sizes] = {"y": (x, W, y), "dx": (d, W.T, dx), "dW": (x.T, d, dW)}
        return made[sizes][gives]

    return [of(*product) for product in products]


GOAL_CASES = (
    Case("Bach", 35_509, 50, 50, tokens=1.66e6, epochs=50, seconds=30),
    Case("Muse-All", 39_289, 50, 50, tokens=245_202, epochs=800, seconds=75),
    Case("Classical", 132_437, 25, 25, tokens=11.4e6, epochs=15, seconds=180),
)
OTHER_CASES = (
    Case("bundled Bach", 950, 50, 50),
    Case("largest vocabulary", 175_467, 50, 50),
    Case("independent notes", 88, 50, 50, head="sigmoid"),
    Case("NADE of notes", 88, 50, 50, head="nade"),
)


class Sizes(NamedTuple):
    """All sizes of a run.

    losses: rows and words of the loss layer; batch, length, narrow, wide: of the recurrent part,
    the last two its hidden units; words, batches, tokens: of sampling; copied, cached: bytes of a
    copy past the L2 cache and inside it; square: rows of a matrix; steps: of a round of training;
    rounds: of which the median is taken; calls: in a graph, at most; trained: steps of agreement.
    """

    goals: tuple[Case, ...] = GOAL_CASES
    others: tuple[Case, ...] = OTHER_CASES
    losses: tuple[tuple[int, int], ...] = ((2500, 35_509), (625, 132_437))
    batch: int = 50
    length: int = 50
    narrow: int = 128
    wide: tuple[int, ...] = (256, 512, 1024)
    words: int = SAMPLING_WORDS
    batches: tuple[int, ...] = (1, 64)
    tokens: int = 1024
    copied: int = COPIED
    cached: int = CACHED
    square: int = SQUARE
    steps: int = STEPS
    rounds: int = 7
    calls: int = 50
    trained: int = 50


def sizes_of(H: int = 0) -> Sizes:
    """Return the sizes that count, or, with H hidden units, those that do everything in no time.

    Those of H = 128 have the batches of the sizes that count, so that layers run in the same way.
    """
    if not H:
        return Sizes()
    few = {"V": 301, "T": 3, "H": H} | ({} if H == 128 else {"B": 4})
    return Sizes(
        goals=(GOAL_CASES[0]._replace(**few), GOAL_CASES[2]._replace(**few)),
        others=(OTHER_CASES[2]._replace(B=4, T=3, H=H),),
        losses=((50, 301), (20, 430)),
        batch=few.get("B", 50),
        length=3,
        narrow=H,
        wide=(),
        words=301,
        tokens=4,
        copied=1 << 20,
        cached=1 << 18,
        square=64,
        steps=2,
        rounds=1,
        calls=2,
        trained=3,
    )


# To reach.
TIMES_PYTORCH = 2.0  # a step
TIMES_CUDNN = 3.0  # the recurrent part at H = 128
LEAST_OF_CUDNN = 1 / 1.1  # at larger H
STEP_AND_LAYER = 1.2e-6  # seconds, the mean of both ways
LOSS_SHARE = 0.70  # of the matrix rate
LOSS_BYTES = 256e6  # beside weights and gradients
REST_SHARE = 0.10  # of a step
TIMES_SAMPLING = 10.0
