"""Gradient clipping, Adam, RMSProp, SGD, and averages of the weights."""

import math

from lstm_music.arrays import Array, RowGradient
from lstm_music.errors import UserError
from lstm_music.network.config import Gradients, Parameters
from lstm_music.network.learning_rate import average_share
from lstm_music.network.model import Model
from lstm_music.ops import NumpyOps
from lstm_music.ops.reference.maths import Adam
from lstm_music.ops.workspace import zeros_as

OPTIMIZERS = ("adam", "rmsprop", "sgd")

CLIP_EPS = 1e-6  # as torch.nn.utils.clip_grad_norm_


def global_norm(ops: NumpyOps, grads: Gradients) -> float:
    """Return the Euclidean norm of all gradients taken as one vector."""
    total = 0.0
    for g in grads.values():
        total += ops.sum_squares(g.values if isinstance(g, RowGradient) else g)
    return math.sqrt(total)


def clip_scale(norm: float, clip: float) -> float:
    """Return the factor that brings a global norm down to clip (0: no clipping).

    Source: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks".
    """
    return min(1.0, clip / (norm + CLIP_EPS)) if clip else 1.0


class Optimizer:
    """Adam, RMSProp or SGD over a dictionary of parameters.

    slots: {"m.NAME": …, "v.NAME": …}, the moments that the kind needs; t: steps taken.
    weight_decay: each step shrinks the weights by lr · weight_decay of themselves, apart from the
    gradient (Loshchilov & Hutter 2019); biases don't shrink.
    """

    def __init__(
        self, ops: NumpyOps, kind: str, parameters: Parameters, weight_decay: float = 0.0
    ) -> None:
        if kind not in OPTIMIZERS:
            raise UserError(f"unknown optimizer '{kind}': choose one of {', '.join(OPTIMIZERS)}")
        self.ops, self.kind, self.t = ops, kind, 0
        self._decays = {k: weight_decay if p.ndim > 1 else 0.0 for k, p in parameters.items()}
        kept = {"adam": "mv", "rmsprop": "v", "sgd": ""}[kind]
        self.slots: dict[str, Array] = {
            f"{slot}.{name}": zeros_as(ops.xp, p) for slot in kept for name, p in parameters.items()
        }

    def decay_of(self, name: str) -> float:
        """Return the weight decay of a parameter."""
        return self._decays[name]

    def step(self, parameters: Parameters, grads: Gradients, lr: float, scale: float) -> None:
        """Update the parameters in place with gradients scale·grads."""
        self.t += 1
        for name, p in parameters.items():
            g, decay = grads[name], self.decay_of(name)
            if self.kind == "adam":
                self._adam(name, p, g, lr, scale)
                continue
            if decay:
                p *= 1 - lr * decay
            if self.kind == "rmsprop":
                self._rmsprop(name, p, g, lr, scale)
            elif isinstance(g, RowGradient):
                p[g.rows] -= lr * scale * g.values
            else:
                p -= lr * scale * g

    def _adam(self, name: str, p: Array, g: Array | RowGradient, lr: float, scale: float) -> None:
        m, v = self.slots[f"m.{name}"], self.slots[f"v.{name}"]
        how = Adam(lr, self.t, scale, self.decay_of(name))
        if isinstance(g, RowGradient):
            self.ops.adam_step_rows(p, g, m, v, how)
        else:
            self.ops.adam_step(p, g, m, v, how)

    def _rmsprop(
        self, name: str, p: Array, g: Array | RowGradient, lr: float, scale: float
    ) -> None:
        """Tieleman & Hinton 2012, with decay 0.99 as in torch.optim.RMSprop."""
        v = self.slots[f"v.{name}"]
        v *= 0.99
        rows, values = g if isinstance(g, RowGradient) else (slice(None), g)
        step = scale * values
        v[rows] += 0.01 * step * step
        p[rows] -= lr * step / (self.ops.xp.sqrt(v[rows]) + 1e-8)


class Averages:
    """An exponential moving average of a model's parameters (Polyak & Juditsky 1992).

    decay: the share of itself that the average keeps at each step, less at first. means: by
    parameter's name; model: the same network with the averages for parameters.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self._model, self.rate = model, 1 - decay
        self.model = model.with_parameters({k: p.copy() for k, p in model.parameters.items()})
        self.means: Parameters = self.model.parameters

    def update(self, t: int) -> None:
        """Move the averages towards the parameters as they are after t steps."""
        share = average_share(self.rate, t)
        for name, p in self._model.parameters.items():
            self._model.ops.average_step(p, self.means[name], share)
