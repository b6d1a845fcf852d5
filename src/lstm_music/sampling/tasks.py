"""What is to be set: which parts a model's settings have, and which of them a piece has already."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lstm_music.midi.piece import Piece, one_line
from lstm_music.sampling.craft import RANGES, VOICES, voices_of
from lstm_music.sampling.harmonising import Asked
from lstm_music.sampling.rules import NOTE_ON
from lstm_music.sampling.token_composers import EventComposer
from lstm_music.sampling.tunes import in_range, sharps_of, tune_of
from lstm_music.tokenizers.events import EventTokenizer
from lstm_music.tokenizers.messages import PITCHES
from lstm_music.tokenizers.parts import OTHERS, Player, parts_of, players_of


class Task(NamedTuple):
    """A piece whose tracks are parts of the model, and what is to be composed of it."""

    piece: Piece
    asked: Asked


def tune_task(
    composer: EventComposer, piece: Piece, part: int | None = None
) -> tuple[Task, list[str]]:
    """Return the task of setting a tune, and in words what was made of it.

    part: which it is, None for the first that a setting has.
    """
    usual = usual_parts(composer)
    part = usual[0] if part is None else part
    tune, said = tune_of(piece, composer.roster[part].name)
    low, high = range_of(composer, part)
    tune, octaves = in_range(tune, low, high)
    if octaves:
        way = "up" if octaves > 0 else "down"
        said.append(
            f"it is moved {abs(octaves)} octave{'s' * (abs(octaves) > 1)} {way}, to where "
            f"{shown_name(composer.roster, part)} is at home"
        )
    tokenizer = composer.tokenizer
    if tune.sharps is None and isinstance(tokenizer, EventTokenizer) and tokenizer.common_key:
        tune = replace(tune, sharps=sharps_of(tune, tokenizer.key_of(tune) or 0))
    tune = in_parts(tune, {part: 0}, composer.roster)
    return Task(tune, Asked(tuple(n for n in usual if n != part), of=(part,))), said


def usual_parts(composer: EventComposer) -> list[int]:
    """Return the parts that a setting has: the four voices, or all but drums and rare ones."""
    sung = [part for part, voice in enumerate(voices_of(composer.roster)) if voice >= 0]
    return sung or [
        part
        for part, player in enumerate(composer.roster)
        if not player.drums and player.name != OTHERS
    ]


def shown_name(roster: Sequence[Player], part: int) -> str:
    """Return a part's name, or its number, as piece.part_names."""
    return one_line(roster[part].name) or f"part {part + 1}"


def tracks_of(piece: Piece, roster: Sequence[Player]) -> dict[int, int]:
    """Return which track is which part, of several the first."""
    numbers = parts_in(piece, roster)
    return {part: numbers.index(part) for part in sorted({*numbers})}


def parts_in(piece: Piece, roster: Sequence[Player]) -> list[int]:
    """Return the part of each track; nameless four are the voices."""
    players, voices = players_of(piece), voices_of(roster)
    numbers = parts_of(players, roster)
    if len(players) == len(VOICES) and not any(player.name.strip() for player in players):
        numbers = [voices.index(n) if n in voices else numbers[n] for n in range(len(VOICES))]
    return numbers


def in_parts(piece: Piece, tracks: Mapping[int, int], roster: Sequence[Player]) -> Piece:
    """Return a piece of some of its tracks, named as the parts that they are."""
    drums = tuple(roster[part].drums for part in tracks)
    loud = piece.velocities
    return replace(
        piece, tracks=[piece.tracks[n] for n in tracks.values()],
        parts=tuple(roster[part].part for part in tracks), drums=drums if any(drums) else (),
        velocities=tuple(loud[n] for n in tracks.values()) if loud else (),
    )  # fmt: skip


def range_of(composer: EventComposer, part: int) -> tuple[int, int]:
    """Return the lowest and the highest pitch of a part: a voice's, else what the model knows."""
    voice = voices_of(composer.roster)[part]
    if voice >= 0:
        return RANGES[voice]
    rules = composer.rules
    known = rules.numbers[(rules.kinds <= NOTE_ON) & (rules.numbers // PITCHES == part)] % PITCHES
    return int(known.min(initial=127)), int(known.max(initial=0))
