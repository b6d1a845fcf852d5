"""bin/corpus: prepare a corpus and print its counts."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lstm_music.cli.common import Parser, add_reading_options, reading_from, run, whole
from lstm_music.corpus import Reading, load_corpus
from lstm_music.prepared import SPLITS
from lstm_music.sources import NAMED

EXAMPLES = """examples:
  bin/corpus bach                                    the bundled chorales as messages
  bin/corpus bach --figure bach.png                  and how often each occurs
  bin/corpus ~/my-midi --json counts.json            your own files, and why some are skipped
  bin/corpus jsb --data JSB_Chorales.mat --representation chord
"""


def main(argv: Sequence[str]) -> int:
    """Print the pieces, tokens and unique tokens of a corpus; return the exit status."""
    args = make_parser().parse_args(argv)
    reading = reading_from(args)
    corpus = load_corpus(args.corpus, args.data, reading, progress=sys.stderr.isatty())
    summary = corpus.summary()
    print(f"{args.corpus}, {title_of(reading)}")
    print(f"{'split':8}{'pieces':>10}{'tokens':>14}{'unique':>10}")
    for split in SPLITS:
        print_row(split, summary["splits"][split])
    print_row("all", summary)
    for skipped in corpus.skipped:
        print(f"skipped {skipped.file}: {skipped.reason}")
    if args.figure:
        from lstm_music.figures import token_frequency  # Matplotlib takes a while to load

        token_frequency(corpus, args.figure)
    if args.json:
        args.json.write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
    return 0


def title_of(reading: Reading) -> str:
    """Return how a corpus was read, in words."""
    if reading.representation == "message":
        return f"{reading.tracks} tracks"
    thinned = f", at most {reading.max_polyphony} notes" if reading.max_polyphony else ""
    return f"{reading.representation}s as frames{thinned}"


def print_row(name: str, counts: dict[str, int]) -> None:
    """Print one row of the table."""
    print(f"{name:8}{counts['pieces']:10,}{counts['tokens']:14,}{counts['unique_tokens']:10,}")


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("corpus", "Prepare a corpus and print what is in it.", EXAMPLES)
    parser.add_argument(
        "corpus",
        metavar="CORPUS",
        help=f"{', '.join(NAMED)}, or a MIDI file, a folder, a zip, a .mat or .pickle of rolls",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="read a named corpus from this file or folder"
    )
    add_reading_options(parser, vars(Reading()))
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of thinned chords")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts as JSON")
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="FILE.png",
        help="draw how often each token occurs, by rank, log-log",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
