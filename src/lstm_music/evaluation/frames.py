"""Likelihood and accuracy of models and baselines of piano rolls, over all 2^88 sets of notes.

Nats per frame: the negative log-likelihood of all frames of a split, the first of each piece
included, over their number. Frame accuracy: TP / (TP + FP + FN), each summed over all frames, of
what the model holds likelier before it sees a frame (Bay et al. 2009).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstm_music.arrays import Array, Mixture
from lstm_music.corpus.rolls import RollCorpus
from lstm_music.midi.roll import NOTES, Frames
from lstm_music.network.baselines import (
    Baseline,
    IndependentNotes,
    fit_share,
    mixed_nats,
    note_unigram,
)
from lstm_music.network.biaxial import BiaxialHead
from lstm_music.network.heads import linear
from lstm_music.network.model import Model, part
from lstm_music.network.notes import NadeHead, SigmoidHead
from lstm_music.network.recall import REST, RecallRules
from lstm_music.network.recall_rules import frame_of_code, frame_says, frame_words
from lstm_music.tokenizers.chords import SPECIALS, frames_of_words
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.training.validation import per_piece

CHUNK = 64 << 20  # bytes of logits at once

# Boulanger-Lewandowski et al. 2012 (table 1; HF: Hessian-free), Bai et al. 2018, Krishnan et al.
# 2017, Johnson 2017 (the best of several), Walder 2016, Gu et al. 2015 (an estimate): nats per
# frame and accuracy in % on the test split; None where the paper gives none. None of these networks
# remembers a piece otherwise than in its state.
PUBLISHED: dict[str, list[tuple[str, float, float | None]]] = {
    "piano-midi": [
        ("RNN", 8.37, None), ("RNN-RBM", 7.09, None), ("RNN-NADE", 7.48, 20.7),
        ("RNN-NADE (HF)", 7.05, None), ("DMM-Aug-NADE", 7.05, None),
        ("LSTM-NADE", 7.36, None), ("TP-LSTM-NADE", 5.44, None), ("BALSTM", 4.90, None),
        ("LSTM, 12 keys", 5.43, None), ("NASMC", 7.61, None),
    ],
    "nottingham": [
        ("RNN", 4.46, None), ("LSTM (Bai)", 3.29, None), ("RNN-RBM", 2.39, None),
        ("RNN-NADE", 2.91, 65.0), ("RNN-NADE (HF)", 2.31, None), ("DMM-Aug-NADE", 2.31, None),
        ("LSTM-NADE", 2.02, None), ("TP-LSTM-NADE", 1.61, None), ("BALSTM", 1.55, None),
        ("LSTM, 12 keys", 1.66, None), ("NASMC", 2.72, None),
    ],
    "muse": [
        ("RNN", 8.13, None), ("RNN (HF)", 7.19, None), ("RNN-RBM", 6.01, None),
        ("RNN-NADE", 6.74, 24.9), ("RNN-NADE (HF)", 5.60, None), ("DMM-Aug-NADE", 6.05, None),
        ("LSTM-NADE", 5.02, None), ("TP-LSTM-NADE", 4.32, None), ("BALSTM", 3.90, None),
        ("LSTM, 12 keys", 4.46, None), ("NASMC", 6.89, None),
    ],
    "jsb": [
        ("RNN", 8.71, None), ("LSTM (Bai)", 8.45, None), ("RNN-RBM", 6.27, None),
        ("RNN-NADE", 5.83, 32.1), ("RNN-NADE (HF)", 5.56, None), ("DMM-Aug-NADE", 5.12, None),
        ("LSTM-NADE", 6.00, None), ("TP-LSTM-NADE", 5.88, None), ("BALSTM", 5.05, None),
        ("LSTM, 12 keys", 4.34, None), ("NASMC", 3.99, None),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class FrameScore:
    """How well frames were predicted.

    nats: by piece, of each frame (n,); hits, misses, false_alarms: notes over all frames.
    """

    nats: list[Array]
    hits: int
    misses: int
    false_alarms: int

    @property
    def frames(self) -> int:
        """The number of frames."""
        return sum(map(len, self.nats))

    @property
    def nats_per_frame(self) -> float:
        """All nats over all frames."""
        return float(sum(n.sum(dtype="float64") for n in self.nats)) / self.frames

    @property
    def nats_per_frame_by_piece(self) -> float:
        """The mean over pieces of their own nats per frame, which some papers quote."""
        return float(np.mean([n.mean(dtype="float64") for n in self.nats]))

    @property
    def accuracy(self) -> float:
        """TP / (TP + FP + FN), 0 to 1."""
        return self.hits / max(self.hits + self.misses + self.false_alarms, 1)


def scored(nats: list[Array], predicted: Sequence[Frames], real: Sequence[Frames]) -> FrameScore:
    """Return the score of predicted frames (n, 88), by piece, for the real ones."""
    guess, truth = (np.concatenate(frames).astype(np.bool_) for frames in (predicted, real))
    hits = int((guess & truth).sum())
    return FrameScore(nats, hits, int(truth.sum()) - hits, int(guess.sum()) - hits)


def score_baseline(baseline: Baseline, real: Sequence[Frames]) -> FrameScore:
    """Return the score of a baseline on some pieces' frames."""
    guesses = [np.tile(baseline.likeliest(), (len(frames), 1)) for frames in real]
    return scored([baseline.nats(frames) for frames in real], guesses, real)


