"""Checkpoints: safetensors and JSON, written whole or not at all, verified when read.

A checkpoint is a folder `step-00001000` with model.safetensors (all that sampling needs, with
meta.json) and train.safetensors (what resuming needs besides). Each file's SHA-256 is in
meta.json, its own included. Nothing is ever pickled.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lstm_music.arrays import Array
from lstm_music.errors import UserError
from lstm_music.network.config import Config
from lstm_music.network.model import parameter_shapes
from lstm_music.runs.meta import check_meta
from lstm_music.tokenizers.messages import word_parts
from lstm_music.tokenizers.vocabulary import Vocabulary
from lstm_music.untrusted import JSON_BYTES, read_bounded, read_json, typeable

FORMAT = 2
MODEL_FILE, TRAIN_FILE, META_FILE = "model.safetensors", "train.safetensors", "meta.json"
CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
LINKS = ("best", "latest")
STEP = re.compile("step-[0-9]{1,18}")
NAME_BYTES = 64  # of a file that stands for a link, at most
CANT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
HEADER_MOST = 1 << 20  # bytes of a safetensors header; one of 64 layers has a tenth
ARRAYS_MOST = {MODEL_FILE: 1, TRAIN_FILE: 4}  # arrays of each parameter's shape


class Checkpoint(NamedTuple):
    """A checkpoint that was read and found whole."""

    path: Path
    meta: dict[str, Any]
    config: Config
    vocabulary: Vocabulary
    parameters: dict[str, Array]

    @property
    def words(self) -> tuple[Array, Array] | None:
        """The classes and deltas of the words, which a factored head needs; None of another."""
        return word_parts(self.vocabulary) if self.config.head == "factored" else None


class DamagedCheckpoint(UserError):
    """A file of a checkpoint isn't what was written; `reason` is the message without advice."""

    def __init__(self, path: Path, reason: object) -> None:
        self.reason = f"'{path}' is damaged ({' '.join(str(reason).split())})"
        super().__init__(f"{self.reason}: use another checkpoint of the run")


# Writing ----------------------------------------------------------------------------------------


def write_checkpoint(
    run: Path, step: int, model: dict[str, Array], train: dict[str, Array], meta: dict[str, Any]
) -> Path:
    """Write a checkpoint of a run, atomically, and point `latest` at it.

    Raises OSError where the disk refuses; what was there before is then untouched. Raises
    UserError for meta that couldn't be read again.
    """
    folder = run / CHECKPOINTS
    final = folder / step_name(step)
    made = folder / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(made, ignore_errors=True)
    folder.mkdir(exist_ok=True)  # but not the run's: one without its config.json can't go on
    made.mkdir()
    try:
        files = {MODEL_FILE: save(model), TRAIN_FILE: save(train)}
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        files[META_FILE] = sealed({"format": FORMAT, **meta, "step": step, "sha256": hashes})
        if len(files[META_FILE]) > JSON_BYTES:
            raise UserError(
                f"{META_FILE} would have more than {JSON_BYTES:,} bytes, mostly words: train on "
                "fewer pieces, or with --representation chord or note"
            )
        for name, data in files.items():
            write_synced(made / name, data)
        sync_folder(made)
        put_in_place(made, final)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    point(folder, "latest", final.name)
    sync_folder(folder)
    return final


def step_name(step: int) -> str:
    """Return the name of the checkpoint of a step."""
    return f"step-{step:08d}"


def sealed(meta: dict[str, Any]) -> bytes:
    """Return meta.json: the fields, and last their own SHA-256."""
    return json.dumps({**meta, "seal": seal(meta)}).encode()


