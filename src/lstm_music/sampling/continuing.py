"""Music after an opening: composed, and told apart from the notes that were given."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from lstm_music.midi.bytes import Tempo
from lstm_music.midi.piece import Piece
from lstm_music.midi.timing import constant, tempo_at
from lstm_music.sampling.composer import Composer, Opening, Show
from lstm_music.sampling.excerpts import joined, keys_of, line_of, since, without, without_silence
from lstm_music.sampling.options import Options


class Continued(NamedTuple):
    """A piece as it is written. given, new: notes of its opening, and others.

    left: new notes left out with the opening, before the bar line after it; silent: bars of silence
    left out at its beginning.
    """

    piece: Piece
    given: int
    new: int
    left: int
    silent: int


def ends_of(composer: Composer[Any], openings: Sequence[Opening], options: Options) -> list[bool]:
    """Return of each piece whether it ends with its opening, after which another is composed."""
    if not openings or not openings[0].ends:  # of a file, which begins all
        return [False] * len(openings)
    return composer.ends_at_once(openings[0].music, options, len(openings))


def compose_after(
    composer: Composer[Any],
    openings: Sequence[Opening],
    ended: Sequence[bool],
    options: Options,
    show: Show,
) -> list[Any]:
    """Return the music of pieces with their openings, or without where they ended with them."""
    made: list[Any] = []
    for over, run in groupby(range(len(openings)), ended.__getitem__):
        numbers = [*run]
        own = replace(options_after(options, over), first=options.first + numbers[0])
        primers = [begun(composer, openings[n], over) for n in numbers]
        made += composer.compose(primers, own, show)
    return made


def options_after(options: Options, over: bool) -> Options:
    """Return options for what follows an opening: where that is over, bars begin anew."""
    if not (over and options.meter):
        return options
    return replace(options, meter=((0, options.line_and_bar[1]),))


def begun(composer: Composer[Any], opening: Opening, over: bool) -> Any:
    """Return what the network is primed with: nothing where an opening is over."""
    return composer.cut(opening.music, 0 if over else None, None)


def finished(
    composer: Composer[Any],
    music: Any,
    opening: Opening,
    over: bool,
    options: Options,
    tempo: Tempo,
    name: str,
    keep: bool,
) -> Continued:
    """Return music that `compose_after` returned as a piece, with its opening or without.

    tempo: from the opening's beginning on.
    """
    own, primer = options_after(options, over), begun(composer, opening, over)
    piece, given, end = composer.piece(music, own, name, primer), Piece(name, []), 0
    if len(opening.music):
        whole = replace(options, length=None, limit=None, bars=None)
        given, end = composer.piece(opening.music, whole, name), composer.ticks(opening.music)
    old = set() if over else {*keys_of(given)}
    new = [key for key in keys_of(piece) if key not in old]
    if keep or not len(opening.music):
        piece = replace(joined(given, end, piece) if over else piece, tempo=tempo)
    elif over:
        piece = replace(piece, tempo=constant(tempo_at(tempo, end)))
    else:
        piece = without(replace(piece, tempo=tempo), old)
        piece = since(piece, end if composer.played else line_of(piece, end))
    written = len(keys_of(piece))
    heard = len(new) if keep or over else written
    piece, silent = without_silence(replace(piece, beats=dict(opening.beats)))
    return Continued(piece, written - heard, heard, len(new) - heard, silent)
