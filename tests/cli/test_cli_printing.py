"""Output that fails: a full disk, a closed terminal, no output at all. Nothing is lost by it."""

import errno
import io
import os
import pty
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from small import COMPUTE, SMALL, heed_signals, target
from tqdm import tqdm

from lstm_music.cli.common import run, warn
from lstm_music.cli.printing import Output, unfailing
from lstm_music.runs.checkpoint import checkpoints_of

FULL = "/dev/full"
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason=f"no {FULL} here")
ENDLESS = ("music", *SMALL, "--early-stop", "0", "--run", "a", *COMPUTE, "--max-steps", "1000000")
STEPS = (*ENDLESS[:-1], "40")


def call(name, *words, **options):
    """Run a command in a process of its own to its end."""
    command = [sys.executable, "-m", f"lstm_music.cli.{name}", *map(str, words)]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, check=False, text=True, timeout=60, env=buffered, **options)


def closed(*handles):
    """What closes some of a new process's handles, as `>&-` does."""
    return lambda: [os.close(handle) for handle in handles]


class Refusing(io.StringIO):
    """A stream that can't be written for a while."""

    def __init__(self):
        super().__init__()
        self.full = False

    def write(self, text):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)

    flush = lambda self: self.write("")  # noqa: E731


def test_what_is_refused_is_left_out_and_the_rest_is_there():
    stream = Refusing()
    output = Output(stream)
    for n, stream.full in enumerate((False, True, True, False)):
        print(n, file=output, flush=True)
    assert stream.getvalue() == "0\n3\n"
    assert output.error.errno == errno.ENOSPC


def test_a_line_goes_out_whole():
    sent = []
    stream = SimpleNamespace(write=sent.append, flush=lambda: None)
    output = Output(stream)
    print("a", 1, file=output)
    print("b\nc", end="", file=output)
    assert sent == ["a 1\n", "b\n"]
    output.flush()
    assert sent == ["a 1\n", "b\n", "c"]


def test_the_streams_are_those_of_before_afterwards(monkeypatch):
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), unfailing() as out:
        assert sys.stdout is out
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_name_that_is_no_text_is_printed(encoding, terminal):
    """Its bytes for who reads them; on a terminal an escape."""
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding)
    stream.isatty = lambda: terminal
    print(os.fsdecode(b"d\xfcr") + "\u266d", file=Output(stream), flush=True)
    name = rb"d\udcfcr" if terminal else b"d\xfcr"
    sign = "\u266d".encode() if encoding == "utf-8" else rb"\u266d"
    assert content.getvalue() == name + sign + b"\n"


# Training ---------------------------------------------------------------------------------------


def assert_whole(folder):
    """The run is trained to its end, and there is a sample."""
    assert target(folder / "runs/a", "latest") == "step-00000040"
    assert len(list((folder / "runs/a/samples").glob("*.mid"))) == 1


@needs_full
def test_a_log_whose_disk_is_full_does_not_end_training(folder):
    with open(FULL, "w") as full:
        done = call("train", *STEPS, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (
        0,
        "warning: can't print all (No space left on device), the rest is done: "
        "print to another place\n",
    )
    assert_whole(folder)


@needs_full
def test_nor_does_one_where_errors_go_too(folder):
    with open(FULL, "w") as full:
        assert call("train", *STEPS, stdout=full, stderr=full).returncode == 0
    assert_whole(folder)


@pytest.mark.parametrize("handles", [(1,), (2,), (0, 1, 2)])
def test_streams_that_were_closed_before_print_nothing(folder, handles):
    done = call("train", *STEPS, capture_output=True, preexec_fn=closed(*handles))
    assert done.returncode == 0
    assert done.stderr == ""
    assert ("stopped by --max-steps" in done.stdout) == (1 not in handles)
    assert_whole(folder)


def test_no_file_gets_the_number_of_a_closed_stream(folder):
    """What is printed there, by whatever library, would be in that file."""
    code = (
        "import os, sys; from lstm_music.cli.common import run; from pathlib import Path\n"
        "def main(argv):\n"
        "    with open('precious', 'wb') as file:\n"
        "        os.write(1, b'noise'); os.write(2, b'noise'); file.write(b'content')\n"
        "    return 0\n"
        "sys.exit(run(main, []))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, preexec_fn=closed(1, 2))
    assert done.returncode == 0
    assert (folder / "precious").read_bytes() == b"content"


@pytest.mark.parametrize("hangups", [1, 3])
def test_a_closed_terminal_saves_and_exits_with_129(folder, hangups):
    """The system says so once, and a shell, before it ends itself, to all its jobs again."""
    process, terminal = pty.fork()
    if process == 0:
        heed_signals()
        os.execv(sys.executable, [sys.executable, "-m", "lstm_music.cli.train", *ENDLESS])
    while b"%|" not in os.read(terminal, 4096):
        pass
    time.sleep(0.2)
    os.close(terminal)
    for _ in range(hangups - 1):
        os.kill(process, signal.SIGHUP)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 129
    (path, *_) = checkpoints_of(folder / "runs/a")
    assert target(folder / "runs/a", "latest") == path.name


@needs_full
def test_the_installed_command_knows_what_it_is_run_for(folder):
    code = "import sys; from lstm_music.cli import main; sys.exit(main())"
    with open(FULL, "w") as full:
        for words, status in ((["train", *STEPS], 0), (["corpus", "music"], 2), (["--help"], 2)):
            command = [sys.executable, "-c", code, *words]
            assert subprocess.run(command, check=False, stdout=full).returncode == status
    assert_whole(folder)


def test_a_warning_breaks_no_bar():
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    output = Output(terminal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", output)
        with tqdm(total=2, file=sys.stderr, ncols=40) as bar:
            bar.update()
            warn("look")
    assert "\r" + " " * 40 + "\rwarning: look\n" in terminal.getvalue()  # the bar is wiped first


# Other commands ---------------------------------------------------------------------------------


@needs_full
def test_a_command_run_for_what_it_prints_says_what_is_missing(folder):
    with open(FULL, "w") as full:
        done = call("corpus", "music", "--json", "a.json", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (
        2,
        "error: can't print all (No space left on device), the rest is done: "
        "print to another place\n",
    )
    assert (folder / "a.json").is_file()


def test_all_pieces_are_written_though_nobody_reads_their_names(folder):
    reading, writing = os.pipe()
    os.close(reading)
    words = ("bach", "--num", 3, "--length", 30, "--out", "out", "--backend", "numpy")
    done = call("sample", *words, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
    assert len(list((folder / "out").iterdir())) == 3


@needs_full
def test_an_error_that_cant_be_said_has_its_status(folder):
    with open(FULL, "w") as full:
        assert call("train", "none", stderr=full).returncode == 2
        assert call("train", "--help", stdout=full).returncode == 0


def test_a_pipe_that_breaks_elsewhere_is_an_error(capsys):
    def main(argv):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert run(main, []) == 2
    assert capsys.readouterr().err == "error: Broken pipe: check the path and the free space\n"
