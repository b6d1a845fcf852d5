"""The commands under a real MPI launcher: mpirun of the extra `mpi`, two ranks."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from small import COMPUTE, SMALL, heed_signals, metrics

from lstm_music.errors import LAUNCHERS
from lstm_music.runs.checkpoint import checkpoints_of, read_checkpoint

MPIRUN = shutil.which("mpirun", path=str(Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(
    not (MPIRUN and importlib.util.find_spec("mpi4py")),
    reason="no mpirun and mpi4py here: pip install 'lstm-music[mpi]'",
)
SECONDS = 60  # in which a job that waits for ever is ended
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def begin(ranks, name, *words, after=(), **given):
    line = [
        MPIRUN,
        "-n",
        ranks,
        sys.executable,
        "-m",
        f"lstm_music.cli.{name}",
        *words,
        *COMPUTE,
        *after,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = os.environ | AS_ROOT
    return subprocess.Popen([str(word) for word in line], env=env, **pipes, **given)


def ended(job):
    try:
        out, err = job.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        job.kill()
        raise
    return SimpleNamespace(status=job.returncode, out=out.splitlines(), err=err.splitlines())


def ranks_of(job):
    """The process ids of a job's ranks, by rank; none where one of them is not there yet."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            said = dict(line.split("=", 1) for line in path.read_text().split("\0") if "=" in line)
            if f"--run\0{job.args[-1 - len(COMPUTE)]}" not in (path.parent / "cmdline").read_text():
                continue
        except (OSError, ValueError):
            continue
        for _, rank in LAUNCHERS:
            if rank in said:
                found[int(said[rank])] = int(path.parent.name)
    return found


def wait_for_checkpoint(job, run):
    while not checkpoints_of(run) and job.poll() is None:
        time.sleep(0.02)
    assert job.poll() is None, ended(job).err


def endless(run):
    given = ("--max-steps", 10**6, "--early-stop", 0, "--checkpoint-minutes", 0.001)
    return begin(2, "train", "music", *SMALL, *given, "--run", run, preexec_fn=heed_signals)


def test_two_ranks_train_one_run_and_one_process_goes_on(folder, train_small):
    limits = ("--max-steps", 30)
    train_small(*limits, "--run", "alone")
    done = ended(begin(2, "train", "music", *SMALL, *limits, "--run", "ranks"))
    assert (done.status, done.err) == (0, [])
    assert done.out[0].startswith("new run runs/ranks: ") and done.out[0].endswith("; 2 ranks")
    assert sum(line.startswith("stopped by --max-steps 30") for line in done.out) == 1
    assert [p.name for p in Path("runs/ranks/samples").iterdir()] == ["sample-0001.mid"]
    found, expected = metrics("runs/ranks"), metrics("runs/alone")
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    assert float(found[0]["loss"]) == pytest.approx(float(expected[0]["loss"]), rel=1e-4)
    train_small("--resume", "--max-steps", 40, "--run", "ranks")
    assert checkpoints_of(Path("runs/ranks"))[0].name == "step-00000040"


def test_two_ranks_begin_with_a_trained_model_as_one_does(folder, train_small):
    """Step 0 is judged to the last bit alike: both have the parameters that it ended with."""
    train_small("--max-steps", 20, "--run", "a")
    how = ("--from", "a", "--max-steps", 12)
    train_small(*how, "--run", "alone")
    done = ended(begin(2, "train", "music", *SMALL, *how, "--run", "ranks"))
    assert (done.status, done.err) == (0, [])
    step = re.search(r"new run runs/ranks from a, step ([0-9]+), with", done.out[0])
    assert step and sum(line.startswith("new run") for line in done.out) == 1
    assert done.out[0].endswith("; 2 ranks")
    made = read_checkpoint(Path("runs/ranks/checkpoints/latest").resolve())
    assert made.meta["origin"] == {"name": "a", "step": int(step[1])}
    found, expected = metrics("runs/ranks"), metrics("runs/alone")
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    assert (found[0]["step"], found[0]["loss"]) == ("0", expected[0]["loss"])
    assert float(found[-1]["loss"]) == pytest.approx(float(expected[-1]["loss"]), rel=1e-3)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc to find ranks in")
def test_a_rank_that_is_killed_ends_the_job_and_the_run_goes_on(folder, command):
    run = Path("runs/killed")
    job = endless("killed")
    wait_for_checkpoint(job, run)
    found = ranks_of(job)
    assert sorted(found) == [0, 1]
    os.kill(found[1], signal.SIGKILL)
    assert ended(job).status != 0
    assert not ranks_of(job)
    step = int(checkpoints_of(run)[0].name.removeprefix("step-"))
    done = command("train", "--resume", "--run", "killed", "--max-steps", step + 5)
    assert done.status == 0
    assert "was killed: going on from its last checkpoint" in done.err[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_launcher_saves_once(folder, number):
    job = endless("stopped")
    wait_for_checkpoint(job, Path("runs/stopped"))
    job.send_signal(number)
    done = ended(job)
    (line,) = [line for line in done.err if "stopped at step" in line]
    step = int(line.split()[3])
    assert checkpoints_of(Path("runs/stopped"))[0].name == f"step-{step:08d}"
    assert Path("runs/stopped/lock").read_text() == ""


def test_ranks_that_were_given_other_options_say_which(folder):
    program = [sys.executable, "-m", "lstm_music.cli.train", "music", *COMPUTE]
    other = [":", "-n", 1, *program, "--hidden", 9]
    done = ended(begin(1, "train", "music", "--hidden", 8, after=other))
    assert done.status == 2
    lines = [line for line in done.err if "error:" in line]
    assert [line.partition(" (")[0] for line in lines] == [
        "error: rank 1 was given other options than rank 0"
    ]
    assert "(hidden 9, not 8)" in lines[0] and not Path("runs").exists()


def test_what_is_wrong_for_all_is_said_once(folder):
    done = ended(begin(2, "train", "nowhere"))
    assert done.status == 2
    assert sum(line.startswith("error: unknown corpus 'nowhere'") for line in done.err) == 1
    assert sum("error:" in line for line in done.err) == 1
    assert not Path("runs").exists()


def test_pieces_are_spread_and_stay_the_same(folder, train_small, ok):
    train_small("--max-steps", 5, "--run", "a")
    ok("sample", "a", "--num", 5, "--length", 30, "--out", "alone", "--quiet")
    done = ended(begin(2, "sample", "a", "--num", 5, "--length", 30, "--out", "ranks", "--quiet"))
    assert (done.status, done.err) == (0, [])
    assert sorted(done.out) == [f"ranks/sample-000{n}.mid" for n in range(1, 6)]
    for path in sorted(Path("alone").iterdir()):
        assert (Path("ranks") / path.name).read_bytes() == path.read_bytes()
