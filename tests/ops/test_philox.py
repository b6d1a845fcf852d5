import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.ops.philox import philox, random_bits, split_seed, uniform

seeds = st.integers(0, 2**64 - 1)
words = st.integers(0, 2**32 - 1)


def numbers(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers(counter, key, expected):
    """The vectors for philox4x32-10 of Random123, the authors' own library (kat_vectors)."""
    found = philox(np.array([numbers(counter)], np.uint32), tuple(numbers(key)))
    assert [f"{word:08x}" for word in found[0]] == expected.split()


def test_counters_are_independent_of_each_other():
    rng = np.random.default_rng(0)
    counters = rng.integers(2**32, size=(10, 4), dtype=np.uint32)
    together = philox(counters, (1, 2))
    alone = [philox(counter[None], (1, 2))[0] for counter in counters]
    np.testing.assert_array_equal(together, alone)


@settings(max_examples=50, deadline=None)
@given(seeds, words, words, st.integers(1, 30))
def test_random_bits_are_the_words_of_blocks_block_stream_step_0(seed, stream, step, n):
    key = seed % 2**32, seed // 2**32
    counters = np.array([[block, stream, step, 0] for block in range(8)], np.uint32)
    expected = philox(counters, key).reshape(-1)[:n]
    found = random_bits(seed, stream, step, n)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, expected)


@given(seeds)
def test_a_seed_is_all_of_its_64_bits(seed):
    low, high = split_seed(seed)
    assert low + (high << 32) == seed
    assert 0 <= low < 2**32
    assert 0 <= high < 2**32


def test_uniform_fills_the_unit_interval():
    n = 100_000
    x = uniform(seed=5, stream=2, step=3, n=n)
    assert x.dtype == np.float64
    assert x.min() >= 0
    assert x.max() < 1
    # 100 bins: the variance of a bin's count is n·(1/100)·(99/100).
    counts = np.histogram(x, 100, (0, 1))[0]
    assert np.abs(counts - n / 100).max() < 5 * np.sqrt(n * 0.0099)
    np.testing.assert_array_equal(x * 2**32, random_bits(5, 2, 3, n))
