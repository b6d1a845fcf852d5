"""Composing the parts that a piece lacks, or some of its bars anew, around what is given of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.errors import UserError, Warn
from lstm_music.midi.piece import (
    LAST_TICK,
    TICK,
    Messages,
    Notes,
    Part,
    Piece,
    Velocities,
    no_phrases,
    notes_of,
)
from lstm_music.midi.repair import sorted_messages, velocities_of, without_overlaps
from lstm_music.midi.timing import end_of
from lstm_music.network.recall_rules import tells_phrases
from lstm_music.sampling.composer import Ids, Show
from lstm_music.sampling.craft import voices_of
from lstm_music.sampling.decoding import decode
from lstm_music.sampling.given import NONE, Given
from lstm_music.sampling.options import Options
from lstm_music.sampling.particles import sample_particles
from lstm_music.sampling.rules import BAR_LINE, CADENCE, KEY, MOVE, NOTE_OFF, NOTE_ON, PLACE, Rules
from lstm_music.sampling.rules import NONE as NO_WORD
from lstm_music.sampling.token_composers import EventComposer, InKeyOf, no_known_notes
from lstm_music.sampling.tunes import (
    as_played,
    at_known_places,
    in_known_bars,
    in_time_of,
)
from lstm_music.tokenizers.events import EventTokenizer
from lstm_music.tokenizers.messages import PITCHES
from lstm_music.tokenizers.parts import Player, parts_of, players_of

NEAR = 30  # ticks by which what was played begins before its bar line at most


class Setting(NamedTuple):
    """A piece as it was set, and the estimated log-likelihood of what was given."""

    piece: Piece
    nats: float


class Asked(NamedTuple):
    """What is to be composed: parts of the roster, by number, at ticks from start to before stop.

    stop: None for the end of what is given; what is composed then begins with that, too. of: which
    part each track of the piece is, () for those whose names and instruments are likest.
    """

    parts: tuple[int, ...]
    start: int = 0
    stop: int | None = None
    of: tuple[int, ...] = ()


def harmonise(
    composer: EventComposer,
    piece: Piece,
    asked: Asked,
    options: Options,
    num: int = 1,
    show: Show = lambda done, most: None,
    warn: Warn = lambda line: None,
) -> list[Setting]:
    """Return so many settings of a piece, whose tracks are parts of the roster.

    Parts that aren't asked for are kept as they are; of what the model can't tell of them it hears
    the nearest that it can. Raises UserError where it knows none of their notes, or no parts.
    """
    if not composer.roster:
        raise UserError("the model tells no parts: take one that was trained with --parts")
    heard, later = in_known_bars(piece, bars_known(composer.rules))
    heard, times = at_known_places(heard, composer.rules.places.tolist())
    if len(times):
        warn(f"{piece.name} is off the places that the model knows: it hears the nearest ones")
    parts = asked.of or tuple(parts_of(players_of(piece), composer.roster))
    ids = ids_of(composer, numbered(heard, parts), warn)
    longest = max(composer.rules.longest_note, longest_note(heard))
    rules = composer.rules._replace(longest_piece=0, longest_note=longest, rings=longest + 1)
    if asked.stop is None:
        moved = asked._replace(start=max(asked.start + later, first_of(heard)))
    else:
        moved = asked._replace(start=asked.start + later, stop=asked.stop + later)
    given = given_of(ids, rules, moved, bool(len(piece.phrases)), end_of(heard))
    options = replace(options, length=None, limit=None, bars=None)
    voices = voices_of(composer.roster)
    drawn = sample_particles(
        composer.model, [[]] * num, options, rules, show, composer.recall, voices, given
    )
    kept = [n for n, part in enumerate(parts) if part not in asked.parts]
    pieces = [setting_of(composer, piece, rules, options, one.ids, later, times) for one in drawn]
    near = NEAR if len(times) else 0
    if asked.stop is not None:
        around = asked._replace(start=asked.start - near, stop=asked.stop - near)
        pieces = [with_rest(made, piece, around, parts) for made in pieces]
    return [
        Setting(with_given(made, piece, kept, parts, composer.roster), one.nats)
        for made, one in zip(pieces, drawn, strict=True)
    ]


def first_of(piece: Piece) -> int:
    """Return the tick at which a piece's first note begins."""
    return min(int(track[0, TICK]) for track in piece.tracks)


def numbered(piece: Piece, parts: Sequence[int]) -> Piece:
    """Return a piece whose tracks have their parts' numbers as names: names may be alike."""
    return replace(piece, parts=tuple(Part(str(part)) for part in parts))


def tokenizer_of(composer: EventComposer, piece: Piece) -> EventTokenizer:
    """Return what makes words of `numbered` pieces, and such pieces of words, in one's key."""
    roster = [Player(str(n), drums=player.drums) for n, player in enumerate(composer.roster)]
    return InKeyOf(piece, composer.tokenizer.common_key, roster)


