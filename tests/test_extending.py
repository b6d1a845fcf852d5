"""docs/extending.md as a reader follows it, in a copy of the project: files, edits, commands."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from documentation import FENCE, ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
NEEDED = ("src", "kernels", "tests", "benchmarks", "conftest.py", "pyproject.toml")
COMMANDS = "import sys; from lstm_music.cli import main; sys.exit(main())"


def copied(folder):
    """Copy what a reader's edits may touch, without the repository's tests of its documentation."""
    for name in NEEDED:
        if (ROOT / name).is_dir():
            left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=left_out)
        else:
            shutil.copy(ROOT / name, folder / name)


def followed(section, folder):
    """Write the files of a section, edit those of its diffs, and return its command lines."""
    lines = []
    for language, body in FENCE.findall(section):
        if language == "bash":
            lines += body.splitlines()
        elif language == "diff":
            for file, diff in edits(body):
                path = folder / file
                path.write_text(edited(path.read_text("utf-8"), diff), "utf-8")
        else:
            file, text = re.fullmatch(r"(?:#|//) (\S+)\n(.*)", body, re.S).groups()
            assert not (folder / file).exists(), f"{file} is there already"
            (folder / file).write_text(text, "utf-8")
    return lines


def edits(body):
    """The files that a block of diffs names, and what is to change in each."""
    return re.findall(r"^# (\S+)\n(.*?)(?=^# |\Z)", body, re.M | re.S)


def edited(text, diff):
    """Return a text with a diff's places, each of which it must have once, changed."""
    for hunk in diff.strip("\n").split("\n@@\n"):
        lines = hunk.splitlines()
        old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] != sign) for sign in "+-")
        assert text.count(old) == 1, f"it has not once:\n{old}"
        text = text.replace(old, new)
    return text


def typed(line, folder):
    """Run a command line in the copied project; fail where it does."""
    python = f"'{sys.executable}'"
    line = re.sub(r"^\.venv/bin/python", python, line)
    line = re.sub(r"^bin/(\w+)", rf'{python} -c "{COMMANDS}" \1', line)
    paths = {"PYTHONPATH": str(folder / "src"), "LSTM_MUSIC_CACHE": str(folder / "cache")}
    ran = subprocess.run(
        line, shell=True, cwd=folder, env=os.environ | paths, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, f"{line}\n{ran.stdout}"


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_does_what_it_says(section, tmp_path):
    copied(tmp_path)
    lines = followed(SECTIONS[section], tmp_path)
    assert lines
    for line in lines:
        typed(line, tmp_path)


@pytest.mark.parametrize("section", SECTIONS)
def test_what_a_section_changes_is_there(section, tmp_path):
    """The quick part: its edits still fit the files."""
    for language, body in FENCE.findall(SECTIONS[section]):
        if language == "diff":
            for file, diff in edits(body):
                text = (ROOT / file).read_text("utf-8")
                assert edited(text, diff) != text


def test_an_edit_has_one_place():
    assert edited("a\nb\nc\n", " a\n-b\n+d\n@@\n c\n+e\n") == "a\nd\nc\ne\n"
    with pytest.raises(AssertionError, match="not once"):
        edited("a\na\n", "-a\n+b\n")
    assert list(SECTIONS) == ["A tokenizer", "A head", "An op, on all three backends", "A corpus"]
