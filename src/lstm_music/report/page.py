"""One HTML page about runs that needs nothing from outside: sounds, pictures and networks inside.

Here is what the page is made of; `cli/report.py` gathers it. `report/browser/` holds the template,
the style and the scripts. Every name and word goes through `markup.tag`, which escapes it.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from lstm_music import __version__
from lstm_music.midi.piece import TEMPO, TICKS_PER_QUARTER, Piece, notes_of
from lstm_music.network.model import parameter_shapes
from lstm_music.rendering.charts import Curve, curves, legend
from lstm_music.rendering.html import Html, data_url, escaped, joined, tag
from lstm_music.report.browser_model import page_model, weights_size
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.tokenizers.events import bars_of
from lstm_music.untrusted import typeable

MOST = 8_000_000  # bytes of a page
PRIMER_LENGTH = 16  # tokens or frames with which composing begins, as in bin/sample
SCRIPTS = (
    "rules_table.js", "rules.js", "recall.js", "copying.js", "compose.js", "page.js",
)  # fmt: skip


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


@dataclass(frozen=True)
class RunReport:
    """What the page tells of a run. top_p: bin/sample's own."""

    name: str
    checkpoint: Checkpoint
    metrics: list[Row]
    top_p: float
    samples: list[Sample]
    pictures: list[Picture] = field(default_factory=list)


# The page ---------------------------------------------------------------------------------------


def page(
    runs: Sequence[RunReport], tables: Sequence[Table], remarks: Sequence[str], most: int = MOST
) -> str:
    """Return the page of runs as HTML of at most so many bytes, where its samples leave the room.

    tables: likelihoods; remarks: what to say beneath them. The networks that still fit are in the
    page; of the others it says that they don't.
    """
    parts = parts_of(runs, tables, remarks)
    top = header(runs, [("compose", "Compose here"), *((name, title) for name, title, _ in parts)])
    main = [section(*part) for part in parts]
    samples = [sample for run in runs for sample in run.samples]
    shown = [sample_data(sample) for sample in samples]
    bare = len(shell(runs, top, main, {"samples": shown, "models": []}).encode())
    models, too_large = fitting(runs, most - bare - len(compose_section(runs, [], []).encode()))
    compose = compose_section(runs, models, too_large)
    data = {"samples": shown, "models": models, "primer_length": PRIMER_LENGTH}
    return shell(runs, top, [compose, *main], data)


def shell(runs: Sequence[RunReport], top: Html, main: Sequence[Html], data: Any) -> str:
    """Return the template, filled."""
    scripts = "\n".join(page_file(name) for name in SCRIPTS)
    return Template(page_file("page.html")).substitute(
        title=escaped(f"{title_of(runs)} – lstm-music"),
        policy=escaped(policy(scripts)),
        version=__version__,
        style=page_file("page.css"),
        header=top,
        main=joined(*main),
        data=json_in_html(data),
        script=scripts,
    )


