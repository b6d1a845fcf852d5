"""The rules of events for compiled code, as tokenizers/event_grammar.py has them."""

from lstm_music.compiled_piece import (
    BAR_TICKS,
    BARS_DONE,
    BEGIN,
    HEARD,
    KIND,
    LENGTH,
    LINE,
    NOTES,
    NOW,
    NUMBER,
    SILENT,
    is_empty,
    tidy,
)
from lstm_music.midi import LAST_TICK, NOTE_OFF, NOTE_ON, WHOLE_NOTE
from lstm_music.ops.cpu.jit import njit
from lstm_music.tokenizers.events import AT, BAR_LINE, SAME
from lstm_music.tokenizers.grammar import FAR, NEVER, NONE, PITCHES
from lstm_music.word_classes import BARS, END, ON, PLACES, SAID, UNSAID


@njit(cache=True)
def event_deltas(rules, piece, sounding, limit, may_end, longest):  # type: ignore[no-untyped-def]
    """As EventGrammar.allowed, but for its way out; limit: -1 for none."""
    longest[:] = NEVER
    limit = limit if limit >= 0 else FAR
    kind = piece[KIND]
    after_note = kind in (NOTE_OFF, NOTE_ON)
    if after_note or kind == AT:
        _notes(rules, piece, sounding, limit, longest)
    if kind != AT:
        _times(rules, piece, sounding, limit, longest)
    if after_note and not is_empty(piece) and may_end:
        longest[END] = 0


@njit(cache=True)
def _notes(rules, piece, sounding, limit, longest):  # type: ignore[no-untyped-def]
    """Allow the notes that may end or begin where the piece stands."""
    kind = piece[KIND]
    for pitch in range(PITCHES):
        above = pitch > piece[NUMBER]
        if rules.shortest[pitch] < NONE and piece[NOW] < limit and (kind != NOTE_ON or above):
            longest[ON + pitch] = 0
        if sounding[pitch] != SILENT and (kind == AT or (kind == NOTE_OFF and above)):
            longest[pitch] = 0


@njit(cache=True)
def _times(rules, piece, sounding, limit, longest):  # type: ignore[no-untyped-def]
    """Allow the places and bars that may follow: those at which something may be."""
    begin, length, is_bar = piece[BEGIN], piece[LENGTH], piece[KIND] == BAR_LINE
    latest = min(limit, LAST_TICK)
    latest -= not _any_ends(rules, sounding, latest)
    after = -1 if is_bar else piece[NOW] - begin
    before = min(length, latest - begin + 1)
    for n, place in enumerate(rules.places):
        if after < place < before:
            longest[PLACES + n] = 0
    first_place = rules.places[0] if len(rules.places) > 0 else FAR
    bar = max(begin + length, piece[NOW])
    silent = piece[NOTES] == 0 or bar > piece[HEARD] + rules.longest_note
    if bar + first_place <= latest and not (is_bar and silent):
        longest[BARS] = UNSAID if length > first_place else SAID


@njit(cache=True)
def _any_ends(rules, sounding, tick):  # type: ignore[no-untyped-def]
    """Return whether a note that sounds may end at a tick."""
    for pitch in range(PITCHES):
        began = sounding[pitch]
        if began != SILENT and rules.shortest[pitch] < NONE and began + rules.longest_note >= tick:
            return True
    return False


@njit(cache=True)
def _open_bar(piece, length):  # type: ignore[no-untyped-def]
    """As EventGrammar._open_bar."""
    missing = piece[BEGIN] - piece[LINE]
    if piece[BARS_DONE] == 0 and missing == 0 and length > piece[LENGTH]:
        missing = piece[LENGTH]
    else:
        piece[BARS_DONE] += 1
    piece[BEGIN] = min(max(piece[BEGIN] + piece[LENGTH], piece[NOW]), LAST_TICK)
    piece[NOW] = piece[BEGIN]
    piece[LINE], piece[LENGTH], piece[BAR_TICKS] = piece[BEGIN] - missing, length, length


@njit(cache=True)
def advance_event(rules, piece, sounding, id):  # type: ignore[no-untyped-def]
    """As EventGrammar.advance, of a word that doesn't end the piece."""
    at, number = rules.classes[id], rules.steps[id]
    kind = AT if at >= PLACES else BAR_LINE if at == BARS else at // PITCHES
    piece[KIND], piece[NUMBER] = kind, number
    if kind == BAR_LINE:
        length = number if number != SAME else piece[LENGTH] if piece[LENGTH] > 0 else WHOLE_NOTE
        _open_bar(piece, length)
    elif kind == AT:
        piece[NOW] = min(max(piece[BEGIN] + number, piece[NOW]), LAST_TICK)
    else:
        sounding[number] = piece[NOW] if kind == NOTE_ON else SILENT
        piece[HEARD] = piece[NOW]
        piece[NOTES] += kind
    # At the longest age they may still end by their word.
    tidy(sounding, piece[NOW], rules.longest_note + 1, rules.most_notes)
