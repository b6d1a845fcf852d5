"""The wrappers in bin/, run on a copy of them, with a Python and a pip that only pretend."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

BIN = Path(__file__).parent.parent / "bin"
COMMANDS = sorted(path.name for path in BIN.iterdir() if path.name[0] not in "._")
TOOLS = "sh cat cksum dirname grep head ln mkdir mv readlink rm rmdir sed sleep tail uname"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the wrappers are shell scripts")

# Notes in $LOG what it's asked to make and install. A command's output is its folder, its module
# and its arguments, a line each. What the wrappers have a Python compute is computed for real, in a
# Python that is told what to take itself for; but whether packages are there is said by $LACKS.
PYTHON_STUB = """#!/bin/sh
[ -z "${{PYTHONHOME+x}}${{PYTHONPATH+x}}${{PIP_TARGET+x}}" ] || echo "not isolated" >>"$LOG"
[ "$1" = -I ] && shift
case "$1 $2" in
"-c "*find_spec*)
    shift 2
    case " $* " in *" ${{LACKS:-nothing}} "*) exit 1 ;; esac
    ;;
"-c "*)
    shift
    exec {real} -S -c 'import sys; {pretence}; code = sys.argv.pop(1); exec(code)' "$@"
    ;;
"-m venv")
    echo "{name} venv" >>"$LOG"
    mkdir -p "$3/bin"
    ln -s "$0" "$3/bin/python"
    ;;
"-m pip")
    echo "$@" | sed 's/.*version-check/pip/' >>"$LOG"
    case "$*" in
    *"${{PIP_FAILS_FOR:-nothing}}"*)
        printf "${{PIP_SAYS:-{pip_says}}}\\n" >&2
        exit 1
        ;;
    *"${{PIP_HANGS_FOR:-nothing}}"*) exec sleep 20 ;;
    *-e*) [ -f pyproject.toml ] && sleep "${{PIP_SECONDS:-0}}" ;;
    esac
    ;;
