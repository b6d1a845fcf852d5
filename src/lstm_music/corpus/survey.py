"""What is in the files of a corpus, counted before a representation is chosen for them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lstm_music.midi.grid import Grid, grids_of
from lstm_music.midi.piece import WHOLE_NOTE, Piece
from lstm_music.midi.roll import HIGHEST, LOWEST, ticks_per_step

GRID = 48  # steps a whole note: sixteenths lie on it, and those of triplets, 1/24
WRITTEN = 0.5  # of the onsets: with fewer on GRID, music is played; docs/results.md shows why
SETS = ("velocities", "programs", "meters", "names")


@dataclass(frozen=True)
class Survey:
    """Counts of some pieces, as read.

    notes of all tracks; outside of the piano's 88; drums: notes of theirs that were left out;
    tracks, and those of pieces that have more than one (joined, where they are merged); pedals:
    messages of the sustain pedal; tempos: changes; keys: pieces that tell theirs; phrases: ends;
    onsets: greatest common divisor of a note's first tick and a whole note -> how many notes;
    velocities, programs (of tracks that are no drums), meters (ticks a bar), names of parts: which.
    """

    pieces: int
    notes: int
    outside: int
    drums: int
    tracks: int
    joined: int
    pedals: int
    tempos: int
    keys: int
    phrases: int
    onsets: dict[int, int]
    velocities: list[int]
    programs: list[int]
    meters: list[int]
    names: list[str]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Survey":
        """Return what asdict and JSON made of a survey. Raises TypeError, ValueError, KeyError."""
        onsets = {int(divisor): int(n) for divisor, n in data["onsets"].items()}
        return cls(**{**data, "onsets": onsets})

    def on_grid(self, grid: Grid) -> int:
        """Return how many notes begin on a grid of so many steps a whole note, or any of some."""
        steps = [ticks_per_step(number) for number in grids_of(grid)]
        return sum(
            n for divisor, n in self.onsets.items() if any(divisor % step == 0 for step in steps)
        )

    @property
    def share_on_grid(self) -> float:
        """The share of the notes that begin on GRID; 1 where there are none."""
        return self.on_grid(GRID) / self.notes if self.notes else 1.0

    @property
    def played(self) -> bool:
        """Whether the music was played, by how few of its notes begin on GRID; else written."""
        return self.share_on_grid < WRITTEN


def survey_of(piece: Piece) -> Survey:
    """Return the counts of one piece, which holds all that reading keeps."""
    notes, tracks = piece.notes, len(piece.tracks)
    divisors, times = np.unique(np.gcd(notes["start"], WHOLE_NOTE), return_counts=True)
    drums = piece.drums or (False,) * tracks
    melodic = [part for part, drum in zip(piece.parts, drums, strict=False) if not drum]
    return Survey(
        pieces=1,
        notes=len(notes),
        outside=int(np.count_nonzero((notes["pitch"] < LOWEST) | (notes["pitch"] > HIGHEST))),
        drums=piece.repairs.get("drum notes left out", 0),
        tracks=tracks,
        joined=tracks if tracks > 1 else 0,
        pedals=piece.pedals,
        tempos=int(np.count_nonzero(np.diff(piece.tempo[:, 1]))),
        keys=int(piece.sharps is not None),
        phrases=len(piece.phrases),
        onsets=dict(zip(divisors.tolist(), times.tolist(), strict=True)),
        velocities=np.unique(notes["velocity"]).tolist(),
        programs=sorted({part.program for part in melodic}),
        meters=np.unique(piece.meter[:, 1]).tolist(),
        names=sorted({part.name for part in piece.parts} - {""}),
    )


def total(surveys: Iterable[Survey]) -> Survey:
    """Return the counts of several surveys together."""
    counts: Counter[str] = Counter()
    onsets: Counter[int] = Counter()
    sets: dict[str, set[Any]] = {name: set() for name in SETS}
    for survey in surveys:
        onsets.update(survey.onsets)
        for field in fields(Survey):
            value = getattr(survey, field.name)
            if field.name in SETS:
                sets[field.name].update(value)
            elif field.name != "onsets":
                counts[field.name] += value
    values: dict[str, Any] = {field.name: counts[field.name] for field in fields(Survey)}
    values |= {name: sorted(found) for name, found in sets.items()}
    return Survey(**(values | {"onsets": dict(sorted(onsets.items()))}))
