"""bin/sample: compose with a trained model and write MIDI files."""

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    check_opener,
    check_ranks,
    limit_threads,
    number,
    open_file,
    put,
    run,
    warn,
    warn_of_namesake,
    whole,
    write,
)
from lstm_music.cli.printing import Bar
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.errors import UserError
from lstm_music.files import free_number, numbered
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import TICKS_PER_QUARTER, Piece, notes_of
from lstm_music.network.baselines import BASELINES, fit_baseline
from lstm_music.network.model import Model
from lstm_music.runs.checkpoint import Checkpoint, read_checkpoint
from lstm_music.runs.opened import bundled_model, model_of, newest_run, open_run, ops_of
from lstm_music.sampling.composer import Composer, bars_in_words, primers_of
from lstm_music.sampling.decoding import without_silence
from lstm_music.sampling.from_checkpoint import composer_of, untrained
from lstm_music.sampling.options import Options
from lstm_music.sampling.roll_composers import FrequencyComposer
from lstm_music.training.ranks import Alone, join

PRIMER_FROM_CORPUS, PRIMER_FROM_FILE = 16, 64  # tokens or frames
USUAL_LENGTH = 1000  # tokens of a piece, where none are asked for
UNTRAINED = "untrained"
SAMPLE = "sample"  # the name of a file's, before its number
EXAMPLES = """examples:
  bin/sample                                   the newest run, else the bundled Bach model
  bin/sample --num 4 --temperature 0.9         four pieces, a little more careful
  bin/sample --bars 16 --seed 7 --wav --open   sixteen bars, to be heard at once
  bin/sample --png --svg                       a piano roll and a score beside the MIDI file
  bin/sample --primer mine.mid --out next.mid  continue a piece of your own
  bin/sample --baseline chord-frequency --corpus bach
"""


def main(argv: Sequence[str], ranks: Alone | None = None) -> int:
    """Write the pieces and print their paths; return the exit status.

    ranks: who shares the pieces (default: all that an MPI launcher started).
    """
    ranks = join() if ranks is None else ranks
    parser = make_parser()
    args = parser.parse_args(argv)
    check_ranks(args, ranks)
    check_baseline(args, parser)
    if args.open:
        check_opener()
    limit_threads(args.threads or ranks.threads, args.backend)
    composer, folder = ranks.first_alone(lambda: find_composer(args))
    options, primers, origins = begin(args, composer)
    own = slice(*ranks.share_of(args.num))
    options = replace(options, first=own.start)
    with Bar(args.quiet or not ranks.leads, composer.unit) as bar:
        pieces = composer.compose(primers[own], options, bar.show)
    paths = ranks.from_first(lambda: out_paths(args, folder))[own]
    unmade: list[str] = []
    with Bar(args.quiet or not ranks.leads, "pieces") as bar:
        made_of = zip(paths, origins[own], primers[own], pieces, strict=True)
        for n, (path, origin, primer, music) in enumerate(made_of):
            piece, silent = without_silence(composer.piece(music, options, path.stem, primer))
            path = write(midi_of(piece, args), path, new=not names_file(args))
            piece = replace(piece, name=path.stem)
            uncounted = composer.size(primer, options) if options.beyond else 0
            what = f"{composer.size(music, options) - uncounted} {composer.unit}"
            what += f", primed with {origin}" if origin else ""
            what += f"; silent at first, {bars_in_words(silent)} left out" if silent else ""
            bar.print(path if args.quiet else describe(piece, path, what, args))
            made = companions(piece, path, args, unmade)
            for other, what in made:
                bar.print(other if args.quiet else f"{other}  ({what})")
            bar.show(n + 1, len(pieces))
            if args.open and n == 0 and ranks.leads:
                for other, _ in made or [(path, "")]:
                    open_file(other)
    ranks.leave()
    if unmade:
        raise UserError("; ".join(dict.fromkeys(unmade)))
    return 0


# What composes ----------------------------------------------------------------------------------


def check_baseline(args: argparse.Namespace, parser: Parser) -> None:
    """Raise UserError where --baseline and the options about it don't fit together."""
    kind = args.baseline
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
        "temperature", "top_k", "top_p", "repetition", "greedy", "primer", "primer_length", "free",
    ):  # fmt: skip
        if getattr(args, name) != parser.get_default(name):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"--baseline {kind} draws by frequency alone: leave {flag} out")


def find_composer(args: argparse.Namespace) -> tuple[Composer[Any], Path]:
    """Return what composes, and the folder for its samples."""
    if args.baseline is None:
        checkpoint, folder = find_checkpoint(args.run)
        tokens = args.num * (args.length or USUAL_LENGTH)
        model = model_of(checkpoint, args.backend, tokens)
        return composer_of(checkpoint, model, args.free, args.restrike), folder
    return baseline_composer(args), Path("samples")


