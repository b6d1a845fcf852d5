"""Corpora: named ones and files of the user's -> pieces, prepared once and then memory-mapped.

A corpus is prepared once for its content and settings (`message_corpus.py`, `roll_corpus.py`) and
kept. Nothing is dropped silently: each file that can't be used is named with its reason in
`skipped`.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from tqdm import tqdm

from lstm_music.errors import UserError
from lstm_music.message_corpus import (
    MessageCorpus,
    messages_from_disk,
    messages_on_disk,
    prepare_messages,
)
from lstm_music.ops.numpy_ops import Array
from lstm_music.prepared import HELD_OUT, Corpus, cache_folder, read_cache, write_cache
from lstm_music.roll_corpus import (
    RollCorpus,
    RollReading,
    prepare_file,
    prepare_rolls,
    rolls_from_disk,
    rolls_on_disk,
)
from lstm_music.sources import ROLLS, Source, find_rolls, find_sources
from lstm_music.tokenizers.messages import Layout

FORMAT = 3  # of prepared corpora; a new number makes old caches unused
EIGHTHS = 8  # frames a whole note, where nothing else is said

Prepared = TypeVar("Prepared", MessageCorpus, RollCorpus)
Representation = Literal["message", "chord", "note"]
REPRESENTATIONS: tuple[Representation, ...] = ("message", "chord", "note")


@dataclass(frozen=True)
class Reading:
    """How to read a corpus.

    tracks: layout of messages; grid: frames a whole note, None for the corpus's own; the others as
    in RollReading.
    """

    representation: Representation = "message"
    tracks: Layout = "flatten"
    grid: int | None = None
    max_polyphony: int = 0
    common_key: Literal["A", "C"] | None = None
    transpose_augment: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        given = {"grid": self.grid, "max-polyphony": self.max_polyphony}
        for option, value in (given | {"common-key": self.common_key}).items():
            if value and self.representation == "message":
                raise UserError(
                    f"--{option} is for piano rolls: add --representation chord or note"
                )

    def rolls(self, name: str) -> RollReading | None:
        """Return how to read a corpus as frames, or None where it is read as messages."""
        if self.representation == "message":
            return None
        own = ROLLS[name][1] if name in ROLLS else EIGHTHS
        return RollReading(
            self.representation,
            self.grid or own,
            self.max_polyphony,
            self.common_key,
            self.transpose_augment,
            self.seed if self.max_polyphony else 0,
        )


def load_corpus(
    name: str,
    data: Path | None = None,
    reading: Reading | None = None,
    progress: bool = False,
) -> Corpus:
    """Return a corpus, from the cache where it was prepared before.

    name: "bach", one of Boulanger-Lewandowski's sets, or the path of a MIDI file, a folder, a zip
    or one of those sets; data: a file or folder to read a named corpus from instead. Raises
    UserError where there is nothing to read.
    """
    reading = reading or Reading()
    rolls = reading.rolls(name)
    looked_for = name in ROLLS and (data is None or data.is_dir())
    path = None if looked_for and rolls is None else find_rolls(name, data)
    if path is not None:
        return load_rolls(name, path, rolls)
    sources = find_sources(name, data)
    seen = watched(sources, f"reading {name}", progress)
    if rolls is None:
        return load_messages(name, sources, seen, reading, progress)
    key = content_key(sources, rolls.to_text(), progress)
    return kept_or_made(
        key,
        lambda meta, arrays: rolls_from_disk(name, key, meta, arrays, rolls),
        lambda: prepare_rolls(name, key, seen, len(sources), rolls),
        rolls_on_disk,
    )


def load_messages(
    name: str, sources: list[Source], seen: Iterable[Source], reading: Reading, progress: bool
) -> MessageCorpus:
    """Return MIDI files as messages; seen: the same sources, watched as they are read."""
    layout, augment = reading.tracks, reading.transpose_augment
    # As the first version had it, whose runs can then be resumed.
    how = f"2 message {layout} {HELD_OUT}" + (f" augment {augment}" if augment else "")
    key = content_key(sources, how, progress)
    return kept_or_made(
        key,
        lambda meta, arrays: messages_from_disk(name, key, meta, arrays, layout, augment),
        lambda: prepare_messages(name, key, seen, len(sources), layout, augment),
        messages_on_disk,
    )


def load_rolls(name: str, path: Path, reading: RollReading | None) -> RollCorpus:
    """Return a file of piano rolls."""
    if reading is None:
        raise UserError(
            f"'{path}' holds piano rolls, which have no MIDI messages: "
            "read it with --representation chord or note"
        )
    sources = [Source(path.suffix.lower(), path.read_bytes)]
    key = content_key(sources, reading.to_text(), progress=False)
    return kept_or_made(
        key,
        lambda meta, arrays: rolls_from_disk(name, key, meta, arrays, reading),
        lambda: prepare_file(name, key, path, reading),
        rolls_on_disk,
    )


def kept_or_made(
    key: str,
    from_disk: Callable[[dict[str, Any], dict[str, Array]], Prepared],
    make: Callable[[], Prepared],
    on_disk: Callable[[Prepared], tuple[dict[str, Any], dict[str, Array]]],
) -> Prepared:
    """Return the corpus of that key from the cache, or make it and keep it there."""
    folder = cache_folder() / f"{key}-{FORMAT}"
    kept = read_cache(folder)
    if kept is not None:
        with suppress(KeyError, TypeError, ValueError, UserError):  # not what this version writes
            return from_disk(*kept)
    corpus = make()
    write_cache(folder, *on_disk(corpus))
    return corpus


def content_key(sources: list[Source], how: str, progress: bool = False) -> str:
    """Return a hash of every file's name and bytes, and of how they are read."""
    digest = hashlib.sha256(how.encode())
    for source in watched(sources, "looking for changes", progress):
        digest.update(hashlib.sha256(source.name.encode()).digest())
        try:
            digest.update(hashlib.sha256(source.read()).digest())
        except OSError:
            digest.update(b"unreadable")
    return digest.hexdigest()[:32]


def watched(sources: list[Source], what: str, progress: bool) -> Iterable[Source]:
    """Return the sources, with a progress bar for those who wait longer than two seconds."""
    return tqdm(
        sources, what, unit="file", disable=not progress, leave=False, delay=2, file=sys.stderr
    )
