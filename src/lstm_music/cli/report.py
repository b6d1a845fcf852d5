"""bin/report: one HTML page about runs, with everything inside."""

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lstm_music import score
from lstm_music.audio import wav_bytes
from lstm_music.checkpoint import Checkpoint
from lstm_music.cli import evaluate
from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    check_opener,
    content_of,
    limit_threads,
    open_file,
    run,
    warn,
    warn_of_namesake,
    whole,
    write,
)
from lstm_music.cli.runs import bundled_model, newest_run, open_run
from lstm_music.cli.sample import model_of, primers_of
from lstm_music.composer import Composer, composer_of
from lstm_music.decoding import without_silence
from lstm_music.errors import UserError
from lstm_music.midi import TICKS_PER_QUARTER, WHOLE_NOTE, Piece, write_midi
from lstm_music.ops import get_ops
from lstm_music.page_media import RATE, small_svg, small_wav
from lstm_music.prepared import SPLITS, Corpus
from lstm_music.report import (
    MOST,
    PRIMER_LENGTH,
    TEMPO,
    Picture,
    Row,
    RunReport,
    Sample,
    Table,
    page,
)
from lstm_music.roll_corpus import RollCorpus
from lstm_music.run_folder import METRICS, read_metrics
from lstm_music.sampler import Options
from lstm_music.sources import NAMED

TEMPERATURES = (0.8, 1.0, 1.2)
BARS, FEWEST_BARS = 8, 2  # of a sample: 21 s at TEMPO, or fewer where there are many
SOUND_SHARE, SCORE_SHARE = 0.6, 0.2  # of a page, for its sounds and scores
IN_BASE64 = 4 / 3  # characters a byte
RINGING = 3.0  # seconds that the last notes of a sample ring, about
EXAMPLES = """examples:
  bin/report my-run                        writes runs/my-run/report.html
  bin/report my-run --open                 and shows it
  bin/report run-1 run-2 --out both.html   two runs beside each other
  bin/report                               the newest run, else the bundled model
"""


def main(argv: Sequence[str]) -> int:
    """Write the page and print its path; return the exit status."""
    args = make_parser().parse_args(argv)
    if args.open:
        check_opener()
    limit_threads(args.threads, args.backend)
    chosen = chosen_runs(args.runs)
    samples = len(chosen) * len(TEMPERATURES) * args.num
    room = Room(bars_of(samples), int(MOST * SCORE_SHARE / IN_BASE64 / samples))
    out = args.out or default_path(chosen)
    with Steps(3 * len(chosen) + samples) as steps:
        corpora = corpora_of(chosen, args, steps)
        tables, remarks = likelihoods(chosen, corpora, args, steps)
        pictures = pictures_of(chosen, corpora, args.seed, steps)
        reports = [report_of(*one, pictures[one[0]], room, args, steps) for one in chosen]
        content = page(reports, tables, remarks).encode()
    if len(content) > MOST:
        raise UserError(
            f"the page would have {len(content) / 1e6:.1f} MB, more than {MOST / 1e6:.0f}: "
            "give fewer runs, or a lower --num"
        )
    write(content, out)
    print(out if args.quiet else f"{out}  ({len(content) / 1e6:.1f} MB, {samples} samples)")
    if args.open:
        open_file(out)
    return 0


class Room(NamedTuple):
    """What the page has for a sample: bars of music, bytes of its score."""

    bars: int
    score: int


# Runs -------------------------------------------------------------------------------------------

Chosen = tuple[str, Checkpoint, Path | None]  # name, checkpoint, the run's folder


def chosen_runs(arguments: Sequence[str]) -> list[Chosen]:
    """Return the runs to report on: those given, else the newest, else the bundled model."""
    newest = None if arguments else newest_run()
    arguments = arguments or [str(newest or bundled_model())]
    opened = [(argument, *open_run(argument)) for argument in dict.fromkeys(arguments)]
    short = [(folder or checkpoint.path).resolve().name for _, checkpoint, folder in opened]
    names = [name if short.count(name) == 1 else opened[n][0] for n, name in enumerate(short)]
    return [(name, *one[1:]) for name, one in zip(names, opened, strict=True)]


def default_path(chosen: Sequence[Chosen]) -> Path:
    """Return where the page goes: into the run's folder, or of several or none, this one."""
    folder = chosen[0][2] if len(chosen) == 1 else None
    return (folder or Path()) / "report.html"


