"""What came of an experiment's run: how far it got, what it cost, how well it predicts.

All of it is read from the run's folder (config.json, metrics.csv, the last checkpoint's meta.json)
and from what `bin/reproduce` puts there: evaluation-valid.json, evaluation-test.json, music.json,
chorales.json, embedding.json. It can be kept as JSON, beside a page, without the run.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lstm_music import untrusted
from lstm_music.errors import UserError
from lstm_music.files import beside
from lstm_music.reproduction.experiments import BASELINES
from lstm_music.runs.checkpoint import CHECKPOINTS, META_FILE, linked, write_synced
from lstm_music.runs.folder import CONFIG, METRICS, read_metrics

Row = dict[str, Any]
Points = list[tuple[float, float]]  # epochs, nats
KEPT = {  # of what was judged, what a page shows
    "evaluation": ("name", "nats_per_token", "nats_per_note", "nats_per_frame", "frame_accuracy"),
    "corpus": ("pieces", "tokens", "unique_tokens", "splits"),
    "music": ("name", "kind", "overlap", "repetition"),
    "chorales": ("name", "pieces", "faults", "rooted"),
}
DIGITS = 6
TRIAL = "trial"  # in a record: whether its runs are those of --scale smoke
OTHERS = (BASELINES, TRIAL)  # of a record, beside the runs


class Outcome(NamedTuple):
    """What is known of a run; what isn't is None or empty.

    config: of config.json, the corpus's counts and the tokenizer's name; epochs: passes over
    the training split that were made, with a fraction; seconds: of training steps alone;
    stopped_early: whether validation no longer got better; curves: split -> losses by epoch;
    evaluation: split -> rows of bin/evaluate, the model's own first; music, chorales: the sets
    that were judged, those of the run among them; noted: what bin/reproduce wrote down, such as
    the hardware.
    """

    name: str
    config: dict[str, Any]
    epochs: float
    seconds: float
    stopped_early: bool
    curves: dict[str, Points]
    evaluation: dict[str, list[Row]]
    music: list[Row]
    chorales: list[Row]
    embedding: Row | None
    noted: dict[str, Any]

    @property
    def epoch_seconds(self) -> float | None:
        """Seconds of training steps an epoch."""
        return self.seconds / self.epochs if self.epochs else None

    def projected_hours(self, epochs: int) -> float | None:
        """Return how long so many epochs take at the pace so far."""
        pace = self.epoch_seconds
        return None if pace is None else pace * epochs / 3600

    @property
    def unit(self) -> str:
        """What a loss is the mean nats of."""
        return "frame" if self.config["tokenizer"]["name"] == "note" else "token"

    def row(self, split: str, name: str = "") -> Row:
        """Return what was evaluated on a split: the model, or a baseline by its name."""
        rows = self.evaluation.get(split, [])
        if not name:
            return rows[0] if rows else {}
        return next((row for row in rows[1:] if row["name"] == name), {})


def read_outcome(folder: Path, noted: dict[str, Any] | None = None) -> Outcome | None:
    """Return what came of a run, None where there is no run with a checkpoint."""
    config = read_json(folder / CONFIG)
    latest = linked(folder / CHECKPOINTS, "latest")
    meta = read_json(latest / META_FILE) if latest else None
    if config is None or meta is None:
        return None
    at = meta["progress"]
    rows = read_metrics(folder / METRICS)
    epoch_tokens = tokens_an_epoch(rows, at["epoch"], config["corpus"]["splits"]["train"]["tokens"])
    curves = {
        split: [
            (row["tokens"] / epoch_tokens, row["loss"]) for row in rows if row["split"] == split
        ]
        for split in ("train", "valid")
    }
    evaluation = {
        split: read_json(folder / f"evaluation-{split}.json") or [] for split in ("valid", "test")
    }
    music, chorales = (read_json(folder / f"{name}.json") or {} for name in ("music", "chorales"))
    unknown = {"share_12": {"value": None}}
    return Outcome(
        folder.name,
        {
            "corpus": chosen(config["corpus"], "corpus"),
            "tokenizer": {"name": config["tokenizer"]["name"]},
        },
        at["tokens"] / epoch_tokens,
        at["seconds"],
        0 < config["training"]["early_stop"] <= at["since_best"],
        curves,
        {
            split: [chosen(row, "evaluation") | {"name": Path(row["name"]).name} for row in rows]
            for split, rows in evaluation.items()
        },
        [
            chosen(one, "music") | {"copied": (one["memorisation"] or unknown)["share_12"]["value"]}
            for one in music.get("sets", [])
        ],
        [chosen(one, "chorales") for one in chorales.get("sources", [])],
        read_json(folder / "embedding.json"),
        noted or {},
    )


def chosen(row: Row, which: str) -> Row:
    """Return what is kept of a row."""
    return {key: row[key] for key in KEPT[which] if key in row}


def rounded(value: Any) -> Any:
    """Return what JSON holds, its numbers rounded to so many digits as pages need."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def read_record(path: Path) -> dict[str, Any]:
    """Return what came of runs by name, as a page's record holds it; nothing where there is none.

    Raises UserError for a file that is no record, so that none is overwritten.
    """
    if not path.exists():
        return {}
    found = read_json(path)
    runs = {k: v for k, v in found.items() if k not in OTHERS} if isinstance(found, dict) else None
    if runs is None or any(not isinstance(v, dict) or {*v} != {*Outcome._fields}
                           for v in runs.values()):  # fmt: skip
        raise UserError(f"'{path}' is no record of bin/reproduce: move it away, or mend it")
    return dict(found)


class Ledger:
    """A JSON file of what was done, by the name of what it was done to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> dict[str, dict[str, Any]]:
        """Return everything."""
        found: dict[str, dict[str, Any]] = read_json(self.path) or {}
        return found

    def of(self, name: str) -> dict[str, Any]:
        """Return what was done to something, nothing where nothing was."""
        return self.all().get(name, {})

    def note(self, name: str, **facts: Any) -> None:
        """Write down facts beside those that are known. Raises OSError where the disk refuses."""
        found = self.all()
        found[name] = found.get(name, {}) | facts
        made = beside(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_synced(made, (json.dumps(found, indent=2) + "\n").encode())
            made.replace(self.path)
        finally:
            made.unlink(missing_ok=True)


def tokens_an_epoch(rows: Sequence[Row], whole: int, counted: int) -> float:
    """Return the tokens of an epoch: of the `whole` ones that were ended, or as the corpus counts.

    The corpus's count leaves out the end symbols, of which there are few.
    """
    ended = [row["tokens"] for row in rows if row["epoch"] == whole - 1]
    return max(ended) / whole if ended else max(counted, 1)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, None where there is none that can be read."""
    try:
        return untrusted.read_json(path)
    except (OSError, ValueError):
        return None
