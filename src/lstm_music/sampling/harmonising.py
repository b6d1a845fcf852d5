"""Composing the parts that a piece lacks, or some of its bars anew, around what is given of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_music.errors import UserError, Warn
from lstm_music.midi.piece import Messages, Piece, Velocities
from lstm_music.sampling.composer import Ids, Show
from lstm_music.sampling.craft import voices_of
from lstm_music.sampling.decoding import decode
from lstm_music.sampling.given import NONE, Given
from lstm_music.sampling.options import Options
from lstm_music.sampling.particles import sample_particles
from lstm_music.sampling.rules import BAR_LINE, CADENCE, KEY, MOVE, NOTE_ON, PLACE, Rules
from lstm_music.sampling.rules import NONE as NO_WORD
from lstm_music.sampling.token_composers import EventComposer
from lstm_music.sampling.tunes import in_known_bars
from lstm_music.tokenizers.messages import PITCHES
from lstm_music.tokenizers.parts import Player, parts_of, players_of


class Setting(NamedTuple):
    """A piece as it was set, and the estimated log-likelihood of what was given."""

    piece: Piece
    nats: float


class Asked(NamedTuple):
    """What is to be composed: parts of the roster, by number, at ticks from start to before stop.

    stop: None for the end of what is given.
    """

    parts: tuple[int, ...]
    start: int = 0
    stop: int | None = None


def harmonise(
    composer: EventComposer,
    piece: Piece,
    asked: Asked,
    options: Options,
    num: int = 1,
    show: Show = lambda done, most: None,
    warn: Warn = lambda line: None,
) -> list[Setting]:
    """Return so many settings of a piece, each of its tracks named as a part of the roster.

    Parts that aren't asked for are kept as they are; of what the model can't tell of them it hears
    the nearest that it can. Raises UserError where it knows none of their notes, or no parts.
    """
    if not composer.roster:
        raise UserError("the model tells no parts: take one that was trained with --parts")
    heard, later = in_known_bars(piece, bars_known(composer.rules))
    ids = composer.read(heard, heard, Path(piece.name), warn)
    rules = composer.rules._replace(longest_piece=0)
    stop = None if asked.stop is None else asked.stop + later
    moved = asked._replace(start=asked.start + later if asked.start else 0, stop=stop)
    given = given_of(ids, rules, moved, bool(len(piece.phrases)))
    options = replace(options, length=None, limit=None, bars=None)
    voices = voices_of(composer.roster)
    drawn = sample_particles(
        composer.model, [[]] * num, options, rules, show, composer.recall, voices, given
    )
    kept = [
        n
        for n, part in enumerate(parts_of(players_of(piece), composer.roster))
        if part not in asked.parts
    ]
    pieces = [setting_of(composer, piece, rules, options, one.ids, later) for one in drawn]
    return [
        Setting(with_given(made, piece, kept, composer.roster), one.nats)
        for made, one in zip(pieces, drawn, strict=True)
    ]


def bars_known(rules: Rules) -> list[int]:
    """Return the lengths of bars that a model knows, in ticks."""
    known = rules.numbers[(rules.kinds == BAR_LINE) & (rules.deltas < NO_WORD)]
    return [int(length) for length in known if length]


def setting_of(
    composer: EventComposer, piece: Piece, rules: Rules, options: Options, ids: Ids, later: int
) -> Piece:
    """Return a piece of what was drawn, in the meter and tempo of the one that was given."""
    made = decode(ids, composer.vocabulary, composer.tokenizer, rules, piece.name, options)
    tracks = [track - np.array([later, 0, 0], np.int32) for track in made.tracks]
    return replace(
        made, tracks=tracks, phrases=made.phrases - np.int32(later), meter=piece.meter,
        tempo=piece.tempo, beats=piece.beats, sharps=piece.sharps,
    )  # fmt: skip


def with_given(made: Piece, piece: Piece, kept: Sequence[int], roster: Sequence[Player]) -> Piece:
    """Return a setting with tracks of the piece that was set, as they were, in place of its own.

    What is composed is as loud as those are, by their median.
    """
    own = parts_of(players_of(made), roster)
    of_kept = parts_of(players_of(piece), roster)
    rows: list[tuple[int, Messages, Velocities | None]] = [
        (part, made.tracks[n], None)
        for n, part in enumerate(own)
        if part not in {of_kept[k] for k in kept}
    ]
    loud = piece.velocities
    rows += [(of_kept[n], piece.tracks[n], loud[n] if loud else None) for n in kept]
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


def given_of(ids: Ids, rules: Rules, asked: Asked, phrases: bool) -> Given:
    """Return what is given by a piece's words but for what is asked for.

    phrases: it tells of them, so that cadences are given.
    """
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
    end = max(tick for tick, _ in words)
    stop = end if asked.stop is None else min(asked.stop, end)
    kept = outside(words, rules, asked, stop)
    ticks = sorted({tick for tick, _ in kept})
    if not phrases:
        closing = [tick for tick in ticks if tick < end][-1:]
    known = {*ticks} if rules.exact >= 0 else set()
    closes = [(c, next((t for t in ticks if t > c), end)) for c in closing if c in known]
    told = phrases and any(asked.start < tick < stop for tick in ticks)
    free = np.zeros(rules.notes // PITCHES, np.int64)
    free[[*asked.parts]] = 1
    return Given(
        np.array([tick for tick, _ in kept], np.int64), np.array([id for _, id in kept], np.int32),
        np.array([tick for tick, _ in bars], np.int64), np.array([id for _, id in bars], np.int32),
        key, np.array(closes, np.int64).reshape(-1, 2), free, asked.start, stop,
        stop if told else asked.start, end,
    )  # fmt: skip


def outside(
    words: Sequence[tuple[int, int]], rules: Rules, asked: Asked, stop: int
) -> list[tuple[int, int]]:
    """Return the given words with their ticks, in order: those of parts that aren't asked for, all.

    Where what is composed ends, so does what sounds in a part that is given as silent there.
    """
    kept, silent = [], dict[int, int]()
    for tick, id in words:
        part = int(rules.numbers[id]) // PITCHES
        composed = part in asked.parts
        if not composed or not asked.start <= tick < stop:
            ends = composed and tick >= stop and rules.kinds[id] not in (MOVE, NOTE_ON)
            kept.append((tick, part, -1 - part if ends and part not in silent else id))
        if composed and tick >= stop:
            silent.setdefault(part, tick)
    kept += [(stop, part, -1 - part) for part in asked.parts if part not in silent]
    in_order = sorted(kept, key=lambda row: row[:2])
    return [(tick, id) for tick, _, id in in_order]
