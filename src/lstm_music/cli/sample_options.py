"""What bin/sample is asked: its options, and which of them fit together."""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

from lstm_music.cli.common import Parser, add_backend_options, number, whole
from lstm_music.errors import UserError
from lstm_music.midi.piece import WHOLE_NOTE
from lstm_music.network.baselines import BASELINES

UNTRAINED = "untrained"
EXAMPLES = """examples:
  bin/sample                                   the newest run, else the bundled Bach model
  bin/sample --num 4 --temperature 0.9         four pieces, a little more careful
  bin/sample --bars 16 --seed 48 --wav --open  sixteen bars, to be heard at once
  bin/sample --png --svg                       a piano roll and a score beside the MIDI file
  bin/sample --program Soprano=73 --musicxml   a flute sings, and MuseScore opens the notes
  bin/sample --primer mine.mid --out next.mid  continue a piece of your own, from its end
  bin/sample --meter 3/4 --tempo 120           a waltz, if the model knows any
  bin/sample --baseline chord-frequency --corpus bach
"""


class Meter(NamedTuple):
    """A time signature: the ticks of a bar, and its denominator."""

    bar: int
    unit: int


def meter(text: str) -> Meter:
    """Return a time signature. Raises ArgumentTypeError for anything else."""
    match = re.fullmatch("([1-9][0-9]?)/(1|2|4|8|16|32)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no meter such as 3/4 or 6/8")
    return Meter(int(match[1]) * WHOLE_NOTE // int(match[2]), int(match[2]))


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("sample", "Compose with a trained model and write MIDI files.", EXAMPLES)
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN|CHECKPOINT",
        help="a run, or one of its checkpoints (default: the newest run, else the bundled model)",
    )
    add_length_options(parser)
    add_drawing_options(parser)
    add_primer_options(parser)
    add_baseline_options(parser)
    add_file_options(parser)
    add_backend_options(parser)
    return parser


def add_length_options(parser: Parser) -> None:
    """Add what says how much to compose."""
    parser.add_argument(
        "--num", type=whole(1, 100_000), default=1, metavar="N", help="number of pieces"
    )
    add = parser.add_mutually_exclusive_group().add_argument
    add(
        "--length",
        type=whole(1, 1_000_000),
        metavar="N",
        help="exactly N tokens a piece, or frames of a piano roll, after the primer (default: to "
        "its end, at most 2000; note models, which know no end, and baselines 16 bars)",
    )
    add(
        "--bars",
        type=whole(1, 10_000),
        metavar="N",
        help="N bars of the piece's own meter, after the bar in which the primer ends",
    )
    add(
        "--seconds",
        type=number(0, 36_000, above=True),
        metavar="S",
        help="S seconds at the tempo that the piece has then",
    )
    parser.add_argument(
        "--meter",
        type=meter,
        metavar="N/D",
        help="bars of 3/4, 6/8, …: of events these alone, begun with an opening in that meter, "
        "which may have an upbeat; of others to count and to write (default: the primer's, else "
        "what events say, else 4/4)",
    )


def add_drawing_options(parser: Parser) -> None:
    """Add what says how to choose each token."""
    add = parser.add_argument
    add("--seed", type=whole(0), default=0, metavar="N", help="another seed gives other pieces")
    add(
        "--temperature",
        type=number(0, 100, above=True),
        default=1.0,
        metavar="X",
        help="below 1 more careful, above 1 bolder",
    )
    add(
        "--top-k",
        type=whole(0),
        default=0,
        metavar="N",
        help="draw among the N likeliest tokens, or let only the N likeliest notes sound; "
        "0 for all",
    )
    add(
        "--top-p",
        type=number(0, 1, above=True),
        metavar="P",
        help="draw among the likeliest tokens that hold a share P, or let only the likeliest notes "
        "sound; 1 for all (default: 0.8 of events, 0.9 of other tokens, 1 of notes)",
    )
    add(
        "--repetition",
        type=number(-100, 100),
        default=0.0,
        metavar="X",
        help="nats added to the scores of what the piece said before: above 0 more comes back, "
        "below 0 less (models with a copy gate)",
    )
    add(
        "--craft",
        type=number(0, 100),
        metavar="X",
        help="nats that a fault of part writing costs, such as parallel fifths, of four voices by "
        "name; 0 for none (default: 4 of models with such voices)",
    )
    add(
        "--particles",
        type=whole(1, 4096),
        metavar="N",
        help="drafts of each piece, of which those with fewer faults are gone on with (default: "
        "4 of models with such voices, else 1)",
    )
    add("--greedy", action="store_true", help="always take the likeliest token or notes")
    rules = parser.add_mutually_exclusive_group().add_argument
    rules("--strict", action="store_true", help="no token that breaks the grammar (the default)")
    rules("--free", action="store_true", help="any token at any time; the decoder repairs")