def seal(meta: dict[str, Any]) -> str:
    """Return the SHA-256 of fields as JSON, which reading and writing again doesn't change."""
    return hashlib.sha256(json.dumps(meta).encode()).hexdigest()


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def put_in_place(made: Path, final: Path) -> None:
    """Rename a folder to its final name, and remove what had that name before.

    There is something only where a run, resumed from an older checkpoint because this one was
    damaged, comes by again.
    """
    old = made.with_suffix(".old.tmp")
    if final.exists():
        final.rename(old)
    made.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """Wait until the disk has a folder's entries, where the file system can say so."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in CANT_SYNC:
            raise
    finally:
        os.close(handle)


def point(folder: Path, link: str, name: str) -> None:
    """Make folder/link point to the checkpoint of a name, atomically.

    It is a symbolic link, or, where the file system has none, a file that holds the name.
    """
    copied = is_copy(folder / link)
    if linked(folder, link) == folder / name and not copied:
        return
    made = folder / f".{link}.{os.getpid()}.tmp"
    made.unlink(missing_ok=True)
    try:
        os.symlink(name, made)
    except (OSError, NotImplementedError):  # a disk that refuses everything refuses the file, too
        write_synced(made, f"{name}\n".encode())
    if copied:
        shutil.rmtree(folder / link)
    made.replace(folder / link)


def point_best(run: Path, step: int | None) -> None:
    """Point `best` to the checkpoint of a step, if it is there; to none where step is None.

    That is where a run that goes on would have it: one that stopped inside an epoch judged its
    last checkpoint, and one that fell back to an older checkpoint forgets what came after.
    """
    folder = run / CHECKPOINTS
    if step is not None:
        if (folder / step_name(step)).is_dir():
            point(folder, "best", step_name(step))
    elif is_copy(folder / "best"):
        shutil.rmtree(folder / "best")
    else:
        (folder / "best").unlink(missing_ok=True)


def is_copy(link: Path) -> bool:
    """Return whether what should be a link is a folder: some programs copy what links point to."""
    return link.is_dir() and not link.is_symlink()


def prune(run: Path, keep: int) -> None:
    """Remove all but the best and the last `keep` checkpoints of a run, and what a crash left."""
    folder = run / CHECKPOINTS
    kept = {path.name for path in (linked(folder, link) for link in LINKS) if path}
    checkpoints = checkpoints_of(run)
    kept.update(path.name for path in checkpoints[:keep])
    for path in checkpoints:
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


# Reading ----------------------------------------------------------------------------------------


def checkpoints_of(run: Path) -> list[Path]:
    """List a run's checkpoints, the newest first."""
    every = (run / CHECKPOINTS).glob("step-*")
    found = [p for p in every if STEP.fullmatch(p.name) and not p.is_symlink()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint's model.

    Raises UserError: DamagedCheckpoint, or where it is none or of a newer version's format.
    """
    meta = read_meta(path)
    try:
        config, vocabulary = check_meta(meta)
    except (KeyError, TypeError, ValueError, OverflowError, UserError) as error:
        raise DamagedCheckpoint(path / META_FILE, error) from error
    parameters = read_arrays(path, MODEL_FILE, meta)
    shapes = {name: array.shape for name, array in parameters.items()}
    if shapes != parameter_shapes(config):
        raise DamagedCheckpoint(path / MODEL_FILE, "its arrays don't fit the model of meta.json")
    return Checkpoint(path, meta, config, vocabulary, parameters)


def read_meta(path: Path) -> dict[str, Any]:
    """Read a checkpoint's meta.json, check its format version, then its seal."""
    file = path / META_FILE
    if not path.is_dir():
        raise UserError(f"no checkpoint at '{path}': give a run's folder, or a step-… folder in it")
    try:
        meta = dict(read_json(file))
        version = int(meta["format"])
        if version <= FORMAT and meta.pop("seal") != seal(meta):
            raise ValueError("its SHA-256 is not the one it was sealed with")
    except FileNotFoundError as error:
        raise DamagedCheckpoint(file, "it is missing") from error
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise DamagedCheckpoint(file, error) from error
    if version > FORMAT:
        raise UserError(
            f"'{path}' has checkpoint format {version}, and this version reads up to {FORMAT}: "
            "upgrade lstm-music"
        )
    return meta


def read_arrays(path: Path, name: str, meta: dict[str, Any]) -> dict[str, Array]:
    """Read one safetensors file of a checkpoint: its size, hash, header and numbers checked."""
    try:
        data = read_bounded(path / name, most_bytes(name, meta))
        if hashlib.sha256(data).hexdigest() != meta["sha256"][name]:
            raise ValueError("its SHA-256 is not the one in meta.json")
        return arrays_of(data)
    except FileNotFoundError as error:
        raise DamagedCheckpoint(path / name, "it is missing") from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, UserError) as error:
        raise DamagedCheckpoint(path / name, error) from error