def numbers_of(piece: Piece) -> list[int]:
    """Return the parts that the tracks of a `numbered` piece are."""
    return [int(part.name) for part in piece.parts]


def ids_of(composer: EventComposer, piece: Piece, warn: Warn) -> Ids:
    """Return the words of a `numbered` piece, but for its end, or the nearest that the model knows.

    Raises UserError where it knows none of its notes.
    """
    if not tells_phrases(composer.vocabulary):
        piece = replace(piece, phrases=no_phrases())
    words, nearest = tokenizer_of(composer, piece).words(piece)[:-1], composer.nearest()
    found = [nearest(word) for word in words]
    ids = [composer.vocabulary.id(word) for word in found if word is not None]
    if not (composer.rules.kinds[ids] <= NOTE_ON).any():
        raise no_known_notes(Path(piece.name), "tune")
    changed = sum(new != word for new, word in zip(found, words, strict=True))
    if changed:
        warn(
            f"{changed} of {len(words)} tokens of {piece.name} are new to the model: it hears its "
            "nearest ones in their place, or none"
        )
    return ids


def longest_note(piece: Piece) -> int:
    """Return how long the longest note of a piece is, in ticks."""
    notes = np.concatenate([notes_of(track) for track in piece.tracks])
    return int((notes[:, 1] - notes[:, 0]).max())


def bars_known(rules: Rules) -> list[int]:
    """Return the lengths of bars that a model knows, in ticks."""
    known = rules.numbers[(rules.kinds == BAR_LINE) & (rules.deltas < NO_WORD)]
    return [int(length) for length in known if length]


def setting_of(
    composer: EventComposer, piece: Piece, rules: Rules, options: Options, ids: Ids, later: int,
    times: Array,
) -> Piece:  # fmt: skip
    """Return a `numbered` piece of what was drawn, in the meter and tempo of the one given.

    later, times: how it was heard; see tunes.
    """
    made = decode(
        ids, composer.vocabulary, tokenizer_of(composer, piece), rules, piece.name, options
    )
    tracks = [as_played(track, times) for track in made.tracks]
    tracks = [track - np.array([later, 0, 0], np.int32) for track in tracks]
    phrases = in_time_of(made.phrases, times).astype(np.int32) - np.int32(later)
    return replace(
        made, tracks=tracks, phrases=phrases, meter=piece.meter,
        tempo=piece.tempo, beats=piece.beats, sharps=piece.sharps,
    )  # fmt: skip


