"""benchmarks/gpu.py without a GPU: its sides at tiny sizes, its goals, and a whole run.

Figures here are made up; ours runs on the stand-in for CuPy, PyTorch's on the CPU.
"""

import importlib.util
import json
import os
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from documentation import ROOT
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy, Pool

# Behind all else: benchmarks/ has modules of common names.
sys.path.append(str(ROOT / "benchmarks"))

import gpu
import gpu_cases as cases
import gpu_checks
import gpu_kernels
import gpu_ours
import gpu_report as report
import kernel_model
from gpu_cases import WITHOUT, Case
from gpu_workers import NOT_RUN, Entry, Failed, Made, Server, Worker, first_line, interleaved

needs_compiler = pytest.mark.skipif(
    not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)"
)
TINY = Case("tiny", 31, 3, 4, 8, tokens=1200, epochs=2, seconds=30)


class CountingPool(Pool):
    def total_bytes(self):
        return 300_000_000


class TimedCupy(HostCupy):
    """The stand-in with what gpu.py asks a device for beside the product."""

    __version__ = "stand-in"

    def __init__(self):
        super().__init__(orders=("ascending",))
        self.cuda.MemoryPool = CountingPool
        self.marks = []
        properties = {"name": b"Stand-in", "major": 9, "minor": 0, "multiProcessorCount": 4}
        properties |= {"l2CacheSize": 5e7, "totalGlobalMem": 8e10}
        self.cuda.runtime = SimpleNamespace(
            streamCaptureModeRelaxed=2,
            deviceSynchronize=lambda: None,
            memGetInfo=lambda: (1 << 30, 3 << 30),
            getDeviceProperties=lambda device: properties,
            runtimeGetVersion=lambda: 13000,
            driverGetVersion=lambda: 13000,
            profilerStart=lambda: self.marks.append("start"),
            profilerStop=lambda: self.marks.append("stop"),
        )

    def get_default_memory_pool(self):
        return SimpleNamespace(free_all_blocks=lambda: None)


@pytest.fixture
def ours():
    return gpu_ours.Ours(TimedCupy(), gpu_ours.by_clock, most=2, launches=1, rounds=1)


@pytest.fixture(scope="module")
def torch_side():
    torch = pytest.importorskip("torch", reason="PyTorch, the rival, is not installed")
    import gpu_rivals

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # so small: several would only wait for each other
    yield gpu_rivals.Rivals("cpu")
    torch.set_num_threads(before)


# Our side -----------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("variant", cases.VARIANTS)
def test_our_side_measures_each_part(ours, variant):
    for how in gpu.HOW:
        assert ours.layers(variant, 8, 2, 3, 4, how).round() > 0
        made = ours.loss(variant, 12, 31, 8, how)
        assert made.round() > 0
        assert made.known == {"bytes_over": 300_000_000 - 2 * 4 * (8 * 31 + 31)}
    assert ours.sequences(variant, 8, 3, 4).round() > 0
    assert ours.step(TINY, variant, 2).round() > 0
    parts = ours.parts(TINY, variant)
    assert list(parts) == ["step", "recurrent", "loss", "embedding", "optimizer"]
    assert all(took > 0 for took in parts.values())
    found = ours.differences(variant, 12, 31, 8, 3, 4)
    assert set(found) >= {"losses", "dh", "dW", "db", "y", "dx", "layer.dWh"}
    largest = max(found.values())
    assert largest == 0 if variant == "fp32" else largest < 2e-2


@needs_compiler
def test_a_variant_turns_our_matrix_kernels_off():
    xp = HostCupy()
    without = gpu_ours.ops_of(WITHOUT, xp)
    assert (without.tensor_cores, without.clusters) == (False, False)
    assert gpu_ours.ops_of(WITHOUT, xp).precision == gpu_ours.ops_of("bf16", xp).precision
    assert cases.precision_of(WITHOUT) == "bf16"