def report_of(
    name: str,
    checkpoint: Checkpoint,
    folder: Path | None,
    pictures: list[Picture],
    room: Room,
    args: argparse.Namespace,
    steps: "Steps",
) -> RunReport:
    """Gather what the page tells of a run."""
    composer = composer_of(checkpoint, model_of(checkpoint, args.backend))
    samples = [
        sample
        for temperature in TEMPERATURES
        for sample in compose(composer, temperature, room, args, steps)
    ]
    metrics = losses_of(folder) if folder else []
    return RunReport(name, checkpoint, metrics, composer.top_p, samples, pictures)


def losses_of(folder: Path) -> list[Row]:
    """Return what metrics.csv of a run says; a warning and none where it can't be read."""
    try:
        rows = read_metrics(folder / METRICS)
    except UserError as error:
        warn(str(error))
        return []
    return [Row(r["step"], r["split"], r["loss"], r["learning_rate"]) for r in rows]


# Likelihood -------------------------------------------------------------------------------------


def corpora_of(
    chosen: Sequence[Chosen], args: argparse.Namespace, steps: "Steps"
) -> dict[str, Corpus]:
    """Return by run the corpus to evaluate it on, where it can be read; a warning where not."""
    corpora = {}
    warn_of_namesake(args.corpus, args.data)
    for name, checkpoint, folder in chosen:
        steps.show(f"{name}: corpus")
        try:
            corpora[name] = corpus_of(name, checkpoint, folder, args)
        except UserError as error:
            steps.warn(f"{name} is not evaluated: {error}")
    return corpora


def corpus_of(
    name: str, checkpoint: Checkpoint, folder: Path | None, args: argparse.Namespace
) -> Corpus:
    """Return the corpus to evaluate on; a model without a run's folder may know a named one."""
    own = checkpoint.meta["corpus"]["name"]
    if args.corpus is None and folder is None and own in NAMED:
        args = argparse.Namespace(**(vars(args) | {"corpus": own}))
    return evaluate.corpus_of(name, checkpoint, folder, args)


def likelihoods(
    chosen: Sequence[Chosen],
    corpora: Mapping[str, Corpus],
    args: argparse.Namespace,
    steps: "Steps",
) -> tuple[list[Table], list[str]]:
    """Return the table of runs and baselines, what others have published, and remarks."""
    rows: list[evaluate.Row] = []
    baselines: list[tuple[evaluate.Row, list[str]]] = []  # and the runs that each is for
    published: dict[str, list[evaluate.Row]] = {}
    remarks = []
    for name, checkpoint, _ in chosen:
        steps.show(f"{name}: likelihood")
        corpus = corpora.get(name)
        if corpus is None:
            remarks.append(f"{name} is not evaluated: its corpus couldn't be read.")
            continue
        ops = get_ops(args.backend)
        own, *others = evaluate.evaluate(name, checkpoint, corpus, args.split, ops)
        rows.append(own)
        for other in others:
            shared = next((runs for row, runs in baselines if row == other), None)
            if shared is None:
                baselines.append((other, [name]))
            else:
                shared.append(name)
        if isinstance(corpus, RollCorpus):
            published |= evaluate.published_rows(corpus, args.split)
    several = len(chosen) > 1
    named = [
        row | {"name": f"{row['name']} ({', '.join(runs)})" if several else row["name"]}
        for row, runs in baselines
    ]
    tables = [likelihood_table(rows, named, args.split)] if rows else []
    for name, others in published.items():
        tables.append(table_of(f"Published for {name}, test split", others, 0))
    if several and tables:
        remarks.append(
            "Nats per token compare runs on the same tokens only; nats per note compare all "
            "tokens of MIDI files, and nats per frame all models of piano rolls on the same frames."
        )
    return tables, remarks


def likelihood_table(rows: list[evaluate.Row], baselines: list[evaluate.Row], split: str) -> Table:
    """Return runs and baselines in one table."""
    caption = f"On the {split} split, whose pieces {SPLIT_USES[split]}; fewer nats are better"
    return table_of(caption, [*rows, *baselines], len(rows))


SPLIT_USES = {
    "train": "the runs learnt from",
    "valid": "chose the checkpoint but were not learnt from",
    "test": "no run has seen",
}


