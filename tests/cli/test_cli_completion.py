import shutil
import subprocess

import pytest

from lstm_music.cli import completion
from lstm_music.cli.commands import COMMANDS
from lstm_music.cli.common import Parser, run
from lstm_music.corpus.sources import NAMED
from lstm_music.ops import BACKENDS

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")


@pytest.fixture
def complete(folder, capsys):
    """What bash offers for the last of some words, as it calls the function."""
    for name in ("first", "second"):
        (folder / "runs" / name).mkdir(parents=True)
    assert run(completion.main, []) == 0
    script = capsys.readouterr().out

    def call(*words):
        quoted = " ".join(f"'{word}'" for word in words)
        ask = (
            f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
            f"_lstm_music '{words[0]}' '{words[-1]}' '{words[-2]}'; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "-u", "-c", f"{script}\n{ask}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert not done.stderr
        return done.stdout.split()

    return call


def test_options_by_their_beginning(complete):
    assert complete("bin/sample", "--te") == ["--temperature", "--tempo"]
    assert complete("./bin/train", "bach", "--anneal-p") == ["--anneal-patience"]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "completion"])
def test_every_option_of_every_command(complete, name):
    parser = __import__(f"lstm_music.cli.{name}", fromlist=["make_parser"]).make_parser()
    flags = {flag for action in parser._actions for flag in action.option_strings}
    assert isinstance(parser, Parser)
    assert set(complete(f"bin/{name}", "-")) == flags


def test_values_of_options(complete):
    assert complete("bin/sample", "--backend", "") == list(BACKENDS)
    assert complete("bin/train", "--representation", "c") == ["chord"]
    assert complete("bin/train", "--run", "") == ["first", "second"]
    assert complete("bin/sample", "--corpus", "ba") == ["bach"]
    assert complete("bin/sample", "--primer", "") == []  # bash offers files


def test_without_runs_there_are_none(complete, folder):
    shutil.rmtree(folder / "runs")
    assert complete("bin/sample", "") == []


def test_what_a_command_works_on(complete):
    assert complete("bin/train", "") == list(NAMED)
    assert complete("bin/sample", "s") == ["second"]
    assert complete("bin/evaluate", "first", "") == ["first", "second"]


def test_after_a_tune_a_run(complete):
    assert complete("bin/harmonize", "") == []  # bash offers files
    assert complete("bin/harmonize", "tune.mid", "") == ["first", "second"]
    assert complete("lstm-music", "harmonize", "a b.musicxml", "s") == ["second"]
    assert complete("bin/harmonize", "tune.mid", "--bar") == ["--bars"]


def test_the_installed_command(complete):
    assert complete("lstm-music", "e") == ["evaluate"]
    assert complete("lstm-music", "sample", "--bars", "8", "--wa") == ["--wav"]
    assert complete("lstm-music", "corpus", "--json", "") == []


def test_bash_knows_which_commands_to_complete():
    programs = completion.script().splitlines()[-1].split()[5:]
    assert "bin/sample" in programs and "lstm-music" in programs
    assert "sample" not in programs and "test" not in programs  # those of others


def test_no_word_of_the_script_is_the_shells():
    """Values are put between double quotes: nothing in them may be expanded but $runs."""
    text = completion.script().replace("$runs", "")
    quoted = [line.split('words="')[1].split('"')[0] for line in text.splitlines()
              if 'words="' in line]  # fmt: skip
    assert quoted and not set("".join(quoted)) & set("$`\\!*'")


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_zsh_reads_the_script():
    done = subprocess.run(
        ["zsh", "-f", "-c", completion.script()], capture_output=True, text=True, check=True
    )
    assert not done.stderr
