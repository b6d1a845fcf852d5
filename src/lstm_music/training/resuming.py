"""What a run needs to go on exactly, beside its model: into its folder as it trains, and back."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lstm_music.arrays import Array
from lstm_music.corpus.corpus import Corpus
from lstm_music.errors import UserError
from lstm_music.network.config import State
from lstm_music.network.learning_rate import Annealing
from lstm_music.network.model import Model
from lstm_music.network.optim import Averages, Optimizer
from lstm_music.ops import NumpyOps
from lstm_music.runs.checkpoint import (
    CHECKPOINTS,
    TRAIN_FILE,
    Checkpoint,
    DamagedCheckpoint,
    checkpoints_of,
    linked,
    point,
    point_best,
    prune,
    read_run,
    write_checkpoint,
)
from lstm_music.runs.folder import (
    HEADER,
    METRICS,
    append,
    metrics_row,
    no_run,
    not_writable,
    reason_of,
    sync,
    unsaved,
)
from lstm_music.runs.home import RunHome
from lstm_music.runs.meta import check_training
from lstm_music.runs.opened import typed
from lstm_music.runs.settings import Progress, Settings
from lstm_music.training.ranks import Alone
from lstm_music.untrusted import typeable

T = TypeVar("T")


class Kept(NamedTuple):
    """What a checkpoint keeps: arrays for sampling, arrays for training on, what describes it."""

    model: dict[str, Array]
    train: dict[str, Array]
    meta: dict[str, Any]


class RunFiles:
    """A run's folder as training writes it: metrics.csv and checkpoints.

    Rank 0 writes, and all know what came of it. keep: checkpoints besides the best. home: holds
    the folder of whoever writes; without it, the folder is taken to stay where it is. last: step
    and path of the last checkpoint. origin: the model that the run began with, as checkpoints name
    it. What the disk refuses is warned of, and training goes on.
    """

    def __init__(self, run: Path, keep: int, warn: Callable[[str], None], ranks: Alone) -> None:
        self.run, self.keep, self.warn, self.ranks = run, keep, warn, ranks
        self.home: RunHome | None = None
        self.last: tuple[int, Path] | None = None
        self.origin: dict[str, Any] | None = None

    def find(self, at: Progress) -> None:
        """Learn where the folder is, before a run goes on. Raises UserError where it's gone."""
        if self.home is not None and self.home.follow() is None:
            raise no_run(self.run)
        self._settle(at)

    def record(
        self,
        at: Progress,
        split: str,
        loss: float,
        lr: float,
        norm: float | None = None,
        speed: float | None = None,
    ) -> None:
        """Append a row to metrics.csv."""
        line = metrics_row(at, split, loss, lr, norm, speed)
        try:
            if self.ranks.leads:
                self._writing(at, lambda: append(self.run / METRICS, line, f"{HEADER}\n"))
            at.rows += 1
        except OSError as error:
            self.warn(f"can't write metrics.csv ({reason_of(error)}): training goes on without")

    def save(self, at: Progress, kept: Callable[[], Kept], best: bool, final: bool) -> Path | None:
        """Write a checkpoint; return its path, None where the disk refuses.

        kept is called once the folder is there. Raises UserError where the final one is refused.
        """
        path = self.ranks.from_first(lambda: self._save(at, kept, best, final))
        if path is not None:
            self.last = (at.step, path)
        return path

    def _save(self, at: Progress, kept: Callable[[], Kept], best: bool, final: bool) -> Path | None:
        try:
            return self._writing(at, lambda: self._checkpoint(at.step, kept(), best))
        except (OSError, MemoryError) as error:
            line = f"can't write a checkpoint in '{self.run}' ({reason_of(error)})"
            if final:
                raise unsaved(self.run, line, error) from error
            self.warn(f"{line}: training goes on and tries again later")
            return None

    def _checkpoint(self, step: int, kept: Kept, best: bool) -> Path:
        sync(self.run / METRICS)  # whose rows the checkpoint counts
        origin = {} if self.origin is None else {"origin": self.origin}
        path = write_checkpoint(self.run, step, kept.model, kept.train, kept.meta | origin)
        if best:
            point(self.run / CHECKPOINTS, "best", path.name)
        prune(self.run, self.keep)
        return path

    def mark_best(self, at: Progress, path: Path) -> None:
        """Point `best` at a checkpoint."""
        try:
            if self.ranks.leads:
                self._writing(at, lambda: point(self.run / CHECKPOINTS, "best", path.name))
        except OSError as error:
            self.warn(f"can't mark the best checkpoint ({reason_of(error)})")

    def forget_lost(self, at: Progress) -> None:
        """Forget checkpoints that somebody removed: the next ones are saved in their place."""
        lost_last, lost_best = self.ranks.from_first(lambda: self._lost(at))
        if lost_last:
            self.last = None
        if lost_best:
            at.best, at.best_step = math.inf, 0

    def _lost(self, at: Progress) -> tuple[bool, bool]:
        """Return whether the last checkpoint was removed, and with it the best one."""
        with suppress(OSError):  # whoever writes will say so
            self._settle(at)
        folder = self.run / CHECKPOINTS
        last = self.last is not None and not (folder / self.last[1].name).is_dir()
        return last, last and linked(folder, "best") is None

    def _writing(self, at: Progress, write: Callable[[], T]) -> T:
        """Call what writes into the folder; once more where that was moved meanwhile."""
        try:
            self._settle(at)
            return write()
        except FileNotFoundError:
            self._settle(at)
            return write()

    def _settle(self, at: Progress) -> None:
        """Learn where the folder is; of a new one, that no row is in its metrics.csv."""
        if self.home is not None:
            if self.home.settle():
                at.rows = 0
            self.run = self.home.run


