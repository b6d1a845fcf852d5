"""What commands give, held to what they gave when it was recorded in fixtures/unchanged.json.

Of each command the whole result is hashed: MIDI files, weights, every number to the last bit. Such
a hash holds where arithmetic is the same, which `probe` tells: another processor adds up in
another order. There, what can't depend on that is compared: words and whole numbers exactly,
losses to 1e-5, music where moving each weight by 1e-4 of itself, up and down, changed nothing when
it was recorded, for a processor moves a sum by 1e-6. Other music, whose draws come too close to an
edge, has a ~ in the fixture, and is compared to the bit or not at all.
"""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import llvmlite.binding
import numpy as np
import scipy.linalg.blas
from threadpoolctl import threadpool_limits

FIXTURE = Path(__file__).parents[1] / "fixtures" / "unchanged.json"
LIBRARIES = ("numpy", "scipy", "numba", "llvmlite", "scikit-learn", "matplotlib", "mido")
SHAPES = ((15, 7, 32), (3, 8, 32), (64, 128, 512), (100, 192, 768), (1, 192, 167))  # M, K, N
RTOL, ATOL = 1e-5, 2e-6  # of numbers on another processor; metrics.csv has six digits
MOST_NUMBERS = 16  # of a result in the fixture, more as so many weighted means


class Comparison(NamedTuple):
    """A command, and how its result was compared: "bits", "close" or "not"."""

    command: str
    how: str


compared: list[Comparison] = []  # of this session


def hash_of(*parts):
    """SHA-256 of bytes one after the other, its first half in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]


def probe():
    """What the last bits depend on: versions, the processor that is compiled for, some sums."""
    rng, parts = np.random.default_rng(0), []
    with threadpool_limits(1):
        for M, K, N in SHAPES:
            for real in (np.float32, np.float64):
                a, b = (rng.standard_normal(size).astype(real) for size in ((M, K), (K, N)))
                c = a @ b
                gemm = scipy.linalg.blas.get_blas_funcs("gemm", (a, b))
                parts += [c, gemm(1, a, b), a.T @ c, c @ b.T, a[0] @ b, c.sum(axis=0), a.sum()]
                parts += [np.exp(a), np.tanh(b), np.log(np.abs(b)), np.sqrt(np.abs(a))]
    versions = {name: version(name) for name in LIBRARIES}
    features = llvmlite.binding.get_host_cpu_features().flatten()
    return {
        # Python's own sum() adds up in another way from 3.12 on.
        "versions": versions
        | {"python": platform.python_version(), "libc": platform.libc_ver()[1]},
        "processor": [llvmlite.binding.get_host_cpu_name(), hash_of(features.encode())],
        "sums": hash_of(*(np.ascontiguousarray(part).tobytes() for part in parts)),
    }


def entry_of(result, music, steady):
    """What the fixture keeps of a result. music: of bin/sample; steady: as `Place.is_steady`."""
    whole = hash_of(json.dumps(result.whole, sort_keys=True).encode())
    if music:
        return whole if steady else f"{whole}~"
    words, numbers = taken_apart(result.steady)
    return [whole, words, numbers]


def taken_apart(tree):
    """A hash of all but the fractions of a result; and these, or means of them if many."""
    fractions = []

    def bare(node):
        if isinstance(node, dict):
            return {key: bare(node[key]) for key in sorted(node)}
        if isinstance(node, list):
            return [bare(one) for one in node]
        if isinstance(node, float):
            fractions.append(node)
            return None
        return node

    words = hash_of(json.dumps(bare(tree)).encode())
    return words, [float(f"{number:.8g}") for number in summed_up(fractions)]


def summed_up(numbers):
    """The numbers, or of many as many means as are kept, each weighted so that order counts."""
    if len(numbers) <= MOST_NUMBERS:
        return numbers
    parts = np.array_split(np.array(numbers), MOST_NUMBERS)
    return [float(np.average(part, weights=np.arange(1, len(part) + 1))) for part in parts]


def compare(command, entry, found, alike):
    """Hold what was found to the fixture's entry; note how. alike: whether bits have to be.

    Raises AssertionError where they differ more than another processor makes them.
    """
    music = isinstance(entry, str)
    if (found if music else found[0]) == (entry.rstrip("~") if music else entry[0]):
        how = "bits"
    elif alike:
        raise AssertionError(f"`{command}` gives something else than was recorded{ADVICE}")
    elif music:
        assert entry.endswith("~"), f"`{command}` composes something else{ADVICE}"
        how = "not"
    else:
        assert found[1] == entry[1], f"`{command}` says something else{ADVICE}"
        np.testing.assert_allclose(found[2], entry[2], RTOL, ATOL, err_msg=f"`{command}`{ADVICE}")
        how = "close"
    compared.append(Comparison(command, how))


ADVICE = ": where that is meant, say so in CHANGELOG.md and record anew, tools/record_unchanged.py"


def summary():
    """The line about this session's comparisons, None where there were none."""
    if not compared:
        return None
    counts = {how: sum(one.how == how for one in compared) for how in ("bits", "close", "not")}
    return (
        f"{len(compared)} commands held to what they gave: {counts['bits']} to the last bit, "
        f"{counts['close']} to 1e-5, {counts['not']} not comparable on this processor"
    )
