"""Composing the parts that a piece lacks, or some of its bars anew, around what is given of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstm_music.errors import UserError, Warn
from lstm_music.midi.piece import Piece
from lstm_music.sampling.composer import Ids, Show
from lstm_music.sampling.craft import voices_of
from lstm_music.sampling.decoding import decode
from lstm_music.sampling.given import NONE, Given
from lstm_music.sampling.options import Options
from lstm_music.sampling.particles import Drawn, sample_particles
from lstm_music.sampling.rules import BAR_LINE, CADENCE, KEY, MOVE, NOTE_ON, PLACE, Rules
from lstm_music.sampling.token_composers import EventComposer
from lstm_music.tokenizers.messages import PITCHES


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

    What the model can't tell of it is changed to what it can, and warned of. Raises UserError where
    the model knows none of its notes, or tells no parts.
    """
    if not composer.roster:
        raise UserError(
            "the model tells no parts: harmonise with one that was trained with --parts"
        )
    ids = composer.read(piece, piece, Path(piece.name), warn)
    rules = composer.rules._replace(longest_piece=0)
    given = given_of(ids, rules, asked, bool(len(piece.phrases)))
    options = replace(options, length=None, limit=None, bars=None)
    model, voices = composer.model, voices_of(composer.roster)
    drawn = sample_particles(
        model, [[]] * num, options, rules, show, composer.recall, voices, given
    )
    return [setting_of(composer, piece, rules, options, one) for one in drawn]


def setting_of(
    composer: EventComposer, piece: Piece, rules: Rules, options: Options, drawn: Drawn
) -> Setting:
    """Return a piece of what was drawn, in the tempo of the one that was given."""
    made = decode(drawn.ids, composer.vocabulary, composer.tokenizer, rules, piece.name, options)
    return Setting(
        replace(made, tempo=piece.tempo, beats=piece.beats, sharps=piece.sharps), drawn.nats
    )


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
