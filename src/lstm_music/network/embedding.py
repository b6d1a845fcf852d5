"""Embeddings: from what the network reads at a time step to the first layer's input, and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np

from lstm_music.arrays import Array, RowGradient
from lstm_music.ops import NumpyOps, Workspace

Shapes: TypeAlias = dict[str, tuple[int, ...]]

NOTE_HEADS = ("sigmoid", "nade")  # those of networks that read notes


@dataclass(frozen=True)
class TokenEmbedding:
    """A row for each of V tokens. Parameters: "W" (V, E). Inputs x are (N,) ids."""

    V: int
    E: int

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        return {"W": (self.V, self.E)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: normal, of variance 1."""
        return normal_parameters(ops, rng, self.shapes())

    @staticmethod
    def forward(
        ops: NumpyOps, p: Mapping[str, Array], x: Array, out: Array, work: Workspace
    ) -> None:
        """Write the embeddings of x to out (N, E)."""
        ops.embedding_forward(p["W"], x, out)

    step = forward

    @staticmethod
    def backward(
        ops: NumpyOps, p: Mapping[str, Array], x: Array, dx: Array, work: Workspace
    ) -> dict[str, Array | RowGradient]:
        """Return {"W"}, of the rows that occur in x; dx (N, E)."""
        return {"W": ops.embedding_backward(x, dx)}


class Parts(NamedTuple):
    """Words in two parts: classes (N,), -1 for no word, and deltas (N,), -1 where there is none."""

    classes: Array
    deltas: Array

    @classmethod
    def by_id(cls, ops: NumpyOps, classes: Array, deltas: Array) -> "Parts":
        """Return the parts of V words (V + 1,) on a backend, the last those of the id -1: none."""
        return cls(*(ops.asarray([*part, -1], np.int32) for part in (classes, deltas)))

    def of(self, ids: Array) -> "Parts":
        """Return the parts of the words with these ids (N,); an id of -1 takes the last ones."""
        return Parts(self.classes[ids], self.deltas[ids])


@dataclass(frozen=True)
class FactoredEmbedding:
    """The sum of two rows, one of C classes' and one of D deltas', for a word in two parts.

    Parameters: "Wc" (C, E), "Wd" (D, E). Inputs x are (N,) ids of words; a word without a delta
    takes the first row: its class says all.
    """

    C: int
    D: int
    E: int
    words: Parts | None = field(default=None, compare=False)

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        return {"Wc": (self.C, self.E), "Wd": (self.D, self.E)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: normal, of variance 1."""
        return normal_parameters(ops, rng, self.shapes())

    def forward(
        self, ops: NumpyOps, p: Mapping[str, Array], x: Array, out: Array, work: Workspace
    ) -> None:
        """Write the embeddings of x to out (N, E)."""
        classes, deltas = self._rows_of(ops, x)
        rows = work.array("rows", out.shape)
        ops.embedding_forward(p["Wc"], classes, out)
        ops.embedding_forward(p["Wd"], deltas, rows)
        out += rows

    step = forward

    def backward(
        self, ops: NumpyOps, p: Mapping[str, Array], x: Array, dx: Array, work: Workspace
    ) -> dict[str, Array | RowGradient]:
        """Return {"Wc", "Wd"}; dx (N, E)."""
        classes, deltas = self._rows_of(ops, x)
        dWc, dWd = (work.array(f"d{name}", p[name].shape) for name in ("Wc", "Wd"))
        ops.embedding_backward_dense(classes, dx, dWc)
        ops.embedding_backward_dense(deltas, dx, dWd)
        return {"Wc": dWc, "Wd": dWd}

    def _rows_of(self, ops: NumpyOps, x: Array) -> tuple[Array, Array]:
        """Return the rows of both tables (N,) that words take."""
        assert self.words is not None
        parts = self.words.of(x)
        return parts.classes, ops.xp.maximum(parts.deltas, 0)


@dataclass(frozen=True)
class NoteEmbedding:
    """The sum of the rows of the notes that sound. Parameters: "W" (D + 1, E).

    Inputs x are (N, D + 1) uint8 0/1, the last of them the start symbol.
    """

    D: int
    E: int

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        return {"W": (self.D + 1, self.E)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: normal, of variance 1."""
        return normal_parameters(ops, rng, self.shapes())

    @staticmethod
    def forward(
        ops: NumpyOps, p: Mapping[str, Array], x: Array, out: Array, work: Workspace
    ) -> None:
        """Write the embeddings of x to out (N, E)."""
        ops.note_embedding_forward(p["W"], x, out)

    @staticmethod
    def step(ops: NumpyOps, p: Mapping[str, Array], x: Array, out: Array, work: Workspace) -> None:
        """As forward, for sampling: a row's bits don't depend on the others."""
        ops.affine(ops.asarray(x), p["W"], None, out)

    @staticmethod
    def backward(
        ops: NumpyOps, p: Mapping[str, Array], x: Array, dx: Array, work: Workspace
    ) -> dict[str, Array | RowGradient]:
        """Return {"W"}; dx (N, E)."""
        dW = work.array("dW", p["W"].shape)
        ops.note_embedding_backward(x, dx, dW)
        return {"W": dW}


Embedding: TypeAlias = TokenEmbedding | FactoredEmbedding | NoteEmbedding


def make_embedding(
    head: str, V: int, E: int, C: int = 0, D: int = 0, words: Parts | None = None
) -> Embedding:
    """Return the embedding, in E dimensions, of what a network with a head of that name reads.

    V tokens or notes; C, D: classes and deltas of a factored head's words; words: which they are.
    """
    if head == "factored":
        return FactoredEmbedding(C, D, E, words)
    return NoteEmbedding(V, E) if head in NOTE_HEADS else TokenEmbedding(V, E)


def normal_parameters(ops: NumpyOps, rng: np.random.Generator, shapes: Shapes) -> dict[str, Array]:
    """Return tables of normal numbers of variance 1."""
    return {name: ops.asarray(rng.normal(0, 1.0, shape)) for name, shape in shapes.items()}
