"""Ours against PyTorch on one machine: `python benchmarks/rivals.py --device cpu --json FILE`.

Each rival lives in a process of its own, with the same threads; rounds go A B A B, and the other
one sleeps meanwhile. Medians of the rounds. The bound of a training case is its GEMMs alone, at the
same sizes; that of sampling is the weights' bytes over the measured rate of reading so many bytes.
Needs torch (pip install 'lstm-music[oracle]').
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A model's sizes and what is timed: steps of training, or tokens of sampling a round.

    kind: train; sample, of all words; sample-strict, of those that the rules of music allow (the
    rival computes and draws from all the same).
    """

    kind: str
    V: int
    B: int
    T: int
    rounds_of: int
    E: int = 128
    H: int = 128
    L: int = 2
    head: str = "softmax"
    K: int = 128


CASES = {
    "train-v35509": Case("train", 35_509, 50, 50, 1),
    "train-v600": Case("train", 600, 50, 50, 5),
    "train-v126k": Case("train", 126_000, 25, 25, 1),
    "train-note-sigmoid": Case("train", 88, 50, 50, 5, head="sigmoid"),
    "train-note-nade": Case("train", 88, 50, 50, 5, head="nade"),
    "train-chord-jsb": Case("train", 2_421, 8, 64, 10),
    "train-chord-muse": Case("train", 39_290, 32, 64, 1),
    "sample-v35509": Case("sample", 35_509, 1, 1, 200),
    "sample-v35509-strict": Case("sample-strict", 35_509, 1, 1, 200),
    "sample-v600": Case("sample", 600, 1, 1, 1000),
    "sample-v600-batch64": Case("sample", 600, 64, 1, 100),
}
Round = Callable[[], None]


NOTES_AT_ONCE = 3.5  # as in MuseData


def random_batch(case: Case) -> tuple[Any, Any]:
    """Return inputs and targets, the same for both: ids (T, B), or notes (T, B, 89 and 88)."""
    import numpy as np

    rng = np.random.default_rng(0)
    if case.head != "softmax":
        x = rng.random((case.T, case.B, case.V + 1)) < NOTES_AT_ONCE / case.V
        y = rng.random((case.T, case.B, case.V)) < NOTES_AT_ONCE / case.V
        return x.astype(np.uint8), y.astype(np.uint8)
    shape = (2, case.T, case.B)
    x, y = rng.integers(0, case.V, shape, dtype=np.int32)
    return x, y


def ours(case: Case, threads: int, mode: str) -> Round:
    """Return a round of ours."""
    import lstm_music  # noqa: F401  (before NumPy: it sets how the BLAS's threads wait)
    from lstm_music.arrays import Batch
    from lstm_music.cli.common import limit_threads
    from lstm_music.network.config import Config
    from lstm_music.network.model import Model
    from lstm_music.network.optim import Optimizer, clip_scale, global_norm
    from lstm_music.ops import get_ops

    limit_threads(threads, "auto")
    ops = get_ops("auto")
    model = Model(Config(case.V, case.E, case.H, case.L, head=case.head, nade=case.K), ops)
    if case.kind != "train":
        return our_sampling(case, model)
    optimizer = Optimizer(ops, "adam", model.parameters)
    x, y = random_batch(case)
    batch = Batch(x, y, None, case.T * case.B)
    state = model.zero_state(case.B)

    def run() -> None:
        nonlocal state
        for _ in range(case.rounds_of):
            _, grads, state = model.loss_and_grads(batch, state)
            scale = clip_scale(global_norm(ops, grads), 5.0)
            optimizer.step(model.parameters, grads, 1e-3, scale)

    return run


def our_sampling(case: Case, model: Any) -> Round:
    """Return a round of drawing tokens at temperature 1: all words, or those allowed."""
    from lstm_music.sampling.composer import sample_on_cpu
    from lstm_music.sampling.options import Options
    from lstm_music.sampling.rules import message_rules

    free = case.kind != "sample-strict"
    habits = (8000, 4, 12)  # as of the bundled Bach
    rules = message_rules(message_words(case.V), "merge", *habits, free=free)
    options = Options(length=case.rounds_of)
    primers: list[list[int]] = [[]] * case.B

    def run() -> None:
        sample_on_cpu(model, primers, options, rules, lambda *_: None)

    return run