*) pwd; printf '%s\\n' "$@" ;;
esac
"""
PIP_SAYS = "  ERROR: no such thing\\nnote: see above\\nERROR: Failed to build it"
GOOD = 'sys.version_info = (3, 10, 0); sys.modules["venv"] = sys.modules["ensurepip"] = sys'
OLD = "sys.version_info = (3, 9, 20)"
WITHOUT_VENV = f'{GOOD}; sys.modules["ensurepip"] = None'

NEW_ENVIRONMENT = ["python3 venv", "pip pip>=21.3"]


class Project:
    """A copy of bin/, in a folder with a space in its name, and a PATH of a few tools."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "my project"
        self.path = folder / "path"
        self.log = folder / "log"
        self.root.mkdir()
        shutil.copytree(BIN, self.root / "bin")
        self.pyproject = self.root / "pyproject.toml"
        self.pyproject.write_text("[project]\n")
        self.venv = self.root / ".venv"
        self.stamp = self.venv / "lstm-music-stamp"
        self.lock = self.venv / ".lock"
        self.path.mkdir()
        for tool in TOOLS.split():
            found = shutil.which(tool)
            assert found, tool
            (self.path / tool).symlink_to(found)
        self.add_python("python3")

    def add_script(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def add_python(self, name: str, pretence: str = GOOD) -> None:
        stub = PYTHON_STUB.format(
            name=name, real=f"'{sys.executable}'", pretence=pretence, pip_says=PIP_SAYS
        )
        self.add_script(self.path / name, stub)

    def add_nvidia_smi(self, text: str, status: int = 0) -> None:
        script = f'#!/bin/sh\necho nvidia-smi >>"$LOG"\necho "{text}"\nexit {status}\n'
        self.add_script(self.path / "nvidia-smi", script)

    def start(
        self, *command: str | Path, env: Mapping[str, str | Path] | None = None
    ) -> "subprocess.Popen[str]":
        name, *arguments = command
        return subprocess.Popen(
            [self.root / "bin" / name, *arguments],
            env={"PATH": str(self.path), "LOG": str(self.log), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.path,
        )

    def run(self, *command: str | Path, **env: str | Path) -> subprocess.CompletedProcess[str]:
        process = self.start(*command, env=env)
        output, errors = process.communicate(timeout=30)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def done(self) -> list[str]:
        """Says what was made and installed since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def take_lock(self, owner: str) -> None:
        self.lock.mkdir(parents=True)
        (self.lock / "owner").write_text(f"{owner}\n")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """Returns the one error line of a command that failed as it should."""
    assert result.returncode == 2
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert result.stderr.count("error: ") == 1
    return last


# ---- What is run ----


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_runs_its_own_module_with_its_arguments_unharmed(
    project: Project, name: str
) -> None:
    arguments = ["two words", "", "*", "$HOME", '"', "--temperature=1.0", "-"]
    result = project.run(name, *arguments)
    if name == "test":
        start = [str(project.root), "-m", "pytest"]
    else:
        start = [str(project.path), "-m", f"lstm_music.cli.{name}"]
    assert result.returncode == 0
    assert result.stdout.split("\n") == [*start, *arguments, ""]


def test_runs_through_symlinks(project: Project, tmp_path: Path) -> None:
    (tmp_path / "to-project").symlink_to(project.root)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "compose"
    link.symlink_to("../to-project/bin/sample")
    assert project.run(link, "--bars", "8").stdout.endswith("lstm_music.cli.sample\n--bars\n8\n")
    assert project.run("sample").stderr == ""
    assert (project.venv / "bin" / "python").exists()


def test_a_commands_exit_status_is_the_wrappers(project: Project) -> None:
    project.run("train")
    project.add_script(project.path / "python3", "#!/bin/sh\nexit 130\n")
    assert project.run("train").returncode == 130


# ---- When .venv is made ----


def test_first_start_makes_the_environment_and_the_second_only_uses_it(project: Project) -> None:
    first = project.run("train")
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e ."]
    assert len(first.stderr.splitlines()) == 1
    assert "once" in first.stderr
    second = project.run("train")
    assert project.done() == []
    assert (second.stdout, second.stderr) == (first.stdout, "")


def test_the_tests_get_their_extra_and_an_update_keeps_it(project: Project) -> None:
    project.run("train")
    project.done()
    project.run("test")
    assert project.done() == ["pip -e .[test]"]
    project.run("train")
    assert project.done() == []
    project.pyproject.write_text("[project]\nchanged = true\n")
    project.run("train")
    assert project.done() == ["pip -e .[test]"]


def test_extras_add_up_whatever_their_order(project: Project) -> None:
    project.run("listen")
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e .[listen]"]
    project.run("test")
    assert project.done() == ["pip -e .[listen,test]"]
    for name in ("listen", "train", "test"):
        project.run(name)
        assert project.done() == []
    project.pyproject.write_text("[project]\nchanged = true\n")
    project.run("listen")
    assert project.done() == ["pip -e .[listen,test]"]


@pytest.mark.parametrize(
    ("name", "words", "extra"),
    [
        ("sample", ["--png", "--svg"], "score"),
        ("sample", ["--musicxml"], "score"),
        ("figures", [], "score"),
        ("report", ["my-run"], "score"),
        ("reproduce", [], "score"),
        ("play", [], "play"),
        ("corpus", ["classical", "--build"], "classical"),
    ],
)
def test_what_the_options_at_hand_need_is_installed(
    project: Project, name: str, words: list[str], extra: str
) -> None:
    project.run("train", "--svg")
    project.done()
    result = project.run(name, *words)
    assert result.stderr.startswith(f"bin/{name}: updating")
    (asked,) = project.done()
    assert asked.endswith(f" -e .[{extra}]")
    for command in (name, *words), ("train",):
        assert project.run(*command).stderr == ""
    assert project.done() == []


def test_what_a_command_only_is_better_with_is_done_without(project: Project) -> None:
    result = project.run("sample", "--svg", PIP_FAILS_FOR="score")
    assert result.returncode == 0 and result.stdout.endswith("--svg\n")
    assert "going on without the extra 'score' (ERROR: no such thing)" in result.stderr
    wanted = "pip --retries 1 --timeout 10 -e .[score]"  # offline it fails soon
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e .", wanted]
    assert project.run("sample").stderr == ""
    assert project.done() == []
    assert project.run("sample", "--svg").stderr.startswith("bin/sample: updating")
    assert project.run("sample", "--svg").stderr == ""
    error_of(project.run("corpus", "--build", PIP_FAILS_FOR="classical"))


def test_a_half_made_environment_is_made_anew(project: Project) -> None:
    project.run("train")
    project.done()
    project.stamp.unlink()
    left_over = project.venv / "lib" / "left-over"
    left_over.parent.mkdir()
    left_over.touch()
    assert project.run("train").returncode == 0
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e ."]
    assert not left_over.exists()


def test_a_vanished_python_is_noticed(project: Project) -> None:
    project.run("train")
    project.done()
    (project.venv / "bin" / "python").unlink()
    project.run("train")
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e ."]


def installed(project: Project) -> list[Path]:
    """Makes .venv, and in it what names the project's folder; returns those files."""
    project.run("train")
    project.done()
    packages = project.venv / "lib" / "python3.10" / "site-packages"
    packages.mkdir(parents=True)
    pointer, script = packages / "__editable__.pth", project.venv / "bin" / "lstm-music"
    pointer.write_text(f"{project.root}/src\n")
    script.write_text(f"#!{project.root}/.venv/bin/python\n")
    return [pointer, script]


def moved(project: Project, how: str, files: list[Path]) -> list[Path]:
    """Moves or copies the project's folder; returns where its files are then."""
    before, after = project.root, project.root.with_name("moved [1] & it's é")
    if how == "moved":
        before.rename(after)
    else:
        shutil.copytree(before, after, symlinks=True)
    project.root, project.venv = after, after / ".venv"
    return [after / file.relative_to(before) for file in files]


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_moved_project_goes_on_without_a_network(project: Project, how: str) -> None:
    pointer, script = moved(project, how, installed(project))
    result = project.run("train", PIP_FAILS_FOR="install")
    assert result.returncode == 0 and "adapting" in result.stderr
    assert project.done() == []
    assert pointer.read_text() == f"{project.root}/src\n"
    assert script.read_text() == f"#!{project.root}/.venv/bin/python\n"
    assert project.run("train").stderr == ""


def test_an_environment_goes_only_when_a_new_one_is_whole(project: Project) -> None:
    files = moved(project, "moved", installed(project))
    offline = {"PIP_FAILS_FOR": "-e", "LACKS": "lstm_music"}
    for _ in range(2):
        assert "network" in error_of(project.run("train", **offline))
        assert all(file.exists() for file in files)
    process = project.start("train", env={"PIP_HANGS_FOR": "-e", "LACKS": "lstm_music"})
    project.done()
    wait_until(lambda: project.log.exists() and "-e" in project.log.read_text())
    assert not any(file.exists() for file in files)
    process.kill()
    process.communicate(timeout=30)
    project.done()
    assert project.run("train", PIP_FAILS_FOR="install").returncode == 0  # found again, and adapted
    assert project.done() == []
    assert all(file.exists() for file in files)
    assert sorted(path.name for path in project.venv.glob(".*")) == [".install.log"]


def test_what_pip_put_elsewhere_is_no_environment(project: Project) -> None:
    result = project.run("train", LACKS="lstm_music")
    assert "see " in error_of(result)
    assert result.stderr.splitlines()[-2] == "ERROR: pip put them elsewhere than in .venv"
    assert not project.stamp.exists()
    assert project.run("train").returncode == 0


def test_neither_pythons_nor_pips_variables_reach_the_environment(project: Project) -> None:
    own = {"PYTHONPATH": project.path, "PYTHONHOME": project.path, "PIP_TARGET": project.path}
    assert project.run("train", **own).returncode == 0
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e ."]
    assert project.run("train", **own).stderr == ""
    active = real_python(project, project.path / "active")
    assert project.run("train", VIRTUAL_ENV=active, **own).stdout.startswith("-m lstm_music")
    assert project.done() == []


# ---- When it can't be made ----


def test_pips_last_error_is_shown_and_the_next_start_begins_again(project: Project) -> None:
    result = project.run("train", PIP_FAILS_FOR="-e")
    assert "network" in error_of(result)
    assert result.stderr.splitlines()[-2] == "ERROR: no such thing"
    assert not project.stamp.exists()
    assert not project.lock.exists()
    project.done()
    assert project.run("train").returncode == 0
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e ."]


def test_another_failure_of_pips_shows_its_last_line(project: Project) -> None:
    result = project.run("train", PIP_FAILS_FOR="-e", PIP_SAYS="Traceback\\nOSError: disk full")
    error_of(result)
    assert result.stderr.splitlines()[-2] == "OSError: disk full"


def test_a_failed_update_leaves_what_worked(project: Project) -> None:
    project.run("train")
    error_of(project.run("test", PIP_FAILS_FOR="test"))
    project.done()
    assert project.run("train").returncode == 0
    assert project.done() == []


def test_no_python(project: Project) -> None:
    (project.path / "python3").unlink()
    assert "Python 3.10" in error_of(project.run("train"))


def test_old_pythons_are_passed_over(project: Project) -> None:
    project.add_python("python3", OLD)
    project.add_python("python", OLD)
    result = project.run("train")
    assert "Python 3.10" in error_of(result)
    assert len(result.stderr.splitlines()) == 1
    assert project.done() == []
    project.add_python("python3.12")
    project.add_python("python3.11", WITHOUT_VENV)
    assert project.run("train").returncode == 0
    assert project.done()[0] == "python3.12 venv"


def test_a_python_without_venv_is_named(project: Project) -> None:
    project.add_python("python3", WITHOUT_VENV)
    assert "python3-venv" in error_of(project.run("train"))


def test_python_can_be_named(project: Project, tmp_path: Path) -> None:
    project.add_python("mine")
    mine = (project.path / "mine").rename(tmp_path / "my python")
    assert project.run("train", PYTHON=mine).returncode == 0
    assert project.done()[0] == "mine venv"


def test_a_folder_that_cannot_be_written(project: Project) -> None:
    # Root may write anywhere but below a file, so this is read-only for every user.
    project.venv.symlink_to(project.pyproject / "below-a-file")
    result = project.run("train")
    assert "pip install ." in error_of(result)
    assert len(result.stderr.splitlines()) == 1


# ---- Two at once, and interruptions ----


def interrupt_installation(project: Project, command: str, sent: signal.Signals) -> int:
    """Sends the signal while pip is at work, and returns the command's exit status."""
    # A handler, which the wrapper doesn't inherit, unlike an ignored signal (as under nohup).
    previous = signal.signal(sent, lambda *_: None)
    process = project.start(command, env={"PIP_HANGS_FOR": "-e"})
    signal.signal(sent, previous)
    wait_until(lambda: project.log.exists() and "-e" in project.log.read_text())
    process.send_signal(sent)
    # Its output would stay open if the installation went on.
    process.communicate(timeout=10)
    return process.returncode


def test_two_first_starts_make_one_environment(project: Project) -> None:
    both = [project.start("train", env={"PIP_SECONDS": "1"}) for _ in range(2)]
    outputs = [process.communicate(timeout=30) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e ."]
    assert sorted(errors.split()[0] for _, errors in outputs) == ["bin/train:", "waiting"]


def test_a_dead_ones_lock_is_cleared(project: Project) -> None:
    with subprocess.Popen([project.path / "sh", "-c", ":"]) as process:
        pass
    project.take_lock(f"{process.pid} {platform.node()}")
    assert project.run("train").returncode == 0
    assert not list(project.venv.glob(".lock*"))


@pytest.mark.slow(keep=1)
@pytest.mark.parametrize(
    "owner",
    [f"{os.getpid()} {platform.node()}", "999999999 another-computer", ""],
    ids=["mine", "elsewhere", "unknown"],
)
def test_a_lock_that_may_be_held_is_waited_for(project: Project, owner: str) -> None:
    project.take_lock(owner)
    process = project.start("train")
    assert process.stderr
    assert process.stderr.readline().startswith("waiting")
    assert project.done() == []
    shutil.rmtree(project.lock)
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_installation_ends_at_once_and_is_begun_again(
    project: Project, sent: signal.Signals, status: int
) -> None:
    assert interrupt_installation(project, "train", sent) == status
    assert not project.lock.exists()
    project.done()
    assert project.run("train").returncode == 0
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e ."]


def test_an_interrupted_update_is_begun_again(project: Project) -> None:
    project.run("train")
    project.done()
    interrupt_installation(project, "test", signal.SIGTERM)
    project.done()
    error_of(project.run("train", PIP_FAILS_FOR="-e"))  # what it left isn't believed before
    project.done()
    assert project.run("train").returncode == 0
    assert project.done() == ["pip -e ."]
    assert project.run("train").stderr == ""


# ---- CuPy ----


@pytest.mark.parametrize(
    ("shown", "extra"),
    [
        ("| Driver Version: 550.54.15   CUDA Version: 12.4     |", "cuda12"),
        ("| Driver Version: 580.65.06   CUDA Version: 13.0     |", "cuda13"),
        ("| KMD Version: 600.1   CUDA UMD Version: 14.1        |", "cuda13"),
    ],
)
def test_the_cupy_that_fits_the_driver_is_installed(
    project: Project, shown: str, extra: str
) -> None:
    project.add_nvidia_smi(shown)
    assert project.run("train").returncode == 0
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e .", "nvidia-smi", f"pip -e .[{extra}]"]
    assert project.run("train").stderr == ""
    assert project.done() == []


@pytest.mark.parametrize(
    ("shown", "status"),
    [("Driver Version: 470.1  CUDA Version: 11.4", 0), ("CUDA Version: N/A", 0), ("No driver", 9)],
)
def test_a_gpu_that_cannot_be_used_is_done_without(
    project: Project, shown: str, status: int
) -> None:
    project.add_nvidia_smi(shown, status)
    result = project.run("train")
    assert result.returncode == 0
    assert "without CuPy" in result.stderr
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e .", "nvidia-smi"]


def test_cupy_that_cannot_be_installed_is_done_without(project: Project) -> None:
    project.add_nvidia_smi("CUDA Version: 13.0")
    result = project.run("train", PIP_FAILS_FOR="cuda13")
    assert result.returncode == 0
    assert "without CuPy" in result.stderr
    assert "ERROR: no such thing" in result.stderr
    project.done()
    assert project.run("train").stderr == ""
    assert project.done() == []


def test_a_gpu_that_turns_up_later_is_used(project: Project) -> None:
    project.run("train")
    project.done()
    project.add_nvidia_smi("CUDA Version: 12.8")
    assert project.run("train").returncode == 0
    # The rest isn't installed again: where the GPU is, there may be no network.
    assert project.done() == ["nvidia-smi", "pip -e .[cuda12]"]


# ---- The active environment ----


def real_python(project: Project, environment: Path, options: str = "") -> Path:
    """Makes an environment whose Python is the one that runs these tests."""
    script = (
        f'#!/bin/sh\ncase $1 in -I) exec \'{sys.executable}\' {options} "$@" ;; esac\necho "$@"\n'
    )
    project.add_script(environment / "bin" / "python", script)
    return environment


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_with_lstm_music_is_used(
    project: Project, tmp_path: Path, variable: str
) -> None:
    active = real_python(project, tmp_path / "an environment")
    result = project.run("train", "bach", **{variable: active})
    assert (result.stdout, result.stderr) == ("-m lstm_music.cli.train bach\n", "")
    assert project.run("test", "-q", **{variable: active}).stdout == "-m pytest -q\n"
    assert not project.venv.exists()


def test_an_active_environment_without_lstm_music_is_not(project: Project, tmp_path: Path) -> None:
    # Not even where the current folder has something of that name.
    (project.path / "lstm_music.py").touch()
    active = real_python(project, tmp_path / "environment", options="-S")
    assert "lstm_music.cli.train\n" in project.run("train", VIRTUAL_ENV=active).stdout
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e ."]


def test_activating_the_projects_own_environment_changes_nothing(project: Project) -> None:
    project.run("train")
    project.done()
    project.pyproject.write_text("[project]\nchanged = true\n")
    project.run("train", VIRTUAL_ENV=project.venv)
    assert project.done() == ["pip -e ."]


@pytest.mark.parametrize("errors", ["2>&-", "2>/dev/full"])
def test_an_environment_is_made_though_nothing_can_be_said(project: Project, errors: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" bach {errors}', project.root / "bin" / "train"],
        env={"PATH": str(project.path), "LOG": str(project.log)},
        stdout=subprocess.PIPE,
        text=True,
        cwd=project.path,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (0, ["lstm_music.cli.train", "bach"])
    assert project.done() == [*NEW_ENVIRONMENT, "pip -e ."]


# ---- Line ends ----


@pytest.mark.skipif(not (BIN.parent / ".git").exists(), reason="no clone to ask git about")
def test_a_clone_on_windows_has_the_line_ends_of_this_one() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--eol"], cwd=BIN.parent, capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 3) for line in listed.splitlines()]
    assert len(rows) > 200
    for index, _, attributes, rest in rows:
        assert index in ("i/lf", "i/-text", "i/none", "i/"), rest
        assert "text=auto" in f"{attributes} {rest}" and "eol=lf" in rest, rest
