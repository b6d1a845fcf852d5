"""What one would pick instead: a decoder-only transformer in PyTorch, of nanoGPT's size and habits.

    python benchmarks/transformer.py [--corpus bach] [--cpu-minutes 9] [--threads 1] [--out FILE]

It reads what `bin/train` reads by default of a corpus (--reading: with options of it), the same
tokens and splits, and is judged as `bin/evaluate` judges: nats per token, the end symbols among
them, and all nats over the notes of the pieces. Training windows are cut from the training pieces,
put end to end anew in each epoch. To be judged, each piece is read by itself in windows that
overlap by half or more, so that a token has at least half a context, or the whole piece, behind it.
The weights of the best validation are the ones that count. Minutes are of this process's CPU time
(--cpu-minutes) or of the clock (--minutes), validations included, from the first step on.

--train=OPTIONS trains ours, too, by the same clock: `bin/train CORPUS OPTIONS`; --ours RUN
evaluates what is trained. Needs torch (pip install 'lstm-music[oracle]').
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import lstm_music  # noqa: F401  (before NumPy: it sets how the BLAS's threads wait)

# isort: split
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from gpu_report import table
from lstm_music.arrays import NO_TARGET, Array
from lstm_music.cli.common import limit_threads, warn
from lstm_music.cli.train import description, ops_of, reading_of, trainer_of
from lstm_music.cli.train_options import make_parser, new_options
from lstm_music.corpus.batches import Source
from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.load import load_corpus
from lstm_music.evaluation.likelihood import evaluate, per_note, token_count, token_row
from lstm_music.ops import get_ops
from lstm_music.runs.folder import new_run
from lstm_music.runs.opened import evaluation_corpus, open_run
from lstm_music.runs.settings import Report
from rival_transformer import Shape, Transformer

JUDGED = 16  # windows at a time
WARM_UP, LEAST = 0.03, 0.1  # shares of the budget and of the learning rate
Row = dict[str, Any]


class Point(NamedTuple):
    """A validation: seconds and steps since the first step, nats per note."""

    seconds: float
    steps: int
    nats: float


# What it reads ----------------------------------------------------------------------------------


def pair(source: Source, piece: int, n: int) -> Array:
    """Return the inputs and targets (2, n) of a piece of n targets, as `corpus/batches.py` does."""
    x = np.concatenate([source.start((1, 1))[0], source.inputs(piece, 0, n - 1)])
    return np.stack([x, source.targets(piece, 0, n)]).astype(np.int64)


def batches(corpus: Corpus, T: int, B: int, seed: int) -> Iterator[Tensor]:
    """Yield inputs and targets (2, B, T) without end: windows of each epoch's line of pieces."""
    rng, lengths = np.random.default_rng(seed), corpus.lengths
    while True:
        low, high = np.clip(corpus.shifts, -corpus.augment, corpus.augment).T
        source = corpus.source(rng.integers(low, high + 1).tolist())
        order = rng.permutation(corpus.splits["train"]).tolist()
        line = np.concatenate([pair(source, piece, lengths[piece]) for piece in order], axis=1)
        line = np.roll(line, int(rng.integers(T)), axis=1)[:, : line.shape[1] // T * T]
        windows = line.reshape(2, -1, T)
        mixed = rng.permutation(windows.shape[1])
        for at in range(0, len(mixed), B):
            yield torch.from_numpy(windows[:, mixed[at : at + B]])


def judge(model: Transformer, corpus: Corpus, split: str, stride: int) -> Row:
    """Return the row of a split as `bin/evaluate` has it.

    stride: of windows. All targets of a piece's first count, of the others the last `stride`.
    """
    T, windows, source = model.shape.context, [], corpus.source([0] * len(corpus.pieces))
    for piece in corpus.splits[split]:
        n = corpus.lengths[piece]
        both = torch.from_numpy(pair(source, piece, n))
        for start in range(0, max(n - T, 0) + stride, stride):
            window = both[:, start : start + T].clone()
            window[1, : T - stride if start else 0] = NO_TARGET
            windows.append(window)
    windows.sort(key=lambda window: window.shape[1])
    model.eval()
    total = 0.0
    with torch.inference_mode():
        for at in range(0, len(windows), JUDGED):
            some = windows[at : at + JUDGED]
            longest = some[-1].shape[1]
            padded = [F.pad(w, (0, longest - w.shape[1]), value=NO_TARGET) for w in some]
            x, y = torch.stack(padded, dim=1)
            total += float(model.losses(x.clamp(min=0), y).sum(dtype=torch.float64))
    tokens = token_count(corpus, split)
    return per_note(token_row("transformer", total / tokens, tokens), corpus, split)


# Training ---------------------------------------------------------------------------------------


def optimizer_of(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    """Return AdamW, whose decay spares vectors."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": args.decay}, {"params": vectors}]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, args.beta2), weight_decay=0.0)


def rate(share: float) -> float:
    """Return the learning rate's factor when a share of the budget is spent."""
    if share < WARM_UP:
        return share / WARM_UP
    fallen = min((share - WARM_UP) / (1 - WARM_UP), 1)
    return LEAST + (1 - LEAST) * (1 + math.cos(math.pi * fallen)) / 2


def train(corpus: Corpus, args: argparse.Namespace) -> tuple[Transformer, Row]:
    """Train; return the network of the best validation, and what to say of the training."""
    torch.manual_seed(args.seed)
    shape = Shape(len(corpus.vocabulary), *(getattr(args, name) for name in Shape._fields[1:]))
    model = Transformer(shape)
    averages, best = copy.deepcopy(model), copy.deepcopy(model)
    optimizer, least, curve = optimizer_of(model, args), math.inf, list[Point]()
    clock, budget = clock_of(args)
    for steps, batch in enumerate(batches(corpus, shape.context, args.batch, args.seed)):
        share = max(clock() / budget, steps / args.steps if args.steps else 0)
        if share * args.checks >= len(curve) + 1 or share >= 1:
            row = judge(averages, corpus, "valid", shape.context // 2)
            note(curve, clock(), steps, row["nats_per_note"])
            if row["nats_per_note"] < least:
                least = row["nats_per_note"]
                best.load_state_dict(averages.state_dict())
        if share >= 1:
            break
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = model.losses(*batch).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * rate(share)
        optimizer.step()
        new = max(1 - args.average, 9 / (11 + steps))
        with torch.no_grad():
            for mean, p in zip(averages.parameters(), model.parameters(), strict=True):
                mean.lerp_(p, new)
    return best, told(curve, args.batch * shape.context)


def clock_of(args: argparse.Namespace) -> tuple[Callable[[], float], float]:
    """Return what tells the seconds from now on, and how many there are."""
    now = time.process_time if args.cpu_minutes else time.monotonic
    begun = now()
    return lambda: now() - begun, 60 * (args.cpu_minutes or args.minutes)


def note(curve: list[Point], seconds: float, steps: int, nats: float) -> None:
    """Print a validation and add it to a curve."""
    curve.append(Point(seconds, steps, nats))
    print(f"{seconds / 60:6.2f} min {steps:6,} steps {nats:.4f} nats a note", flush=True)


def told(curve: list[Point], tokens: int) -> Row:
    """Return what to say of a training of so many tokens a step."""
    last, best = curve[-1], min(curve, key=lambda point: point.nats)
    row: Row = {"steps": last.steps, "seconds": round(last.seconds), "best at": round(best.seconds)}
    return row | {"tokens a second": last.steps * tokens / last.seconds, "curve": curve}


class OutOfTime(Exception):
    """Ends our training."""


def train_ours(args: argparse.Namespace, run: Path) -> Row:
    """Train ours in a new run; return what to say of the training."""
    corpus, words = corpus_of(args.corpus, args.train), shlex.split(args.train)
    parsed = make_parser().parse_args([args.corpus, *words, "--run", str(run)])
    folder, chosen = new_options(parsed)
    chosen["max_minutes"] = None  # the clock of both ends it
    curve: list[Point] = []
    notes = sum(corpus.notes[piece] for piece in corpus.splits["valid"])
    tokens = token_count(corpus, "valid")

    def show(report: Report) -> None:
        if report.validated:
            note(curve, clock(), report.progress.step, report.valid * tokens / notes)
        if clock() >= budget:
            raise OutOfTime

    trainer = trainer_of(chosen, corpus, ops_of(parsed), folder, show, print, time.monotonic())
    trainer.files.run = new_run(folder, *description(trainer, chosen))
    clock, budget = clock_of(args)
    with suppress(OutOfTime):
        trainer.train()
        if trainer.progress.period_steps:  # it ended, and was validated, within an epoch
            note(curve, clock(), trainer.progress.step, trainer.valid * tokens / notes)
    return told(curve, chosen["batch"] * chosen["seq"])


# The table --------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add, usual = parser.add_argument, Shape(0)
    add("--corpus", default="bach", help="a corpus of tokens, as of bin/train")
    add("--reading", default="", help="options of bin/train that say how to read it")
    add("--minutes", type=float, default=9.0)
    add("--cpu-minutes", type=float, help="instead of --minutes")
    add("--steps", type=int, help="at most")
    add("--threads", type=int, default=1)
    add("--seed", type=int, default=0)
    for name in ("layers", "width", "heads", "context"):
        add(f"--{name}", type=int, default=getattr(usual, name))
    add("--dropout", type=float, default=usual.dropout)
    add("--positions", choices=("rotary", "learned"), default=usual.positions)
    add("--batch", type=int, default=4, help="windows")
    add("--lr", type=float, default=3e-3)
    add("--beta2", type=float, default=0.99)
    add("--decay", type=float, default=0.1, help="of weights")
    add("--average", type=float, default=0.998, help="of weights, as in bin/train; 0 for none")
    add("--fp32", dest="bf16", action="store_false", help="no autocast to bf16")
    add("--checks", type=int, default=20, help="validations")
    add("--no-test", dest="test", action="store_false", help="leave the test split unread")
    add("--ours", metavar="RUN", help="ours, trained: a run or a bundled model")
    add("--train", metavar="OPTIONS", help="train ours, too: bin/train CORPUS OPTIONS")
    add("--only-ours", action="store_true", help="no transformer")
    add("--out", type=Path, metavar="FILE", help="write all of it as JSON")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    limit_threads(args.threads, "numba")
    rows = [ours_row(args)] if args.ours or args.train is not None else []
    rows += [] if args.only_ours else [transformer_row(args)]
    print("\n".join(table([shown(row) for row in rows])))
    if args.out:
        args.out.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    return 0


def shown(row: Row) -> Row:
    """Return a row as it is printed, nats with all their digits."""
    cells = {k: v for k, v in row.items() if k not in ("curve", "options")}
    return {k: f"{v:.4f}" if isinstance(v, float) and v < 100 else v for k, v in cells.items()}


def transformer_row(args: argparse.Namespace) -> Row:
    """Train a transformer and return its row."""
    corpus = corpus_of(args.corpus, args.reading)
    model, found = train(corpus, args)
    size = sum(p.numel() for p in model.parameters())
    row = {"network": "transformer", "parameters": size, **found}
    for split in ("valid", "test")[: 1 + args.test]:
        half, eighth = (judge(model, corpus, split, model.shape.context // n) for n in (2, 8))
        row |= told_of(split, half)
        row[f"{split}, nats a note, stride 1/8"] = eighth["nats_per_note"]
    options = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    return row | {"options": options}


def ours_row(args: argparse.Namespace) -> Row:
    """Train ours, or open what is trained, and return its row."""
    with tempfile.TemporaryDirectory() as folder:
        run, found = args.ours, {}
        if args.train is not None:
            run = str(Path(folder, "run"))
            found = train_ours(args, Path(run))
        checkpoint, place = open_run(run, warn)
        corpus = evaluation_corpus(run, checkpoint, place, None, None)
        size = sum(p.size for p in checkpoint.parameters.values())
        row = {"network": " ".join(["ours", args.train or ""]).strip(), "parameters": size, **found}
        for split in ("valid", "test")[: 1 + args.test]:
            row |= told_of(split, evaluate(run, checkpoint, corpus, split, get_ops("auto"))[0])
    return row


def told_of(split: str, found: Row) -> Row:
    """Return a split's cells of a row, of what an evaluation found."""
    nats = {"nats a token": found["nats_per_token"], "nats a note": found["nats_per_note"]}
    return {f"{split}, {name}": value for name, value in nats.items()}


def corpus_of(name: str, options: str) -> Corpus:
    """Return a corpus as bin/train reads it by options."""
    chosen = new_options(make_parser().parse_args([name, *shlex.split(options)]))[1]
    data = Path(chosen["data"]) if chosen["data"] else None
    return load_corpus(chosen["corpus"], data, reading_of(chosen))


if __name__ == "__main__":
    raise SystemExit(main())
