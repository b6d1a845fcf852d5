"""benchmarks/gpu.py without a GPU: a whole run on the stand-in for CuPy, and its pieces.

Figures here are made up. PyTorch's side runs on the CPU.
"""

import inspect
import json
import os
import sys
import time

import numpy as np
import pytest
from bare import bare_run
from documentation import ROOT
from host_cuda.compile import COMPILER, KERNEL
from host_cuda.host_cupy import RECORDER, HostCupy

from lstm_music.ops.cuda import source
from lstm_music.ops.cuda.lstm_sequence import sequence_plan

# Behind all else: benchmarks/ has modules of common names.
sys.path.append(str(ROOT / "benchmarks"))

import faulty

import gpu
import gpu_cases as cases
import gpu_checks
import gpu_kernels
import gpu_ours
import gpu_parts
import gpu_report as report
import gpu_tools
import predictions
from gpu_cases import WITHOUT, Case
from gpu_workers import NOT_RUN, Entry, Failed, Server, Worker, first_line, interleaved

needs_compiler = pytest.mark.skipif(
    not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)"
)
TINY = Case("tiny", 31, 3, 4, 8, tokens=1200, epochs=2, seconds=30)
# Modules that read or write files of music, sound or pictures.
OF_FILES = """
cli.figures cli.judging cli.play cli.report cli.reproduce corpus.classical.build
corpus.classical.notation listening.clips listening.making midi.writing rendering.audio
rendering.figures report.gathering sampling.answering
"""


# A whole run --------------------------------------------------------------------------------------


def test_what_computes_is_imported_without_mido(tmp_path):
    code = (
        "import importlib, pkgutil, lstm_music\n"
        "for found in pkgutil.walk_packages(lstm_music.__path__, 'lstm_music.'):\n"
        "    try: importlib.import_module(found.name)\n"
        "    except ImportError as error:\n"
        "        if 'is blocked' in str(error): print(found.name)\n"
    )
    done = bare_run([sys.executable, "-c", code], tmp_path)
    assert done.stdout.split() == [f"lstm_music.{name}" for name in OF_FILES.split()], done.stderr


