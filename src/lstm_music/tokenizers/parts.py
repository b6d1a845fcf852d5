"""Who plays: the parts that a corpus has, and which of them each track of a piece is."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from lstm_music.midi.piece import Part, Piece

MOST_PARTS = 16
COMMON = 0.03  # of pieces: a part that fewer have is one of OTHERS
OTHERS = "Others"
NAME, PROGRAM, FAMILY = 4, 2, 1  # what the same name, program and family of instruments count
FAMILIES = 8  # programs of a family, as General MIDI numbers them
NEVER = 100  # what counts more than all of them: drums are no instrument, nor it drums


class Player(NamedTuple):
    """Who plays a part: as midi.Part, and whether it is drums."""

    name: str = ""
    program: int = 0
    drums: bool = False

    @property
    def part(self) -> Part:
        """What a piece says of the part."""
        return Part(self.name, self.program)


def players_of(piece: Piece) -> list[Player]:
    """Return who plays each track of a piece."""
    parts = piece.parts or (Part(),) * len(piece.tracks)
    drums = piece.drums or (False,) * len(piece.tracks)
    return [Player(*part, told) for part, told in zip(parts, drums, strict=True)]


def roster_of(pieces: Iterable[Piece]) -> tuple[Player, ...]:
    """Return the common parts of a corpus, MOST_PARTS at most, in the order of its scores.

    Who plays two parts of a piece is there twice. Rare ones are a part together, the last. None
    where most pieces have a single track.
    """
    counts: Counter[tuple[Player, int]] = Counter()
    places: defaultdict[tuple[Player, int], float] = defaultdict(float)  # 0 is a score's top, 1 end
    several = total = 0
    for piece in pieces:
        found: Counter[Player] = Counter()
        for place, player in enumerate(players_of(piece)):
            part = player, found[player]
            counts[part] += 1
            places[part] += place / len(piece.tracks)
            found[player] += 1
        total += 1
        several += len(piece.tracks) > 1
    if 2 * several <= total:
        return ()
    common = [part for part, n in counts.most_common() if n >= COMMON * total]
    rare = len(common) < len(counts) or len(common) > MOST_PARTS
    common = common[: MOST_PARTS - rare]
    roster = [player for player, _ in sorted(common, key=lambda part: places[part] / counts[part])]
    programs: Counter[int] = Counter()
    for part in counts:
        programs[part[0].program] += counts[part] * (part not in common)
    return (*roster, *(Player(OTHERS, programs.most_common(1)[0][0]) for _ in range(rare)))


def parts_of(players: Sequence[Player], roster: Sequence[Player]) -> list[int]:
    """Return the part of a roster, from 0, that each of a piece's tracks is.

    Each is the likest one by name, program and family that is free. Where none is, the others' part
    is shared, or that of the likest.
    """
    if not players:
        return []
    likeness = np.array([[_likeness(player, part) for part in roster] for player in players])
    shared = roster[-1].name == OTHERS
    rows, free = linear_sum_assignment(-likeness[:, : len(roster) - shared])
    parts = likeness.argmax(axis=1)
    if shared:
        parts[likeness[:, -1] >= 0] = len(roster) - 1
    fits = likeness[rows, free] >= 0
    parts[rows[fits]] = free[fits]
    return [int(part) for part in parts]


def _likeness(player: Player, part: Player) -> int:
    return (
        NAME * (player.name == part.name)
        + PROGRAM * (player.program == part.program)
        + FAMILY * (player.program // FAMILIES == part.program // FAMILIES)
        - NEVER * (player.drums != part.drums)
    )
