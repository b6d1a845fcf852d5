"""Bach's sopranos harmonised, beside Bach: `python benchmarks/harmonising.py [RUN] [--json FILE]`.

The tunes are the sopranos of the held-out chorales that name their four voices; signature, bars and
fermatas are given with them, as a tune's notation has them. Beside Bach's own lower voices stand
those of two baselines, and what the network composes freely. Per row:

- faults of four-part writing, as `bin/evaluate --chorales` counts them;
- kept: the share of given notes that the soprano has again, alike in pitch, beginning and end;
- alto, tenor, bass: the share of sixteenths with a note of Bach's at which ours has its pitch;
- token error: of the lower voices together, the share of those sixteenths at which pitch or tie
  differs (a note is tied that was held a sixteenth before); frame error: those with any such voice;
- in key: pieces whose last chord has the tonic of Bach's piece as its lowest note;
- overlap with the held-out pieces and all their instruments, as `bin/evaluate --music` takes it; in
  Bach's row, that of the validation split's. What sets their tunes is nearer by these alone.

BachBot errs in 0.718 of tokens and 0.878 of frames where the soprano alone is given, as here; in
0.442 of alto's tokens, 0.235 of tenor's, 0.241 of bass's where all three other voices are (Liang,
"BachBot", Cambridge 2016, chapter 6, the numbers in its figure). It takes the likeliest token, of
pitch and tie, at each sixteenth; its held-out tenth of music21's chorales is another than ours.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import lstm_music  # noqa: F401  (before NumPy: it sets how the BLAS's threads wait)

# isort: split
import numpy as np
import numpy.typing as npt

from gpu_report import table
from harmonising_baselines import CHOIR, LOWER, Frequencies, NearestNeighbour
from lstm_music.cli.chorales import in_words, print_table
from lstm_music.cli.common import limit_threads
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.evaluation.music.excerpts import Music, excerpts, pieces_of_split, told_notes
from lstm_music.evaluation.music.judgement import mean_interval, without_nan
from lstm_music.evaluation.music.measures import features
from lstm_music.evaluation.music.nearness import Interval, compare
from lstm_music.evaluation.music.voices import (
    NAME,
    VOICES,
    Craft,
    by_voice,
    craft_json,
    craft_of,
    way_of,
)
from lstm_music.midi.piece import BAR, WHOLE_NOTE, Piece, notes_of
from lstm_music.midi.roll import key_of
from lstm_music.runs.opened import model_of, open_run
from lstm_music.sampling.composer import from_silence
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.harmonising import Asked, harmonise
from lstm_music.sampling.options import Options
from lstm_music.sampling.token_composers import EventComposer

SIXTEENTH = WHOLE_NOTE // 16
EXCERPT, FREE = 16, 50  # bars, of overlaps and free pieces; how many of these
BACHBOT = {"token error": 0.718, "frame error": 0.878}

Floats: TypeAlias = npt.NDArray[np.float64]
Setter: TypeAlias = Callable[[Piece, int], Piece]
"""Sets a tune, the nth of all: returns it with its lower voices."""


class Row(NamedTuple):
    """What is said of a set of pieces; shares are NaN where they mean nothing."""

    craft: Craft
    kept: Interval
    agreement: dict[str, Interval]
    token_error: Interval
    frame_error: Interval
    in_key: Interval
    overlap: Interval
    seconds: float  # a piece


UNKNOWN = Interval(math.nan, math.nan, math.nan)


# Pieces -----------------------------------------------------------------------------------------


def chorale_of(piece: Piece) -> Piece:
    """Return a piece's four named voices alone, from the soprano down; one may be silent."""
    names = [part.name.strip().lower() for part in piece.parts]
    named = dict(zip(names, piece.tracks, strict=True))
    tracks = [named.get(voice, np.zeros((0, 3), np.int32)) for voice in VOICES]
    return replace(piece, tracks=tracks, parts=CHOIR, drums=(), velocities=())


def tune_of(chorale: Piece) -> Piece:
    """Return a chorale's soprano, with what is written above or before it."""
    return replace(chorale, tracks=chorale.tracks[:1], parts=CHOIR[:1])


def harmonised(composer: EventComposer, options: Options, tune: Piece, n: int) -> Piece:
    """Set a tune below which the network composes; see Setter."""
    names = [player.name.strip().lower() for player in composer.roster]
    parts = tuple(names.index(voice) for voice in LOWER)
    (setting,) = harmonise(composer, tune, Asked(parts), replace(options, first=n))
    return chorale_of(setting.piece)


# Figures ----------------------------------------------------------------------------------------


