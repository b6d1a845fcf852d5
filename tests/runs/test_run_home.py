import os
import shutil
import sys

import pytest

from lstm_music.errors import UserError
from lstm_music.runs import home as run_home
from lstm_music.runs.folder import CONFIG
from lstm_music.runs.home import RunHome
from lstm_music.runs.lock import RunLock

needs_paths = pytest.mark.skipif(
    sys.platform not in ("linux", "darwin"), reason="the system names no open folder's path"
)


def new(folder, name="a"):
    """A run's folder, of a name that isn't taken."""
    run = folder / name
    while run.exists():
        run = run.with_name(f"{run.name}-2")
    run.mkdir(parents=True)
    (run / CONFIG).write_text("{}")
    return run


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home in `runs/a` of the current folder, and its warnings."""
    monkeypatch.chdir(tmp_path)
    warnings = []
    made = RunHome(warnings.append)
    made.warnings = warnings
    made.make = lambda run: new(run.parent, run.name)
    new(tmp_path / "runs")
    made.enter(run_home.shown(tmp_path / "runs/a"))
    yield made
    made.release()


def test_a_folder_that_stays_is_where_it_was(home):
    assert not home.settle()
    assert str(home.run) == "runs/a" and not home.warnings


@needs_paths
def test_a_folder_that_is_moved_is_followed(home, tmp_path):
    for old, to in (("a", "b"), ("b", "other/c"), ("other", "d")):
        (tmp_path / "runs" / to).parent.mkdir(exist_ok=True)
        (tmp_path / "runs" / old).rename(tmp_path / "runs" / to)
        assert not home.settle()
    assert str(home.run) == "runs/d/c"
    assert home.warnings == [
        "the run 'runs/a' was moved: going on in 'runs/b'",
        "the run 'runs/b' was moved: going on in 'runs/other/c'",
        "the run 'runs/other/c' was moved: going on in 'runs/d/c'",
    ]


@needs_paths
def test_a_folder_in_its_place_is_not_taken_for_it(home, tmp_path):
    (tmp_path / "runs/a").rename(tmp_path / "b")
    new(tmp_path / "runs")
    assert not home.settle()
    assert str(home.run) == "b"


def test_a_folder_that_is_gone_is_made_anew_and_locked(home, tmp_path):
    shutil.rmtree("runs")
    assert home.settle()
    assert str(home.run) == "runs/a" and (tmp_path / "runs/a" / CONFIG).is_file()
    assert home.warnings == ["the run 'runs/a' was removed: going on in a new one, 'runs/a'"]
    with pytest.raises(UserError, match="trains the run"):
        RunLock(tmp_path / "runs/a")
    assert not home.settle()


@pytest.mark.parametrize("left", ["nothing", "another run", "an empty folder"])
def test_what_stands_in_the_place_of_one_that_is_gone_stays(home, tmp_path, left):
    if left == "nothing":
        for path in (tmp_path / "runs/a").iterdir():
            path.unlink()
    else:
        shutil.rmtree("runs/a")
        (tmp_path / "runs/a").mkdir()
    if left == "another run":
        (tmp_path / "runs/a" / CONFIG).write_text("theirs")
    before = sorted((tmp_path / "runs/a").iterdir())
    assert home.settle()
    assert str(home.run) == "runs/a-2"
    assert sorted((tmp_path / "runs/a").iterdir()) == before


def test_a_folder_is_made_anew_though_the_current_one_is_gone(home, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    home.enter(run_home.shown(new(work)))
    shutil.rmtree(work)
    assert home.settle()
    assert home.run == work / "a" and (work / "a" / CONFIG).is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_file_system_that_numbers_folders_anew_moves_none(home, monkeypatch):
    real = os.stat
    monkeypatch.setattr(run_home.os, "stat", lambda path, **how: real("/", **how))
    home.make = None
    assert not home.settle()
    assert not home.warnings


def test_none_can_be_made_is_an_error(home):
    def refuse(run):
        raise UserError("can't")

    home.make = refuse
    shutil.rmtree("runs/a")
    with pytest.raises(OSError, match="can't"):
        home.settle()
    home.make = lambda run: new(run.parent, run.name)
    assert home.settle()
