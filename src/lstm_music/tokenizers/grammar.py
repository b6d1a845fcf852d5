"""Which words may follow, and where a piece may end: what sampling asks of a representation.

Of messages: no orphan note-offs, no endless notes, no empty tracks or pieces.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_music.midi import LAST_TICK, NOTE_OFF, NOTE_ON, TICKS_PER_QUARTER
from lstm_music.tokenizers.messages import PIECE_END, SPECIALS, TRACK_END, Layout, parse
from lstm_music.tokenizers.vocabulary import Vocabulary

Mask = npt.NDArray[np.bool_]
Ticks = npt.NDArray[np.int32]

PITCHES = 128
SPECIAL = 2  # the kind of the special words, beside NOTE_OFF and NOTE_ON
CLASSES = SPECIAL * PITCHES + len(SPECIALS)  # a word's class is kind * 128 + pitch
OFFS = slice(NOTE_OFF * PITCHES, (NOTE_OFF + 1) * PITCHES)
ONS = slice(NOTE_ON * PITCHES, (NOTE_ON + 1) * PITCHES)
SPECIAL_CLASS = {word: SPECIAL * PITCHES + number for number, word in enumerate(SPECIALS)}
NEVER = -1  # as the longest delta of a class: none of its words
NONE = 2**31 - 1  # as the shortest delta of a class: it has no words
FAR = LAST_TICK + 1  # further than any delta

BAR = 4 * TICKS_PER_QUARTER
SHORTEST = 8 * BAR  # of a piece without a length
WHOLE_PIECE = 2000  # tokens at most where no length is asked for
WITHIN_LIMIT = 20_000  # messages at most where a length in ticks is, or
PER_QUARTER = 128  # so many for each quarter note of it


def word_parts(vocabulary: Vocabulary) -> tuple[Ticks, Ticks]:
    """Return the class and the delta of each word, (V,) each, as a factored head takes them.

    Classes are numbered from 0 in the order of kind and pitch, deltas from the shortest; a special
    word has none, -1. Raises ValueError for words that are no messages.
    """
    kinds, pitches, deltas = np.array([_row(word) for word in vocabulary.words], np.int32).T
    classes = np.unique(kinds * PITCHES + pitches, return_inverse=True)[1]
    known = np.unique(deltas[kinds != SPECIAL])
    numbers = np.where(kinds == SPECIAL, -1, np.searchsorted(known, deltas))
    return classes.astype(np.int32), numbers.astype(np.int32)


def line_after(tick: int, bar: int, line: int = 0) -> int:
    """Return the first bar line at or after a tick: they lie a bar apart, and one at a line."""
    return line - (line - tick) // bar * bar


class Room(NamedTuple):
    """What is left of the length that was asked for; None where none was.

    tokens: from here on; ticks: from where this piece began.
    """

    tokens: int | None
    ticks: int | None


@dataclass
class GrammarState:
    """Where a piece stands; advance changes it in place."""

    now: int = 0
    """Ticks since the track began."""
    sounding: dict[int, int] = field(default_factory=dict)
    """The start tick of each pitch that sounds."""
    notes: int = 0
    """Notes struck in this track; of a piece of chords, the chords."""
    tracks: int = 0
    """Tracks finished."""
    finished: bool = False
    """Whether nothing may follow."""
    primed: tuple[int, int] = (0, 0)
    """Tracks and notes of a primer whose length doesn't count: what is beyond them is composed."""
    least: int | None = None
    """The tick before which the piece, or the track that a primer began, isn't to end, if no other
    than its Grammar.shortest."""
    bar: int = BAR
    """Ticks of a bar."""
    line: int = 0
    """The tick at which a bar began, from which on all have that length."""
    bars: int = 0
    """Bars before the line."""

    def copy(self) -> "GrammarState":
        """Return a state that changes independently of this one."""
        return replace(self, sounding=dict(self.sounding))