@pytest.mark.slow
@needs_compiler
def test_a_smoke_run_on_the_stand_in_without_mido(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--smoke", "--hidden", "16"]
    command += ["--minutes", "60", "--out", tmp_path / "out"]
    done = bare_run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(files) <= 8 and all(name.startswith("stand-in-on-a-cpu") for name in files)
    (path,) = (tmp_path / "out").glob("*.json")
    found = json.loads(path.read_text())
    assert found["errors"] == {"machine, gpu_rivals": "ImportError: torch is blocked"}
    assert found["not run"] == [] and list(found["seconds"]) == ["machine", *gpu.LIMITS]
    for table in report.TABLES:
        ours = report.chosen(found[table], side="ours") or found[table]
        assert ours and not [row for row in ours if "error" in row], table
        rivals = report.chosen(found[table], side="torch")
        assert {row["error"] for row in rivals} <= {"ImportError: torch is blocked"}
    for name, errors in found["agreement"].items():
        assert max(errors.values()) < (1e-2 if "bf16" in name else 1e-4), name
    # Its kernels are for multiples of 64 units.
    assert all(name.startswith("softmax_head") for name in found["checks"]["never launched"])
    assert "2 passed" in found["checks"]["tests"]["summary"]
    assert "isn't here" in found["checks"]["memcheck"] or found["checks"]["memcheck"]
    taken, known = predictions.measured(path), found["ceilings"]
    assert (taken.memory, taken.l2, taken.bf16) == (known["bytes"], known["l2"], known["bf16"])
    page = path.with_suffix(".md").read_text()
    assert "## recurrent" in page and "| Bach: 50 epochs |" in page


def test_without_a_gpu_one_line_and_status_2(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('there is none')")
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--out", tmp_path]
    done = bare_run(command, tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: UserError: the cupy backend needs CuPy (there is none)")
    done = bare_run([*command, "--parts", "agree,x"], tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: unknown part 'x'")


def part_of(name):
    def part(session):
        session.found.setdefault("loss", []).append({"who": name})
        session.note("checks", name, 1)
        if name == "steps":
            session.ask(name, session.ours, "begins")
        if name == "rest":
            session.ask(name, session.ours, "dies")
            raise ValueError("a line\nand another")

    return part


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A session of 30 seconds of parts that fail in every way."""
    monkeypatch.setattr(gpu_parts, "Worker", lambda module, *given, **few: Worker("faulty", *given))
    monkeypatch.setattr(gpu_parts, "LEAST", 0.5)
    for name in ("agree", "rest", "steps"):
        monkeypatch.setitem(gpu_parts.PARTS, name, part_of(name))
    return gpu_parts.Session(tmp_path / "results", 0.5)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid):
    """Whether a process that was killed is gone, which the system does in its own time."""
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_a_part_is_ended_at_its_limit_with_all_it_started_and_its_rows_are_kept(session, tmp_path):
    begun = time.monotonic()
    session.run("steps", 6)
    assert time.monotonic() - begun < 25
    (pid,) = (tmp_path / "results-log.txt").read_text().split()
    assert ends(pid)
    assert session.found["loss"] == [{"who": "steps"}]
    assert session.found["errors"]["steps"].startswith("not finished in ")
    assert "| steps |" in (tmp_path / "results.md").read_text()


def test_parts_add_up_and_those_without_time_are_named(session, tmp_path):
    shown = []
    gpu.run_parts(session, ["agree", "rest"], shown.append)
    assert session.found["loss"] == [{"who": "agree"}, {"who": "rest"}]
    assert session.found["checks"] == {"agree": 1, "rest": 1}
    assert session.found["errors"] == {"rest": "ValueError: a line"}
    session.end = time.monotonic() + 0.4
    gpu.run_parts(session, ["tests"], shown.append)
    assert session.found["not run"] == ["tests"] and "tests: 0.0 s" in shown[-1]
    assert json.loads((tmp_path / "results.json").read_text()) == session.found
    assert "- not run: tests" in (tmp_path / "results.md").read_text()
    assert any("| agree |" in text for text in shown)


# Programs -----------------------------------------------------------------------------------------


def test_programs_end_at_their_limit_with_what_they_started(tmp_path):
    code = "import subprocess, sys; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    begun, file = time.monotonic(), tmp_path / "x.txt"
    done = gpu_tools.limited([sys.executable, "-c", code], 2, file)
    assert time.monotonic() - begun < 20
    assert done == (None, ["begun"]) and done.said(2) == "not finished in 2 s: begun"
    done = gpu_tools.limited([sys.executable, "-c", "print('a'); print('b')"], 30, file)
    assert done.said(30) == "b" and file.read_text() == "begun\na\nb\n"
    assert gpu.first_output(["no-such-program"]) == "unknown"
    assert gpu.first_output([sys.executable, "-c", "print('580.1')"]) == "580.1"


def test_tools_run_every_kernel_once_and_leave_the_clocks_alone(monkeypatch, tmp_path):
    given = []
    done = gpu_tools.Done(0, ["table", "end"])
    monkeypatch.setattr(gpu_tools, "limited", lambda *args: given.append(args) or done)
    monkeypatch.setattr(gpu_tools.shutil, "which", lambda name: None)
    assert gpu_tools.run_sanitizer("memcheck", 1, tmp_path) == "compute-sanitizer isn't here"
    assert gpu_tools.run_profiler("bf16", 1, tmp_path) == "ncu isn't here"
    monkeypatch.setattr(gpu_tools.shutil, "which", lambda name: f"/bin/{name}")
    assert gpu_tools.run_sanitizer("racecheck", 9, tmp_path) == "end"
    assert gpu_tools.run_profiler("bf16", 9, tmp_path, small=True) == "end"
    (sanitizer, *_), (profiler, *_) = given
    assert sanitizer[:3] == ["/bin/compute-sanitizer", "--tool", "racecheck"]
    assert sanitizer[-2:] == ["every", "256"] and profiler[-3:] == ["step", "bf16", "128"]
    assert profiler[:3] == ["/bin/ncu", "--clock-control", "none"]


# Our side -----------------------------------------------------------------------------------------


@pytest.fixture
def ours():
    xp = HostCupy(("ascending",))
    return gpu_ours.Ours(xp, gpu_ours.by_events(xp), most=2, launches=1, rounds=1)


@needs_compiler
def test_every_kernel_is_launched_in_every_way_and_agrees(ours):
    checks = gpu_checks.Checks(ours)
    gpu_checks.every(checks, most=64)
    assert checks.never_launched() == []
    assert gpu_checks.kernels() == {
        name for file in source.names() for name in KERNEL.findall(source.text(file))
    }


@needs_compiler
@pytest.mark.parametrize(("variant", "bound"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_bachs_plans_agree_with_the_cpu(variant, bound):
    """A cluster of two blocks a row, and in bf16 two rows a block, at H=128 and B=50."""
    xp = HostCupy(("ascending",), multiprocessors=132)
    checks = gpu_checks.Checks(gpu_ours.Ours(xp, gpu_ours.by_events(xp)))
    layer = gpu_checks.Layer(128, 50, variant)
    assert layer in gpu_checks.LAYERS
    errors = checks.layer(*layer, T=2)
    assert 0 < max(errors.values()) < bound


def way(H, B, clusters=True):
    """How a layer runs on an H200."""
    plan = sequence_plan(B, H, 4, 132, 227 << 10, clusters)
    return plan.cluster, plan.rows, plan.bound, plan.shared_quads > 0, plan.all_on_chip


def test_the_layers_checked_run_in_each_way_there_is():
    rows = (1, 2, 7, 16, 25, 32, 50, 64, 66, 100, 128, 132, 133, 150, 200, 264, 265, 300, 400, 600)
    there = {way(H, B) for H in range(1, 257) for B in rows}
    fitting = [layer for layer in gpu_checks.LAYERS if layer.H <= 256]
    taken = {way(layer.H, layer.B) for layer in fitting if layer.variant == "fp32"}
    assert taken == there
    assert way(128, 50, clusters=False) in {
        way(layer.H, layer.B, clusters=False) for layer in fitting if layer.variant == WITHOUT
    }
    assert any(layer.H > 256 for layer in gpu_checks.LAYERS)
    assert gpu_checks.Layer(128, 50, cases.BARRIER) in gpu_checks.LAYERS


@needs_compiler
def test_a_variant_turns_our_matrix_kernels_off():
    without = gpu_ours.ops_of(WITHOUT, HostCupy())
    assert (without.tensor_cores, without.clusters) == (False, False)
    assert (without.exchange, gpu_ours.ops_of(cases.BARRIER, HostCupy()).exchange) == (
        "mbarrier", "barrier",
    )  # fmt: skip
    assert without.precision == gpu_ours.ops_of("bf16", HostCupy()).precision
    assert cases.precision_of(WITHOUT) == "bf16"


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
    made = [ours.layers("fp32", 8, 1, 3, 4, "graph"), ours.loss("fp32", 12, 31, 8, "graph")]
    for each in made:  # the stand-in looks whether memory is still there
        assert each.round() > 0


@needs_compiler
def test_an_error_while_a_graph_is_captured_ends_the_capture(ours):
    calls = []

    def fails_at_the_second():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ours.replays(fails_at_the_second)
    assert RECORDER.steps is None


@needs_compiler
@pytest.mark.parametrize("sent", [False, True])
def test_a_step_whose_loss_is_no_number_is_an_error(ours, monkeypatch, sent):
    assert ours.step(TINY, "fp32", 2, sent).round() > 0
    monkeypatch.setattr(gpu_ours, "LR", float("nan"))
    with pytest.raises(ArithmeticError, match="no finite number"):
        ours.step(TINY, "fp32", 3, sent)


@needs_compiler
def test_one_step_runs_between_the_profilers_marks(ours):
    before = dict(ours.xp.launches)
    gpu_checks.one_step(ours, TINY, "bf16")
    assert ours.xp.cuda.runtime.marks == ["start", "stop"] and ours.xp.launches != before


# PyTorch's ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch_side():
    torch = pytest.importorskip("torch", reason="PyTorch, the rival, is not installed")
    import gpu_rivals

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # so small: several would only wait for each other
    yield gpu_rivals.Rivals("cpu")
    torch.set_num_threads(before)


def test_pytorchs_side_measures_all_that_the_parts_ask_of_it(torch_side, tmp_path, monkeypatch):
    session = gpu_parts.Session(tmp_path / "x", 1, 8)
    session.small = False
    asked = []
    monkeypatch.setattr(session, "compare", lambda table, entries, columns: asked.extend(entries))
    monkeypatch.setattr(session, "ask", lambda *given, **more: None)
    for part in ("steps", "compiled", "recurrent", "loss", "sampling", "others"):
        gpu_parts.PARTS[part](session)
    rivals = [entry for entry in asked if entry.side is session.torch]
    for entry in rivals:
        method, given = getattr(torch_side, entry.given["method"]), dict(entry.given)
        del given["method"]
        if "compile" in given.get("mode", ""):
            inspect.signature(method).bind(**given)
            assert entry.limit == gpu_parts.COMPILE_LIMIT
        else:
            assert method(**given).round() > 0
    asked_for = {entry.row["who"] for entry in rivals}
    assert {"torch eager", "torch graph, V padded to 64, logits in bf16"} <= asked_for
    torch_side.check()
    torch_side.clean()
    assert torch_side.machine()["torch"]


def test_pytorch_trains_and_keeps_its_state(torch_side):
    for half in (False, True):
        step = torch_side.step_call(TINY, "bf16" if half else "fp32", half=half)
        losses = [float(step().detach()) for _ in range(30)]
        assert losses[-1] < losses[0] < 4
        assert losses[0] == pytest.approx(np.log(TINY.V), abs=0.3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("head", ["sigmoid", "nade", "biaxial"])
def test_pytorch_trains_on_notes(torch_side, head, precision):
    step = torch_side.step_call(Case("notes", 20, 3, 4, 8, head=head), precision)
    losses = [float(step().detach()) for _ in range(30)]
    assert losses[-1] < losses[0] == pytest.approx(20 * np.log(2), rel=0.4)


@pytest.mark.parametrize("precision", ["fp32", "rounded", "bf16"])
def test_pytorch_trains_with_dropout_gate_and_averages(torch_side, monkeypatch, precision):
    import gpu_rivals

    of, means = gpu_rivals.torch.nn, []
    dropped, layers = [], []

    class Layers(of.LSTM):
        def __init__(self, *sizes, **more):
            super().__init__(*sizes, **more)
            layers.append((self.input_size, self.hidden_size, self.dropout))

    def averaging(decay):
        return lambda into, parameters, n: means.append((decay, len(into), len(parameters)))

    monkeypatch.setattr(of, "LSTM", Layers)
    monkeypatch.setattr(of.functional, "dropout", lambda x, p, *how: dropped.append(p) or x)
    monkeypatch.setattr(gpu_rivals.torch.optim.swa_utils, "get_ema_multi_avg_fn", averaging)
    case = TINY._replace(E=6, copy=3, dropout=0.1, average=0.9)
    step = torch_side.step_call(case, precision, half=precision == "bf16")
    losses = [float(step().detach()) for _ in range(30)]
    assert losses[-1] < losses[0] < 4
    assert layers == [(6, 8, 0.1)] and dropped == [0.1] * 60
    # An embedding, two layers of four each, a linear map, a gate's two.
    assert means == [(0.9, 13, 13)] * 30


def test_fp32_products_may_round_only_where_asked(torch_side):
    torch = pytest.importorskip("torch")
    for precision, kept in (("rounded", "medium"), ("bf16", "highest"), ("fp32", "highest")):
        torch_side.use(precision)
        assert torch.get_float32_matmul_precision() == kept


def test_pytorch_pads_vocabularies_and_without_a_gpu_is_an_error(torch_side, monkeypatch):
    import gpu_rivals

    assert [gpu_rivals.aligned(V) for V in (1, 64, 65)] == [64, 64, 128]
    monkeypatch.setattr(gpu_rivals.torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no GPU"):
        gpu_rivals.start()


# Processes ----------------------------------------------------------------------------------------


@pytest.fixture
def worker():
    made = Worker("faulty", lambda: 60.0)
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
    side, kept = Local(faulty.Faulty()), []
    entries = [Entry({}, side, {"method": "number", "x": x}) for x in (0.1, 0.2, 0.3)]
    left = iter([9.0] * 3 + [9.0] * 6 * 2 + [0.0] * 100)
    rows = interleaved(entries, lambda: next(left), 9, kept.append)
    assert side.order == ["0", "1", "2"] * 2
    assert [row["seconds"] for row in rows] == [0.1, 0.2, 0.3]
    assert len(kept) == 9 and kept[0] == rows
    left = iter([9.0] * 3 + [0.0] * 100)
    assert [row["error"] for row in interleaved(entries, lambda: next(left), 3)] == [NOT_RUN] * 3


def test_a_worker_without_time_does_nothing(worker):
    worker.make("x", method="number", x=0.5)
    worker.left = lambda: 0.0
    with pytest.raises(Failed, match="no time was left"):
        worker.call("add", a=2, b=3)
    worker.process.kill()
    worker.left = iter([60.0] + [0.0] * 9).__next__
    with pytest.raises(Failed, match="died"):
        worker.call("add", a=2, b=3)
    assert worker.made == {}  # nothing is made again


# Goals, of made-up figures ------------------------------------------------------------------------


def row(side, who, seconds, precision="bf16", **more):
    return {"side": side, "who": who, "precision": precision, "seconds": seconds, **more}


def goals_by_name(found):
    return {(goal.goal, goal.precision): goal for goal in report.goals(found)}


def test_nothing_measured_reaches_nothing():
    found = report.goals({})
    assert all("not run" in goal.measured for goal in report.goals({"hidden": 16}))
    assert len(found) == 3 + 12 + 4 + 4 + 8 + 8 + 12 + 2 + 12
    assert {goal.reached for goal in found} == {""}
    assert all("not run" in goal.measured for goal in found)


def test_epochs_and_ratios_take_the_best_of_each_side():
    rows = [
        row("ours", "ours", 0.8e-3, case="Bach"),
        row("ours", "ours, batches sent", 0.75e-3, WITHOUT, case="Bach"),
        row("ours", "ours", 0.7e-3, WITHOUT, case="Bach"),
        row("torch", "torch eager", 4e-3, case="Bach"),
        row("torch", "torch graph", 1.5e-3, case="Bach"),
        row("torch", "torch graph", 0.1e-3, "tf32", case="Bach"),
        {"side": "ours", "precision": "tf32", "case": "Bach", "error": "CUDAError: gone"},
    ]
    goals = goals_by_name({"training": rows})
    epochs = goals["Bach: 50 epochs", WITHOUT]
    assert epochs.reached == "yes" and epochs.measured == "24.9 s (0.750 ms a step)"
    ratio = goals["Bach, a step", "bf16"]
    assert (ratio.measured, ratio.reached) == ("1.88x torch graph", "no")
    assert goals["Bach, a step", WITHOUT].reached == "yes"
    assert goals["Bach, a step", "tf32"].measured == "ours: CUDAError: gone"
    assert goals["Bach, a step", "fp32"].reached == ""
    assert goals["Muse-All: 800 epochs", ""].measured == "not run"


def test_results_are_kept_where_no_page_can_be_made_of_them(tmp_path):
    odd = row("ours", "ours, batches sent", "x", case="Bach")
    report.write({"training": [odd]}, tmp_path / "x")
    assert (tmp_path / "x.md").read_text().startswith("no page: ")
    assert json.loads((tmp_path / "x.json").read_text())["training"]


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
