"""Who plays: the parts that a corpus has, and which of them each track of a piece is."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment

from lstm_music.midi.piece import TICK, Messages, Part, Piece
from lstm_music.midi.repair import repair_track

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


DRUMS = Player("", 0, True)  # all of them, whatever their names
Counted: TypeAlias = tuple[Player, int]  # who plays, and how many alike are above


def players_of(piece: Piece) -> list[Player]:
    """Return who plays each track of a piece."""
    parts = piece.parts or (Part(),) * len(piece.tracks)
    drums = piece.drums or (False,) * len(piece.tracks)
    return [Player(*part, told) for part, told in zip(parts, drums, strict=True)]


def roster_of(pieces: Iterable[Piece]) -> tuple[Player, ...]:
    """Return the common parts of a corpus, MOST_PARTS at most, in the order of its scores.

    Who plays two parts of a piece is there twice. Rare ones are a part together, the last. Drums
    are alike, and always there, by their commonest name. None where most pieces have a single
    track.
    """
    counts: Counter[Counted] = Counter()
    places: defaultdict[Counted, float] = defaultdict(float)  # 0 is a score's top, 1 end
    called: defaultdict[Counted, Counter[Player]] = defaultdict(Counter)
    several = total = 0
    for piece in pieces:
        found: Counter[Player] = Counter()
        for place, player in enumerate(players_of(piece)):
            kind = DRUMS if player.drums else player
            part = kind, found[kind]
            counts[part] += 1
            places[part] += place / len(piece.tracks)
            called[part][player] += 1
            found[kind] += 1
        total += 1
        several += len(piece.tracks) > 1
    if 2 * several <= total:
        return ()
    drums = [part for part in counts if part == (DRUMS, 0)]
    common = [part for part, n in counts.most_common() if n >= COMMON * total]
    common = list(dict.fromkeys(drums + common))
    common = common[: MOST_PARTS - bool(_others(counts, common[:MOST_PARTS]))]
    in_order = sorted(common, key=lambda part: places[part] / counts[part])
    roster = [called[part].most_common(1)[0][0] for part in in_order]
    programs: Counter[int] = Counter()
    for part in _others(counts, common):
        programs[part[0].program] += counts[part]
    return (*roster, *(Player(OTHERS, program) for program, _ in programs.most_common(1)))


def _others(counts: Iterable[Counted], common: Sequence[Counted]) -> list[Counted]:
    """Return the parts that are none of the common ones; drums share the one that they have."""
    return [part for part in counts if part not in common and not part[0].drums]


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


def of_one_piano(roster: Iterable[Player]) -> bool:
    """Return whether parts are of keyboards alone, as the hands of a pianist on two tracks."""
    return all(player.program < FAMILIES and not player.drums for player in roster)


# What words told of parts -------------------------------------------------------------------------


def tracks_of(
    messages: Sequence[Messages], roster: Sequence[Player], silent: bool
) -> dict[int, Messages]:
    """Return the repaired tracks of what was told of each part (1 + parts), the first of no part.

    They are by their place among messages; those without a note are left out, but for parts where
    silent, of which nothing told of no part is one.
    """
    first = silent and bool(roster)
    last = max((int(own[-1, TICK]) for own in messages if len(own)), default=0)
    tracks = {part: repair_track(own, last) for part, own in enumerate(messages)}
    return {k: track for k, track in tracks.items() if len(track) or (silent and k >= first)}


def who_plays(tracks: Mapping[int, Messages], roster: Sequence[Player]) -> dict[str, Any]:
    """Return what a Piece of `tracks_of` says of its parts: the fields parts and drums."""
    who = [roster[k - 1] if k else Player() for k in tracks] if roster else []
    drums = tuple(player.drums for player in who)
    return {
        "parts": tuple(player.part for player in who),
        "drums": drums if any(drums) else (),
    }


def _likeness(player: Player, part: Player) -> int:
    return (
        NAME * (player.name == part.name)
        + PROGRAM * (player.program == part.program)
        + FAMILY * (player.program // FAMILIES == part.program // FAMILIES)
        - NEVER * (player.drums != part.drums)
    )
