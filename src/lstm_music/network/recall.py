"""What a piece has said before that may come again: the words that a copy gate chooses among.

Each candidate is a pointer into the piece's past, followed word by word: the longest earlier match
of the last words, the last place after the same words, the longest match but for a transposition,
the piece's opening, what stood at this place some bars before and, where words tell of phrases, the
opening of the last one and the piece's, told apart from its third and its fourth on. Beside each
stands its run: the words that it told right in a row, of a match its length.

Sources: the longest match, Ziv & Lempel 1977; copying as a mixture, Merity et al. 2016, "Pointer
sentinel mixture models". A word costs O(1): the search for a match looks at NEWEST places at most.
network/compiled_recall.py compiles these functions as they are; kernels/recall.cu and
report/browser/recall.js have them line by line.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.ops.reference.copying import BUCKETS, HIT, LONG, NOTHING

MATCH, LATEST, MOVED, OPENING, LAGS = range(5)  # candidates; from LAGS on, one for each lag
OF_PHRASES = 3  # the last: a phrase's opening, and the piece's from the third, the fourth phrase on
REST, PITCH, OPENS, AT, DELTA, RANK, VOICE, FIELDS = range(8)  # of a row of a word table
PLACE, BAR_LINE, TRACK_END, CADENCE, NOTE_ON, NOTE_OFF = range(6)  # of OPENS; notes of events
PITCHES = 129  # that a word's code tells apart: none, 0 to 127
RANKS = 8192  # words that may stand at one place
TRACK = 2**45  # in times: longer than any that words tell of
SHIFT = 256  # what a difference of pitches is raised by
NONE = -1
NEWEST, FARTHEST = 32, 64  # places that a search looks at, and words that it compares
SLOTS = 4096  # of a table of places by what stands there


class RecallRules(NamedTuple):
    """How words are compared, and where in time they stand.

    orders (3,): words that are compared at least, of MATCH, LATEST and MOVED. lags (n,): between
    what stands at the same place, in bars where words tell of them, else in ticks or frames, as
    line: between bar lines that no word tells of. phrases: OF_PHRASES where words tell of them,
    else 0. same: the code of a bar as long as the last, or NONE. words (V, FIELDS) int64: of each
    word what it says but for its pitch, its lowest pitch or NONE, what it opens, its place in the
    bar or NONE (of a bar its length, 0 for the last one's), the time until it, its order at a
    place, and what it begins or ends: a pitch, or of parts the part. ids (codes,) int32: the word
    of a code, NONE for no word.
    """

    orders: tuple[int, ...]
    lags: tuple[int, ...]
    line: int
    phrases: int
    same: int
    words: Array
    ids: Array

    @property
    def candidates(self) -> int:
        """Their number, K."""
        return LAGS + len(self.lags) + self.phrases


class Recall(NamedTuple):
    """A piece so far, of n words at most, and the candidates for the next.

    Arrays where compiled code reads them, lists where Python does. codes, moved, times (n,): of
    each word, see `code_of`, `moved_code` and `step_time`. heads (3, SLOTS) and before (3, n): the
    last place where the same words stood, and the one before a place. pointers, candidates (codes,
    NONE for none), runs (K,). numbers: those of NUMBERS.
    """

    codes: Any
    moved: Any
    times: Any
    heads: Any
    before: Any
    pointers: Any
    candidates: Any
    runs: Any
    numbers: Any


(
    COUNT, BASE, AT_PLACE, PITCH_BEFORE, LINE, LAG, TRACK_BEGAN, TRACK_TIME,
    LENGTH, METER,  # of the bar: its ticks, and the code of the word that told them
    PHRASE_LAG, CLOSES,  # 1 from a cadence on, until the place after it
    FIRST, BEGAN, BEGAN_AT,  # when the piece and the phrase began, NONE before, and at which word
    PHRASES, OPENED,  # phrases that are over, and the candidate that tells the opening, as a number
    FRESH, FRESH_PHRASE,  # 1 from where an opening is told anew to its first note
    SOUNDS,  # which pitches, or parts: BITS in each of three numbers
    _, _, NUMBERS,
) = range(23)  # fmt: skip
BITS = 48
UNKNOWN = (LINE, METER, FIRST, BEGAN)  # which are NONE at first


def new_recall(rules: RecallRules, n: int, pieces: tuple[int, ...] = ()) -> Recall:
    """Return room for a piece of n words, before its first, as arrays int64.

    pieces: (B,) for so many side by side, along a first axis of each array.
    """
    K = rules.candidates
    shapes = (n,), (n,), (n,), (3, SLOTS), (3, n), (K,), (K,), (K,), (NUMBERS,)
    recall = Recall(*(np.zeros(pieces + shape, np.int64) for shape in shapes))
    for array in (recall.heads, recall.pointers, recall.candidates):
        array[...] = NONE
    recall.numbers[..., UNKNOWN] = NONE
    return recall


def forget(m: Recall) -> None:
    """Begin a piece."""
    for head in m.heads:
        for slot in range(SLOTS):
            head[slot] = NONE
    for k in range(len(m.runs)):
        m.pointers[k] = m.candidates[k] = NONE
        m.runs[k] = 0
    for n in range(NUMBERS):
        m.numbers[n] = NONE if n in UNKNOWN else 0


# Words as numbers --------------------------------------------------------------------------------


def code_of(word: Sequence[int]) -> int:
    """Return the code of a word: what it says and its pitch."""
    return word[REST] * PITCHES + word[PITCH] + 1


def measured(m: Recall, same: int, word: Sequence[int]) -> int:
    """Return the code of a word; of a bar as long as the last, that of one that says its length.

    So what began with such a bar is the same as what comes later with the other.
    """
    code = code_of(word)
    if word[OPENS] == BAR_LINE:
        if code == same and m.numbers[METER] != NONE:
            told: int = m.numbers[METER]
            return told
        m.numbers[METER] = code
    return code


def said(m: Recall, same: int, code: int) -> int:
    """Return the code that a word would have now which was `measured` so."""
    return same if code == m.numbers[METER] else code


def moved_code(code: int, pitch_before: int) -> int:
    """Return what a word of some code says and how far its pitch lies above the last one."""
    rest, pitch = code // PITCHES, code % PITCHES - 1
    return rest * 2 * SHIFT + (pitch - pitch_before + SHIFT if pitch >= 0 else 0)


def unmoved(code: int, pitch_before: int) -> int:
    """Return the code of the word that a moved one is after a pitch, NONE if no pitch is there."""
    rest, difference = code // (2 * SHIFT), code % (2 * SHIFT)
    if difference == 0:
        return rest * PITCHES
    pitch = pitch_before + difference - SHIFT
    return rest * PITCHES + pitch + 1 if 0 <= pitch < PITCHES - 1 else NONE


def bucket(run: int, back: int) -> int:
    """Return the bucket of a run whose pointer lies so many words back.

    0, 1, 2-3, 4-7, … 256 and more. A run at least as long as that has come round: what it points
    to it has told already, and to tell it once more is the passage's third time. Those have
    buckets of their own: round once, 2 or 3 times, 4 or more.
    """
    n, stop = 0, LONG - 1
    if run >= back:
        run //= max(back, 1)
        n, stop = LONG - 1, BUCKETS - 1
    while run > 0 and n < stop:
        run //= 2
        n += 1
    return n


def bucket_of(m: Recall, k: int) -> int:
    """Return the bucket of a candidate's run; of one that names what the match does, the match's.

    That is where the match has come round: whatever else points to it, it is the third time.
    """
    run, back = m.runs[MATCH], m.numbers[COUNT] - m.pointers[MATCH]
    if m.candidates[k] == m.candidates[MATCH] and run >= back:
        return bucket(run, back)
    return bucket(m.runs[k], m.numbers[COUNT] - m.pointers[k])


# One word ----------------------------------------------------------------------------------------


def step_time(m: Recall, word: Sequence[int]) -> int:
    """Go on to where a word stands; return its time, by which words at one place are in order."""
    numbers = m.numbers
    if word[OPENS] == BAR_LINE:
        numbers[BASE] += numbers[LENGTH] * RANKS
        numbers[LENGTH] = word[AT] or numbers[LENGTH]
        numbers[AT_PLACE] = 0
    elif word[AT] >= 0:
        numbers[AT_PLACE] = word[AT]
    numbers[AT_PLACE] += word[DELTA]
    time: int = numbers[BASE] + numbers[AT_PLACE] * RANKS + word[RANK]
    return time


def slot_of(codes: Sequence[int], n: int, order: int) -> int:
    """Return the slot of the last words up to place n."""
    h = 0
    for k in range(n - order + 1, n + 1):
        h = (h * 40503 + codes[k]) % SLOTS
    return h


def matched(codes: Sequence[int], q: int, n: int) -> int:
    """Return how many words up to places q and n are the same, FARTHEST at most."""
    length = 0
    while length < FARTHEST and length <= q and codes[q - length] == codes[n - length]:
        length += 1
    return length


def note_place(m: Recall, kind: int, codes: Sequence[int], order: int) -> int:
    """Enter the last word's place under the words that end there; return the one before it.

    NONE where there is none.
    """
    n = m.numbers[COUNT] - 1
    if n + 1 < order:
        return NONE
    slot = slot_of(codes, n, order)
    last: int = m.heads[kind][slot]
    m.before[kind][n] = last
    m.heads[kind][slot] = n
    return last


def follow(m: Recall, kind: int, codes: Sequence[int], order: int) -> None:
    """Go on with a match if the last word was its next, else search for the longest.

    Of equals the latest.
    """
    n = m.numbers[COUNT] - 1
    q = note_place(m, kind, codes, order)
    p = m.pointers[kind]
    if p >= 0 and codes[p] == codes[n]:
        m.pointers[kind] = p + 1
        m.runs[kind] += 1
        return
    best, looked = order - 1, 0
    m.pointers[kind] = NONE
    while q >= 0 and looked < NEWEST:
        if q >= best and codes[q - best] == codes[n - best]:  # else no longer than the best
            length = matched(codes, q, n)
            if length > best:
                best = length
                m.pointers[kind] = q + 1
        q = m.before[kind][q]
        looked += 1
    m.runs[kind] = best if m.pointers[kind] >= 0 else 0


def follow_lag(m: Recall, k: int, lag: int, time: int, same: int) -> None:
    """Point to the first word that stands later than a time that lies a lag ago."""
    n, p = m.numbers[COUNT], max(m.pointers[k], m.numbers[TRACK_BEGAN])
    m.candidates[k] = NONE
    if lag > 0 and time - lag >= m.numbers[TRACK_TIME]:
        while p < n and m.times[p] <= time - lag:
            p += 1
        if p < n:
            m.candidates[k] = said(m, same, m.codes[p])
    m.pointers[k] = p


def open_at_lines(m: Recall, line: int) -> None:
    """Point to the piece's opening, anew at each bar line unless what it told was right."""
    numbers = m.numbers
    at_line = numbers[BASE] + numbers[AT_PLACE] // line * line * RANKS if line else numbers[BASE]
    if at_line != numbers[LINE]:
        numbers[LINE] = at_line
        if m.runs[OPENING] == 0:
            numbers[LAG] = at_line - numbers[TRACK_TIME]
            m.pointers[OPENING] = numbers[TRACK_BEGAN]


def misses(m: Recall, k: int, word: Sequence[int]) -> bool:
    """Return whether a candidate told that another note begins than does."""
    told: int = m.candidates[k]
    tells = word[OPENS] == NOTE_ON and told >= 0 and told // PITCHES == word[REST]
    return tells and told != code_of(word)


def opening_of(m: Recall) -> int:
    """Return the candidate that tells the piece's opening."""
    told: int = m.numbers[OPENED]
    return len(m.runs) - OF_PHRASES + told if told else OPENING


def open_phrases(m: Recall, word: Sequence[int]) -> None:
    """Point to the openings of the piece and of the last phrase where another phrase begins.

    That is the first place after a cadence. An opening is followed until it tells a wrong note.
    """
    numbers, last, opening = m.numbers, len(m.runs) - OF_PHRASES, opening_of(m)
    if word[OPENS] in (NOTE_ON, NOTE_OFF):
        number, bit = SOUNDS + word[VOICE] // BITS, 1 << word[VOICE] % BITS
        numbers[number] = (numbers[number] | bit) - bit * (word[OPENS] == NOTE_OFF)
        if word[OPENS] == NOTE_ON:
            numbers[FRESH] = numbers[FRESH_PHRASE] = 0
    if misses(m, opening, word):
        numbers[LAG] = 0
    if misses(m, last, word):
        numbers[PHRASE_LAG] = 0
    if word[OPENS] == CADENCE:
        numbers[CLOSES] = 1
    if word[OPENS] != PLACE or word[AT] < 0:
        return
    place, begins = numbers[BASE] + numbers[AT_PLACE] * RANKS, numbers[CLOSES] == 1
    numbers[PHRASES] += begins
    if begins and numbers[LAG] == 0:
        numbers[LAG], numbers[FRESH] = place - numbers[FIRST], 1
        numbers[OPENED] = numbers[PHRASES] - 1 if numbers[PHRASES] in (2, 3) else 0
        m.candidates[opening] = NONE
        m.pointers[opening_of(m)] = 0
    if begins and numbers[PHRASE_LAG] == 0:
        numbers[PHRASE_LAG], numbers[FRESH_PHRASE] = place - numbers[BEGAN], 1
        m.pointers[last] = numbers[BEGAN_AT]
    if numbers[FIRST] == NONE:
        numbers[FIRST] = place
    if begins or numbers[BEGAN] == NONE:
        numbers[BEGAN], numbers[BEGAN_AT] = place, numbers[COUNT] - 1
    numbers[CLOSES] = 0


def follow_openings(m: Recall, time: int, same: int) -> None:
    """Tell the openings: not anew while the last phrase sounds on."""
    numbers, last, opening = m.numbers, len(m.runs) - OF_PHRASES, opening_of(m)
    follow_lag(m, opening, numbers[LAG], time, same)
    follow_lag(m, last, numbers[PHRASE_LAG], time, same)
    if numbers[SOUNDS] or numbers[SOUNDS + 1] or numbers[SOUNDS + 2]:
        if numbers[FRESH]:
            m.candidates[opening] = NONE
        if numbers[FRESH_PHRASE]:
            m.candidates[last] = NONE


def observe(rules: RecallRules, m: Recall, word: Sequence[int]) -> None:
    """Take the next word of a piece, and find the candidates for the one after it."""
    numbers, same, n = m.numbers, rules.same, m.numbers[COUNT]
    for k in range(len(m.runs)):
        if k not in (MATCH, MOVED):
            m.runs[k] = m.runs[k] + 1 if m.candidates[k] == code_of(word) else 0
    code = measured(m, same, word)
    m.codes[n], m.moved[n] = code, moved_code(code, numbers[PITCH_BEFORE])
    time = step_time(m, word)
    m.times[n] = time
    if n == numbers[TRACK_BEGAN]:
        numbers[TRACK_TIME] = numbers[BASE]
    numbers[COUNT] = n + 1
    if word[PITCH] >= 0:
        numbers[PITCH_BEFORE] = word[PITCH]
    if word[OPENS] == TRACK_END:
        numbers[BASE] = numbers[TRACK_TIME] = numbers[TRACK_TIME] + TRACK
        numbers[AT_PLACE], numbers[TRACK_BEGAN], numbers[LINE] = 0, n + 1, NONE
        time = numbers[BASE]
    follow(m, MATCH, m.codes, rules.orders[MATCH])
    p = m.pointers[MATCH]
    m.candidates[MATCH] = said(m, same, m.codes[p]) if p >= 0 else NONE
    follow(m, MOVED, m.moved, rules.orders[MOVED])
    p = m.pointers[MOVED]
    m.candidates[MOVED] = NONE
    if p >= 0:
        m.candidates[MOVED] = said(m, same, unmoved(m.moved[p], numbers[PITCH_BEFORE]))
    q = note_place(m, LATEST, m.codes, rules.orders[LATEST])
    was = q >= 0 and matched(m.codes, q, n) >= rules.orders[LATEST]
    m.pointers[LATEST] = q + 1 if was else NONE
    m.candidates[LATEST] = said(m, same, m.codes[q + 1]) if was else NONE
    if rules.phrases:
        open_phrases(m, word)
        follow_openings(m, time, same)
    else:
        open_at_lines(m, rules.line)
        follow_lag(m, OPENING, numbers[LAG], time, same)
    unit = max(numbers[LENGTH], 1) * RANKS
    for k in range(len(rules.lags)):
        follow_lag(m, LAGS + k, rules.lags[k] * unit, time, same)


def remembered(rules: RecallRules, m: Recall, words: Array, out: Array, codes: Array) -> None:
    """Write what each word of a piece could have been copied from, as a copy gate reads it.

    words (n, FIELDS), out (n, K) uint8: the bucket of a candidate's run, with HIT added where it
    was right, NOTHING where there is none. codes (n, K): the candidates. m: room for n words.
    """
    for t in range(len(words)):
        code = code_of(words[t])
        for k in range(len(m.runs)):
            right = HIT if m.candidates[k] == code else 0
            codes[t, k] = m.candidates[k]
            out[t, k] = NOTHING if m.candidates[k] == NONE else bucket_of(m, k) + right
        observe(rules, m, words[t])
