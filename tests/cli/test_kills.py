"""A run that is killed at random moments, and every other time while a checkpoint is written.

LSTM_MUSIC_KILLS says how often: 3 where it isn't set.
"""

import os
import random
import re
import subprocess
import sys
import time

import pytest
from small import COMPUTE, metrics, write_music

from lstm_music.runs.checkpoint import CHECKPOINTS, linked, read_arrays, read_meta

KILLS = int(os.environ.get("LSTM_MUSIC_KILLS", "3"))
STEPS = 75 * KILLS
TRAIN = [sys.executable, "-m", "lstm_music.cli.train"]
SHAPE = (
    "--hidden 16 --embedding 8 --batch 4 --seq 16 --average 0.9 --early-stop 0 --lr 0.01 "
    "--anneal-factor 0.5 --anneal-patience 1 --checkpoint-minutes 0.0005"
)


def last_step(run):
    """The step of the checkpoint that `latest` names, 0 without one."""
    latest = linked(run / CHECKPOINTS, "latest")
    return int(latest.name[5:]) if latest else 0


def being_written(run):
    """Whether there are checkpoints that aren't whole yet."""
    return any((run / CHECKPOINTS).glob(".step-*.tmp"))


def begun_at(line):
    """The step at which a run begins or goes on, of the line that says so."""
    found = re.match(r"resumed at step ([\d,]+) ", line)
    return int(found[1].replace(",", "")) if found else 0


def killed_training(words, run, step, seconds, in_write):
    """Train, and kill so long after the checkpoint of a step, or in the write after that.

    Returns where it began, where it stood, and whether it was writing.
    """
    process = subprocess.Popen(
        [*TRAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process.stdout as stdout:
        began = begun_at(stdout.readline())
        while last_step(run) < step and process.poll() is None:
            time.sleep(0.001)
        time.sleep(seconds)
        while in_write and not being_written(run) and process.poll() is None:
            pass
        process.kill()
        process.wait()
    return began, last_step(run), being_written(run)


def arrays(run, link, name):
    """The arrays of a checkpoint as bytes, with its step."""
    path = linked(run / CHECKPOINTS, link)
    found = read_arrays(path, name, read_meta(path))
    return path.name, {k: a.tobytes() for k, a in found.items()}


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_one_that_never_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    write_music(tmp_path / "music", pieces=10, tracks=4, notes=100)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    new = [str(tmp_path / "music"), *SHAPE.split(), "--max-steps", str(STEPS), *COMPUTE]
    quiet = [*TRAIN, *new, "--run", str(whole), "--quiet"]
    subprocess.run(quiet, check=True, stdout=subprocess.DEVNULL)
    rng, words, stood, writing = random.Random(0), [*new, "--run", str(killed)], 0, 0
    for n, step in enumerate(sorted(rng.sample(range(1, STEPS), KILLS))):
        began, at, wrote = killed_training(words, killed, step, rng.uniform(0, 0.1), n % 2 == 1)
        assert began == stood
        stood, writing = at, writing + wrote
        words = ["--resume", "--run", str(killed), *COMPUTE]
    print(f"{KILLS} kills, {writing} inside a checkpoint write, the last at step {stood}")
    assert stood
    done = subprocess.run([*TRAIN, *words], check=True, capture_output=True, text=True)
    assert begun_at(done.stdout) == stood
    assert metrics(whole) == metrics(killed)
    for link in ("latest", "best"):
        for name in ("model.safetensors", "train.safetensors"):
            assert arrays(whole, link, name) == arrays(killed, link, name)
    # After a kill between a sample and the end there are two.
    samples = ({path.read_bytes() for path in run.glob("samples/*.mid")} for run in (whole, killed))
    assert next(samples) == next(samples)
