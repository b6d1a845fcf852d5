"""From runs, files, folders and corpora to the clips of a study."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.sources import NAMED, ROLL_SUFFIXES, ROLLS, is_leftover
from lstm_music.errors import UserError, Warn
from lstm_music.evaluation.music.excerpts import piece_of_music, split_music
from lstm_music.listening import clips
from lstm_music.listening.study import Wanted
from lstm_music.midi.files import read_any, write_midi
from lstm_music.midi.piece import TICKS_PER_QUARTER, MidiError, Piece
from lstm_music.runs.opened import open_run
from lstm_music.sampling.composer import drums_of, from_silence
from lstm_music.sampling.decoding import with_drums, without_silence
from lstm_music.sampling.from_checkpoint import composers
from lstm_music.sampling.options import Options
from lstm_music.untrusted import read_bounded

MIDI, WAV = (".mid", ".midi", ".kar"), (".wav",)
Row = tuple[str, str, bool, bytes]
"""System, name, whether people made it, WAV file."""


class Asked(NamedTuple):
    """What is asked of each system: clips, seconds of each, and how to draw and compute.

    warn: is told of a run's damaged checkpoints.
    """

    num: int
    seconds: float
    seed: int
    backend: str
    warn: Warn


def clips_of(
    wanted: Sequence[Wanted], asked: Asked, show: Callable[[int, int], None]
) -> tuple[list[Row], float, float]:
    """Return the clips of all systems, their seconds, and their loudness in LUFS."""
    sounds: list[clips.Sound] = []
    controls: list[bool] = []
    drums = any(drums_of(open_run(one.source, asked.warn)[0]) for one in wanted if is_run(one))
    for n, one in enumerate(wanted):
        made = sounds_of(one, asked, drums)
        sounds += made
        controls += [one.control] * len(made)
        show(n + 1, len(wanted))
    files, seconds, level = clips.alike(sounds, asked.seconds)
    rows = [
        (sound.system, sound.name, control, file)
        for sound, control, file in zip(sounds, controls, files, strict=True)
    ]
    return rows, seconds, level


def is_run(one: Wanted) -> bool:
    """Return whether something is a run, or a baseline of one."""
    path = Path(one.source)
    files = path.suffix.lower() in MIDI + WAV or (path.is_dir() and files_in(path))
    return not one.control and (bool(one.baseline) or not files)


def sounds_of(one: Wanted, asked: Asked, drums: bool) -> list[clips.Sound]:
    """Return a system's clips, played. Raises UserError where there is nothing to play.

    drums: whether a corpus may be of drums alone.
    """
    if one.baseline:
        return [sound_of_piece(one.system, piece) for piece in composed(one, asked)]
    path = Path(one.source)
    if path.is_file() and path.suffix.lower() in MIDI + WAV:
        return [sound_of_file(one.system, path)]
    if one.control and (one.source in NAMED or not (path.is_dir() and files_in(path))):
        return [sound_of_piece(one.system, piece) for piece in human(one.source, asked, drums)]
    if path.is_dir() and files_in(path):
        files = files_in(path)
        chosen = np.random.default_rng(asked.seed).permutation(len(files))[: asked.num]
        return [sound_of_file(one.system, files[n]) for n in sorted(chosen.tolist())]
    if path.suffix.lower() in (*MIDI, *WAV):
        raise UserError(f"no file '{path}': check the path")
    return [sound_of_piece(one.system, piece) for piece in composed(one, asked)]


def files_in(folder: Path) -> list[Path]:
    """Return the MIDI and WAV files of a folder that is no run."""
    if (folder / "checkpoints").is_dir() or (folder / "meta.json").is_file():
        return []
    files = (p for p in folder.iterdir() if p.suffix.lower() in MIDI + WAV and p.is_file())
    return sorted(p for p in files if not is_leftover(p.name))


def sound_of_file(system: str, path: Path) -> clips.Sound:
    """Return a MIDI or WAV file, played."""
    try:
        content = read_bounded(path, clips.MOST_WAV)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't read '{path}' ({reason}): give another file") from error
    if path.suffix.lower() in WAV:
        return clips.from_wav(system, path.name, content)
    try:
        read_any(content, path.name)
    except MidiError as error:
        raise UserError(f"'{path}' {error}: give another MIDI file") from error
    return clips.from_midi(system, path.name, content)


def sound_of_piece(system: str, piece: Piece) -> clips.Sound:
    """Return a piece, played on a piano: at one tempo and evenly, but for performances."""
    content = io.BytesIO()
    write_midi(piece, content, program=0)
    return clips.from_midi(system, piece.name, content.getvalue())


def composed(one: Wanted, asked: Asked) -> list[Piece]:
    """Return what a run, or a baseline of one, composes from silence."""
    checkpoint, folder = open_run(one.source, asked.warn)
    composer = composers(one.source, checkpoint, folder, asked.backend)[one.baseline or "model"]()
    ticks = round((asked.seconds + 2) * composer.tempo / 60 * TICKS_PER_QUARTER)
    drawing = Options(None, ticks, top_p=composer.top_p, seed=asked.seed)
    pieces = [without_silence(piece)[0] for piece in from_silence(composer, asked.num, drawing)]
    if not all(piece.tracks for piece in pieces):
        what = one.baseline or f"'{one.source}'"
        raise UserError(f"{what} composed silence: give another --seed, or train it for longer")
    return pieces


def human(name: str, asked: Asked, drums: bool = False) -> list[Piece]:
    """Return held-out pieces of a corpus, to be played as everything else is.

    drums: whether it may be of drums alone.
    """
    rolls = name in ROLLS or Path(name).suffix.lower() in ROLL_SUFFIXES
    reading = Reading("note") if rolls else Reading()
    try:
        corpus = load_corpus(name, None, reading)
    except UserError:
        if not drums:
            raise
        corpus = load_corpus(name, None, replace(reading, drums=True))
    held_out = split_music(corpus, "test")
    chosen = np.random.default_rng(asked.seed).permutation(len(held_out))[: asked.num]
    return [with_drums(piece_of_music(held_out[n]), corpus.drums) for n in chosen.tolist()]
