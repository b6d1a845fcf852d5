"""The page of bin/reproduce: tables and figures of the paper's experiments, as Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lstm_music.evaluation.music.voices import FAULTS
from lstm_music.network.baselines import BASELINES as FREQUENCIES
from lstm_music.reproduction.experiments import EXPERIMENTS, MUSE, Experiment
from lstm_music.reproduction.outcome import Outcome, Row
from lstm_music.reproduction.pictures import Pictures

NONE = "–"
PHRASE, LATER = "4", "8"  # bars: by the first distance returning is judged
INTRODUCTION = """# The paper's experiments, repeated

Written by `bin/reproduce`. The first column is what the paper (arXiv 1606.04930) says, as far as it
is known here; then ours with its settings, and with our own: a memory of the piece, averaged
weights. Nats: lower is better. Ways to write music as tokens compare by nats per note, since each
takes another number of tokens. Training time is that of the steps; "projected" is the measured pace
times all epochs, of which the named share was made. Each model is judged by its checkpoint with the
best validation loss. A dash is what isn't measured or known.
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
    runs: Mapping[str, Outcome], without: Mapping[str, list[Row]], smoke: bool, pictures: Pictures
) -> str:
    """Return the page of all that is known of runs, as Markdown.

    without: what piano rolls cost without a network, by `BASELINE-SPLIT`; smoke: whether all of it
    is a trial; pictures: where they are, or are to be drawn.
    """
    lines = [INTRODUCTION]
    if smoke:
        lines.append(SMOKE)
    for name, experiment in EXPERIMENTS.items():
        paper, tuned = (runs.get(f"{name}-{kind}") for kind in ("paper", "tuned"))
        if paper or tuned:
            lines += section(name, experiment, paper, tuned, pictures)
    known = [runs[name] for name in subjects() if name in runs]
    lines += baselines(without)
    lines += structure(known)
    lines += craft(known)
    lines += embeddings(known)
    lines += figures(runs, pictures)
    lines.append(LISTENING.format(runs=" ".join(f"OUT/{one.name}" for one in known[:3])))
    return "\n".join(lines)


def subjects() -> list[str]:
    """Return the names of all runs, in the page's order."""
    return [f"{name}-{kind}" for name in EXPERIMENTS for kind in ("paper", "tuned")]


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
    corpus = f"muse --data {file}" if file == MUSE else file
    trainings = (experiment.paper, experiment.tuned)
    commands = [
        " ".join(f"bin/train {corpus} {one.options} --epochs {one.epochs}".split())
        for one in trainings
    ]
    lines = [f"## {experiment.title}: `{name}`\n", "```", *commands, "```", ""]
    columns = [(paper, experiment.paper.epochs), (tuned, experiment.tuned.epochs)]
    rows: list[list[str]] = []
    for title, cell in measures(experiment):
        cells = [NONE if one is None else cell(one, epochs) for one, epochs in columns]
        told = experiment.told.get(title, NONE)
        if any(text != NONE for text in (told, *cells)):
            rows.append([title, told, *cells])
    lines += table(["", "paper", "ours, the paper's settings", "ours"], rows)
    kinds = zip(("the paper's settings", "ours"), (paper, tuned), strict=True)
    known = {kind: one for kind, one in kinds if one is not None}
    curves = {kind: one.curves for kind, one in known.items() if one.curves["valid"]}
    if curves:
        file = f"{name}-losses.png"
        compared_losses(curves, pictures.new(file), next(iter(known.values())).unit)
        pictures.fewer_colours(file)
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


def baselines(found: Mapping[str, list[Row]]) -> list[str]:
    """Return the table of the baselines of piano rolls."""
    rows = []
    for kind in FREQUENCIES:
        valid, test = (found.get(f"{kind}-{split}") for split in ("valid", "test"))
        if valid and test:
            cells = [number(each[0]["nats_per_frame"]) for each in (valid, test)]
            rows.append([kind, *cells, share(test[0]["frame_accuracy"])])
    if not rows:
        return []
    head = ["MuseData without a network", "nats per frame, valid", "test", "accuracy, test"]
    return ["## Baselines: `baselines`\n", *table(head, rows)]


# The paper's questions --------------------------------------------------------------------------


ORDER = """Order: Spearman's correlation of the distance between two rows with their interval, over
pairs of a kind. Separation: the share of rows whose nearest row is of the same kind, note-on or
note-off. Each stands beside 1,000 shuffles, of the pitches or of the kinds; beyond all of them
counts as yes.
"""
RETURN = f"""The share of bars that repeat the one {PHRASE} (or {LATER}) bars before: half of all
their notes are in both (a note: pitch and sixteenth); 95 % intervals over pieces. A model returns
where its interval at {PHRASE} bars lies above those of both baselines, the network untrained and
chords by frequency; where it and held-out music's overlap, so many pieces don't tell them apart.
Beside it, how near its music is to real music (1: alike; MGEval), and the share of runs of 12 notes
that are found in its training split.
"""
RULES = """Faults in 100 chords (what each is: `bin/evaluate --chorales --help`), and the share of
phrases that end on a triad in root position. Voices are four parts or tracks, else told by pitch.
"""


