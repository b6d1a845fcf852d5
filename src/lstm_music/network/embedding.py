"""Embeddings: from what the network reads at a time step to the first layer's input, and back.

Here that of tokens; of words in two parts: `factored.py`; of notes: `notes.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lstm_music.arrays import Array, RowGradient
from lstm_music.ops import NumpyOps, Workspace

Shapes: TypeAlias = dict[str, tuple[int, ...]]


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


def normal_parameters(ops: NumpyOps, rng: np.random.Generator, shapes: Shapes) -> dict[str, Array]:
    """Return tables of normal numbers of variance 1."""
    return {name: ops.asarray(rng.normal(0, 1.0, shape)) for name, shape in shapes.items()}
