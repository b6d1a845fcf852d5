"""--program: which instrument plays which part of a piece."""

from collections.abc import Sequence

from lstm_music.errors import UserError
from lstm_music.midi.piece import Piece, part_names

Asked = Sequence[tuple[str, int]]
"""Parts, "" for all, and their programs: of two for a part the later counts."""


def programs_of(piece: Piece, asked: Asked | None) -> list[int] | None:
    """Return the program of each track, None where nothing is asked for."""
    if not asked:
        return None
    programs = [part.program for part in piece.parts] or [0] * len(piece.tracks)
    for part, program in asked:
        for number in parts_of(piece, part):
            programs[number] = program
    return programs


def parts_of(piece: Piece, part: str) -> list[int]:
    """Return which tracks, but drums, a part is: all where it is "", else by name, or by number."""
    drums = piece.drums or (False,) * len(piece.tracks)
    players = [number for number, drum in enumerate(drums) if not drum]
    if not part:
        return players
    names = part_names(piece)
    named = [number for number in players if names[number].casefold() == part.casefold()]
    return named or [number for number in players if str(number + 1) == part]


def check_programs(pieces: Sequence[Piece], asked: Asked | None) -> None:
    """Raise UserError where a part that is asked for is in none of the pieces that sound."""
    sound = [piece for piece in pieces if piece.tracks]
    for part, program in asked or ():
        if part and sound and not any(parts_of(piece, part) for piece in sound):
            named = [(n, part_names(piece)[n]) for piece in sound for n in parts_of(piece, "")]
            there = ", ".join(f"{n + 1} {name}" for n, name in sorted({*named}))
            what = f"name one of {there}" if there else "only drums play, which have no program"
            raise UserError(f"--program {part}={program}: there is no such part: {what}")
