"""bin/harmonize: compose the voices that a tune lacks."""

import argparse
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    number,
    run,
    warn,
    whole,
    write,
)
from lstm_music.cli.opening import check_opener, open_file
from lstm_music.cli.printing import Bar
from lstm_music.cli.programs import check_programs
from lstm_music.cli.sample import companions, find_checkpoint, midi_of, names_file, out_paths
from lstm_music.cli.sample_options import add_file_options
from lstm_music.errors import UserError
from lstm_music.midi.files import read_midi
from lstm_music.midi.piece import MidiError, Piece, part_names
from lstm_music.midi.timing import bars_of, constant, end_of, seconds_of
from lstm_music.runs.opened import BUNDLED, model_of, newest_run
from lstm_music.sampling.excerpts import without_silence
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.harmonising import Asked, Setting, harmonise
from lstm_music.sampling.particles import A_DRAFT
from lstm_music.sampling.tasks import (
    Task,
    in_parts,
    parts_in,
    shown_name,
    tracks_of,
    tune_task,
    usual_parts,
)
from lstm_music.sampling.token_composers import EventComposer, PerformanceComposer

EXAMPLES = """examples:
  bin/harmonize tune.mid                       three voices beneath a tune, by the newest run, else
                                               the bundled Bach model
  bin/harmonize tune.musicxml --num 3 --wav --svg
  bin/harmonize bass.mid --part bass           three voices above a bass
  bin/harmonize chorale.mid --given soprano,bass     its inner voices anew
  bin/harmonize chorale.mid --bars 5-8         these bars anew, the rest stays
  bin/harmonize --page --open                  enter a tune in the browser, and hear its voices
"""
PARTICLES = 32
NAME = "harmony"  # of a file, before its number
SCORES = (".musicxml", ".mxl", ".xml")
WORDS_A_NOTE = 10  # that are drawn for each, about


