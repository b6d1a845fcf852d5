"""A network of two axes: what is learnt of one key is learnt of all.

Each of D notes is a row of its own that goes through the same LSTM layers over time, and reads the
notes around it. A further LSTM, over the notes of a frame from the lowest up, says how likely each
is given those below. Source: Johnson 2017, "Generating Polyphonic Music Using Tied Parallel
Networks"; here with each note's own row too, and with what a copy gate's candidates say of the
note.

An input (N, D + 2 + K·(D + 1)) uint8: the last frame's notes 0/1, the start symbol, how many frames
came before, modulo PLACES; the frame that each of K candidates tells, 0/1, and each one's bucket,
from 1, 0 for none. Outputs are (N, D·H), a note's H after another's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from lstm_music.arrays import NO_NOTES, Array, Mixture, RowGradient
from lstm_music.network.embedding import Shapes, normal_parameters
from lstm_music.network.heads import linear_grads, uniform_parameters
from lstm_music.network.lstm import lstm_backward, lstm_forward, lstm_init, lstm_step
from lstm_music.ops import NumpyOps, Workspace
from lstm_music.ops.reference.copying import BUCKETS, LONG

OCTAVE = 12
WINDOW = range(-OCTAVE, OCTAVE + 1)  # of the notes that a note reads
PLACES = 48  # frames after which places repeat: whole bars of three and of four
METERS = (16, 12)  # a place is told modulo these
KINDS_FROM = (0, 1, 3, 5, LONG, BUCKETS)  # buckets that a note tells apart: the first of each kind
KINDS = len(KINDS_FROM) - 1
BELOW = 2 * OCTAVE  # inputs of a note that tell of the notes below it


def row_width(D: int, K: int) -> int:
    """Return how long an input is, of D notes and K candidates."""
    return D + 2 + K * (D + 1)


@dataclass(frozen=True)
class Neighbourhood:
    """What each note reads, as E numbers: the notes around it, their places in the octave, itself.

    Parameters: "W" (F, E) of the WINDOW, the octave and what each candidate says of the note;
    "frame" (G, E) of what all notes read alike; "pitch" (D, E) of the note itself.
    """

    D: int
    E: int
    K: int = 0

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        F = len(WINDOW) + OCTAVE + KINDS * self.K
        G = 1 + sum(METERS) + BUCKETS * self.K
        return {"W": (F, self.E), "frame": (G, self.E), "pitch": (self.D, self.E)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: W normal, of variance 1; nothing of the frame or the pitch."""
        p = normal_parameters(ops, rng, {"W": self.shapes()["W"]})
        rest = {name: np.zeros(self.shapes()[name]) for name in ("frame", "pitch")}
        return p | {name: ops.asarray(value) for name, value in rest.items()}

    def forward(
        self, ops: NumpyOps, p: Mapping[str, Array], x: Array, out: Array, work: Workspace
    ) -> None:
        """Write what each note reads of x to out (N, D·E)."""
        N, rows = len(x), out.reshape(len(x) * self.D, self.E)
        near, frame = self._read(ops, x, work)
        ops.matmul(near.T, p["W"], rows)
        alike = work.array("alike", (N, self.E))
        ops.matmul(frame, p["frame"], alike)
        self._add(rows, p["pitch"], alike)

    def step(
        self, ops: NumpyOps, p: Mapping[str, Array], x: Array, out: Array, work: Workspace
    ) -> None:
        """As forward, for sampling: a row's bits don't depend on the others."""
        rows = out.reshape(len(x) * self.D, self.E)
        near, frame = self._read(ops, ops.asarray(x, np.uint8), work)
        ops.affine(ops.asarray(near.T), p["W"], None, rows)
        alike = ops.xp.empty((len(x), self.E), ops.dtype)
        ops.affine(frame, p["frame"], None, alike)
        self._add(rows, p["pitch"], alike)

    def _add(self, rows: Array, pitch: Array, alike: Array) -> None:
        notes = rows.reshape(len(alike), self.D, self.E)
        notes += pitch
        notes += alike[:, None]

    def backward(
        self, ops: NumpyOps, p: Mapping[str, Array], x: Array, dx: Array, work: Workspace
    ) -> dict[str, Array | RowGradient]:
        """Return {"W", "frame", "pitch"}; dx (N, D·E), of the x that was last read."""
        N, F, G = len(x), len(p["W"]), len(p["frame"])
        grads = {name: work.array("d" + name, p[name].shape) for name in p}
        notes = dx.reshape(N, self.D, self.E)
        near, frame = work.array("near", (F, N * self.D)), work.array("frame", (N, G))
        ops.matmul(near, dx.reshape(N * self.D, self.E), grads["W"])
        dalike = work.array("dalike", (N, self.E))
        ops.xp.sum(notes, axis=1, out=dalike)
        ops.matmul(frame.T, dalike, grads["frame"])
        ops.xp.sum(notes, axis=0, out=grads["pitch"])
        return {**grads}

    def _read(self, ops: NumpyOps, x: Array, work: Workspace) -> tuple[Array, Array]:
        """Return what notes read each for itself (F, N·D), and all alike (N, G)."""
        xp, D, K, N = ops.xp, self.D, self.K, len(x)
        shapes = self.shapes()
        near = work.array("near", (shapes["W"][0], N * D))
        rows = near.reshape(-1, N, D)
        wide = xp.zeros((N, D + 2 * OCTAVE), ops.dtype)
        wide[:, OCTAVE:-OCTAVE] = x[:, :D]
        for n in range(len(WINDOW)):
            rows[n] = wide[:, n : n + D]
        octaves = -(-D // OCTAVE)
        padded = xp.zeros((N, octaves, OCTAVE), ops.dtype)
        padded.reshape(N, -1)[:, :D] = x[:, :D]
        counts = xp.empty((N, octaves + 1, OCTAVE), ops.dtype)  # of a place of the octave, at each
        counts[...] = padded.sum(axis=1)[:, None]
        for n in range(OCTAVE):
            rows[len(WINDOW) + n] = counts.reshape(N, -1)[:, n : n + D]
        buckets = x[:, D + 2 + K * D :]  # from 1
        for k in range(K):
            told, bucket = x[:, D + 2 + k * D : D + 2 + (k + 1) * D], buckets[:, k, None]
            for kind, (first, stop) in enumerate(pairwise(KINDS_FROM)):
                own = rows[len(WINDOW) + OCTAVE + KINDS * k + kind]
                xp.multiply(told, (bucket > first) * (bucket <= stop), out=own)
        frame = work.array("frame", (N, shapes["frame"][0]))
        frame[:, 0] = x[:, D]
        first = 1
        for size in METERS:
            frame[:, first : first + size] = (x[:, D + 1] % size)[:, None] == xp.arange(size)
            first += size
        one_hot = buckets[:, :, None] == xp.arange(1, BUCKETS + 1)
        frame[:, first:] = one_hot.reshape(N, -1)
        return near, frame


@dataclass(frozen=True)
class BiaxialHead:
    """D notes, each given its own output and the notes below it, by an LSTM from the lowest up.

    A note reads its output (H), whether each of the OCTAVE below it sounds, and how many do that
    lie so far below it and octaves below that. Parameters: those of an LSTM of K units, "Wo" (K, 1)
    and "bo" (1,). Targets as for SigmoidHead.
    """

    wide: ClassVar[tuple[str, ...]] = ()
    H: int
    D: int
    K: int

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        H, K = self.H + BELOW, self.K
        return {"Wx": (H, 4 * K), "Wh": (K, 4 * K), "b": (4 * K,), "Wo": (K, 1), "bo": (1,)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: those of an LSTM; Wo uniform in ±1/√K, bo 0."""
        out = {name: shape for name, shape in self.shapes().items() if name.endswith("o")}
        return lstm_init(ops, rng, self.H + BELOW, self.K) | uniform_parameters(ops, rng, out)

    @staticmethod
    def targets(y: Array) -> Array:
        """Return notes (N, D) as the losses take them."""
        return y

    @staticmethod
    def losses(
        ops: NumpyOps, p: Mapping[str, Array], h: Array, targets: Array, work: Workspace
    ) -> Array:
        """Return the nats of each row of notes. h (N, D·H), targets (N, D) -> (N,)."""
        losses = work.array("losses", (len(h),))
        logits, _, _ = _logits(ops, p, h, targets, work)
        ops.sigmoid_nll(logits, targets, losses)
        return losses

    @staticmethod
    def losses_and_grads(
        ops: NumpyOps,
        p: Mapping[str, Array],
        h: Array,
        targets: Array,
        scale: float,
        work: Workspace,
        mix: Mixture | None = None,
    ) -> tuple[Array, Array, dict[str, Array]]:
        """Return losses (N,), dh (N, D·H) and each gradient, of scale · Σ losses."""
        (N, D), K = targets.shape, len(p["Wo"])
        losses, dh = work.array("losses", (N,)), work.array("dh_head", h.shape)
        logits, y, cache = _logits(ops, p, h, targets, work)
        ops.sigmoid_xent(logits, targets, losses, scale, mix)
        d = work.array("dlogits", (D * N, 1))
        d.reshape(D, N)[...] = logits.T
        grads = linear_grads(ops, p, y.reshape(D * N, K), d, work, "Wo", "bo")
        dy = work.array("dy", (D, N, K))
        ops.matmul(d, p["Wo"].T, dy.reshape(D * N, K))
        dx, _, found = lstm_backward(ops, p, dy, None, None, cache, work.part("notes"))
        dh.reshape(N, D, -1)[...] = dx[:, :, :-BELOW].swapaxes(0, 1)
        return losses, dh, grads | found

    @staticmethod
    def draw(
        ops: NumpyOps, p: Mapping[str, Array], h: Array, draws: Array, temperature: float
    ) -> Array:
        """Return notes (B, D) uint8 drawn by uniform numbers draws (B, D); 0.5 takes the likelier.

        Each note's log-odds, given those below it, are divided by temperature.
        """
        xp, (B, D), K = ops.xp, draws.shape, len(p["Wo"])
        outputs, H = h.reshape(B, D, -1), h.shape[1] // D
        notes: Array = xp.empty((B, D), np.uint8)
        x = xp.zeros((B, H + BELOW), ops.dtype)
        below = x[:, H:]  # whether those below sound, and how many an octave apart do
        state = xp.zeros((B, K), ops.dtype), xp.zeros((B, K), ops.dtype)
        logits = xp.empty((B, 1), ops.dtype)
        for d in range(D):
            x[:, :H] = outputs[:, d]
            state = lstm_step(ops, p, x, *state)
            ops.affine(state[0], p["Wo"], p["bo"], logits)
            z = logits[:, 0] / temperature
            notes[:, d] = draws[:, d] < xp.tanh(z / 2) / 2 + 0.5
            before = below.copy()
            below[:, 1:] = before[:, :-1]
            below[:, 0] = notes[:, d]
            below[:, OCTAVE] = before[:, -1] + notes[:, d]
        return notes


def _logits(
    ops: NumpyOps, p: Mapping[str, Array], h: Array, targets: Array, work: Workspace
) -> tuple[Array, Array, Any]:
    """Return the log-odds (N, D) of notes given those below, the LSTM's outputs (D, N, K), cache.

    h (N, D·H).
    """
    xp, (N, D), K = ops.xp, targets.shape, len(p["Wo"])
    H = h.shape[1] // D
    x = work.array("x", (D, N, H + BELOW))
    x[:, :, :H] = h.reshape(N, D, H).swapaxes(0, 1)
    sounds = xp.zeros((D + OCTAVE, N), ops.dtype)
    sounds[OCTAVE:] = (targets * (targets[:, :1] != NO_NOTES)).T
    counts = sounds.copy()
    for d in range(OCTAVE, D, OCTAVE):
        octave = counts[OCTAVE + d : OCTAVE + d + OCTAVE]
        octave += counts[d : d + len(octave)]
    for n in range(OCTAVE):
        x[:, :, H + n] = sounds[OCTAVE - 1 - n : OCTAVE - 1 - n + D]
        x[:, :, H + OCTAVE + n] = counts[OCTAVE - 1 - n : OCTAVE - 1 - n + D]
    zero = xp.zeros((N, K), ops.dtype)
    y, _, cache = lstm_forward(ops, p, x, zero, zero, None, work.part("notes"))
    tall = work.array("tall", (D * N, 1))
    ops.matmul(y.reshape(D * N, K), p["Wo"], tall)
    tall += p["bo"]
    logits = work.array("logits", (N, D))
    logits[...] = tall.reshape(D, N).T
    return logits, y, cache
