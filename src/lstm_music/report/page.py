"""One HTML page about runs that needs nothing from outside: sounds, pictures and networks inside.

Here is what the page is made of; `cli/report.py` gathers it. `report/browser/` holds the template,
the style and the scripts. Every name and word goes through `markup.tag`, which escapes it.
"""

from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from string import Template
from typing import Any

from lstm_music import __version__
from lstm_music.errors import UserError
from lstm_music.midi.piece import TEMPO, WHOLE_NOTE, Piece, notes_of
from lstm_music.midi.timing import bars_of, constant, seconds_of, tempo_at
from lstm_music.rendering.charts import Curve, curves, legend
from lstm_music.rendering.html import (
    Html,
    data_url,
    escaped,
    joined,
    json_in_html,
    only_scripts,
    table,
    tag,
)
from lstm_music.report.browser_model import page_model, weights_size
from lstm_music.report.rules_script import rules_script
from lstm_music.report.told import Row, RunReport, Sample, Table, sentence, settings_table
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.sampling.craft import VOICES, sings
from lstm_music.sampling.token_composers import EventComposer
from lstm_music.tokenizers.parts import Player
from lstm_music.untrusted import typeable

MOST = 8_000_000  # bytes of a page
PRIMER_LENGTH = 16  # tokens or frames with which composing begins, as in bin/sample
HARMONISE = "Harmonise a tune"
SCRIPTS = (
    "rules.js", "recall.js", "copying.js", "given.js", "craft.js", "drawing.js", "network.js",
    "biaxial.js", "compose.js", "particles.js", "harmonise.js", "midi.js", "tune.js", "harmony.js",
    "page.js",
)  # fmt: skip


# The page ---------------------------------------------------------------------------------------


def page(
    runs: Sequence[RunReport], tables: Sequence[Table], remarks: Sequence[str], most: int = MOST
) -> str:
    """Return the page of runs as HTML of at most so many bytes, where its samples leave the room.

    tables: likelihoods; remarks: what to say beneath them. The networks that still fit are in the
    page; of the others it says that they don't.
    """
    parts = parts_of(runs, tables, remarks)
    here = [("compose", "Compose here")]
    if any(harmonises(run.checkpoint) for run in runs):
        here.append(("harmonise", HARMONISE))
    top = header(runs, [*here, *((name, title) for name, title, _ in parts)])
    main = [section(*part) for part in parts]
    samples = [sample for run in runs for sample in run.samples]
    shown = [sample_data(sample) for sample in samples]
    empty = {"samples": shown, "models": []}
    bare = len(shell(title_of(runs), "bin/report", top, main, empty).encode())
    forms = [compose_section(runs, [], []), harmonise_section()]
    models, too_large = fitting(runs, most - bare - sum(len(form.encode()) for form in forms))
    composing = [compose_section(runs, models, too_large)]
    if len(here) > 1:
        fits = any(0 in model["voices"] for model in models)
        composing.append(harmonise_section() if fits else no_harmonising())
    data = {"samples": shown, "models": models, "primer_length": PRIMER_LENGTH}
    return shell(title_of(runs), "bin/report", top, [*composing, *main], data)


def harmony_page(checkpoint: Checkpoint, name: str, tune: Piece | None = None) -> str:
    """Return the page, as HTML, that harmonises with a model of four voices.

    name: what it calls the model; tune: what stands in the grid at first, of one track; its part's
    name tells which voice it is. Raises UserError for other models.
    """
    if not harmonises(checkpoint):
        raise UserError(
            f"{name} doesn't tell soprano, alto, tenor and bass apart: harmonise with a model that "
            "was trained with --parts on such music"
        )
    model = page_model(name, checkpoint, EventComposer.top_p)
    told = None if tune is None else tune_data(tune)
    top = joined(tag("h1", HARMONISE), tag("p", f"With the model “{name}”.", class_="lead"))
    data = {"samples": [], "models": [model], "tune": told}
    return shell(HARMONISE, "bin/harmonize --page", top, [harmonise_section("Your tune")], data)


def harmonises(checkpoint: Checkpoint) -> bool:
    """Return whether a model of written music tells soprano, alto, tenor and bass."""
    told = checkpoint.meta["tokenizer"]
    return told["name"] == "event" and sings([Player(*one) for one in told.get("parts", ())])


