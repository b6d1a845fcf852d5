"""Files of piano rolls that mean harm: nothing runs, little memory goes, one line is said."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile
import numpy as np
import pytest
import scipy.io

from lstm_music.corpus import roll_files
from lstm_music.corpus.roll_files import read_rolls, rolls_in
from lstm_music.errors import UserError


def read_all(folder, mode):
    """Read every hostile pickle in a process of its own; return what it saw."""
    done = subprocess.run(
        [sys.executable, hostile.__file__, mode],
        check=False,
        capture_output=True,
        cwd=folder,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


def test_no_malicious_pickle_runs_anything_or_takes_much_memory(tmp_path):
    said = read_all(tmp_path, "restricted")
    assert said["all"] >= 100
    assert said["refused"] == said["all"]
    assert said["ran"] == 0
    assert said["forbidden"] == []
    assert said["mb"] < 200


def test_the_malicious_pickles_would_run(tmp_path):
    """Of those that are calls, some are of functions that only lead to others."""
    assert read_all(tmp_path, "plain")["ran"] >= 30


def refusal(folder, name, data):
    """The line with which a file is refused."""
    path = folder / name
    path.write_bytes(data)
    with pytest.raises(UserError) as refused:
        read_rolls(path)
    line = str(refused.value)
    assert "\n" not in line and line.startswith("can't use '")
    return line


@pytest.mark.slow(keep=3)
@pytest.mark.parametrize("name", hostile.MATS)
def test_a_mat_file_that_says_it_is_huge_is_refused_in_little_memory(tmp_path, name):
    data = hostile.MATS[name]()
    assert len(data) < 1 << 20
    path = tmp_path / "a.mat"
    path.write_bytes(data)
    call = (
        "import sys; from pathlib import Path; from lstm_music.corpus.roll_process import main;"
        f"sys.path.append({os.path.dirname(hostile.__file__)!r}); import hostile;"
        "main(Path(sys.argv[1])); print(hostile.peak(), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", call, str(path)],
        check=True,
        capture_output=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert json.loads(done.stdout)["error"].startswith("can't use '")
    within = 300 if len(data) < 10_000 else 700  # MB, the interpreter and SciPy's 60 among them
    assert int(done.stderr) < within


def test_a_reader_that_breaks_down_is_one_line(tmp_path):
    """A key of tuples in tuples: its hash needs more stack than there is."""
    data = b"\x80\x02})" + b"\x85" * 10**6 + b"Ns."
    line = refusal(tmp_path, "a.pickle", data)
    assert line.endswith("(its reader broke down, or took too long): get the data set anew")


def test_a_list_that_is_named_often_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(roll_files, "MOST_STEPS", 100)
    monkeypatch.setattr(roll_files, "MOST_PITCHES", 200)
    for music, says in (
        ([[[60]] * 60, [[60]] * 60], "it has more than 100 steps or 200 notes"),
        ([[[60]] * 101], "train, sequence 1: it is too long"),
        ([[[60] * 150], [[60] * 150]], "it has more than 100 steps or 200 notes"),
        ([[[60] * 150] * 2], "train, sequence 1: it is too long"),
    ):
        path = tmp_path / "a.pickle"
        path.write_bytes(hostile.pickle.dumps({"train": music, "valid": music, "test": music}))
        with pytest.raises(UserError, match=says):
            rolls_in(path)


def test_what_the_reader_reads_is_what_is_in_the_file(tmp_path):
    rng = np.random.default_rng(0)
    rolls = {s: [rng.integers(2, size=(n, 88), dtype=np.uint8) for n in (1, 7)]
             for s in ("train", "valid", "test")}  # fmt: skip
    cells = {}
    for split, some in rolls.items():
        cells[f"{split}data"] = np.empty((1, 2), object)
        cells[f"{split}data"][0] = some
    path = Path(tmp_path / "a b'ü.mat")
    scipy.io.savemat(path, cells)
    for split, found in read_rolls(path).items():
        for a, b in zip(found, rolls[split], strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.flags.c_contiguous and a.dtype == np.uint8


@pytest.mark.parametrize("kind", ["none", "folder", "pipe"])
def test_what_is_no_file_is_one_line(tmp_path, kind):
    path = tmp_path / "a.mat"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UserError, match=r"can't (read|use) '"):
        read_rolls(path)
