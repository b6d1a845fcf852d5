"""What a run needs to go on exactly, beside its model: as a checkpoint keeps it, and back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lstm_music.checkpoint import (
    TRAIN_FILE,
    Checkpoint,
    DamagedCheckpoint,
    checkpoints_of,
    point_best,
    read_run,
)
from lstm_music.checkpoint_meta import check_training
from lstm_music.errors import UserError
from lstm_music.model import Model, State
from lstm_music.ops import NumpyOps
from lstm_music.ops.numpy_ops import Array
from lstm_music.optim import Annealing, Averages, Optimizer
from lstm_music.prepared import Corpus
from lstm_music.progress import Progress, Settings
from lstm_music.run_folder import not_writable


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
        | ({} if corpus.drums is None else {"drums": corpus.drums}),
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
    fits = sizes in ([None] * 2, [(3, config.layers, config.hidden)] * 2)
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
            f"this is not the corpus that '{run}' was begun with, or it has changed: "
            "train a new run with another --run"
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
