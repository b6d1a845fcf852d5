"""A run's folder that is moved or removed while it's trained; names that several take at once."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small import COMPUTE, SMALL, metrics, target

from lstm_music.cli import sample, train, train_options
from lstm_music.runs import checkpoint
from lstm_music.runs.checkpoint import CHECKPOINTS
from lstm_music.training.trainer import Trainer

HOW = ("--early-stop", 0, "--checkpoint-minutes", 1000)


def moved():
    Path("runs/a").rename("runs/b")


def moved_and_replaced():
    moved()
    Path("runs/a").mkdir()


def moved_with_its_folder():
    Path("runs").rename("other")


def removed():
    shutil.rmtree("runs/a")


def removed_and_replaced():
    removed()
    Path("runs/a").mkdir()


def emptied():
    for path in Path("runs/a").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def without_checkpoints():
    shutil.rmtree(Path("runs/a") / CHECKPOINTS)


HAPPENINGS = {  # where the run is then, and how it says so
    moved: ("runs/b", "was moved: going on in"),
    moved_and_replaced: ("runs/b", "was moved: going on in"),
    moved_with_its_folder: ("other/a", "was moved: going on in"),
    removed: ("runs/a", "was removed: going on in a new one,"),
    removed_and_replaced: ("runs/a-2", "was removed: going on in a new one,"),
    emptied: ("runs/a-2", "was removed: going on in a new one,"),
    without_checkpoints: ("runs/a", None),
}


@pytest.fixture
def happens(monkeypatch):
    """Have something happen after a step: happens(20, moved)."""

    def at(step, what):
        real = train.Screen.show

        def show(self, report):
            real(self, report)
            if report.progress.step == step:
                what()

        monkeypatch.setattr(train.Screen, "show", show)

    return at


@pytest.fixture
def whole(train_small):
    """A run of 60 steps that nothing happened to."""
    train_small(*HOW, "--run", "whole", "--max-steps", 60)
    return Path("runs/whole").rename("whole")


def assert_same_end(run, whole):
    """A run ended as an undisturbed one did."""
    for name in ("model.safetensors", "train.safetensors"):
        files = [one / CHECKPOINTS / target(one, "latest") / name for one in (run, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()


STEPS = [(what, 25) for what in HAPPENINGS]
STEPS += [(what, step) for what in (moved, removed) for step in (18, 40)]  # a best one's, the last


@pytest.mark.slow(keep=4)
@pytest.mark.parametrize(("what", "step"), STEPS)
def test_a_run_goes_on_wherever_its_folder_is(whole, command, happens, what, step):
    happens(step, what)
    done = command("train", "music", *SMALL, *HOW, "--run", "a", "--max-steps", 40)
    place, said = Path(HAPPENINGS[what][0]), HAPPENINGS[what][1]
    assert done.status == 0
    assert done.err == ([f"warning: the run 'runs/a' {said} '{place}'"] if said else [])
    assert target(place, "latest") == "step-00000040"
    assert target(place, "best") is not None
    assert len(list((place / "samples").glob("*.mid"))) == 1
    again = shlex.split(done.out[-1].removeprefix("go on: bin/train "))
    assert again[:3] == ["--resume", "--run", str(place)]
    assert command("train", *again[:3], "--max-steps", 60).status == 0
    assert_same_end(place, whole)
    lost = 2 * (step // 18) if said and "removed" in said else 0  # with the folder that's gone
    assert metrics(place) == metrics(whole)[lost:]


@pytest.mark.parametrize("what", [moved, removed, without_checkpoints])
def test_what_is_gone_after_the_last_step_is_saved_again(train_small, command, happens, what):
    happens(36, what)  # at the end of an epoch, whose best is saved
    assert command("train", "music", *SMALL, *HOW, "--run", "a", "--max-steps", 36).status == 0
    assert target(HAPPENINGS[what][0], "latest") == "step-00000036"


@pytest.mark.parametrize("mended", [True, False])
def test_where_no_folder_can_be_made_training_goes_on_and_tries_again(command, happens, mended):
    def barred():
        shutil.rmtree("runs")
        Path("runs").touch()

    happens(20, barred)
    if mended:
        happens(38, Path("runs").unlink)
    done = command("train", "music", *SMALL, *HOW, "--run", "a", "--max-steps", 40)
    assert done.status == (0 if mended else 2)
    assert [line.split(":")[0] for line in done.err[:2]] == ["warning"] * 2  # a row, a row
    if mended:
        assert target("runs/a", "latest") == "step-00000040"
        assert done.err[-1].endswith("was removed: going on in a new one, 'runs/a'")
    else:
        assert "; nothing of this run is saved: mend that, then go on with " in done.err[-1]


def test_the_best_one_that_is_gone_is_no_bar_to_those_after_it(command, happens, monkeypatch):
    losses = iter((1.0, 2.0))
    monkeypatch.setattr(Trainer, "validate", lambda self: next(losses))
    happens(25, removed)
    words = ("music", *SMALL, *HOW, "--run", "a", "--max-steps", 36)
    assert command("train", *words).status == 0
    assert target("runs/a", "best") == "step-00000036"


def test_a_run_that_moves_while_it_is_written_is_written_where_it_is(
    whole, command, folder, monkeypatch
):
    real = checkpoint.write_synced

    def moving(path, data):
        real(path, data)
        if path.name == "model.safetensors" and "step-00000040" in path.parent.name:
            monkeypatch.setattr(checkpoint, "write_synced", real)
            moved()

    monkeypatch.setattr(checkpoint, "write_synced", moving)
    done = command("train", "music", *SMALL, *HOW, "--run", "a", "--max-steps", 40)
    assert (done.status, len(done.err)) == (0, 1)
    assert not Path("runs/a").exists()
    assert command("train", "--resume", "--run", "b", "--max-steps", 60).status == 0
    assert_same_end(Path("runs/b"), whole)
    assert not list(Path("runs/b", CHECKPOINTS).glob(".*"))


def test_a_run_that_is_removed_while_it_is_stopped_says_how_to_go_on(command, happens):
    def stop():
        removed_and_replaced()
        signal.raise_signal(signal.SIGINT)

    happens(5, stop)
    done = command("train", "music", *SMALL, *HOW, "--run", "a", "--max-steps", 40)
    assert done.status == 130
    assert done.err == [
        "warning: the run 'runs/a' was removed: going on in a new one, 'runs/a-2'",
        "stopped at step 5 and saved; go on with bin/train --resume --run runs/a-2 --max-steps 40",
    ]
    assert target("runs/a-2", "latest") == "step-00000005"


def test_a_run_that_is_gone_before_it_is_resumed_is_not_begun_anew(train_small, fails, monkeypatch):
    train_small(*HOW, "--run", "a", "--max-steps", 5)
    real = train.load_corpus

    def load(*given, **how):
        removed()
        return real(*given, **how)

    monkeypatch.setattr(train, "load_corpus", load)
    assert fails("train", "--resume", "--max-steps", 9).startswith("no run at 'runs/a'")
    assert not Path("runs/a").exists()


def test_metrics_that_were_removed_have_their_heads_again(train_small, ok, happens):
    happens(20, lambda: Path("runs/a/metrics.csv").unlink())
    train_small(*HOW, "--run", "a", "--max-steps", 40)
    assert [row["step"] for row in metrics("runs/a")] == ["36", "36", "40"]


# Names ------------------------------------------------------------------------------------------


def at_once(name, *calls):
    """Run a command several times at once; return what each printed."""
    command = [sys.executable, "-m", f"lstm_music.cli.{name}"]
    processes = [
        subprocess.Popen([*command, *map(str, words)], stdout=subprocess.PIPE, text=True)
        for words in calls
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(calls)
    return said


def test_runs_that_are_not_named_and_begin_at_once_are_all_trained(folder):
    words = ("music", *SMALL, "--max-steps", 3, *COMPUTE)
    said = at_once("train", *((*words, "--seed", seed) for seed in range(3)))
    runs = sorted((folder / "runs").iterdir())
    assert len(runs) == 3
    assert all(target(run, "latest") == "step-00000003" for run in runs)
    seeds = {json.loads((run / "config.json").read_text())["training"]["seed"] for run in runs}
    assert seeds == {0, 1, 2}
    assert {line.split()[2][:-1] for line in map(first_line, said)} == {
        str(run.relative_to(folder)) for run in runs
    }


def first_line(text):
    return text.splitlines()[0]


def test_a_run_not_named_takes_the_next_name(train_small, monkeypatch, folder):
    monkeypatch.setattr(train_options.time, "strftime", lambda *_: "20300101-000000")
    for _ in range(3):
        train_small("--max-steps", 1)
    names = sorted(path.name for path in (folder / "runs").iterdir())
    assert names == [f"music-20300101-000000{end}" for end in ("", "-2", "-3")]


@pytest.mark.slow
def test_pieces_composed_at_once_are_all_there(folder):
    words = ("bach", "--num", 4, "--length", 40, "--quiet", *COMPUTE)
    said = at_once("sample", *((*words, "--seed", seed, "--out", "two") for seed in (1, 2)))
    paths = [Path(path) for text in said for path in text.split()]
    assert sorted(paths) == [Path(f"two/sample-{n:04d}.mid") for n in range(1, 9)]
    contents = [{path.read_bytes() for path in paths[n : n + 4]} for n in (0, 4)]
    for seed, content in zip((1, 2), contents, strict=True):
        (alone,) = at_once("sample", (*words, "--seed", seed, "--out", "alone"))
        assert content == {Path(path).read_bytes() for path in alone.split()}


def test_a_piece_whose_name_is_taken_meanwhile_gets_the_next(ok, folder, monkeypatch):
    real, theirs = sample.midi_of, folder / "out/sample-0001.mid"

    def slow(*given):
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_bytes(b"theirs")
        return real(*given)

    monkeypatch.setattr(sample, "midi_of", slow)
    words = ("bach", "--num", 2, "--length", 20, "--png", "--out", "out", "--quiet")
    assert ok("sample", *words) == [
        "out/sample-0002.mid", "out/sample-0002.png", "out/sample-0003.mid", "out/sample-0003.png",
    ]  # fmt: skip
    assert theirs.read_bytes() == b"theirs"


def test_a_sound_without_its_piece_keeps_its_number(ok, folder):
    (folder / "out").mkdir()
    (folder / "out/sample-0007.wav").touch()
    words = ("bach", "--length", 20, "--out", "out", "--quiet")
    assert ok("sample", *words) == ["out/sample-0008.mid"]
