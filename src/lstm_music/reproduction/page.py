"""The page of bin/reproduce: tables and figures of the paper's experiments, as Markdown."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lstm_music.network.baselines import BASELINES as FREQUENCIES
from lstm_music.reproduction.experiments import BASELINES, EXPERIMENTS, Experiment
from lstm_music.reproduction.outcome import Outcome, read_json, read_outcome

BUNDLED = "bundled"
NONE = "–"
MOST_BYTES = 500_000  # of a figure: a score of many notes is larger
PHRASE, LATER = "4", "8"  # bars: by the first distance returning is judged
INTRODUCTION = """# The paper's experiments, repeated

Written by `bin/reproduce --scale {scale}` (what that is: `bin/reproduce --help`). The first column
is what the paper (arXiv 1606.04930) says, as far as it is known here; then ours with its settings,
and ours with settings of our own. Nats: lower is better. Ways to write music as tokens compare by
nats per note, since each takes another number of tokens. Training time is that of the steps;
"projected" is the measured pace times all epochs, of which the named share was made. Each model is
judged by its checkpoint with the best validation loss. A dash is what isn't measured or known.
"""
SMOKE = """
**This is a trial**: a few steps of tiny networks on the bundled Bach, in place of each corpus. Its
figures say that the commands work, and nothing else.
"""
LISTENING = """## A listening set

The paper's figure 9 shows the votes of its listeners. Nobody was asked here. Ten blind clips of
each system (at most 60 clips in all) are made by

```
bin/listen {runs} --baselines --control bach --num 10 --make-only
```

Then `bin/listen` serves them, and `bin/listen --results listening.sqlite` draws the votes.
"""


def page(
    out: Path, scale: str, noted: Mapping[str, dict[str, Any]], drawn: Path, beside: Path
) -> str:
    """Return the page of all that is in a folder of runs, as Markdown.

    noted: by name, what bin/reproduce wrote down; drawn: where to put the figures; beside: the
    folder of the page, from which they are linked.
    """
    pictures = Pictures(drawn, beside)
    runs: dict[str, Outcome] = {}
    lines = [INTRODUCTION.format(scale=scale)]
    if scale == "smoke":
        lines.append(SMOKE)
    for name, experiment in EXPERIMENTS.items():
        paper, tuned = (
            read_outcome(out / each, noted.get(each)) for each in (f"{name}-paper", f"{name}-tuned")
        )
        if paper or tuned:
            lines += section(name, experiment, paper, tuned, pictures)
        runs |= {one.name: one for one in (paper, tuned) if one}
    lines += baselines(out / BASELINES)
    judged = {BUNDLED: out / BUNDLED, **{name: one.folder for name, one in runs.items()}}
    lines += embeddings({name: read_json(at / "embedding.json") for name, at in judged.items()})
    lines += structure({name: read_json(at / "music.json") for name, at in judged.items()})
    bars = out / BUNDLED / "figures" / "bars.png"
    if bars.is_file():
        lines += [pictures.copied(bars, f"{BUNDLED}-bars.png", "Bars that resemble each other"), ""]
    lines += figures(judged, pictures)
    lines.append(
        LISTENING.format(runs=" ".join(["bach", *(f"OUT/{name}" for name in list(runs)[:2])]))
    )
    return "\n".join(lines)


class Pictures:
    """Copies figures to a folder, and links them from a page's."""

    def __init__(self, folder: Path, beside: Path) -> None:
        self.folder, self.beside = folder, beside

    def new(self, name: str) -> Path:
        """Return where to draw a figure."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def link(self, name: str, words: str) -> str:
        """Return the link that shows a figure of the folder."""
        return f"![{words}]({Path(os.path.relpath(self.folder / name, self.beside)).as_posix()})"

    def copied(self, source: Path, name: str, words: str) -> str:
        """Return the link that shows a copy of a figure."""
        target = self.new(name)
        if source.resolve() != target.resolve():
            shutil.copyfile(source, target)
        return self.link(name, words)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table, its first column to the left; without rows, nothing."""
    if not rows:
        return []
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def number(value: float | None, form: str = ".3f") -> str:
    """Return a number, or a dash for none."""
    return NONE if value is None else format(value, form)


def share(value: float | None) -> str:
    """Return a share in percent, or a dash."""
    return NONE if value is None else f"{100 * value:.1f} %"