def harmonise_section(title: str = HARMONISE) -> Html:
    """Return the section in which the page harmonises a tune."""
    content = Template(page_file("harmonise.html")).substitute(tempo=f"{TEMPO:.0f}")
    return section("harmonise", title, [Html(content)])


def no_harmonising() -> Html:
    """Return the section where no network that could harmonise fits."""
    command = tag("code", "bin/harmonize --page")
    return section("harmonise", HARMONISE, [tag("p", "Its network isn't in this page: ", command)])


def tune_data(tune: Piece) -> dict[str, Any]:
    """Return what harmony.js shows at first: notes as start, end, pitch, on a grid of sixteenths.

    A piece's first bar may be an upbeat: it stands at the end of a whole one there.
    """
    notes = sorted(notes_of(tune.tracks[0]).tolist()) if tune.tracks else []
    meter = tune.meter.tolist() or [[0, WHOLE_NOTE]]
    upbeat = len(meter) > 1 and meter[1][0] == meter[0][1] < meter[1][1]
    bar = meter[upbeat][1]
    shift = bar - meter[0][1] if upbeat else 0
    name = tune.parts[0].name.strip().lower() if tune.parts else ""
    return {
        "notes": [[start + shift, end + shift, pitch] for start, end, pitch in notes],
        "bar": bar,
        "voice": VOICES.index(name) if name in VOICES else 0,
        "tempo": tempo_at(tune.tempo, 0) if len(tune.tempo) else None,
    }


def shell(title: str, command: str, top: Html, main: Sequence[Html], data: Any) -> str:
    """Return the template, filled; command: what made the page."""
    scripts = "\n".join([rules_script(), *map(page_file, SCRIPTS)])
    policy = f"default-src 'none'; img-src data:; media-src data:; {only_scripts(scripts)}"
    return Template(page_file("page.html")).substitute(
        title=escaped(f"{title} – lstm-music"),
        command=escaped(command),
        policy=escaped(policy),
        version=__version__,
        style=page_file("page.css"),
        header=top,
        main=joined(*main),
        data=json_in_html(data),
        script=scripts,
    )


def page_file(name: str) -> str:
    """Return the text of a file of the folder report/browser/."""
    return resources.files("lstm_music.report").joinpath("browser", name).read_text("utf-8")


def title_of(runs: Sequence[RunReport]) -> str:
    """Return what the page is about."""
    return runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"


def header(runs: Sequence[RunReport], sections: Sequence[tuple[str, str]]) -> Html:
    """Return the title, what each run is in a sentence, and links to sections: id and title."""
    lead = [tag("p", sentence(run, len(runs) > 1), class_="lead") for run in runs]
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title in sections]
    contents = tag("nav", tag("ul", *links), aria_label="Sections")
    return joined(tag("h1", title_of(runs)), *lead, contents)


def parts_of(
    runs: Sequence[RunReport], tables: Sequence[Table], remarks: Sequence[str]
) -> list[tuple[str, str, list[Html]]]:
    """Return id, title and content of each section after the first."""
    likelihood = [*map(drawn, tables), *(tag("p", remark, class_="note") for remark in remarks)]
    parts = [
        ("samples", "Samples", samples_of(runs)),
        ("learning", "Learning", learning(runs)),
        ("likelihood", "Likelihood", likelihood),
        ("figures", "Figures", pictures_of(runs)),
        ("settings", "Settings", [drawn(settings_table(runs))]),
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
    return sum(len(track) // 2 for track in piece.tracks), seconds_of(piece)


def sample_data(sample: Sample) -> dict[str, Any]:
    """Return what page.js draws: notes as start, end, pitch, track, by start; where bars begin.

    Of bars there is nothing where the piece's meter says nothing.
    """
    tracks = [notes_of(track).tolist() for track in sample.piece.tracks]
    notes = sorted([*note, number] for number, track in enumerate(tracks) for note in track)
    ticks = max((note[1] for note in notes), default=1)
    meter = sample.piece.meter
    bars = bars_of(meter, ticks - 1)[0].tolist() if len(meter) else []
    said = sample.piece.tempo if len(sample.piece.tempo) else constant(TEMPO)
    return {"notes": notes, "ticks": ticks, "tempo": tempo_at(said, 0), "bars": bars}


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


def drawn(made: Table) -> Html:
    """Return a table as markup."""
    rows = [(name, *cells) for name, cells, _ in made.rows]
    return table(made.caption, ["", *made.heads], rows, made.stressed)


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
