"""Training: the loop, validation, annealing, metrics.csv and checkpoints."""

import csv
import errno
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from lstm_music.batches import Batches, on_device
from lstm_music.checkpoint import (
    CHECKPOINTS,
    checkpoints_of,
    point,
    prune,
    read_run,
    step_name,
    write_checkpoint,
)
from lstm_music.errors import UserError
from lstm_music.evaluate import mean_nats
from lstm_music.graph import GraphStep, graph_step
from lstm_music.model import Batch, Config, Model, State
from lstm_music.ops import NumpyOps
from lstm_music.optim import (
    DEFAULT_LR,
    Annealing,
    Averages,
    Optimizer,
    clip_scale,
    global_norm,
)
from lstm_music.prepared import Corpus

FORMAT = 1  # of config.json
LEAST_GAIN = 5e-4  # share of the validation loss whose fall counts as none to --early-stop
READ_STEPS = 32  # on a GPU, between reads of the losses: a read waits for the device
VALIDATE_STEPS = 1000  # at least this often, and at the end of each epoch
HEADER = "step,epoch,tokens,seconds,split,loss,learning_rate,grad_norm,tokens_per_second"


@dataclass(frozen=True)
class Settings:
    """How to train; a limit of None is no limit. Defaults are those of `bin/train`."""

    batch: int = 50
    seq: int = 50
    optimizer: str = "adam"
    lr: float = DEFAULT_LR["adam"]
    clip: float = 5.0
    anneal_factor: float = 0.5
    anneal_patience: int = 2
    early_stop: int = 8
    weight_decay: float = 0.0
    average: float = 0.0
    epochs: int | None = None
    max_steps: int | None = None
    max_minutes: float | None = None
    seed: int = 0
    checkpoint_minutes: float = 2.0


