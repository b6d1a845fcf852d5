"""Where runs are, and the models that come with the package: what a command's RUN names."""

import os
from importlib import resources
from pathlib import Path

from lstm_music.checkpoint import (
    CHECKPOINTS,
    LINKS,
    META_FILE,
    Checkpoint,
    linked,
    read_checkpoint,
    read_run,
)
from lstm_music.cli.common import warn
from lstm_music.errors import UserError
from lstm_music.names import typeable

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


def open_run(name: str) -> tuple[Checkpoint, Path | None]:
    """Return the checkpoint that an argument names, and the run that it belongs to, if any.

    name: a run, whose best checkpoint is taken, a checkpoint's folder, or, where no run has that
    name, one of BUNDLED.
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
