"""What a page tells of runs: their losses, samples, figures and tables, and what each run is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lstm_music.midi.piece import Piece
from lstm_music.network.model import parameter_shapes
from lstm_music.runs.checkpoint import Checkpoint


@dataclass(frozen=True)
class Row:
    """What metrics.csv says of a split at a step; learning_rate in force before it."""

    step: int
    split: str
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Sample:
    """A piece that was composed: what the page shows, plays and offers.

    origin: where its beginning comes from, or ""; wav: a small one, or None; score: SVG, or None;
    remarks: why one of them is missing.
    """

    piece: Piece
    temperature: float
    origin: str
    midi: bytes
    wav: bytes | None
    score: str | None
    remarks: list[str]


@dataclass(frozen=True)
class Picture:
    """A figure: a PNG, what it shows in words for those who can't see it, and what it means."""

    title: str
    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Numbers with a caption: heads of columns; rows of a name, cells, and whether to stress it."""

    caption: str
    heads: list[str]
    rows: list[tuple[str, list[str], bool]]

    @property
    def stressed(self) -> set[int]:
        """The numbers of the rows to stress."""
        return {n for n, (_, _, own) in enumerate(self.rows) if own}


@dataclass(frozen=True)
class RunReport:
    """What the page tells of a run. top_p: bin/sample's own."""

    name: str
    checkpoint: Checkpoint
    metrics: list[Row]
    top_p: float
    samples: list[Sample]
    pictures: list[Picture] = field(default_factory=list)


def sentence(run: RunReport, named: bool) -> str:
    """Return what a run is, in a sentence."""
    config, meta = run.checkpoint.config, run.checkpoint.meta
    what = {
        "message": "MIDI messages", "event": "bars and what happens in them",
        "performance": "notes as they were played", "chord": "chords",
        "note": "notes, 88 at a time",
    }  # fmt: skip
    layers = f"{config.layers} LSTM layer{'s' * (config.layers > 1)} of {config.hidden} units"
    learnt = f"that learnt “{corpus_name(run)}” as {what[meta['tokenizer']['name']]}"
    return f"{run.name + ': ' if named else ''}{layers}, {parameters(run):,} parameters, {learnt}."


def corpus_name(run: RunReport) -> str:
    """Return the name of a run's corpus; of a path, which is nobody else's business, the last."""
    return Path(run.checkpoint.meta["corpus"]["name"]).name


def parameters(run: RunReport) -> int:
    """Return the number of a run's parameters."""
    return sum(int(np.prod(shape)) for shape in parameter_shapes(run.checkpoint.config).values())


def settings_table(runs: Sequence[RunReport]) -> Table:
    """Return what each run is and how it was trained; what differs between runs stands out."""
    columns = [settings_of(run) for run in runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in names:
        cells = [column.get(name, "–") for column in columns]
        rows.append((name, cells, len(set(cells)) > 1))
    caption = "What the run is and how it was trained"
    if len(runs) > 1:
        caption = "What the runs are and how they were trained; what differs is bold"
    return Table(caption, [run.name for run in runs], rows)


def settings_of(run: RunReport) -> dict[str, str]:
    """Return a run's settings in words."""
    config, meta = run.checkpoint.config, run.checkpoint.meta
    progress = meta["progress"]
    tokenizer = {key: value for key, value in meta["tokenizer"].items() if key != "name"}
    best, origin = progress["best"], meta.get("origin")
    found: dict[str, Any] = {
        "corpus": corpus_name(run),
        "representation": meta["tokenizer"]["name"],
        **tokenizer,
        "vocabulary": config.vocabulary,
        "parameters": parameters(run),
        **{key: value for key, value in config.to_json().items() if key != "vocabulary"},
        "began with": origin and f"{Path(origin['name']).name}, step {origin['step']:,}",
        "steps": meta["step"],
        "epochs finished": progress["epoch"],
        "tokens or frames read": progress["tokens"],
        "minutes of training": round(progress["seconds"] / 60, 1),
        "best validation loss": None if best is None else round(best, 4),
        **meta["settings"],
        "sampled_softmax": meta["settings"].get("sampled_softmax") or None,
    }
    of_heads = {"nade": ("nade", "biaxial"), "classes": ("factored",), "deltas": ("factored",)}
    for name, heads in of_heads.items():
        if config.head not in heads:
            del found[name]
    given = {key.replace("_", " "): value for key, value in found.items() if value is not None}
    return {key: in_words(value) for key, value in given.items()}


def in_words(value: Any) -> str:
    """Return a setting as the page shows it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
