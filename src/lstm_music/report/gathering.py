"""What a report tells of runs, gathered: likelihoods, figures, samples."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.errors import UserError, Warn
from lstm_music.evaluation import likelihood
from lstm_music.files import content_of
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import TICKS_PER_QUARTER, WHOLE_NOTE, Piece
from lstm_music.midi.timing import constant
from lstm_music.ops import get_ops
from lstm_music.rendering import score
from lstm_music.rendering.audio import wav_bytes
from lstm_music.report.media import RATE, small_svg, small_wav
from lstm_music.report.page import MOST, PRIMER_LENGTH
from lstm_music.report.told import Picture, Row, RunReport, Sample, Table
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.runs.folder import METRICS, read_metrics
from lstm_music.runs.opened import bundled_model, evaluation_corpus, model_of, newest_run, open_run
from lstm_music.sampling.composer import Composer, origin_of, primers_of, tempo_of
from lstm_music.sampling.excerpts import without_silence
from lstm_music.sampling.from_checkpoint import composer_of

TEMPERATURES = (0.8, 1.0, 1.2)
BARS, FEWEST_BARS = 8, 2  # of a sample: 21 s at 90 a minute, or fewer where there are many
SOUND_SHARE, SCORE_SHARE = 0.6, 0.2  # of a page, for its sounds and scores
IN_BASE64 = 4 / 3  # characters a byte
RINGING = 3.0  # seconds that the last notes of a sample ring, about
Chosen = tuple[str, Checkpoint, Path | None]  # name, checkpoint, the run's folder
SPLIT_USES = {
    "train": "the runs learnt from",
    "valid": "chose the checkpoint but were not learnt from",
    "test": "no run has seen",
}


class Asked(NamedTuple):
    """What is asked of a report.

    num: samples of each run at each temperature. split, corpus, data: what to evaluate on, None
    for each run's own.
    """

    num: int
    seed: int
    split: str
    corpus: str | None
    data: Path | None
    backend: str


class Progress(Protocol):
    """Who is told what is being made, and what couldn't be."""

    def show(self, what: str) -> None:
        """Say what is being made, and count it."""

    def warn(self, line: str) -> None:
        """Print a warning, unless it is empty or was printed before."""


class Room(NamedTuple):
    """What the page has for a sample: bars of music, bytes of its score."""

    bars: int
    score: int


def chosen_runs(arguments: Sequence[str], warn: Warn) -> list[Chosen]:
    """Return the runs to report on: those given, else the newest, else the bundled model."""
    newest = None if arguments else newest_run()
    arguments = arguments or [str(newest or bundled_model())]
    opened = [(argument, *open_run(argument, warn)) for argument in dict.fromkeys(arguments)]
    short = [(folder or checkpoint.path).resolve().name for _, checkpoint, folder in opened]
    names = [name if short.count(name) == 1 else opened[n][0] for n, name in enumerate(short)]
    return [(name, *one[1:]) for name, one in zip(names, opened, strict=True)]


def report_of(
    name: str,
    checkpoint: Checkpoint,
    folder: Path | None,
    pictures: list[Picture],
    room: Room,
    asked: Asked,
    steps: Progress,
) -> RunReport:
    """Gather what the page tells of a run."""
    composer = composer_of(checkpoint, model_of(checkpoint, asked.backend))
    samples = [
        sample
        for temperature in TEMPERATURES
        for sample in compose(composer, temperature, room, asked, steps)
    ]
    metrics = losses_of(folder, steps.warn) if folder else []
    return RunReport(name, checkpoint, metrics, composer.top_p, samples, pictures)


def losses_of(folder: Path, warn: Warn) -> list[Row]:
    """Return what metrics.csv of a run says; a warning and none where it can't be read."""
    try:
        rows = read_metrics(folder / METRICS)
    except UserError as error:
        warn(str(error))
        return []
    return [Row(r["step"], r["split"], r["loss"], r["learning_rate"]) for r in rows]


