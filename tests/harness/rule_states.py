"""Where a piece stands, by rules of sampling, for tests that lead it there word by word."""

import numpy as np

from lstm_music.sampling.automaton import advance, allow, longest_deltas
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import NO_LIMIT, NOTE_ON, SILENT
from lstm_music.sampling.sampler import new_piece


class State:
    """A piece in the making; fields: what it begins with in place of nothing."""

    def __init__(self, rules, options=None, primer=(), sounding=None, **fields):
        self.piece, self.began = new_piece(rules, options or Options(), primer)
        self.rules = rules
        for name, value in fields.items():
            setattr(self.piece, name, value)
        if fields.get("notes"):
            self.piece.phase = int(rules.next[rules.phase, NOTE_ON])
        for pitch, tick in (sounding or {}).items():
            self.began[pitch] = tick

    def __getattr__(self, name):
        return getattr(self.piece, name)

    @property
    def sounding(self):
        """The start tick of each pitch that sounds."""
        return {p: int(tick) for p, tick in enumerate(self.began) if tick != SILENT}

    def advance(self, *ids):
        """Take ids, whether they might come or not."""
        for id in ids:
            advance(self.rules, self.piece, self.began, id)
        return self

    def allowed(self, limit=None, may_end=True):
        """Which of the V words may come next, (V,) bool, if the piece is to end by a limit."""
        longest = np.zeros(len(self.rules.shortest), np.int64)
        limit = NO_LIMIT if limit is None else limit
        allow(self.rules, self.piece, self.began, limit, may_end, longest)
        return self.rules.deltas <= longest[self.rules.classes]

    def allowed_as_asked(self):
        """The same by what binds the piece."""
        longest = np.zeros(len(self.rules.shortest), np.int64)
        longest_deltas(self.rules, self.piece, self.began, longest)
        return self.rules.deltas <= longest[self.rules.classes]
