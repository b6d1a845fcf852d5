"""bin/evaluate --music: judge what runs compose against real music."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lstm_music.baselines import BASELINES, fit_baseline
from lstm_music.checkpoint import Checkpoint
from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    number,
    run,
    warn,
    warn_of_namesake,
    whole,
    write,
)
from lstm_music.cli.evaluate import reading_of
from lstm_music.cli.figures import corpus_of
from lstm_music.cli.printing import Bar, shown
from lstm_music.cli.runs import bundled_model, newest_run, open_run
from lstm_music.cli.sample import model_of, ops_of
from lstm_music.composer import Composer, FrequencyComposer, composer_of
from lstm_music.corpus import Reading, load_corpus
from lstm_music.errors import UserError
from lstm_music.memorisation import LONG, SHORT, Index
from lstm_music.model import Model
from lstm_music.music_pieces import BAR, Music, excerpts, from_silence, notes_of_piece, split_music
from lstm_music.music_report import Judgement, MusicSet, as_json, in_words, judge, recites
from lstm_music.prepared import SPLITS, Corpus
from lstm_music.roll_corpus import RollCorpus
from lstm_music.sampler import Options

REAL = {"test": "held-out", "valid": "validation", "train": "training"}
UNTRAINED = "untrained"
EXAMPLES = """examples:
  bin/evaluate --music my-run                    50 pieces of 16 bars against the test split
  bin/evaluate --music run-1 run-2 --json out.json --figure bars.png
  bin/evaluate --music my-run --reference ~/my-midi