class Grammar(ABC):
    """What sampling asks of a representation.

    begins (V,) bool: the words with which a piece can begin.
    """

    begins: Mask

    def start(self) -> GrammarState:
        """Return the state in which a piece begins."""
        return GrammarState()

    @property
    def shortest(self) -> int:
        """The least time of a piece without a length, in ticks: an early cadence is no end."""
        return SHORTEST

    def is_empty(self, state: GrammarState) -> bool:
        """Return whether nothing is written yet, beyond a primer that doesn't count."""
        return (state.tracks, state.notes) == state.primed

    def is_early(self, state: GrammarState) -> bool:
        """Return whether less is written than a piece without a length has at least."""
        least = self.shortest if state.least is None else state.least
        return state.tracks == state.primed[0] and state.now < least

    def next_bar(self, state: GrammarState, tick: int) -> int:
        """Return the first bar line at or after a tick of the piece."""
        return line_after(tick, state.bar, state.line)

    def bars_in(self, state: GrammarState) -> int:
        """Return how many bars the piece has, the one in which it stands among them."""
        return state.bars + (self.next_bar(state, state.now) - state.line) // state.bar

    def bars_begun(self, state: GrammarState) -> int:
        """Return how many bars have begun, of a piece that goes on."""
        return self.bars_in(state)

    def end_of(self, state: GrammarState, bars: int) -> int:
        """Return the tick at which so many bars of the piece end."""
        return max(min(state.line + (bars - state.bars) * state.bar, FAR), 0)

    @abstractmethod
    def allowed(self, state: GrammarState, limit: int | None, may_end: bool) -> Mask:
        """Return which of the V words may come next, (V,) bool.

        limit: the tick by which the piece should end, if any; may_end: whether it may end here.
        """

    @abstractmethod
    def advance(self, state: GrammarState, id: int) -> None:
        """Change the state to the one after this word, allowed or not."""

    @abstractmethod
    def may_end(self, state: GrammarState, room: Room) -> bool:
        """Return whether the piece may end here."""

    @abstractmethod
    def leaves_room(self, state: GrammarState, room: Room) -> bool:
        """Return whether another piece is to follow one that ends here."""

    @abstractmethod
    def is_full(self, state: GrammarState, room: Room) -> bool:
        """Return whether nothing is left of the length that was asked for."""

    @abstractmethod
    def most(self, length: int | None, limit: int | None, bar: int = BAR) -> int:
        """Return the largest number of tokens in a length in tokens, in ticks, or in neither.

        bar: ticks of a bar.
        """