# An experiment ----------------------------------------------------------------------------------


def section(
    name: str,
    experiment: Experiment,
    paper: Outcome | None,
    tuned: Outcome | None,
    pictures: Pictures,
) -> list[str]:
    """Return what is to be said of an experiment: commands, table, losses."""
    from lstm_music.rendering.figures import compared_losses

    file = experiment.file
    corpus = file if file.endswith(".zip") else f"muse --data {file}"
    trainings = (experiment.paper, experiment.tuned)
    commands = [f"bin/train {corpus} {one.options} --epochs {one.epochs}" for one in trainings]
    lines = [f"## {experiment.title}: `{name}`\n", "```", *commands, "```", ""]
    columns = [(paper, experiment.paper.epochs), (tuned, experiment.tuned.epochs)]
    rows = []
    for title, cell in measures(experiment):
        cells = [NONE if one is None else cell(one, epochs) for one, epochs in columns]
        told = experiment.told.get(title, NONE)
        if any(text != NONE for text in (told, *cells)):
            rows.append([title, told, *cells])
    lines += table(["", "paper", "ours, the paper's settings", "ours, tuned"], rows)
    kinds = zip(("the paper's settings", "tuned"), (paper, tuned), strict=True)
    known = {kind: one for kind, one in kinds if one is not None}
    curves = {kind: one.curves for kind, one in known.items() if one.curves["valid"]}
    if curves:
        file = f"{name}-losses.png"
        compared_losses(curves, pictures.new(file), next(iter(known.values())).unit)
        lines += [pictures.link(file, f"Losses of {name}"), ""]
    return lines


Cell = Callable[[Outcome, int], str]


def measures(experiment: Experiment) -> list[tuple[str, Cell]]:
    """Return the rows of an experiment's table: title, and what shows it of a run."""
    return [
        ("pieces", lambda one, _: counted(experiment, one, "pieces")),
        ("tokens", lambda one, _: counted(experiment, one, "tokens")),
        ("different tokens", lambda one, _: counted(experiment, one, "unique_tokens")),
        ("epochs", epochs_done),
        ("training loss, last", lambda one, _: last(one, "train")),
        ("validation loss, last", lambda one, _: last(one, "valid")),
        ("validation loss, best", lambda one, _: best(one)),
        ("nats per token, valid", tokens("valid")),
        ("nats per token, test", tokens("test")),
        ("the same of token frequencies", tokens("test", "unigram")),
        ("the same untrained", tokens("test", "untrained")),
        ("nats per note, valid", notes("valid")),
        ("nats per note, test", notes("test")),
        ("nats per frame, valid", frames("valid")),
        ("nats per frame, test", frames("test")),
        ("the same of chord frequencies", frames("test", "chord-frequency")),
        ("the network untrained", frames("test", "untrained")),
        ("frame accuracy, test", lambda one, _: share(one.row("test").get("frame_accuracy"))),
        ("training time", lambda one, _: hours(one.seconds)),
        (
            "with validation",
            lambda one, _: hours(60 * one.noted["minutes"]) if "minutes" in one.noted else NONE,
        ),
        ("seconds an epoch", lambda one, _: number(one.epoch_seconds, ".1f")),
        ("time of all epochs", all_epochs),
        ("hardware", lambda one, _: one.noted.get("hardware", NONE)),
    ]


def counted(experiment: Experiment, one: Outcome, what: str) -> str:
    """Return how many pieces or tokens a run's corpus has, or its training split."""
    corpus = one.config["corpus"]
    where = corpus if experiment.counted == "all" else corpus["splits"]["train"]
    return f"{where[what]:,}"


def last(one: Outcome, split: str) -> str:
    """Return the last loss of a split, in nats."""
    return number(one.curves[split][-1][1]) if one.curves[split] else NONE


def best(one: Outcome) -> str:
    """Return the lowest validation loss, in nats, and its epoch."""
    if not one.curves["valid"]:
        return NONE
    epoch, nats = min(one.curves["valid"], key=lambda point: point[1])
    return f"{nats:.3f}, at epoch {epoch:.3g}"


def tokens(split: str, which: str = "") -> Cell:
    """Return what shows nats per token of a run of tokens, or of a baseline beside it."""
    return lambda one, _: (
        number(one.row(split, which).get("nats_per_token")) if one.unit == "token" else NONE
    )


