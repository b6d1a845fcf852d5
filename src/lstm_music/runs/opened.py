"""A run opened again: its checkpoint, its model, its corpus; where runs are."""

import os
import sys
from contextlib import suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.sources import NAMED
from lstm_music.errors import UserError, Warn
from lstm_music.network.model import Model
from lstm_music.ops import NumpyOps, get_ops
from lstm_music.runs.checkpoint import (
    CHECKPOINTS,
    LINKS,
    META_FILE,
    Checkpoint,
    linked,
    read_checkpoint,
    read_run,
)
from lstm_music.runs.folder import CONFIG, described_options
from lstm_music.untrusted import typeable

FILES_READING = ("drums", "max_pieces", "min_count", "seed")  # what only config.json tells
MANY_TOKENS = 40_000  # of few words, from which Numba's start pays: NumPy draws 6,000 a second
WORDS_A_STEP = 1500  # words of a vocabulary that cost NumPy as much as all else of a token

RUNS = Path("runs")
BUNDLED = ("bach", "jsb", "muse")  # the models that come with the package, the usual one first
PLACE = "data/{}-model"  # of such a model in the package


def run_folder(name: str) -> Path:
    """Return the folder of a run: a path as it is, a bare name in runs/.

    A bare name may also be a run in the current folder, where runs/ has none of that name.
    """
    path = Path(name)
    if os.sep in name or path.is_absolute() or name in (".", ".."):
        return path
    here = (path / CHECKPOINTS).is_dir() and not (RUNS / name).exists()
    return path if here else RUNS / name


def typed(folder: Path) -> str:
    """Return what to type for a run's folder so that `run_folder` finds it again."""
    return str(folder) if len(folder.parts) > 1 else os.path.join(".", folder)


def newest_run() -> Path | None:
    """Return the run in runs/ whose checkpoints changed last, or None."""
    found = [path.parent.parent for path in RUNS.glob(f"*/{CHECKPOINTS}/latest") if path.exists()]
    return max(found, key=lambda run: (run / CHECKPOINTS).stat().st_mtime, default=None)


def open_run(name: str, warn: Warn) -> tuple[Checkpoint, Path | None]:
    """Return the checkpoint that an argument names, and the run that it belongs to, if any.

    name: a run, whose best checkpoint is taken, a checkpoint's folder, or, where no run has that
    name, one of BUNDLED. warn: is told of what is damaged and passed over.
    """
    path = Path(name)
    if path.name in LINKS and path.parent.name == CHECKPOINTS:
        path = linked(path.parent, path.name) or path
    if (path / META_FILE).is_file() or path.parent.name == CHECKPOINTS:
        place = path.resolve().parent
        return read_checkpoint(path), place.parent if place.name == CHECKPOINTS else None
    run = run_folder(name)
    if name in BUNDLED and not run.exists():
        return read_checkpoint(bundled_model(name)), None
    if not run.is_dir():
        train = f"bin/train bach --run {typeable(name)}"
        raise UserError(f"no run or checkpoint '{name}': train one with {train}")
    return read_run(run, warn)[0], run


def bundled_model(name: str = BUNDLED[0]) -> Path:
    """Return the folder of a checkpoint that comes with the package; name: one of BUNDLED."""
    folder = Path(str(resources.files("lstm_music").joinpath(PLACE.format(name))))
    if not folder.is_dir():
        raise UserError("no run in runs/ to sample from: train one with bin/train bach")
    return folder


def reading_of(checkpoint: Checkpoint, folder: Path | None) -> Reading:
    """Return how a checkpoint's corpus was read, for which a run's folder knows most."""
    tokenizer = dict(checkpoint.meta["tokenizer"])
    name, layout = tokenizer.pop("name"), tokenizer.pop("layout", Reading.tracks)
    parts = bool(tokenizer.pop("parts", ()))
    corpus = checkpoint.meta["corpus"]
    augment, drums = int(corpus.get("augment", 0)), corpus.get("drums") is not None
    reading = Reading(
        name, tracks=layout, transpose_augment=augment, drums=drums, parts=parts, **tokenizer
    )
    if folder is None:
        return reading
    try:
        own = described_options(folder)
    except UserError:
        return reading
    return replace(reading, **{name: own[name] for name in FILES_READING})


def source_of(name: str, checkpoint: Checkpoint, folder: Path | None) -> dict[str, Any]:
    """Return where a run's corpus came from, as config.json has it; without a run, a named one."""
    own = checkpoint.meta["corpus"]["name"]
    if folder is None and own in NAMED:
        return {"corpus": own, "data": None}
    if folder is None:
        raise UserError(f"'{name}' is not in a run's folder: say what to evaluate on with --corpus")
    try:
        own = described_options(folder)
    except UserError as error:
        raise UserError(
            f"'{folder / CONFIG}' is missing or damaged: say what to evaluate on with --corpus"
        ) from error
    return {name: own[name] for name in ("corpus", "data")}


def own_corpus(
    name: str, checkpoint: Checkpoint, run_folder: Path | None, reading: Reading
) -> Corpus:
    """Return a run's corpus, read in some way. Raises UserError where it is no longer there."""
    source = source_of(name, checkpoint, run_folder)
    data = Path(source["data"]) if source["data"] else None
    return load_corpus(source["corpus"], data, reading, progress=sys.stderr.isatty())


def evaluation_corpus(
    name: str, checkpoint: Checkpoint, folder: Path | None, corpus: str | None, data: Path | None
) -> Corpus:
    """Return the corpus to evaluate a run on: one by its name, or read from data, or its own.

    Raises UserError where its tokens are not those that the model knows.
    """
    if corpus:
        source: dict[str, Any] = {"corpus": corpus, "data": data}
    else:
        source = source_of(name, checkpoint, folder)
    place = data or source["data"]
    loaded = load_corpus(
        source["corpus"],
        Path(place) if place else None,
        reading_of(checkpoint, folder),
        progress=sys.stderr.isatty(),
    )
    if loaded.vocabulary.hash != checkpoint.vocabulary.hash:
        own = not (corpus or data)
        raise UserError(
            f"the tokens of '{loaded.name}' are not those that '{name}' was trained on: "
            + ("the corpus has changed, train a new run" if own else "use the run's own corpus")
        )
    return loaded


def ops_of(backend: str, tokens: int = 0, words: int = 0) -> NumpyOps:
    """Return the ops of a backend, for drawing so many tokens of a vocabulary of so many words.

    auto is NumPy, which starts at once, or, where it would take seconds, Numba's compiled loop.
    """
    if backend != "auto":
        return get_ops(backend)
    if tokens * (1 + words / WORDS_A_STEP) >= MANY_TOKENS:
        with suppress(UserError):
            return get_ops("numba")
    return get_ops("numpy")


def model_of(checkpoint: Checkpoint, backend: str, tokens: int = 0) -> Model:
    """Return a checkpoint's model on a backend, to draw about so many tokens."""
    ops = ops_of(backend, tokens, checkpoint.config.vocabulary)
    parameters = {name: ops.asarray(value) for name, value in checkpoint.parameters.items()}
    return Model(checkpoint.config, ops, parameters=parameters, words=checkpoint.words)