@dataclass
class Progress:
    """Where a run stands; everything here is in each checkpoint, so that a run goes on exactly."""

    step: int = 0
    epoch: int = 0
    window: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = 0
    to_beat: float = math.inf  # a validation loss below this is worth going on for
    since_best: int = 0  # validations since there was one
    rows: int = 0  # of metrics.csv
    period_loss: float = 0.0
    period_steps: int = 0
    period_norm: float = 0.0
    period_tokens: int = 0
    period_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that JSON can hold."""
        return {k: None if v == math.inf else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Progress":
        """Return what `to_json` wrote: None was an infinite loss, before there was one."""
        filled: dict[str, Any] = {k: math.inf if v is None else v for k, v in fields.items()}
        return cls(**filled)


@dataclass(frozen=True)
class Report:
    """What the screen shows after a step."""

    progress: Progress
    loss: float
    valid: float
    learning_rate: float
    tokens_per_second: float
    share: float  # of the work that is done, 0 to 1
    seconds_left: float
    validated: bool


class Interrupted(Exception):
    """The signal of this number asked training to stop; the run is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Trainer:
    """One run: a model, a corpus, and the folder that records them.

    show is called with a Report after each step; warn with a line of text.
    """

    corpus: Corpus
    model: Model
    settings: Settings
    run: Path
    show: Callable[[Report], None] = lambda report: None
    warn: Callable[[str], None] = lambda line: None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.ops: NumpyOps = self.model.ops
        s = self.settings
        self.optimizer = Optimizer(self.ops, s.optimizer, self.model.parameters, s.weight_decay)
        self.averages = Averages(self.model, s.average) if s.average else None
        self.annealing = Annealing(
            self.settings.lr, self.settings.anneal_factor, self.settings.anneal_patience
        )
        self.progress = Progress()
        self.state: State | None = None
        self.valid = math.inf
        means = self.averages.means if self.averages else None
        rate = self.averages.rate if self.averages else 0.0
        self._graph = graph_step(self.model, self.optimizer, s.clip, s.seed, means, rate)
        self._unread = 0  # steps of the graph whose losses are still on the device
        self._loss = math.nan  # the last one read
        self._signal = 0
        self._saved = time.monotonic()
        self._last: tuple[int, Path] | None = None  # the last checkpoint written: step, path
        self._begun = time.monotonic(), 0  # when this process began to train, and at which step

    def train(self) -> str:
        """Train until a limit is reached; return the option that set it. The run is then saved.

        Raises Interrupted after SIGINT or SIGTERM, also with the run saved; UserError where the
        loss is no number or the last checkpoint can't be written.
        """
        self._begun = time.monotonic(), self.progress.step
        with self._signals():
            reason = self._loop()
            path = self.save(final=True)
            if path is not None and self.progress.period_steps:
                self._judge_last(path)
            if self._signal:
                raise Interrupted(self._signal)
        return reason

    def _loop(self) -> str:
        at, s = self.progress, self.settings
        while True:
            batches = self.corpus.training_batches(s.batch, s.seq, s.seed, at.epoch)
            if self.state is None:
                self.state = self.model.zero_state(len(batches.streams))
            while at.window < len(batches):
                reason = self._limit()
                if reason:
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
        self._save_if_due()

    def _limit(self) -> str:
        """Return the option whose limit is reached, or "" while none is."""
        s, at = self.settings, self.progress
        if s.epochs is not None and at.epoch >= s.epochs:
            return f"--epochs {s.epochs}"
        if s.max_steps is not None and at.step >= s.max_steps:
            return f"--max-steps {s.max_steps}"
        if s.max_minutes is not None and self._elapsed() >= s.max_minutes * 60:
            return f"--max-minutes {s.max_minutes:g}"
        if s.early_stop and at.since_best >= s.early_stop:
            return f"--early-stop {s.early_stop}"
        return ""

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _step(self, batch: Batch) -> float:
        """Take one optimiser step; return the loss."""
        if self._graph is not None:
            return self._graph_step(self._graph, batch)
        at, begun = self.progress, time.monotonic()
        assert self.state is not None
        loss, grads, self.state = self.model.loss_and_grads(
            on_device(self.ops, batch), self.state, self.settings.seed, at.step
        )
        norm = global_norm(self.ops, grads)
        self._check_finite(loss, norm, at.step + 1)
        scale = clip_scale(norm, self.settings.clip)
        self.optimizer.step(self.model.parameters, grads, self.annealing.lr, scale)
        if self.averages is not None:
            self.averages.update()
        at.period_loss += loss * batch.targets
        at.period_norm += norm
        self._count(batch, time.monotonic() - begun)
        return loss

    def _count(self, batch: Batch, took: float) -> None:
        """Count a step that took so many seconds."""
        at = self.progress
        at.step += 1
        at.tokens += batch.targets
        at.seconds += took
        at.period_steps += 1
        at.period_tokens += batch.targets
        at.period_seconds += took

    def _check_finite(self, loss: float, norm: float, step: int) -> None:
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise UserError(
                f"the {'loss' if not math.isfinite(loss) else 'gradient'} is no finite number at "
                f"step {step}: train a new run with an --lr lower than "
                f"{self.annealing.lr:g}, or a lower --clip"
            )

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
        self._check_finite(totals.loss, math.nan if totals.failed else totals.norm, at.step)
        at.period_loss += totals.loss_sum
        at.period_norm += totals.norm_sum

    def _end_period(self) -> None:
        """Validate, anneal, record, and keep the model if it is the best yet."""
        self._read_graph()
        at = self.progress
        train = at.period_loss / max(at.period_tokens, 1)
        norm = at.period_norm / at.period_steps
        speed = at.period_tokens / max(at.period_seconds, 1e-9)
        lr = self.annealing.lr
        self.valid = self.validate()
        self._record("train", train, lr, norm, speed)
        self._record("valid", self.valid, lr, None, None)
        self.annealing.update(train)
        at.period_loss = at.period_norm = at.period_seconds = 0.0
        at.period_steps = at.period_tokens = 0
        if self.valid < at.to_beat:
            at.to_beat, at.since_best = self.valid * (1 - LEAST_GAIN), 0
        else:
            at.since_best += 1
        if self.valid < at.best:
            at.best, at.best_step = self.valid, at.step
            self.save(best=True)

    def _judge_last(self, path: Path) -> None:
        """Validate a run that was stopped inside a period, without touching what resuming reads."""
        self.valid = self.validate()
        self._record("valid", self.valid, self.annealing.lr, None, None)
        if self.valid < self.progress.best:
            point(self.run / CHECKPOINTS, "best", path.name)

    def validate(self) -> float:
        """Return the mean nats per token (or frame) of the validation split.

        Where weights are averaged, it is the averages that are judged.
        """
        model = self.averages.model if self.averages else self.model
        return mean_nats(model, self.corpus, "valid", self.settings.batch, self.settings.seq)

    def _record(
        self, split: str, loss: float, lr: float, norm: float | None, speed: float | None
    ) -> None:
        """Append a row to metrics.csv."""
        at = self.progress
        row = [
            at.step,
            at.epoch,
            at.tokens,
            f"{at.seconds:.3f}",
            split,
            f"{loss:.6f}",
            f"{lr:.6g}",
            "" if norm is None else f"{norm:.6g}",
            "" if speed is None else f"{speed:.0f}",
        ]
        try:
            append(self.run / "metrics.csv", ",".join(map(str, row)) + "\n")
            at.rows += 1
        except OSError as error:
            self.warn(f"can't write metrics.csv ({error.strerror}): training goes on without")

    def _show(self, loss: float, windows: int, validated: bool) -> None:
        at = self.progress
        speed = at.tokens / max(at.seconds, 1e-9)
        left, share = self._outlook(windows)
        self.show(Report(at, loss, self.valid, self.annealing.lr, speed, share, left, validated))

    def _outlook(self, windows: int) -> tuple[float, float]:
        """Return the seconds left and the share that is done, by the limit reached first.

        windows is the number of steps in an epoch. Without any limit, both are 0.
        """
        at, s = self.progress, self.settings
        then, step = self._begun
        pace = (time.monotonic() - then) / max(at.step - step, 1)
        outlooks = [
            (max(0.0, (steps - at.step) * pace), min(1.0, at.step / steps))
            for steps in (s.max_steps, s.epochs and s.epochs * windows)
            if steps
        ]
        if s.max_minutes is not None:
            spent, bound = self._elapsed(), s.max_minutes * 60
            outlooks.append((max(0.0, bound - spent), min(1.0, spent / bound)))
        return min(outlooks, default=(0.0, 0.0))

    # Saving -----------------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        if self._signal:
            self.save(final=True)
            raise Interrupted(self._signal)
        if time.monotonic() - self._saved >= self.settings.checkpoint_minutes * 60:
            self.save()

    def save(self, best: bool = False, final: bool = False) -> Path | None:
        """Write a checkpoint; return its path.

        Where the disk refuses: warn, return None and go on, unless it is the last one (UserError).
        """
        self._read_graph()
        self._saved = time.monotonic()
        if self._last is not None and self._last[0] == self.progress.step:
            return self._last[1]
        try:
            path = write_checkpoint(
                self.run,
                self.progress.step,
                self._model_arrays(),
                self._train_arrays(),
                self._meta(),
            )
            if best:
                point(self.run / CHECKPOINTS, "best", path.name)
            prune(self.run)
        except OSError as error:
            line = f"can't write a checkpoint in '{self.run}' ({error.strerror or error})"
            if final:
                before = checkpoints_of(self.run)
                there = f"; {before[0].name} is whole" if before else ""
                raise UserError(
                    f"{line}{there}: free some space, then go on with "
                    f"bin/train --resume --run {self.run}"
                ) from error
            self.warn(f"{line}: training goes on and tries again later")
            return None
        self._last = (self.progress.step, path)
        return path

    def _model_arrays(self) -> dict[str, Any]:
        """Return the parameters that sampling uses: the averages, where there are any."""
        model = self.averages.model if self.averages else self.model
        return {k: self.ops.to_numpy(v) for k, v in model.parameters.items()}

    def _train_arrays(self) -> dict[str, Any]:
        arrays = {f"slot.{k}": self.ops.to_numpy(v) for k, v in self.optimizer.slots.items()}
        if self.averages is not None:
            parameters = self.model.parameters.items()
            arrays |= {f"last.{k}": self.ops.to_numpy(v) for k, v in parameters}
        if self.state is not None:
            arrays["state.h"] = self.ops.to_numpy(self.state.h)
            arrays["state.c"] = self.ops.to_numpy(self.state.c)
        return arrays

    def _meta(self) -> dict[str, Any]:
        corpus = self.corpus
        return {
            "model": self.model.config.to_json(),
            "tokenizer": corpus.tokenizer_json(),
            "vocabulary": corpus.vocabulary.to_json(),
            "corpus": {"name": corpus.name, "key": corpus.key, "augment": corpus.augment}
            | corpus.habits(),
            "primers": corpus.primers(),
            "settings": asdict(self.settings),
            "progress": self.progress.to_json(),
            "annealing": self.annealing.to_json(),
            "optimizer_steps": self.optimizer.t,
        }

    def resume(self) -> None:
        """Take up the run where its newest whole checkpoint stands, or at step 0 without any."""
        if checkpoints_of(self.run):
            self._take_up()
        self.progress.rows = cut_metrics(self.run / "metrics.csv", self.progress.rows)

    def _take_up(self) -> None:
        checkpoint, arrays = read_run(self.run, self.warn, ("latest",), train=True)
        meta = checkpoint.meta
        if meta["corpus"]["key"] != self.corpus.key:
            raise UserError(
                f"this is not the corpus that '{self.run}' was begun with, or it has changed: "
                "train a new run with another --run"
            )
        if checkpoint.config != self.model.config:
            raise UserError(
                f"'{self.run / 'config.json'}' doesn't describe the run's checkpoints: "
                "train a new run with another --run"
            )
        for name, value in checkpoint.parameters.items():
            last = arrays.get(f"last.{name}", value)
            self.model.parameters[name][...] = self.ops.asarray(last)
            if self.averages is not None:
                self.averages.means[name][...] = self.ops.asarray(value)
        for name, slot in self.optimizer.slots.items():
            slot[...] = self.ops.asarray(arrays[f"slot.{name}"])
        self.optimizer.t = meta["optimizer_steps"]
        self.annealing = Annealing.from_json(meta["annealing"])
        self.progress = Progress.from_json(meta["progress"])
        if "state.h" in arrays:
            self.state = State(
                self.ops.asarray(arrays["state.h"]), self.ops.asarray(arrays["state.c"])
            )
        self._last = self.progress.step, checkpoint.path
        self._point_best()

    def _point_best(self) -> None:
        """Point `best` where the run that goes on would have it.

        A run that stopped inside an epoch judged its last checkpoint, and one that fell back to
        an older checkpoint forgets what came after.
        """
        folder = self.run / CHECKPOINTS
        name = step_name(self.progress.best_step)
        if math.isinf(self.progress.best):
            (folder / "best").unlink(missing_ok=True)
        elif (folder / name).is_dir():
            point(folder, "best", name)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn the first SIGINT or SIGTERM into a wish to stop; the second stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self._signal:
                raise KeyboardInterrupt
            self._signal = number

        before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def new_run(
    run: Path,
    config: Config,
    corpus: Corpus,
    settings: Settings,
    source: dict[str, Any],
    reading: dict[str, Any],
) -> None:
    """Make a run's folder; source and reading say where the corpus came from and how it was read.

    Raises UserError where the folder exists or can't be made.
    """
    try:
        run.mkdir(parents=True)
    except FileExistsError as error:
        raise run_exists(run) from error
    except OSError as error:
        raise not_writable(run, error) from error
    try:
        describe_run(run, config, corpus, settings, source, reading)
    except OSError as error:
        shutil.rmtree(run, ignore_errors=True)
        raise not_writable(run, error) from error


