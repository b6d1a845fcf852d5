"""Kills, second processes, disks, memory and clocks that go wrong: one line, and nothing lost."""

import resource
import signal
import subprocess
import sys
import time

import pytest
from small import COMPUTE, SMALL, heed_signals, metrics, target, without_override

from lstm_music.cli import train
from lstm_music.runs.checkpoint import checkpoints_of, read_run
from lstm_music.training import resuming
from lstm_music.training.trainer import Trainer

TRAIN = [sys.executable, "-m", "lstm_music.cli.train"]
ENDLESS = ("--early-stop", 0, "--max-steps", 10**6)


def start(*words, **options):
    """Begin training in a process of its own, and wait for its first line."""
    process = subprocess.Popen(
        [*TRAIN, *map(str, words), *COMPUTE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    return process, process.stdout.readline()


def ended(process):
    """Wait for a process; return its status and the lines of its standard error."""
    _, err = process.communicate(timeout=60)
    return process.returncode, err.splitlines()


def test_a_second_process_is_refused_and_the_first_goes_on(fails, folder):
    process, _ = start("music", *SMALL, *ENDLESS, "--run", "a")
    try:
        line = fails("train", "--resume", "--run", "a")
        assert line.startswith(f"process {process.pid} on ")
        assert "trains the run 'runs/a': stop it first, or wait for its end" in line
        assert fails("train", "music", "--run", "a").startswith("the run 'runs/a' exists")
    finally:
        process.send_signal(signal.SIGINT)
    status, _ = ended(process)
    assert status == 130


def test_a_run_whose_process_was_killed_is_taken_up(command, folder):
    process, _ = start("music", *SMALL, *ENDLESS, "--run", "a", "--checkpoint-minutes", "0.0001")
    while not checkpoints_of(folder / "runs/a"):
        time.sleep(0.01)
    process.kill()
    ended(process)
    step = int(target(folder / "runs/a", "latest")[5:])
    done = command("train", "--resume", "--max-steps", step + 5)
    assert done.status == 0
    assert done.out[0].startswith(f"resumed at step {step:,} ")
    (line,) = done.err
    assert line.startswith(f"warning: process {process.pid} on ")
    assert line.endswith("was killed: going on from its last checkpoint")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_that_stops_a_program_saves_first(folder, number):
    process, _ = start("music", *SMALL, *ENDLESS, "--run", "a", preexec_fn=heed_signals)
    time.sleep(0.2)
    process.send_signal(number)
    status, (line,) = ended(process)
    assert status == 128 + number
    step = int(line.split()[3])
    assert target(folder / "runs/a", "latest") == f"step-{step:08d}"


def test_a_run_keeps_as_many_checkpoints_as_asked(train_small, ok, folder, monkeypatch):
    how = ("--run", "a", "--checkpoint-minutes", "1e-9", "--early-stop", 0)
    train_small(*how, "--keep", 5, "--max-steps", 30)
    kept = [path.name for path in checkpoints_of(folder / "runs/a")]
    assert kept == [f"step-{n:08d}" for n in (30, 29, 28, 27, 26, 18)]  # 18 is the best
    ok("train", "--resume", "--keep", 1, "--max-steps", 33)
    assert target(folder / "runs/a", "latest") == "step-00000033"
    assert len(checkpoints_of(folder / "runs/a")) == 2


# Disks ------------------------------------------------------------------------------------------


def test_nothing_saved_at_all_is_said(folder):
    """Files may grow to 8 KiB: no checkpoint fits, and the run is lost."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 13, 1 << 13))

    words = ("music", *SMALL, "--hidden", 64, "--early-stop", 0, "--run", "a", "--max-steps", 40)
    process, _ = start(*words, preexec_fn=limited)
    status, (*warnings, error) = ended(process)
    assert status == 2
    assert [line.startswith("warning: can't write a checkpoint") for line in warnings]
    assert error.startswith("error: can't write a checkpoint in 'runs/a' (File too large)")
    assert "; nothing of this run is saved: free some space" in error


@pytest.mark.skipif(sys.platform != "linux", reason="drops the superuser's powers, Linux's way")
@pytest.mark.parametrize("what", ["new run", "resumed run", "checkpoints"])
def test_a_read_only_folder_is_one_line(train_small, folder, what):
    runs = folder / "runs"
    if what == "new run":
        runs.mkdir()
        words, closed = ("music", *SMALL, "--max-steps", 20, "--run", "b"), runs
    else:
        train_small("--max-steps", 19, "--run", "a")
        words = ("--resume", "--run", "a", "--max-steps", 25)
        closed = runs / "a" / ("checkpoints" if what == "checkpoints" else ".")
        (runs / "a" / "lock").unlink()
    closed.chmod(0o555)
    try:
        process, _ = start(*words, preexec_fn=without_override)
        status, lines = ended(process)
    finally:
        closed.chmod(0o755)
    assert status == 2
    (line,) = lines
    assert line.startswith("error: can't write the run 'runs/")
    assert line.endswith("(Permission denied): choose another place with --run")
    if what != "new run":
        assert read_run(runs / "a", print, ("latest",))[0].meta["step"] == 19


def test_too_long_a_name_is_one_line(fails, folder):
    line = fails("train", "music", *SMALL, "--run", "a" * 300)
    assert "File name too long" in line
    assert "File name too long" in fails("train", "--resume", "--run", "a" * 300)
    assert not (folder / "runs").exists() or not list((folder / "runs").iterdir())


def test_a_checkpoint_that_fails_is_made_at_the_next_chance(command, folder, monkeypatch):
    real = resuming.write_checkpoint

    def full_at_times(run, step, *rest):
        if step in (2, 3):
            raise OSError(28, "No space left on device")
        return real(run, step, *rest)

    monkeypatch.setattr(resuming, "write_checkpoint", full_at_times)
    words = ("--checkpoint-minutes", "1e-9", "--max-steps", 6, "--run", "a")
    done = command("train", "music", *SMALL, *words)
    assert done.status == 0
    assert len(done.err) == 2
    assert all("training goes on and tries again later" in line for line in done.err)
    assert target(folder / "runs/a", "latest") == "step-00000006"


# Memory and clocks ------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [True, False])
def test_too_little_memory_in_the_midst_of_a_run_is_one_line(fails, folder, monkeypatch, saved):
    real = Trainer._step

    def greedy(self, batch):
        if self.progress.step == (20 if saved else 5):
            raise MemoryError
        return real(self, batch)

    monkeypatch.setattr(Trainer, "_step", greedy)
    line = fails("train", "music", *SMALL, "--max-steps", 30, "--run", "a", "--quiet")
    if saved:
        assert line.startswith("not enough memory at step 21; step-00000018 is whole: ")
        assert line.endswith("bin/train --resume --run runs/a --max-steps 30")
    else:
        assert line.startswith("not enough memory at step 6, and nothing is saved: ")


def test_too_little_memory_for_a_checkpoint_is_a_warning(command, folder, monkeypatch):
    real = Trainer._kept

    def greedy(self, state):
        if self.progress.step == 18:
            raise MemoryError
        return real(self, state)

    monkeypatch.setattr(Trainer, "_kept", greedy)
    done = command("train", "music", *SMALL, "--max-steps", 30, "--run", "a")
    assert done.status == 0
    (line,) = done.err
    assert "(not enough memory): training goes on and tries again later" in line


def test_a_clock_that_is_set_back_is_no_matter(train_small, folder, monkeypatch):
    train_small("--max-steps", 40, "--run", "a", "--early-stop", 0)
    now = iter(range(2_000_000_000, 0, -1_000_000))
    monkeypatch.setattr(time, "time", lambda: next(now))
    monkeypatch.setattr(train.time, "strftime", lambda *_: "19700101-000000")
    for steps in (20, 40):
        resume = ("--resume",) if steps == 40 else ()
        train_small("--max-steps", steps, "--run", "b", "--early-stop", 0, *resume)
    a, b = folder / "runs/a", folder / "runs/b"
    assert metrics(a) == metrics(b)
    files = [run / "checkpoints/latest/model.safetensors" for run in (a, b)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_new_run_that_is_killed_while_it_is_described_leaves_no_half_run(
    folder, monkeypatch, command
):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lstm_music.runs.folder.describe_run", killed)
    assert command("train", "music", *SMALL, "--run", "a").status == 130
    assert not (folder / "runs" / "a").exists()
