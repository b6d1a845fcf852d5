"""bin/corpus: prepare a corpus and print what is in it."""

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lstm_music.cli.common import (
    Parser,
    add_reading_options,
    add_worker_options,
    parts_told,
    reading_from,
    run,
    warn_of_namesake,
    whole,
    workers_from,
    write,
)
from lstm_music.cli.printing import shown
from lstm_music.corpus.corpus import RARE, Corpus
from lstm_music.corpus.left_out import how_played, told_of
from lstm_music.corpus.load import CLASSICAL, Reading, load_corpus, survey_corpus
from lstm_music.corpus.sources import NAMED, Skipped
from lstm_music.corpus.splits import SPLITS
from lstm_music.corpus.words import MessageCorpus
from lstm_music.errors import UserError
from lstm_music.files import cache_folder
from lstm_music.runs.folder import write_table

EXAMPLES = """examples:
  bin/corpus bach                                    the bundled chorales as messages
  bin/corpus bach --figure bach.png                  and how often each occurs
  bin/corpus ~/my-midi --json counts.json            your own files, and why some are skipped
  bin/corpus classical --build                       many composers, from music21's corpus
  bin/corpus big.zip --max-pieces 2000 --seed 1      so many of its files, drawn by a seed
  bin/corpus jsb --data JSB_Chorales.mat --representation chord
"""
SHOWN = 10  # skipped files and composers on the screen; --skipped and --json have all


def main(argv: Sequence[str]) -> int:
    """Print the pieces, tokens and unique tokens of a corpus; return the exit status."""
    args = make_parser().parse_args(argv)
    usual = parts_told(args.representation, args.corpus, args.parts)
    for name, value in usual.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    reading = reading_from(args)
    if args.build:
        build_classical(args.corpus, args.jobs)
    source = args.corpus, args.data, reading, sys.stderr.isatty(), workers_from(args)
    corpus, survey = load_corpus(*source), survey_corpus(*source)
    warn_of_namesake(args.corpus, args.data)
    summary = corpus.summary()
    parts = len(corpus.tokenizer_json().get("parts", ()))
    print_table(f"{args.corpus}, {title_of(reading, parts)}", summary)
    if survey is not None:
        summary["survey"] = asdict(survey)
        print(how_played(survey))
    for line in told_of(survey, reading, corpus):
        print(line)
    print_notes(corpus)
    if args.skipped:
        write_table(args.skipped, Skipped._fields, corpus.skipped)
    print_skipped(corpus.skipped, args.skipped)
    if args.figure:
        from lstm_music.rendering.figures import token_frequency  # Matplotlib takes a while to load

        token_frequency(corpus, args.figure)
    if args.json:
        write((json.dumps(summary, indent=2) + "\n").encode(), args.json)
    return 0


def build_classical(name: str, jobs: int | None) -> None:
    """Build the corpus "classical" from music21's, where it isn't built yet."""
    if name != "classical":
        raise UserError("--build makes the corpus 'classical' alone: bin/corpus classical --build")
    from lstm_music.corpus.classical.build import build

    out = cache_folder() / CLASSICAL
    if not out.is_file():
        built = build(out, jobs or os.cpu_count() or 1, progress=sys.stderr.isatty())
        print_skipped(built.skipped, None)


def title_of(reading: Reading, parts: int = 0) -> str:
    """Return how a corpus was read, in words; parts: those that its words tell."""
    if reading.representation == "message":
        return f"{reading.tracks} tracks"
    if reading.representation in ("event", "performance"):
        tracks = f"{parts} parts" if parts else "merged tracks"
        return f"{reading.representation}s of {tracks}"
    thinned = f", at most {reading.max_polyphony} notes" if reading.max_polyphony else ""
    return f"{reading.representation}s as frames{thinned}"


def print_table(title: str, summary: Mapping[str, Any]) -> None:
    """Print the counts of splits, of everything, and of each composer."""
    print(shown(title))
    rare, unseen = f"under {RARE}", "unseen"
    print(f"{'':20}{'pieces':>9}{'tokens':>13}{'unique':>10}{rare:>10}{unseen:>9}")
    for split in SPLITS:
        print_row(split, summary["splits"][split])
    print_row("all", summary)
    composers = summary["composers"]
    if len(composers) > 1:
        for name in list(composers)[:SHOWN]:
            print_row(name, composers[name])
        if len(composers) > SHOWN:
            print(f"and {len(composers) - SHOWN} composers more: --json FILE has them all")
    print(
        f"{rare}: share of the unique tokens that occur fewer than {RARE} times; "
        f"{unseen}: share of the tokens that train never shows"
    )


def print_row(name: str, counts: Mapping[str, float]) -> None:
    """Print one row of the table."""
    whole_numbers = f"{counts['pieces']:9,}{counts['tokens']:13,}{counts['unique_tokens']:10,}"
    print(
        f"{shown(name):20}{whole_numbers}{counts['rare_share']:10.1%}{counts['unseen_share']:9.2%}"
    )


def print_notes(corpus: Corpus) -> None:
    """Print what was done to the files: repairs, copies left out, rare words merged."""
    repairs: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for mended in corpus.mended:
        repairs.update(mended.repairs)
        files.update(mended.repairs.keys())
    for repair, times in repairs.most_common():
        print(f"mended: {repair}, {times:,} in {files[repair]:,} of the files")
    if corpus.ignored:
        print(f"ignored: {corpus.ignored:,} files that macOS put beside others (._*): no music")
    if corpus.copies:
        print(
            f"copies: {len(corpus.copies):,} pieces are left out of a split because another "
            "holds the same notes"
        )
    if isinstance(corpus, MessageCorpus) and corpus.merged_words:
        share = corpus.merged_tokens / len(corpus.ids)
        print(
            f"merged: {corpus.merged_words:,} rare words into others, which changes {share:.2%} "
            "of the tokens"
        )


def print_skipped(skipped: Sequence[Skipped], full: Path | None) -> None:
    """Print how many files were skipped, and the first of them."""
    for file, reason in skipped[:SHOWN]:
        print(shown(f"skipped {file}: {reason}"))
    if len(skipped) > SHOWN:
        where = full or "--skipped FILE.csv has them all"
        print(f"skipped {len(skipped):,} files in all: {where}")


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("corpus", "Prepare a corpus and print what is in it.", EXAMPLES)
    parser.add_argument(
        "corpus",
        metavar="CORPUS",
        help=f"{', '.join(NAMED)}, or a MIDI file, a folder, a zip or tar, a .mat or .pickle of "
        "rolls",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="read a named corpus from this file or folder"
    )
    parser.add_argument(
        "--build",
        action="store_true",
        help="make the corpus 'classical' of music21's scores (which it installs; takes minutes)",
    )
    add_reading_options(parser, vars(Reading()))
    parser.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="of thinned chords and drawn pieces"
    )
    add_worker_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts as JSON")
    parser.add_argument(
        "--skipped", type=Path, metavar="FILE.csv", help="write which files were skipped and why"
    )
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="FILE.png",
        help="draw how often each token occurs, by rank, log-log",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
