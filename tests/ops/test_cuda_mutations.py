"""Bugs planted in the kernels' text: each must make the checks of test_cuda_ops.py fail."""

from typing import NamedTuple

import numpy as np
import pytest
import test_contract as contract
import test_cuda_ops
import test_lstm_sequence as sequences
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from small import random_recall

from lstm_music.arrays import Mixture
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.reference.copying import BUCKETS
from lstm_music.ops.reference.maths import Adam

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")


class Mutation(NamedTuple):
    """What to replace in a source's text, and the op that must then fail."""

    op: str
    before: str
    after: str


MUTATIONS = {
    "the barrier before the first step": Mutation(
        "lstm_sequence_forward", "__syncthreads();  // buffer(0) is whole", ""
    ),
    "the barrier before a step's products": Mutation(
        "lstm_sequence_forward", "__syncthreads();  // all have put theirs", ""
    ),
    "the barrier before the products going back": Mutation(
        "lstm_sequence_backward", "__syncthreads();  // all have put theirs", ""
    ),
    "one buffer for what is read and written": Mutation(
        "lstm_sequence_forward", "buffers + n % 2 * size", "buffers"
    ),
    "a stride of H for 4H": Mutation(
        "lstm_sequence_forward", "{Wh + column, 4 * H, H}", "{Wh + column, H, H}"
    ),
    "a tanh for the wrong gate": Mutation(
        "lstm_sequence_forward", "own.gate == 2);", "own.gate == 1);"
    ),
    "gates in the order of lanes": Mutation(
        "lstm_sequence_forward", "pick<4>(from, q ^ gate)", "from[q]"
    ),
    "gates of another row": Mutation(
        "lstm_sequence_forward", "pick<LSTM_ROWS>(of_rows, gate ^ s)",
        "pick<LSTM_ROWS>(of_rows, gate)",
    ),
    "rows in the order of lanes": Mutation(
        "lstm_sequence_backward", "pick<LSTM_ROWS>(from, r ^ gate)", "from[r]"
    ),
    "a reset dropped going forward": Mutation(
        "lstm_sequence_forward", "k[r] = exists && keep ? keep[row] : REAL(1);", "k[r] = REAL(1);"
    ),
    "another row's reset": Mutation(
        "lstm_sequence_forward", "pick<LSTM_ROWS>(k, own.row) * cell", "k[0] * cell"
    ),
    "a final state that is the first": Mutation(
        "lstm_sequence_forward", "cT[own.cell] = cell", "cT[own.cell] = c0[own.cell]"
    ),
    "an initial state that isn't kept": Mutation(
        "lstm_sequence_forward", "if (own.owns_cell) c[own.cell] = cell, h[own.cell] = made;", ""
    ),
    "a cell that forgets the step before": Mutation(
        "lstm_sequence_backward", "cell = others.v[1], kept", "kept"
    ),
    "a state before a reset that counts": Mutation(
        "lstm_sequence_backward", "own.owns_cell && kept == 0", "false"
    ),
    "a final gradient that is none": Mutation(
        "lstm_sequence_backward", "dhT ? dhT[own.cell] : REAL(0)", "REAL(0)"
    ),
    "a reset dropped going back": Mutation(
        "lstm_sequence_backward", "others.v[0] + kept * carried", "others.v[0] + carried"
    ),
    "two of the four shares of a gradient": Mutation(
        "lstm_sequence_backward", "lanes = 8; lanes < 32;", "lanes = 8; lanes < 16;"
    ),
    "a bias's gradient of the last step alone": Mutation(
        "lstm_sequence_backward", "total += value[r];", "total = value[r];"
    ),
    "a bias's gradient of the last block alone": Mutation(
        "lstm_sequence_backward", "db[blockIdx.x / CLUSTER * 4 * H + column]", "db[column]"
    ),
    "elements beyond a row that count": Mutation(
        "softmax_xent", "read_quad(logits, at, V, REAL(-INFINITY))", "read_quad(logits, at, V)"
    ),
    "four written where fewer are left": Mutation(
        "softmax_xent", "if (at + n < size) to[n]", "to[n]"
    ),
    "rows of logits that begin too soon": Mutation(
        "linear_softmax_xent", "(size_t)blockIdx.x * stride", "(size_t)blockIdx.x * V"
    ),
    "rows summed that begin too soon": Mutation(
        "linear_softmax_xent", "(size_t)n * stride", "(size_t)n * C"
    ),
    "terms of a step read before they come": Mutation(
        "lstm_step_forward", "__syncthreads();  // these terms have come", ""
    ),
    "terms of a step overwritten": Mutation(
        "lstm_step_forward", "__syncthreads();  // nobody reads them any more", ""
    ),
    "parts of a step's sums read before they are known": Mutation(
        "lstm_step_forward", "__syncthreads();  // all parts are known", ""
    ),
    "a step's units beyond the last": Mutation(
        "lstm_step_forward", "part >= UNITS || unit >= H || at >= B", "part >= UNITS || at >= B"
    ),
    "a step's state in place of its inputs": Mutation(
        "lstm_step_forward", "f.h[(size_t)row * f.H + k - f.E]", "f.h[(size_t)row * f.H + k]"
    ),
    "a cell's bound off by a row": Mutation(
        "lstm_cell_forward", "if (n >= B * H) return;", "if (n >= (B + 1) * H) return;"
    ),
    "the barrier of the loss": Mutation(
        "softmax_xent", "__syncthreads();  // the loss reads the target's logit", "//"
    ),
    "the barrier of the merged sums": Mutation(
        "softmax_xent", "sums[threadIdx.x / 32] = x.sum;\n    __syncthreads();",
        "sums[threadIdx.x / 32] = x.sum;",
    ),
    "a mixture's gradient of the whole scale": Mutation(
        "softmax_xent", "weight = scale * loss.share", "weight = scale"
    ),
    "another row's mixture": Mutation(
        "linear_softmax_xent", "mixed(nats_of(all, row, b, target), own, copied, blockIdx.x)",
        "mixed(nats_of(all, row, b, target), own, copied, 0)",
    ),
    "a mixture of the copies alone": Mutation(
        "mix_losses", "exp_of(network - top) + exp_of(copies - top)", "exp_of(copies - top)"
    ),
    "a mixture in which nothing is copied": Mutation(
        "mix_losses", "top = network > copies ? network : copies", "top = copies"
    ),
    "a mixture of notes that aren't asked for": Mutation(
        "sigmoid_xent", "used ? own : 0", "own"
    ),
    "a mixture of notes with all of the gradient": Mutation(
        "sigmoid_xent", "weight = scale * loss.share", "weight = scale"
    ),
    "a NADE's mixture with all of the gradient": Mutation(
        "nade_xent", "z[d] *= loss.share", "z[d] *= 1"
    ),
    "a candidate that isn't there": Mutation(
        "copy_shares", "found[k] == NOTHING ? REAL(0) :", "false ? REAL(0) :"
    ),
    "a network without its share": Mutation("copy_shares", "total += exp_of(-top);", ""),
    "scores that overflow": Mutation("copy_shares", "top = score > top ? score : top;", ""),
    "a bucket with its hit": Mutation("copy_shares", "found[k] % HIT", "found[k] % BUCKETS"),
    "right where there is nothing": Mutation(
        "copy_backward", "recall != NOTHING && recall >= HIT", "recall >= HIT"
    ),
    "a right candidate that loses": Mutation("copy_backward", "1 - exp_of(losses[n])", "REAL(1)"),
    "the barrier of the buckets' sums": Mutation(
        "copy_backward", "__syncthreads();  // all rows are added up", ""
    ),
    "half of the threads' sums": Mutation(
        "copy_backward", "other < THREADS; other += 32", "other < THREADS / 2; other += 32"
    ),
    "a row of the embedding gradient cut short": Mutation(
        "embedding_backward", "n = y; n < count; n += 8", "n = y; n < 2; n += 8"
    ),
    "ties of ids in any order": Mutation(
        "embedding_backward", "|| (four.v[m] == own && k + m < n)", ""
    ),
    "a dense gradient's row at its slot's place": Mutation(
        "embedding_backward_dense", "rows ? k : id", "k"
    ),
    "a dense gradient's row overwritten": Mutation(
        "embedding_backward_dense", "(rows || owns)", "true"
    ),
    "the barrier of the transposed sums": Mutation(
        "linear_softmax_xent", "parts[y][x] = sum;\n    __syncthreads();", "parts[y][x] = sum;"
    ),
    "Adam that forgets rows without a gradient": Mutation(
        "adam_step_rows", "const Quad gradients = gradient(tensor, n);",
        "const Quad gradients = gradient(tensor, n);\n"
        "        if (tensor.rows && !gradient_of_row(tensor, n)) continue;",
    ),
    "a note below that is skipped": Mutation(
        "note_embedding_forward", "d = next_note(notes, d + 1, D)", "d = next_note(notes, d + 2, D)"
    ),
    "the barrier of the notes' sums": Mutation(
        "note_embedding_backward", "__syncthreads();  // all parts are known", ""
    ),
    "a row without notes that counts": Mutation(
        "sigmoid_xent", "const bool used = y[0] != NO_NOTES;", "const bool used = true;"
    ),
    "a loss of notes without the bound of overflow": Mutation(
        "sigmoid_nll", "log1p_of(exp_of(x < 0 ? x : -x))", "log1p_of(exp_of(-x))"
    ),
    "the barrier before a segment's notes": Mutation(
        "nade_xent", "__syncthreads();  // s is whole", ""
    ),
    "the barrier after a segment's notes": Mutation(
        "nade_nll", "__syncthreads();  // s may be overwritten", ""
    ),
    "a segment that ends before its note": Mutation(
        "nade_nll", "stop = on < D ? on + 1 : D;", "stop = on < D ? on + (on == start) : D;"
    ),
    "a note that isn't taken back": Mutation(
        "nade_xent", "a -= W[(size_t)below * K + k];", ""
    ),
    "a gradient of W that forgets the notes above": Mutation(
        "nade_xent", "da += ds * s * (1 - s);", "da = ds * s * (1 - s);"
    ),
    "parts of a NADE's sums that overlap": Mutation(
        "nade_xent", "n = blockIdx.y; n < N; n += parts", "n = 0; n < N; n += 1"
    ),
    "the barrier before the lowest note drawn": Mutation(
        "nade_sample", "__syncthreads();  // all warps have looked", "//"
    ),
    "each warp's own lowest note": Mutation(
        "nade_sample", "on = found[w] < on ? found[w] : on", "on = on"
    ),
    "a decay without the learning rate": Mutation(
        "adam_step", "1 - inputs->lr * tensor.decay", "1 - tensor.decay"
    ),
    "a decay after the step": Mutation(
        "adam_step_rows", "shrink * p.v[k] - rate * m.v[k] / (sqrt_of(v.v[k] * correct2) + small);",
        "shrink * (p.v[k] - rate * m.v[k] / (sqrt_of(v.v[k] * correct2) + small));",
    ),
    "a mean that jumps": Mutation("average_step", "mean[n] += share *", "mean[n] = share *"),
    "a dropout word off by one": Mutation(
        "dropout", "bits.word[k] >= threshold", "bits.word[(k + 1) % 4] >= threshold"
    ),
    "a part's words from the whole's start": Mutation(
        "dropout", "t * whole + first;", "t * whole;"
    ),
    "a part's last word left out": Mutation(
        "dropout", "word >= start + n) continue", "word + 1 >= start + n) continue"
    ),
}  # fmt: skip


