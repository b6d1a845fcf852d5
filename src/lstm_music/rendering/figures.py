"""Every plot: a piece, a run, a corpus, an embedding. Each is written as a PNG file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text

from lstm_music.arrays import Array
from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.corpus.words import MessageCorpus
from lstm_music.evaluation.embeddings import (
    PERPLEXITY,
    PitchOrder,
    fitting_perplexity,
    order_of,
    pitch_points,
    tsne,
)
from lstm_music.evaluation.music.judgement import Judgement
from lstm_music.midi.piece import BAR, Piece, is_named, notes_of, part_names
from lstm_music.midi.roll import unpack
from lstm_music.midi.timing import bars_of
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.tokenizers.chords import chord_words
from lstm_music.tokenizers.messages import SPECIALS
from lstm_music.untrusted import printable

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe & Ito 2008
PARTS = (*COLOURS, "#000000")  # theirs too; their yellow is too pale for notes
HATCHES = ("", "////", "....", "xxxx")
MOST_NAMES, NAMES_HIGH = 60, 20  # parts in a legend, and in a column of it
GREY = "#888888"
NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")
BLUE_TO_RED = LinearSegmentedColormap.from_list("pitch", ("#1f4fd8", "#8e44ad", "#d81f2a"))
FAINTEST = 0.25  # opacity of the softest note
NAMED_MARKS = 8  # annealings with their learning rate written beside them
DPI = 100


# A piece ----------------------------------------------------------------------------------------


def pitch_name(pitch: int) -> str:
    """Return a MIDI pitch's name: 60 is C4."""
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"