def message_words(V: int) -> Any:
    """Return a vocabulary of messages of all keys of a piano, with as many times as V asks for."""
    from itertools import count, islice, product

    import numpy as np

    from lstm_music.tokenizers.messages import PIECE_END
    from lstm_music.tokenizers.vocabulary import Vocabulary

    messages = (
        f"note-{kind}-{pitch}-{ticks}"
        for ticks in count(0, 20)
        for pitch, kind in product(range(21, 109), ("on", "off"))
    )
    words = list(islice(messages, V - 1))
    np.random.default_rng(0).shuffle(words)  # as by frequency, not by kind
    return Vocabulary([PIECE_END, *words])


def pytorch(case: Case, threads: int, mode: str) -> Round:
    """Return a round of PyTorch: "eager", or the step under torch.compile."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    embedding = nn.Embedding(case.V, case.E)
    lstm = nn.LSTM(case.E, case.H, case.L)
    head = nn.Linear(case.H, case.V)
    zero = torch.zeros(case.L, case.B, case.H)
    state = (zero, zero)
    if case.kind != "train":

        @torch.inference_mode()
        def draw() -> None:
            nonlocal state
            x = torch.zeros(1, case.B, dtype=torch.long)
            for _ in range(case.rounds_of):
                h, state = lstm(embedding(x), state)
                x = torch.multinomial(torch.softmax(head(h[0]), dim=-1), 1).T

        return draw

    x, y = (torch.from_numpy(a) for a in random_batch(case))
    if case.head == "softmax":
        x, y = x.long(), y.long().reshape(-1)

        def loss_of(out: Any) -> Any:
            return nn.functional.cross_entropy(head(out).reshape(-1, case.V), y)

    else:
        embedding, head, loss_of = note_layers(case, y.float())
        x = x.float()
    parameters = [*embedding.parameters(), *lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3)

    def forward(h: Any, c: Any) -> Any:
        out, (h, c) = lstm(embedding(x), (h, c))
        return loss_of(out), h, c

    if mode == "compile":
        forward = torch.compile(forward)

    def run() -> None:
        nonlocal state
        for _ in range(case.rounds_of):
            optimizer.zero_grad(set_to_none=True)
            loss, h, c = forward(*state)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            state = (h.detach(), c.detach())

    return run


def note_layers(case: Case, y: Any) -> tuple[Any, Any, Callable[[Any], Any]]:
    """Return PyTorch's embedding and head of note vectors, and the loss of outputs (T, B, H).

    NADE at all 88 steps at once, (T·B, 88, K): without a kernel of one's own, PyTorch's best.
    """
    import torch
    from torch import nn

    embedding = nn.Linear(case.V + 1, case.E, bias=False)
    bce = nn.functional.binary_cross_entropy_with_logits
    rows = case.T * case.B
    if case.head == "sigmoid":
        head: Any = nn.Linear(case.H, case.V)
        return embedding, head, lambda out: bce(head(out), y, reduction="sum") / rows
    visible, hidden = nn.Linear(case.H, case.V), nn.Linear(case.H, case.K)
    W, U = (nn.Parameter(0.1 * torch.randn(case.V, case.K)) for _ in range(2))
    head = nn.ModuleList([visible, hidden, nn.ParameterList([W, U])])
    notes = y.reshape(rows, case.V)

    def loss_of(out: Any) -> Any:
        h = out.reshape(rows, case.H)
        below = torch.cumsum(notes[:, :, None] * W, dim=1) - notes[:, :, None] * W
        units = torch.sigmoid(hidden(h)[:, None] + below)
        return bce(visible(h) + (units * U).sum(dim=2), notes, reduction="sum") / rows

    return embedding, head, loss_of


def bound(case: Case, threads: int, mode: str) -> Round:
    """Return a round of the least work: the GEMMs alone, or the reading of the weights."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    E, H, N = case.E, case.H, case.T * case.B
    V = case.V + case.K * (case.head == "nade")  # of what the head's linear maps give
    rng = np.random.default_rng(0)

    def real(*shape: int) -> Any:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    if case.kind != "train":
        size = case.L * (E + H) * 4 * H + H * V
        weights = real(size)

        def read() -> None:
            for _ in range(case.rounds_of):
                np.dot(weights, weights)

        return read

    chunk = min(N, 8_000_000 // V)  # rows of logits, as a chunked loss would take them
    x, gates, Wx, h = real(N, E), real(N, 4 * H), real(E, 4 * H), real(N, H)
    step, recurrent, Wh = real(case.B, H), real(case.B, 4 * H), real(H, 4 * H)
    W, logits, dW, rows = real(H, V), real(chunk, V), real(H, V), real(chunk, H)
    dx, dWx, back, drows = real(N, E), real(E, 4 * H), real(case.B, H), real(chunk, H)
    dgates, drecurrent, dlogits = real(N, 4 * H), real(case.B, 4 * H), real(chunk, V)

    def run() -> None:
        for _ in range(case.rounds_of):
            for _ in range(case.L):
                np.matmul(x, Wx, out=gates)
                for _ in range(case.T):
                    np.matmul(step, Wh, out=recurrent)
                    np.matmul(drecurrent, Wh.T, out=back)
                np.matmul(dgates, Wx.T, out=dx)
                np.matmul(x.T, dgates, out=dWx)
                np.matmul(h.T, dgates, out=dWx)
            for _ in range(N // chunk):
                np.matmul(rows, W, out=logits)
                np.matmul(dlogits, W.T, out=drows)
                np.matmul(rows.T, dlogits, out=dW)

    return run


def worker(make: Callable[..., Round], case: Case, threads: int, mode: str, pipe: Any) -> None:
    """Serve rounds to the parent: seconds for each, or the reason why there are none."""
    try:
        run = make(case, threads, mode)
        run()
        run()
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
        return
    pipe.send(None)
    while pipe.recv():
        begun = time.perf_counter()
        run()
        pipe.send(time.perf_counter() - begun)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class Rival:
    """One rival's process."""

    def __init__(
        self, make: Callable[..., Round], case: Case, threads: int, mode: str = ""
    ) -> None:
        self.pipe, end = mp.Pipe()
        self.process = mp.Process(target=worker, args=(make, case, threads, mode, end))
        self.process.start()
        end.close()
        self.failure = self.receive()
        self.seconds: list[float] = []

    def receive(self) -> Any:
        """Return what the process says, or that it died."""
        try:
            return self.pipe.recv()
        except EOFError:
            return "the process died"

    def round(self) -> None:
        """Take one round."""
        self.pipe.send(True)
        self.seconds.append(self.receive())

    def close(self) -> float:
        """End the process; return its peak memory in MB."""
        if self.failure:
            return float("nan")
        self.pipe.send(False)
        peak = float(self.receive())
        self.process.join()
        return peak

    @property
    def median(self) -> float:
        """Seconds a round."""
        return statistics.median(self.seconds)


def compare(name: str, rounds: int, threads: int, modes: list[str]) -> dict[str, Any]:
    """Run one case and return its row."""
    case = CASES[name]
    rivals = {"ours": Rival(ours, case, threads), "bound": Rival(bound, case, threads)}
    for mode in modes if case.kind == "train" else ["eager"]:
        rivals[mode] = Rival(pytorch, case, threads, mode)
    running = {key: rival for key, rival in rivals.items() if not rival.failure}
    for _ in range(rounds):
        for rival in running.values():
            rival.round()
    peaks = {key: rival.close() for key, rival in rivals.items()}
    for key, rival in rivals.items():
        if rival.failure:
            print(f"{name}: {key} failed: {rival.failure}")
    best = min((k for k in running if k not in ("ours", "bound")), key=lambda k: running[k].median)
    tokens = case.rounds_of * case.B * case.T
    mine, theirs = running["ours"].median, running[best].median
    return {
        "case": name,
        "ours_tokens_per_second": tokens / mine,
        "rival_tokens_per_second": tokens / theirs,
        "ratio": theirs / mine,
        "rival": f"pytorch {best}",
        "ours_peak_mb": peaks["ours"],
        "rival_peak_mb": peaks[best],
        "share_of_bound": running["bound"].median / mine,
    }


def main() -> None:
    """Compare, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu",), default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: %(default)s")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    mp.set_start_method("spawn")
    modes = ["eager"] if args.no_compile else ["eager", "compile"]
    rows = []
    print(f"{'case':22}{'ours':>10}{'rival':>10}{'ratio':>7}{'MB':>7}{'MB':>7}  of bound  rival")
    for name in args.cases:
        row = compare(name, args.rounds, args.threads, modes)
        rows.append(row)
        print(
            f"{name:22}{row['ours_tokens_per_second']:10,.0f}"
            f"{row['rival_tokens_per_second']:10,.0f}{row['ratio']:7.2f}"
            f"{row['ours_peak_mb']:7.0f}{row['rival_peak_mb']:7.0f}"
            f"{row['share_of_bound']:10.0%}  {row['rival']}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps({"threads": args.threads, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
