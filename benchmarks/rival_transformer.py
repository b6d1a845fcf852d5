"""The transformer of transformer.py: pre-norm, GELU, a tied head, rotary or learned positions."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lstm_music.arrays import NO_TARGET


class Shape(NamedTuple):
    """words, layers, width, heads; context: tokens that a position attends to, itself included."""

    words: int
    layers: int = 3
    width: int = 128
    heads: int = 4
    context: int = 256
    dropout: float = 0.1
    positions: str = "rotary"


class Attention(nn.Module):
    """Causal self-attention; turn: cosines and sines of rotary positions."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.heads = s.heads
        self.qkv, self.out = nn.Linear(s.width, 3 * s.width), nn.Linear(s.width, s.width)

    def forward(self, x: Tensor, turn: Tensor | None) -> Tensor:
        """Return (B, T, width) for x (B, T, width)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if turn is not None:
            q, k = turned(q, turn), turned(k, turn)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return mixed


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Return heads' queries or keys (B, heads, T, d) turned by their positions."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = turn.to(x.dtype)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)


class Block(nn.Module):
    """Attention and an MLP, each after a norm and added to what it reads."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(s.width), nn.LayerNorm(s.width)
        self.attention = Attention(s)
        self.up, self.down = nn.Linear(s.width, 4 * s.width), nn.Linear(4 * s.width, s.width)
        self.drop = nn.Dropout(s.dropout)

    def forward(self, x: Tensor, turn: Tensor | None) -> Tensor:
        """Return (B, T, width) for x (B, T, width)."""
        x = x + self.drop(self.attention(self.norm1(x), turn))
        more: Tensor = self.drop(self.down(F.gelu(self.up(self.norm2(x)))))
        return x + more


class Transformer(nn.Module):
    """Ids (B, T) → logits of the next ones (B, T, words); the embedding is the head, too."""

    turn: Tensor

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.shape = s
        self.embedding, self.drop = nn.Embedding(s.words, s.width), nn.Dropout(s.dropout)
        self.blocks = nn.ModuleList([Block(s) for _ in range(s.layers)])
        self.norm, self.bias = nn.LayerNorm(s.width), nn.Parameter(torch.zeros(s.words))
        half = s.width // s.heads // 2
        angles = torch.arange(s.context)[:, None] * 10_000 ** -(torch.arange(half) / half)
        self.register_buffer("turn", torch.stack([angles.cos(), angles.sin()]))
        learnt = s.positions == "learned"
        self.positions = nn.Parameter(torch.zeros(s.context, s.width)) if learnt else None
        for name, p in self.named_parameters():
            if p.dim() == 2:
                ends = name.endswith(("out.weight", "down.weight"))  # what is added to x
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * s.layers) if ends else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, T, words) of what follows each id."""
        T, x = ids.shape[1], self.embedding(ids)
        turn = self.turn[:, :T] if self.positions is None else None
        x = self.drop(x if self.positions is None else x + self.positions[:T])
        for block in self.blocks:
            x = block(x, turn)
        return F.linear(self.norm(x), self.embedding.weight, self.bias)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the nats (B, T) of targets y, 0 where there is none."""
        logits = self(x).float()
        nats = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=NO_TARGET,
                               reduction="none")  # fmt: skip
        return nats.view_as(y)
