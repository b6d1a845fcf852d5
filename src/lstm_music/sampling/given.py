"""What is given of a piece of events in parts: words that must come, between which others may.

A word that isn't given fits where it leads to no place beyond the next given one, in a part that
may be composed there. sampling/compiled_particles.py compiles `fits`, `must` and what they call as
they are.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.sampling.rules import (
    AFTER_BAR,
    AFTER_PLACE,
    BAR_LINE,
    CADENCE,
    FAR,
    KEY,
    NOTE_OFF,
    NOTE_ON,
    NOTES,
    PIECE_END,
    PLACE,
    SILENT,
    Rules,
)
from lstm_music.sampling.rules import NONE as NO_WORD
from lstm_music.sampling.sampler import WHOLE_PIECE
from lstm_music.tokenizers.messages import PITCHES

NONE = -1
FORCED = -50.0  # the log of the weight of a word that the rules forbid


class Given(NamedTuple):
    """What is given, of a piece of so many ticks, end.

    ticks, words (m,): the words of notes, in order, and when they stand; in place of an id, -1 less
    a part: what sounds in it ends. bars, bar_words (n,): the bar lines. key: a word or NONE for
    any. closes (k, 2): from where to before which a phrase closes. free (parts,): which parts may
    be composed, one at least, at places from start to before stop; there cadences may be anywhere
    from closing on.
    """

    ticks: Array
    words: Array
    bars: Array
    bar_words: Array
    key: int
    closes: Array
    free: Array
    start: int
    stop: int
    closing: int
    end: int


@dataclass
class Reached:
    """How much of what is given a piece in the making has: words, bars and phrases of it.

    closed: 1 where the phrase's cadence was told.
    """

    words: int = 0
    bars: int = 0
    phrases: int = 0
    closed: int = 0


RECORD = np.dtype([(field.name, np.int64) for field in fields(Reached)])  # in compiled code


def most_words(given: Given) -> int:
    """Return how many words a piece may have: each bar as many as one of which nothing is given."""
    return WHOLE_PIECE * (1 + len(given.bars))


def first_sounding(rules: Rules, sounding: Any, part: int) -> int:
    """Return the lowest note that sounds in a part and that a word ends, NONE where none does."""
    for note in range(part * PITCHES, (part + 1) * PITCHES):
        if sounding[note] != SILENT and rules.shortest[NOTES + note] < NO_WORD:
            return note
    return NONE


def is_needed(given: Given, rules: Rules, sounding: Any, n: int) -> bool:
    """Return whether given word n says something: what doesn't sound needs no end."""
    id = given.words[n]
    if id >= 0:
        return bool(rules.kinds[id] != NOTE_OFF or sounding[rules.numbers[id]] != SILENT)
    return first_sounding(rules, sounding, -1 - id) >= 0


def next_needed(given: Given, rules: Rules, sounding: Any, n: int) -> int:
    """Return the first given word from n on that says something, their number if none does."""
    while n < len(given.words) and not is_needed(given, rules, sounding, n):
        n += 1
    return n


