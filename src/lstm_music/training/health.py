"""Numbers that go wrong: a loss or a gradient that is no number, and losses that jump."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lstm_music.arrays import Array, RowGradient
from lstm_music.errors import UserError
from lstm_music.network.config import Gradients, Parameters
from lstm_music.ops import NumpyOps

MOST_BAD_STEPS = 10  # in a row that --skip-bad-steps skips: then it isn't chance
WARM_STEPS = 50  # losses that are seen before one can be a jump
SHARE = 0.02  # of each new loss in the running mean and variance
JUMP, DEVIATIONS = 1.5, 6.0  # a jump is above so many means, and so many deviations off


def bad_tensor(ops: NumpyOps, parameters: Parameters, grads: Gradients) -> str:
    """Name the first tensor that isn't finite: a parameter, or a gradient on the way back.

    Where each element is finite but their squares' sum is not, it is the largest gradient.
    """
    for name, p in parameters.items():
        if not all_finite(ops, p):
            return name
    arrays = {k: g.values if isinstance(g, RowGradient) else g for k, g in grads.items()}
    for name, g in arrays.items():
        if not all_finite(ops, g):
            return f"gradient of {name}"
    return f"largest: gradient of {largest(ops, arrays)}"


def all_finite(ops: NumpyOps, a: Array) -> bool:
    """Return whether each element is a finite number."""
    return bool(ops.xp.isfinite(a).all())


def largest(ops: NumpyOps, arrays: Mapping[str, Array]) -> str:
    """Name the array with the largest element."""
    return max(arrays, key=lambda name: float(abs(arrays[name]).max()) if arrays[name].size else 0)


def named(loss: float) -> str:
    """Return which of loss and gradient is no finite number, from the loss."""
    return "gradient" if math.isfinite(loss) else "loss"


def not_finite(
    loss: float, step: int, tensor: str, kept: Sequence[str], lr: float, skipped: int
) -> UserError:
    """Return the error for a step whose loss or gradient is no finite number.

    tensor: which isn't finite, if that is known; kept: the last checkpoint, if there is one; lr:
    the learning rate; skipped: bad steps just before.
    """
    where = f" ({tensor})" if tensor else ""
    before = f", after {skipped} skipped before it" if skipped else ""
    there = "".join(f"; {name} is kept" for name in kept)
    skip = "" if skipped else ", or go on with --resume --skip-bad-steps"
    return UserError(
        f"the {named(loss)} is no finite number at step {step}{where}{before}{there}: train a new "
        f"run with an --lr lower than {lr:g}, or a lower --clip{skip}"
    )


def skipped_line(loss: float, step: int, tensor: str, skipped: int) -> str:
    """Return the warning of a bad step that was left out, one of so many."""
    return (
        f"skipped step {step:,}, whose {named(loss)} is no finite number ({tensor}): "
        f"{skipped:,} skipped so far"
    )


def jump_line(mean: float, loss: float, step: int) -> str:
    """Return the warning of a loss that jumped from a mean."""
    return (
        f"the loss jumped from about {mean:.3f} to {loss:.3f} at step {step:,}: if it stays there, "
        "train with a lower --lr or --clip"
    )


@dataclass
class Jumps:
    """Watches the losses of a run for jumps, and tells of one between two validations at most."""

    mean: float = 0.0
    variance: float = 0.0
    seen: int = 0
    told: bool = False

    def see(self, loss: float) -> bool:
        """Take the next loss in nats; return whether it is a jump to be told of."""
        bound = max(self.mean * JUMP, self.mean + DEVIATIONS * math.sqrt(self.variance))
        jump = self.seen >= WARM_STEPS and loss > bound
        taken = bound if jump else loss  # a jump moves the mean, but by a little
        self.seen += 1
        share = max(SHARE, 1 / self.seen)
        off = taken - self.mean
        self.mean += share * off
        self.variance = (1 - share) * (self.variance + share * off * off)
        told, self.told = self.told, self.told or jump
        return jump and not told
