"""bin/sample: compose with a trained model and write MIDI files."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lstm_music.checkpoint import Checkpoint, read_checkpoint
from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    newest_run,
    number,
    open_run,
    run,
    warn,
    whole,
)
from lstm_music.errors import UserError
from lstm_music.midi import TICKS_PER_QUARTER, MidiError, Piece, notes_of, read_midi, write_midi
from lstm_music.model import Model
from lstm_music.ops import get_ops
from lstm_music.sampler import BAR, FreeGrammar, Options, clipped, decode, sample, within
from lstm_music.tokenizers.grammar import MessageGrammar
from lstm_music.tokenizers.messages import PIECE_END, MessageTokenizer, NearestWord, parse, spell

PRIMER_FROM_CORPUS, PRIMER_FROM_FILE = 16, 64  # tokens
BUNDLED = "data/bach-model"
EXAMPLES = """examples:
  bin/sample                                   the newest run, else the bundled Bach model
  bin/sample --num 4 --temperature 0.9         four pieces, a little more careful
  bin/sample --bars 16 --seed 7                sixteen bars
  bin/sample --primer mine.mid --out next.mid  continue a piece of your own
"""


def main(argv: Sequence[str]) -> int:
    """Write the pieces and print their paths; return the exit status."""
    args = make_parser().parse_args(argv)
    limit_threads(args.threads, args.backend)
    checkpoint, folder = find_checkpoint(args.run)
    model = model_of(checkpoint, args.backend)
    options, grammar = options_of(args), grammar_of(args, checkpoint)
    primers, origins = primers_of(args, checkpoint, grammar, options)
    start = checkpoint.vocabulary.id(PIECE_END)
    with Bar(args.quiet) as bar:
        pieces = drawer(model)(model, start, primers, options, grammar, bar.show)
    tokenizer = MessageTokenizer(checkpoint.meta["tokenizer"]["layout"])
    for path, ids, origin in zip(out_paths(args, folder), pieces, origins, strict=True):
        piece = decode(ids, checkpoint.vocabulary, tokenizer, grammar, path.stem)
        if options.limit is not None:
            piece = clipped(piece, options.limit)
        write(piece, path, args)
        if args.png:
            draw(piece, path.with_suffix(".png"))
        print(path if args.quiet else describe(piece, path, len(ids), origin, args))
    return 0


def find_checkpoint(name: str | None) -> tuple[Checkpoint, Path]:
    """Return the checkpoint that an argument names, and the folder for its samples."""
    if name is None:
        newest = newest_run()
        if newest is None:
            return read_checkpoint(bundled_model()), Path("samples")
        name = str(newest)
    checkpoint, folder = open_run(name)
    return checkpoint, (folder or Path()) / "samples"


def bundled_model() -> Path:
    """Return the folder of the checkpoint that comes with the package."""
    folder = Path(str(resources.files("lstm_music").joinpath(BUNDLED)))
    if not folder.is_dir():
        raise UserError("no run in runs/ to sample from: train one with bin/train bach")
    return folder


def model_of(checkpoint: Checkpoint, backend: str) -> Model:
    """Return a checkpoint's model on a backend."""
    # A few pieces at a time are a matter of small matrices: nothing there for Numba to win.
    ops = get_ops("numpy" if backend == "auto" else backend)
    parameters = {name: ops.asarray(value) for name, value in checkpoint.parameters.items()}
    return Model(checkpoint.config, ops, parameters=parameters)


def drawer(model: Model) -> Callable[..., list[list[int]]]:
    """Return what draws pieces with a model: on a GPU, the loop that never leaves it."""
    if model.ops.name != "cupy":
        return sample
    from lstm_music.device_sampling import sample_on_device

    return sample_on_device


def options_of(args: argparse.Namespace) -> Options:
    """Return the sampler's options."""
    limit = None
    if args.bars is not None:
        limit = args.bars * BAR
    elif args.seconds is not None:
        limit = max(1, round(args.seconds * args.tempo / 60 * TICKS_PER_QUARTER))
    return Options(
        args.length, limit, args.temperature, args.top_k, args.top_p, args.greedy, args.seed
    )


def grammar_of(args: argparse.Namespace, checkpoint: Checkpoint) -> MessageGrammar:
    """Return the rules of --strict or --free."""
    corpus = checkpoint.meta["corpus"]
    layout = checkpoint.meta["tokenizer"]["layout"]
    rules = FreeGrammar if args.free else MessageGrammar
    habits = (corpus["longest_note"], corpus["max_tracks"], corpus["most_notes"])
    return rules(checkpoint.vocabulary, layout, *habits)


def primers_of(
    args: argparse.Namespace, checkpoint: Checkpoint, grammar: MessageGrammar, options: Options
) -> tuple[list[list[int]], list[str]]:
    """Return the primer of each piece, and where it comes from in words."""
    if args.primer:
        candidates = [(str(args.primer), file_primer(args.primer, checkpoint))]
        usual = PRIMER_FROM_FILE
    else:
        known = checkpoint.meta["primers"]
        candidates = [(primer["name"], primer["ids"]) for primer in known] or [("", [])]
        usual = PRIMER_FROM_CORPUS
    length, limit, n = options.length, options.limit, args.primer_length
    if n is None:  # then the model composes at least half of what was asked for
        n = usual
        length, limit = length and length // 2, limit and limit // 2
    n = n if length is None else min(n, length)
    chosen = np.random.default_rng(args.seed).integers(len(candidates), size=args.num)
    primers, origins = [], []
    for name, ids in (candidates[k] for k in chosen):
        primer = within(ids, grammar, n, limit)
        primers.append(primer)
        origins.append(f"the first {len(primer)} tokens of {name}" if primer else "")
    return primers, origins


