"""bin/sample: compose with a trained model and write MIDI files."""

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

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
from lstm_music.cli.programs import check_programs, programs_of
from lstm_music.cli.sample_options import UNTRAINED, check_baseline, make_parser
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.errors import UserError
from lstm_music.files import free_number, numbered
from lstm_music.midi.bytes import Tempo
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import LAST_TICK, TICKS_PER_QUARTER, Piece
from lstm_music.midi.timing import constant, seconds_of, tempo_at
from lstm_music.network.baselines import fit_baseline
from lstm_music.network.model import Model
from lstm_music.runs.checkpoint import Checkpoint, read_checkpoint
from lstm_music.runs.opened import bundled_model, model_of, newest_run, open_run, ops_of
from lstm_music.sampling.composer import (
    Composer,
    Opening,
    Primer,
    bars_in_words,
    origin_of,
    primers_of,
)
from lstm_music.sampling.continuing import Continued, compose_after, ends_of, finished
from lstm_music.sampling.craft import sings
from lstm_music.sampling.from_checkpoint import composer_of, untrained
from lstm_music.sampling.options import Options
from lstm_music.sampling.particles import A_DRAFT
from lstm_music.sampling.roll_composers import FrequencyComposer
from lstm_music.sampling.token_composers import PARTICLES, PerformanceComposer
from lstm_music.tokenizers.parts import Player
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
    options, openings, tempo = begin(args, composer)
    own = slice(*ranks.share_of(args.num))
    options, openings = replace(options, first=own.start), openings[own]
    ended = ends_of(composer, openings, options)
    with Bar(args.quiet or not ranks.leads, composer.unit) as bar:
        pieces = compose_after(composer, openings, ended, options, bar.show)
    paths = ranks.from_first(lambda: out_paths(args, folder))[own]
    unmade: list[str] = []
    keep, made_of = not args.without_primer, []
    for path, opening, over, music in zip(paths, openings, ended, pieces, strict=True):
        done = finished(composer, music, opening, over, options, tempo, path.stem, keep)
        made_of.append((opening, over, music, done))
    check_programs([done.piece for *_, done in made_of], args.program)
    with Bar(args.quiet or not ranks.leads, "pieces") as bar:
        for n, (opening, over, music, done) in enumerate(made_of):
            path = write(midi_of(done.piece, args), paths[n], new=not names_file(args))
            piece = replace(done.piece, name=path.stem)
            what = size_in_words(composer, music, opening, over, options)
            bar.print(path if args.quiet else describe(done, path, what, opening, args))
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
        model = model_of(checkpoint, args.backend, words_of(args, checkpoint))
        return composer_of(checkpoint, model, args.free, args.restrike), folder
    return baseline_composer(args), Path("samples")


def words_of(args: argparse.Namespace, checkpoint: Checkpoint) -> int:
    """Return how many words are drawn, about: of drafts, as many as take as long."""
    roster = [Player(*player) for player in checkpoint.meta["tokenizer"].get("parts", ())]
    drafts = args.particles or PARTICLES
    alone = not sings(roster) or args.craft == 0
    return int(args.num * (args.length or USUAL_LENGTH) * (1 if alone else A_DRAFT * drafts))


def baseline_composer(args: argparse.Namespace) -> Composer[Any]:
    """Return what composes for --baseline."""
    if args.baseline != UNTRAINED:
        corpus = rolls_of(args, Reading("note"))
        frames = corpus.split_frames("train"), corpus.split_frames("valid")
        baseline = fit_baseline(args.baseline, *frames)
        return FrequencyComposer(baseline, corpus.reading.grid, args.restrike, tempo=corpus.tempo)
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


def options_of(args: argparse.Namespace, composer: Composer[Any], tempo: float) -> Options:
    """Return the sampler's options; tempo: of what is composed, in quarter notes a minute."""
    limit = None
    if args.seconds is not None:
        limit = max(1, round(args.seconds * tempo / 60 * TICKS_PER_QUARTER))
    meter = ((0, args.meter.bar),) if args.meter and not composer.tells_bars else ()
    return composer.options(
        length=args.length, limit=limit, temperature=args.temperature, top_k=args.top_k,
        top_p=args.top_p, greedy=args.greedy, seed=args.seed, bars=args.bars, beyond=True,
        meter=meter, repetition=args.repetition, craft=args.craft, particles=args.particles,
    )  # fmt: skip


def fit(args: argparse.Namespace, composer: Composer[Any]) -> None:
    """Have a composer keep to --meter. Raises UserError for what it can't do."""
    if args.bars is not None and isinstance(composer, PerformanceComposer):
        raise UserError("--bars counts bars, and a performance has none: use --seconds")
    if args.repetition and composer.recall is None:
        raise UserError(
            "--repetition is only for models with a copy gate, and this one has none: leave it "
            "out, or train a model with --copy"
        )
    if not composer.craft and (args.craft or (args.particles or 1) > 1):
        flag = "--craft" if args.craft else "--particles"
        raise UserError(
            f"{flag} is only for models of written music with four voices, named soprano, alto, "
            "tenor and bass: leave it out"
        )
    if args.meter:
        composer.keep_to(args.meter.bar)