@needs_compiler
def test_ceilings_kernels_and_sampling_on_the_stand_in(ours):
    assert ours.copy_rate(4096) > 0
    for precision in cases.RIVAL_PRECISIONS:
        assert ours.gemm_rate(precision, 16, copies=precision == "bf16") > 0
        assert ours.head_rate(precision, 12, 31, 8) > 0
    rows = ours.kernels(TINY, "fp32", {"bytes": 1e9, "fp32": 1e9})
    assert len(rows) == 15
    assert all(row["microseconds"] > 0 and row["share_of_bound"] > 0 for row in rows), rows
    (row, *_) = ours.kernels(TINY, "fp32", {})
    assert np.isnan(row["share_of_bound"])
    assert ours.sampling(2, 31, 4, H=8).round() > 0
    assert ours.machine()["gpu"] == "Stand-in" and ours.device_bytes() == 2 << 30


@needs_compiler
def test_the_copy_copies_and_the_head_multiplies_what_it_says(ours):
    ops = gpu_ours.ops_of("fp32", ours.xp)
    a = ops.asarray(np.arange(4000.0))
    b = ops.xp.empty_like(a)
    gpu_kernels.copy_quads(ops, a, b)()
    np.testing.assert_array_equal(ops.to_numpy(b), ops.to_numpy(a))
    real = ops.to_numpy(gpu_ours.factor(ops, (5, 7), False, 3))
    half = ops.to_numpy(gpu_ours.factor(ops, (5, 7), True, 3)).astype(np.uint32) << 16
    np.testing.assert_allclose(half.view(np.float32), real, rtol=2**-7)


@needs_compiler
def test_a_round_keeps_what_its_graph_reads_and_writes(ours):
    made = [ours.layers("fp32", 8, 1, 3, 4, "graph") for _ in range(4)]
    made += [ours.loss("fp32", 12, 31, 8, "graph") for _ in range(4)]
    for each in made:  # guards around each array are looked at
        assert each.round() > 0


@needs_compiler
def test_an_error_while_a_graph_is_captured_ends_the_capture(ours):
    from host_cuda.host_cupy import RECORDER

    calls = []

    def fails_at_the_second():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ours.replays(fails_at_the_second)
    assert RECORDER.steps is None


@needs_compiler
def test_a_step_whose_loss_is_no_number_is_an_error(ours, monkeypatch):
    monkeypatch.setattr(gpu_ours, "LR", float("nan"))
    with pytest.raises(ArithmeticError, match="no finite number"):
        ours.step(TINY, "fp32", 3)


@needs_compiler
def test_checks_hold_the_stand_in_to_the_cpu(ours):
    checks = gpu_checks.Checks(ours)
    for head in gpu_checks.HEADS:
        found = checks.agreement(head, steps=3)
        assert max(found.values()) < 1e-4
    errors = {v: max(checks.precision_error(v).values()) for v in ("fp32", "bf16")}
    assert errors["fp32"] < 1e-4 < errors["bf16"] < 3e-2


@needs_compiler
def test_one_step_runs_between_the_profilers_marks(ours):
    before = dict(ours.xp.launches)
    gpu_checks.one_step(ours, TINY, "bf16")
    assert ours.xp.marks == ["start", "stop"] and ours.xp.launches != before


def test_programs_end_at_their_limit_with_what_they_started():
    code = "import subprocess, sys; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    begun = time.monotonic()
    done = gpu_checks.limited([sys.executable, "-c", code], 2)
    assert time.monotonic() - begun < 20
    assert done == (None, ["begun"]) and gpu_checks.said(done, 2) == "not finished in 2 s"
    done = gpu_checks.limited([sys.executable, "-c", "print('a'); print('b')"], 30)
    assert gpu_checks.said(done, 30) == "b"


def test_tools_that_are_not_here_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_checks.shutil, "which", lambda name: None)
    assert "isn't here" in gpu_checks.run_sanitizer("memcheck", 1)
    assert "isn't here" in gpu_checks.run_profiler(tmp_path / "x", "bf16", 1)
    assert gpu.first_output(["no-such-program"]) == "unknown"
    assert gpu.first_output([sys.executable, "-c", "print('580.1')"]) == "580.1"


