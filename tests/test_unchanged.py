"""Some 480 commands, and what each of them gave when fixtures/unchanged.json was recorded.

A change that is meant to move code moves nothing here. One that is meant to change music or
numbers records them anew, `python tools/record_unchanged.py --write`, and says so in CHANGELOG.md.
What is compared how, here and on another processor, says `unchanged/__init__.py`.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import unchanged
from lstm_music.runs.checkpoint import read_checkpoint
from lstm_music.runs.opened import open_run
from unchanged import FIXTURE, compare, entry_of, probe
from unchanged.cases import CASES, measures, samples, training
from unchanged.place import NUDGE, Place, Result

KEPT = json.loads(FIXTURE.read_text("utf-8"))
MOST_BYTES = 100_000
MOST_AT_AN_EDGE = 0.15  # of the commands that compose


@pytest.fixture(scope="module")
def alike():
    """Whether this machine computes as that which recorded did, to the bit."""
    return probe() == KEPT["probe"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("unchanged") / "place")


def holds(place, line, alike):
    found = entry_of(place.result(line), line.startswith("sample"), True)
    compare(line, KEPT["results"][line], found, alike)


@pytest.mark.slow(keep=13)
@pytest.mark.parametrize("line", samples())
def test_music_is_what_it_was(place, line, alike):
    holds(place, line, alike)


@pytest.mark.slow(keep=5)
@pytest.mark.parametrize("line", training())
def test_training_is_what_it_was(place, line, alike):
    holds(place, line, alike)


@pytest.mark.slow(keep=7)
@pytest.mark.parametrize("line", measures())
def test_measures_counts_and_pictures_are_what_they_were(place, line, alike):
    holds(place, line, alike)


def test_what_is_recorded_is_what_is_run():
    assert list(KEPT["results"]) == CASES
    assert len(set(CASES)) == len(CASES) > 400
    assert FIXTURE.stat().st_size < MOST_BYTES


def test_most_music_is_compared_on_any_processor():
    music = [entry for line, entry in KEPT["results"].items() if line.startswith("sample")]
    assert sum(entry.endswith("~") for entry in music) < MOST_AT_AN_EDGE * len(music)
    losses = [entry for entry in KEPT["results"].values() if isinstance(entry, list) and entry[2]]
    assert len(losses) > 100


# What is compared how ---------------------------------------------------------------------------


@pytest.fixture
def kept_apart(monkeypatch):
    """The comparisons of a test, not counted with the others."""
    monkeypatch.setattr(unchanged, "compared", [])
    return unchanged.compared


def measured(loss, step=3):
    """What is kept of losses."""
    losses = [{"loss": loss, "step": step}]
    return entry_of(Result(["printed", losses], losses), False, True)


def test_here_the_last_bit_counts(kept_apart):
    compare("a", measured(0.1), measured(0.1), True)
    with pytest.raises(AssertionError, match=r"`b` gives something else .*unchanged\.py"):
        compare("b", measured(0.1), measured(0.1 + 2e-17), True)
    for entry in ("12", "12~"):
        compare("c", entry, "12", True)
        with pytest.raises(AssertionError, match="`d` gives"):
            compare("d", entry, "13", True)
    assert kept_apart == [("a", "bits"), ("c", "bits"), ("c", "bits")]


def test_on_another_processor_what_it_cannot_change_counts(kept_apart):
    compare("a", measured(3.0), measured(3.00002), False)
    compare("b", measured(3.0), measured(3.0), False)
    compare("c", "12~", "13", False)
    for found in (measured(3.0001), measured(3.0, step=4), measured(float("nan"))):
        with pytest.raises(AssertionError, match="`d`"):
            compare("d", measured(3.0), found, False)
    with pytest.raises(AssertionError, match="`e` composes"):
        compare("e", "12", "13", False)
    assert [one.how for one in kept_apart] == ["close", "bits", "not"]
    assert unchanged.summary() == (
        "3 commands held to what they gave: 1 to the last bit, 1 to 1e-5, 1 not comparable on "
        "this processor"
    )


def test_of_many_numbers_each_counts(kept_apart):
    numbers = [0.5 + n / 7 for n in range(100)]
    for n in (0, 50, 99):
        other = numbers.copy()
        other[n] += 0.01
        one, two = (entry_of(Result([], found), False, True) for found in (numbers, other))
        assert len(one[2]) == unchanged.MOST_NUMBERS
        with pytest.raises(AssertionError, match="`a`"):
            compare("a", one, [None, *two[1:]], False)


def test_weights_are_nudged_both_ways(place):
    up, down = (read_checkpoint(Path(place.nudged("v2", sign))).parameters for sign in (1, -1))
    with place.entered():
        own = open_run("v2", print)[0].parameters
    for name, p in own.items():
        moved = [(other[name] - p) / p for other in (up, down)]
        assert 0.2 * NUDGE < np.std(moved[0]) < 3 * NUDGE, name
        np.testing.assert_allclose(moved[0], -moved[1], atol=3e-7)
    assert place.is_steady("sample --baseline chord-frequency --corpus music")
    assert not place.is_steady("sample --baseline untrained flatten")