def most_bytes(name: str, meta: dict[str, Any]) -> int:
    """Return how many bytes a file of a checkpoint has at most, from its meta.json."""
    config = Config(**meta["model"])
    elements = sum(math.prod(shape) for shape in parameter_shapes(config).values())
    streams = int(dict(meta.get("settings", {})).get("batch", 0))
    state = 2 * config.layers * config.rows * config.hidden * streams
    return 8 * (ARRAYS_MOST[name] * elements + state) + HEADER_MOST + 8


def arrays_of(data: bytes) -> dict[str, Array]:
    """Return the arrays of a safetensors file.

    Raises ValueError for a forged header, which otherwise costs memory before it is refused, and
    for arrays of anything but finite real numbers; SafetensorError for other damage.
    """
    if len(data) < 8 or int.from_bytes(data[:8], "little") > min(len(data) - 8, HEADER_MOST):
        raise ValueError("its header is longer than it can be")
    arrays = {key: np.asarray(value) for key, value in load(data).items()}
    for key, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{key} holds something else than finite numbers")
    return arrays


def linked(folder: Path, link: str) -> Path | None:
    """Return the checkpoint that a link, or what stands for one, points to; None where it's none.

    A link must name a checkpoint beside itself: a run of somebody else's could point anywhere.
    """
    path = folder / link
    try:
        if path.is_symlink():
            name = os.readlink(path)
        elif is_copy(path):
            name = step_name(int(read_json(path / META_FILE)["step"]))
        else:
            name = read_bounded(path, NAME_BYTES).decode().strip()
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    found = folder / name
    return found if STEP.fullmatch(name) and found.is_dir() and not found.is_symlink() else None


def in_order(run: Path, links: Sequence[str]) -> list[Path]:
    """List a run's checkpoints to try: where the links point, then the newest first."""
    folder = run / CHECKPOINTS
    found = [linked(folder, link) for link in links]
    order = [path for path in found if path is not None] + checkpoints_of(run)
    return [path.resolve() for path in dict.fromkeys(order)]


def read_run(
    run: Path,
    warn: Callable[[str], None],
    links: Sequence[str] = LINKS,
    train: bool = False,
) -> tuple[Checkpoint, dict[str, Array]]:
    """Read the first whole checkpoint of a run, and its training arrays if asked for.

    warn is called with a line for each damaged one passed over. Raises UserError if none is
    left, or if one is of a newer version's format: going on from an older one would lose it.
    """
    paths = in_order(run, links)
    if not paths:
        raise UserError(
            f"'{run}' has no checkpoint: train it first, with bin/train --run {typeable(run)}"
        )
    reasons = [
        f"'{run / CHECKPOINTS / link}' points to no checkpoint beside it"
        for link in links
        if os.path.lexists(run / CHECKPOINTS / link) and linked(run / CHECKPOINTS, link) is None
    ]
    for path in paths:
        try:
            checkpoint = read_checkpoint(path)
            arrays = read_arrays(path, TRAIN_FILE, checkpoint.meta) if train else {}
        except DamagedCheckpoint as error:
            reasons.append(error.reason)
            continue
        for reason in reasons:
            warn(f"{reason}: using {path.name} instead")
        return checkpoint, arrays
    raise UserError(
        f"no whole checkpoint is left in '{run}' ({reasons[0]}): train a new run, or copy one back"
    )