def cases(op):
    """Some fixed cases of an op that are hard on its kernel."""
    rng = np.random.default_rng(0)
    T, B, H, V, N = 3, 5, 13, 67, 40
    reals = rng.normal
    mix, recall = Mixture(*np.log(rng.random((2, 400)))), random_recall(rng, np.ones(400, bool), 3)
    mix.copied[1::3] = -np.inf
    ids = rng.integers(4, size=N, dtype=np.int32)
    keep = (rng.random((T, B)) < 0.6).astype(float)
    if op == "lstm_sequence_forward":
        return [sequences.forward_case(rng, T, B, h, True) for h in (H, 37)]
    if op == "lstm_sequence_backward":
        return [sequences.backward_case(rng, T, B, h, True) for h in (H, 37)]
    notes = test_cuda_ops.note_cases(rng, 7, 40, 37, 0.3)
    if op == "sigmoid_nll":
        notes[op].args["logits"] *= 400  # exp overflows
    if op in notes:
        given = {"mix": mix.rows(slice(7))} if op in ("sigmoid_xent", "nade_xent") else {}
        return [notes[op]._replace(args=notes[op].args | given)]
    unset = np.full((B, H), contract.UNSET)
    logits, targets = 3 * reals(size=(B, V)), np.array([3, 66, -1, 0, 40], np.int32)
    adam = {"how": Adam(0.1, 3, 0.5, 0.2, 0.9, 0.99, 1e-3)}
    moments = {"p": reals(size=(9, H)), "m": reals(size=(9, H)), "v": rng.random((9, H))}
    made = {
        "lstm_cell_forward": (
            {"gates": reals(size=(B, 4 * H)), "recurrent": reals(size=(B, 4 * H)), "keep": keep[0],
             "c_prev": reals(size=(B, H)), "c": unset, "h": unset.copy()},
            ("gates", "c", "h"),
        ),
        "lstm_step_forward": (
            {"x": reals(size=(70, 67)), "Wx": reals(size=(67, 4 * H)), "Wh": reals(size=(H, 4 * H)),
             "b": reals(size=4 * H), "h_prev": reals(size=(70, H)), "c_prev": reals(size=(70, H)),
             "c": np.full((70, H), contract.UNSET), "h": np.full((70, H), contract.UNSET)},
            ("c", "h"),
        ),
        "softmax_xent": (
            {"logits": logits, "targets": targets, "losses": np.full(B, np.nan), "scale": 0.3,
             "mix": mix.rows(slice(B))},
            ("logits", "losses"),
        ),
        "embedding_backward": ({"ids": ids, "dx": reals(size=(N, H))}, ()),
        "embedding_backward_dense": (
            {"ids": ids, "dx": reals(size=(N, H)), "dW": np.full((N, H), np.nan)}, ("dW",)
        ),
        "linear_softmax_xent": (
            {"h": reals(size=(B, H)), "W": reals(size=(H, V)), "b": reals(size=V),
             "targets": targets, "scale": 0.3, "losses": np.full(B, np.nan), "dh": unset,
             "dW": np.full((H, V), np.nan), "db": np.full(V, np.nan), "work": contract.WORK,
             "mix": mix.rows(slice(B))},
            ("losses", "dh", "dW", "db"),
        ),
        "mix_losses": ({"losses": 9 * rng.random(400), "mix": mix}, ("losses",)),
        "copy_shares": (
            {"scores": 300 * reals(size=(400, 3)), "recall": recall, "R": reals(size=(3, BUCKETS)),
             "mix": Mixture(*np.full((2, 400), np.nan))},
            ("scores", "mix"),
        ),
        "copy_backward": (
            {"shares": rng.random((400, 3)) / 3, "recall": recall, "losses": rng.random(400),
             "scale": 0.3, "dR": np.full((3, BUCKETS), np.nan)},
            ("shares", "dR"),
        ),
        "adam_step_rows": (
            moments | adam | {"g": contract.RowGradient(np.array([2, 5]), reals(size=(2, H)))},
            ("p", "m", "v"),
        ),
        "adam_step": (moments | adam | {"g": reals(size=(9, H))}, ("p", "m", "v")),
        "average_step": (
            {"p": reals(size=(B, H)), "mean": reals(size=(B, H)), "rate": 0.3}, ("mean",)
        ),
        "dropout": (
            {
                "x": reals(size=(3, B, H)), "p": 0.4, "seed": 1, "stream": 2, "step": 3,
                "first": 2, "whole": B + 5,
            },
            ("x",),
        ),
    }[op]  # fmt: skip
    return [contract.Case(*made)]


def check(op, mutate):
    cupy = HostCupy(multiprocessors=2)
    cupy.mutate = mutate
    ops = CupyOps("float64", cupy=cupy)
    for case in cases(op):
        contract.compare(ops, op, case)


@pytest.mark.parametrize("op", sorted({m.op for m in MUTATIONS.values()}))
def test_the_checks_pass_without_a_mutation(op):
    check(op, lambda code: code)


@pytest.mark.slow(keep=3)
@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_mutations_are_caught(mutation):
    planted = []

    def mutate(code):
        planted.append(mutation.before in code)
        return code.replace(mutation.before, mutation.after)

    with pytest.raises(AssertionError):
        check(mutation.op, mutate)
    assert any(planted), "the text to change is no longer in the kernel"
