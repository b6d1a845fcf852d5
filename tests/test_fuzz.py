"""Each parser of files takes rubbish with one line; tools/fuzz.py does the same for longer."""

import os
import re
import subprocess
import sys

import pytest
from documentation import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(ROOT / "tools"))

import fuzz
import fuzz_targets

TARGETS = fuzz.targets()
BOUNDED = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
IN_PROCESS = [name for name, target in TARGETS.items() if not target.apart]


@pytest.fixture(autouse=True)
def folder(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(fuzz_targets, "FOLDER", tmp_path_factory.mktemp("fuzz"))


def damages(data):
    """Parts of the data overwritten, left out, repeated, or with other bytes between."""
    at = st.integers(0, len(data))
    return st.lists(st.tuples(at, at, st.binary(max_size=12)), min_size=1, max_size=6)


def applied(data, changes):
    for start, stop, new in changes:
        data = data[:start] + new + data[stop if stop < start + 40 else start :]
    return data


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize("name", IN_PROCESS)
@given(data=st.data())
@BOUNDED
def test_a_parser_takes_damaged_files_with_one_line(name, data):
    seed = data.draw(st.sampled_from(TARGETS[name].seeds))
    rubbish = applied(seed, data.draw(damages(seed)))
    assert not fuzz.check(TARGETS[name], rubbish)


@pytest.mark.parametrize("name", IN_PROCESS)
@given(rubbish=st.binary(max_size=200))
@BOUNDED
def test_a_parser_takes_rubbish_with_one_line(name, rubbish):
    assert not fuzz.check(TARGETS[name], rubbish)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TARGETS if name not in IN_PROCESS])
def test_a_parser_with_a_process_of_its_own_takes_damaged_files_with_one_line(name):
    """Whatever the parser does there, a crash too, is one line: see test_hostile_files.py."""
    count, findings, _ = fuzz.loop_apart(TARGETS[name], seconds=1.5, seed=1)
    assert count > 1
    assert not findings


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_whole(name):
    for seed in TARGETS[name].seeds:
        TARGETS[name].call(seed)


def test_a_finding_is_found():
    def broken(data):
        raise KeyError("x")

    assert fuzz.loop(fuzz.Target([b"abc"], broken), 0.05, 1)[1]
    assert fuzz.check(fuzz.Target([b"abc"], broken), b"") == "KeyError: 'x'"


@pytest.mark.parametrize("name", ["meta", "safetensors", "damage-model", "damage-meta"])
def test_checkpoints_that_are_forged_or_damaged_cost_no_memory(name, tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "fuzz.py"), "--only", name, "--seconds", "3"]
    env = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    said = r".*: (.*) executions, 0 findings, memory \+(\d+) MB\n"
    count, grown = re.fullmatch(said, done.stdout).groups()
    assert int(count.replace(",", "")) > 20 and int(grown) < 200


def test_a_damage_that_nobody_noticed_is_found(tmp_path):
    path = fuzz_targets.small_checkpoint(tmp_path)
    whole = {name: (path / name).read_bytes() for name in ("model.safetensors", "meta.json")}
    whole["train.safetensors"] = (path / "train.safetensors").read_bytes()
    with pytest.raises(AssertionError, match="nobody noticed"):
        fuzz_targets.damage_reader(whole, "meta.json", None)(whole["meta.json"])