def part_of_given(given: Given, rules: Rules, n: int) -> int:
    """Return the part of given word n."""
    id = given.words[n]
    return int(rules.numbers[id] // PITCHES if id >= 0 else -1 - id)


def is_free(given: Given, part: int, tick: int) -> bool:
    """Return whether a part may be composed at a tick."""
    return bool(given.free[part]) and given.start <= tick < given.stop


def is_due(given: Given, piece: Any, n: int) -> bool:
    """Return whether given word n stands where the piece does."""
    return n < len(given.words) and bool(given.ticks[n] == piece.now)


def must_close(given: Given, rules: Rules, piece: Any, reached: Any) -> bool:
    """Return whether a phrase's cadence comes here or never: no place is left before its end."""
    if piece.phase != AFTER_PLACE or reached.closed or not closes_now(given, reached, piece.now):
        return False
    after = max(piece.now + 1, given.start)
    until = min(given.closes[reached.phrases, 1], piece.begin + piece.length, given.stop)
    left = 0
    for place in rules.places:
        left += after <= piece.begin + place < until
    return left == 0


def note_fits(given: Given, rules: Rules, piece: Any, reached: Any, id: int, n: int) -> bool:
    """Return whether a word of a note may come. n: the next given word that says something."""
    if must_close(given, rules, piece, reached):
        return False
    part = rules.numbers[id] // PITCHES
    if is_due(given, piece, n):
        own = part_of_given(given, rules, n)
        if part >= own:
            told = given.words[n]
            if part > own or (told >= 0 and told != id):
                return False
            return bool(told >= 0 or rules.kinds[id] == NOTE_OFF)
    return is_free(given, part, piece.now)


def closes_now(given: Given, reached: Any, tick: int) -> bool:
    """Return whether a tick is where the next phrase closes."""
    k = reached.phrases
    return k < len(given.closes) and bool(given.closes[k, 0] <= tick < given.closes[k, 1])


def place_fits(given: Given, piece: Any, reached: Any, to: int, until: int) -> bool:
    """Return whether the piece may go on to a place; until: where the next given word stands."""
    if to > until:
        return False
    if closes_now(given, reached, piece.now):
        beyond = to >= given.closes[reached.phrases, 1]
        if beyond != (reached.closed == 1):
            return False
    return to == until or given.start <= to < given.stop


def cadence_fits(given: Given, piece: Any, reached: Any) -> bool:
    """Return whether a phrase may close here."""
    if closes_now(given, reached, piece.now):
        return bool(reached.closed == 0)
    return bool(max(given.start, given.closing) <= piece.now < given.stop)


def bar_fits(given: Given, piece: Any, reached: Any, id: int, until: int) -> bool:
    """Return whether a bar line may come; until: where the next given word stands."""
    k = reached.bars
    if k == len(given.bars) or given.bars[k] > until or given.bar_words[k] != id:
        return False
    ends = closes_now(given, reached, piece.now) and reached.closed == 0
    return not (ends and given.bars[k] >= given.closes[reached.phrases, 1])


def fits(given: Given, rules: Rules, piece: Any, reached: Any, id: int, n: int) -> bool:
    """Return whether a word that the rules let come fits what is given.

    n: the next given word that says something.
    """
    kind, until = rules.kinds[id], FAR
    if n < len(given.words):
        until = given.ticks[n]
    if kind <= NOTE_ON:
        return note_fits(given, rules, piece, reached, id, n)
    if kind == KEY:
        return bool(given.key in (NONE, id))
    if kind == CADENCE:
        return cadence_fits(given, piece, reached)
    if kind == PLACE:
        return place_fits(given, piece, reached, piece.begin + rules.numbers[id], until)
    if kind == BAR_LINE:
        return bar_fits(given, piece, reached, id, until)
    return bool(kind == PIECE_END and n == len(given.words) and piece.now >= given.end)


def must(given: Given, rules: Rules, piece: Any, reached: Any, sounding: Any, n: int) -> int:
    """Return the word that leads on where none of those that the rules let come fits."""
    k = reached.bars
    if piece.length == 0 and reached.bars == 0 and k < len(given.bars):
        return int(given.bar_words[0])
    if n == len(given.words):
        return rules.start
    if given.ticks[n] == piece.now and piece.phase != AFTER_BAR:
        id = given.words[n]
        if id >= 0:
            return int(id)
        return id_of(rules, NOTE_OFF, first_sounding(rules, sounding, -1 - id))
    if k < len(given.bars) and given.bars[k] <= given.ticks[n]:
        return int(given.bar_words[k])
    return id_of(rules, PLACE, given.ticks[n] - piece.begin)


def id_of(rules: Rules, kind: int, number: int) -> int:
    """Return the word of a kind and number, the end of the piece if there is none."""
    for id in range(len(rules.kinds)):
        if rules.kinds[id] == kind and rules.numbers[id] == number:
            return id
    return rules.start


def follow(given: Given, rules: Rules, piece: Any, reached: Any, id: int, n: int) -> None:
    """Note what a piece has of what is given once it took a word. n: that which was due."""
    kind = rules.kinds[id]
    if kind == BAR_LINE:
        reached.bars += 1
    elif kind == CADENCE:
        reached.closed += closes_now(given, reached, piece.now)
    elif kind <= NOTE_ON and is_due(given, piece, n) and given.words[n] == id:
        reached.words = max(reached.words, n + 1)
    while reached.words < len(given.words) and given.ticks[reached.words] < piece.now:
        reached.words += 1
    k = reached.phrases
    while k < len(given.closes) and given.closes[k, 1] <= piece.now:
        k += 1
        reached.closed = 0
    reached.phrases = k
