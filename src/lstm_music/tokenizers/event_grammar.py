"""Which events may follow: no time that goes backwards, no silent note's end, no endless notes."""

from dataclasses import dataclass

import numpy as np

from lstm_music.midi import LAST_TICK, NOTE_OFF, NOTE_ON, WHOLE_NOTE
from lstm_music.tokenizers.events import AT, BAR_LINE, SAME, parse
from lstm_music.tokenizers.grammar import FAR, PITCHES, GrammarState, Mask, TokenGrammar
from lstm_music.tokenizers.vocabulary import Vocabulary

END = -1  # the kind of the piece's end, and of no word yet


@dataclass
class EventState(GrammarState):
    """Where a piece of events stands; advance changes it in place."""

    begin: int = 0
    """The tick at which the bar began."""
    length: int = 0
    """Ticks of the bar, 0 before the first one."""
    kind: int = END
    """The kind of the last word."""
    number: int = 0
    """Its pitch or time."""
    heard: int = 0
    """The tick of the last place at which notes began or ended."""


class EventGrammar(TokenGrammar):
    """The rules of `bin/sample --strict` for words of the event representation.

    A piece begins with a bar that says its length. In a bar places come in ascending order, at each
    of them at least a note ends or begins, first the ends, then the beginnings, by ascending pitch.
    Only notes that sound end; a note-on is as free as in MessageGrammar. A piece ends after notes.
    Bars without any follow one another for the length of the longest note at most, and don't begin
    a piece.

    longest_note, most_notes: as MessageGrammar has them. Raises ValueError for a vocabulary that
    holds other words.
    """

    def __init__(
        self, vocabulary: Vocabulary, longest_note: int, most_notes: int = PITCHES
    ) -> None:
        super().__init__("merge", longest_note, 1, most_notes)
        table = [parse(word) or (END, 0) for word in vocabulary.words]
        self.kind, self.number = np.array(table, np.int32).reshape(-1, 2).T
        self.begins = self.kind >= NOTE_ON
        is_off, self._is_on, self._is_place, self._is_bar, self._is_end = (
            self.kind == kind for kind in (NOTE_OFF, NOTE_ON, AT, BAR_LINE, END)
        )
        self._off = {int(self.number[id]): int(id) for id in np.flatnonzero(is_off)}
        self._is_on &= np.isin(self.number, list(self._off))
        self._is_same = self._is_bar & (self.number == SAME)
        self._first_place = int(self.number[self._is_place].min(initial=FAR))

    def start(self) -> EventState:
        """As Grammar.start."""
        return EventState()

    def bars_begun(self, state: GrammarState) -> int:
        """As Grammar.bars_begun: those that the words say, in which something was."""
        assert isinstance(state, EventState)
        return state.bars + (state.now > state.begin)

    def end_of(self, state: GrammarState, bars: int) -> int:
        """As Grammar.end_of. The first bar may be a pickup: until there are two, it is of 4/4."""
        assert isinstance(state, EventState)
        if not state.bars and state.line == state.begin and state.bar < WHOLE_NOTE:
            return min(state.line + bars * WHOLE_NOTE, FAR)
        return super().end_of(state, bars)

    def allowed(self, state: GrammarState, limit: int | None, may_end: bool) -> Mask:
        """Return which of the V words may come next, (V,) bool.

        limit: as in MessageGrammar.allowed. Where the rules leave nothing, the piece's end is
        allowed; where the vocabulary has none, the state is marked finished.
        """
        assert isinstance(state, EventState)
        if state.finished:
            return np.zeros(len(self.kind), np.bool_)
        mask = self._notes(state, limit) | self._times(state, limit)
        if state.kind in (NOTE_OFF, NOTE_ON) and not self.is_empty(state) and may_end:
            mask |= self._is_end
        if not mask.any():
            mask = self._is_end.copy()
            state.finished = not mask.any()
        return mask

    def advance(self, state: GrammarState, id: int) -> None:
        """Change the state to the one after this word, allowed or not."""
        assert isinstance(state, EventState)
        kind, number = int(self.kind[id]), int(self.number[id])
        if kind == END:
            state.finished = True
            return
        state.kind, state.number = kind, number
        if kind == BAR_LINE:
            self._open_bar(state, number or state.length or WHOLE_NOTE)
        elif kind == AT:
            state.now = min(max(state.begin + number, state.now), LAST_TICK)
        else:
            state.sounding.pop(number, None)
            state.heard = state.now
        if kind == NOTE_ON:
            state.sounding[number] = state.now
            state.notes += 1
        self._tidy(state, self.longest_note + 1)  # at that age they may still end by their word

    @staticmethod
    def _open_bar(state: EventState, length: int) -> None:
        """Begin a bar of so many ticks. A pickup, a first bar that is shorter, completes the last.

        So bars are counted from before it.
        """
        missing = state.begin - state.line
        if not state.bars and not missing and length > state.length:
            missing = state.length
        else:
            state.bars += 1
        state.begin = state.now = min(max(state.begin + state.length, state.now), LAST_TICK)
        state.line, state.length, state.bar = state.begin - missing, length, length

    def _notes(self, state: EventState, limit: int | None) -> Mask:
        """Return which notes may end or begin where the piece stands, (V,) bool."""
        mask = np.zeros(len(self.kind), np.bool_)
        if state.kind not in (AT, NOTE_OFF, NOTE_ON):
            return mask
        if limit is None or state.now < limit:
            mask |= self._is_on
        if state.kind == NOTE_ON:
            return mask & (self.number > state.number)
        lowest = state.number + 1 if state.kind == NOTE_OFF else 0
        mask[[self._off[p] for p in state.sounding if p in self._off and p >= lowest]] = True
        return mask

    def _times(self, state: EventState, limit: int | None) -> Mask:
        """Return which places and bars may follow, (V,) bool: those at which something may be.

        At the limit that is the end of a note.
        """
        mask = np.zeros(len(self.kind), np.bool_)
        if state.kind == AT:
            return mask
        latest = min(LAST_TICK if limit is None else limit, LAST_TICK)
        latest -= not self._any_ends(state, latest)
        after = END if state.kind == BAR_LINE else state.now - state.begin
        before = min(state.length, latest - state.begin + 1)
        mask |= self._is_place & (self.number > after) & (self.number < before)
        bar = max(state.begin + state.length, state.now)
        silent = state.notes == 0 or bar > state.heard + self.longest_note
        if bar + self._first_place <= latest and not (state.kind == BAR_LINE and silent):
            mask |= self._is_bar & (self.number > self._first_place)
            mask |= self._is_same & (state.length > self._first_place)
        return mask

    def _any_ends(self, state: EventState, tick: int) -> bool:
        """Return whether a note that sounds may end at a tick."""
        return any(
            pitch in self._off and start + self.longest_note >= tick
            for pitch, start in state.sounding.items()
        )
