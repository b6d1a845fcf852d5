"""Corpora: named ones and files of the user's -> pieces, prepared once and then memory-mapped.

A corpus is prepared once for its content and settings (`corpus/words.py`, `corpus/rolls.py`) and
kept; the MIDI files themselves are parsed once for any settings (`corpus/piece_store.py`). Nothing
is dropped silently: each file that can't be used is named with its reason in `skipped`, but for
what macOS puts beside music, which is counted in `ignored`.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from lstm_music.arrays import Array
from lstm_music.corpus.corpus import OUTSIDE, Corpus
from lstm_music.corpus.disk import places, read_cache, write_cache
from lstm_music.corpus.parsing import Digests, Workers, contents_of, digests_of, pieces_of
from lstm_music.corpus.piece_store import PieceStore, Read
from lstm_music.corpus.roll_files import file_of_rolls
from lstm_music.corpus.rolls import (
    RollCorpus,
    RollReading,
    prepare_file,
    prepare_rolls,
    rolls_from_disk,
)
from lstm_music.corpus.sources import ROLLS, Skipped, Source, find_rolls, find_sources
from lstm_music.corpus.survey import Survey, total
from lstm_music.corpus.words import (
    MessageCorpus,
    MessageReading,
    messages_from_disk,
    prepare_messages,
)
from lstm_music.errors import UserError
from lstm_music.files import cache_folder, write_whole
from lstm_music.midi.grid import Grid, grids_of
from lstm_music.midi.piece import Piece
from lstm_music.midi.roll import CommonKey
from lstm_music.tokenizers.messages import Layout

FORMAT = 7  # of prepared corpora; a new number makes old caches unused
MESSAGE_RULES = 2  # how messages are made; a new number makes runs on them start anew
MENDING_RULES = 1  # how files are mended; a new number does that for corpora with such files
SURVEYS = "survey 1"  # what they count; a new number has files counted anew
CLASSICAL = "classical.zip"  # in the cache: the corpus of that name, once it is built
EIGHTHS = 8  # frames a whole note, where nothing else is said

Prepared = TypeVar("Prepared", MessageCorpus, RollCorpus)
Representation = Literal["message", "event", "performance", "chord", "note"]
REPRESENTATIONS: tuple[Representation, ...] = ("message", "event", "performance", "chord", "note")
OF_WORDS = ("message", "event", "performance")  # what MIDI files are read as, in no frames
TELL_PARTS = ("event", "performance")  # whose words say who plays a note
PLAYED: Representation = "performance"  # what suits played music, whose onsets lie on no grid
WRITTEN: Representation = "event"  # and written music, which events of the bar say most of


@dataclass(frozen=True)
class Reading:
    """How to read a corpus.

    tracks: layout of messages; grid: frames a whole note, None for the corpus's own, or where notes
    of messages and events are put; drums: keep them; max_pieces: so many MIDI files, drawn by seed,
    0 for all; min_count as in MessageReading; parts: tell them apart, where the corpus has any; the
    others as in RollReading.
    """

    representation: Representation = "message"
    tracks: Layout = "flatten"
    grid: Grid | None = None
    max_polyphony: int = 0
    common_key: Literal["A", "C", "none"] | None = None
    transpose_augment: int = 0
    seed: int = 0
    drums: bool = False
    max_pieces: int = 0
    min_count: int = 0
    parts: bool = False

    def __post_init__(self) -> None:
        frames = self.representation in ("chord", "note")
        if self.max_polyphony and not frames:
            raise UserError(
                "--max-polyphony is for piano rolls: add --representation chord or note"
            )
        if self.grid is not None:
            self._check_grid(self.grid, frames)
        if self.key and self.representation in ("message", "performance"):
            raise UserError(
                f"--common-key isn't for {self.representation}s: add --representation event"
            )
        if self.common_key == "C" and self.representation == "event":
            raise UserError("--common-key C is for piano rolls: say A for events")
        if self.key and self.representation == "event" and self.drums and not self.parts:
            raise UserError("drums have no key: add --common-key none, --parts, or --no-drums")
        if self.parts and self.representation not in TELL_PARTS:
            raise UserError(
                "--parts is for events and performances: add --representation event, "
                "or leave it out"
            )
        if self.min_count and self.representation != "message":
            raise UserError("--min-count is for messages: leave it out, or --representation")

    def _check_grid(self, grid: Grid, frames: bool) -> None:
        """Raise UserError for what is no grid, or one of another representation."""
        try:
            several = len(grids_of(grid)) > 1
        except ValueError as error:
            raise UserError(f"{error}: use 8 for eighth notes, 16 for sixteenths") from error
        if frames and several:
            raise UserError(f"--grid {grid} is for messages and events: give one number for frames")
        if self.representation == "performance":
            raise UserError("--grid isn't for performances: add --representation event")

    @property
    def key(self) -> CommonKey | None:
        """The common key, if any."""
        return None if self.common_key == "none" else self.common_key

    def messages(self) -> MessageReading:
        """Return how to read a corpus as messages, events or performances."""
        augment = self.transpose_augment
        if self.representation == "performance":
            return MessageReading("merge", augment, 0, "performance", parts=self.parts)
        if self.representation == "event":
            return MessageReading("merge", augment, 0, "event", self.key, self.grid, self.parts)
        return MessageReading(self.tracks, augment, self.min_count, grid=self.grid)

    def files_to_text(self) -> str:
        """Return how MIDI files are chosen and read, as a prepared corpus's key holds it."""
        drawn = f" max-pieces {self.max_pieces} {self.seed}" if self.max_pieces else ""
        return " drums" * self.drums + drawn

    def rolls(self, name: str) -> RollReading | None:
        """Return how to read a corpus as frames, or None where it is read as tokens of MIDI."""
        if self.representation not in ("chord", "note"):
            return None
        own = ROLLS[name][1] if name in ROLLS else EIGHTHS
        return RollReading(
            self.representation,
            int(self.grid or own),
            self.max_polyphony,
            self.key,
            self.transpose_augment,
            self.seed if self.max_polyphony else 0,
        )


