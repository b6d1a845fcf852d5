"""A run in numbers: how to train, where it stands, what the screen shows."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from lstm_music.network.learning_rate import DEFAULT_LR

KEEP_LAST = 2  # checkpoints kept besides the best


@dataclass(frozen=True)
class Settings:
    """How to train; a limit of None is no limit.

    Defaults are what older versions did that had no such option. Those of `bin/train` are
    `cli/train_options.py`'s.
    """

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
    keep: int = KEEP_LAST
    skip_bad_steps: bool = False
    sampled_softmax: int = 0


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
    skipped: int = 0  # steps whose loss or gradient was no finite number
    skipped_in_row: int = 0

    def count(self, targets: int, seconds: float, good: bool) -> None:
        """Count a step; the loss of one that isn't good is in no mean."""
        self.step += 1
        self.tokens += targets
        self.period_steps += good
        self.period_tokens += targets * good
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        """Count seconds that training took."""
        self.seconds += seconds
        self.period_seconds += seconds

    def period_means(self) -> tuple[float, float, float]:
        """Return nats a target, gradient norm and targets a second since the last validation."""
        return (
            self.period_loss / max(self.period_tokens, 1),
            self.period_norm / max(self.period_steps, 1),
            self.period_tokens / max(self.period_seconds, 1e-9),
        )

    def begin_period(self) -> None:
        """Forget what the steps since the last validation added up to."""
        self.period_loss = self.period_norm = self.period_seconds = 0.0
        self.period_steps = self.period_tokens = 0

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


def limit_reached(at: Progress, settings: Settings, elapsed: float) -> str:
    """Return the option whose limit is reached, or "" while none is; elapsed: as in `outlook`."""
    s = settings
    if s.epochs is not None and at.epoch >= s.epochs:
        return f"--epochs {s.epochs}"
    if s.max_steps is not None and at.step >= s.max_steps:
        return f"--max-steps {s.max_steps}"
    if s.max_minutes is not None and elapsed >= s.max_minutes * 60:
        return f"--max-minutes {s.max_minutes:g}"
    if s.early_stop and at.since_best >= s.early_stop:
        return f"--early-stop {s.early_stop}"
    return ""


def outlook(
    at: Progress, settings: Settings, windows: int, pace: float, elapsed: float
) -> tuple[float, float]:
    """Return the seconds left and the share that is done, by the limit reached first.

    windows: steps in an epoch; pace: seconds a step; elapsed: seconds since the command began.
    Without any limit, both are 0.
    """
    s = settings
    outlooks = [
        (max(0.0, (steps - at.step) * pace), min(1.0, at.step / steps))
        for steps in (s.max_steps, s.epochs and s.epochs * windows)
        if steps
    ]
    if s.max_minutes is not None:
        bound = s.max_minutes * 60
        outlooks.append((max(0.0, bound - elapsed), min(1.0, elapsed / bound)))
    return min(outlooks, default=(0.0, 0.0))