def training_arrays(
    model: Model, optimizer: Optimizer, averages: Averages | None, state: State | None
) -> dict[str, Array]:
    """Return the optimiser's slots, the last weights beside averages, and the carried state."""
    ops = model.ops
    arrays = {f"slot.{k}": ops.to_numpy(v) for k, v in optimizer.slots.items()}
    if averages is not None:
        arrays |= {f"last.{k}": ops.to_numpy(v) for k, v in model.parameters.items()}
    if state is not None:
        arrays["state.h"], arrays["state.c"] = ops.to_numpy(state.h), ops.to_numpy(state.c)
    return arrays


def described(
    corpus: Corpus,
    model: Model,
    settings: Settings,
    progress: Progress,
    annealing: Annealing,
    optimizer_steps: int,
) -> dict[str, Any]:
    """Return what a checkpoint's meta.json says of the model and the run."""
    return {
        "model": model.config.to_json(),
        "tokenizer": corpus.tokenizer_json(),
        "vocabulary": corpus.vocabulary.to_json(),
        "corpus": {"name": corpus.name, "key": corpus.key, "augment": corpus.augment}
        | corpus.habits()
        | ({} if corpus.drums is None else {"drums": corpus.drums})
        | ({} if corpus.tempo is None else {"tempo": corpus.tempo}),
        "primers": corpus.primers(),
        "settings": asdict(settings),
        "progress": progress.to_json(),
        "annealing": annealing.to_json(),
        "optimizer_steps": optimizer_steps,
    }


def check_arrays(
    arrays: Mapping[str, Array], model: Model, optimizer: Optimizer, averages: Averages | None
) -> None:
    """Raise ValueError unless the arrays are those that `training_arrays` returns."""
    expected = {f"slot.{name}": slot.shape for name, slot in optimizer.slots.items()}
    if averages is not None:
        expected |= {f"last.{name}": p.shape for name, p in model.parameters.items()}
    config, found = model.config, {name: a.shape for name, a in arrays.items()}
    states = [found.pop(name, None) for name in ("state.h", "state.c")]
    sizes = [None if s is None else (len(s), s[0], s[-1]) for s in states if s != ()]
    fits = sizes in ([None] * 2, [(3, config.layers, config.rows * config.hidden)] * 2)
    if found != expected or not fits or states[0] != states[1]:
        raise ValueError(f"the arrays of {TRAIN_FILE} aren't those of the run")


def read_back(
    run: Path,
    key: str,
    model: Model,
    optimizer: Optimizer,
    averages: Averages | None,
    warn: Callable[[str], None],
) -> tuple[Checkpoint, dict[str, Array]] | None:
    """Return a run's newest whole checkpoint and its training arrays, None where it has none.

    key: of the corpus to go on with. Points `best` where the run that goes on would have it.
    Raises UserError where the checkpoint isn't of this corpus and this model.
    """
    if not checkpoints_of(run):
        return None
    checkpoint, arrays = read_run(run, warn, ("latest",), train=True)
    if checkpoint.meta["corpus"]["key"] != key:
        raise UserError(
            f"this is not the corpus that '{run}' was begun with, or it has changed: train a new "
            f"run on it, which --from {typeable(typed(run))} begins with what this one has learnt"
        )
    if checkpoint.config != model.config:
        raise UserError(
            f"'{run / 'config.json'}' doesn't describe the run's checkpoints: "
            "train a new run with another --run"
        )
    try:
        _, progress, _ = check_training(checkpoint.meta)
        check_arrays(arrays, model, optimizer, averages)
    except (KeyError, ValueError) as error:
        raise DamagedCheckpoint(checkpoint.path, error) from error
    try:
        point_best(run, None if math.isinf(progress.best) else progress.best_step)
    except OSError as error:
        raise not_writable(run, error) from error
    return checkpoint, arrays


def take_up(
    arrays: Mapping[str, Array],
    kept: Mapping[str, Array],
    model: Model,
    optimizer: Optimizer,
    averages: Averages | None,
) -> None:
    """Give a model, optimiser and averages what a checkpoint has; kept: its model's parameters."""
    ops = model.ops
    for name, value in kept.items():
        model.parameters[name][...] = ops.asarray(arrays.get(f"last.{name}", value))
        if averages is not None:
            averages.means[name][...] = ops.asarray(value)
    for name, slot in optimizer.slots.items():
        slot[...] = ops.asarray(arrays[f"slot.{name}"])


def state_of(arrays: Mapping[str, Array], ops: NumpyOps) -> State | None:
    """Return the state that a run carried, None where it carried none."""
    if "state.h" not in arrays:
        return None
    return State(ops.asarray(arrays["state.h"]), ops.asarray(arrays["state.c"]))
