"""bin/evaluate --chorales: how well runs, and MIDI files, write four voices."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    run,
    warn_of_namesake,
    write,
)
from lstm_music.cli.music import add_set_options, asked_from
from lstm_music.cli.printing import Bar, shown
from lstm_music.corpus.archives import is_archive
from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.parsing import read_source
from lstm_music.corpus.sources import ROLL_SUFFIXES, ROLLS, Skipped, files_at, is_midi
from lstm_music.errors import UserError
from lstm_music.evaluation.music.excerpts import pieces_of_split
from lstm_music.evaluation.music.nearness import Interval
from lstm_music.evaluation.music.sets import Asked, composed_pieces, corpus_for, short
from lstm_music.evaluation.music.voices import FAULTS, PITCH, Craft, chorales, craft_json, craft_of
from lstm_music.midi.files import read_midi
from lstm_music.midi.piece import MidiError, Piece
from lstm_music.runs.checkpoint import CHECKPOINTS, META_FILE
from lstm_music.runs.opened import (
    BUNDLED,
    bundled_model,
    model_of,
    newest_run,
    open_run,
    run_folder,
    source_of,
)
from lstm_music.sampling.from_checkpoint import composer_of

EXAMPLES = """examples:
  bin/evaluate --chorales my-run               50 pieces of 16 bars beside the test split's
  bin/evaluate --chorales run-1 run-2 my-midi chorale.mid --json out.json

Of each source a row, and beneath it 95 % intervals over pieces: faults per 100 chords, and the
share of phrases that end on a triad in root position. Voices are the tracks named soprano, alto,
tenor and bass, else a piece's four tracks, else they are told by pitch, where four notes sound.
What counts as a fault: docs/listening.md. Without a source: the newest run, else the bundled model.
"""
COLUMNS = (*FAULTS, "cadences")


def main(argv: Sequence[str]) -> int:
    """Print a table, and write it as JSON if asked to; return the exit status."""
    args = make_parser().parse_args(argv)
    limit_threads(args.threads, args.backend)
    asked = asked_from(args)
    names = list(dict.fromkeys(args.sources)) or [str(newest_run() or bundled_model())]
    real = held_out(names, asked)
    warn_of_namesake(args.reference, args.data)
    with Bar(False, "sources") as bar:
        rows = rows_of_corpus(real, asked)
        for n, name in enumerate(names):
            pieces = pieces_of_source(name, asked)
            rows.append(craft_of(short(name), pieces, asked.seed))
            bar.show(n + 1, len(names))
    print_table(rows)
    if args.json:
        content = {
            "bars": args.bars, "seed": args.seed, "sources": [craft_json(row) for row in rows],
        }  # fmt: skip
        write((json.dumps(content, indent=2) + "\n").encode(), args.json)
    return 0


# What is judged ---------------------------------------------------------------------------------


def files_named(name: str) -> Path | None:
    """Return the MIDI files, folder or archive that an argument names, None of a run."""
    path = Path(name)
    a_run = (run_folder(name) / CHECKPOINTS).is_dir() or (path / META_FILE).is_file()
    if a_run or (name in BUNDLED and not path.exists()):
        return None
    return path if path.exists() or is_midi(name) or is_archive(name) else None


def held_out(names: Sequence[str], asked: Asked) -> Corpus:
    """Return the real chorales' corpus: what is asked for, the first run's, else the bundled one's.

    It is read with its parts, however the run reads it.
    """
    first = next((name for name in names if files_named(name) is None), None)
    if asked.reference is None and first is not None:
        opened = open_run(first, asked.warn)
        reading = reading_by_parts(source_of(first, *opened)["corpus"])
        return corpus_for(first, *opened, reading, asked)
    name = asked.reference or BUNDLED[0]
    return load_corpus(name, asked.data, reading_by_parts(name), sys.stderr.isatty())


def reading_by_parts(corpus: str) -> Reading:
    """Return how a corpus is read so that its pieces have their parts, if any, and signatures."""
    rolls = corpus in ROLLS or Path(corpus).suffix.lower() in ROLL_SUFFIXES
    return Reading("note") if rolls else Reading("event", parts=True, common_key="A")


def rows_of_corpus(corpus: Corpus, asked: Asked) -> list[Craft]:
    """Return how the real pieces of a split are written: by their tracks, if any, and by pitch."""
    name, pieces = f"{short(corpus.name)} {asked.split}", pieces_of_split(corpus, asked.split)
    own = craft_of(name, chorales(pieces), asked.seed)
    if set(own.pieces) == {PITCH}:
        return [own]
    return [own, craft_of(name, chorales(pieces), asked.seed, by_pitch=True)]


def pieces_of_source(name: str, asked: Asked) -> list[Piece]:
    """Return what a run composes, or the pieces of MIDI files. Raises UserError without any."""
    path = files_named(name)
    if path is None:
        checkpoint, _ = open_run(name, asked.warn)
        return composed_pieces(
            composer_of(checkpoint, model_of(checkpoint, asked.backend)), asked, asked.bars
        )
    pieces = [*pieces_at(path, asked)]
    if not pieces:
        raise UserError(f"no file of '{name}' can be read: choose another")
    return pieces


def pieces_at(path: Path, asked: Asked) -> Iterator[Piece]:
    """Yield the pieces of MIDI files, and warn of those that can't be used."""
    for source in files_at(path):
        content = read_source(source)
        try:
            if isinstance(content, Skipped):
                raise MidiError(content.reason)
            yield read_midi(content, source.name)
        except MidiError as error:
            asked.warn(f"'{source.name}' {error}: left out")


# The table --------------------------------------------------------------------------------------


def print_table(rows: Sequence[Craft]) -> None:
    """Print two lines of each row: the figures, and their intervals."""
    cells = [[*row.faults.values(), row.rooted] for row in rows]
    lines = [["per 100 chords", "pieces", "chords", *COLUMNS]]
    for row, found in zip(rows, cells, strict=True):
        values = [in_words(one, percent=one is row.rooted) for one in found]
        lines.append([described(row), str(sum(row.pieces.values())), str(row.chords)])
        lines[-1] += [value for value, _ in values]
        lines.append(["  95 % interval", "", "", *(interval for _, interval in values)])
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    for line in lines:
        numbers = (f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        print(shown("  ".join([f"{line[0]:{widths[0]}}", *numbers])))


def described(row: Craft) -> str:
    """Return a row's name, and how its voices were told."""
    if len(row.pieces) == 1:
        return f"{row.name}, by {next(iter(row.pieces))}"
    return f"{row.name}, by " + " and ".join(f"{way} ({n})" for way, n in row.pieces.items())


def in_words(one: Interval, percent: bool) -> tuple[str, str]:
    """Return a figure and its interval, as the table shows them."""
    if math.isnan(one.value):
        return "-", ""
    value, low, high = (f"{x:.0%}" if percent else f"{x:.2f}" for x in one)
    return value, f"{low}-{high}"


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("evaluate --chorales", "Judge how well four voices are written.", EXAMPLES)
    add = parser.add_argument
    add("sources", nargs="*", metavar="RUN|FILE", help="a run, a MIDI file, a folder or a zip")
    add("--corpus", dest="reference", metavar="C",
        help="real chorales (default: the first run's own, else bach)")  # fmt: skip
    add_set_options(parser)
    add_backend_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
