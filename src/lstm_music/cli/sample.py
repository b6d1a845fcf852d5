"""bin/sample: compose with a trained model and write MIDI files."""

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lstm_music.cli.common import (
    check_ranks,
    limit_threads,
    put,
    run,
    warn,
    warn_of_namesake,
    write,
)
from lstm_music.cli.opening import check_opener, open_file
from lstm_music.cli.printing import Bar
from lstm_music.cli.sample_options import UNTRAINED, check_baseline, make_parser
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.errors import UserError
from lstm_music.files import free_number, numbered
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import TICKS_PER_QUARTER, Piece, notes_of
from lstm_music.network.baselines import fit_baseline
from lstm_music.network.model import Model
from lstm_music.runs.checkpoint import Checkpoint, read_checkpoint
from lstm_music.runs.opened import bundled_model, model_of, newest_run, open_run, ops_of
from lstm_music.sampling.composer import Composer, bars_in_words, primers_of
from lstm_music.sampling.decoding import without_silence
from lstm_music.sampling.from_checkpoint import composer_of, untrained
from lstm_music.sampling.options import Options
from lstm_music.sampling.roll_composers import FrequencyComposer
from lstm_music.sampling.token_composers import PerformanceComposer
from lstm_music.training.ranks import Alone, join

PRIMER_FROM_CORPUS, PRIMER_FROM_FILE = 16, 64  # tokens or frames
USUAL_LENGTH = 1000  # tokens of a piece, where none are asked for
SAMPLE = "sample"  # the name of a file's, before its number


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
    args.tempo = args.tempo or composer.tempo
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
    """Return the sampler's options; top_p where none is given. args.tempo: what is heard."""
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
    if args.bars is not None and isinstance(composer, PerformanceComposer):
        raise UserError("--bars counts bars, and a performance has none: use --seconds")
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

    put(lambda to: piano_roll(piece, to, piece.velocities or None), path)
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


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