def test_the_profiler_leaves_the_clocks_alone_and_writes_text(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(gpu_checks.shutil, "which", lambda name: f"/bin/{name}")
    done = gpu_checks.Done(0, ["table", "end"])
    monkeypatch.setattr(gpu_checks, "limited", lambda *args: given.append(args) or done)
    assert gpu_checks.run_profiler(tmp_path / "x.txt", "bf16", 90) == "end"
    command, limit = given[0]
    assert command[:3] == ["/bin/ncu", "--clock-control", "none"] and limit == 90
    assert command[-2:] == ["--one-step", "bf16"]
    assert (tmp_path / "x.txt").read_text() == "table\nend\n"


# PyTorch's ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", cases.RIVAL_PRECISIONS)
def test_pytorchs_side_measures_each_part(torch_side, precision):
    for how in gpu.HOW:
        made = torch_side.layers(precision, 8, 2, 3, 4, how, module=precision == "bf16")
        assert made.round() > 0 and made.known["kernel"]
        assert torch_side.loss(precision, 12, 31, 8, how).round() > 0
    for mode in ("eager", "graph"):
        assert torch_side.step(TINY, precision, mode, 2).round() > 0
        assert torch_side.sampling(2, 31, 3, mode, H=8).round() > 0
    torch_side.check()
    torch_side.clean()
    assert torch_side.machine()["torch"]


def test_pytorch_trains_and_keeps_its_state(torch_side):
    step = torch_side.step_call(TINY, "fp32")
    losses = [float(step().detach()) for _ in range(30)]
    assert losses[-1] < losses[0] < 4
    assert losses[0] == pytest.approx(np.log(TINY.V), abs=0.3)


def test_pytorch_without_a_gpu_is_an_error(torch_side, monkeypatch):
    import gpu_rivals

    monkeypatch.setattr(gpu_rivals.torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no GPU"):
        gpu_rivals.start()


# Processes ----------------------------------------------------------------------------------------


class Faulty:
    """A side for tests of processes."""

    def __init__(self):
        self.broken = False

    def check(self):
        if self.broken:
            raise RuntimeError("the device is gone")

    def clean(self):
        pass

    def add(self, a, b):
        return a + b

    def fails(self, lasting=False):
        self.broken = lasting
        raise ValueError("a line\nand another")

    def dies(self):
        os._exit(3)

    def sleeps(self):
        time.sleep(60)

    def number(self, x, fault=""):
        def round():
            return getattr(self, fault)() if fault else x

        return Made(round, {"pid": os.getpid()})


def start():
    return Faulty()


@pytest.fixture
def worker():
    made = Worker(__name__)
    yield made
    made.close()


def test_a_worker_answers_and_outlives_errors(worker):
    assert worker.call("add", a=2, b=3) == 5
    with pytest.raises(Failed, match=r"^ValueError: a line$"):
        worker.call("fails")
    pid = worker.make("x", method="number", x=0.5)["pid"]
    assert worker.round("x") == 0.5 and pid == worker.process.pid
    worker.drop()
    with pytest.raises(Failed):
        worker.round("x")


@pytest.mark.parametrize(
    ("fault", "given", "limit", "reason"),
    [
        ("fails", {"lasting": True}, 60, "ValueError: a line"),
        ("dies", {}, 60, "the process died with status 3"),
        ("sleeps", {}, 1, "not finished in 1 s"),
    ],
)
def test_a_worker_that_is_lost_is_replaced_with_its_rounds(worker, fault, given, limit, reason):
    pid = worker.make("x", method="number", x=0.5)["pid"]
    with pytest.raises(Failed, match=reason):
        worker.call(fault, limit, **given)
    assert worker.round("x") == 0.5 and worker.process.pid != pid


def test_a_round_that_ends_the_process_is_not_made_again(worker):
    entries = [
        Entry({"who": "good"}, worker, {"method": "number", "x": 0.25}),
        Entry({"who": "bad"}, worker, {"method": "number", "x": 1, "fault": "dies"}),
        Entry({"who": "no such method"}, worker, {"method": "nothing"}),
    ]
    good, bad, missing = interleaved(entries, lambda: 60.0, rounds=3)
    assert (good["seconds"], good["spread"]) == (0.25, 0)
    assert bad["error"] == "the process died with status 3" and "seconds" not in bad
    assert missing["error"].startswith("AttributeError")


def test_a_side_that_cannot_start_is_an_error():
    server = Server("no_such_module")
    state, text = server.answer("call", "add", {})
    assert state == "error" and text.startswith("ModuleNotFoundError")
    assert first_line(RuntimeError()) == "RuntimeError"


class Local:
    """A worker in this process."""

    def __init__(self, side):
        self.side, self.rounds, self.order, self.module = side, {}, [], type(side).__name__

    def call(self, method, limit=0.0, **given):
        try:
            return getattr(self.side, method)(**given)
        except Exception as error:
            raise Failed(first_line(error)) from error

    def make(self, key, limit=0.0, **given):
        made = self.call(given.pop("method"), **given)
        self.rounds[key] = made.round
        return made.known

    def round(self, key, limit=0.0):
        self.order.append(key)
        return self.rounds[key]()

    def drop(self):
        self.rounds.clear()

    def close(self):
        pass


def test_rounds_are_taken_in_turn_until_the_time_is_over():
    side = Local(Faulty())
    entries = [Entry({}, side, {"method": "number", "x": x}) for x in (0.1, 0.2, 0.3)]
    left = iter([9.0] * 6 + [9.0] * 6 * 2 + [0.0] * 100)
    rows = interleaved(entries, lambda: next(left), rounds=9)
    assert side.order[:6] == ["0", "1", "2"] * 2
    assert [row["seconds"] for row in rows] == [0.1, 0.2, 0.3]
    rows = interleaved(entries, lambda: 9.0, lambda: 0.0)
    assert [row["error"] for row in rows] == [NOT_RUN] * 3
    left = iter([9.0] * 6 + [0.0] * 100)
    assert [row["error"] for row in interleaved(entries, lambda: next(left))] == [NOT_RUN] * 3


# Goals, of made-up figures ------------------------------------------------------------------------


def row(side, who, seconds, precision="bf16", **more):
    return {"side": side, "who": who, "precision": precision, "seconds": seconds, **more}


def goals_by_name(found):
    return {(goal.goal, goal.precision): goal for goal in report.goals(found)}


def test_nothing_measured_reaches_nothing():
    found = report.goals({})
    assert len(found) == 3 + 12 + 4 + 4 + 8 + 8 + 12 + 2 + 12
    assert {goal.reached for goal in found} == {""}
    assert all("not run" in goal.measured for goal in found)


def test_epochs_and_ratios_take_the_best_of_each_side():
    rows = [
        row("ours", "ours", 0.8e-3, case="Bach"),
        row("ours", "ours", 0.7e-3, WITHOUT, case="Bach"),
        row("torch", "torch eager", 4e-3, case="Bach"),
        row("torch", "torch graph", 1.5e-3, case="Bach"),
        row("torch", "torch graph", 0.1e-3, "tf32", case="Bach"),
        {"side": "ours", "precision": "tf32", "case": "Bach", "error": "CUDAError: gone"},
    ]
    goals = goals_by_name({"training": rows})
    epochs = goals["Bach: 50 epochs", WITHOUT]
    assert epochs.reached == "yes" and epochs.measured == "23.2 s (0.700 ms a step)"
    ratio = goals["Bach, a step", "bf16"]
    assert (ratio.measured, ratio.reached) == ("1.88x torch graph", "no")
    assert goals["Bach, a step", WITHOUT].reached == "yes"
    assert goals["Bach, a step", "tf32"].measured == "ours: CUDAError: gone"
    assert goals["Bach, a step", "fp32"].reached == ""
    assert goals["Muse-All: 800 epochs", ""].measured == "not run"


def test_the_recurrent_part_beside_cudnn():
    rows = [
        row("ours", "ours, graph", 2e-4, "fp32", H=128, part="layers"),
        row("torch", "cuDNN, graph", 6.1e-4, "fp32", H=128, part="layers"),
        row("ours", "ours, kernels alone", 1.3e-4, "fp32", H=128, part="kernels"),
        row("ours", "ours, graph", 1.05e-3, "fp32", H=512, part="layers"),
        row("torch", "cuDNN, calls", 1e-3, "fp32", H=512, part="layers"),
        row("ours", "ours, graph", 1.2e-3, "tf32", H=512, part="layers"),
        row("torch", "cuDNN, calls", 1e-3, "tf32", H=512, part="layers"),
    ]
    goals = goals_by_name({"recurrent": rows})
    assert goals["recurrent part, H=128", "fp32"].reached == "yes"
    one = goals["a time step and layer, mean of both ways", "fp32"]
    assert (one.measured, one.reached) == ("1.30 µs", "no")
    assert goals["recurrent part, H=512", "fp32"].reached == "yes"
    assert goals["recurrent part, H=512", "tf32"].reached == "no"


def test_the_loss_layer_the_rest_and_sampling():
    rows = [
        row("ours", "ours, graph", 1e-3, V=35_509, share_of_matrix_rate=0.75, bytes_over=2e8),
        row("torch", "torch, graph", 3e-3, V=35_509),
        row("ours", "ours, graph", 1e-3, V=132_437, bytes_over=3e8),
    ]
    step = {"case": "Bach", "precision": "bf16", "rest_share": 0.2, "rest_timed_share": 0.1}
    drawn = [
        row("ours", "ours", 1e-5, "fp32", batch=1),
        row("torch", "torch graph", 9e-5, "fp32", batch=1),
        row("torch", "torch eager", 9e-4, "fp32", batch=1),
    ]
    goals = goals_by_name({"loss": rows, "step": [step], "sampling": drawn})
    share = goals["loss layer, V=35,509", "bf16"]
    assert share.reached == "yes" and share.measured == "75%, 1,000 µs, 3.00x torch, graph"
    assert goals["loss layer, V=132,437", "bf16"].measured == "no matrix rate was measured"
    assert goals["memory of the loss layer, V=35,509", "bf16"].reached == "yes"
    assert goals["memory of the loss layer, V=132,437", "bf16"].reached == "no"
    rest = goals["Bach: everything else in a step", "bf16"]
    assert rest.reached == "no" and rest.measured == "20.0% (timed by itself: 10.0%)"
    assert goals["sampling, batch 1", "fp32"].reached == "no"


# A run --------------------------------------------------------------------------------------------


def new_run(path, minutes=8.0):
    now = [0.0]
    run = gpu.Run(minutes, path, lambda: now[0])
    return run, now


def test_a_part_that_fails_is_a_line_and_results_are_written_after_each(tmp_path):
    run, now = new_run(tmp_path / "card", 2)
    shown, seen = [], []

    def fails(run):
        now[0] += 50
        raise ZeroDivisionError("by zero\nmore")

    def works(run):
        seen.append(json.loads((tmp_path / "card.json").read_text())["errors"])
        assert run.kept_back == 30
        now[0] += 68
        run.add("loss", [{"who": "a|b", "seconds": 0.5}])

    parts = (
        gpu.Part("first", 1, fails),
        gpu.Part("second", 1, works),
        gpu.Part("third", 30, works),
        gpu.Part("fourth", 90, works, goal=False),
    )
    gpu.run_parts(run, parts, shown.append)
    assert seen == [{"first": "ZeroDivisionError: by zero"}]
    found = json.loads((tmp_path / "card.json").read_text())
    assert found["not run"] == ["third", "fourth"]
    assert found["seconds"] == {"first": 50, "second": 68}
    page = (tmp_path / "card.md").read_text()
    assert "| a/b | 0.5 |" in page and "- not run: fourth" in page
    assert "- first: error: ZeroDivisionError: by zero" in page
    assert not list(tmp_path.glob("*.part"))
    assert any("second: 68.0 s, 2 s left" in text for text in shown)
    assert run.attempt("x", lambda: 1) == 1
    now[0] += 10
    assert run.attempt("late", lambda: 1) is None and "late" in run.found["not run"]


def tiny_sizes(monkeypatch):
    sizes = {"COPIED": 8192, "CACHED": 8192, "SQUARE": 16, "BATCH": 3, "LENGTH": 4, "NARROW": 8}
    sizes |= {"WIDE": (12,), "LOSS_SIZES": ((12, 31), (9, 40)), "SAMPLING_WORDS": 31}
    sizes |= {"SAMPLING_BATCHES": (1, 2), "SAMPLING_TOKENS": 4, "ROUNDS": 1}
    both = ("fp32", "bf16")
    sizes |= {"GOAL_CASES": (TINY,), "VARIANTS": both, "RIVAL_PRECISIONS": both}
    sizes |= {"OTHER_CASES": (Case("notes", 5, 3, 4, 8, head="nade"),)}
    for name, value in sizes.items():
        monkeypatch.setattr(cases, name, value)


@needs_compiler
def test_a_whole_run_answers_every_goal(ours, torch_side, monkeypatch, tmp_path):
    tiny_sizes(monkeypatch)
    for side in (gpu_ours.Ours, type(torch_side)):
        monkeypatch.setattr(side.step, "__defaults__", (1,))
    monkeypatch.setattr(gpu_ours.Ours.sampling, "__defaults__", (8,))
    monkeypatch.setattr(type(torch_side).sampling, "__defaults__", (8,))
    monkeypatch.setattr(gpu_checks.Checks.agreement, "__defaults__", ("fp32", 2))
    for name in ("run_tests", "run_sanitizer", "run_profiler"):
        monkeypatch.setattr(gpu_checks, name, lambda *args, name=name: name)
    few = gpu_kernels.kernel_calls
    monkeypatch.setattr(gpu_ours, "kernel_calls", lambda ops, case: few(ops, case)[:2])
    monkeypatch.setattr(gpu, "Worker", lambda module: Local(gpu_checks.Checks(ours)))
    run, _ = new_run(tmp_path / "card")
    run.ours, run.torch = Local(ours), Local(torch_side)
    # Nothing is kept back for compilations: they are named as not run.
    monkeypatch.setattr(gpu.Run, "spare", lambda self: 0.0)
    gpu.run_parts(run, gpu.all_parts(), lambda text: None)
    assert run.found["errors"] == {} and run.found["not run"] == []
    goals = report.goals(run.found)
    assert {goal.reached for goal in goals} <= {"yes", "no"}, goals
    compiled = report.chosen(run.found["training"], who="torch compile and graph")
    assert [row["error"] for row in compiled] == [NOT_RUN] * 2
    for table in report.TABLES:
        errors = [row for row in run.found[table] if row.get("error", NOT_RUN) != NOT_RUN]
        assert run.found[table] and not errors
    assert set(run.found["ceilings"]) >= {"bytes", "l2", "fp32", "bf16", "bf16, head"}
    taken = kernel_model.measured(tmp_path / "card.json")
    known = run.found["ceilings"]
    assert (taken.memory, taken.l2, taken.bf16) == (known["bytes"], known["l2"], known["bf16"])
    assert taken.clock == kernel_model.Ceilings().clock
    assert "## recurrent" in (tmp_path / "card.md").read_text()


def test_compilations_come_last_and_have_a_limit():
    run, _ = new_run(ROOT / "x")
    entries = gpu.compile_entries(run, TINY)
    rivals = [entry for entry in entries if entry.side is run.torch]
    assert {entry.limit for entry in rivals} == {gpu.COMPILE_LIMIT}
    assert [entry.row["precision"] for entry in rivals[::2]] == ["bf16", "tf32", "fp32"]
    assert all(entry.side is run.ours for entry in entries[: -len(rivals)])
    assert {e.row["who"] for e in gpu.step_entries(run, TINY)} == {
        "ours",
        "torch eager",
        "torch graph",
    }


def test_without_a_gpu_one_line_and_status_2(monkeypatch, capsys):
    if importlib.util.find_spec("cupy"):
        pytest.skip("CuPy is here")
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 2
    assert capsys.readouterr().err.startswith("error: the cupy backend needs CuPy")
