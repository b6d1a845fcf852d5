"""Training: the loop over epochs and windows, and what is due between steps.

How a step is taken is `training/step.py`'s business, what is written and how
`training/resuming.py`'s.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

from lstm_music.arrays import Batch
from lstm_music.corpus.batches import Batches
from lstm_music.corpus.corpus import Corpus
from lstm_music.errors import UserError
from lstm_music.network.config import State
from lstm_music.network.learning_rate import Annealing
from lstm_music.network.model import Model
from lstm_music.network.optim import Averages, Optimizer
from lstm_music.network.sampled import draws_of
from lstm_music.runs.checkpoint import checkpoints_of
from lstm_music.runs.folder import METRICS, cut_metrics
from lstm_music.runs.meta import check_training
from lstm_music.runs.settings import Progress, Report, Settings, limit_reached, outlook
from lstm_music.training.graph_step import step_of
from lstm_music.training.health import MOST_BAD_STEPS, Jumps, jump_line, not_finite, skipped_line
from lstm_music.training.ranks import ALONE, Alone
from lstm_music.training.resuming import (
    Kept,
    RunFiles,
    described,
    read_back,
    state_of,
    take_up,
    training_arrays,
)
from lstm_music.training.signals import Interrupted, StopWish
from lstm_music.training.step import Totals
from lstm_music.training.validation import mean_nats, validation_size

LEAST_GAIN = 5e-4  # share of the validation loss whose fall counts as none to --early-stop
VALIDATE_STEPS = 1000  # at least this often, and at the end of each epoch


class Trainer:
    """One run: a model, a corpus, and the folder that records them.

    show is called with a Report after each step; warn with a line of text. started: when the
    command began, by time.monotonic. ranks: who shares the work; each has a trainer, and they
    decide alike, by what rank 0's clock says.
    """

    def __init__(
        self,
        corpus: Corpus,
        model: Model,
        settings: Settings,
        run: Path,
        show: Callable[[Report], None] = lambda report: None,
        warn: Callable[[str], None] = lambda line: None,
        started: float | None = None,
        ranks: Alone = ALONE,
    ) -> None:
        self.corpus, self.model, self.ops, self.settings = corpus, model, model.ops, settings
        self.show, self.warn, self.ranks, s = show, warn, ranks, settings
        model.draws = draws_of(model.config, s.sampled_softmax, self.ops)
        self.files = RunFiles(run, s.keep, warn, ranks)
        self.optimizer = Optimizer(model.ops, s.optimizer, model.parameters, s.weight_decay)
        self.averages = Averages(model, s.average) if s.average else None
        self.annealing = Annealing(s.lr, s.anneal_factor, s.anneal_patience)
        learns = model, self.optimizer, s.clip, s.seed, self.averages
        self.steps = step_of(*learns, ranks, s.skip_bad_steps)
        self.progress = Progress()
        self.validated = validation_size(corpus, VALIDATE_STEPS * s.batch * s.seq)
        self.valid = math.inf
        self._unread = 0  # steps whose losses nobody has asked for
        self._loss = math.nan  # the last one read
        self._jumps = Jumps()
        self._wish = StopWish()
        self._now, self._asked = time.monotonic(), 0  # rank 0's time, the signal of any rank
        self.started = self._now if started is None else started
        self._saved = self._now
        self._start = self._now, 0  # when this process began to train, and at which step

    @property
    def run(self) -> Path:
        """The run's folder, wherever it is now."""
        return self.files.run

    @property
    def judged(self) -> Model:
        """The model that is validated and sampled from: of the averages, where there are any."""
        return self.averages.model if self.averages else self.model

    def train(self) -> str:
        """Train until a limit is reached; return the option that set it. The run is then saved.

        Raises Interrupted after a signal of `STOPPING`, also with the run saved; UserError where
        the loss is no number or the last checkpoint can't be written.
        """
        self._start = time.monotonic(), self.progress.step
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
            config = self.model.config
            every = self.corpus.training_batches(
                s.batch, s.seq, s.seed, at.epoch, bool(config.copy), config.head == "biaxial"
            )
            batches = self.ranks.part(every)
            self._enter(len(batches.streams))
            while at.window < len(batches):
                if reason := limit_reached(at, s, self._now - self.started):
                    return reason
                self._advance(batches)
            at.epoch, at.window = at.epoch + 1, 0

    def _enter(self, B: int) -> None:
        """Begin an epoch of B streams with an empty state, or go on inside one with its own."""
        if self.steps.state is None or not self.progress.window:
            self.steps.reset(self.model.zero_state(B))
        elif self.steps.state.h.shape[1] != B:
            raise UserError(f"the state in '{self.run}' is of another batch: train a new run")

    def _advance(self, batches: Batches) -> None:
        """Take the step of the next window, and do what is due after it."""
        at = self.progress
        loss = self._step(batches[at.window])
        at.window += 1
        ended = at.window == len(batches) or at.window % VALIDATE_STEPS == 0
        if ended:
            self.end_period()
        self._report(loss, len(batches), ended)
        self._agree()
        self._save_if_due()

    # A step -----------------------------------------------------------------------------------

    def _step(self, batch: Batch) -> float:
        """Take a step and count it; return the last loss that was read."""
        at, start, skipped = self.progress, time.monotonic(), self.progress.skipped
        self.steps.run(batch, self.annealing.lr)
        self._unread += 1
        if self._unread >= self.steps.read_every or math.isnan(self._loss):
            self._read()
        at.count(batch.targets, time.monotonic() - start, at.skipped == skipped)
        return self._loss

    def _read(self) -> None:
        """Add the losses and norms of the steps since the last read to the period."""
        at, totals = self.progress, self.steps.read()
        self._unread, self._loss = 0, totals.loss
        if totals.failed:
            self._skip(totals)
            return
        at.skipped_in_row = 0
        at.period_loss += totals.loss_sum
        at.period_norm += totals.norm_sum
        mean = self._jumps.mean
        if at.window and self._jumps.see(totals.loss):  # before an epoch's first, nothing is known
            self.warn(jump_line(mean, totals.loss, self.steps.number))

    def _catch_up(self) -> None:
        """Read what is unread before the period's sums are needed."""
        if self._unread:
            start = time.monotonic()
            self._read()
            self.progress.pass_time(time.monotonic() - start)

    def _skip(self, totals: Totals) -> None:
        """Leave out a step whose loss or gradient is no number. Raises UserError by default."""
        at, loss, step = self.progress, totals.loss_sum, self.steps.number
        if not self.settings.skip_bad_steps or at.skipped_in_row >= MOST_BAD_STEPS:
            kept, lr = [path.name for path in checkpoints_of(self.run)[:1]], self.annealing.lr
            first = step - totals.failed + 1
            raise not_finite(loss, first, totals.tensor, kept, lr, at.skipped_in_row)
        at.skipped += 1
        at.skipped_in_row += 1
        if at.skipped & (at.skipped - 1) == 0:  # a power of two: many make few lines
            self.warn(skipped_line(loss, step, totals.tensor, at.skipped))

    # Between steps ----------------------------------------------------------------------------

    def end_period(self) -> None:
        """Validate, anneal, record, and keep the model if it is the best yet.

        A best one that the disk refused is none: the next that is better than the one kept is.
        """
        self._catch_up()
        at, lr = self.progress, self.annealing.lr
        train, norm, speed = at.period_means()
        self.valid = self.validate()
        if at.period_steps:  # none where all were skipped
            self.files.record(at, "train", train, lr, norm, speed)
        self.files.record(at, "valid", self.valid, lr)
        if at.period_steps:
            self.annealing.update(train)
        at.begin_period()
        self._jumps.told = False
        if self.valid < at.to_beat:
            at.to_beat, at.since_best = self.valid * (1 - LEAST_GAIN), 0
        else:
            at.since_best += 1
        self.files.forget_lost(at)
        if self.valid < at.best:
            before = at.best, at.best_step
            at.best, at.best_step = self.valid, at.step
            if self.save(best=True) is None:
                at.best, at.best_step = before

    def _judge_last(self, path: Path) -> None:
        """Validate a run that was stopped inside a period, without touching what resuming reads."""
        self.valid = self.validate()
        self.files.record(self.progress, "valid", self.valid, self.annealing.lr)
        if self.valid < self.progress.best:
            self.files.mark_best(self.progress, path)

    def validate(self) -> float:
        """Return the mean nats per token (or frame) of (a part of) the validation split."""
        size, most = (self.settings.batch, self.settings.seq), self.validated
        return mean_nats(self.judged, self.corpus, "valid", *size, most=most, ranks=self.ranks)

    def _report(self, loss: float, windows: int, validated: bool) -> None:
        at = self.progress
        speed = at.tokens / max(at.seconds, 1e-9)
        pace = (time.monotonic() - self._start[0]) / max(at.step - self._start[1], 1)
        elapsed = time.monotonic() - self.started
        left, share = outlook(at, self.settings, windows, pace, elapsed)
        self.show(Report(at, loss, self.valid, self.annealing.lr, speed, share, left, validated))

    # Saving, and going on -----------------------------------------------------------------------

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
        self._catch_up()
        self._saved = self._now
        self.files.forget_lost(self.progress)
        last = self.files.last
        if last is not None and last[0] == self.progress.step:
            return last[1]
        state = self.ranks.whole_state(self.steps.state, self.ops)
        return self.files.save(self.progress, lambda: self._kept(state), best, final)

    def _kept(self, state: State | None) -> Kept:
        """Return what a checkpoint keeps, with the state of all streams."""
        given = self.corpus, self.model, self.settings, self.progress, self.annealing
        return Kept(
            {k: self.ops.to_numpy(v) for k, v in self.judged.parameters.items()},
            training_arrays(self.model, self.optimizer, self.averages, state),
            described(*given, self.optimizer.t),
        )

    def resume(self) -> None:
        """Take up the run where its newest whole checkpoint stands, or at step 0 without any.

        Rank 0 alone reads it, and tells the others.
        """
        learns = self.model, self.optimizer, self.averages
        self.files.find(self.progress)
        whose = self.run, self.corpus.key, *learns, self.warn
        if found := self.ranks.from_first(lambda: read_back(*whose)):
            checkpoint, arrays = found
            _, self.progress, self.annealing = check_training(checkpoint.meta)
            take_up(arrays, checkpoint.parameters, *learns)
            self.optimizer.t = checkpoint.meta["optimizer_steps"]
            if state := self.ranks.state_part(state_of(arrays, self.ops)):
                self.steps.reset(state)
            self.steps.number = self.progress.step
            self.files.last = self.progress.step, checkpoint.path
        if self.ranks.leads:
            self.progress.rows = cut_metrics(self.run / METRICS, self.progress.rows)