def score_notes(
    model: Model, corpus: RollCorpus, split: str, B: int, T: int, progress: bool = False
) -> FrameScore:
    """Return the score of a model with a sigmoid or NADE head, each piece read whole."""

    def score(h: Array, targets: Array, recall: Array | None) -> tuple[Array, ...]:
        ops = model.ops
        assert isinstance(model.head, SigmoidHead | NadeHead | BiaxialHead)
        losses = model.head.losses(ops, part(model.parameters, "head"), h, targets, ops.workspace())
        shares, mix = gate_shares(model, h, recall)
        if mix is not None:
            ops.mix_losses(losses, mix)
        even = ops.asarray(np.full((len(h), NOTES), 0.5))
        return ops.to_numpy(losses), ops.to_numpy(model.draw(h, even, 1.0)), shares

    found = per_piece(model, corpus, split, B, T, score, progress)
    nats, predicted, shares = (list(parts) for parts in zip(*found, strict=True))
    if model.gate is not None:
        for piece, guess, share in zip(corpus.splits[split], predicted, shares, strict=True):
            frames = corpus.frames(piece)
            copy_likelier(corpus.recall, frame_words(frames), frames, guess, share)
    return scored(nats, predicted, corpus.split_frames(split))


# Copies -----------------------------------------------------------------------------------------


def gate_shares(model: Model, h: Array, recall: Array | None) -> tuple[Array, Mixture | None]:
    """Return the shares of candidates (N, K) on the host, and the mixture; none without a gate."""
    if model.gate is None or recall is None:
        return np.zeros((len(h), 0), np.float32), None
    ops = model.ops
    p, work = part(model.parameters, "copy"), ops.workspace()
    shares, mix = model.gate.shares(ops, p, h, recall, work)
    return ops.to_numpy(shares).copy(), mix


def copy_likelier(
    rules: RecallRules, words: Array, frames: Frames, guess: Frames, shares: Array
) -> None:
    """Overwrite guesses (n, 88) by what has more than half of the shares (n, K) of all there is.

    words (n, FIELDS), frames (n, 88): the piece, as the network read it. Which places are found
    depends on how words are numbered: they must be those that the shares are of.
    """
    from lstm_music.network.compiled_recall import recalled

    codes = recalled(rules, words)[1]
    says = {rest: frame_says(frame)[0] for rest, frame in zip(words[:, REST], frames, strict=True)}
    for t in np.flatnonzero(shares[: len(codes)].sum(axis=1) > 0.5):
        sums: defaultdict[int, float] = defaultdict(float)
        for code, share in zip(codes[t].tolist(), shares[t].tolist(), strict=True):
            sums[code] += share
        code = max(sums, key=sums.__getitem__)
        frame = frame_of_code(says, code) if sums[code] > 0.5 else None
        if frame is not None:
            guess[t] = frame


# Chords -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldNotes:
    """Notes that go on or begin, each with probabilities of its own: what chords back off to.

    first (88,): on in a piece's first frame; on (2, 88): on after a frame in which it was off, on.
    """

    first: IndependentNotes
    on: Array

    def probabilities(self, frames: Frames) -> Array:
        """Return the probability of each frame of a piece (n, 88) after the one before, (n,)."""
        p = np.where(frames[:-1], self.on[1], self.on[0])
        nats = -np.where(frames[1:], np.log(p), np.log1p(-p)).sum(axis=1)
        probabilities: Array = np.exp(-np.concatenate([self.first.nats(frames[:1]), nats]))
        return probabilities


