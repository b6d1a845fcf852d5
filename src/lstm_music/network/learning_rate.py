"""The learning rate: what it is by default, how it falls when training slows; averages' own."""

import math
from dataclasses import asdict, dataclass
from typing import Any

DEFAULT_LR = {"adam": 5e-3, "rmsprop": 2e-3, "sgd": 1.0}
MANY_WORDS = 10_000  # from which Adam's default rate would throw a softmax about
RATE_OF_MANY = 1e-3  # then
RECENT = 9  # an average forgets all but about the last of so many parts of a short run
FROZEN, THAWED = 1 / 30, 1 / 10  # shares of the first rate: one that teaches nothing, one that does


def default_lr(optimizer: str, words: int) -> float:
    """Return the learning rate that suits an optimizer and a vocabulary of so many words."""
    if optimizer == "adam" and words >= MANY_WORDS:
        return RATE_OF_MANY
    return DEFAULT_LR[optimizer]


def average_share(rate: float, t: int) -> float:
    """Return by what share of its way to the weights an average of them goes after t steps.

    rate: after many. At first it is more, so that the average forgets where the network began, and
    a power of two that changes seldom: a step that is captured in a graph has it as a constant.
    """
    return max(rate, 0.5 ** ((t // RECENT + 1).bit_length() - 1))


@dataclass
class Annealing:
    """Lower the learning rate when the fall of the training loss slows (the paper, section 4).

    Fed with one training loss a period, from a validation to the next: when `patience` in a row
    fell by less than `threshold` (a share of the best loss so far), the rate is multiplied by
    `factor`.
    """

    lr: float
    factor: float = 0.5
    patience: int = 2
    threshold: float = 0.01
    best: float = math.inf
    stalled: int = 0

    def update(self, loss: float) -> bool:
        """Take a period's training loss; return whether the rate was lowered."""
        fell_enough = loss < self.best * (1 - self.threshold) or math.isinf(self.best)
        self.best = min(self.best, loss)
        self.stalled = 0 if fell_enough else self.stalled + 1
        if self.stalled < self.patience or self.factor == 1:
            return False
        self.lr *= self.factor
        self.stalled = 0
        return True

    def thaw(self, first: float) -> bool:
        """Give a rate that has fallen to next to nothing a tenth of the first one, for good.

        For a run that gets more time than it was annealed for. Returns whether there was need.
        """
        if self.lr >= first * FROZEN:
            return False
        self.lr, self.factor, self.stalled = first * THAWED, 1.0, 0
        return True

    def to_json(self) -> dict[str, Any]:
        """Return the state as a dictionary that JSON can hold."""
        fields = asdict(self)
        fields["best"] = None if math.isinf(self.best) else self.best
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Annealing":
        """Return the state that `to_json` wrote."""
        best = fields["best"]
        return cls(**{**fields, "best": math.inf if best is None else best})