def piano_roll(piece: Piece, path: Path) -> None:
    """Draw a piece: time in bars as its meter has them, pitch by name, a colour for each track.

    Softer notes are fainter, where the piece tells. A legend names the parts that have names.
    """
    tracks = [notes_of(track) for track in piece.tracks]
    notes = np.concatenate([*tracks, np.zeros((0, 3), np.int32)])
    starts, lengths = bars_of(piece.meter, int(notes[:, 1].max(initial=1)) - 1)
    lines = np.append(starts, starts[-1] + lengths[-1]) / BAR
    bars = float(lines[-1])
    low, high = int(notes[:, 2].min(initial=60)) - 2, int(notes[:, 2].max(initial=60)) + 2
    figure = Figure(figsize=(min(24, 2 + 0.6 * bars), 4), layout="constrained")
    axes = figure.add_subplot()
    _draw_keys(axes, low, high)
    for number, track in enumerate(tracks):
        loud = piece.velocities[number] if piece.velocities else np.full(len(track), 127)
        axes.add_collection(_boxes(track / [BAR, BAR, 1], loud, number))
    if is_named(piece):
        _name_parts(axes, part_names(piece))
    octaves = [p for p in range(low, high + 1) if p % 12 in (0, 7)]
    axes.set(xlim=(0, bars), ylim=(low, high), xlabel="bars", title=piece.name)
    axes.set_yticks(octaves, [pitch_name(p) for p in octaves])
    every = max(1, (len(lines) - 1) // 16)
    axes.set_xticks(lines[::every], [str(n) for n in range(0, len(lines), every)])
    axes.grid(axis="x", color="#cccccc", linewidth=0.6)
    save(figure, axes, path)


def _draw_keys(axes: Axes, low: int, high: int) -> None:
    """Shade the rows of the black keys."""
    for pitch in range(low, high + 1):
        if pitch % 12 in (1, 3, 6, 8, 10):
            axes.axhspan(pitch - 0.5, pitch + 0.5, color="#f2f2f2", linewidth=0, zorder=0)


def _look(part: int) -> tuple[str, str]:
    """Return a part's colour and hatching: colours return, hatched."""
    return PARTS[part % len(PARTS)], HATCHES[part // len(PARTS) % len(HATCHES)]


def _name_parts(axes: Axes, names: Sequence[str]) -> None:
    """Add a legend of the parts' names, beside the axes."""
    looks = [_look(part) for part in range(len(names))][:MOST_NAMES]
    boxes: list[Patch] = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=name)
        for name, (colour, hatch) in zip(names, looks, strict=False)
    ]
    if len(names) > MOST_NAMES:
        boxes.append(Patch(alpha=0, label=f"and {len(names) - MOST_NAMES} more"))
    axes.legend(
        handles=boxes, ncols=-(-len(boxes) // NAMES_HIGH), fontsize=8, frameon=False,
        loc="upper left", bbox_to_anchor=(1, 1.02),
    )  # fmt: skip


def _boxes(notes: Array, velocities: Array, part: int) -> PolyCollection:
    """Return a part's notes (n, 3), in whole notes and pitch: boxes as opaque as they are loud."""
    boxes = [
        [(start, pitch - 0.4), (end, pitch - 0.4), (end, pitch + 0.4), (start, pitch + 0.4)]
        for start, end, pitch in notes.tolist()
    ]
    opaque = FAINTEST + (1 - FAINTEST) * np.asarray(velocities) / 127
    colour, hatch = _look(part)
    colours = [to_rgba(colour, alpha) for alpha in opaque.tolist()]
    return PolyCollection(
        boxes, facecolors=colours, edgecolors="white", linewidths=0.4, hatch=hatch or None
    )


# A corpus ---------------------------------------------------------------------------------------


def token_frequency(corpus: Corpus, path: Path) -> None:
    """Draw how often each token of a corpus occurs, by rank, log-log (the paper's figures 1, 2)."""
    counts = token_counts(corpus).most_common()
    occurrences = np.array([n for _, n in counts])
    ranks = np.arange(1, len(counts) + 1)
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.loglog(ranks, occurrences, ".", color=COLOURS[0], markersize=4)
    once = np.mean(occurrences == 1)
    kind = f"{corpus.tokenizer.name}s" if isinstance(corpus, MessageCorpus) else "chords"
    title = f"{occurrences.sum():,} {kind}, {len(counts):,} different, {once:.0%} of them once"
    name = Path(corpus.name).name  # a path may be long
    axes.set(title=f"{name}\n{title}", xlabel="rank", ylabel="occurrences")
    for rank in (1, 10, 100, 1000, 10_000):
        if rank <= len(counts):
            word = counts[rank - 1][0]
            place = (rank, occurrences[rank - 1])
            axes.annotate(
                word, place, (6, 6), textcoords="offset points", fontsize=8, color="#444444"
            )
    axes.margins(x=0.08, y=0.1)
    axes.grid(color="#e5e5e5", linewidth=0.6)
    save(figure, axes, path)


def token_counts(corpus: Corpus) -> Counter[str]:
    """Return how often each word of a corpus occurs, no special ones; of note vectors, chords."""
    if isinstance(corpus, MessageCorpus):
        counts = np.bincount(corpus.ids, minlength=len(corpus.vocabulary))
        words = zip(corpus.vocabulary.words, counts.tolist(), strict=True)
        return Counter({word: n for word, n in words if n and word not in SPECIALS})
    assert isinstance(corpus, RollCorpus)
    packed, numbers = np.unique(corpus.packed, axis=0, return_counts=True)
    return Counter(dict(zip(chord_words(unpack(packed)), numbers.tolist(), strict=True)))


# A run ------------------------------------------------------------------------------------------


def loss_curves(
    rows: Sequence[Mapping[str, Any]], path: Path, title: str = "", unit: str = "token"
) -> None:
    """Draw the losses of metrics.csv's rows by step, and where the learning rate was annealed.

    unit: what a loss is the mean nats of.
    """
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for split, colour in (("train", COLOURS[0]), ("valid", COLOURS[1])):
        curve = [(int(r["step"]), float(r["loss"])) for r in rows if r["split"] == split]
        if curve:
            steps, losses = zip(*curve, strict=True)
            name = "training, with dropout" if split == "train" else "validation"
            axes.plot(steps, losses, ".-", color=colour, label=name, markersize=4, linewidth=1.4)
        if curve and split == "valid":
            step, best = min(curve, key=lambda point: point[1])
            axes.plot(step, best, "*", color=colour, markersize=13, label=f"best: {best:.4f}")
    _mark_annealings(axes, annealings(rows))
    axes.set(xlabel="optimiser steps", ylabel=f"nats per {unit}", title=title)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    if axes.lines:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)
    save(figure, axes, path)


def compared_losses(
    runs: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], path: Path, unit: str = "token"
) -> None:
    """Draw the losses of several runs by epoch; each has points (epochs, nats) by split."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for (name, curves), colour in zip(runs.items(), COLOURS, strict=False):
        for split, style, what in (("train", ":", "training"), ("valid", ".-", "validation")):
            if curves.get(split):
                x, y = zip(*curves[split], strict=True)
                axes.plot(
                    x, y, style, color=colour, label=f"{name}, {what}", markersize=4, linewidth=1.4
                )
    axes.set(xlabel="epochs", ylabel=f"nats per {unit}")
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    if axes.lines:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)
    save(figure, axes, path)


def annealings(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Return after which steps the learning rate fell, and to what."""
    train = [(int(r["step"]), float(r["learning_rate"])) for r in rows if r["split"] == "train"]
    return [(step, new) for (step, old), (_, new) in pairwise(train) if new < old]


