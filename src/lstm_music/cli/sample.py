"""bin/sample: compose with a trained model and write MIDI files."""

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lstm_music.checkpoint import Checkpoint, read_checkpoint, read_run
from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    newest_run,
    number,
    run,
    run_folder,
    warn,
    whole,
)
from lstm_music.errors import UserError
from lstm_music.midi import TICKS_PER_QUARTER, Piece, notes_of, read_midi, write_midi
from lstm_music.model import Model
from lstm_music.ops import get_ops
from lstm_music.sampler import Options, sample
from lstm_music.tokenizers.grammar import MessageGrammar
from lstm_music.tokenizers.messages import PIECE_END, SPECIALS, MessageTokenizer, NearestWord

BAR = 4 * TICKS_PER_QUARTER
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
    limit_threads(args.threads)
    checkpoint, folder = find_checkpoint(args.run)
    # One piece at a time is a matter of small matrices: nothing there for Numba to win.
    model = Model(
        checkpoint.config,
        get_ops("numpy" if args.backend == "auto" else args.backend),
        parameters=checkpoint.parameters,
    )
    tokenizer = MessageTokenizer(checkpoint.meta["tokenizer"]["layout"])
    options = options_of(args)
    primers, origins = primers_of(args, checkpoint, tokenizer)
    start = checkpoint.vocabulary.id(PIECE_END)
    with Bar(args.quiet) as bar:
        pieces = sample(model, start, primers, options, grammar_of(args, checkpoint), bar.show)
    for path, ids, origin in zip(out_paths(args, folder), pieces, origins, strict=True):
        piece = tokenizer.piece([checkpoint.vocabulary.word(id) for id in ids], path.stem)
        write(piece, path, args)
        print(describe(piece, path, len(ids), origin, args) if not args.quiet else path)
    return 0


def find_checkpoint(name: str | None) -> tuple[Checkpoint, Path]:
    """Return the checkpoint that an argument names, and the folder for its samples."""
    if name is None:
        newest = newest_run()
        if newest is None:
            bundled = Path(str(resources.files("lstm_music").joinpath(BUNDLED)))
            return read_checkpoint(bundled), Path("samples")
        return read_run(newest, warn)[0], newest / "samples"
    path = run_folder(name)
    if (Path(name) / "meta.json").is_file():
        checkpoint = Path(name)
        inside = checkpoint.resolve().parent.name == "checkpoints"
        samples = checkpoint.resolve().parent.parent / "samples" if inside else Path("samples")
        return read_checkpoint(checkpoint), samples
    if not path.is_dir():
        raise UserError(
            f"no run or checkpoint '{name}': train one with bin/train bach --run {name}"
        )
    return read_run(path, warn)[0], path / "samples"


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


def grammar_of(args: argparse.Namespace, checkpoint: Checkpoint) -> MessageGrammar | None:
    """Return the rules of --strict, or None for --free."""
    if args.free:
        return None
    corpus = checkpoint.meta["corpus"]
    layout = checkpoint.meta["tokenizer"]["layout"]
    return MessageGrammar(
        checkpoint.vocabulary, layout, corpus["longest_note"], corpus["max_tracks"]
    )


def primers_of(
    args: argparse.Namespace, checkpoint: Checkpoint, tokenizer: MessageTokenizer
) -> tuple[list[list[int]], list[str]]:
    """Return the primer of each piece, and where it comes from in words."""
    if args.primer:
        n = PRIMER_FROM_FILE if args.primer_length is None else args.primer_length
        ids = file_primer(args.primer, checkpoint, tokenizer)[:n]
        return [ids] * args.num, [f"the first {len(ids)} tokens of {args.primer}"] * args.num
    n = PRIMER_FROM_CORPUS if args.primer_length is None else args.primer_length
    known = checkpoint.meta["primers"]
    if n == 0 or not known:
        return [[] for _ in range(args.num)], [""] * args.num
    chosen = np.random.default_rng(args.seed).integers(len(known), size=args.num)
    primers = [[int(id) for id in known[k]["ids"][:n]] for k in chosen]
    names = [known[k]["name"] for k in chosen]
    return primers, [
        f"the first {len(p)} tokens of {m}" for p, m in zip(primers, names, strict=True)
    ]


def file_primer(path: Path, checkpoint: Checkpoint, tokenizer: MessageTokenizer) -> list[int]:
    """Return the ids of a MIDI file's tokens, unseen durations replaced by the nearest seen."""
    if not path.is_file():
        raise UserError(f"no file '{path}': give --primer a MIDI file")
    words = [w for w in tokenizer.words(read_midi(path, path.name)) if w not in SPECIALS]
    nearest = NearestWord(checkpoint.vocabulary)
    found = [nearest(word) for word in words]
    known = [word for word in found if word is not None]
    if not known:
        raise UserError(
            f"the model knows none of the notes in '{path}': choose another --primer, "
            "or train a model on music like it"
        )
    changed = sum(a != b for a, b in zip(words, found, strict=True))
    if changed:
        warn(
            f"{changed} of {len(words)} tokens of {path} are new to the model: "
            "its nearest ones stand in, or they are left out"
        )
    return [checkpoint.vocabulary.id(word) for word in known]


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
    """Write a piece as a MIDI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_midi(piece, path, args.tempo, args.program)


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
    add = parser.add_argument
    add(
        "run",
        nargs="?",
        metavar="RUN|CHECKPOINT",
        help="default: the newest run, else the bundled model",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--length",
        type=whole(1, 1_000_000),
        metavar="N",
        help="exactly N tokens (default: a whole piece, at most 2000)",
    )
    length.add_argument("--bars", type=whole(1, 10_000), metavar="N", help="N bars of 4/4")
    length.add_argument(
        "--seconds", type=number(0, 36_000, above=True), metavar="S", help="S seconds at --tempo"
    )
    add("--num", type=whole(1, 100_000), default=1, metavar="N", help="pieces")
    add("--seed", type=whole(0), default=0, metavar="N", help="another seed is another piece")
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
        default=1.0,
        metavar="P",
        help="draw among the likeliest that hold a share P",
    )
    add("--greedy", action="store_true", help="always take the likeliest token")
    rules = parser.add_mutually_exclusive_group()
    rules.add_argument(
        "--strict", action="store_true", help="no token that breaks the grammar (the default)"
    )
    rules.add_argument(
        "--free", action="store_true", help="every token may come at any time; the decoder repairs"
    )
    add(
        "--primer",
        type=Path,
        metavar="FILE.mid",
        help="continue this file (default: the opening of a held-out piece)",
    )
    add(
        "--primer-length",
        type=whole(0),
        metavar="N",
        help="tokens to take of it; 0 for none (default: 16 of the corpus, 64 of a file)",
    )
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
        help="General MIDI instrument, 0 piano, 19 organ",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR|FILE.mid",
        help="where to write (default: the run's samples/)",
    )
    add("--quiet", action="store_true", help="print the paths alone")
    add_backend_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