def baseline_composer(args: argparse.Namespace) -> Composer[Any]:
    """Return what composes for --baseline."""
    if args.baseline != UNTRAINED:
        corpus = rolls_of(args, Reading("note"))
        frames = corpus.split_frames("train"), corpus.split_frames("valid")
        baseline = fit_baseline(args.baseline, *frames)
        return FrequencyComposer(baseline, corpus.reading.grid, args.restrike)
    if args.corpus is None:
        checkpoint = find_checkpoint(args.run)[0]
        seed = checkpoint.meta["settings"]["seed"]
        model = Model(checkpoint.config, ops_of(args.backend), seed, words=checkpoint.words)
    else:
        checkpoint = untrained(rolls_of(args, Reading("chord")))
        model = model_of(checkpoint, args.backend)
    return composer_of(checkpoint, model, args.free, args.restrike)


def rolls_of(args: argparse.Namespace, reading: Reading) -> RollCorpus:
    """Return the piano rolls of --corpus and --data."""
    progress = not args.quiet and sys.stderr.isatty()
    corpus = load_corpus(args.corpus, args.data, reading, progress)
    warn_of_namesake(args.corpus, args.data)
    assert isinstance(corpus, RollCorpus)
    return corpus


def find_checkpoint(name: str | None) -> tuple[Checkpoint, Path]:
    """Return the checkpoint that an argument names, and the folder for its samples."""
    if name is None:
        newest = newest_run()
        if newest is None:
            return read_checkpoint(bundled_model()), Path("samples")
        name = str(newest)
    checkpoint, folder = open_run(name, warn)
    return checkpoint, (folder or Path()) / "samples"


# What is asked of it ----------------------------------------------------------------------------


def options_of(args: argparse.Namespace, top_p: float) -> Options:
    """Return the sampler's options; top_p where none is given."""
    limit = None
    if args.seconds is not None:
        limit = max(1, round(args.seconds * args.tempo / 60 * TICKS_PER_QUARTER))
    if args.top_p is not None:
        top_p = args.top_p
    return Options(
        args.length, limit, args.temperature, args.top_k, top_p, args.greedy, args.seed,
        bars=args.bars, beyond=args.primer is not None or args.primer_length is not None,
        repetition=args.repetition,
    )  # fmt: skip


def begin(
    args: argparse.Namespace, composer: Composer[Any]
) -> tuple[Options, list[Any], list[str]]:
    """Return how to draw, the primer of each piece, and where it comes from in words."""
    options, usual = options_of(args, composer.top_p), PRIMER_FROM_CORPUS
    if options.repetition and composer.recall is None:
        raise UserError(
            "--repetition is only for models with a copy gate, and this one has none: leave it "
            "out, or train a model with --copy"
        )
    openings = None
    if args.primer:
        openings, usual = [composer.opening_of(args.primer, warn)], PRIMER_FROM_FILE
    n = usual if args.primer_length is None else args.primer_length
    if openings:
        end = composer.ticks(composer.cut(openings[0].music, n, None))
        meter = tuple(row for row in openings[0].meter if row[0] < end)
        options = replace(options, meter=meter)
    options = composer.fitted(options)
    primers, origins = primers_of(composer, options, args.num, n, openings)
    return options, primers, origins


# What comes out ---------------------------------------------------------------------------------


def names_file(args: argparse.Namespace) -> bool:
    """Return whether --out names a file, which is the only one that is ever replaced."""
    return args.out is not None and args.out.suffix.lower() in (".mid", ".midi")


def out_paths(args: argparse.Namespace, folder: Path) -> list[Path]:
    """Return where each piece is to go; a name that another process takes first is its own."""
    if names_file(args):
        if args.num == 1:
            return [args.out]
        return [args.out.with_stem(f"{args.out.stem}-{k + 1}") for k in range(args.num)]
    folder = args.out or folder
    first = free_number(folder, SAMPLE)
    return [numbered(folder, SAMPLE, ".mid", first + k) for k in range(args.num)]


def midi_of(piece: Piece, args: argparse.Namespace) -> bytes:
    """Return a piece as the content of a MIDI file."""
    content = io.BytesIO()
    write_midi(piece, content, args.tempo, args.program)
    return content.getvalue()