def run_exists(run: Path) -> UserError:
    """Return the error for a new run in the place of another."""
    return UserError(f"the run '{run}' exists: continue it with --resume, or choose another --run")


def not_writable(run: Path, error: OSError) -> UserError:
    """Return the error for a run's folder that can't be written."""
    return UserError(
        f"can't write the run '{run}' ({error.strerror}): choose another place with --run"
    )


def describe_run(
    run: Path,
    config: Config,
    corpus: Corpus,
    settings: Settings,
    source: dict[str, Any],
    reading: dict[str, Any],
) -> None:
    """Write what a run's folder holds before the first step."""
    counts = {key: value for key, value in corpus.summary().items() if key != "skipped"}
    described = {
        "format": FORMAT,
        "source": source,
        "corpus": {"name": corpus.name, "key": corpus.key, **counts},
        "tokenizer": corpus.tokenizer_json(),
        "reading": reading,
        "model": config.to_json(),
        "training": asdict(settings),
    }
    (run / CHECKPOINTS).mkdir()
    (run / "config.json").write_text(json.dumps(described, indent=2) + "\n", "utf-8")
    vocabulary = json.dumps(corpus.vocabulary.to_json(), indent=0)
    (run / "vocabulary.json").write_text(vocabulary + "\n", "utf-8")
    (run / "metrics.csv").write_text(HEADER + "\n", "utf-8")
    with (run / "skipped.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "reason"))
        writer.writerows(corpus.skipped)


def append(path: Path, line: str) -> None:
    """Append a line to a file. Raises OSError, with the file as it was, where the disk refuses."""
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        data = line.encode()
        if file.write(data) != len(data):  # a full disk takes what fits
            file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def cut_metrics(path: Path, rows: int) -> int:
    """Cut metrics.csv to so many rows, those that a checkpoint had seen; return how many are left.

    What a run wrote after the checkpoint it resumes from, it writes again.
    """
    text = path.read_text("utf-8", errors="replace") if path.exists() else ""
    lines = text.splitlines()[1 : rows + 1]
    made = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        made.write_text("\n".join([HEADER, *lines]) + "\n", "utf-8")
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    return len(lines)
