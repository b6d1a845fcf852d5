"""PyTorch's networks of gpu_rivals.py: what stands before and after the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from gpu_cases import CANDIDATES, Case
from lstm_music.ops.reference.copying import BUCKETS, HIT, NOTHING

OCTAVE = 12


class Ends(NamedTuple):
    """What stands before and after the layers: modules, a batch, and the loss of outputs."""

    embedding: Any
    head: Any
    x: Any
    y: Any
    loss: Callable[[Any, Any, bool], Any]


class Gate(nn.Module):
    """A copy gate over candidates (N, K), of runs and hits as ours reads them (recall, uint8)."""

    def __init__(self, H: int, recall: Any) -> None:
        super().__init__()
        self.H, K = H, recall.shape[1]
        self.G, self.R = nn.Linear(H, K, bias=False), nn.Embedding(K * BUCKETS, 1)
        there = recall != NOTHING
        self.register_buffer("run", torch.where(there, recall % HIT, 0) + BUCKETS * torch.arange(K))
        self.register_buffer("missing", ~there)
        self.register_buffer("wrong", ~(there & (recall >= HIT)))

    def forward(self, h: Any, nats: Any) -> Any:
        """Return the mixture's mean loss for outputs h (N, H) and the network's nats (N,)."""
        scores = self.G(h) / self.H + self.R(self.run)[:, :, 0]
        scores = scores.masked_fill(self.missing, -torch.inf)
        scores = torch.cat([torch.zeros_like(nats)[:, None], scores], dim=1)
        shares = nn.functional.log_softmax(scores, dim=1)
        copied = shares[:, 1:].masked_fill(self.wrong, -torch.inf)
        own = shares[:, :1] - nats[:, None]
        return -torch.logsumexp(torch.cat([own, copied], dim=1), dim=1).mean()


def word_ends(case: Case) -> Ends:
    """Return an embedding and a softmax of words; the loss may read logits in half precision."""
    linear, embedding = nn.Linear(case.H, case.V), nn.Embedding(case.V, case.width)
    x, y = torch.randint(case.V, (2, case.T, case.B))
    xent = nn.functional.cross_entropy

    def loss(out: Any, y: Any, half: bool) -> Any:
        logits = linear(out).flatten(0, 1)
        return xent(logits if half else logits.float(), y.flatten())

    if not case.copy:
        return Ends(embedding, linear, x, y, loss)
    gate = Gate(
        case.H, torch.tensor(CANDIDATES)[torch.randint(len(CANDIDATES), (case.N, case.copy))]
    )

    def mixed(out: Any, y: Any, half: bool) -> Any:
        logits = linear(out).flatten(0, 1)
        nats = xent(logits if half else logits.float(), y.flatten(), reduction="none")
        return gate(out.flatten(0, 1), nats)

    return Ends(embedding, nn.ModuleList([linear, gate]), x, y, mixed)


def note_ends(case: Case, K: int = 128) -> Ends:
    """Return the same of notes, one in twenty on: independent ones, or a NADE of K units.

    NADE at all steps at once, (T·B, V, K): without a kernel of one's own, PyTorch's best.
    """
    embedding, visible = nn.Linear(case.V + 1, case.H, bias=False), nn.Linear(case.H, case.V)
    x, y = ((torch.rand(case.T, case.B, case.V + k) < 0.05).float() for k in (1, 0))
    bce = nn.functional.binary_cross_entropy_with_logits
    if case.head == "sigmoid":
        return Ends(
            embedding, visible, x, y,
            lambda out, y, half: bce(visible(out), y, reduction="sum") / case.N,
        )  # fmt: skip
    hidden = nn.Linear(case.H, K)
    W, U = (nn.Parameter(0.1 * torch.randn(case.V, K)) for _ in range(2))
    head = nn.ModuleList([visible, hidden, nn.ParameterList([W, U])])

    def loss(out: Any, y: Any, half: bool) -> Any:
        h, notes = out.flatten(0, 1), y.flatten(0, 1)
        below = torch.cumsum(notes[:, :, None] * W, dim=1) - notes[:, :, None] * W
        units = torch.sigmoid(hidden(h)[:, None] + below)
        return bce(visible(h) + (units * U).sum(dim=2), notes, reduction="sum") / case.N

    return Ends(embedding, head, x, y, loss)


class Around(nn.Module):
    """What each of 88 notes reads in a biaxial network without memory, mapped to (T, B·88, H)."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.near = nn.Linear(3 * OCTAVE + 1, case.H, bias=False)
        self.pitch = nn.Parameter(torch.randn(case.V, case.H))

    def forward(self, x: Any) -> Any:
        """Return the window and the octave's counts of notes x (T, B, 88), mapped."""
        window = nn.functional.pad(x, (OCTAVE, OCTAVE)).unfold(2, 2 * OCTAVE + 1, 1)
        octaves = nn.functional.pad(x, (0, -x.shape[2] % OCTAVE)).unflatten(2, (-1, OCTAVE)).sum(2)
        counts = octaves.repeat(1, 1, 1 - (-x.shape[2] // OCTAVE) + 1).unfold(2, OCTAVE, 1)
        near = torch.cat([window, counts[:, :, : x.shape[2]]], dim=3)
        return (self.near(near) + self.pitch).flatten(1, 2)


def row_ends(case: Case) -> Ends:
    """Return the same of a biaxial network: the batch is of 88 rows a piece."""
    lstm, head = nn.LSTM(case.H + 2 * OCTAVE, case.H), nn.Linear(case.H, 1)
    x = (torch.rand(case.T, case.B, case.V) < 0.05).float()
    y = (torch.rand(case.T, case.B, case.V) < 0.05).float()
    bce = nn.functional.binary_cross_entropy_with_logits

    def loss(out: Any, y: Any, half: bool) -> Any:
        h = out.unflatten(1, (case.B, case.V)).flatten(0, 1)
        notes = y.flatten(0, 1)
        counts = torch.zeros_like(notes)
        for octave in range(-(-case.V // OCTAVE)):
            counts = counts + nn.functional.pad(notes, (OCTAVE * octave, 0))[:, : case.V]
        below = [
            nn.functional.pad(a, (OCTAVE, 0))[:, :-1].unfold(1, OCTAVE, 1).flip(2)
            for a in (notes, counts)
        ]
        seen = torch.cat([h, *below], dim=2).transpose(0, 1)
        logits = head(lstm(seen)[0])[:, :, 0]
        return bce(logits, notes.T, reduction="sum") / case.N

    return Ends(Around(case), nn.ModuleList([lstm, head]), x, y, loss)
