import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lstm_music.cli import common
from lstm_music.cli.commands import COMMANDS
from lstm_music.cli.common import Parser, add_reading_options, number, reading_from, run, whole
from lstm_music.corpus.load import Reading
from lstm_music.errors import UserError
from lstm_music.runs.opened import run_folder, typed


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_default(name, capsys):
    module = __import__(f"lstm_music.cli.{name}", fromlist=["make_parser"])
    parser = module.make_parser()
    with pytest.raises(SystemExit) as stop:
        run(module.main, ["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for action in parser._actions:
        for flag in action.option_strings:
            assert flag in text
        has_default = (
            action.default not in (None, argparse.SUPPRESS) and action.default is not False
        )
        if has_default:
            assert f"(default: {action.default})" in text


def test_zero_is_a_default_that_is_shown(capsys):
    parser = Parser("x", "y")
    parser.add_argument("--seed", type=int, default=0, help="of chance")
    parser.add_argument("--loud", action="store_true", help="say more")
    parser.print_help()
    out = capsys.readouterr().out
    assert "of chance (default: 0)" in out
    assert "say more\n" in out


def test_a_reading_is_what_was_given_and_else_the_default(capsys):
    parser = Parser("x", "y")
    add_reading_options(parser, vars(Reading(tracks="merge")))
    parser.add_argument("--seed", type=int)
    assert reading_from(parser.parse_args([])) == Reading()
    words = (
        "--representation chord --tracks merge --grid 16 --max-polyphony 4 --common-key A "
        "--transpose-augment 5 --seed 9"
    )
    assert reading_from(parser.parse_args(words.split())) == Reading(
        "chord", "merge", 16, 4, "A", 5, 9
    )
    parser.print_help()
    text = " ".join(capsys.readouterr().out.split())
    for default in ("message", "merge", "0"):
        assert f"(default: {default})" in text
    assert "(default: None)" not in text


@given(low=st.integers(-9, 9), size=st.integers(0, 9), value=st.integers(-30, 30))
@hypothesis_settings(deadline=None)
def test_whole_numbers(low, size, value):
    parse = whole(low, low + size)
    if low <= value <= low + size:
        assert parse(str(value)) == value
    else:
        with pytest.raises(argparse.ArgumentTypeError, match=f"from {low} to {low + size}"):
            parse(str(value))


@pytest.mark.parametrize("text", ["", "x", "1.5", "nan", "9" * 5000])
def test_what_is_no_whole_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 up"):
        whole(1)(text)


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-inf", "1e999", "0", "-1"])
def test_what_is_no_number_above_0(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a number above 0$"):
        number(0, above=True)(text)


def test_the_bounds_of_numbers():
    assert number(0, 1)("0") == 0
    assert number(0, 1)("1") == 1
    assert number(0, 1, above=True)("1e-300") == 1e-300
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 to 1"):
        number(0, 1)("1.01")
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 up"):
        number(0)("-0.1")


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (UserError("two\nlines"), 2, "error: two lines\n"),
        (MemoryError(), 2, "error: not enough memory: "),
        (FileNotFoundError(2, "No such file", "x"), 2, "error: No such file 'x': check the path"),
        (OSError("odd"), 2, "error: odd: check the path and the free space\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_errors_become_a_line_and_a_status(capsys, error, status, says):
    def main(argv):
        raise error

    assert run(main, []) == status
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(says)
    assert err.count("\n") == 1


def test_a_bug_is_not_hidden():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main, [])


def test_where_runs_are(folder):
    assert run_folder("a") == Path("runs/a")
    assert run_folder("./a") == Path("a")
    assert run_folder("x/a") == Path("x/a")
    assert run_folder("/a") == Path("/a")
    (folder / "a" / "checkpoints").mkdir(parents=True)
    assert run_folder("a") == Path("a")
    (folder / "runs" / "a").mkdir(parents=True)
    assert run_folder("a") == Path("runs/a")


@pytest.mark.parametrize("name", ["a", "./a", "x/a", "/a", "../a", "."])
def test_what_is_typed_is_found_again(name):
    assert run_folder(typed(run_folder(name))) == run_folder(name)


def test_threads_are_limited(monkeypatch):
    import threadpoolctl

    limits = []
    monkeypatch.setattr(threadpoolctl, "threadpool_limits", limits.append)
    common.limit_threads(None, "numpy")
    common.limit_threads(3, "numpy")
    assert limits == [3]


POOL = """
from lstm_music.cli.common import limit_threads

limit_threads(1, "auto")
import numba
print(numba.threading_layer(), numba.get_num_threads())
"""


def test_threads_that_wait_for_others_sleep_soon():
    """Those that spin do so where the others have no core: a step took 20 times as long."""
    done = subprocess.run(
        [sys.executable, "-c", POOL],
        env=os.environ | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout in ("omp 1\n", "workqueue 1\n")
    for line in done.stderr.splitlines():  # what GNU's OpenMP takes as told, where it's that
        if "GOMP_SPINCOUNT" in line:
            assert line.endswith("'2000'")


def test_a_warning_is_one_line(capsys):
    common.warn("a\nb")
    assert capsys.readouterr().err == "warning: a b\n"


def test_who_installed_the_package_is_told_what_to_type_there(monkeypatch, capsys):
    parser = Parser("train", "Train.", "bin/train bach, then bin/sample; not /usr/bin/train")

    def main(argv):
        common.warn("try bin/train")
        raise UserError("see bin/sample --help, or bin/other")

    run(main, [])
    assert capsys.readouterr().err == (
        "warning: try bin/train\nerror: see bin/sample --help, or bin/other\n"
    )
    assert "usage: bin/train" in parser.format_help()
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lstm-music", "train"])
    run(main, [])
    assert capsys.readouterr().err == (
        "warning: try lstm-music train\nerror: see lstm-music sample --help, or bin/other\n"
    )
    shown = parser.format_help()
    assert shown.startswith("usage: lstm-music train ")
    assert "lstm-music train bach, then lstm-music sample; not /usr/bin/train" in shown


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_leaves_signals_to_the_system():
    """With Python's handler it could miss it while it starts, and never end."""
    ends = os.pipe()

    def forking(argv):
        if os.fork() == 0:
            left = [int(signal.getsignal(number)) for number in numbers]
            os.write(ends[1], str(left).encode())
            os._exit(0)
        return 0

    numbers = signal.SIGTERM, signal.SIGHUP
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    try:
        assert run(forking, []) == 0
        assert all(callable(signal.getsignal(number)) for number in numbers)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    os.wait()
    assert os.read(ends[0], 9) == b"[0, 0]"
