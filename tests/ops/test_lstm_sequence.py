"""The kernel of a whole sequence, kernels/lstm_sequence.cu, on the CPU stand-in."""

import numpy as np
import pytest
import test_contract as contract
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from hypothesis import given
from hypothesis import strategies as st

from lstm_music.ops.cuda import lstm, source
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.lstm_sequence import (
    EXCHANGES,
    LARGEST_H,
    SequencePlan,
    grid,
    sequence_plan,
    sequence_shared,
    units,
)

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")


def forward_case(rng, T, B, H, keep):
    args = {
        "gates": rng.normal(size=(T, B, 4 * H)),
        "Wh": rng.normal(size=(H, 4 * H)) / np.sqrt(H),
        "b": rng.normal(size=4 * H),
        "keep": (rng.random((T, B)) < 0.6).astype(float) if keep else None,
        **contract.states(rng, T, B, H),
        "work": contract.WORK,
    }
    return contract.Case(args, contract.STATES)


def backward_case(rng, T, B, H, keep, final=True):
    args = {
        "gates": contract.activations(rng, T, B, 4 * H),
        "Wh": rng.normal(size=(H, 4 * H)) / np.sqrt(H),
        "keep": (rng.random((T, B)) < 0.6).astype(float) if keep else None,
        "c": rng.normal(size=(T + 1, B, H)),
        "h": rng.normal(size=(T + 1, B, H)),
        "dy": rng.normal(size=(T, B, H)),
        **contract.gradients(rng, B, H, final),
        "work": contract.WORK,
    }
    return contract.Case(args, ("gates", "h", "dh", "dc", "db"))


def compare(ops, T, B, H, keep=True):
    """Hold a sequence, both ways, to the reference."""
    rng = np.random.default_rng(0)
    contract.compare(ops, "lstm_sequence_forward", forward_case(rng, T, B, H, keep))
    contract.compare(ops, "lstm_sequence_backward", backward_case(rng, T, B, H, keep))


# T, B, H, multiprocessors (few: several rows a block), KiB of shared memory (little: weights from
# the L2 cache).
SHAPES = [
    (1, 1, 1, 132, 227),
    (3, 2, 37, 132, 227),
    (2, 5, 33, 2, 227),
    (2, 7, 40, 1, 227),
    (3, 3, 97, 1, 50),
    (2, 2, 128, 132, 227),
    (2, 2, 128, 132, 64),
    (2, 1, 200, 132, 99),
    (1, 3, 256, 1, 227),
    (2, 2, 257, 132, 227),
]


@pytest.mark.slow(keep=2)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_whole_sequence_in_one_launch(shape, dtype):
    T, B, H, multiprocessors, kib = shape
    ops = CupyOps(dtype, cupy=HostCupy(("shuffled",), multiprocessors, kib << 10))
    for keep in (False, True):
        compare(ops, T, B, H, keep)
    # One launch a sequence: two forward, two backward.
    persistent = H <= LARGEST_H
    assert ops.xp.launches.get("lstm_sequence_forward", 0) == (2 if persistent else 0)
    assert ops.xp.launches.get("lstm_cell_forward", 0) == (0 if persistent else 2 * T)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("cluster", [1, 2])
@pytest.mark.parametrize("at", ["gates", "c0", "h0"])
def test_a_state_shows_that_a_gate_or_state_is_no_number(at, cluster, monkeypatch):
    ops = CupyOps("float32", cupy=HostCupy())
    if cluster > 1:
        clustered(monkeypatch, ops, cluster, 1, 13)
    case = forward_case(np.random.default_rng(0), 3, 4, 13, keep=False)
    # Of the sequence's first row: unit 0 of the state, or a gate of each kind in turn.
    for n in range(4) if at == "gates" else (0,):
        args = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in case.args.items()}
        args[at][(0, 0, 13 * n) if at == "gates" else (0, 0)] = np.nan
        found = contract.run(ops, "lstm_sequence_forward", case._replace(args=args))
        if at != "h0":
            assert np.isnan(found["h"][1, 0, 0])
        assert np.isnan(found["h"][2, 0]).all()
        assert np.isfinite(found["h"][1:, 1:]).all()


