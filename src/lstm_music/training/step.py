"""A training step: what is asked of one, and the step that computes at once.

`run` takes a step with a batch; `read` says what the steps since the last read came to. The trainer
knows no more. On a GPU a step may also be one launch whose losses stay on the device
(`training/graph_step.py`).
"""

import math
from typing import NamedTuple, Protocol

from lstm_music.arrays import Batch
from lstm_music.corpus.batches import on_device
from lstm_music.network.config import Gradients, State
from lstm_music.network.model import Model
from lstm_music.network.optim import Averages, Optimizer, clip_scale, global_norm
from lstm_music.training.health import bad_tensor
from lstm_music.training.ranks import ALONE, Alone


class Totals(NamedTuple):
    """What steps since the last read added up to.

    loss, norm: of the last step; loss_sum: nats of all targets; norm_sum: of all steps' norms.
    failed: steps since the first whose loss or norm was no finite number, it included; none of
    them changed the parameters. tensor: what it was in, "" where that isn't known.
    """

    loss: float = math.nan
    norm: float = math.nan
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    failed: int = 0
    tensor: str = ""


class Step(Protocol):
    """Training steps of a model with its optimiser, and averages of its weights if there are any.

    read_every: steps after which to read, 1 where reading waits for nothing. state: after the last
    step, None before `reset` or a step; number: steps taken, which choose the dropout masks.
    """

    read_every: int
    state: State | None
    number: int

    def reset(self, state: State) -> None:
        """Go on from a state (L, B, H)."""

    def run(self, batch: Batch, lr: float) -> None:
        """Take a step with a batch of the host. It may return before the step is done."""

    def read(self) -> Totals:
        """Wait for the steps taken; return what they added up to, and begin to add anew."""


class EagerStep:
    """Training steps on any backend, with any optimiser and any number of ranks, done at once.

    clip: the largest norm, 0 for any. seed: of the dropout masks. After a bad step the state is
    empty, so that the next may be a good one.
    """

    read_every = 1

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        clip: float,
        seed: int = 0,
        averages: Averages | None = None,
        ranks: Alone = ALONE,
    ) -> None:
        self.model, self.optimizer, self.clip, self.seed = model, optimizer, clip, seed
        self.averages, self.ranks = averages, ranks
        self.state: State | None = None
        self.number = 0
        self._totals = Totals()

    def reset(self, state: State) -> None:
        """As Step.reset."""
        self.state = state

    def run(self, batch: Batch, lr: float) -> None:
        """As Step.run: back through the window, clip, update, average."""
        model, ranks = self.model, self.ranks
        state = self.state or model.zero_state(batch.x.shape[1])
        there = on_device(model.ops, batch)
        loss, grads, self.state = model.loss_and_grads(
            there, state, self.seed, self.number, ranks.start
        )
        self.number += 1
        loss, grads = ranks.total(loss), ranks.finish(grads, model)
        norm, before = global_norm(model.ops, grads), self._totals
        failed, tensor = before.failed, before.tensor
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.state = model.zero_state(batch.x.shape[1])
            failed, tensor = failed + 1, tensor or bad_tensor(model.ops, model.parameters, grads)
        elif failed:
            failed += 1
        else:
            self._update(grads, lr, clip_scale(norm, self.clip))
        sums = before.loss_sum + loss * batch.targets, before.norm_sum + norm
        self._totals = Totals(loss, norm, *sums, failed, tensor)

    def _update(self, grads: Gradients, lr: float, scale: float) -> None:
        self.optimizer.step(self.model.parameters, grads, lr, scale)
        if self.averages is not None:
            self.averages.update(self.optimizer.t)

    def read(self) -> Totals:
        """As Step.read."""
        totals, self._totals = self._totals, Totals()
        return totals
