"""Training: the loop, validation, annealing, metrics.csv and checkpoints."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lstm_music.batches import Batches, on_device
from lstm_music.checkpoint import (
    CHECKPOINTS,
    Checkpoint,
    checkpoints_of,
    linked,
    point,
    prune,
    write_checkpoint,
)
from lstm_music.checkpoint_meta import check_training
from lstm_music.errors import UserError
from lstm_music.evaluate import mean_nats, validation_size
from lstm_music.graph import GraphStep, graph_step
from lstm_music.health import MOST_BAD_STEPS, Jumps, bad_tensor, named, not_finite
from lstm_music.model import Batch, Gradients, Model, State
from lstm_music.ops import NumpyOps
from lstm_music.ops.numpy_ops import Array
from lstm_music.optim import Annealing, Averages, Optimizer, clip_scale, global_norm
from lstm_music.prepared import Corpus
from lstm_music.progress import Progress, Report, Settings, limit_reached, outlook
from lstm_music.ranks import ALONE, Alone
from lstm_music.resuming import described, read_back, state_of, take_up, training_arrays
from lstm_music.run_folder import (
    HEADER,
    append,
    cut_metrics,
    metrics_row,
    no_run,
    reason_of,
    sync,
    unsaved,
)
from lstm_music.run_home import RunHome
from lstm_music.signals import Interrupted, StopWish

T = TypeVar("T")
LEAST_GAIN = 5e-4  # share of the validation loss whose fall counts as none to --early-stop
READ_STEPS = 32  # on a GPU, between reads of the losses: a read waits for the device
VALIDATE_STEPS = 1000  # at least this often, and at the end of each epoch


@dataclass
class Trainer:
    """One run: a model, a corpus, and the folder that records them.

    show is called with a Report after each step; warn with a line of text. ranks: who shares the
    work; each has a trainer, and they decide alike, by what rank 0's clock says. home: keeps the
    run's folder, for whoever writes; without it, the folder is taken to stay where it is.
    """

    corpus: Corpus
    model: Model
    settings: Settings
    run: Path
    show: Callable[[Report], None] = lambda report: None
    warn: Callable[[str], None] = lambda line: None
    started: float = field(default_factory=time.monotonic)
    ranks: Alone = ALONE
    home: RunHome | None = None

    def __post_init__(self) -> None:
        s = self.settings
        self.ops: NumpyOps = self.model.ops
        self.optimizer = Optimizer(self.ops, s.optimizer, self.model.parameters, s.weight_decay)
        self.averages = Averages(self.model, s.average) if s.average else None
        self.annealing = Annealing(s.lr, s.anneal_factor, s.anneal_patience)
        self.progress = Progress()
        self.validated = validation_size(self.corpus, VALIDATE_STEPS * s.batch * s.seq)
        self.state: State | None = None
        self.valid = math.inf
        means = self.averages.means if self.averages else None
        rate = self.averages.rate if self.averages else 0.0
        # A graph stops at a bad step: to skip it, the host must know of it before the next one.
        self._graph = (
            None
            if s.skip_bad_steps or not self.ranks.alone
            else graph_step(self.model, self.optimizer, s.clip, s.seed, means, rate)
        )
        self._unread = 0  # steps of the graph whose losses are still on the device
        self._loss = math.nan  # the last one read
        self._jumps = Jumps()
        self._wish = StopWish()
        self._now, self._asked = time.monotonic(), 0  # rank 0's time, the signal of any rank
        self._saved = self._now
        self._last: tuple[int, Path] | None = None  # the last checkpoint written: step, path
        self._begun = time.monotonic(), 0  # when this process began to train, and at which step

    def train(self) -> str:
        """Train until a limit is reached; return the option that set it. The run is then saved.

        Raises Interrupted after a signal of `STOPPING`, also with the run saved; UserError where
        the loss is no number or the last checkpoint can't be written.
        """
        self._begun = time.monotonic(), self.progress.step
        self.started = self.ranks.from_first(lambda: self.started)
        with self._wish:
            self._agree()
            self._saved = self._now
            reason = self._loop()
            path = self.save(final=True)
            if path is not None and self.progress.period_steps:
                self._judge_last(path)
            self._agree()
            if self._asked:
                raise Interrupted(self._asked)
        return reason

    def _agree(self) -> None:
        """Learn from the others what time it is and whether to stop: all are to do the same."""
        self._now, self._asked = self.ranks.agree(time.monotonic(), self._wish.number)

    def _loop(self) -> str:
        at, s = self.progress, self.settings
        while True:
            every = self.corpus.training_batches(s.batch, s.seq, s.seed, at.epoch)
            batches = self.ranks.part(every)
            if self.state is None:
                self.state = self.model.zero_state(len(batches.streams))
            if self.state.h.shape[1] != len(batches.streams):
                raise UserError(f"the state in '{self.run}' is of another batch: train a new run")
            while at.window < len(batches):
                if reason := limit_reached(at, s, self._now - self.started):
                    return reason
                self._advance(batches)
            at.epoch, at.window, self.state = at.epoch + 1, 0, None

    def _advance(self, batches: Batches) -> None:
        """Take the step of the next window, and what is due after it."""
        at = self.progress
        loss = self._step(batches[at.window])
        at.window += 1
        ended = at.window == len(batches) or at.window % VALIDATE_STEPS == 0
        if ended:
            self._end_period()
        self._show(loss, len(batches), ended)
        self._agree()
        self._save_if_due()

    def _step(self, batch: Batch) -> float:
        """Take one optimiser step; return the loss."""
        if self._graph is not None:
            return self._graph_step(self._graph, batch)
        at, begun = self.progress, time.monotonic()
        assert self.state is not None
        loss, grads, self.state = self.model.loss_and_grads(
            on_device(self.ops, batch), self.state, self.settings.seed, at.step, self.ranks.start
        )
        loss, grads = self.ranks.total(loss), self.ranks.finish(grads, self.model)
        norm = global_norm(self.ops, grads)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._skip(loss, grads, batch, begun)
            return loss
        at.skipped_in_row = 0
        scale = clip_scale(norm, self.settings.clip)
        self.optimizer.step(self.model.parameters, grads, self.annealing.lr, scale)
        if self.averages is not None:
            self.averages.update()
        at.period_loss += loss * batch.targets
        at.period_norm += norm
        self._count(batch, time.monotonic() - begun)
        self._watch(loss)
        return loss

    def _watch(self, loss: float) -> None:
        """Warn of a loss that jumps, but for an epoch's first, before which nothing is known."""
        before = self._jumps.mean
        if self.progress.window and self._jumps.see(loss):
            self.warn(
                f"the loss jumped from about {before:.3f} to {loss:.3f} at step "
                f"{self.progress.step:,}: if it stays there, train with a lower --lr or --clip"
            )

    def _count(self, batch: Batch, took: float) -> None:
        """Count a step that took so many seconds."""
        at = self.progress
        at.step += 1
        at.tokens += batch.targets
        at.seconds += took
        at.period_steps += 1
        at.period_tokens += batch.targets
        at.period_seconds += took

    def _skip(self, loss: float, grads: Gradients, batch: Batch, begun: float) -> None:
        """Leave out a step whose loss or gradient is no number. Raises UserError by default."""
        at = self.progress
        tensor = bad_tensor(self.ops, self.model.parameters, grads)
        if not self.settings.skip_bad_steps or at.skipped_in_row >= MOST_BAD_STEPS:
            raise self._not_finite(loss, at.step + 1, tensor)
        at.skipped += 1
        at.skipped_in_row += 1
        self._count(batch, time.monotonic() - begun)
        at.period_steps -= 1  # its loss is in no mean
        at.period_tokens -= batch.targets
        assert self.state is not None
        self.state = self.model.zero_state(self.state.h.shape[1])
        if at.skipped & (at.skipped - 1) == 0:  # a power of two: many make few lines
            self.warn(
                f"skipped step {at.step:,}, whose {named(loss)} is no finite number ({tensor}): "
                f"{at.skipped:,} skipped so far"
            )

    def _not_finite(self, loss: float, step: int, tensor: str) -> UserError:
        kept, at = [path.name for path in checkpoints_of(self.run)[:1]], self.progress
        return not_finite(loss, step, tensor, kept, self.annealing.lr, at.skipped_in_row)

    def _graph_step(self, graph: GraphStep, batch: Batch) -> float:
        """Launch one optimiser step on the GPU; return the last loss that was read from there."""
        begun = time.monotonic()
        if self.state is not graph.state:
            graph.reset(self.state)
        graph.run(batch, self.annealing.lr, self.progress.step)
        self.state = graph.state
        self._unread += 1
        self._count(batch, time.monotonic() - begun)
        if self._unread >= READ_STEPS or math.isnan(self._loss):
            self._read_graph()
        return self._loss

    def _read_graph(self) -> None:
        """Wait for the GPU; add the losses and norms of its steps to the period."""
        if self._graph is None or not self._unread:
            return
        at, begun = self.progress, time.monotonic()
        totals, self._unread = self._graph.read(), 0
        took = time.monotonic() - begun
        at.seconds += took
        at.period_seconds += took
        self._loss = totals.loss
        if totals.failed:
            first = at.step - totals.failed + 1
            raise self._not_finite(totals.loss_sum, first, "")
        self._watch(totals.loss)
        at.period_loss += totals.loss_sum
        at.period_norm += totals.norm_sum

    def _end_period(self) -> None:
        """Validate, anneal, record, and keep the model if it is the best yet.

        A best one that the disk refused is none: the next that is better than the one kept is.
        """
        self._read_graph()
        at = self.progress
        train = at.period_loss / max(at.period_tokens, 1)
        norm = at.period_norm / max(at.period_steps, 1)
        speed = at.period_tokens / max(at.period_seconds, 1e-9)
        lr = self.annealing.lr
        self.valid = self.validate()
        if at.period_steps:  # none where all were skipped
            self._record("train", train, lr, norm, speed)
        self._record("valid", self.valid, lr, None, None)
        if at.period_steps:
            self.annealing.update(train)
        at.period_loss = at.period_norm = at.period_seconds = 0.0
        at.period_steps = at.period_tokens = 0
        self._jumps.told = False
        if self.valid < at.to_beat:
            at.to_beat, at.since_best = self.valid * (1 - LEAST_GAIN), 0
        else:
            at.since_best += 1
        self._forget_lost()
        if self.valid < at.best:
            before = at.best, at.best_step
            at.best, at.best_step = self.valid, at.step
            if self.save(best=True) is None:
                at.best, at.best_step = before

    def _judge_last(self, path: Path) -> None:
        """Validate a run that was stopped inside a period, without touching what resuming reads."""
        self.valid = self.validate()
        self._record("valid", self.valid, self.annealing.lr, None, None)
        if self.valid < self.progress.best and self.ranks.leads:
            try:
                self._writing(lambda: point(self.run / CHECKPOINTS, "best", path.name))
            except OSError as error:
                self.warn(f"can't mark the best checkpoint ({reason_of(error)})")

    def validate(self) -> float:
        """Return the mean nats per token (or frame) of (a part of) the validation split.

        Where weights are averaged, it is the averages that are judged.
        """
        model, s = self.averages.model if self.averages else self.model, self.settings
        size = s.batch, s.seq
        return mean_nats(model, self.corpus, "valid", *size, most=self.validated, ranks=self.ranks)

    def _record(
        self, split: str, loss: float, lr: float, norm: float | None, speed: float | None
    ) -> None:
        """Append a row to metrics.csv."""
        line = metrics_row(self.progress, split, loss, lr, norm, speed)
        try:
            if self.ranks.leads:
                self._writing(lambda: append(self.run / "metrics.csv", line, f"{HEADER}\n"))
            self.progress.rows += 1
        except OSError as error:
            self.warn(f"can't write metrics.csv ({reason_of(error)}): training goes on without")

    def _show(self, loss: float, windows: int, validated: bool) -> None:
        at = self.progress
        speed = at.tokens / max(at.seconds, 1e-9)
        pace = (time.monotonic() - self._begun[0]) / max(at.step - self._begun[1], 1)
        elapsed = time.monotonic() - self.started
        left, share = outlook(at, self.settings, windows, pace, elapsed)
        self.show(Report(at, loss, self.valid, self.annealing.lr, speed, share, left, validated))

    # Saving -----------------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        if self._asked:
            self.save(final=True)
            raise Interrupted(self._asked)
        if self._now - self._saved >= self.settings.checkpoint_minutes * 60:
            self.save()

    def save(self, best: bool = False, final: bool = False) -> Path | None:
        """Write a checkpoint; return its path.

        Where the disk refuses: warn, return None and go on, unless it is the last one (UserError).
        """
        self._read_graph()
        self._saved = self._now
        self._forget_lost()
        if self._last is not None and self._last[0] == self.progress.step:
            return self._last[1]
        state = self.ranks.whole_state(self.state, self.ops)
        path = self.ranks.from_first(lambda: self._write(state, best, final))
        if path is not None:
            self._last = (self.progress.step, path)
        return path

    def _write(self, state: State | None, best: bool, final: bool) -> Path | None:
        """As `save`, with the state of all streams."""
        try:
            return self._writing(lambda: self._checkpoint(state, best))
        except (OSError, MemoryError) as error:
            line = f"can't write a checkpoint in '{self.run}' ({reason_of(error)})"
            if final:
                raise unsaved(self.run, line, error) from error
            self.warn(f"{line}: training goes on and tries again later")
            return None

    def _checkpoint(self, state: State | None, best: bool) -> Path:
        sync(self.run / "metrics.csv")  # whose rows the checkpoint counts
        arrays = self._model_arrays(), self._train_arrays(state)
        path = write_checkpoint(self.run, self.progress.step, *arrays, self._meta())
        if best:
            point(self.run / CHECKPOINTS, "best", path.name)
        prune(self.run, self.settings.keep)
        return path

    def _writing(self, write: Callable[[], T]) -> T:
        """Call what writes into the run's folder; once more where that was moved meanwhile."""
        try:
            self._settle()
            return write()
        except FileNotFoundError:
            self._settle()
            return write()

    def _settle(self) -> None:
        """Learn where the run's folder is; of a new one, that no row is in its metrics.csv."""
        if self.home is not None:
            if self.home.settle():
                self.progress.rows = 0
            self.run = self.home.run

    def _forget_lost(self) -> None:
        """Forget checkpoints that somebody removed: the next ones are saved in their place."""
        lost_last, lost_best = self.ranks.from_first(self._lost)
        if lost_last:
            self._last = None
        if lost_best:
            self.progress.best, self.progress.best_step = math.inf, 0

    def _lost(self) -> tuple[bool, bool]:
        """Return whether the last checkpoint was removed, and with it the best one."""
        with suppress(OSError):  # whoever writes will say so
            self._settle()
        folder = self.run / CHECKPOINTS
        last = self._last is not None and not (folder / self._last[1].name).is_dir()
        return last, last and linked(folder, "best") is None

    def _model_arrays(self) -> dict[str, Any]:
        """Return the parameters that sampling uses: the averages, where there are any."""
        model = self.averages.model if self.averages else self.model
        return {k: self.ops.to_numpy(v) for k, v in model.parameters.items()}

    def _train_arrays(self, state: State | None) -> dict[str, Any]:
        return training_arrays(self.model, self.optimizer, self.averages, state)

    def _meta(self) -> dict[str, Any]:
        given = self.corpus, self.model, self.settings, self.progress, self.annealing
        return described(*given, self.optimizer.t)

    def resume(self) -> None:
        """Take up the run where its newest whole checkpoint stands, or at step 0 without any.

        Rank 0 alone reads it, and tells the others.
        """
        if self.home is not None and self.home.follow() is None:
            raise no_run(self.run)
        self._settle()
        whose = self.run, self.corpus.key, self.model, self.optimizer, self.averages
        found = self.ranks.from_first(lambda: read_back(*whose, self.warn))
        if found is not None:
            self._take_up(*found)
        if self.ranks.leads:
            self.progress.rows = cut_metrics(self.run / "metrics.csv", self.progress.rows)

    def _take_up(self, checkpoint: Checkpoint, arrays: dict[str, Array]) -> None:
        _, self.progress, self.annealing = check_training(checkpoint.meta)
        take_up(arrays, checkpoint.parameters, self.model, self.optimizer, self.averages)
        self.optimizer.t = checkpoint.meta["optimizer_steps"]
        self.state = self.ranks.state_part(state_of(arrays, self.ops))
        self._last = self.progress.step, checkpoint.path
