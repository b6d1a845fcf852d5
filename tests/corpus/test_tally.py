from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.corpus import counting as tally
from lstm_music.corpus.counting import Tally

NUMBERS = st.lists(st.lists(st.integers(-(2**40), 2**40) | st.integers(0, 5), max_size=20))


@pytest.mark.parametrize("waiting", [1, 7, 2**20])
@given(NUMBERS)
@settings(deadline=None)
def test_it_counts_as_a_counter_does(waiting, blocks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tally, "WAITING", waiting)
        counted, expected = Tally(), Counter()
        for block in blocks:
            counted.add(np.array(block, np.int64))
            expected.update(block)
            if len(expected) % 3 == 0:  # reading in between changes nothing
                assert counted.counts.sum() == expected.total()
    pairs = zip(counted.values.tolist(), counted.counts.tolist(), strict=True)
    assert list(pairs) == sorted(expected.items())


@given(st.lists(st.integers(0, 20), min_size=1), st.floats(0.01, 1))
@settings(deadline=None)
def test_the_share_below_is_the_least_that_holds_it(values, share):
    counted = Tally()
    counted.add(np.array(values))
    bound = counted.share_below(share)
    assert bound in values
    assert sum(v <= bound for v in values) >= share * len(values) - 1e-9
    assert sum(v < bound for v in values) < share * len(values)


def test_the_share_of_nothing_is_below_one():
    assert Tally().share_below(0.5) == 1