def with_rest(made: Piece, piece: Piece, asked: Asked, parts: Sequence[int]) -> Piece:
    """Return a `numbered` setting whose parts are as they were but for the time asked for.

    What is composed is as loud as the piece, by its median.
    """
    loud = piece.velocities
    usual = int(np.median(np.concatenate(loud))) if loud else 0
    tracks, velocities = [], []
    for part, track in zip(numbers_of(made), made.tracks, strict=True):
        notes, values = notes_of(track), np.full(len(track) // 2, usual, np.int32)
        if part in parts:
            n = parts.index(part)
            known = loud[n] if loud else np.zeros(len(piece.tracks[n]) // 2, np.int32)
            kept, which = around(notes_of(piece.tracks[n]), notes, asked)
            drawn = (asked.start <= notes[:, 0]) & (notes[:, 0] < (asked.stop or LAST_TICK))
            notes = np.concatenate([kept, notes[drawn]])
            values = np.concatenate([known[which], values[drawn]])
            track = sorted_messages(*without_overlaps(notes))
        tracks.append(track)
        velocities.append(velocities_of(track, notes, values))
    return replace(made, tracks=tracks, velocities=tuple(velocities) if loud else ())


def around(own: Notes, made: Notes, asked: Asked) -> tuple[Notes, Array]:
    """Return notes outside of what was asked for (n, 3), and which they are (n,).

    One that is held over where that begins ends where it was made to.
    """
    begin = asked.start
    which = np.flatnonzero((own[:, 0] < begin) | (own[:, 0] >= (asked.stop or LAST_TICK)))
    kept = own[which]
    for n in np.flatnonzero((kept[:, 0] < begin) & (kept[:, 1] > begin)).tolist():
        over = (made[:, 0] < begin) & (made[:, 1] > begin) & (made[:, 2] == kept[n, 2])
        kept[n, 1] = made[over, 1].max(initial=begin)
    return kept, which


def with_given(
    made: Piece, piece: Piece, kept: Sequence[int], parts: Sequence[int], roster: Sequence[Player]
) -> Piece:
    """Return a setting with tracks of the piece that was set, as they were, in place of its own.

    made: `numbered`; parts: of all tracks of the piece. What is composed is as loud as those are,
    by their median.
    """
    rows: list[tuple[int, Messages, Velocities | None]] = [
        (part, made.tracks[n], made.velocities[n] if made.velocities else None)
        for n, part in enumerate(numbers_of(made))
        if part not in {parts[k] for k in kept}
    ]
    loud = piece.velocities
    rows += [(parts[n], piece.tracks[n], loud[n] if loud else None) for n in kept]
    rows.sort(key=lambda row: row[0])
    usual = int(np.median(np.concatenate(loud))) if loud else 0
    velocities = tuple(
        np.full(len(track) // 2, usual, np.int32) if values is None else values
        for _, track, values in rows
    )
    drums = tuple(roster[part].drums for part, *_ in rows)
    return replace(
        made, tracks=[track for _, track, _ in rows], drums=drums if any(drums) else (),
        parts=tuple(roster[part].part for part, *_ in rows), velocities=velocities if loud else (),
    )  # fmt: skip


def given_of(ids: Ids, rules: Rules, asked: Asked, phrases: bool, end: int) -> Given:
    """Return what is given by a piece's words but for what is asked for.

    phrases: it tells of them, so that cadences are given; end: the tick at which it does. Parts of
    which the model knows no note stay silent.
    """
    told_apart = rules.notes // PITCHES
    asked = asked._replace(parts=tuple(part for part in asked.parts if part < told_apart))
    words: list[tuple[int, int]] = []
    bars: list[tuple[int, int]] = []
    closing: list[int] = []
    key, now, begin, length = NONE, 0, 0, 0
    for id in ids:
        kind, number = int(rules.kinds[id]), int(rules.numbers[id])
        if kind == KEY:
            key = id
        elif kind == BAR_LINE:
            now = begin = max(begin + length, now)
            length = number or length
            bars.append((now, id))
        elif kind == PLACE:
            now = begin + number
        elif kind == CADENCE:
            closing.append(now)
        elif kind <= NOTE_ON:
            words.append((now, id))
    end = max(end, *(tick for tick, _ in words))
    stop = end if asked.stop is None else min(asked.stop, end)
    kept = outside(words, rules, asked, stop, end)
    ticks = sorted({tick for tick, _ in kept})
    known = {*ticks} if rules.exact >= 0 else set()
    # Where a phrase closes is the last of its places: nothing is composed from there on.
    until = sorted({*ticks, asked.start, end})
    closes = [(c, next(t for t in until if t > c)) for c in closing if c in known and c < end]
    if not phrases and rules.exact >= 0:
        last = max((tick for tick in ticks if tick < end), default=0)
        closes = [(max(last, asked.start), end)]
    told = phrases and any(asked.start < tick < stop for tick in ticks)
    free = np.zeros(told_apart, np.int64)
    free[[*asked.parts]] = 1
    return Given(
        np.array([tick for tick, _ in kept], np.int64), np.array([id for _, id in kept], np.int32),
        np.array([tick for tick, _ in bars], np.int64), np.array([id for _, id in bars], np.int32),
        key, np.array(closes, np.int64).reshape(-1, 2), free, asked.start, stop,
        stop if told else asked.start, end,
    )  # fmt: skip


def outside(
    words: Sequence[tuple[int, int]], rules: Rules, asked: Asked, stop: int, end: int
) -> list[tuple[int, int]]:
    """Return the given words with their ticks, in order: of parts that aren't asked for, all.

    Where what is composed of a part stops, it is silent if it is given as silent; all parts are
    where the piece ends.
    """
    by_part: dict[int, list[tuple[int, int]]] = {part: [] for part in asked.parts}
    for tick, id in words:
        by_part.setdefault(int(rules.numbers[id]) // PITCHES, []).append((tick, id))
    kept = [(end, part, -1 - part) for part in by_part]
    for part, own in by_part.items():
        if part not in asked.parts:
            kept += [(tick, part, id) for tick, id in own]
            continue
        after = [(tick, part, id) for tick, id in own if tick >= stop]
        kept += [(tick, part, id) for tick, id in own if tick < asked.start] + after
        silent = next((tick for tick, _, id in after if rules.kinds[id] == NOTE_OFF), end)
        begins = next((tick for tick, _, id in after if rules.kinds[id] != NOTE_OFF), end)
        if not sounds_at(own, rules, stop) and stop < begins:
            silent = stop
        if silent < begins:
            kept.append((silent, part, -1 - part))
    return [(tick, id) for tick, _, id in sorted(kept, key=lambda row: row[:2])]


def sounds_at(words: Sequence[tuple[int, int]], rules: Rules, tick: int) -> bool:
    """Return whether a part of so many words sounds before a tick."""
    sounding: set[int] = set()
    for at, id in words:
        kind, note = int(rules.kinds[id]), int(rules.numbers[id])
        if at < tick:
            sounding = sounding - {note} if kind == NOTE_OFF else sounding | {note}
            sounding = {note} if kind == MOVE else sounding
    return bool(sounding)
