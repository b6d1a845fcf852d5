"""How to draw: length, temperature, the share of words that may be drawn."""

from dataclasses import dataclass

from lstm_music.midi.piece import WHOLE_NOTE


@dataclass(frozen=True)
class Options:
    """How to draw.

    length: exactly so many tokens, or None for a whole piece; limit: a length in ticks, or None.
    top_k 0 and top_p 1 keep every token. greedy takes the likeliest token instead of drawing.
    first: the number of the first piece of those asked for; a piece's number chooses its draws.
    bars: a length in bars, or None; beyond: a length counts what follows the primer. meter: of
    messages and piano rolls, which don't tell it, the ticks from which on bars have a length, and
    that length; 4/4 without any. repetition: what is added to a copy gate's scores, in nats. craft:
    what a fault in part writing costs, in nats; particles: drafts of each piece, of which the
    likelier are gone on with.
    """

    length: int | None = None
    limit: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False
    seed: int = 0
    first: int = 0
    bars: int | None = None
    beyond: bool = False
    meter: tuple[tuple[int, int], ...] = ()
    repetition: float = 0.0
    craft: float = 0.0
    particles: int = 1

    @property
    def line_and_bar(self) -> tuple[int, int]:
        """A tick at which a bar begins, and the ticks of bars from there on."""
        return self.meter[-1] if self.meter else (0, WHOLE_NOTE)