def companions(
    piece: Piece, path: Path, args: argparse.Namespace, unmade: list[str]
) -> list[tuple[Path, str]]:
    """Write what --wav, --png and --svg ask for beside a MIDI file; return paths and remarks.

    unmade: gets why one can't be made; the others, and those of other pieces, still are.
    """
    made = []
    for kind, make in (("wav", play), ("png", draw), ("svg", engrave)):
        if getattr(args, kind):
            beside = path.with_suffix(f".{kind}")
            try:
                if remark := make(piece, beside, args):
                    made.append((beside, remark))
            except UserError as error:
                unmade.append(str(error))
    return made


# Each of these loads its module only when it's called: some take longer to load than to draw.


def play(piece: Piece, path: Path, args: argparse.Namespace) -> str:
    """Write a piece's sound as a WAV file; return a remark."""
    from lstm_music.rendering.audio import wav_bytes

    content, sound = wav_bytes(midi_of(piece, args))
    write(content, path)
    if sound.remark and not args.quiet:
        warn(sound.remark)
    level = f"{sound.loudness:.1f} LUFS, peak {sound.peak:.1f} dBFS"
    return f"{sound.seconds:.0f} s, {level}, {sound.instruments}"


def draw(piece: Piece, path: Path, args: argparse.Namespace) -> str:
    """Draw a piece's piano roll; return a remark."""
    from lstm_music.rendering.figures import piano_roll

    put(lambda to: piano_roll(piece, to), path)
    return "piano roll"


def engrave(piece: Piece, path: Path, args: argparse.Namespace) -> str:
    """Engrave a piece's score; return a remark, "" where there is nothing to engrave."""
    if not piece.tracks:
        warn(f"{path.with_suffix('.mid')} is silent: there is no score to engrave")
        return ""
    from lstm_music.rendering import score

    pages = score.engrave(piece, args.pages)
    write(score.stacked(pages).encode(), path)
    return f"score, {len(pages)} page{'s' * (len(pages) > 1)}"


def describe(piece: Piece, path: Path, what: str, args: argparse.Namespace) -> str:
    """Return one line on a piece that was written; what: how much of what it is."""
    notes = [notes_of(track) for track in piece.tracks]
    end = max((int(track[:, 1].max()) for track in notes if len(track)), default=0)
    seconds = end / TICKS_PER_QUARTER * 60 / args.tempo
    return (
        f"{path}  ({sum(map(len, notes))} notes, {len(piece.tracks)} tracks, {seconds:.0f} s, "
        f"{what})"
    )


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
        help="exactly N tokens a piece, or frames of a piano roll, after the primer that was asked "
        "for (default: to its end, at most 2000; note models, which know no end, and baselines "
        "16 bars)",
    )
    add(
        "--bars",
        type=whole(1, 10_000),
        metavar="N",
        help="N bars of the piece's own meter, of 4/4 where nothing tells of one",
    )
    add("--seconds", type=number(0, 36_000, above=True), metavar="S", help="S seconds at --tempo")


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
        "sound; 1 for all (default: 0.9 for tokens, 1 for notes)",
    )
    add(
        "--repetition",
        type=number(-100, 100),
        default=0.0,
        metavar="X",
        help="nats added to the scores of what the piece said before: above 0 more comes back, "
        "below 0 less (models with a copy gate)",
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
        help="continue this file (default: the opening of a held-out piece)",
    )
    parser.add_argument(
        "--primer-length",
        type=whole(0),
        metavar="N",
        help="tokens or frames to take of it, 0 for none (default: 64 of a file; 16 of a held-out "
        "piece, but at most half of the length asked for, which then counts them)",
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


def add_file_options(parser: Parser) -> None:
    """Add what says how and where to write."""
    add = parser.add_argument
    add(
        "--tempo",
        type=number(10, 1000),
        default=90.0,
        metavar="BPM",
        help="quarter notes per minute",
    )
    add(
        "--program",
        type=whole(0, 127),
        default=0,
        metavar="N",
        help="General MIDI instrument: 0 piano, 19 organ",
    )
    add(
        "--restrike",
        action="store_true",
        help="strike the notes of a piano roll anew in each frame (default: held notes are one)",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR|FILE.mid",
        help="where to write (default: the run's samples/; samples/ for a baseline)",
    )
    add("--wav", action="store_true", help="play each piece into a WAV file beside its MIDI file")
    add("--png", action="store_true", help="draw the piano roll beside each MIDI file")
    add(
        "--svg",
        action="store_true",
        help="engrave the score beside each MIDI file (bin/sample installs music21 and verovio)",
    )
    add("--pages", type=whole(1, 1000), default=2, metavar="N", help="of --svg, at most")
    add(
        "--open",
        action="store_true",
        help="open what the first piece was made into: its sound, pictures, or the MIDI file",
    )
    add("--quiet", action="store_true", help="print nothing but the paths")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
