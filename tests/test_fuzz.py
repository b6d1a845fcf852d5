"""Each parser of files takes rubbish with one line; tools/fuzz.py does the same for longer."""

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TOOL = Path(__file__).resolve().parents[1] / "tools" / "fuzz.py"
SPEC = importlib.util.spec_from_file_location("fuzz", TOOL)
fuzz = importlib.util.module_from_spec(SPEC)
sys.modules["fuzz"] = fuzz
SPEC.loader.exec_module(fuzz)
TARGETS = fuzz.targets()
BOUNDED = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
IN_PROCESS = [name for name, target in TARGETS.items() if not target.apart]


@pytest.fixture(autouse=True)
def folder(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(fuzz, "FOLDER", tmp_path_factory.mktemp("fuzz"))


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
