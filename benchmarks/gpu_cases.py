"""What benchmarks/gpu.py measures and what is to be reached on an H200: sizes and figures alone."""

from __future__ import annotations

from typing import NamedTuple

CLIP, LR = 5.0, 1e-3
ROUNDS = 7  # of which the median is taken
COPIED, CACHED = 1 << 30, 20_000_000  # bytes of a copy: past the L2 cache, and inside it
SQUARE = 8192  # rows of a matrix whose product gives the matrix rate
STEPS = 50  # of training, a round

WITHOUT = "bf16 without our matrix kernels"
VARIANTS = ("fp32", "tf32", WITHOUT, "bf16")  # the newest kernels come last
RIVAL_PRECISIONS = ("fp32", "tf32", "bf16")


def precision_of(variant: str) -> str:
    """Return the precision that a rival of a variant of ours has."""
    return variant.split(maxsplit=1)[0]


class Case(NamedTuple):
    """A model's sizes and its batches'; the tokens of an epoch, and the seconds of all epochs."""

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

    @property
    def N(self) -> int:  # noqa: N802
        """The tokens of a step."""
        return self.B * self.T

    def all_epochs(self, step: float) -> float:
        """Return the seconds of all epochs whose steps take so many seconds."""
        return step * self.tokens * self.epochs / self.N


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
LOSS_SIZES = ((2500, 35_509), (625, 132_437))  # rows, words: those of Bach and of Classical
LAYERS, BATCH, LENGTH = 2, 50, 50  # of the recurrent part alone
NARROW, WIDE = 128, (256, 512, 1024)  # hidden units
SAMPLING_WORDS, SAMPLING_BATCHES, SAMPLING_TOKENS = 35_509, (1, 64), 1024

# To reach.
TIMES_PYTORCH = 2.0  # a step
TIMES_CUDNN = 3.0  # the recurrent part at H = NARROW
LEAST_OF_CUDNN = 1 / 1.1  # at H in WIDE
STEP_AND_LAYER = 1.2e-6  # seconds, the mean of both ways
LOSS_SHARE = 0.70  # of the matrix rate
LOSS_BYTES = 256e6  # beside weights and gradients
REST_SHARE = 0.10  # of a step
TIMES_SAMPLING = 10.0