def load_corpus(
    name: str,
    data: Path | None = None,
    reading: Reading | None = None,
    progress: bool = False,
    workers: Workers | None = None,
) -> Corpus:
    """Return a corpus, from the cache where it was prepared before.

    name: "bach", "classical", one of Boulanger-Lewandowski's sets, or the path of a MIDI file, a
    folder, an archive or one of those sets; data: a file or folder to read a named corpus from
    instead; workers: who parses MIDI files. Raises UserError where there is nothing to read.
    """
    reading = reading or Reading()
    rolls = reading.rolls(name)
    path = path_of_rolls(name, data, rolls is not None)
    if path is not None:
        return load_rolls(name, path, rolls)
    sources, digests = files_of(name, data, progress)

    def found(place: Path) -> Iterator[Piece | Skipped]:
        store = PieceStore(place, reading.drums, reading.representation == "performance")
        drawn = reading.max_pieces, reading.seed
        return pieces_of(sources, digests, store, workers or Workers(), progress, *drawn)

    messages = reading.messages()
    text = f"{MESSAGE_RULES} {messages.to_text()}" if rolls is None else rolls.to_text()
    key = content_key(sources, digests, text + reading.files_to_text())
    if rolls is None:
        return kept_or_made(
            key,
            lambda meta, arrays: messages_from_disk(
                name, key_of(key, meta), meta, arrays, messages
            ),
            lambda place, folder: prepare_messages(name, folder, partial(found, place), messages),
        )
    return kept_or_made(
        key,
        lambda meta, arrays: rolls_from_disk(name, key_of(key, meta), meta, arrays, rolls),
        lambda place, folder: prepare_rolls(name, folder, found(place), rolls),
    )


