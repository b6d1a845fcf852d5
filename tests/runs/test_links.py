"""`latest` and `best` where there are no symbolic links, and where copies stand for them."""

import errno
import os
import shutil

import pytest
from small import COMPUTE, SMALL, target, write_music
from test_checkpoint import write

from lstm_music.cli import sample, train
from lstm_music.cli.judging import checkpoint_name
from lstm_music.reproduction.outcome import read_outcome
from lstm_music.runs import checkpoint as checkpoints
from lstm_music.runs.checkpoint import (
    CHECKPOINTS,
    META_FILE,
    checkpoints_of,
    linked,
    point,
    point_best,
    read_run,
)
from lstm_music.runs.opened import newest_run, open_run

HOW = ("music", *SMALL, "--early-stop", 0, "--checkpoint-minutes", 1e-9, "--run", "a")
REASONS = [
    OSError(errno.EPERM, "Operation not permitted"),
    OSError(errno.EOPNOTSUPP, "Operation not supported"),
    NotImplementedError("symlink"),
]


def call(main, *words):
    assert main([*map(str, words), *COMPUTE, "--quiet"]) == 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a small corpus."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_music(tmp_path / "music")
    return tmp_path


@pytest.fixture
def without(monkeypatch):
    """Have no symbolic links, for a reason."""

    def call(reason=REASONS[0]):
        def refuse(*_, **__):
            raise reason

        monkeypatch.setattr(checkpoints.os, "symlink", refuse)

    return call


def newest(run):
    """The steps of a run's checkpoints."""
    return [int(path.name[5:]) for path in checkpoints_of(run)]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: type(reason).__name__)
def test_a_file_holds_the_name_where_there_are_no_links(tmp_path, without, reason):
    without(reason)
    for step in (1, 2, 3):
        write(tmp_path, step)
    point(tmp_path / CHECKPOINTS, "best", "step-00000002")
    assert (tmp_path / CHECKPOINTS / "best").read_text() == "step-00000002\n"
    assert read_run(tmp_path, print)[0].meta["step"] == 2
    assert read_run(tmp_path, print, ("latest",))[0].meta["step"] == 3
    point_best(tmp_path, 1)
    assert target(tmp_path, "best") == "step-00000001"
    point_best(tmp_path, None)
    assert target(tmp_path, "best") is None
    names = {path.name for path in (tmp_path / CHECKPOINTS).iterdir()}
    assert names == {"latest", "step-00000001", "step-00000002", "step-00000003"}


def test_a_run_without_links_is_trained_pruned_resumed_and_used(folder, without, capsys):
    call(train.main, *HOW[:-1], "b", "--max-steps", 24)
    without()
    call(train.main, *HOW, "--max-steps", 20)
    a, b = folder / "runs/a", folder / "runs/b"
    assert newest(a) == [20, 19, 18]  # the last two, and the best
    assert not any(path.is_symlink() for path in (a / CHECKPOINTS).iterdir())
    call(train.main, "--resume", "--run", "a", "--max-steps", 24)
    for link in ("latest", "best"):
        assert target(a, link) == target(b, link)
        files = [linked(run / CHECKPOINTS, link) / "model.safetensors" for run in (a, b)]
        assert files[0].read_bytes() == files[1].read_bytes()
    checkpoint, run = open_run("runs/a/checkpoints/best", print)
    assert checkpoint.path.name == target(a, "best")
    assert run.resolve() == a.resolve()
    call(sample.main, "runs/a/checkpoints/latest", "--length", 20)
    assert len(list((a / "samples").iterdir())) == 3
    os.utime(a / CHECKPOINTS, (9e9, 9e9))
    assert newest_run().name == "a"
    assert checkpoint_name(a) == target(a, "best")
    assert read_outcome(a).epochs == read_outcome(b).epochs


def test_what_was_never_pruned_for_want_of_links_is(folder, capsys):
    call(train.main, *HOW, "--keep", 20, "--max-steps", 12)
    run = folder / "runs/a"
    (run / CHECKPOINTS / "latest").unlink()
    assert len(newest(run)) == 12
    call(train.main, "--resume", "--run", "a", "--keep", 2, "--max-steps", 14)
    assert newest(run) == [14, 13]


@pytest.mark.parametrize("linking", [True, False])
def test_copies_in_the_place_of_links_are_understood_and_replaced(folder, without, linking):
    """As zip, `cp -rL` and clouds leave a run: the best one must not become the newest."""
    call(train.main, *HOW, "--max-steps", 24)
    point(folder / "runs/a" / CHECKPOINTS, "best", "step-00000018")
    shutil.copytree("runs/a", "runs/c")
    shutil.rmtree("runs/a")
    run = folder / "runs/c"
    assert not any(path.is_symlink() for path in (run / CHECKPOINTS).iterdir())
    assert (target(run, "latest"), target(run, "best")) == ("step-00000024", "step-00000018")
    assert read_run(run, print)[0].meta["step"] == 18
    if not linking:
        without()
    call(train.main, "--resume", "--run", "c", "--max-steps", 26)
    assert target(run, "latest") == "step-00000026"
    links = [run / CHECKPOINTS / link for link in ("latest", "best")]
    assert [link.is_symlink() for link in links] == [linking, linking]
    assert [link.is_file() for link in links] == [not linking, not linking]


def test_a_copy_becomes_a_link_or_is_taken_away(tmp_path):
    best = tmp_path / CHECKPOINTS / "best"
    for step in (1, None):
        shutil.copytree(write(tmp_path, 1), best)
        assert target(tmp_path, "best") == "step-00000001"
        point_best(tmp_path, step)
        assert best.is_symlink() == (step is not None)
        best.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"../../outside", b"/", b".", b"step-x", b"step-00000001/..", b"\xff", b"x" * 10**6,
     b"step-00000002"],
)  # fmt: skip
def test_a_file_that_names_no_checkpoint_beside_it_is_passed_over(tmp_path, content):
    run = tmp_path / "run"
    shutil.copytree(write(run, 1), tmp_path / "outside")
    (run / CHECKPOINTS / "latest").unlink()
    (run / CHECKPOINTS / "latest").write_bytes(content)
    assert linked(run / CHECKPOINTS, "latest") is None
    warnings = []
    assert read_run(run, warnings.append)[0].meta["step"] == 1
    (line,) = warnings
    assert "latest' points to no checkpoint beside it: using step-00000001 instead" in line


@pytest.mark.parametrize("kind", ["pipe", "folder", "forged"])
def test_what_is_neither_a_link_nor_a_file_is_passed_over(tmp_path, kind):
    write(tmp_path, 1)
    place = tmp_path / CHECKPOINTS / "latest"
    place.unlink()
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    if kind == "forged":
        (place / META_FILE).write_text('{"step": 1e400}')
    assert read_run(tmp_path, print)[0].meta["step"] == 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_syncs_no_folders_has_checkpoints(tmp_path, monkeypatch, number):
    real = os.fsync

    def refuse(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(checkpoints.os, "fsync", refuse)
    write(tmp_path, 1)
    assert target(tmp_path, "latest") == "step-00000001"
