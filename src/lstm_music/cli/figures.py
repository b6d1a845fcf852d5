"""bin/figures: every figure of a run, a checkpoint, or a MIDI file, as PNG and SVG files."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lstm_music.cli.common import (
    Parser,
    add_backend_options,
    limit_threads,
    number,
    put,
    run,
    warn,
    whole,
)
from lstm_music.cli.printing import Bar
from lstm_music.errors import UserError
from lstm_music.evaluation.embeddings import PERPLEXITY, pitch_points, separation_of
from lstm_music.midi.files import read_any
from lstm_music.midi.piece import MidiError, Piece
from lstm_music.rendering import figures, score
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.runs.folder import METRICS, read_metrics
from lstm_music.runs.opened import (
    bundled_model,
    newest_run,
    open_run,
    own_corpus,
    reading_of,
)
from lstm_music.sampling.composer import Composer, Opening
from lstm_music.sampling.excerpts import without_silence
from lstm_music.sampling.from_checkpoint import composers

FOLDER = "figures"
MIDI = (".mid", ".midi")
EXAMPLES = """examples:
  bin/figures my-run             writes runs/my-run/figures/
  bin/figures --out docs         of the newest run, else of the bundled model, into docs/
  bin/figures piece.mid          the piano roll, softer notes fainter, and the score of a MIDI file

Of a run: loss.png, tokens.png (occurrences of tokens, log-log), embedding.png (t-SNE), and as
piano rolls and scores, music by the model, by its network before training, and of chords drawn by
frequency. Scores need music21 and verovio.
"""

Figure = tuple[str, Callable[[Path], str | None]]
"""A file's name, and what writes it to a path and may return a remark."""


def main(argv: Sequence[str]) -> int:
    """Write the figures and print their paths; return the exit status."""
    args = make_parser().parse_args(argv)
    limit_threads(args.threads, args.backend)
    if args.run is not None and Path(args.run).suffix.lower() in MIDI:
        made, folder = of_file(Path(args.run)), Path(FOLDER)
    else:
        made, folder = of_run(args)
    folder = args.out or folder
    folder.mkdir(parents=True, exist_ok=True)
    if not score.is_available():
        warn("no scores are engraved: they need music21 and verovio")
    with Bar(args.quiet, "figures") as bar:
        for n, (name, draw) in enumerate(made):
            try:
                remark = put(draw, folder / name)
                done = f"{folder / name}  ({remark})" if remark else folder / name
                bar.print(folder / name if args.quiet else done)
            except UserError as error:
                warn(f"{name} is left out: {error}")
            bar.show(n + 1, len(made))
    return 0


# What there is to draw --------------------------------------------------------------------------


def of_file(path: Path) -> list[Figure]:
    """Return the figures of a MIDI file. Raises UserError where it can't be used."""
    if not path.is_file():
        raise UserError(f"no file '{path}': give a MIDI file, or a run")
    try:
        piece, _ = read_any(path, path.stem)
    except MidiError as error:
        raise UserError(f"'{path}' {error}: give another MIDI file") from error
    made: list[Figure] = [(f"{path.stem}.png", lambda to: figures.piano_roll(piece, to))]
    return made + scores(path.stem, lambda: piece)


def of_run(args: argparse.Namespace) -> tuple[list[Figure], Path]:
    """Return the figures of a run or checkpoint, and the folder for them."""
    newest = None if args.run else newest_run()
    name = args.run or str(newest or bundled_model())
    checkpoint, run_folder = open_run(name, warn)
    made = [
        *losses(checkpoint, run_folder),
        ("tokens.png", lambda to: tokens(name, checkpoint, run_folder, to)),
        ("embedding.png", lambda to: embedding(checkpoint, args, to)),
    ]
    for title, composer in composers(name, checkpoint, run_folder, args.backend).items():
        made += music(title, composer, args)
    return made, (run_folder or Path()) / FOLDER


def losses(checkpoint: Checkpoint, run_folder: Path | None) -> list[Figure]:
    """Return the figure of the losses, where there is a run that has any."""
    if run_folder is None or not (run_folder / METRICS).exists():
        return []
    try:
        rows = read_metrics(run_folder / METRICS)
    except UserError as error:
        warn(str(error))
        return []
    unit = "frame" if checkpoint.config.reads_notes else "token"
    title = run_folder.resolve().name

    def draw(to: Path) -> str:
        figures.loss_curves(rows, to, title, unit)
        return f"{len(figures.annealings(rows))} annealings"

    return [("loss.png", draw)]


def tokens(name: str, checkpoint: Checkpoint, run_folder: Path | None, to: Path) -> None:
    """Draw how often each token of a run's corpus occurs."""
    reading = reading_of(checkpoint, run_folder)
    figures.token_frequency(own_corpus(name, checkpoint, run_folder, reading), to)


def embedding(checkpoint: Checkpoint, args: argparse.Namespace, to: Path) -> str:
    """Draw the map of a model's embedding; return how well it orders pitches."""
    order = figures.embedding_map(checkpoint, to, args.seed, args.perplexity)
    apart = separation_of(pitch_points(checkpoint), args.seed)
    remark = (
        f"rank correlation of distance with interval {order.rho:.3f}; shuffled pitches: "
        f"mean {order.shuffled_mean:.3f}, at most {order.shuffled_max:.3f}"
    )
    if apart is None:
        return remark
    return remark + (
        f"; nearest row of the same kind, note-on or note-off: {apart.share:.0%}; shuffled kinds: "
        f"mean {apart.shuffled_mean:.0%}, at most {apart.shuffled_max:.0%}"
    )


# Music ------------------------------------------------------------------------------------------


def music(
    title: str, composer: Callable[[], Composer[Any]], args: argparse.Namespace
) -> list[Figure]:
    """Return the piano roll and the score of what a composer composes, from silence."""
    piece = cache(lambda: composed(composer(), title, args))
    return [(f"{title}.png", lambda to: figures.piano_roll(piece(), to)), *scores(title, piece)]


def composed(composer: Composer[Any], title: str, args: argparse.Namespace) -> Piece:
    """Compose a piece of --bars."""
    options = composer.fitted(composer.options(bars=args.bars, seed=args.seed))
    opening = (composer.openings() or [Opening("", [])])[0]
    (made,) = composer.compose([composer.cut(opening.music, 0, None)], options, lambda *_: None)
    return without_silence(composer.piece(made, options, title))[0]


def scores(title: str, piece: Callable[[], Piece]) -> list[Figure]:
    """Return the score of a piece, where scores can be engraved."""
    drawn: list[Figure] = [(f"{title}.svg", lambda to: score.draw_score(piece(), to))]
    return drawn if score.is_available() else []


def make_parser() -> Parser:
    """Return the command's options."""
    parser = Parser("figures", "Draw every figure of a run, or of a MIDI file.", EXAMPLES)
    add = parser.add_argument
    add(
        "run",
        nargs="?",
        metavar="RUN|CHECKPOINT|FILE.mid",
        help="what to draw (default: the newest run, else the bundled model)",
    )
    add("--out", type=Path, metavar="DIR", help="where to write (default: the run's figures/)")
    add("--bars", type=whole(1, 1000), default=16, metavar="N", help="of the music composed")
    add("--seed", type=whole(0), default=0, metavar="N", help="of the music, and of t-SNE")
    add(
        "--perplexity",
        type=number(1, 1000),
        default=PERPLEXITY,
        metavar="X",
        help="of t-SNE: about how many neighbours count; fewer where there are few pitches",
    )
    add("--quiet", action="store_true", help="print nothing but the paths")
    add_backend_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