def table_of(caption: str, rows: list[evaluate.Row], own: int) -> Table:
    """Return rows as bin/evaluate prints them, the first so many as runs."""
    columns = [
        column
        for column in evaluate.columns(rows)
        if any(r.get(column[1]) is not None for r in rows)
    ]
    cells = [
        ["–" if row.get(key) is None else format(row[key], form) for _, key, form in columns]
        for row in rows
    ]
    heads = [title.strip() for title, _, _ in columns]
    names = [row["name"] for row in rows]
    return Table(caption, heads, [(name, cells[n], n < own) for n, name in enumerate(names)])


# Figures ----------------------------------------------------------------------------------------


def pictures_of(
    chosen: Sequence[Chosen], corpora: Mapping[str, Corpus], seed: int, steps: "Steps"
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
    from lstm_music.figures import token_counts, token_frequency

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
    from lstm_music.figures import embedding_map

    png, order = content_of(lambda path: embedding_map(checkpoint, path, seed))
    caption = (
        "What the network learnt of pitch, from music alone: notes that it treats alike are near. "
        f"The rank correlation of their distance with the interval is {order.rho:.2f}; with "
        f"pitches shuffled it is at most {order.shuffled_max:.2f}."
    )
    alt = "A map of notes by t-SNE, coloured by pitch from blue to red"
    return Picture("Embedding", png, alt, caption)


# Samples ----------------------------------------------------------------------------------------


def bars_of(samples: int) -> int:
    """Return how many bars each of so many samples may have, so that the page stays small."""
    seconds = MOST * SOUND_SHARE / samples / (RATE * IN_BASE64) - RINGING
    bars = min(BARS, int(seconds / (WHOLE_NOTE / TICKS_PER_QUARTER * 60 / TEMPO)))
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
    args: argparse.Namespace,
    steps: "Steps",
) -> list[Sample]:
    """Return --num samples, which begin alike at each temperature."""
    drawing = Options(
        limit=room.bars * WHOLE_NOTE, temperature=temperature, top_p=composer.top_p, seed=args.seed
    )
    options = composer.fitted(drawing)
    primers, origins = primers_of(composer, options, args.num, PRIMER_LENGTH)
    samples = []
    for music, origin in zip(
        composer.compose(primers, options, lambda done, most: None), origins, strict=True
    ):
        steps.show(f"temperature {temperature:g}")
        piece, _ = without_silence(composer.piece(music, options, f"temperature {temperature:g}"))
        content = io.BytesIO()
        write_midi(piece, content, TEMPO)
        midi = content.getvalue()
        wav, mute = sound_of(midi, steps) if piece.tracks else (None, "This sample is silent.")
        pages, unwritten = score_of(piece, room.score)
        remarks = [remark for remark in (mute, unwritten) if remark]
        samples.append(Sample(piece, temperature, origin, midi, wav, pages, remarks))
    return samples


def sound_of(midi: bytes, steps: "Steps") -> tuple[bytes | None, str]:
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


# The file ---------------------------------------------------------------------------------------


class Steps:
    """A progress bar that appears after two seconds, on a terminal."""

    def __init__(self, steps: int) -> None:
        from tqdm import tqdm

        hide = not sys.stderr.isatty()
        self.said: set[str] = set()
        self.bar: Any = tqdm(total=steps, unit="step", delay=2, leave=False, disable=hide)

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def show(self, what: str) -> None:
        """Say what is being made, and count it."""
        self.bar.set_description(what)
        self.bar.update()

    def warn(self, line: str) -> None:
        """Print a warning, unless it is empty or was printed before."""
        if line and line not in self.said:
            warn(line)
        self.said.add(line)


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser(
        "report",
        "Write one HTML page about runs, with curves, likelihoods, sounds and the networks inside.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="runs or checkpoints; several are compared")
    add(
        "--out",
        type=Path,
        metavar="FILE.html",
        help="where to write (default: report.html in the run's folder; of several, here)",
    )
    add("--open", action="store_true", help="show the page in the browser")
    add(
        "--num",
        type=whole(1, 100),
        default=1,
        metavar="N",
        help=f"samples of each run at each temperature, {', '.join(map(str, TEMPERATURES))}",
    )
    add("--seed", type=whole(0), default=0, metavar="N", help="another seed gives other samples")
    add("--split", choices=SPLITS, default="test", help="the part of the corpus to predict")
    add("--corpus", metavar="C", help="what to evaluate on (default: the run's own corpus)")
    add("--data", type=Path, metavar="FILE", help="read a named corpus from this file or folder")
    add("--quiet", action="store_true", help="print nothing but the path")
    add_backend_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