Without a run: the newest one, else the bundled model. The first run's corpus is the reference.
Of each set of pieces: what it is like (muspy's measures), how far the distances within held-out
music overlap those to it (MGEval; 1 is alike), what it has copied from training, and how often its
bars return.
"""


def main(argv: Sequence[str]) -> int:
    """Print tables and what they say, write JSON and a figure if asked to; return the status."""
    args = make_parser().parse_args(argv)
    limit_threads(args.threads, args.backend)
    names = args.runs or [str(newest_run() or bundled_model())]
    opened = [(name, *open_run(name)) for name in dict.fromkeys(names)]
    corpora = [corpus_for(*one, reading_of(*one[1:]), args) for one in opened]
    reference = reference_of(opened[0], corpora[0], args)
    with Bar(args.quiet, "sets") as bar:
        judged = []
        makers = sets_of(opened, corpora, reference, args)
        held_out = makers[0]()
        for n, make in enumerate(makers):
            judged.append(judge(held_out, held_out if n == 0 else make(), args.bars, args.seed))
            bar.show(n + 1, len(makers))
    if not args.quiet:
        print_tables(judged, args)
    for line in in_words(judged, judged[0]):
        print(shown(line))
    if args.json:
        content = {
            "bars": args.bars, "seed": args.seed, "reference": judged[0].name,
            "sets": [as_json(one, judged[0].memory) for one in judged],
        }  # fmt: skip
        write((json.dumps(content, indent=2) + "\n").encode(), args.json)
    if args.figure:
        from lstm_music.figures import self_similarity

        args.figure.parent.mkdir(parents=True, exist_ok=True)
        self_similarity(judged, args.figure)
    return 0


# What is judged ---------------------------------------------------------------------------------


def corpus_for(
    name: str,
    checkpoint: Checkpoint,
    folder: Path | None,
    reading: Reading,
    args: argparse.Namespace,
) -> Corpus:
    """Return the corpus that a run was trained on, read in some way.

    Where it is gone, the reference stands in, with a warning; without one, UserError is raised.
    """
    progress = sys.stderr.isatty()
    if args.data is not None and args.reference is None:  # the set has moved
        return load_corpus(checkpoint.meta["corpus"]["name"], args.data, reading, progress)
    try:
        return corpus_of(name, checkpoint, folder, reading)
    except UserError as error:
        if args.reference is None:
            raise
        warn(f"{error}; {args.reference} stands in")
        return load_corpus(args.reference, args.data, reading, progress)


def reference_of(
    first: tuple[str, Checkpoint, Path | None], own: Corpus, args: argparse.Namespace
) -> Corpus:
    """Return the corpus to judge against: --reference, or the first run's own."""
    if args.reference is None:
        return own
    corpus = load_corpus(args.reference, args.data, reading_of(*first[1:]), sys.stderr.isatty())
    warn_of_namesake(args.reference, args.data)
    return corpus


def sets_of(
    opened: Sequence[tuple[str, Checkpoint, Path | None]],
    corpora: Sequence[Corpus],
    reference: Corpus,
    args: argparse.Namespace,
) -> list[Callable[[], MusicSet]]:
    """Return what makes each set: held-out music first, then the other real, runs, baselines.

    Raises UserError where the held-out split is too short to judge against.
    """
    indexes: dict[str, Index] = {}

    def index(corpus: Corpus) -> Index:
        if corpus.key not in indexes:
            indexes[corpus.key] = Index(split_music(corpus, "train"))
        return indexes[corpus.key]

    def real(split: str) -> MusicSet:
        pieces = excerpts(split_music(reference, split), args.bars, args.num, args.seed)
        if len(pieces) < 2:
            raise UserError(
                f"the {split} split has music for {len(pieces)} excerpts of {args.bars} bars, and "
                "two are needed: give a lower --bars"
            )
        own = None if split == "train" else index(reference)
        return MusicSet(REAL[split], "real", pieces, own)

    def generated(name: str, kind: str, corpus: Corpus, composer: Composer[Any]) -> MusicSet:
        return MusicSet(name, kind, composed(composer, args), index(corpus))

    def of_run(name: str, checkpoint: Checkpoint, corpus: Corpus) -> MusicSet:
        composer = composer_of(checkpoint, model_of(checkpoint, args.backend))
        return generated(name, "run", corpus, composer)

    def of_untrained(checkpoint: Checkpoint) -> MusicSet:
        seed = checkpoint.meta["settings"]["seed"]
        model = Model(checkpoint.config, ops_of(args.backend), seed, words=checkpoint.words)
        return generated(UNTRAINED, "baseline", corpora[0], composer_of(checkpoint, model))

    def of_frequency(kind: str) -> MusicSet:
        rolls = rolls_of(opened[0], corpora[0], args)
        baseline = fit_baseline(kind, rolls.split_frames("train"), rolls.split_frames("valid"))
        composer = FrequencyComposer(baseline, rolls.reading.grid)
        return generated(kind, "baseline", corpora[0], composer)

    first = opened[0][1]
    splits = [args.split, *(split for split in reversed(SPLITS) if split != args.split)]
    return [
        *(lambda split=split: real(split) for split in splits),
        *(
            lambda name=name, checkpoint=checkpoint, corpus=corpus: of_run(
                short(name), checkpoint, corpus
            )
            for (name, checkpoint, _), corpus in zip(opened, corpora, strict=True)
        ),
        lambda: of_untrained(first),
        *(lambda kind=kind: of_frequency(kind) for kind in reversed(BASELINES)),
    ]


def short(name: str) -> str:
    """Return a run's name as tables have room for it."""
    return Path(name).resolve().name if Path(name).name in ("", ".", "..") else Path(name).name


def rolls_of(
    first: tuple[str, Checkpoint, Path | None], own: Corpus, args: argparse.Namespace
) -> RollCorpus:
    """Return the first run's corpus as frames, for the baselines that draw them."""
    if isinstance(own, RollCorpus):
        return own
    corpus = corpus_for(*first, Reading("note", drums=own.drums is not None), args)
    assert isinstance(corpus, RollCorpus)
    return corpus


def composed(composer: Composer[Any], args: argparse.Namespace) -> list[Music]:
    """Return --num pieces of --bars, each from silence, by --seed."""
    asked = Options(
        None,
        args.bars * BAR,
        temperature=args.temperature,
        top_p=composer.top_p if args.top_p is None else args.top_p,
        seed=args.seed,
    )
    pieces = from_silence(composer, args.num, asked)
    return [Music(piece.name, notes_of_piece(piece)) for piece in pieces]


# Tables -----------------------------------------------------------------------------------------

Cell = Callable[[Judgement], str]


def print_tables(judged: Sequence[Judgement], args: argparse.Namespace) -> None:
    """Print all tables, a column for each set of pieces."""
    print(f"Excerpts and pieces of {args.bars} bars, seed {args.seed}\n")
    rows: list[tuple[str, Cell]] = [("pieces", lambda one: str(one.pieces))]
    if any(one.silent for one in judged):
        rows.append(("silent", lambda one: str(one.silent)))
    rows += [(name, mean_cell(name)) for name in judged[0].numbers]
    print_table("means", judged, rows)
    others = judged[1:]
    overlaps: list[tuple[str, Cell]] = [
        ("all, mean", lambda one: f"{one.overlap.value:.2f}"),
        ("  95 % interval", lambda one: f"{one.overlap.low:.2f}-{one.overlap.high:.2f}"),
    ]
    overlaps += [(name, overlap_cell(name)) for name in others[0].nearness]
    print_table(f"overlap with {judged[0].name}", others, overlaps)
    divergences = [(name, divergence_cell(name)) for name in others[0].nearness]
    print_table("divergence, nats", others, divergences)
    print_table("copied from training", judged, memory_rows(judged))
    repeated: list[tuple[str, Cell]] = [
        (f"{lag} bar{'s' * (lag > 1)} before", repetition_cell(lag)) for lag in judged[0].repetition
    ]
    print_table("bars that repeat the one", judged, repeated)


def mean_cell(name: str) -> Cell:
    """Return what shows a number's mean."""
    return lambda one: f"{one.numbers[name][0]:.3f}"


def overlap_cell(name: str) -> Cell:
    """Return what shows a feature's overlap."""
    return lambda one: f"{one.nearness[name].overlap.value:.2f}"


def divergence_cell(name: str) -> Cell:
    """Return what shows a feature's divergence."""
    return lambda one: f"{one.nearness[name].divergence.value:.2f}"


def repetition_cell(lag: int) -> Cell:
    """Return what shows the share of bars that repeat another."""
    return lambda one: f"{one.repetition[lag].value:.1%}"


def memory_rows(judged: Sequence[Judgement]) -> list[tuple[str, Cell]]:
    """Return the rows of the table of copies."""
    held_out = judged[0].memory

    def cell(show: Callable[[Any], str]) -> Cell:
        return lambda one: "-" if one.memory is None else show(one.memory)

    def verdict(one: Judgement) -> str:
        if one.kind != "run" or one.memory is None or held_out is None:
            return "-"
        return "RECITES" if recites(one.memory, held_out) else "no"

    return [
        (f"{SHORT} notes, transposed too", cell(lambda m: f"{m.short.value:.1%}")),
        (f"{SHORT} notes, exactly", cell(lambda m: f"{m.short_exact:.1%}")),
        (f"{LONG} notes, transposed too", cell(lambda m: f"{m.long.value:.1%}")),
        (f"{LONG} notes, exactly", cell(lambda m: f"{m.long_exact:.1%}")),
        ("longest run, mean", cell(lambda m: f"{m.longest:.1f}")),
        ("longest run", cell(lambda m: str(m.worst.transposed.notes))),
        ("samples half copied", cell(lambda m: str(len(m.recited)))),
        ("recites", verdict),
    ]


def print_table(title: str, judged: Sequence[Judgement], rows: Sequence[tuple[str, Cell]]) -> None:
    """Print a table, a line for each row, and an empty line."""
    first = max(len(title), *(len(name) for name, _ in rows))
    widths = [max(9, len(one.name)) for one in judged]
    heads = (f"{one.name:>{w}}" for one, w in zip(judged, widths, strict=True))
    print(shown("  ".join([f"{title:{first}}", *heads])))
    for name, cell in rows:
        cells = (f"{cell(one):>{w}}" for one, w in zip(judged, widths, strict=True))
        print("  ".join([f"{name:{first}}", *cells]))
    print()


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("evaluate --music", "Judge what runs compose against real music.", EXAMPLES)
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="a run, or a checkpoint (a step-… folder)")
    add("--reference", "--corpus", metavar="C", help="real music (default: the first run's own)")
    add("--data", type=Path, metavar="FILE", help="read the named corpus from this file or folder")
    add("--split", choices=SPLITS, default="test", help="the part of the reference to judge by")
    add("--num", type=whole(2, 10_000), default=50, metavar="N", help="pieces of each set, at most")
    add("--bars", type=whole(2, 1000), default=16, metavar="N", help="bars of 4/4 of each piece")
    add("--seed", type=whole(0), default=0, metavar="N", help="of all that is drawn")
    above_0, share = number(0, 100, above=True), number(0, 1, above=True)
    add("--temperature", type=above_0, default=1.0, metavar="X", help="as of bin/sample")
    add("--top-p", type=share, metavar="P", help="as of bin/sample (default: as there)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--figure", type=Path, metavar="FILE.png", help="draw how bars resemble each other")
    add("--quiet", action="store_true", help="print what the figures say alone")
    add_backend_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
