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
from lstm_music.midi.piece import TEMPO, TICKS_PER_QUARTER, MidiError, Piece
from lstm_music.runs.opened import open_run
from lstm_music.sampling.composer import drums_of, from_silence, tempo_of
from lstm_music.sampling.decoding import with_drums
from lstm_music.sampling.excerpts import without_silence
from lstm_music.sampling.from_checkpoint import composers
from lstm_music.sampling.token_composers import PerformanceComposer
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
    """Return the clips of all systems, their seconds, and their loudness in LUFS.

    What is composed, and the human pieces beside it, is played at one tempo, so that nobody tells
    them apart by it: that of the corpus of the first run that says one.
    """
    sounds: list[clips.Sound] = []
    controls: list[bool] = []
    runs = [open_run(one.source, asked.warn)[0] for one in wanted if is_run(one)]
    drums = any(map(drums_of, runs))
    written = [run for run in runs if run.meta["tokenizer"]["name"] != "performance"]
    said = [run for run in written if "tempo" in run.meta.get("corpus", {})]
    tempo = tempo_of(said[0]) if said else TEMPO
    for n, one in enumerate(wanted):
        made = sounds_of(one, asked, drums, tempo)
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


def sounds_of(one: Wanted, asked: Asked, drums: bool, tempo: float) -> list[clips.Sound]:
    """Return a system's clips, played. Raises UserError where there is nothing to play.

    drums: whether a corpus may be of drums alone. tempo: of pieces, files have their own.
    """
    if one.baseline:
        return [sound_of_piece(one.system, piece, tempo) for piece in composed(one, asked, tempo)]
    path = Path(one.source)
    if path.is_file() and path.suffix.lower() in MIDI + WAV:
        return [sound_of_file(one.system, path)]
    if one.control and (one.source in NAMED or not (path.is_dir() and files_in(path))):
        pieces = human(one.source, asked, drums)
        return [sound_of_piece(one.system, piece, tempo) for piece in pieces]
    if path.is_dir() and files_in(path):
        files = files_in(path)
        chosen = np.random.default_rng(asked.seed).permutation(len(files))[: asked.num]
        return [sound_of_file(one.system, files[n]) for n in sorted(chosen.tolist())]
    if path.suffix.lower() in (*MIDI, *WAV):
        raise UserError(f"no file '{path}': check the path")
    return [sound_of_piece(one.system, piece, tempo) for piece in composed(one, asked, tempo)]


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


def sound_of_piece(system: str, piece: Piece, tempo: float) -> clips.Sound:
    """Return a piece on a piano, evenly and at one tempo, as all are but those that are played."""
    content = io.BytesIO()
    if piece.velocities:
        write_midi(piece, content, program=0)
    else:
        write_midi(piece, content, tempo, program=0, velocity=80)
    return clips.from_midi(system, piece.name, content.getvalue())


def composed(one: Wanted, asked: Asked, tempo: float) -> list[Piece]:
    """Return what a run, or a baseline of one, composes from silence."""
    checkpoint, folder = open_run(one.source, asked.warn)
    composer = composers(one.source, checkpoint, folder, asked.backend)[one.baseline or "model"]()
    tempo = composer.tempo if isinstance(composer, PerformanceComposer) else tempo
    ticks = round((asked.seconds + 2) * tempo / 60 * TICKS_PER_QUARTER)
    drawing = composer.options(limit=ticks, seed=asked.seed)
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
