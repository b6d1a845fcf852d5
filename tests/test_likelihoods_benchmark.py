"""benchmarks/likelihoods.py: its figures by hand, and all of it on a few frames."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from documentation import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import likelihoods
from likelihoods import Trial, ensemble, mixed

NATS = {
    "a": np.array([1.0, 3.0, 2.0]),  # 2.0 in the mean
    "b": np.array([3.0, 1.0, 2.1]),
    "c": np.array([1.1, 3.1, 2.3]),  # worse than a everywhere
}
TINY = "--hidden 4 --embedding 4 --nade 4 --max-steps 5"


def test_an_ensemble_has_the_mean_of_probabilities():
    found = mixed([NATS["a"], NATS["b"]])
    expected = -np.log((np.exp(-NATS["a"]) + np.exp(-NATS["b"])) / 2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(mixed([NATS["a"]]), NATS["a"], rtol=1e-12)
    impossible = mixed([np.array([np.inf]), np.array([1.0])])
    np.testing.assert_allclose(impossible, [1 + np.log(2)], rtol=1e-12)


def test_an_ensemble_takes_the_best_and_what_helps():
    assert ensemble(NATS) == ["a", "b"]
    assert ensemble({"c": NATS["c"], "a": NATS["a"]}) == ["a"]
    assert len(ensemble({str(n): np.roll([0.1, 5, 5, 5, 5, 5], n) for n in range(6)})) == 4


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """A folder with JSB_Chorales.mat, of scales, and two trials of it."""
    cells = {}
    for n, split in enumerate(("traindata", "validdata", "testdata")):
        cells[split] = np.empty((1, 3), object)
        for piece in range(3):
            roll = np.zeros((24, 88), np.uint8)
            roll[np.arange(24), 30 + n + piece + np.arange(24) % 5] = 1
            cells[split][0, piece] = roll
    scipy.io.savemat(tmp_path / "JSB_Chorales.mat", cells)
    trials = {
        "alone": Trial("jsb", f"{TINY} --no-copy", 9),
        "memory": Trial("jsb", TINY, 9),
        "memory-2": Trial("jsb", f"{TINY} --seed 1", 9),
    }
    monkeypatch.setattr(likelihoods, "TRIALS", trials)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, *words):
    argv = ["likelihoods.py", "--data", ".", "--out", "out", *words]
    monkeypatch.setattr(sys, "argv", argv)
    assert likelihoods.main() == 0
    return json.loads(Path("out/likelihoods.json").read_text())


@pytest.mark.slow
def test_trials_are_trained_once_and_tested_once(sets, monkeypatch):
    rows = run(monkeypatch)
    assert [row["memory of the piece"] for row in rows][:3] == ["no", "yes", "yes"]
    assert all(row["test"] == "" and row["minutes"] > 0 for row in rows)
    before = {path: path.read_bytes() for path in sets.glob("out/*/metrics.csv")}
    again = run(monkeypatch, "--test")
    assert {path: path.read_bytes() for path in before} == before and len(before) == 3
    assert [row["valid"] for row in again if row["options"]] == [
        row["valid"] for row in rows if row["options"]
    ]
    tested = [row["network"] for row in again if row["test"] != ""]
    best = min((row for row in rows[1:3]), key=lambda row: row["valid"])["network"]
    assert tested[:2] == ["alone", best]
    assert all(row["valid"] > 0 for row in again)


def test_a_name_that_is_no_trial_is_refused(sets, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["likelihoods.py", "--data", ".", "--only", "memory", "bach"])
    with pytest.raises(SystemExit):
        likelihoods.main()
    assert "--only bach is none of alone, jsb, memory" in capsys.readouterr().err