def corpora_of(chosen: Sequence[Chosen], asked: Asked, steps: Progress) -> dict[str, Corpus]:
    """Return by run the corpus to evaluate it on, where it can be read; a warning where not."""
    corpora = {}
    for name, checkpoint, folder in chosen:
        steps.show(f"{name}: corpus")
        try:
            corpora[name] = evaluation_corpus(name, checkpoint, folder, asked.corpus, asked.data)
        except UserError as error:
            steps.warn(f"{name} is not evaluated: {error}")
    return corpora


def likelihoods(
    chosen: Sequence[Chosen],
    corpora: Mapping[str, Corpus],
    asked: Asked,
    steps: Progress,
) -> tuple[list[Table], list[str]]:
    """Return the table of runs and baselines, what others have published, and remarks."""
    rows: list[likelihood.Row] = []
    baselines: list[tuple[likelihood.Row, list[str]]] = []  # and the runs that each is for
    published: dict[str, list[likelihood.Row]] = {}
    remarks = []
    for name, checkpoint, _ in chosen:
        steps.show(f"{name}: likelihood")
        corpus = corpora.get(name)
        if corpus is None:
            remarks.append(f"{name} is not evaluated: its corpus couldn't be read.")
            continue
        ops = get_ops(asked.backend)
        own, *others = likelihood.evaluate(name, checkpoint, corpus, asked.split, ops)
        rows.append(own)
        for other in others:
            shared = next((runs for row, runs in baselines if row == other), None)
            if shared is None:
                baselines.append((other, [name]))
            else:
                shared.append(name)
        if isinstance(corpus, RollCorpus):
            published |= likelihood.published_rows(corpus, asked.split)
    several = len(chosen) > 1
    named = [
        row | {"name": f"{row['name']} ({', '.join(runs)})" if several else row["name"]}
        for row, runs in baselines
    ]
    tables = [likelihood_table(rows, named, asked.split)] if rows else []
    for name, others in published.items():
        tables.append(table_of(f"Published for {name}, test split", others, 0))
    if several and tables:
        remarks.append(
            "Nats per token compare runs on the same tokens only; nats per note compare all "
            "tokens of MIDI files, and nats per frame all models of piano rolls on the same frames."
        )
    return tables, remarks


def likelihood_table(
    rows: list[likelihood.Row], baselines: list[likelihood.Row], split: str
) -> Table:
    """Return runs and baselines in one table."""
    caption = f"On the {split} split, whose pieces {SPLIT_USES[split]}; fewer nats are better"
    return table_of(caption, [*rows, *baselines], len(rows))


def table_of(caption: str, rows: list[likelihood.Row], own: int) -> Table:
    """Return rows as bin/evaluate prints them, the first so many as runs."""
    columns = [
        column
        for column in likelihood.columns(rows)
        if any(r.get(column[1]) is not None for r in rows)
    ]
    cells = [
        ["–" if row.get(key) is None else format(row[key], form) for _, key, form in columns]
        for row in rows
    ]
    heads = [title.strip() for title, _, _ in columns]
    names = [row["name"] for row in rows]
    return Table(caption, heads, [(name, cells[n], n < own) for n, name in enumerate(names)])


def pictures_of(
    chosen: Sequence[Chosen], corpora: Mapping[str, Corpus], seed: int, steps: Progress
) -> dict[str, list[Picture]]:
    """Return the figures of each run: its tokens' frequencies, once a corpus, and its embedding."""
    drawn: set[str] = set()
    pictures: dict[str, list[Picture]] = {}
    for name, checkpoint, _ in chosen:
        steps.show(f"{name}: figures")
        pictures[name] = []
        corpus = corpora.get(name)
        if corpus is not None and corpus.key not in drawn:
            drawn.add(corpus.key)
            pictures[name].append(frequency_picture(corpus))
        try:
            pictures[name].append(embedding_picture(checkpoint, seed))
        except UserError as error:
            steps.warn(f"{name} has no figure of its embedding: {error}")
    return pictures