def tokens_of(piece: Piece, steps: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return each voice's pitch at each sixteenth, -1 for none, and whether it is tied, (steps, 4).

    Tied is a note that began before the sixteenth before this one did, or with it.
    """
    ticks = SIXTEENTH * np.arange(steps)
    pitches = np.full((steps, len(VOICES)), -1, np.int64)
    tied = np.zeros(pitches.shape, np.bool_)
    for voice, track in enumerate(piece.tracks):
        for start, end, pitch in notes_of(track).tolist():
            sounds = (start <= ticks) & (ticks < end)
            pitches[sounds, voice], tied[sounds, voice] = pitch, ticks[sounds] >= start + SIXTEENTH
    return pitches, tied


class Errors(NamedTuple):
    """Of a piece: sixteenths with a note of each lower voice (3,), those with its pitch (3,).

    tokens: how many of all differ in pitch or tie; frames: sixteenths with any, and those that
    differ.
    """

    steps: Floats
    right: Floats
    tokens: float
    frames: tuple[float, float]


def errors_of(real: Piece, made: Piece) -> Errors:
    """Return how the lower voices of a chorale differ from the real ones."""
    steps = -(-max(int(notes_of(track)[-1, 1]) for track in real.tracks) // SIXTEENTH)
    (pitches, tied), (ours, held) = tokens_of(real, steps), tokens_of(made, steps)
    sounds, alike = pitches[:, 1:] >= 0, pitches[:, 1:] == ours[:, 1:]
    wrong = sounds & ~(alike & (tied[:, 1:] == held[:, 1:]))
    return Errors(
        sounds.sum(axis=0).astype(np.float64),
        (sounds & alike).sum(axis=0).astype(np.float64),
        float(wrong.sum()),
        (float(sounds.any(axis=1).sum()), float(wrong.any(axis=1).sum())),
    )


def kept_of(real: Piece, made: Piece) -> float:
    """Return the share of a tune's notes that are in the soprano again."""
    given, got = ({*map(tuple, notes_of(one.tracks[0]).tolist())} for one in (real, made))
    return len(given & got) / len(given)


def ends_on(piece: Piece, tonic: int) -> float:
    """Return 1 where the lowest note of the last chord of four voices is the tonic, else 0."""
    chords = by_voice([notes_of(track) for track in piece.tracks], tonic)
    last = chords.pitches[chords.full][-1:]
    return float(len(last) > 0 and last.min() % 12 == tonic)


def overlap_of(held_out: Sequence[Piece], made: Sequence[Piece], seed: int) -> Interval:
    """Return the mean overlap of two sets' distances, of excerpts."""
    sets = [[Music(one.name, told_notes(one)) for one in some] for some in (held_out, made)]
    real, other = ([features(cut.notes) for cut in excerpts(some, EXCERPT, FREE, seed)]
                   for some in sets)  # fmt: skip
    return compare(real, other, seed)[1] if min(len(real), len(other)) > 1 else UNKNOWN


def row_of(
    name: str, real: Sequence[Piece], made: Sequence[Piece], overlap: Interval, seconds: float,
    seed: int, free: bool = False,
) -> Row:  # fmt: skip
    """Return the figures of a set; free: its pieces are of no tune."""
    craft = craft_of(name, made, seed)
    if free:
        unknown = dict.fromkeys(LOWER, UNKNOWN)
        return Row(craft, UNKNOWN, unknown, UNKNOWN, UNKNOWN, UNKNOWN, overlap, seconds)
    pairs = [*zip(real, made, strict=True)]
    errors = [errors_of(*pair) for pair in pairs]
    steps = np.array([one.steps for one in errors])
    right = np.array([one.right for one in errors]) / np.maximum(steps, 1)
    wrong = np.array([one.tokens for one in errors]) / steps.sum(axis=1)
    frames = np.array([one.frames for one in errors])
    in_key = [ends_on(ours, key_of(bach).tonic) for bach, ours in pairs]
    return Row(
        craft,
        mean_interval(np.array([kept_of(*pair) for pair in pairs]), seed),
        {v: mean_interval(right[:, n], seed, steps[:, n]) for n, v in enumerate(LOWER)},
        mean_interval(wrong, seed, steps.sum(axis=1)),
        mean_interval(frames[:, 1] / frames[:, 0], seed, frames[:, 0]),
        mean_interval(np.array(in_key), seed),
        overlap,
        seconds,
    )


def cells_of(row: Row) -> dict[str, str]:
    """Return a row's figures that aren't of craft, with their intervals."""
    shares = {"kept": row.kept, **row.agreement, "in key": row.in_key}
    rates = {n: getattr(row, n.replace(" ", "_")) for n in (*BACHBOT, "overlap")}
    cells = {name: in_a_cell(one, percent=True) for name, one in shares.items()}
    cells |= {name: in_a_cell(one, percent=False) for name, one in rates.items()}
    seconds = "-" if math.isnan(row.seconds) else f"{row.seconds:.2f}"
    return {"per piece": row.craft.name, **cells, "seconds": seconds}


def in_a_cell(one: Interval, percent: bool) -> str:
    """Return a figure and its interval."""
    value, interval = in_words(one, percent)
    return f"{value} ({interval})" if interval else value


def row_json(row: Row) -> dict[str, Any]:
    """Return a row as an object for JSON."""
    agreement = {voice: found._asdict() for voice, found in row.agreement.items()}
    told = {k: v._asdict() if isinstance(v, Interval) else v for k, v in row._asdict().items()}
    made: dict[str, Any] = without_nan(told | {"craft": None, "agreement": agreement})
    return made | {"craft": craft_json(row.craft)}


# All of it --------------------------------------------------------------------------------------


def timed(setter: Setter, tunes: Sequence[Piece]) -> tuple[list[Piece], float]:
    """Return tunes as they are set, and seconds for each, without what the first call starts."""
    setter(tunes[0], 0)
    begin = time.perf_counter()
    made = [setter(tune, n) for n, tune in enumerate(tunes)]
    return made, (time.perf_counter() - begin) / len(tunes)


def rows_of(composer: EventComposer, args: argparse.Namespace) -> Iterator[Row]:
    """Yield all rows, Bach's own first."""
    corpus = load_corpus("bach", None, Reading("event", parts=True, common_key="A"))
    training, others, held_out = (pieces_of_split(corpus, s) for s in ("train", "valid", "test"))
    chorales = [[chorale_of(p) for p in some if way_of(p) == NAME] for some in (training, held_out)]
    real, seed, most = chorales[1][: args.num], args.seed, max(args.particles)
    usual = composer.options(seed=seed)
    yield row_of("Bach", real, real, overlap_of(held_out, others, seed), math.nan, seed)
    for name, setter in setters_of(composer, chorales[0], args).items():
        made, seconds = timed(setter, [tune_of(one) for one in real])
        yield row_of(name, real, made, overlap_of(held_out, made, seed), seconds, seed)
    for craft, particles in dict.fromkeys([(0.0, 1), (args.craft, 1), (args.craft, most)]):
        how = replace(usual, craft=craft, particles=particles, limit=EXCERPT * BAR)
        begin = time.perf_counter()
        free = from_silence(composer, args.num, how)
        seconds = (time.perf_counter() - begin) / len(free)
        overlap, name = overlap_of(held_out, free, seed), named("freely", how)
        yield row_of(name, real, free, overlap, seconds, seed, free=True)


def setters_of(
    composer: EventComposer, training: Sequence[Piece], args: argparse.Namespace
) -> dict[str, Setter]:
    """Return what sets tunes, by name."""
    made: dict[str, Setter] = {}
    for craft in dict.fromkeys((0.0, args.craft)):
        for particles in args.particles:
            how = composer.options(seed=args.seed, craft=craft, particles=particles)
            made[named("harmonised", how)] = partial(harmonised, composer, how)
    made["chords by frequency"] = Frequencies(training, args.seed)
    made["nearest neighbour"] = NearestNeighbour(training)
    return made


def named(what: str, how: Options) -> str:
    """Return what a row is called."""
    return f"{what}, {how.particles}" + f", craft {how.craft:g}" * (how.craft > 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("run", nargs="?", default="bach", help="a run in parts (default: the bundled model)")
    add("--num", type=int, default=FREE, help="at most so many tunes, and free pieces")
    add("--particles", type=int, nargs="+", default=[1, 8, 32, 128])
    add("--craft", type=float, help="nats of a fault, beside 0 (default: the model's own)")
    add("--seed", type=int, default=0)
    add("--threads", type=int, help="default: all cores")
    add("--json", type=Path, help="write all figures there")
    args = parser.parse_args(argv)
    limit_threads(args.threads, "auto")
    checkpoint, _ = open_run(args.run, lambda line: print(line, file=sys.stderr))
    composer = composer_of(checkpoint, model_of(checkpoint, "numba"))
    assert isinstance(composer, EventComposer), "the run has no parts"
    args.craft = composer.craft if args.craft is None else args.craft
    rows = []
    for row in rows_of(composer, args):
        print(row.craft.name, file=sys.stderr, flush=True)
        rows.append(row)
    print_table([row.craft for row in rows])
    bachbot = {"per piece": "BachBot", **{name: f"{x:.3f}" for name, x in BACHBOT.items()}}
    print("\n".join(["", *table([*map(cells_of, rows), bachbot])]))
    if args.json:
        told = {k: v for k, v in vars(args).items() if k != "json"}
        told |= {"bachbot": BACHBOT, "rows": [row_json(row) for row in rows]}
        args.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