@given(
    B=st.integers(1, 2000),
    H=st.integers(1, 300),
    itemsize=st.sampled_from([4, 8]),
    kib=st.sampled_from([64, 99, 163, 227]),
    clusters=st.booleans(),
)
def test_a_plan_fits_the_device(B, H, itemsize, kib, clusters):
    plan = sequence_plan(B, H, itemsize, 132, kib << 10, clusters)
    if plan is None:
        assert H > LARGEST_H
        return
    assert plan.cluster == 1 or (clusters and itemsize == 4)
    assert plan.cluster * plan.threads >= 4 * H > 4 * (plan.cluster - 1) * units(H, plan.cluster)
    assert plan.threads % 32 == 0 and plan.threads <= plan.bound <= 1024
    assert grid(plan, B) * plan.rows >= B * plan.cluster and grid(plan, B) % plan.cluster == 0
    assert sequence_shared(plan, H, itemsize) <= kib << 10
    on_chip = plan.registers + 4 * plan.shared_quads
    assert plan.all_on_chip == (on_chip >= H) and on_chip < H + 4


def test_at_the_papers_size_no_weight_is_read_from_device_memory_again():
    for clusters in (False, True):
        plan = sequence_plan(50, 128, 4, 132, 227 << 10, clusters)
        assert plan.rows == 1 and plan.all_on_chip


@pytest.mark.parametrize("H", [192, 256])
def test_a_clusters_weights_are_all_on_chip(H):
    for B in (1, 16, 50, 128):
        plan = sequence_plan(B, H, 4, 132, 227 << 10, clusters=True)
        assert plan.cluster > 1 and plan.all_on_chip


# Clusters -----------------------------------------------------------------------------------------


def clustered(monkeypatch, ops, cluster, rows, H, exchange="mbarrier"):
    """Make an ops run its layers so, with few weights in registers and in shared memory."""
    threads = 4 * units(H, cluster)
    plan = SequencePlan(threads, 384, 8, rows, 2, False, cluster, exchange)
    monkeypatch.setattr(lstm, "persistent_plan", lambda ops, B, H: plan)
    return ops


# Blocks, and units: of which the last block has all, fewer, or some warps none.
CLUSTERS = [(2, 13), (2, 20), (2, 32), (4, 32), (4, 90), (4, 100)]


@pytest.mark.slow(keep=2)
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize(("cluster", "H"), CLUSTERS)
def test_blocks_of_a_cluster_share_a_layer(cluster, H, rows, exchange, monkeypatch):
    for dtype in ("float64", "float32"):
        ops = CupyOps(dtype, cupy=HostCupy())
        compare(clustered(monkeypatch, ops, cluster, rows, H, exchange), 5, 5, H)


def test_a_cluster_gives_what_one_block_gives(monkeypatch):
    found = []
    for cluster, exchange in ((1, "mbarrier"), (2, "mbarrier"), (4, "barrier")):
        ops = CupyOps("float32", cupy=HostCupy(("shuffled",)))
        clustered(monkeypatch, ops, cluster, 2, 90, exchange)
        rng = np.random.default_rng(0)
        forward = contract.run(ops, "lstm_sequence_forward", forward_case(rng, 4, 5, 90, True))
        backward = contract.run(ops, "lstm_sequence_backward", backward_case(rng, 4, 5, 90, True))
        found.append(forward | {f"{name}, back": a for name, a in backward.items()})
    for others in found[1:]:
        for name, a in found[0].items():
            np.testing.assert_array_equal(others[name], a, name)