def add_primer_options(parser: Parser) -> None:
    """Add what says how a piece begins."""
    parser.add_argument(
        "--primer",
        type=Path,
        metavar="FILE.mid",
        help="go on from the last bars of this file, in its tempo and meter (default: from the "
        "opening of a held-out piece)",
    )
    parser.add_argument(
        "--primer-length",
        type=whole(0),
        metavar="N",
        help="tokens or frames to take at most, 0 for none: of a file whole bars, one at least, "
        "but from its start exactly N (default: 64 of a file, 16 of a held-out piece)",
    )
    parser.add_argument(
        "--primer-start", action="store_true", help="take the beginning of the file, not its end"
    )
    parser.add_argument(
        "--without-primer",
        action="store_true",
        help="write what follows the primer alone, from the next bar line on",
    )


def add_baseline_options(parser: Parser) -> None:
    """Add what composes without a trained model."""
    add = parser.add_argument
    add(
        "--baseline",
        choices=(UNTRAINED, *BASELINES),
        help="no trained model, but the network before training (RUN's, or one of default size "
        "for the chords of --corpus), or frames of --corpus drawn by frequency",
    )
    add("--corpus", metavar="C", help="what --baseline draws from")
    add("--data", type=Path, metavar="FILE", help="read a named --corpus from this file or folder")


def add_file_options(
    parser: Parser, primer: str = "primer", else_: str = "a baseline", rolls: bool = True
) -> None:
    """Add what says how and where to write.

    primer: whose tempo is the default; else_: what has no run; rolls: of piano rolls, too.
    """
    add = parser.add_argument
    played = "; of a performance 125, as it was played" * rolls
    add(
        "--tempo",
        type=number(10, 1000),
        metavar="BPM",
        help=f"quarter notes per minute (default: the {primer}'s tempo, else the median of the "
        f"corpus that the model learnt, else 90{played})",
    )
    add_program_option(parser)
    if rolls:
        add(
            "--restrike",
            action="store_true",
            help="strike the notes of a piano roll anew in each frame (default: held notes are "
            "one)",
        )
    add(
        "--out",
        type=Path,
        metavar="DIR|FILE.mid",
        help=f"where to write (default: the run's samples/; samples/ for {else_})",
    )
    add("--wav", action="store_true", help="play each piece into a WAV file beside its MIDI file")
    add("--png", action="store_true", help="draw the piano roll beside each MIDI file")
    add(
        "--svg",
        action="store_true",
        help=f"engrave the score beside each MIDI file ({parser.prog} installs music21 and "
        "verovio)",
    )
    add(
        "--musicxml",
        action="store_true",
        help="write MusicXML beside each MIDI file, for MuseScore and others "
        f"({parser.prog} installs music21)",
    )
    add("--pages", type=whole(1, 1000), default=2, metavar="N", help="of --svg, at most")
    add(
        "--open",
        action="store_true",
        help="open what the first piece was made into: its sound, pictures, or the MIDI file",
    )
    add("--quiet", action="store_true", help="print nothing but the paths")


def add_program_option(parser: Parser) -> None:
    """Add what says which instruments play."""
    parser.add_argument(
        "--program",
        type=program,
        action="append",
        metavar="N|PART=N",
        help="General MIDI instrument, 0 piano, 19 organ, of all parts or of one, by its name or "
        "number: Soprano=73; may be repeated (default: each part's own, 0 where it has none)",
    )


def program(text: str) -> tuple[str, int]:
    """Return the part, "" for all, and the instrument that an argument `N` or `PART=N` names."""
    part, equals, number = text.rpartition("=")
    if equals and not part.strip():
        raise argparse.ArgumentTypeError(f"'{text}' names no part: as in Soprano=73, or 73 for all")
    return part.strip(), whole(0, 127)(number)


def check_baseline(args: argparse.Namespace, parser: Parser) -> None:
    """Raise UserError where --baseline and the options about it don't fit together."""
    kind = args.baseline
    if args.primer_start and args.primer is None:
        raise UserError("--primer-start is only for use with --primer: add it, or leave it out")
    if kind is None or args.corpus is None:
        for flag in ("--corpus", "--data"):
            if getattr(args, flag[2:]) is not None:
                needs = "--baseline" if kind is None else "--corpus"
                raise UserError(f"{flag} is only for use with {needs}: add it, or leave {flag} out")
    if kind == UNTRAINED and (args.run is None) == (args.corpus is None):
        raise UserError("--baseline untrained needs a RUN, or a --corpus, but not both")
    if kind is None or kind == UNTRAINED:
        return
    if args.run is not None:
        raise UserError(f"--baseline {kind} needs no run: leave '{args.run}' out")
    if args.corpus is None:
        raise UserError(f"--baseline {kind} draws from a corpus: say which with --corpus")
    for name in (
        "temperature", "top_k", "top_p", "repetition", "greedy", "primer", "primer_length",
        "without_primer", "free",
    ):  # fmt: skip
        if getattr(args, name) != parser.get_default(name):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"--baseline {kind} draws by frequency alone: leave {flag} out")