def begin(
    args: argparse.Namespace, composer: Composer[Any]
) -> tuple[Options, list[Opening], Tempo]:
    """Return how to draw, how each piece begins, and the tempo from there on."""
    fit(args, composer)
    usual = PRIMER_FROM_FILE if args.primer else PRIMER_FROM_CORPUS
    n = usual if args.primer_length is None else args.primer_length
    given, tempo = Opening("", []), constant(args.tempo or composer.tempo)
    if args.primer:
        bar = args.meter.bar if args.meter else None
        given = composer.opening_of(Primer(args.primer, n, args.primer_start, bar), warn)
    if given.tempo and not args.tempo:
        tempo = np.array(given.tempo, np.int32)
    options = options_of(args, composer, tempo_at(tempo, LAST_TICK))
    if given.meter:
        options = replace(options, meter=given.meter)
    options = composer.fitted(options)
    openings = [given] * args.num if args.primer else primers_of(composer, options, args.num, n)
    if args.meter:
        beats = {args.meter.bar: args.meter.unit}
        openings = [opening._replace(beats={**opening.beats, **beats}) for opening in openings]
    return options, openings, tempo


# What comes out ---------------------------------------------------------------------------------


def names_file(args: argparse.Namespace) -> bool:
    """Return whether --out names a file, which is the only one that is ever replaced."""
    return args.out is not None and args.out.suffix.lower() in (".mid", ".midi")


def out_paths(args: argparse.Namespace, folder: Path, name: str = SAMPLE) -> list[Path]:
    """Return where each piece is to go; a name that another process takes first is its own."""
    if names_file(args):
        if args.num == 1:
            return [args.out]
        return [args.out.with_stem(f"{args.out.stem}-{k + 1}") for k in range(args.num)]
    folder = args.out or folder
    first = free_number(folder, name)
    return [numbered(folder, name, ".mid", first + k) for k in range(args.num)]


def midi_of(piece: Piece, args: argparse.Namespace) -> bytes:
    """Return a piece as the content of a MIDI file."""
    content = io.BytesIO()
    write_midi(piece, content, None, programs_of(piece, args.program))
    return content.getvalue()


def companions(
    piece: Piece, path: Path, args: argparse.Namespace, unmade: list[str]
) -> list[tuple[Path, str]]:
    """Write what --wav, --png, --svg and --musicxml ask for beside a file; return paths, remarks.

    unmade: gets why one can't be made; the others, and those of other pieces, still are.
    """
    made = []
    for kind, make in (("wav", play), ("png", draw), ("svg", engrave), ("musicxml", notate)):
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


def notate(piece: Piece, path: Path, args: argparse.Namespace) -> str:
    """Write a piece as MusicXML; return a remark, "" where there is nothing to write."""
    from lstm_music.midi.writing import programs_of as program_of_each
    from lstm_music.midi.writing import tempo_of
    from lstm_music.rendering.musicxml import Played, check_available, musicxml

    check_available()
    if not piece.tracks:
        warn(f"{path.with_suffix('.mid')} is silent: there is no score to write")
        return ""
    programs = program_of_each(piece, programs_of(piece, args.program))
    played = Played(tempo_of(piece, None), programs)
    write(musicxml(piece, played=played).encode(), path)
    return "MusicXML"


def size_in_words(
    composer: Composer[Any], music: Any, opening: Opening, over: bool, options: Options
) -> str:
    """Return how much was composed, and after what."""
    given = 0 if over else composer.size(opening.music, options)
    what = f"{composer.size(music, options) - given} {composer.unit}"
    origin = origin_of(composer, opening, options)
    what += f", primed with {origin}" if origin else ""
    return what + ", which end there: another piece follows" * over


def describe(
    done: Continued, path: Path, what: str, opening: Opening, args: argparse.Namespace
) -> str:
    """Return one line on a piece that was written; what: how much of what it is."""
    notes = f"{done.new} notes"
    if len(opening.music) and args.without_primer:
        notes = f"{done.new} new notes"
    elif len(opening.music):
        notes = f"{done.given} notes of {opening.name} and {done.new} new"
    what += f"; {done.left} notes before the first bar line left out" if done.left else ""
    silent = bars_in_words(done.silent)
    what += f"; silent at first, {silent} left out" if done.silent else ""
    seconds = seconds_of(done.piece)
    return f"{path}  ({notes}, {len(done.piece.tracks)} tracks, {seconds:.0f} s, {what})"


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