def frames(split: str, which: str = "") -> Cell:
    """Return what shows nats per frame."""
    return lambda one, _: number(one.row(split, which).get("nats_per_frame"))


def notes(split: str) -> Cell:
    """Return what shows nats per note of a run of tokens."""
    return lambda one, _: (
        number(one.row(split).get("nats_per_note")) if one.unit == "token" else NONE
    )


def epochs_done(one: Outcome, epochs: int) -> str:
    """Return how many epochs of how many were made."""
    if is_whole(one, epochs):
        return str(epochs)
    return f"{one.epochs:.3g} of {epochs}{', stopped early' * one.stopped_early}"


def all_epochs(one: Outcome, epochs: int) -> str:
    """Return the time that all epochs took, or would take at the pace so far."""
    projected = one.projected_hours(epochs)
    if projected is None or one.stopped_early or is_whole(one, epochs):
        return hours(one.seconds)
    return f"{hours(projected * 3600)}, projected from {share(one.epochs / epochs)}"


def is_whole(one: Outcome, epochs: int) -> bool:
    """Return whether all epochs were made."""
    return one.epochs > epochs - 0.01


def hours(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def baselines(folder: Path) -> list[str]:
    """Return the table of the baselines of piano rolls, from the folder that holds them."""
    rows = []
    for kind in FREQUENCIES:
        found = [read_json(folder / f"{kind}-{split}.json") for split in ("valid", "test")]
        if all(found):
            valid, test = (made[0] for made in found)
            cells = [number(row["nats_per_frame"]) for row in (valid, test)]
            rows.append([kind, *cells, share(test["frame_accuracy"])])
    if not rows:
        return []
    head = ["MuseData without a network", "nats per frame, valid", "test", "accuracy, test"]
    return ["## Baselines: `baselines`\n", *table(head, rows)]


# The paper's questions --------------------------------------------------------------------------


def embeddings(found: Mapping[str, dict[str, Any] | None]) -> list[str]:
    """Return what embeddings know of pitch, by model: a table, and what it says."""
    known = {name: one for name, one in found.items() if one}
    if not known:
        return []
    lines = ["## Does the embedding order pitches, and separate on from off?\n", ORDER]
    rows, words = [], []
    for name, one in known.items():
        order, apart = one["order"], one["separation"]
        row = [name, f"{one['rows']} {one['what']}", number(order["rho"], ".2f")]
        row.append(f"{order['shuffled_mean']:.2f}, {order['shuffled_max']:.2f}")
        ordered = order["rho"] > order["shuffled_max"]
        says = "orders pitches" if ordered else "shows no order of pitches"
        if apart is None:
            row += [NONE, NONE]
        else:
            row.append(share(apart["share"]))
            row.append(f"{share(apart['shuffled_mean'])}, {share(apart['shuffled_max'])}")
            separate = apart["share"] > apart["shuffled_max"]
            says += f" and {'separates' if separate else 'does not separate'} on from off"
        rows.append(row)
        words.append(f"- **{name}** {says}.")
    head = [
        "model", "rows", "rank correlation", "shuffled: mean, highest",
        "nearest row of the same kind", "shuffled: mean, highest",
    ]  # fmt: skip
    return [*lines, *table(head, rows), *words, ""]


ORDER = """Order: Spearman's correlation of the distance between two rows with their interval, over
pairs of a kind. Separation: the share of rows whose nearest row is of the same kind, note-on or
note-off. Each stands beside 1,000 shuffles, of the pitches or of the kinds; beyond all of them
counts as yes.
"""
RETURN = f"""The share of bars that repeat the one {PHRASE} (or {LATER}) bars before: half of all
their notes are in both (a note: pitch and sixteenth); 95 % intervals over pieces. A model returns
where its interval at {PHRASE} bars lies above those of both baselines; where it and held-out
music's overlap, so many pieces don't tell them apart. Beside it, how near its music is to real
music (1: alike; MGEval), and the share of runs of 12 notes that are found in its training split.
"""


def structure(found: Mapping[str, dict[str, Any] | None]) -> list[str]:
    """Return how often bars return, by model, beside real music and baselines."""
    known = {name: one for name, one in found.items() if one}
    if not known:
        return []
    lines = ["## Does the network return to its material?\n", RETURN]
    rows, words = [], []
    for name, made in known.items():
        sets = {one["name"]: one for one in made["sets"]}
        run = next(one for one in made["sets"] if one["kind"] == "run")
        compared = [run, *(sets[which] for which in ("held-out", "untrained", "chord-frequency"))]
        phrase = [interval(one["repetition"].get(PHRASE)) for one in compared]
        later = [interval(one["repetition"].get(LATER)) for one in compared[:2]]
        copied = [share(one["memorisation"]["share_12"]["value"]) for one in compared[:2]]
        row = [name, *phrase, *later, number(run["overlap"]["value"], ".2f"), " / ".join(copied)]
        rows.append(row)
        words.append(f"- **{name}** {returning(compared)}.")
    head = [
        "model", f"{PHRASE} bars", "real music", "untrained", "chords by frequency",
        f"{LATER} bars", "real music", "overlap with real music", "copied / real music",
    ]  # fmt: skip
    return [*lines, *table(head, rows), *words, ""]


def interval(found: dict[str, float | None] | None) -> str:
    """Return a share with its interval."""
    if found is None or found["value"] is None:
        return NONE
    low, high = (100 * (found[end] or 0.0) for end in ("low", "high"))
    return f"{share(found['value'])} ({low:.1f}-{high:.1f})"


def returning(compared: Sequence[dict[str, Any]]) -> str:
    """Return whether a model's bars return at the distance of a phrase, in words.

    compared: the model, held-out music, and the baselines.
    """
    own, real, *chance = (one["repetition"][PHRASE] for one in compared)
    if any(one["value"] is None for one in (own, real, *chance)):
        return f"has pieces too short to return after {PHRASE} bars"
    more = all(own["low"] > one["high"] for one in chance)
    less = own["high"] < real["low"]
    says = f"repeats {share(own['value'])} of its bars {PHRASE} bars later"
    says += ", more than both baselines" if more else ", not told apart from baselines"
    says += ", less than" if less else ", not told apart from"
    return f"{says} real music ({share(real['value'])})"


# Figures ----------------------------------------------------------------------------------------

FIGURES = (  # the paper's, what ours is called, of which runs: the first that has one
    ("1", "how often each message of Bach occurs", "tokens.png", ("bach-midi-paper",)),
    ("2", "how often each message of many composers occurs", "tokens.png",
     ("classical-midi-paper",)),
    ("3-5, 7", "chords by frequency", "chord-frequency",
     ("muse-all-paper", "muse-truncated-paper", BUNDLED)),
    ("3-5, 7", "the network before training", "untrained",
     ("muse-all-paper", "muse-truncated-paper", BUNDLED)),
    ("3-5, 7", "messages of Bach, composed", "model", ("bach-midi-paper",)),
    ("3-5, 7", "chords, composed", "model", ("muse-all-paper", "muse-truncated-paper")),
    ("3-5, 7", "ours: the best likelihood", "model", ("nade-tuned",)),
    ("6", "the embedding of messages", "embedding.png", ("bach-midi-paper",)),
    ("6", "the same, ours tuned", "embedding.png", ("bach-midi-tuned", BUNDLED)),
    ("8", "the embedding of chords of one note", "embedding.png",
     ("muse-truncated-paper", "muse-all-paper")),
    ("poster", "the embedding of notes", "embedding.png", ("sigmoid-paper",)),
)  # fmt: skip
MUSIC = ("chord-frequency", "untrained", "model")


def figures(folders: Mapping[str, Path], pictures: Pictures) -> list[str]:
    """Return the paper's figures in kind, of the runs that there are."""
    lines = ["## The paper's figures, in kind\n"]
    for which, words, file, names in FIGURES:
        kinds = (".png", ".svg") if file in MUSIC else ("",)  # piano roll, score
        for name in names:
            made = folders[name] / "figures" if name in folders else None
            found = [
                f"{file}{kind}" for kind in kinds if made and (made / f"{file}{kind}").exists()
            ]
            if made and found:
                lines.append(f"**{which}**: {words} (`{name}`)\n")
                for each in found:
                    lines += [pictures.copied(made / each, f"{name}-{each}", words), ""]
                break
    return lines if len(lines) > 1 else []