def survey_corpus(
    name: str,
    data: Path | None = None,
    reading: Reading | None = None,
    progress: bool = False,
    workers: Workers | None = None,
) -> Survey | None:
    """Return what is in the files of a corpus, None where they hold piano rolls.

    The arguments are load_corpus's; of the reading, how files are chosen and drums counts alone.
    Files are parsed where they weren't before, and what is found is kept by what they hold.
    """
    reading = reading or Reading()
    if path_of_rolls(name, data, reading.rolls(name) is not None) is not None:
        return None
    sources, digests = files_of(name, data, progress)
    key = content_key(sources, digests, f"{SURVEYS}{reading.files_to_text()}")
    failed: OSError | None = None
    for place in places():
        path = place / "surveys" / f"{key}.json"
        with suppress(OSError, KeyError, TypeError, ValueError, AttributeError):
            return Survey.from_json(json.loads(path.read_text("utf-8")))
        store, drawn = PieceStore(place, reading.drums), (reading.max_pieces, reading.seed)
        try:
            found = contents_of(sources, digests, store, workers or Workers(), progress, *drawn)
            read = (one.survey for _, one in found if isinstance(one, Read))
            survey = total(one for one in read if one is not None)
            write_whole(json.dumps(asdict(survey)).encode(), path)
        except OSError as error:
            failed = error
            continue
        return survey
    raise failed or OSError("a corpus can't be surveyed")


def suiting(survey: Survey) -> Representation:
    """Return the representation that suits what is in files."""
    return PLAYED if survey.played else WRITTEN


def path_of_rolls(name: str, data: Path | None, frames: bool) -> Path | None:
    """Return the file of piano rolls that a corpus is, None for MIDI files.

    frames: whether it is read as frames; else no folder is searched for one.
    """
    looked_for = name in ROLLS and (data is None or data.is_dir())
    return None if looked_for and not frames else find_rolls(name, data)


def files_of(name: str, data: Path | None, progress: bool) -> tuple[list[Source], Digests]:
    """Return the MIDI files of a corpus, and a hash of each."""
    sources = find_sources(name, data, cache_folder() / CLASSICAL)
    where = hashlib.sha256(os.fsencode(Path(data or name).absolute())).hexdigest()
    return sources, digests_of(sources, cache_folder() / "digests" / where[:32], progress)


def key_of(key: str, meta: Mapping[str, Any]) -> str:
    """Return the key of a corpus of MIDI files that was prepared under a key.

    It stays where no file had to be mended and none is a copy of another: such a corpus is the
    same by the rules of every version, so that its runs go on.
    """
    mended = {kind for file in meta["mended"] for kind in file["repairs"]} - {OUTSIDE}
    if not mended and not meta["copies"]:
        return key
    hits = " hits" * ("drum hits of length zero" in mended)
    return hashlib.sha256(f"{key} {MENDING_RULES}{hits}".encode()).hexdigest()[:32]


def load_rolls(name: str, path: Path, reading: RollReading | None) -> RollCorpus:
    """Return a file of piano rolls."""
    if reading is None:
        raise UserError(
            f"'{path}' holds piano rolls, which have no MIDI messages: "
            "read it with --representation chord or note"
        )
    source = Source(path.suffix.lower(), lambda: file_of_rolls(path))
    key = content_key([source], digests_of([source]), reading.to_text())
    return kept_or_made(
        key,
        lambda meta, arrays: rolls_from_disk(name, key, meta, arrays, reading),
        lambda _, folder: prepare_file(name, folder, path, reading),
    )


def kept_or_made(
    key: str,
    from_disk: Callable[[dict[str, Any], dict[str, Array]], Prepared],
    make: Callable[[Path, Path], dict[str, Any]],
) -> Prepared:
    """Return the corpus of that key from the cache, or make it and keep it there.

    make: takes the cache and the folder to write arrays into, and returns the rest in JSON. Where
    the cache can't be written, a temporary folder serves. Raises OSError where neither can be.
    """
    failed: OSError | None = None
    for place in places():
        folder = place / f"{key}-{FORMAT}"
        kept = read_cache(folder)
        if kept is not None:
            with suppress(KeyError, TypeError, ValueError, UserError):  # another version's
                return from_disk(*kept)
        try:
            write_cache(folder, partial(make, place))
            kept = read_cache(folder)
        except OSError as error:
            failed = error
            continue
        if kept is not None:
            return from_disk(*kept)
    raise failed or OSError("a prepared corpus can't be read back")


def content_key(sources: Iterable[Source], digests: Digests, how: str) -> str:
    """Return a hash of every file's name and bytes, and of how they are read."""
    key = hashlib.sha256(how.encode())
    for source, digest in zip(sources, digests, strict=True):
        key.update(hashlib.sha256(source.name.encode()).digest())
        key.update(b"unreadable" if isinstance(digest, Skipped) else bytes.fromhex(digest))
    return key.hexdigest()[:32]
