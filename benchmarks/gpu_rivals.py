"""PyTorch's side of gpu.py and rivals.py: eager, under torch.compile, and as CUDA graphs.

Its batches are on the device already and its losses stay there, as ours where both are compared. In
bf16 a step is under autocast, which runs cuDNN's LSTM in half precision with the weights cast at
each step; the layers alone are also timed as a module whose weights are bf16. It also gets what its
users would try: a vocabulary padded to a multiple of 64, so that its products are aligned, and a
cross-entropy that reads logits in bf16 ("padded", "half"). Rivals("cpu") runs what needs no GPU: a
graph is then the call itself. Of its own it has "rounded": all is fp32, and oneDNN may round what
it multiplies to bf16; without AMX it keeps fp32, but multiplies in place of the other BLAS.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from gpu_cases import CLIP, LR, STEPS, Case, Product, operands
from gpu_workers import Made, Round
from rival_networks import note_ends, row_ends, word_ends

Call: TypeAlias = Callable[[], Any]
WARM_UPS = 3  # before a capture, as PyTorch's documentation asks for


def start(device: str = "cuda", threads: int | None = None) -> Rivals:
    """Return PyTorch's side on the GPU here, or on so many threads of a CPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch finds no GPU")
    if threads:
        torch.set_num_threads(threads)
    return Rivals(device)


