"""Notes told apart by pitch: which voice of a model's music would sing each note of a keyboard."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, combinations, groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import numpy as np

from lstm_music.midi.piece import PITCH, Notes, Part, Piece, notes_of
from lstm_music.midi.repair import merge_tracks, sorted_messages
from lstm_music.sampling.composer import Composer
from lstm_music.sampling.options import Options

FIFTH = 7  # semitones


class Note(NamedTuple):
    """A row of Notes."""

    start: int
    end: int
    pitch: int


class Voice(NamedTuple):
    """A voice of a composer's music: who sings it, and the mean of its pitches."""

    part: Part
    pitch: float


def singers_of(composer: Composer[Any]) -> list[Voice]:
    """Return the voices in which a composer writes, from the top; none where parts have chords.

    They are the parts that most of the openings that it knows have together.
    """
    known = [composer.piece(one.music, Options(), one.name) for one in composer.openings()]
    counts = Counter(piece.parts for piece in known if not any(piece.drums))
    parts = counts.most_common(1)[0][0] if counts else ()
    alike = [[notes_of(track) for track in piece.tracks] for piece in known if piece.parts == parts]
    if len(parts) < 2 or len({*parts}) < len(parts) or any(map(overlap, chain(*alike))):
        return []
    pitches = [np.concatenate(own)[:, PITCH].mean() for own in zip(*alike, strict=True)]
    voices = [Voice(part, float(pitch)) for part, pitch in zip(parts, pitches, strict=True)]
    return sorted(voices, key=lambda voice: -voice.pitch)


def overlap(notes: Notes) -> bool:
    """Return whether a note begins while another sounds."""
    return bool((notes[1:, 0] < notes[:-1, 1]).any())


def in_voices(piece: Piece, voices: Sequence[Voice]) -> Piece:
    """Return a piece's notes told apart by pitch, as voices from the top would sing them.

    As many sing as there are notes at once, each note with those free whose last note is nearest;
    of more notes than voices the lowest has several. How loud they are is left out.
    """
    chords = chords_of(notes_of(merge_tracks(piece)))
    most = min(max(len(pitches) for pitches, _ in chords), len(voices))
    full = [pitches[:most] for pitches, _ in chords if len(pitches) >= most]
    last = np.array(full).mean(axis=0).tolist()
    singers = [voices[n] for n in registers(last, voices)]
    until = [0] * most
    sung: list[list[Note]] = [[] for _ in singers]
    for _, struck in chords:
        free = [k for k in range(most) if until[k] <= struck[0].start] or [*range(most)]
        ways = combinations(free, min(len(struck), len(free)))
        way = min(ways, key=partial(moved, struck, last))
        for n, note in enumerate(struck):
            k = way[min(n, len(way) - 1)]
            sung[k].append(note)
            until[k], last[k] = max(until[k], note.end), note.pitch
    return replace(
        piece,
        tracks=[sorted_messages(*np.array(own, np.int64).T) for own in sung],
        parts=tuple(singer.part for singer in singers),
        velocities=(),
        drums=(),
    )


def moved(struck: Sequence[Note], last: Sequence[float], way: Sequence[int]) -> float:
    """Return by how much voices would move to notes from their last pitches."""
    return sum(abs(note.pitch - last[k]) for note, k in zip(struck, way, strict=False))


def chords_of(notes: Notes) -> list[tuple[list[int], list[Note]]]:
    """Return at each onset the pitches that sound and the notes that begin, from the top."""
    chords: list[tuple[list[int], list[Note]]] = []
    sounding: list[Note] = []
    for start, group in groupby(notes.tolist(), key=itemgetter(0)):
        struck = sorted((Note(*row) for row in group), key=attrgetter("pitch"), reverse=True)
        sounding = [note for note in sounding if note.end > start] + struck
        chords.append((sorted((note.pitch for note in sounding), reverse=True), struck))
    return chords


def registers(pitches: Sequence[float], voices: Sequence[Voice]) -> list[int]:
    """Return which voices sing lines of these mean pitches, from the top.

    Each is the highest left that sings no more than a fifth lower than it does otherwise.
    """
    chosen = [-1]
    for k, pitch in enumerate(pitches):
        last = len(voices) - len(pitches) + k
        able = (n for n in range(chosen[-1] + 1, last) if pitch >= voices[n].pitch - FIFTH)
        chosen.append(next(able, last))
    return chosen[1:]