def frequency_picture(corpus: Corpus) -> Picture:
    """Return how often each token occurs."""
    from lstm_music.rendering.figures import token_counts, token_frequency

    counts = token_counts(corpus)
    word, most = counts.most_common(1)[0]
    alt = (
        f"Occurrences by rank on logarithmic scales, falling: {len(counts):,} different tokens, "
        f"the commonest, {word}, {most:,} times"
    )
    caption = "How often each token of the corpus occurs, the commonest first."
    return Picture(
        "Token frequency", content_of(lambda path: token_frequency(corpus, path))[0], alt, caption
    )


def embedding_picture(checkpoint: Checkpoint, seed: int) -> Picture:
    """Return the map of the embedding. Raises UserError where it holds too few pitches."""
    from lstm_music.rendering.figures import embedding_map

    png, order = content_of(lambda path: embedding_map(checkpoint, path, seed))
    caption = (
        "What the network learnt of pitch, from music alone: notes that it treats alike are near. "
        f"The rank correlation of their distance with the interval is {order.rho:.2f}; with "
        f"pitches shuffled it is at most {order.shuffled_max:.2f}."
    )
    alt = "A map of notes by t-SNE, coloured by pitch from blue to red"
    return Picture("Embedding", png, alt, caption)


def room_for(chosen: Sequence[Chosen], samples: int) -> Room:
    """Return what the page has for each of so many samples of some runs."""
    slowest = min(tempo_of(checkpoint) for _, checkpoint, _ in chosen)
    return Room(bars_of(samples, slowest), int(MOST * SCORE_SHARE / IN_BASE64 / samples))


def bars_of(samples: int, tempo: float) -> int:
    """Return how many bars each of so many samples may have, so that the page stays small."""
    seconds = MOST * SOUND_SHARE / samples / (RATE * IN_BASE64) - RINGING
    bars = min(BARS, int(seconds / (WHOLE_NOTE / TICKS_PER_QUARTER * 60 / tempo)))
    if bars < FEWEST_BARS:
        raise UserError(
            f"{samples} samples are more than a page of {MOST / 1e6:.0f} MB holds: give fewer "
            "runs, or a lower --num"
        )
    return bars


def compose(
    composer: Composer[Any],
    temperature: float,
    room: Room,
    asked: Asked,
    steps: Progress,
) -> list[Sample]:
    """Return --num samples, which begin alike at each temperature."""
    drawing = composer.options(
        limit=room.bars * WHOLE_NOTE, temperature=temperature, seed=asked.seed
    )
    options = composer.fitted(drawing)
    openings = primers_of(composer, options, asked.num, PRIMER_LENGTH)
    primers = [opening.music for opening in openings]
    made = composer.compose(primers, options, lambda done, most: None)
    samples = []
    for music, opening in zip(made, openings, strict=True):
        origin = origin_of(composer, opening, options)
        steps.show(f"temperature {temperature:g}")
        piece, _ = without_silence(composer.piece(music, options, f"temperature {temperature:g}"))
        piece = replace(piece, tempo=constant(composer.tempo))
        content = io.BytesIO()
        write_midi(piece, content)
        midi = content.getvalue()
        wav, mute = sound_of(midi, steps) if piece.tracks else (None, "This sample is silent.")
        pages, unwritten = score_of(piece, room.score)
        remarks = [remark for remark in (mute, unwritten) if remark]
        samples.append(Sample(piece, temperature, origin, midi, wav, pages, remarks))
    return samples


def sound_of(midi: bytes, steps: Progress) -> tuple[bytes | None, str]:
    """Return a small WAV file of a MIDI file's content, or None and why there is none."""
    try:
        content, sound = wav_bytes(midi)
    except UserError as error:
        return None, f"No sound: {error}."
    steps.warn(sound.remark)
    return small_wav(content), ""


def score_of(piece: Piece, most: int) -> tuple[str | None, str]:
    """Return a piece's score of at most so many bytes; or None, and perhaps why."""
    if not piece.tracks or not score.is_available():
        return None, ""
    try:
        for pages in (score.PAGES, 1):
            svg = small_svg(score.stacked(score.engrave(piece, pages)))
            if len(svg.encode()) <= most:
                return svg, ""
    except UserError as error:
        return None, f"No score: {error}."
    return None, "The score is too large for this page: bin/sample --svg engraves it."
