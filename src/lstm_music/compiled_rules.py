"""The rules of a grammar for compiled code: what may follow, and what a word changes.

As tokenizers/grammar.py, sampler.FreeGrammar and sampler.Draft have them, in arrays of numbers; the
tests compare the pieces.
"""

from collections.abc import Sequence

import numpy as np

from lstm_music.compiled_event_rules import advance_event, event_deltas
from lstm_music.compiled_piece import (
    BEFORE,
    ENDED,
    NOTES,
    NOW,
    SILENT,
    TOKENS,
    TRACKS,
    Rules,
    begin,
    tidy,
)
from lstm_music.midi import LAST_TICK, TICKS_PER_QUARTER
from lstm_music.ops.jit import njit
from lstm_music.ops.numpy_ops import Array
from lstm_music.sampler import Options
from lstm_music.tokenizers import grammar as grammars
from lstm_music.tokenizers.grammar import (
    BAR,
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
        -1 if options.length is None else options.length,
        -1 if options.limit is None else options.limit,
        grammar.most(options.length, options.limit),
        grammars.SHORTEST,
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
def _to_next_bar(tick):  # type: ignore[no-untyped-def]
    return -(-tick // BAR) * BAR


@njit(cache=True)
def _may_end(rules, piece):  # type: ignore[no-untyped-def]
    if rules.kind == CHORDS:
        if rules.limit < 0:
            return piece[NOW] >= rules.shortest_piece
        return piece[NOTES] > 0 and _to_next_bar(piece[NOW]) < rules.limit - piece[BEFORE]
    if rules.length >= 0:
        return rules.length - piece[TOKENS] > 1
    return not rules.merged or rules.limit >= 0 or piece[NOW] >= rules.shortest_piece


@njit(cache=True)
def _leaves_room(rules, piece):  # type: ignore[no-untyped-def]
    left = rules.limit - piece[BEFORE] - _to_next_bar(piece[NOW])
    if rules.kind == CHORDS:
        return rules.limit >= 0 and left > 0
    if rules.length >= 0:
        return rules.length - piece[TOKENS] > 1
    return rules.merged and rules.limit >= 0 and left >= BAR


@njit(cache=True)
def _is_full(rules, piece):  # type: ignore[no-untyped-def]
    if rules.kind == CHORDS:
        return rules.limit >= 0 and piece[NOW] >= rules.limit - piece[BEFORE]
    return rules.length >= 0 and piece[TOKENS] == rules.length


@njit(cache=True)
def _free_deltas(rules, piece, limited, may_end, longest):  # type: ignore[no-untyped-def]
    """As FreeGrammar.allowed."""
    empty = piece[NOTES] == 0 and piece[TRACKS] == 0
    left = rules.limit - piece[BEFORE] - piece[NOW] if limited else FAR
    longest[:ON] = NEVER if empty else left
    longest[ON:END] = left - 1
    held = limited and not rules.merged and left > TICKS_PER_QUARTER
    between_tracks = piece[TRACKS] > 0 and piece[NOW] == 0
    longest[END] = NEVER if empty or not may_end or (held and not between_tracks) else 0
    longest[TRACK] = NEVER if empty or rules.merged or held else 0


@njit(cache=True)
def _strict_deltas(rules, piece, sounding, limited, may_end, longest):  # type: ignore[no-untyped-def]
    """As MessageGrammar.allowed, but for its way out."""
    longest[:] = NEVER
    between_tracks = not rules.merged and piece[NOTES] == 0
    left = rules.limit - piece[BEFORE] - piece[NOW] if limited else FAR
    if not (between_tracks and may_end and piece[TRACKS] >= rules.max_tracks):
        for pitch in range(PITCHES):
            began = sounding[pitch]
            if rules.shortest[pitch] < NONE and began != piece[NOW]:
                longest[ON + pitch] = left - 1
            if began != SILENT:
                longest[pitch] = min(left, began + rules.longest_note - piece[NOW])
    if rules.merged:
        if piece[NOTES] > 0 and may_end:
            longest[END] = 0
    elif piece[NOTES] == 0 and piece[TRACKS] > 0 and may_end:
        longest[END] = 0
    elif piece[NOTES] > 0 and not (limited and left > TICKS_PER_QUARTER):
        longest[TRACK] = 0


@njit(cache=True)
def _any_within(rules, longest, first, stop):  # type: ignore[no-untyped-def]
    return np.any(rules.shortest[first:stop] <= longest[first:stop])


@njit(cache=True)
def _deltas(rules, piece, sounding, limited, may_end, longest):  # type: ignore[no-untyped-def]
    """As TokenGrammar.allowed: where the rules leave nothing, the end comes."""
    if rules.kind == FREE:
        _free_deltas(rules, piece, limited, may_end, longest)
        return
    if rules.kind == EVENTS:
        event_deltas(rules, piece, sounding, limited, may_end, longest)
    else:
        _strict_deltas(rules, piece, sounding, limited, may_end, longest)
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
    _deltas(rules, piece, sounding, rules.limit >= 0, may_end, longest)
    empty = piece[NOTES] == 0 and piece[TRACKS] == 0
    if empty and not _any_begins(rules, longest):  # better too long than empty
        _deltas(rules, piece, sounding, False, may_end, longest)


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
        piece[BEFORE] += _to_next_bar(piece[NOW])
        begin(piece, sounding)
    else:
        taken = False
    piece[TOKENS] += taken
    if not taken or _is_full(rules, piece) or piece[TOKENS] == rules.most:
        piece[ENDED] = 1
    return taken