def file_primer(path: Path, checkpoint: Checkpoint) -> list[int]:
    """Return the ids of a MIDI file's tokens, unseen durations replaced by the nearest seen.

    The time that a note left out would have taken goes to the next one of its track.
    """
    words = file_words(path, MessageTokenizer(checkpoint.meta["tokenizer"]["layout"]))
    nearest = NearestWord(checkpoint.vocabulary)
    ids: list[int] = []
    changed, owed, notes, notes_in_track = 0, 0, 0, 0
    for word in words:
        message = parse(word)
        if message is None:  # the end of a track, which stays if something is left of it
            found = nearest(word) if notes_in_track else None
            owed, notes_in_track = 0, 0
        else:
            kind, pitch, delta = message
            found = nearest(spell(kind, pitch, delta + owed))
            owed = 0 if found else owed + delta
            notes_in_track += found is not None
            notes += found is not None
        changed += found != word
        if found is not None:
            ids.append(checkpoint.vocabulary.id(found))
    if not notes:
        raise UserError(
            f"the model knows none of the notes in '{path}': choose another --primer, "
            "or train a model on music like it"
        )
    if changed:
        warn(
            f"{changed} of {len(words)} tokens of {path} are new to the model: "
            "its nearest ones stand in, or they are left out"
        )
    return ids


def file_words(path: Path, tokenizer: MessageTokenizer) -> list[str]:
    """Return the words of a MIDI file, without the end of the piece."""
    if not path.is_file():
        raise UserError(f"no file '{path}': give --primer a MIDI file")
    try:
        piece = read_midi(path, path.name)
    except MidiError as error:
        raise UserError(f"'{path}' {error}: give --primer another MIDI file") from error
    return [word for word in tokenizer.words(piece) if word != PIECE_END]


def out_paths(args: argparse.Namespace, folder: Path) -> list[Path]:
    """Return where to write each piece; only a file that --out names is ever replaced."""
    if args.out is not None and args.out.suffix.lower() in (".mid", ".midi"):
        if args.num == 1:
            return [args.out]
        return [args.out.with_stem(f"{args.out.stem}-{k + 1}") for k in range(args.num)]
    folder = args.out or folder
    taken = [p.stem.rsplit("-", 1)[-1] for p in folder.glob("sample-*.mid")]
    first = 1 + max((int(t) for t in taken if t.isdecimal()), default=0)
    return [folder / f"sample-{first + k:04d}.mid" for k in range(args.num)]


def write(piece: Piece, path: Path, args: argparse.Namespace) -> None:
    """Write a piece as a MIDI file; where the disk refuses, what was there stays."""
    content = io.BytesIO()
    write_midi(piece, content, args.tempo, args.program)
    made = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(content.getvalue())
        made.replace(path)
    except OSError as error:
        with suppress(OSError):
            made.unlink()
        raise UserError(
            f"can't write '{path}' ({error.strerror}): choose another place with --out, "
            "or free some space"
        ) from error


def draw(piece: Piece, path: Path) -> None:
    """Draw a piece's piano roll."""
    from lstm_music.figures import piano_roll  # Matplotlib takes longer to load than to draw

    piano_roll(piece, path)


def describe(piece: Piece, path: Path, tokens: int, origin: str, args: argparse.Namespace) -> str:
    """Return one line on a piece that was written."""
    notes = [notes_of(track) for track in piece.tracks]
    end = max((int(track[:, 1].max()) for track in notes if len(track)), default=0)
    seconds = end / TICKS_PER_QUARTER * 60 / args.tempo
    primed = f", primed with {origin}" if origin else ""
    return (
        f"{path}  ({sum(map(len, notes))} notes, {len(piece.tracks)} tracks, {seconds:.0f} s, "
        f"{tokens} tokens{primed})"
    )


class Bar:
    """A progress bar that appears after two seconds, on a terminal."""

    def __init__(self, quiet: bool) -> None:
        from tqdm import tqdm

        hide = quiet or not sys.stderr.isatty()
        self.bar: Any = tqdm(unit="token", delay=2, leave=False, disable=hide)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def show(self, done: int, most: int) -> None:
        """Show how many tokens are drawn."""
        self.bar.total = most
        self.bar.update(done - self.bar.n)


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
        help="exactly N tokens a piece (default: to its end, at most 2000)",
    )
    add("--bars", type=whole(1, 10_000), metavar="N", help="N bars of 4/4")
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
        help="draw among the N likeliest tokens; 0 for all",
    )
    add(
        "--top-p",
        type=number(0, 1, above=True),
        default=0.9,
        metavar="P",
        help="draw among the likeliest tokens that hold a share P; 1 for all",
    )
    add("--greedy", action="store_true", help="always take the likeliest token")
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
        help="tokens to take of it, 0 for none (default: 16 of a held-out piece, 64 of a file, "
        "but at most half of the length asked for)",
    )


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
        "--out",
        type=Path,
        metavar="DIR|FILE.mid",
        help="where to write (default: the run's samples/)",
    )
    add("--png", action="store_true", help="draw the piano roll beside each MIDI file")
    add("--quiet", action="store_true", help="print nothing but the paths")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