def _mark_annealings(axes: Axes, marks: Sequence[tuple[int, float]]) -> None:
    every = -(-len(marks) // NAMED_MARKS) or 1
    for number, (step, rate) in enumerate(marks):
        label = "learning rate annealed" if number == 0 else None
        axes.axvline(step, color=GREY, linestyle=":", linewidth=1, label=label)
        if number % every == 0:
            axes.annotate(
                f"{rate:.3g}",
                (step, 1),
                (2, -3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                rotation=90,
                va="top",
                fontsize=7,
                color=GREY,
            )


# Structure --------------------------------------------------------------------------------------


def self_similarity(judged: Sequence[Judgement], path: Path) -> None:
    """Draw how alike the bars of each set's most typical piece are, and of all, by distance."""
    columns = max(3, -(-len(judged) // 2))
    rows = -(-len(judged) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.9 * rows + 3.4), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[2.7] * rows + [3.2])
    drawn = None
    for number, one in enumerate(judged):
        axes = figure.add_subplot(grid[divmod(number, columns)])
        bars = len(one.bars)
        drawn = axes.imshow(
            one.bars, vmin=0, vmax=1, cmap="magma", origin="lower", extent=(0, bars, 0, bars)
        )
        axes.set_title(one.name, fontsize=10)
        axes.set_xticks(range(0, bars + 1, 4 if bars >= 8 else 1))
        axes.set_yticks(range(0, bars + 1, 4 if bars >= 8 else 1))
        axes.tick_params(labelsize=8)
    assert drawn is not None
    figure.colorbar(drawn, ax=figure.axes, shrink=0.6, label="notes in common")
    axes = figure.add_subplot(grid[rows, :])
    for number, one in enumerate(judged):
        lags = np.arange(1, len(one.similarity) + 1)
        mean, low, high = np.array(one.similarity).T
        style = {"real": "-", "run": "--", "baseline": ":"}[one.kind]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(lags, mean, style, color=colour, label=one.name, linewidth=1.6)
        axes.fill_between(lags, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set(xlabel="bars apart", ylabel="notes in common, mean", xlim=(1, None), ylim=(0, None))
    axes.set_xticks([lag for lag in (1, 2, 4, 8, 12, 16, 24, 32) if lag <= len(one.similarity)])
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.legend(ncols=4, fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    save(figure, axes, path)


# An embedding -----------------------------------------------------------------------------------


def embedding_map(
    checkpoint: Checkpoint, path: Path, seed: int = 0, perplexity: float = PERPLEXITY
) -> PitchOrder:
    """Draw a model's embedding of pitches by t-SNE (the paper's figures 6, 8); return their order.

    Circles are note-ons (or notes), crosses note-offs; colour is pitch, low blue to high red.
    perplexity: lowered where there are few pitches. Raises UserError where there are too few.
    """
    points = pitch_points(checkpoint)
    perplexity = fitting_perplexity(perplexity, len(points.pitches))
    places = tsne(points.vectors, seed, perplexity)
    order = order_of(points, seed)
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    low, high = int(points.pitches.min()), int(points.pitches.max())
    drawn = None
    for marker, kind, chosen in (("o", "note-on", points.ons), ("x", "note-off", ~points.ons)):
        if chosen.any():
            drawn = axes.scatter(
                places[chosen, 0], places[chosen, 1], c=points.pitches[chosen], vmin=low,
                vmax=high, cmap=BLUE_TO_RED,
                marker=marker, s=36, linewidths=1.4, label=kind,
            )  # fmt: skip
    for place, pitch in zip(places, points.pitches.tolist(), strict=True):
        axes.annotate(
            pitch_name(pitch), place, (4, 3), textcoords="offset points", fontsize=6.5,
            color="#444444",
        )  # fmt: skip
    if not points.ons.all():
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.01), ncols=2, frameon=False)
    assert drawn is not None
    octaves = [p for p in range(low, high + 1) if p % 12 == 0]
    bar = figure.colorbar(drawn, ax=axes, ticks=octaves, shrink=0.8)
    bar.ax.set_yticklabels([pitch_name(p) for p in octaves])
    axes.set_title(
        f"{points.what}: t-SNE, perplexity {perplexity:.3g}, seed {seed}\n"
        f"rank correlation of distance with interval {order.rho:.2f} "
        f"(shuffled: at most {order.shuffled_max:.2f})",
        fontsize=10,
    )
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.set_adjustable("datalim")
    axes.margins(0.06)
    axes.spines[["left", "bottom"]].set_visible(False)
    save(figure, axes, path)
    return order


# Files ------------------------------------------------------------------------------------------


def names_in(figure: Figure) -> list[Text]:
    """Return the texts of a figure that may be names: its titles and legends."""
    legends = [axes.get_legend() for axes in figure.axes]
    texts = [text for legend in legends if legend is not None for text in legend.get_texts()]
    return texts + [axes.title for axes in figure.axes]


def save(figure: Figure, axes: Axes, path: Path) -> None:
    """Write a figure as a PNG file, without the box around its axes."""
    axes.set_axisbelow(True)
    for text in names_in(figure):
        text.set_text(printable(text.get_text()))
        text.set_parse_math(False)  # a $ is a $
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=DPI)
