"""What a run needs to go on exactly, beside its model: as a checkpoint keeps it, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lstm_music.checkpoint import TRAIN_FILE
from lstm_music.model import Model, State
from lstm_music.ops import NumpyOps
from lstm_music.ops.numpy_ops import Array
from lstm_music.optim import Annealing, Averages, Optimizer
from lstm_music.prepared import Corpus
from lstm_music.progress import Progress, Settings


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
        | corpus.habits(),
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
