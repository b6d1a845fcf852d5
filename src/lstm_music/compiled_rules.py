"""The rules of a grammar for compiled code: what may follow, and what a word changes.

As tokenizers/grammar.py, sampler.FreeGrammar and sampler.Draft have them, in arrays of numbers; the
tests compare the pieces.
"""

from collections.abc import Sequence

import numpy as np

from lstm_music.compiled_event_rules import advance_event, event_deltas
from lstm_music.compiled_piece import (
    ASKED_BARS,
    ASKED_TICKS,
    ASKED_TOKENS,
    BAR_TICKS,
    BARS_BEFORE,
    BARS_DONE,
    BEFORE,
    BEGIN,
    ENDED,
    LEAST,
    LINE,
    MOST,
    NOTES,
    NOW,
    PRIMED_TRACKS,
    SILENT,
    TOKENS,
    TRACKS,
    Rules,
    begin_another,
    is_empty,
    tidy,
)
from lstm_music.midi import LAST_TICK, TICKS_PER_QUARTER, WHOLE_NOTE
from lstm_music.ops.cpu.jit import njit
from lstm_music.ops.numpy_ops import Array
from lstm_music.sampler import Options
from lstm_music.tokenizers.grammar import (
    FAR,
    NEVER,
    NONE,
    PITCHES,
    ChordGrammar,
    Grammar,
    TokenGrammar,
)
from lstm_music.word_classes import CHORDS, END, EVENTS, FREE, ON, TRACK, words_of


def rules_of(grammar: Grammar, options: Options, start: int) -> Rules:
    """Return the rules of a grammar; start: the id of the start symbol, which also ends a piece."""
    merged, max_tracks, longest_note, most_notes, frame_ticks = False, 0, 0, 0, 0
    if isinstance(grammar, TokenGrammar):
        merged, max_tracks = grammar.layout == "merge", grammar.max_tracks
        longest_note, most_notes = grammar.longest_note, grammar.most_notes
    elif isinstance(grammar, ChordGrammar):
        frame_ticks = grammar.frame_ticks
    words = words_of(grammar)
    ids = np.argsort(words.classes, kind="stable").astype(np.int32)
    starts = np.searchsorted(words.classes[ids], np.arange(len(words.shortest) + 1))
    return Rules(
        words.kind,
        merged,
        start,
        max_tracks,
        longest_note,
        most_notes,
        options.line_and_bar[1],
        grammar.shortest,
        frame_ticks,
        words.classes,
        words.steps,
        words.shortest,
        ids,
        words.deltas[ids],
        starts.astype(np.int32),
        words.places,
    )