@pytest.mark.parametrize(("capability", "clusters"), [("80", False), ("90", True), ("120", True)])
def test_clusters_run_where_there_are_any(capability, clusters):
    ops = CupyOps("float32", cupy=HostCupy(multiprocessors=132, compute_capability=capability))
    assert (lstm.persistent_plan(ops, 50, 128).cluster > 1) == clusters
    assert lstm.persistent_plan(ops, 50, 128).exchange == "mbarrier"
    ops.exchange = "barrier"
    assert lstm.persistent_plan(ops, 50, 128).exchange == "barrier"


# What to replace in the kernel's text and by what, however blocks exchange.
BUGS = {
    "blocks that begin before the others": ("cluster_arrive(), cluster_wait();", ";"),
    "one buffer for what is read and written": ("buffers + n % 2 * size", "buffers"),
    "a block's units counted from the layer's first": (
        "cluster_rank() * (blockDim.x / 4) +",
        "0 +",
    ),
    "units beyond the last": ("own.unit_exists = own.unit < H;", "own.unit_exists = true;"),
}
BARRIER_BUGS = {
    "what is written to oneself alone": (
        "*in_block(row + unit, rank) = value",
        "row[unit] = value",
    ),
    "nobody arrives": ("        cluster_arrive();\n", ""),
    "nobody waits": ("        cluster_wait();\n", ""),
    "one's own barrier for the cluster's": ("        cluster_wait();\n", "__syncthreads();\n"),
}
MBARRIER_BUGS = {
    "what is sent to oneself alone": ("n % 2, rank);", "n % 2, cluster_rank());"),
    "nobody waits": ("mbarrier_wait(counters + n % 2, (n - 1) / 2 % 2);", ""),
    "always the same phase": ("(n - 1) / 2 % 2", "0"),
    "one counter for two steps": ("counters + n % 2", "counters"),
    "a counter that isn't announced": ("mbarrier_announce();", ""),
    "a step that nobody expects": ("expect(n + 2);", ""),
    "a step beyond the last expected": ("threadIdx.x == 0 && n <= steps", "threadIdx.x == 0"),
    "too few bytes": ("* sizeof(Quad);", "* sizeof(Quad) - 16;"),
    "too many bytes": ("* sizeof(Quad);", "* sizeof(Quad) + 16;"),
    "another lane's unit": ("lane - rank + k)", "lane - rank + (k ^ 1))"),
    "a quad that doesn't exist": ("first >= units || !row_exists", "!row_exists"),
    "a row that doesn't exist": ("first >= units || !row_exists", "first >= units"),
    "idle warps that wait": ("COUNTED && unit / 8 * 8 >= units", "false"),
}


def check_cluster(monkeypatch, exchange, mutate):
    """Compare sequences of clusters whose last block has fewer units, and a warp without any."""
    for cluster, rows, H in ((4, 2, 27), (2, 1, 20)):
        ops = CupyOps("float64", cupy=HostCupy())
        clustered(monkeypatch, ops, cluster, rows, H, exchange)
        ops.xp.mutate = mutate
        compare(ops, 5, 5, H)


@pytest.mark.slow(keep=2)
@pytest.mark.parametrize(
    ("exchange", "name"),
    [(e, n) for e in EXCHANGES for n in BUGS]
    + [("barrier", n) for n in BARRIER_BUGS]
    + [("mbarrier", n) for n in MBARRIER_BUGS],
)
def test_bugs_of_clusters_are_caught(exchange, name, monkeypatch):
    others = BARRIER_BUGS if exchange == "barrier" else MBARRIER_BUGS
    before, after = (BUGS | others)[name]
    assert before in source.text("lstm_sequence")
    with pytest.raises(AssertionError):
        check_cluster(monkeypatch, exchange, lambda code: code.replace(before, after))


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_checks_of_clusters_pass_without_a_bug(exchange, monkeypatch):
    check_cluster(monkeypatch, exchange, lambda code: code)
