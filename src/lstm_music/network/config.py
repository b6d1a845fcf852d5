"""The shape of a model, and the names of what it is made of."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeAlias

from lstm_music.arrays import Array, RowGradient
from lstm_music.errors import UserError
from lstm_music.network.biaxial import BiaxialHead, Neighbourhood
from lstm_music.network.copying import CopyGate
from lstm_music.network.embedding import TokenEmbedding
from lstm_music.network.factored import FactoredEmbedding, FactoredHead, Parts
from lstm_music.network.heads import SoftmaxHead
from lstm_music.network.notes import NadeHead, NoteEmbedding, SigmoidHead

Parameters = dict[str, Array]
Gradients = dict[str, Array | RowGradient]
Ready = Callable[[Gradients], None]
Embedding: TypeAlias = TokenEmbedding | FactoredEmbedding | NoteEmbedding | Neighbourhood
Head: TypeAlias = SoftmaxHead | FactoredHead | SigmoidHead | NadeHead | BiaxialHead
HEADS = ("softmax", "factored", "sigmoid", "nade", "biaxial")
NOTE_HEADS = ("sigmoid", "nade", "biaxial")  # those of networks that read notes
HEADS_OF = {  # by representation, the default first
    "message": ("softmax", "factored"),
    "event": ("softmax",),
    "performance": ("softmax",),
    "chord": ("softmax",),
    "note": NOTE_HEADS,
}


def ignore(grads: Gradients) -> None:
    """Do nothing with gradients that are ready."""


@dataclass(frozen=True)
class Config:
    """The shape of a model; defaults are the paper's (Huang & Wu 2016, section 4).

    vocabulary: tokens of a softmax or factored head, notes of the others. dropout: between layers;
    of the input and of the output too, unless these have a rate of their own. nade: hidden units
    of a NADE head, or of a biaxial one's LSTM over notes. classes, deltas: how many different ones
    a factored head's tokens have. copy: candidates of a copy gate, 0 without one.
    """

    vocabulary: int
    embedding: int = 128
    hidden: int = 128
    layers: int = 2
    dropout: float = 0.0
    input_dropout: float | None = None
    output_dropout: float | None = None
    head: str = "softmax"
    nade: int = 128
    classes: int = 0
    deltas: int = 0
    copy: int = 0

    def __post_init__(self) -> None:
        counts = ("classes", "deltas") if self.head == "factored" else ()
        for name in ("vocabulary", "embedding", "hidden", "layers", "nade", *counts):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is {value}: use a whole number of at least 1")
        for name in ("dropout", "input_dropout", "output_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"{name} is {value}: use a number from 0 to below 1")
        if self.head not in HEADS:
            raise UserError(f"unknown head '{self.head}': choose one of {', '.join(HEADS)}")

    @property
    def rows(self) -> int:
        """How many rows of the layers one stream takes: of a biaxial network, one a note."""
        return self.vocabulary if self.head == "biaxial" else 1

    @property
    def reads_notes(self) -> bool:
        """Whether the input is a vector of notes, not the id of a token."""
        return self.head in NOTE_HEADS

    def dropout_after(self, layer: int) -> float:
        """Return the rate after layer 1, 2, …, L; 0 is the embedding."""
        own = self.input_dropout if layer == 0 else None
        if layer == self.layers:
            own = self.output_dropout
        return self.dropout if own is None else own

    def make_embedding(self, words: Parts | None = None) -> Embedding:
        """Return the embedding; words: of a factored one, to look up."""
        V, E = self.vocabulary, self.embedding
        if self.head == "factored":
            return FactoredEmbedding(self.classes, self.deltas, E, words)
        if self.head == "biaxial":
            return Neighbourhood(V, E, self.copy)
        return NoteEmbedding(V, E) if self.reads_notes else TokenEmbedding(V, E)

    def make_head(self, words: Parts | None = None) -> Head:
        """Return the head; words: of a factored one, to predict."""
        H, V = self.hidden, self.vocabulary
        if self.head == "softmax":
            return SoftmaxHead(H, V)
        if self.head == "factored":
            return FactoredHead(H, self.classes, self.deltas, words)
        if self.head == "biaxial":
            return BiaxialHead(H, V, self.nade)
        return SigmoidHead(H, V) if self.head == "sigmoid" else NadeHead(H, V, self.nade)

    def make_gate(self) -> CopyGate | None:
        """Return the copy gate, if there is one."""
        return CopyGate(self.hidden, self.copy) if self.copy else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that JSON can hold."""
        return asdict(self)


class State(NamedTuple):
    """What the network remembers: h, c (L, B, H)."""

    h: Array
    c: Array