def primers_of(primers: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Return the primers side by side (B, longest), and the length of each (B,)."""
    lengths = np.array([len(primer) for primer in primers], np.int32)
    held = np.zeros((len(primers), max(1, lengths.max())), np.int32)
    for row, primer in zip(held, primers, strict=True):
        row[: len(primer)] = primer
    return held, lengths


@njit(cache=True)
def _next_bar(piece):  # type: ignore[no-untyped-def]
    """As Grammar.next_bar, from where the piece stands."""
    return piece[LINE] - (piece[LINE] - piece[NOW]) // piece[BAR_TICKS] * piece[BAR_TICKS]


@njit(cache=True)
def _limit(rules, piece):  # type: ignore[no-untyped-def]
    """Return the tick of the piece at which it is to end, as Draft.room; -1 where there is none."""
    if piece[ASKED_BARS] < 0:
        return max(piece[ASKED_TICKS] - piece[BEFORE], 0) if piece[ASKED_TICKS] >= 0 else -1
    length = piece[BAR_TICKS]
    if rules.kind == EVENTS and piece[BARS_DONE] == 0 and piece[LINE] == piece[BEGIN]:
        length = max(length, WHOLE_NOTE)
    bars = piece[ASKED_BARS] - piece[BARS_BEFORE] - piece[BARS_DONE]
    return max(min(piece[LINE] + bars * length, FAR), 0)


@njit(cache=True)
def _is_early(piece):  # type: ignore[no-untyped-def]
    return piece[TRACKS] == piece[PRIMED_TRACKS] and piece[NOW] < piece[LEAST]


@njit(cache=True)
def _may_end(rules, piece):  # type: ignore[no-untyped-def]
    limit = _limit(rules, piece)
    if rules.kind == CHORDS and limit >= 0:
        return not is_empty(piece) and _next_bar(piece) < limit
    if rules.kind != CHORDS and piece[ASKED_TOKENS] >= 0:
        return piece[ASKED_TOKENS] - piece[TOKENS] > 1
    return limit >= 0 or not _is_early(piece)


@njit(cache=True)
def _leaves_room(rules, piece):  # type: ignore[no-untyped-def]
    limit = _limit(rules, piece)
    left = limit - _next_bar(piece)
    if rules.kind == CHORDS:
        return limit >= 0 and left > 0
    if piece[ASKED_TOKENS] >= 0:
        return piece[ASKED_TOKENS] - piece[TOKENS] > 1
    return rules.merged and limit >= 0 and left >= piece[BAR_TICKS]


@njit(cache=True)
def _is_full(rules, piece):  # type: ignore[no-untyped-def]
    limit = _limit(rules, piece)
    if rules.kind == CHORDS:
        return limit >= 0 and piece[NOW] >= limit
    return piece[ASKED_TOKENS] >= 0 and piece[TOKENS] == piece[ASKED_TOKENS]


@njit(cache=True)
def _free_deltas(rules, piece, limit, may_end, longest):  # type: ignore[no-untyped-def]
    """As FreeGrammar.allowed."""
    empty, limited = is_empty(piece), limit >= 0
    left = limit - piece[NOW] if limited else FAR
    longest[:ON] = NEVER if empty else left
    longest[ON:END] = left - 1
    far = limited and left > TICKS_PER_QUARTER and not rules.merged
    between_tracks = piece[TRACKS] > 0 and piece[NOW] == 0
    early = not rules.merged and _is_early(piece)
    longest[END] = NEVER if empty or not may_end or early or (far and not between_tracks) else 0
    longest[TRACK] = NEVER if empty or rules.merged or far or early else 0


@njit(cache=True)
def _strict_deltas(rules, piece, sounding, limit, may_end, longest):  # type: ignore[no-untyped-def]
    """As MessageGrammar.allowed, but for its way out."""
    longest[:] = NEVER
    between_tracks = not rules.merged and piece[NOTES] == 0
    left = limit - piece[NOW] if limit >= 0 else FAR
    full = piece[TRACKS] >= rules.max_tracks and not is_empty(piece)
    if not (between_tracks and may_end and full):
        for pitch in range(PITCHES):
            began = sounding[pitch]
            if rules.shortest[pitch] < NONE and began != piece[NOW]:
                longest[ON + pitch] = left - 1
            if began != SILENT:
                longest[pitch] = min(left, began + rules.longest_note - piece[NOW])
    if is_empty(piece):
        return
    if (piece[NOTES] > 0) == rules.merged:
        longest[END] = 0 if may_end else NEVER
    elif not rules.merged and not (limit >= 0 and left > TICKS_PER_QUARTER):
        longest[TRACK] = NEVER if _is_early(piece) else 0


@njit(cache=True)
def _any_within(rules, longest, first, stop):  # type: ignore[no-untyped-def]
    return np.any(rules.shortest[first:stop] <= longest[first:stop])


@njit(cache=True)
def _deltas(rules, piece, sounding, limit, may_end, longest):  # type: ignore[no-untyped-def]
    """As TokenGrammar.allowed: where the rules leave nothing, the end comes."""
    if rules.kind == FREE:
        _free_deltas(rules, piece, limit, may_end, longest)
        return
    if rules.kind == EVENTS:
        event_deltas(rules, piece, sounding, limit, may_end, longest)
    else:
        _strict_deltas(rules, piece, sounding, limit, may_end, longest)
    if not _any_within(rules, longest, 0, len(longest)):
        longest[:] = NEVER
        in_track = not rules.merged and piece[NOTES] > 0 and rules.shortest[TRACK] < NONE
        longest[TRACK if in_track else END] = 0


@njit(cache=True)
def _any_begins(rules, longest):  # type: ignore[no-untyped-def]
    """Return whether a word may come with which a piece can begin: as Grammar.begins."""
    of_time = rules.kind == EVENTS and _any_within(rules, longest, END + 1, len(longest))
    return of_time or _any_within(rules, longest, ON, END)


@njit(cache=True)
def longest_deltas(rules, piece, sounding, longest):  # type: ignore[no-untyped-def]
    """Write the longest delta of each class (C,) that may come next, as Draft asks for."""
    may_end = _may_end(rules, piece)
    if rules.kind == CHORDS:
        longest[:] = NEVER
        longest[ON] = 0
        longest[END] = 0 if may_end else NEVER
        return
    _deltas(rules, piece, sounding, _limit(rules, piece), may_end, longest)
    if is_empty(piece) and not _any_begins(rules, longest):  # better too long than empty
        _deltas(rules, piece, sounding, -1, may_end, longest)


@njit(cache=True)
def _advance(rules, piece, sounding, id):  # type: ignore[no-untyped-def]
    """As Grammar.advance, of a word that doesn't end the piece."""
    if rules.kind == CHORDS:
        piece[NOW] += rules.frame_ticks
        piece[NOTES] += 1
        return
    if rules.kind == EVENTS:
        advance_event(rules, piece, sounding, id)
        return
    kind, pitch = divmod(rules.classes[id], PITCHES)
    if kind > 1:
        piece[TRACKS] += 1
        piece[NOW] = piece[NOTES] = 0
        sounding[:] = SILENT
        return
    now = min(piece[NOW] + rules.steps[id], LAST_TICK)
    piece[NOW] = now
    sounding[pitch] = now if kind == 1 else SILENT
    piece[NOTES] += kind
    tidy(sounding, now, rules.longest_note, rules.most_notes)


@njit(cache=True)
def extend(rules, piece, sounding, id):  # type: ignore[no-untyped-def]
    """Take a word, as Draft.extend; return whether it belongs to the piece."""
    taken = True
    if id != rules.start:
        _advance(rules, piece, sounding, id)
    elif _leaves_room(rules, piece):
        piece[BEFORE] += _next_bar(piece)
        piece[BARS_BEFORE] += (
            piece[BARS_DONE] + (_next_bar(piece) - piece[LINE]) // piece[BAR_TICKS]
        )
        begin_another(rules, piece, sounding)
    else:
        taken = False
    piece[TOKENS] += taken
    if not taken or _is_full(rules, piece) or piece[TOKENS] == piece[MOST]:
        piece[ENDED] = 1
    return taken