class TokenGrammar(Grammar):
    """What words of messages and of events have in common: lengths, and how many notes sound.

    longest_note is in ticks; most_notes is how many may sound at once in a track.
    """

    def __init__(self, layout: Layout, longest_note: int, max_tracks: int, most_notes: int) -> None:
        self.layout = layout
        self.longest_note = longest_note
        self.max_tracks = max_tracks
        self.most_notes = most_notes

    @property
    def shortest(self) -> int:
        """As Grammar.shortest: none of a piece whose tracks follow one another."""
        return SHORTEST if self.layout == "merge" else 0

    def may_end(self, state: GrammarState, room: Room) -> bool:
        """As Grammar.may_end: the last of a given number of tokens is no end."""
        if room.tokens is not None:
            return room.tokens > 1
        return room.ticks is not None or not self.is_early(state)

    def leaves_room(self, state: GrammarState, room: Room) -> bool:
        """As Grammar.leaves_room: for a token, or of merged tracks for a bar."""
        if room.tokens is not None:
            return room.tokens > 1
        if room.ticks is None or self.layout == "flatten":
            return False
        return room.ticks - self.next_bar(state, state.now) >= state.bar

    def is_full(self, state: GrammarState, room: Room) -> bool:
        """As Grammar.is_full: a track may go on to its limit and end there."""
        return room.tokens == 0

    def most(self, length: int | None, limit: int | None, bar: int = BAR) -> int:
        """As Grammar.most: time passes with few messages, so there is a bound."""
        if length is not None:
            return length
        if limit is None:
            return WHOLE_PIECE
        return max(WITHIN_LIMIT, limit * PER_QUARTER // TICKS_PER_QUARTER)

    def _tidy(self, state: GrammarState, longest: int) -> None:
        """As midi.tidy_track: notes end of old age, and the oldest make room."""
        sounding = state.sounding
        for old in [p for p, start in sounding.items() if start + longest <= state.now]:
            if sounding[old] < state.now:
                del sounding[old]
        while len(sounding) > self.most_notes:
            oldest = min(sounding, key=lambda p: (sounding[p], p))
            if sounding[oldest] == state.now:
                break
            del sounding[oldest]


class MessageGrammar(TokenGrammar):
    """The rules of `bin/sample --strict` for words of the message representation.

    Holds kind, pitch and delta of all V words as (V,) arrays; a special word has kind 2, its
    number among SPECIALS as pitch, and delta 0. longest_note is in ticks; most_notes is how many
    may sound at once in a track. Raises ValueError for a vocabulary that holds other words.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        layout: Layout,
        longest_note: int,
        max_tracks: int,
        most_notes: int = PITCHES,
    ) -> None:
        super().__init__(layout, longest_note, max_tracks, most_notes)
        table = np.array([_row(word) for word in vocabulary.words], dtype=np.int32).reshape(-1, 3)
        self.kind, self.pitch, self.delta = (np.ascontiguousarray(column) for column in table.T)
        self._class = (self.kind * PITCHES + self.pitch).astype(np.intp)
        self._shortest: Ticks = np.full(CLASSES, NONE, dtype=np.int32)
        np.minimum.at(self._shortest, self._class, self.delta)
        self._can_end = self._shortest[OFFS] < NONE
        self.begins = self.kind == NOTE_ON

    def allowed(self, state: GrammarState, limit: int | None, may_end: bool) -> Mask:
        """Return which of the V words may come next, (V,) bool.

        A note-off needs its pitch to sound. A note-on is free but for the pitches struck at this
        very tick: one that strikes a sounding pitch ends it, and one past most_notes ends the
        oldest, as `midi.tidy_track` then writes it. A track or piece may end over sounding notes
        but not without a note. (A network that slips believes notes over that sound, and the
        other way round; a rule that makes it wait for them leads it into sequences that it has
        never seen.)

        limit is the tick at which a track should end, if any: notes begin before it and end by
        it, and one of several tracks goes on until its last quarter note, if it can. may_end
        says whether the piece may end here. Where the rules leave nothing, the end of the track
        or piece is allowed. Where the vocabulary has neither, the state is marked finished and
        nothing is allowed.
        """
        if state.finished:
            return np.zeros(len(self.delta), dtype=np.bool_)
        longest = self._for_notes(state, limit, may_end)
        for special in self._ends(state, limit, may_end):
            longest[SPECIAL_CLASS[special]] = 0
        if not self._within(longest).any():
            longest = self._way_out(state)
            state.finished = not self._within(longest).any()
        return self.delta <= longest[self._class]

    def advance(self, state: GrammarState, id: int) -> None:
        """Change the state to the one after this word, allowed or not."""
        kind, pitch = int(self.kind[id]), int(self.pitch[id])
        if kind == SPECIAL:
            self._end(state, SPECIALS[pitch])
            return
        state.now = min(state.now + int(self.delta[id]), LAST_TICK)
        sounding = state.sounding
        sounding.pop(pitch, None)
        if kind == NOTE_ON:
            sounding[pitch] = state.now
            state.notes += 1
        self._tidy(state, self.longest_note)

    @staticmethod
    def _end(state: GrammarState, special: str) -> None:
        state.finished = special == PIECE_END
        state.tracks += special == TRACK_END
        state.now = state.notes = 0
        state.sounding.clear()

    def _within(self, longest: Ticks) -> Mask:
        """Return which classes have a word of at most their longest delta, (CLASSES,) bool."""
        return self._shortest <= longest

    def _for_notes(self, state: GrammarState, limit: int | None, may_end: bool) -> Ticks:
        """Return the longest delta allowed by class, (CLASSES,) int32: NEVER for the specials."""
        longest = np.full(CLASSES, NEVER, dtype=np.int32)
        between_tracks = self.layout == "flatten" and state.notes == 0
        full = state.tracks >= self.max_tracks and not self.is_empty(state)
        if between_tracks and may_end and full:
            return longest
        to_limit = FAR if limit is None else limit - state.now
        longest[ONS] = np.where(self._can_end, _clip(to_limit - 1), NEVER)
        for pitch, start in state.sounding.items():
            longest[OFFS][pitch] = _clip(min(to_limit, start + self.longest_note - state.now))
            if start == state.now:  # struck just now; again and again would never get on
                longest[ONS][pitch] = NEVER
        return longest

    def _ends(self, state: GrammarState, limit: int | None, may_end: bool) -> list[str]:
        """Return the special words that the rules allow; where no note fits, see _way_out."""
        early = limit is not None and state.now < limit - TICKS_PER_QUARTER
        if self.is_empty(state):
            return []
        if (state.notes > 0) == (self.layout == "merge"):
            return [PIECE_END] if may_end else []
        return [] if self.layout == "merge" or early or self.is_early(state) else [TRACK_END]

    def _way_out(self, state: GrammarState) -> Ticks:
        """Return the longest delta by class, (CLASSES,), of the words that lead on regardless."""
        longest = np.full(CLASSES, NEVER, dtype=np.int32)
        in_track = self.layout == "flatten" and state.notes > 0
        for special in (TRACK_END, PIECE_END) if in_track else (PIECE_END,):
            if self._shortest[SPECIAL_CLASS[special]] < NONE:
                longest[SPECIAL_CLASS[special]] = 0
                break
        return longest


class ChordGrammar(Grammar):
    """The rules for words of the chord representation: any chord may follow any other.

    frame_ticks: how long a chord lasts. A length is one in ticks, and holds exactly: a piece ends
    only where at least a frame is left for another, from the next bar line on.
    """

    def __init__(self, vocabulary: Vocabulary, frame_ticks: int) -> None:
        self.frame_ticks = frame_ticks
        self.end = vocabulary.id(PIECE_END)
        self.begins = np.arange(len(vocabulary)) != self.end

    def allowed(self, state: GrammarState, limit: int | None, may_end: bool) -> Mask:
        """As Grammar.allowed."""
        if state.finished:
            return np.zeros_like(self.begins)
        mask = self.begins.copy()
        mask[self.end] = may_end
        return mask

    def advance(self, state: GrammarState, id: int) -> None:
        """As Grammar.advance."""
        if id == self.end:
            state.finished = True
            return
        state.now += self.frame_ticks
        state.notes += 1

    def may_end(self, state: GrammarState, room: Room) -> bool:
        """As Grammar.may_end: not before anything sounded, and of no length not too early."""
        if room.ticks is None:
            return not self.is_early(state)
        return not self.is_empty(state) and self.leaves_room(state, room)

    def leaves_room(self, state: GrammarState, room: Room) -> bool:
        """As Grammar.leaves_room."""
        return room.ticks is not None and self.next_bar(state, state.now) < room.ticks

    def is_full(self, state: GrammarState, room: Room) -> bool:
        """As Grammar.is_full."""
        return room.ticks is not None and state.now >= room.ticks

    def most(self, length: int | None, limit: int | None, bar: int = BAR) -> int:
        """As Grammar.most: a token a frame, and one for each bar line at which a piece ends."""
        return WHOLE_PIECE if limit is None else limit // self.frame_ticks + limit // bar


def _row(word: str) -> tuple[int, int, int]:
    """Return a word's kind, pitch and delta as MessageGrammar holds them."""
    message = parse(word)
    if message is None:
        return SPECIAL, SPECIALS.index(word), 0
    kind, pitch, delta = message
    return kind, pitch, min(delta, LAST_TICK)


def _clip(delta: int) -> int:
    return max(NEVER, min(delta, LAST_TICK))
