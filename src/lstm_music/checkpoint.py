"""Checkpoints: safetensors and JSON, written whole or not at all, verified when read.

A checkpoint is a folder `step-00001000` with model.safetensors (all that sampling needs, with
meta.json) and train.safetensors (what resuming needs besides). Each file's SHA-256 is in
meta.json. Nothing is ever pickled.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lstm_music.errors import UserError
from lstm_music.model import Config, parameter_shapes
from lstm_music.ops.numpy_ops import Array
from lstm_music.tokenizers.vocabulary import Vocabulary

FORMAT = 1
MODEL_FILE, TRAIN_FILE, META_FILE = "model.safetensors", "train.safetensors", "meta.json"
KEEP_LAST = 2  # checkpoints kept besides the best


class Checkpoint(NamedTuple):
    """A checkpoint that was read and found whole."""

    path: Path
    meta: dict[str, Any]
    config: Config
    vocabulary: Vocabulary
    parameters: dict[str, Array]


def write_checkpoint(
    run: Path, step: int, model: dict[str, Array], train: dict[str, Array], meta: dict[str, Any]
) -> Path:
    """Write a checkpoint of a run, atomically, and point `latest` at it.

    Raises OSError where the disk refuses; what was there before is then untouched.
    """
    folder = run / "checkpoints"
    final = folder / f"step-{step:08d}"
    made = folder / f".step-{step:08d}.{os.getpid()}.tmp"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        files = {MODEL_FILE: save(model), TRAIN_FILE: save(train)}
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        text = json.dumps({"format": FORMAT, **meta, "step": step, "sha256": hashes})
        for name, data in (files | {META_FILE: text.encode()}).items():
            write_synced(made / name, data)
        if final.exists():  # of an earlier life of this run, and not the one it resumed from
            shutil.rmtree(final)
        made.rename(final)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    point(folder, "latest", final.name)
    return final


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the disk has a folder's entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def point(folder: Path, link: str, name: str) -> None:
    """Make the symbolic link folder/link point to name, atomically."""
    made = folder / f".{link}.{os.getpid()}.tmp"
    made.unlink(missing_ok=True)
    made.symlink_to(name)
    made.replace(folder / link)


def prune(run: Path) -> None:
    """Remove all but the best and the last few checkpoints of a run."""
    folder = run / "checkpoints"
    kept = {(folder / link).resolve().name for link in ("latest", "best")}
    kept.update(path.name for path in checkpoints_of(run)[:KEEP_LAST])
    for path in checkpoints_of(run):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def checkpoints_of(run: Path) -> list[Path]:
    """List a run's checkpoints, the newest first."""
    return sorted((run / "checkpoints").glob("step-*"), reverse=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint's model. Raises UserError, with the reason, if it is damaged."""
    meta = read_meta(path)
    try:
        config = Config(**meta["model"])
        vocabulary = Vocabulary.from_json(meta["vocabulary"])
        if len(vocabulary) != config.vocabulary:
            raise ValueError("vocabulary and model differ in size")
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise damaged(path / META_FILE, str(error)) from error
    parameters = read_arrays(path, MODEL_FILE, meta)
    shapes = {name: array.shape for name, array in parameters.items()}
    if shapes != parameter_shapes(config):
        raise damaged(path / MODEL_FILE, "the arrays don't fit the model that meta.json describes")
    return Checkpoint(path, meta, config, vocabulary, parameters)


def read_meta(path: Path) -> dict[str, Any]:
    """Read a checkpoint's meta.json and check its format version."""
    if not (path / META_FILE).is_file():
        raise UserError(f"no checkpoint at '{path}': give a run's folder, or a step-… folder in it")
    try:
        meta = json.loads((path / META_FILE).read_bytes())
        version = meta["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path / META_FILE, str(error)) from error
    if version != FORMAT:
        raise UserError(
            f"'{path}' has checkpoint format {version}, and this version reads {FORMAT}: "
            "upgrade lstm-music"
        )
    return dict(meta)


def read_arrays(path: Path, name: str, meta: dict[str, Any]) -> dict[str, Array]:
    """Read one safetensors file of a checkpoint, after checking its hash."""
    try:
        data = (path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != meta["sha256"][name]:
            raise ValueError("its SHA-256 is not the one in meta.json")
        return {key: np.asarray(value) for key, value in load(data).items()}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise damaged(path / name, str(error)) from error


def damaged(path: Path, reason: str) -> UserError:
    """Return the error for a damaged file."""
    line = " ".join(reason.split())
    return UserError(f"'{path}' is damaged ({line}): use another checkpoint of the run")


def best_or_latest(run: Path, links: tuple[str, ...] = ("best", "latest")) -> list[Path]:
    """List the checkpoints to try, in order: where the links point, then newest first."""
    folder = run / "checkpoints"
    order = [(folder / link).resolve() for link in links if (folder / link).exists()]
    order += [path.resolve() for path in checkpoints_of(run)]
    return list(dict.fromkeys(order))


def read_run(
    run: Path, warn: Any, links: tuple[str, ...] = ("best", "latest"), train: bool = False
) -> tuple[Checkpoint, dict[str, Array]]:
    """Read the first whole checkpoint of a run, and its training arrays if asked for.

    warn is called with a line for each damaged one passed over. Raises UserError if none is left.
    """
    paths = best_or_latest(run, links)
    if not paths:
        raise UserError(f"'{run}' has no checkpoint: train it with bin/train --run {run}")
    reasons = []
    for path in paths:
        try:
            checkpoint = read_checkpoint(path)
            arrays = read_arrays(path, TRAIN_FILE, checkpoint.meta) if train else {}
        except UserError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            warn(f"{reason}; using {path.name}")
        return checkpoint, arrays
    raise UserError(f"no whole checkpoint is left in '{run}': {reasons[0]}")
