import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from lstm_music.errors import UserError
from lstm_music.runs import lock as run_lock
from lstm_music.runs.lock import NAME, RunLock

HOLD = """
import sys, time
from pathlib import Path
from lstm_music.runs.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_process_is_refused_with_the_firsts_id_and_host(tmp_path, other):
    with pytest.raises(UserError) as refused:
        RunLock(tmp_path)
    line = str(refused.value)
    assert f"process {other.pid} on {socket.gethostname()} trains the run" in line
    assert "\n" not in line


def test_a_process_killed_leaves_no_lock_and_is_named(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    warnings = []
    with RunLock(tmp_path, warnings.append):
        (line,) = warnings
        assert line.startswith(f"process {other.pid} on ")
        assert "was killed: going on from its last checkpoint" in line
    assert (tmp_path / NAME).read_bytes() == b""


def test_the_id_of_a_living_process_in_the_file_is_no_lock(tmp_path):
    """As in a container, where the killed process's id is soon another's."""
    said = {"process": os.getpid(), "host": socket.gethostname()}
    (tmp_path / NAME).write_text(json.dumps(said))
    RunLock(tmp_path).release()


def test_a_run_can_be_locked_again_after_release(tmp_path):
    warnings = []
    for _ in range(3):
        with RunLock(tmp_path, warnings.append):
            assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
            with pytest.raises(UserError, match=f"process {os.getpid()} on"):
                RunLock(tmp_path)
    assert not warnings


def test_a_child_that_outlives_its_parent_keeps_no_lock(tmp_path):
    call = HOLD.replace("time.sleep(60)", "import subprocess; subprocess.Popen(['sleep', '60'])")
    done = subprocess.run(
        [sys.executable, "-c", call + "\nimport os; os._exit(0)", str(tmp_path)],
        check=False,
        stdout=subprocess.DEVNULL,
    )
    assert done.returncode == 0
    RunLock(tmp_path).release()


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[" * 5000, b"\xff", b'{"process": 1e999, "host": 1}', b"x" * 10**5]
)
def test_a_lock_file_that_says_nonsense_is_no_matter(tmp_path, text):
    (tmp_path / NAME).write_bytes(text)
    warnings = []
    RunLock(tmp_path, warnings.append).release()
    assert not warnings


def test_what_a_lock_file_says_cant_steer_the_terminal(tmp_path):
    (tmp_path / NAME).write_text(json.dumps({"process": 1, "host": "\x1b[2J" + "x" * 999}))
    warnings = []
    RunLock(tmp_path, warnings.append).release()
    assert re.fullmatch(r"process 1 on \[2Jx{60}, which trained .*", warnings[0])


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "precious").write_text("content")
    (run / NAME).symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="can't write the run"):
        RunLock(run)
    assert (tmp_path / "precious").read_text() == "content"


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def none(handle):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock, "lock", none)
    warnings = []
    with RunLock(tmp_path, warnings.append):
        pass
    (line,) = warnings
    assert line.startswith("no locks in ")


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(UserError, match="can't write the run"):
        RunLock(tmp_path / "none")