def aligned(V: int) -> int:
    """Return the words of a vocabulary padded to a multiple of 64."""
    return 64 * -(-V // 64)


class Rivals:
    """What PyTorch's side can be asked for; a method's arguments and results can be sent."""

    def __init__(self, device: str) -> None:
        self.device, self.on_gpu = device, device == "cuda"

    def check(self) -> None:
        """Raise where the device no longer answers."""
        self.wait()

    def wait(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def clean(self) -> None:
        """Give back memory that nothing holds, and forget what was compiled."""
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def machine(self) -> dict[str, Any]:
        """Return the versions of its software."""
        cudnn = torch.backends.cudnn.version()
        return {"torch": torch.__version__, "torch_cuda": torch.version.cuda, "cudnn": cudnn}

    def peak(self) -> float:
        """Return the most memory that this process ever held, in MB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    # Timing and precision ---------------------------------------------------------------------

    def use(self, precision: str) -> None:
        """Let fp32 products round to tf32 or not; rivals of other precisions run in between."""
        if not self.on_gpu:
            torch.set_float32_matmul_precision("medium" if precision == "rounded" else "highest")
            torch.backends.mkldnn.rnn.fp32_precision = "bf16" if precision == "rounded" else "ieee"
            return
        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32

    def autocast(self, precision: str) -> Any:
        """Return the context of a forward pass."""
        bf16 = precision == "bf16"
        return torch.autocast(self.device, torch.bfloat16, enabled=bf16, cache_enabled=False)

    def replay(self, call: Call) -> Call:
        """Return a call that replays a CUDA graph of the one given."""
        if not self.on_gpu:
            return call
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()

        # What the graph reads and writes must live as long as this does.
        def again(alive: Call = call) -> None:
            graph.replay()

        return again

    def timed(self, call: Call, precision: str, calls: int) -> Round:
        """Return the round of so many calls: seconds of one."""

        def run() -> float:
            self.use(precision)
            self.wait()
            begun = time.perf_counter()
            for _ in range(calls):
                call()
            self.wait()
            return (time.perf_counter() - begun) / calls

        run()
        return run

    def made(self, call: Call, precision: str, how: str, calls: int) -> Made:
        """Make the round of a call, as a graph of several calls for "graph"."""
        self.use(precision)
        call()
        if how != "graph":
            return Made(self.timed(call, precision, calls), {})

        def several() -> None:
            for _ in range(calls):
                call()

        run = self.timed(self.replay(several), precision, 5)
        return Made(lambda: run() / calls, {})

    # What is compared -------------------------------------------------------------------------

    def step(
        self,
        case: Case,
        precision: str,
        mode: str,
        steps: int = STEPS,
        padded: bool = False,
        half: bool = False,
    ) -> Made:
        """Make a round of training steps; mode: of "compile" and "graph", which it names."""
        self.use(precision)
        if padded:
            case = case._replace(V=aligned(case.V))
        step = self.step_call(case, precision, "compile" in mode, half)
        step()
        if "graph" in mode:
            step = self.replay(step)
        return Made(self.timed(step, precision, steps), {})

    def step_call(
        self, case: Case, precision: str, compiled: bool = False, half: bool = False
    ) -> Call:
        """Return a step of our model, optimiser and clipping; it returns its loss."""
        torch.manual_seed(0)
        ends = {"softmax": word_ends, "biaxial": row_ends}.get(case.head, note_ends)(case)
        embedding, lstm = ends.embedding, nn.LSTM(case.width, case.H, case.L, dropout=case.dropout)
        parameters = list(nn.ModuleList([embedding, lstm, ends.head]).to(self.device).parameters())
        dropout = nn.Dropout(case.dropout) if case.dropout else nn.Identity()
        means = [p.detach().clone() for p in parameters] if case.average else []
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(case.average)
        adam = torch.optim.Adam(parameters, LR, fused=True, capturable=self.on_gpu)
        x, y = ends.x.to(self.device), ends.y.to(self.device)
        rows = case.B * (case.V if case.head == "biaxial" else 1)
        state = [torch.zeros(case.L, rows, case.H, device=self.device) for _ in range(2)]

        def forward(x: Any, y: Any, h: Any, c: Any) -> Any:
            with self.autocast(precision):
                out, after = lstm(dropout(embedding(x)), (h, c))
                return ends.loss(dropout(out), y, half), after

        if compiled:
            torch._dynamo.reset()  # each of its functions has room for a few sizes
            forward = torch.compile(forward, dynamic=False)

        def step() -> Any:
            adam.zero_grad(set_to_none=True)
            loss, after = forward(x, y, *state)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP)
            adam.step()
            if means:
                average(means, parameters, 0)
            for kept, new in zip(state, after, strict=True):
                kept.copy_(new.detach())
            return loss

        return step

    def layers(
        self, precision: str, H: int, L: int, B: int, T: int, how: str, module: bool = False
    ) -> Made:
        """Make a round of torch.nn.LSTM, forward and backward; module: weights of bf16 itself."""
        dtype = torch.bfloat16 if module else torch.float32
        lstm = nn.LSTM(H, H, L).to(self.device, dtype)
        x = torch.randn(T, B, H, device=self.device, dtype=dtype, requires_grad=True)
        inputs = [x, *lstm.parameters()]

        def forward() -> Any:
            with self.autocast("" if module else precision):
                return lstm(x)[0]

        self.use(precision)
        out = forward()
        dy, kernel = torch.randn_like(out), type(out.grad_fn).__name__
        calls = 10 if H <= 256 else 3
        both = self.made(lambda: torch.autograd.grad(forward(), inputs, dy), precision, how, calls)
        return both._replace(known={"kernel": kernel})

    def loss(
        self,
        precision: str,
        N: int,
        V: int,
        H: int,
        how: str,
        padded: bool = False,
        half: bool = False,
    ) -> Made:
        """Make a round of a linear layer and cross-entropy; known is the memory beside weights."""
        V = aligned(V) if padded else V
        before = torch.cuda.memory_allocated() if self.on_gpu else 0
        h = torch.randn(N, H, device=self.device, requires_grad=True)
        W = torch.randn(V, H, device=self.device).mul_(0.1).requires_grad_()
        b = torch.zeros(V, device=self.device, requires_grad=True)
        y = torch.randint(V, (N,), device=self.device)

        def call() -> Any:
            with self.autocast(precision):
                logits = nn.functional.linear(h, W, b)
            loss = nn.functional.cross_entropy(logits if half else logits.float(), y)
            return torch.autograd.grad(loss, [h, W, b])

        self.use(precision)
        peak = 0
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            call()
            peak = torch.cuda.max_memory_allocated()
        over = peak - before - 2 * 4 * (H * V + V)
        return self.made(call, precision, how, 5)._replace(known={"bytes_over": over})

    def gemms(self, products: Sequence[Product], count: int) -> Made:
        """Make a round of products alone, all of whose numbers are bf16."""
        calls = operands(products, lambda *shape: 0.1 * torch.randn(shape, dtype=torch.bfloat16))
        return self.made(
            lambda: [torch.mm(a, b, out=out) for a, b, out in calls], "bf16", "eager", count
        )

    def sampling(
        self, batch: int, words: int, tokens: int, mode: str, H: int = 128, precision: str = "fp32"
    ) -> Made:
        """Make a round of drawing tokens: seconds of a token of all pieces; bf16: of weights."""
        self.use(precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        torch.manual_seed(0)
        embedding, lstm, head = nn.Embedding(words, H), nn.LSTM(H, H, 2), nn.Linear(H, words)
        nn.ModuleList([embedding, lstm, head]).to(self.device, dtype)
        x = torch.zeros(1, batch, dtype=torch.long, device=self.device)
        state = [torch.zeros(2, batch, H, device=self.device, dtype=dtype) for _ in range(2)]

        @torch.no_grad()
        def token() -> None:
            out, after = lstm(embedding(x), (state[0], state[1]))
            shares = torch.softmax(head(out[0]).float(), dim=-1)
            # As torch.multinomial draws one, without its checks, for which the host would wait.
            x.copy_((shares / torch.empty_like(shares).exponential_()).argmax(dim=-1)[None])
            for kept, new in zip(state, after, strict=True):
                kept.copy_(new)

        token()
        call = self.replay(token) if mode == "graph" else token
        return Made(self.timed(call, precision, tokens), {})