def embeddings(runs: Sequence[Outcome]) -> list[str]:
    """Return what embeddings know of pitch, by model."""
    rows = []
    for name, one in ((run.name, run.embedding) for run in runs):
        if one is None:
            continue
        order, apart = one["order"], one["separation"]
        row = [name, f"{one['rows']} {one['what']}", number(order["rho"], ".2f")]
        row.append(f"{order['shuffled_mean']:.2f}, {order['shuffled_max']:.2f}")
        row.append("yes" if order["rho"] > order["shuffled_max"] else "no")
        if apart is None:
            row += [NONE, NONE, NONE]
        else:
            row.append(share(apart["share"]))
            row.append(f"{share(apart['shuffled_mean'])}, {share(apart['shuffled_max'])}")
            row.append("yes" if apart["share"] > apart["shuffled_max"] else "no")
        rows.append(row)
    if not rows:
        return []
    head = [
        "model", "rows", "rank correlation", "shuffled: mean, highest", "orders pitches",
        "nearest row of the same kind", "shuffled: mean, highest", "separates on from off",
    ]  # fmt: skip
    title = "## Does the embedding order pitches, and separate on from off?\n"
    return [title, ORDER, *table(head, rows)]


def structure(runs: Sequence[Outcome]) -> list[str]:
    """Return how often bars return, by model, beside real music and baselines."""
    rows = []
    for name, made in ((run.name, run.music) for run in runs if run.music):
        sets = {one["name"]: one for one in made}
        run = next(one for one in made if one["kind"] == "run")
        compared = [run, *(sets[which] for which in ("held-out", "untrained", "chord-frequency"))]
        phrase = [interval(one["repetition"].get(PHRASE)) for one in compared[:2]]
        later = [interval(one["repetition"].get(LATER)) for one in compared[:2]]
        copied = [share(one["copied"]) for one in compared[:2]]
        overlap = number(run["overlap"]["value"], ".2f")
        rows.append([name, *phrase, returning(compared), *later, overlap, " / ".join(copied)])
    if not rows:
        return []
    head = [
        "model", f"{PHRASE} bars", "real music", "returns", f"{LATER} bars", "real music",
        "overlap with real music", "copied / real music",
    ]  # fmt: skip
    return ["## Does the network return to its material?\n", RETURN, *table(head, rows)]


def craft(runs: Sequence[Outcome]) -> list[str]:
    """Return how four voices are written, of the models of chorales, beside real ones."""
    judged = [run for run in runs if run.chorales]
    if not judged:
        return []
    *real, _ = judged[0].chorales  # the rows of the corpus come first, the run's last
    sets = [(f"real chorales, by {next(iter(one['pieces']))}", one) for one in real]
    sets += [(run.name, run.chorales[-1]) for run in judged]
    rows = [
        [name, *(number(one["faults"][fault]["value"], ".2f") for fault in FAULTS),
         share(one["rooted"]["value"])]
        for name, one in sets
    ]  # fmt: skip
    head = ["", *FAULTS, "cadences"]
    return ["## Does it keep the rules of four-part writing?\n", RULES, *table(head, rows)]


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
        return f"pieces too short to return after {PHRASE} bars"
    more = all(own["low"] > one["high"] for one in chance)
    less = own["high"] < real["low"]
    says = "more than both baselines" if more else "not told apart from baselines"
    return f"{says}, {'less than' if less else 'not told apart from'} real music"


# Figures ----------------------------------------------------------------------------------------

CHORDS = ("muse-all-paper", "muse-truncated-paper", "bach-paper")
FIGURES = (  # the paper's, what ours is called, of which runs: the first that has one
    ("1", "how often each message of Bach occurs", "tokens.png", ("bach-midi-paper", "bach-paper")),
    ("2", "how often each message of many composers occurs", "tokens.png",
     ("classical-midi-paper",)),
    ("3-5, 7", "chords by frequency", "chord-frequency.png", CHORDS),
    ("3-5, 7", "the network before training", "untrained.png", CHORDS),
    ("3-5, 7", "messages of Bach, composed", "model.png", ("bach-midi-paper", "bach-paper")),
    ("3-5, 7", "chords, composed", "model.png", CHORDS),
    ("3-5, 7", "ours: chorales in parts, with a memory", "model.svg", ("bach-tuned",)),
    ("6", "the embedding of messages", "embedding.png", ("bach-midi-paper", "bach-paper")),
    ("6", "ours", "embedding.png", ("bach-tuned",)),
    ("8", "the embedding of chords of one note", "embedding.png", CHORDS),
    ("", "bars that resemble each other, ours", "bars.png", ("bach-tuned",)),
)  # fmt: skip


def figures(runs: Mapping[str, Outcome], pictures: Pictures) -> list[str]:
    """Return the paper's figures in kind, of the runs that there are."""
    lines = ["## The paper's figures, in kind\n"]
    for which, words, file, names in FIGURES:
        for name in names:
            if name in runs and (link := pictures.copied(name, file, words)):
                lines += [f"**{which}**: {words} (`{name}`)\n" if which else "", link, ""]
                break
    return lines if len(lines) > 1 else []
