"""A run's folder: what describes the run, and metrics.csv."""

import csv
import errno
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.load import Reading
from lstm_music.errors import UserError
from lstm_music.files import beside, move_new
from lstm_music.network.config import Config
from lstm_music.runs.checkpoint import CHECKPOINTS, checkpoints_of, write_synced
from lstm_music.runs.meta import SETTINGS_RANGES, SHAPE_RANGES, check_origin
from lstm_music.runs.settings import Progress, Settings
from lstm_music.untrusted import (
    dictionary,
    of_fields,
    open_plain,
    path_text,
    read_bounded,
    read_json,
    typeable,
    whole_number,
)

FORMAT = 1  # of config.json
CONFIG = "config.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SHAPE = (
    "layers", "hidden", "embedding", "dropout", "input_dropout", "output_dropout", "head", "nade",
)  # fmt: skip
METRICS = "metrics.csv"
METRICS_BYTES, METRICS_ROWS = 32 << 20, 500_000  # the most that is drawn; 80 bytes are a row
LINE_BYTES = 1000  # of metrics.csv, at most
HEADER = "step,epoch,tokens,seconds,split,loss,learning_rate,grad_norm,tokens_per_second"


def new_run(
    run: Path,
    config: Config,
    corpus: Corpus,
    settings: Settings,
    source: dict[str, Any],
    reading: dict[str, Any],
    again: bool = False,
) -> Path:
    """Make a run's folder and return it; source and reading say where the corpus came from and how.

    again: whether a name with a number appended will do where run is taken. Raises UserError where
    it won't, and where the folder can't be made.
    """
    made = beside(run.with_name("new-run"))  # a run's own name may be too long for more
    try:
        made.mkdir(parents=True)
        describe_run(made, config, corpus, settings, source, reading)
        return move_new(made, run, again)  # a run that is killed before leaves no half of one
    except FileExistsError as error:
        raise run_exists(run) from error
    except OSError as error:
        raise not_writable(run, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def run_exists(run: Path) -> UserError:
    """Return the error for a new run in the place of another."""
    return UserError(f"the run '{run}' exists: continue it with --resume, or choose another --run")


def not_writable(run: Path, error: OSError) -> UserError:
    """Return the error for a run's folder that can't be written."""
    return UserError(
        f"can't write the run '{run}' ({error.strerror}): choose another place with --run"
    )


def no_run(run: Path) -> UserError:
    """Return the error for a run that isn't there."""
    return UserError(f"no run at '{run}': begin it without --resume")


def unsaved(run: Path, line: str, error: BaseException) -> UserError:
    """Return the error for a run whose last checkpoint can't be written; line says why."""
    before = checkpoints_of(run)
    there = f"{before[0].name} is whole" if before else "nothing of this run is saved"
    full = isinstance(error, OSError) and error.errno in FULL
    return UserError(
        f"{line}; {there}: {'free some space' if full else 'mend that'}, then go on with "
        f"bin/train --resume --run {typeable(run)}"
    )


def reason_of(error: BaseException) -> str:
    """Return in words why something couldn't be written."""
    return getattr(error, "strerror", None) or str(error) or "not enough memory"


def describe_run(
    run: Path,
    config: Config,
    corpus: Corpus,
    settings: Settings,
    source: dict[str, Any],
    reading: dict[str, Any],
) -> None:
    """Write what a run's folder holds before the first step."""
    summary = corpus.summary()
    counts = {key: summary[key] for key in ("pieces", "tokens", "unique_tokens", "splits")}
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
    write_synced(run / CONFIG, (json.dumps(described, indent=2) + "\n").encode())
    vocabulary = json.dumps(corpus.vocabulary.to_json(), indent=0)
    (run / "vocabulary.json").write_text(vocabulary + "\n", "utf-8")
    (run / METRICS).write_text(HEADER + "\n", "utf-8")
    write_table(run / "skipped.csv", ("file", "reason"), corpus.skipped)
    mended = [(file, kind, n) for file, kinds in corpus.mended for kind, n in kinds.items()]
    write_table(run / "mended.csv", ("file", "repair", "times"), mended)


def write_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def described_options(run: Path) -> dict[str, Any]:
    """Return the options that a run was begun with, from its config.json.

    Raises UserError where there is none, or one that isn't what `describe_run` writes.
    """
    path = run / CONFIG
    try:
        described = dictionary(read_json(path), "it")
        if whole_number(described["format"], "format", 0, 2**62) > FORMAT:
            raise UserError(f"'{path}' is of a newer version: upgrade lstm-music")
        # What older versions had no option for is as it was then.
        layout = dictionary(described["tokenizer"], "tokenizer").get("layout")
        older = asdict(Reading()) | ({"tracks": layout} if layout else {})
        reading = of_fields(Reading, known(Reading, described.get("reading", older)), "reading")
        training = known(Settings, described["training"])
        settings = of_fields(Settings, training, "training", SETTINGS_RANGES)
        config = of_fields(Config, known(Config, described["model"]), "model", SHAPE_RANGES)
        source = dictionary(described["source"], "source")
        data = source["data"]
        return {
            **asdict(reading),
            **asdict(settings),
            **{name: value for name, value in config.to_json().items() if name in SHAPE},
            "copy": config.copy > 0,
            "corpus": path_text(source["corpus"], "corpus"),
            "data": None if data is None else path_text(data, "data"),
            "origin": check_origin(source.get("origin")),
        }
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_run(run) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is damaged: train a new run with another --run") from error


def known(kind: type, value: Any) -> dict[str, Any]:
    """Return the fields of a dictionary that a dataclass has."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return {k: v for k, v in dictionary(value, kind.__name__).items() if k in names}


def metrics_row(
    at: Progress, split: str, loss: float, lr: float, norm: float | None, speed: float | None
) -> str:
    """Return a line of metrics.csv; norm and speed are of training alone."""
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
    return ",".join(map(str, row)) + "\n"


def append(path: Path, line: str, head: str = "") -> None:
    """Append a line to a file, of which head is the first one.

    Raises OSError, with the file as it was, where the disk refuses.
    """
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        data = (line if size else head + line).encode()
        if file.write(data) != len(data):  # a full disk takes what fits
            file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def cut_metrics(path: Path, rows: int) -> int:
    """Cut metrics.csv to so many rows, those that a checkpoint had seen; return how many are left.

    What a run wrote after the checkpoint it resumes from, it writes again.
    """
    lines = []
    with suppress(OSError, ValueError):  # what is no plain file makes room for one
        lines = list(first_lines(path, rows + 1))[1:]
    made = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        write_synced(made, ("\n".join([HEADER, *lines]) + "\n").encode())
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    return len(lines)


def first_lines(path: Path, n: int) -> Iterator[str]:
    """Yield the first n lines of a text file, none longer than LINE_BYTES. Raises as open_plain."""
    with open_plain(path) as file:
        for _ in range(n):
            line = file.readline(LINE_BYTES)
            if not line:
                return
            yield line.decode("utf-8", "replace").rstrip("\r\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.csv that can be read; none where there is no such file.

    Each has step, epoch, tokens (int), split, loss and learning_rate (finite). Raises UserError for
    no plain file, and for more than METRICS_BYTES or METRICS_ROWS.
    """
    try:
        data = read_bounded(path, METRICS_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise no_metrics(path, error) from error
    rows = []
    with suppress(csv.Error):
        for row in csv.DictReader(io.StringIO(data.decode("utf-8", "replace"), newline="")):
            with suppress(KeyError, TypeError, ValueError):
                rows.append(numbers_of(row))
            if len(rows) > METRICS_ROWS:
                raise no_metrics(path, f"it has more than {METRICS_ROWS:,} rows")
    return rows


def no_metrics(path: Path, reason: object) -> UserError:
    """Return the error for a metrics.csv that is something else."""
    said = getattr(reason, "strerror", None) or reason
    return UserError(f"can't read '{path}' ({said}): move it away to go on without its losses")


def numbers_of(row: dict[str, str]) -> dict[str, Any]:
    """Return a row of metrics.csv with its numbers as such. Raises ValueError, among others."""
    read: dict[str, Any] = {"split": row["split"]}
    for name in ("step", "epoch", "tokens"):
        read[name] = whole_number(int(row[name]), name, 0, 2**62)
    for name in ("loss", "learning_rate"):
        read[name] = float(row[name])
        if not math.isfinite(read[name]):
            raise ValueError(f"{name} is no number")
    return read


def sync(path: Path) -> None:
    """Wait until the disk has a file, if there is one. Raises OSError where it can't."""
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())