def fit_held_notes(train: Sequence[Frames]) -> HeldNotes:
    """Return the shares of some pieces' notes, one added to each count (Laplace)."""
    before = np.concatenate([frames[:-1] for frames in train]).astype(np.bool_)
    after = np.concatenate([frames[1:] for frames in train])
    on = [((after * was).sum(axis=0) + 1) / (was.sum(axis=0) + 2) for was in (~before, before)]
    return HeldNotes(note_unigram(train), np.array(on))


def chord_probabilities(
    model: Model, corpus: RollCorpus, split: str, B: int, T: int, progress: bool = False
) -> tuple[list[Array], list[Frames]]:
    """Return, by piece, the softmax's probability of each chord (n,), and the likeliest chords.

    The end of the piece is no chord: the others share its probability. A chord that the
    vocabulary doesn't hold has none.
    """
    end = corpus.vocabulary.id(PIECE_END)
    p = part(model.parameters, "head")
    ops = model.ops
    rows = max(1, CHUNK // (len(p["b"]) * ops.dtype.itemsize))

    def score(h: Array, targets: Array, recall: Array | None) -> tuple[Array, ...]:
        shares, mix = gate_shares(model, h, recall)
        known, likeliest = np.zeros(len(h)), np.zeros(len(h), np.int32)
        for start in range(0, len(h), rows):
            part_of = slice(start, start + rows)
            logits = linear(ops, h[part_of], p["W"], p["b"], ops.workspace(), "logits")
            logits[:, end] = -np.inf
            top = logits.max(axis=1)
            total = ops.xp.exp(logits - top[:, None]).sum(axis=1)
            ids = targets[part_of]
            at = logits[ops.xp.arange(len(ids)), ids.clip(0)]
            share = ops.xp.exp(at - top) / total
            known[part_of] = ops.to_numpy(ops.xp.where(ids >= 0, share, 0))
            likeliest[part_of] = ops.to_numpy(logits.argmax(axis=1))
        if mix is not None:
            known = known * np.exp(ops.to_numpy(mix.own)) + np.exp(ops.to_numpy(mix.copied))
        return known, likeliest, shares

    found = per_piece(model, corpus, split, B, T, score, progress)
    chords = np.zeros((len(corpus.vocabulary), NOTES), np.uint8)
    chords[len(SPECIALS) :] = frames_of_words(corpus.vocabulary.words[len(SPECIALS) :])
    guesses = [chords[ids[:-1]] for _, ids, _ in found]
    if model.gate is not None:
        source = corpus.source([])
        for piece, guess, (_, _, shares) in zip(corpus.splits[split], guesses, found, strict=True):
            first, stop = corpus.id_offsets[piece : piece + 2]
            read = chords[corpus.ids[first : stop - 1]]  # the nearest known for one never seen
            words = source.words(piece, corpus.recall)[:-1]
            copy_likelier(corpus.recall, words, read, guess, shares)
    return [known[:-1] for known, *_ in found], guesses


def score_chords(
    model: Model, corpus: RollCorpus, split: str, B: int, T: int, progress: bool = False
) -> tuple[FrameScore, float]:
    """Return the score of a chord model, and the share λ of what it backs off to.

    A frame's likelihood is (1-λ)·softmax + λ·HeldNotes, whose shares are those of the training
    split; λ makes the validation split likeliest.
    """
    back_off = fit_held_notes(corpus.split_frames("train"))

    def pieces(of: str) -> tuple[list[Array], list[Array], list[Frames]]:
        known, likeliest = chord_probabilities(model, corpus, of, B, T, progress)
        return known, [back_off.probabilities(f) for f in corpus.split_frames(of)], likeliest

    known, others, _ = pieces("valid")
    share = fit_share(np.concatenate(known), np.concatenate(others))
    known, others, likeliest = pieces(split)
    nats = [mixed_nats(share, k, q) for k, q in zip(known, others, strict=True)]
    return scored(nats, likeliest, corpus.split_frames(split)), share