def policy(scripts: str) -> str:
    """Return what the browser is to allow: nothing from outside, and no script but these."""
    digest = base64.b64encode(hashlib.sha256(scripts.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )


def page_file(name: str) -> str:
    """Return the text of a file of the folder report/browser/."""
    return resources.files("lstm_music.report").joinpath("browser", name).read_text("utf-8")


def json_in_html(data: Any) -> str:
    """Return JSON that no HTML parser takes for markup."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def title_of(runs: Sequence[RunReport]) -> str:
    """Return what the page is about."""
    return runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"


def header(runs: Sequence[RunReport], sections: Sequence[tuple[str, str]]) -> Html:
    """Return the title, what each run is in a sentence, and links to sections: id and title."""
    lead = [tag("p", sentence(run, len(runs) > 1), class_="lead") for run in runs]
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title in sections]
    contents = tag("nav", tag("ul", *links), aria_label="Sections")
    return joined(tag("h1", title_of(runs)), *lead, contents)


def sentence(run: RunReport, named: bool) -> str:
    """Return what a run is, in a sentence."""
    config, meta = run.checkpoint.config, run.checkpoint.meta
    what = {
        "message": "MIDI messages", "event": "bars and what happens in them",
        "chord": "chords", "note": "notes, 88 at a time",
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


def parts_of(
    runs: Sequence[RunReport], tables: Sequence[Table], remarks: Sequence[str]
) -> list[tuple[str, str, list[Html]]]:
    """Return id, title and content of each section after the first."""
    likelihood = [*map(table, tables), *(tag("p", remark, class_="note") for remark in remarks)]
    parts = [
        ("samples", "Samples", samples_of(runs)),
        ("learning", "Learning", learning(runs)),
        ("likelihood", "Likelihood", likelihood),
        ("figures", "Figures", pictures_of(runs)),
        ("settings", "Settings", [table(settings_table(runs))]),
    ]
    return [part for part in parts if part[2]]


def section(name: str, title: str, content: Sequence[Html]) -> Html:
    """Return a section with its heading."""
    heading = tag("h2", title, id=f"{name}-title")
    return tag("section", heading, *content, id=name, aria_labelledby=f"{name}-title")


# Composing --------------------------------------------------------------------------------------


def fitting(runs: Sequence[RunReport], room: int) -> tuple[list[dict[str, Any]], list[RunReport]]:
    """Return the models that fit so many bytes, in order, and the runs whose models don't."""
    models, too_large = [], []
    for run in runs:
        if weights_size(run.checkpoint.config) < room:
            model = page_model(run.name, run.checkpoint, run.top_p)
            size = len(json_in_html(model)) + 1
            if size <= room:
                models.append(model)
                room -= size
                continue
        too_large.append(run)
    return models, too_large


def compose_section(
    runs: Sequence[RunReport], models: Sequence[Any], too_large: Sequence[RunReport]
) -> Html:
    """Return the section in which the page composes, and of runs that it can't, says why."""
    said = [
        tag(
            "p",
            f"The network of “{run.name}” {why_not(run)}. To compose with it: ",
            tag("code", f"bin/sample {typeable(run.name)}"),
            class_="note",
        )
        for run in too_large
    ]
    if not models and too_large:
        return section("compose", "Compose here", said)
    content = Template(page_file("compose.html")).substitute(tempo=f"{TEMPO:.0f}")
    return section("compose", "Compose here", [Html(content), *said])


def why_not(run: RunReport) -> str:
    """Return why the page doesn't compose with a run's network."""
    return (
        f"is too large for this page: its weights take "
        f"{weights_size(run.checkpoint.config) / 1e6:.1f} MB, and a page holds "
        f"{MOST / 1e6:.0f} MB with all else"
    )


# Samples ----------------------------------------------------------------------------------------


def samples_of(runs: Sequence[RunReport]) -> list[Html]:
    """Return the samples of every run, each with its player."""
    parts: list[Html] = []
    number = 0
    for run in runs:
        if len(runs) > 1:
            parts.append(tag("h3", run.name))
        for sample in run.samples:
            parts.append(sample_figure(run, sample, number, "h4" if len(runs) > 1 else "h3"))
            number += 1
    return parts


def sample_figure(run: RunReport, sample: Sample, number: int, heading: str) -> Html:
    """Return a sample: what it is, its piano roll, its sound, its score, its MIDI file."""
    title = f"Temperature {sample.temperature:g}{character(sample.temperature)}"
    notes, seconds = size_of(sample.piece)
    about = f"{notes} notes, {seconds:.0f} s"
    if sample.origin:
        about += f", begun with {sample.origin}"
    label = f"Piano roll of the sample at temperature {sample.temperature:g}: {notes} notes"
    parts = [
        tag(heading, title),
        tag("p", about, class_="note"),
        tag("canvas", class_="roll", role="img", aria_label=label),
    ]
    if sample.wav is not None:
        sound = data_url("audio/wav", sample.wav)
        parts.append(tag("audio", src=sound, controls=True, preload="auto", aria_label=title))
    name = f"{run.name}-temperature-{sample.temperature:g}.mid"
    link = data_url("audio/midi", sample.midi)
    button = tag("a", "Download MIDI", href=link, download=name, class_="button")
    parts.append(tag("div", button, class_="buttons"))
    parts += [tag("p", remark, class_="note") for remark in sample.remarks]
    if sample.score:
        picture = data_url("image/svg+xml", sample.score.encode())
        image = tag("img", src=picture, alt=f"Score of {about}", class_="paper")
        sheet = tag("div", image, class_="score", tabindex=0, role="region", aria_label="Score")
        parts.append(tag("details", tag("summary", "Score"), sheet))
    return tag("div", *parts, class_="sample", data_sample=number, role="group", aria_label=title)


def character(temperature: float) -> str:
    """Return what a temperature is like, in words."""
    if temperature == 1:
        return ", as it learnt"
    return ", more careful" if temperature < 1 else ", bolder"


def size_of(piece: Piece) -> tuple[int, float]:
    """Return a piece's notes and its seconds."""
    notes = [notes_of(track) for track in piece.tracks]
    end = max((int(track[:, 1].max()) for track in notes if len(track)), default=0)
    return sum(map(len, notes)), end / TICKS_PER_QUARTER * 60 / TEMPO


def sample_data(sample: Sample) -> dict[str, Any]:
    """Return what page.js draws: notes as start, end, pitch, track, by start; where bars begin.

    Of bars there is nothing where the piece's meter says nothing.
    """
    tracks = [notes_of(track).tolist() for track in sample.piece.tracks]
    notes = sorted([*note, number] for number, track in enumerate(tracks) for note in track)
    ticks = max((note[1] for note in notes), default=1)
    meter = sample.piece.meter
    bars = bars_of(meter, ticks - 1)[0].tolist() if len(meter) else []
    return {"notes": notes, "ticks": ticks, "tempo": TEMPO, "bars": bars}


# Learning ---------------------------------------------------------------------------------------


def learning(runs: Sequence[RunReport]) -> list[Html]:
    """Return the loss curves of all runs on one chart, with annealing marks where there is one."""
    lines, entries, without = [], [], []
    for number, run in enumerate(runs):
        if not run.metrics:
            without.append(run.name)
            continue
        for split, dashed in (("train", True), ("valid", False)):
            points = [(float(r.step), r.loss) for r in run.metrics if r.split == split]
            if points:
                words = "training" if dashed else "validation"
                lines.append(Curve(points, number if len(runs) > 1 else 0, dashed))
                entries.append((f"{run.name}, {words}", lines[-1].colour, dashed))
    parts = []
    if lines:
        marks = annealed(runs[0].metrics) if len(runs) == 1 else []
        chart = curves(lines, marks, "step", unit_of(runs), chart_label(runs))
        note = "Dotted uprights: the learning rate was lowered." if marks else ""
        parts = [chart, legend(entries), *([tag("p", note, class_="note")] if note else [])]
    if without:
        names = ", ".join(without)
        parts.append(tag("p", f"No metrics.csv is beside {names}.", class_="note"))
    return parts


def unit_of(runs: Sequence[RunReport]) -> str:
    """Return what the losses are counted in."""
    notes = {run.checkpoint.config.reads_notes for run in runs}
    if len(notes) > 1:
        return "nats per token or frame"
    return "nats per frame" if notes == {True} else "nats per token"


def chart_label(runs: Sequence[RunReport]) -> str:
    """Return the curves in words."""
    told = []
    for run in runs:
        losses = [row.loss for row in run.metrics if row.split == "valid"]
        if losses:
            told.append(
                f"{run.name}: validation from {losses[0]:.3f} to {losses[-1]:.3f}, "
                f"best {min(losses):.3f}"
            )
    return f"Loss in {unit_of(runs)} by step. " + "; ".join(told)


def annealed(metrics: Sequence[Row]) -> list[float]:
    """Return the steps after which the learning rate was lower."""
    from lstm_music.rendering.figures import annealings  # Matplotlib takes its time to load

    return [float(step) for step, _ in annealings([asdict(row) for row in metrics])]


# Tables and figures -----------------------------------------------------------------------------


def table(made: Table) -> Html:
    """Return a table, which scrolls by itself where the screen is narrow."""
    heads = [tag("th", head, scope="col", class_="number") for head in made.heads]
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(tag("td", cell, class_="number") for cell in cells),
            class_="own" if own else False,
        )
        for name, cells, own in made.rows
    ]
    head = tag("thead", tag("tr", tag("td"), *heads))
    caption = tag("caption", tag("span", made.caption))
    content = tag("table", caption, head, tag("tbody", *rows))
    return tag("div", content, class_="table", tabindex=0, role="region", aria_label=made.caption)


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
    best = progress["best"]
    found: dict[str, Any] = {
        "corpus": corpus_name(run),
        "representation": meta["tokenizer"]["name"],
        **tokenizer,
        "vocabulary": config.vocabulary,
        "parameters": parameters(run),
        **{key: value for key, value in config.to_json().items() if key != "vocabulary"},
        "steps": meta["step"],
        "epochs finished": progress["epoch"],
        "tokens or frames read": progress["tokens"],
        "minutes of training": round(progress["seconds"] / 60, 1),
        "best validation loss": None if best is None else round(best, 4),
        **meta["settings"],
    }
    for head, fields in (("nade", ("nade",)), ("factored", ("classes", "deltas"))):
        if config.head != head:
            for name in fields:
                del found[name]
    given = {key.replace("_", " "): value for key, value in found.items() if value is not None}
    return {key: in_words(value) for key, value in given.items()}


def in_words(value: Any) -> str:
    """Return a setting as the page shows it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def pictures_of(runs: Sequence[RunReport]) -> list[Html]:
    """Return the figures of all runs."""
    figures = []
    for run in runs:
        for picture in run.pictures:
            title = picture.title if len(runs) == 1 else f"{run.name}: {picture.title}"
            image = tag(
                "img", src=data_url("image/png", picture.png), alt=picture.alt, class_="paper"
            )
            caption = tag("figcaption", tag("strong", title), ". ", picture.caption)
            figures.append(tag("figure", image, caption))
    return [tag("div", *figures, class_="figures")] if figures else []