def main(argv: Sequence[str]) -> int:
    """Write the settings and print their paths; return the exit status."""
    args = make_parser().parse_args(argv)
    if args.open:
        check_opener()
    limit_threads(args.threads, args.backend)
    if args.bars and args.part:
        raise UserError(
            "--part says what a tune is, --bars goes with --given: leave one of them out"
        )
    if args.page:
        return write_page(args)
    if args.melody is None:
        raise UserError("there is no tune: give a MIDI file, or --page to enter one in a browser")
    given = read_given(args.melody)
    composer, folder = find_composer(args, given)
    task = task_of(args, composer, given)
    options = composer.options(
        temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, greedy=args.greedy,
        seed=args.seed, craft=args.craft, particles=args.particles,
    )  # fmt: skip
    with Bar(args.quiet, "% of the music") as bar:

        def show(done: int, most: int) -> None:
            bar.show(100 * done // most, 100)

        settings = harmonise(composer, task.piece, task.asked, options, args.num, show, warn)
    settings = [one._replace(piece=with_tempo(one.piece, args, composer)) for one in settings]
    check_programs([one.piece for one in settings], args.program)
    unmade: list[str] = []
    for n, (path, one) in enumerate(zip(out_paths(args, folder, NAME), settings, strict=True)):
        path = write(midi_of(one.piece, args), path, new=not names_file(args))
        print(path if args.quiet else describe(path, one, task))
        made = companions(replace(one.piece, name=path.stem), path, args, unmade)
        for other, what in made:
            print(other if args.quiet else f"{other}  ({what})")
        if args.open and n == 0:
            for other, _ in made or [(path, "")]:
                open_file(other)
    if unmade:
        raise UserError("; ".join(dict.fromkeys(unmade)))
    return 0


def write_page(args: argparse.Namespace) -> int:
    """Write the page that harmonises by itself; return the exit status."""
    from lstm_music.report.page import harmony_page

    if args.given is not None or args.bars is not None or names_file(args):
        raise UserError(
            "--page harmonises a tune, and writes a folder or FILE.html: leave --given and --bars "
            "out, and give --out such a place"
        )
    tune = None
    if args.melody is None:
        checkpoint, folder = find_checkpoint(args.run)
    else:
        given = read_given(args.melody)
        composer, folder = find_composer(args, given)
        checkpoint, tune = composer.checkpoint, tune_of_args(args, composer, given).piece
    name = Path(args.run or newest_run() or BUNDLED[0]).name
    page, out = harmony_page(checkpoint, name, tune), args.out or folder
    path = out if out.suffix.lower() == ".html" else out / f"{NAME}.html"
    write(page.encode(), path)
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    print(path if args.quiet else f"{path}  (a page that harmonises, {size})")
    if args.open:
        open_file(path)
    return 0


# What is asked ----------------------------------------------------------------------------------


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("harmonize", "Compose the voices that a tune lacks.", EXAMPLES)
    add = parser.add_argument
    add(
        "melody", type=Path, nargs="?", metavar="MELODY.mid|.musicxml",
        help="a tune, or a piece with parts",
    )  # fmt: skip
    add(
        "run", nargs="?", metavar="RUN|CHECKPOINT",
        help="a run trained with --parts (default: the newest run, else the bundled Bach model)",
    )  # fmt: skip
    which = parser.add_mutually_exclusive_group().add_argument
    which(
        "--part", metavar="NAME",
        help="the part that the tune is (default: soprano, else the model's first)",
    )  # fmt: skip
    which(
        "--given", type=names, metavar="NAME,NAME",
        help="these parts of the file stay, and the others are composed",
    )  # fmt: skip
    add(
        "--bars", type=bars, metavar="A-B",
        help="compose these bars anew, of all parts or of those that --given doesn't name; the "
        "rest stays (bars count from 1, an upbeat is 0)",
    )  # fmt: skip
    add(
        "--page", action="store_true",
        help="write a web page instead, which harmonises the tune, or what is entered there, in a "
        "browser, offline",
    )  # fmt: skip
    add("--num", type=whole(1, 1000), default=1, metavar="N", help="number of settings")
    add("--seed", type=whole(0), default=0, metavar="N", help="another seed gives other settings")
    add(
        "--temperature", type=number(0, 100, above=True), default=1.0, metavar="X",
        help="below 1 more careful, above 1 bolder",
    )  # fmt: skip
    add("--top-k", type=whole(0), default=0, metavar="N", help="as of bin/sample")
    add(
        "--top-p", type=number(0, 1, above=True), metavar="P",
        help="as of bin/sample (default: as there)",
    )  # fmt: skip
    add("--greedy", action="store_true", help="always take the likeliest word")
    add(
        "--particles", type=whole(1, 4096), default=PARTICLES, metavar="N",
        help="drafts of each setting, of which the likelier are gone on with",
    )  # fmt: skip
    add(
        "--craft", type=number(0, 100), metavar="X",
        help="as of bin/sample (default: as there)",
    )  # fmt: skip
    add_file_options(parser, "tune", "the bundled model", rolls=False)
    add_backend_options(parser)
    return parser


def names(text: str) -> list[str]:
    """Return the names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def bars(text: str) -> tuple[int, int]:
    """Return the first and the last of some bars. Raises ArgumentTypeError for anything else."""
    match = re.fullmatch("([0-9]{1,6})(?:-([0-9]{1,6}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if first > last:
        raise argparse.ArgumentTypeError(f"'{text}' are no bars such as 5-8 or 5")
    return first, last


def read_given(path: Path) -> Piece:
    """Return the piece of a MIDI file or a score. Raises UserError where there is none."""
    if not path.is_file():
        raise UserError(f"no file '{path}': give a MIDI file or MusicXML with a tune")
    try:
        source = midi_of_score(path) if path.suffix.lower() in SCORES else path
        piece, silent = without_silence(read_midi(source, path.name))
    except MidiError as error:
        raise UserError(f"'{path}' {error}: give a file with a tune") from error
    if silent:
        warn(f"{path} begins with silence, {silent} bars: left out")
    return piece


def midi_of_score(path: Path) -> bytes:
    """Return a score as a MIDI file. Raises UserError where music21 is missing or can't read it."""
    from lstm_music.rendering.musicxml import check_available

    check_available()
    from lstm_music.corpus.classical.notation import midi_of as notated

    try:
        return notated(path, told=True)
    except Exception as error:
        raise UserError(f"'{path}' can't be read by music21 ({error}): give a MIDI file") from error


def find_composer(args: argparse.Namespace, given: Piece) -> tuple[EventComposer, Path]:
    """Return what composes, and the folder for what it does."""
    checkpoint, folder = find_checkpoint(args.run)
    told = checkpoint.meta["tokenizer"]
    if told["name"] != "event" or not told.get("parts"):
        named = f"'{args.run}'" if args.run else "the newest run"
        raise UserError(
            f"{named} tells no parts: name a run of events that was trained with --parts, or bach"
        )
    notes = sum(len(track) for track in given.tracks) // 2
    words = args.num * args.particles * A_DRAFT * notes * WORDS_A_NOTE
    composer = composer_of(checkpoint, model_of(checkpoint, args.backend, words))
    assert isinstance(composer, EventComposer) and not isinstance(composer, PerformanceComposer)
    return composer, folder


def task_of(args: argparse.Namespace, composer: EventComposer, piece: Piece) -> Task:
    """Return what is to be composed. Raises UserError where there are no such parts or bars."""
    if args.given is None and args.bars is None:
        return tune_of_args(args, composer, piece)
    there = tracks_of(piece, composer.roster)
    kept = {part_named(name, composer, [*there]) for name in args.given or ()}
    said = kept if args.bars is None else {*there}
    lost = sum(part in said for part in parts_in(piece, composer.roster)) - len(said)
    if lost:
        warn(f"{args.melody}: of tracks of the same part the first is left, {lost} are left out")
    if args.bars is None:
        if not kept:
            raise UserError("--given names no part: name those that stay, such as soprano,bass")
        parts = missing(kept, usual_parts(composer))
        there = {part: there[part] for part in sorted(kept)}
        return Task(in_parts(piece, there, composer.roster), Asked(parts, of=tuple(there)))
    parts, piece = missing(kept, [*there]), in_parts(piece, there, composer.roster)
    return Task(piece, Asked(parts, *ticks_of(piece, args.bars), of=tuple(there)))


def tune_of_args(args: argparse.Namespace, composer: EventComposer, piece: Piece) -> Task:
    """Return the task of setting a tune, and say what was made of it."""
    part = args.part and part_named(args.part, composer, usual_parts(composer))
    task, said = tune_task(composer, piece, part)
    for line in said:
        warn(f"{args.melody}: {line}")
    return task


def missing(kept: Collection[int], among: Sequence[int]) -> tuple[int, ...]:
    """Return the parts that are to be composed. Raises UserError where none are."""
    parts = tuple(part for part in among if part not in kept)
    if not parts:
        raise UserError("--given names all parts, none is left to compose: leave one of them out")
    return parts


def part_named(name: str, composer: EventComposer, among: Sequence[int]) -> int:
    """Return the part of a name. Raises UserError where it is none of those."""
    shown = {part: shown_name(composer.roster, part) for part in among}
    found = next((n for n in among if shown[n].casefold() == name.casefold()), None)
    if found is None:
        raise UserError(f"there is no part '{name}': name one of {', '.join(shown.values())}")
    return found


def ticks_of(piece: Piece, asked: tuple[int, int]) -> tuple[int, int]:
    """Return where some bars begin and end. Raises UserError where the piece has no such bars."""
    starts, lengths = bars_of(piece.meter, max(end_of(piece) - 1, 0))
    first = int(len(lengths) < 2 or lengths[0] >= lengths[1])  # an upbeat is bar 0
    last = first + len(starts) - 1
    if not first <= asked[0] <= asked[1] <= last:
        raise UserError(f"the piece has bars {first} to {last}: give --bars some of these")
    end = asked[1] - first
    return int(starts[asked[0] - first]), int(starts[end] + lengths[end])


# What comes out ---------------------------------------------------------------------------------


def with_tempo(piece: Piece, args: argparse.Namespace, composer: EventComposer) -> Piece:
    """Return a piece in the tempo asked for, else its own, else the model's."""
    if args.tempo or not len(piece.tempo):
        return replace(piece, tempo=constant(args.tempo or composer.tempo))
    return piece


def describe(path: Path, one: Setting, task: Task) -> str:
    """Return one line on a setting that was written."""
    given, notes = count(task.piece), count(one.piece)
    what = f"{given} note{'s' * (given != 1)} given, {notes - given} composed"
    if task.asked.stop is not None:
        what = f"{notes} notes"
    parts, seconds = ", ".join(part_names(one.piece)), seconds_of(one.piece)
    fit = f"{one.nats / given:.2f} nats a given note"
    return f"{path}  ({what}; {parts}; {seconds:.0f} s; log-likelihood, less faults: {fit})"


def count(piece: Piece) -> int:
    """Return how many notes a piece has."""
    return sum(len(track) for track in piece.tracks) // 2


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
