"""Drawing on the device against the sampler on the CPU, with the same random numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from hypothesis import given, settings
from hypothesis import strategies as st
from small import counts_of, small_corpus, small_rolls

from lstm_music.midi.piece import WHOLE_NOTE as BAR
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.network.recall_rules import recall_rules
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.philox import uniform
from lstm_music.sampling import device as device_sampling
from lstm_music.sampling import sampler, word_rules
from lstm_music.sampling.device import DeviceSampler, sample_on_device
from lstm_music.sampling.options import Options
from lstm_music.sampling.sampler import choose, sample
from lstm_music.sampling.word_rules import chord_rules, event_rules, message_rules
from lstm_music.tokenizers.messages import PIECE_END, word_parts
from lstm_music.tokenizers.vocabulary import Vocabulary

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
START = 0


def small_model(ops, V):
    return Model(Config(vocabulary=V, embedding=4, hidden=5, layers=1), ops, seed=1)


@pytest.fixture(scope="module", params=["float64", "float32"])
def ops(request):
    return CupyOps(request.param, cupy=HostCupy())


@settings(max_examples=40, deadline=None)
@given(
    V=st.sampled_from([1, 2, 31, 33, 300, 1025]),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 3, 40, 5000]),
    top_p=st.sampled_from([1.0, 0.9, 0.3, 0.01]),
    greedy=st.booleans(),
    masked=st.booleans(),
    levels=st.sampled_from([2, 5, 10**6]),  # few levels: many equal logits
    keeps=st.booleans(),
)
def test_draws_what_the_cpu_draws(
    ops, V, seed, temperature, top_k, top_p, greedy, masked, levels, keeps
):
    rng = np.random.default_rng(seed)
    options = Options(temperature=temperature, top_k=top_k, top_p=top_p, greedy=greedy)
    logits = (rng.integers(levels, size=(3, V)) * (8 / levels)).astype(np.float32)
    allowed = np.flatnonzero(rng.random(V) < 0.5) if masked else None
    if allowed is not None and not len(allowed):
        allowed = np.array([V - 1])
    mask = None if allowed is None else np.isin(np.arange(V), allowed).astype(np.uint8)
    draws = rng.random(3)
    # A start symbol outside the vocabulary: no draw ends a piece.
    sampler = DeviceSampler(small_model(ops, V), 3, options, start=V, allowed=mask)
    sampler.exact = exact = int(rng.integers(V)) if keeps else -1
    out = ops.asarray(np.full((1, 3), -1), np.int32)
    sampler.draw(ops.asarray(logits), out, ops.asarray(draws, np.float64))
    expected = [
        choose(row, allowed, u, options, exact) for row, u in zip(logits, draws, strict=True)
    ]
    assert ops.to_numpy(out)[0].tolist() == expected


DRAWN = [
    Options(),
    Options(temperature=1e-60),
    Options(top_p=0.7),
    Options(top_k=300),
    Options(top_k=300, top_p=0.5),
]


def assert_drawn_as_on_the_cpu(ops, V, levels=10**6):
    """Hold some draws from rows of V logits, many of them alike, to the sampler's."""
    rng = np.random.default_rng(V)
    rows, draws = 3, rng.random((len(DRAWN), 3))
    logits = (8 / levels * rng.integers(levels, size=(rows, V))).astype(np.float32)
    for options, some in zip(DRAWN, draws, strict=True):
        sampler = DeviceSampler(small_model(ops, V), rows, options, start=V)
        out = ops.asarray(np.full((1, rows), -1), np.int32)
        sampler.draw(ops.asarray(logits), out, ops.asarray(some, np.float64))
        expected = [choose(x, None, u, options) for x, u in zip(logits, some, strict=True)]
        assert ops.to_numpy(out)[0].tolist() == expected
    return sampler


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_shares_lie_in_shared_memory_where_it_has_room(dtype):
    for kib, shares in ((227, False), (12, True)):
        ops = CupyOps(dtype, cupy=HostCupy(shared_bytes=kib << 10))
        for levels in (3, 10**6):
            sampler = assert_drawn_as_on_the_cpu(ops, 1500, levels)
        assert (sampler.shares is not None) == shares


DRAWING_MUTATIONS = {
    "digit 0 where it isn't": ("s.found = 0, s.before", "s.found = 1, s.before"),
    "digits of all, not of those with the prefix": ("|| own >> shift >> 8 != prefix", ""),
    "the barrier before the digit is found": (
        "__syncthreads();\n        if (threadIdx.x < 32) find", "if (threadIdx.x < 32) find",
    ),
    "the barrier after it": (
        "find_digit(s, before, count, share);\n        __syncthreads();",
        "find_digit(s, before, count, share);",
    ),
    "equals from the first on": ("nth(V, place.ties, s,", "nth(V, 1, s,"),
    "lanes that forget those before": ("if (lane >= offset) upto = upto + other;", ""),
    "a warp that forgets those before": ("before += s.scratch[w];", ""),
    "a temperature that divides nothing": ("/ rules.temperature", ""),
}  # fmt: skip


@pytest.mark.slow(keep=1)
@pytest.mark.parametrize("name", DRAWING_MUTATIONS)
def test_bugs_planted_in_drawing_are_caught(name):
    before, after = DRAWING_MUTATIONS[name]

    def mutate(code):
        assert before in code or "sample_forward" not in code
        return code.replace(before, after)

    ops = CupyOps("float32", cupy=HostCupy())
    ops.xp.mutate = mutate
    with pytest.raises(AssertionError):
        for levels in (3, 10**6):
            assert_drawn_as_on_the_cpu(ops, 700, levels)


def draw_on_the_cpu(V, N, most, options):
    """The same loop, written plainly."""
    model = small_model(NumpyOps("float64"), V)
    x, state = np.full(N, START, np.int32), model.zero_state(N)
    pieces, alive = [[] for _ in range(N)], [True] * N
    for t in range(most):
        logits, state = model.step(x, state)
        for n in range(N):
            u = float(uniform(options.seed, n, t // 1024, 1024)[t % 1024])
            x[n] = choose(logits[n], None, u, options) if alive[n] else START
            alive[n] = alive[n] and x[n] != START
            if alive[n]:
                pieces[n].append(int(x[n]))
    return pieces


@pytest.mark.parametrize("options", [Options(seed=5), Options(seed=6, top_k=4, top_p=0.8)])
def test_a_whole_piece_is_the_cpus(options):
    ops = CupyOps("float64", cupy=HostCupy(("shuffled",)))
    V, N, most = 23, 3, 40
    sampler = DeviceSampler(small_model(ops, V), N, options, START)
    found = sampler.run(most)
    assert found == draw_on_the_cpu(V, N, most, options)
    assert any(found)


def nodes_of(monkeypatch, config, *kept):
    """The nodes of two captured tokens of a model; kept: rules, primers and recall, if any."""
    ops, nodes, capture = CupyOps("float32", cupy=HostCupy()), [], device_sampling.captured

    def noting(*args):
        graph = capture(*args)
        nodes.append(graph.nodes)
        return graph

    monkeypatch.setattr(device_sampling, "captured", noting)
    sampler = DeviceSampler(Model(config, ops, seed=1), 3, Options(seed=5), START)
    if kept:
        sampler.keep_to(*kept)
    sampler.run(6)
    return nodes


STEP = ["embedding_forward", "lstm_step_forward", "lstm_step_forward", "gemm", "add"]


def test_a_captured_token_is_kernels_and_products_alone(monkeypatch):
    found = nodes_of(monkeypatch, Config(vocabulary=23, embedding=4, hidden=5, layers=2))
    assert found == [[*STEP, "sample_forward", "sample_advance"]] * 2


def test_so_it_is_with_rules_and_a_copy_gate(monkeypatch):
    rules, corpus = rules_and_words(EVENTS, 960, 2)
    recall = recall_rules(corpus.vocabulary, {"name": "event"})
    config = Config(len(corpus.vocabulary), 4, 5, 2, copy=recall.candidates)
    chosen = ["rules_forward", "gemm", "divide", "recall_choose", "sample_forward"]
    after = ["rules_advance", "recall_advance", "sample_advance"]
    found = nodes_of(monkeypatch, config, rules, [(), (), ()], recall)
    assert found == [[*STEP, *chosen, *after]] * 2


# With rules -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["flatten", "merge"])
def corpus(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return small_corpus(tmp_path_factory.mktemp("corpus"), request.param, pieces=4)


EVENTS = [
    *(f"{kind}-{pitch}" for kind in ("off", "on") for pitch in (60, 61, 67)),
    *("at-0", "at-240", "at-480", "at-960", "bar-240", "bar-480", "bar-1920", "bar"),
]


def rules_and_words(words, *habits):
    """Rules of events, with the vocabulary that models want to know."""
    vocabulary = Vocabulary([PIECE_END, *words])
    return event_rules(vocabulary, *habits), SimpleNamespace(vocabulary=vocabulary)


@pytest.fixture
def short(monkeypatch):
    """Pieces that end soon, few at once, so that little shows every rule."""
    monkeypatch.setattr(sampler, "WHOLE_PIECE", 90)
    monkeypatch.setattr(sampler, "PER_QUARTER", 2)
    monkeypatch.setattr(sampler, "WITHIN_LIMIT", 70)
    for module in (sampler, word_rules):
        monkeypatch.setattr(module, "SHORTEST", BAR)
    for module in (sampler, device_sampling):
        monkeypatch.setattr(module, "ROWS", 4)
    monkeypatch.setattr(device_sampling, "LOOK_EVERY", 16)


def models(corpus, head="softmax", copy=0):
    """The same model on the CPU and on the stand-in for a GPU; copy: candidates of its gate."""
    words = word_parts(corpus.vocabulary) if head == "factored" else None
    config = Config(len(corpus.vocabulary), 4, 5, 2, head=head, copy=copy, **counts_of(words))
    cuda = CupyOps("float64", cupy=HostCupy(("shuffled",)))
    made = [Model(config, ops, seed=5, words=words) for ops in (NumpyOps("float64"), cuda)]
    for model in made:  # so that what is drawn depends on what is remembered
        for name in {"softmax": ("W",), "factored": ("Wc", "A")}[head]:
            model.parameters[f"head.{name}"] *= 8
        if copy:  # as often as not
            random = np.random.default_rng(0).normal(size=(5, copy))
            model.parameters["copy.G"] = model.ops.asarray(3 * random)
            model.parameters["copy.R"] += 3
    return made


LENGTHS = [
    Options(),
    Options(length=1),
    Options(length=60, top_k=7),
    Options(limit=1, top_p=0.9),
    Options(limit=BAR, temperature=2.0),
    Options(limit=5 * BAR, seed=3),
    Options(limit=3 * BAR, greedy=True),
    Options(bars=3, seed=1),
    Options(beyond=True),
    Options(beyond=True, length=20, seed=1),
    Options(beyond=True, limit=700),
    Options(beyond=True, bars=2, seed=4, meter=((0, 1440),)),
]


@pytest.mark.slow(keep=8)
@pytest.mark.parametrize(("free", "narrow"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("options", LENGTHS, ids=str)
def test_rules_primers_and_lengths_are_the_cpus(corpus, short, free, narrow, options):
    habits = (corpus.longest_note, corpus.max_tracks, corpus.most_notes)
    habits = (300, 1, 2) if narrow else habits
    rules = message_rules(corpus.vocabulary, corpus.tokenizer.layout, *habits, free)
    check_pieces(*models(corpus), rules, options)


@pytest.mark.parametrize("habits", [(300, 1), (960, 2), (5000, 128)])
@pytest.mark.parametrize("options", LENGTHS, ids=str)
def test_events_are_the_cpus(short, habits, options):
    rules, corpus = rules_and_words(EVENTS, *habits)
    check_pieces(*models(corpus), rules, options)


@pytest.mark.parametrize("without", ["at-240", "on-60", "bar"])
def test_events_that_fit_no_limit_or_lack_words(short, without):
    few = ("bar-480", "at-240", "on-60", "off-60", "on-61", "bar")
    rules, corpus = rules_and_words([word for word in few if word != without], 480)
    check_pieces(*models(corpus), rules, Options(limit=100))


COPYING = [
    Options(),
    Options(length=90, temperature=0.7, top_p=0.8, repetition=1.0),
    Options(limit=5 * BAR, seed=3, repetition=-1.0),
    Options(limit=3 * BAR, greedy=True),
    Options(beyond=True, bars=2, seed=4, top_k=3),
]


@pytest.mark.parametrize("options", COPYING, ids=str)
@pytest.mark.parametrize("head", ["softmax", "factored", "event"])
def test_what_is_copied_is_the_cpus(corpus, short, head, options):
    if head == "event":
        rules, corpus = rules_and_words(EVENTS, 960, 2)
        recall = recall_rules(corpus.vocabulary, {"name": "event"})
    else:
        habits = (corpus.longest_note, corpus.max_tracks, corpus.most_notes)
        rules = message_rules(corpus.vocabulary, corpus.tokenizer.layout, *habits)
        recall = corpus.recall
    made = models(corpus, head.replace("event", "softmax"), recall.candidates)
    check_pieces(*made, rules, options, recall)
    assert made[1].ops.xp.launches["recall_choose"]


def check_pieces(on_cpu, on_gpu, rules, options, recall=None):
    tried = sample(
        on_cpu, [()] * 6, Options(length=20, temperature=2.0, seed=9), rules, recall=recall
    )
    lengths = (0, 3, 0, 20, 1, 12)
    most = 20 if options.beyond else options.length or 20
    primers = [ids[: min(n, most)] for ids, n in zip(tried, lengths, strict=True)]
    expected, shown = sample(on_cpu, primers, options, rules, recall=recall), []
    found = sample_on_device(
        on_gpu, primers, options, rules, lambda *done: shown.append(done), recall
    )
    assert found == expected
    assert shown == sorted(shown)


def test_a_piece_is_the_same_beside_others(corpus, short):
    _, model = models(corpus)
    rules = message_rules(corpus.vocabulary, corpus.tokenizer.layout, 480, 2, 4)
    many = sample_on_device(model, [()] * 5, Options(seed=2), rules)
    assert sample_on_device(model, [()], Options(seed=2), rules) == many[:1]
    assert sample_on_device(model, [()] * 2, Options(seed=2, first=3), rules) == many[3:]
    assert len(set(map(tuple, many))) == 5


def test_a_factored_models_pieces_are_the_cpus(corpus, short):
    on_cpu, on_gpu = models(corpus, "factored")
    habits = (corpus.longest_note, corpus.max_tracks, corpus.most_notes)
    rules = message_rules(corpus.vocabulary, corpus.tokenizer.layout, *habits)
    for options in (Options(length=30, seed=1), Options(limit=BAR, top_p=0.9)):
        expected = sample(on_cpu, [(), ()], options, rules)
        assert sample_on_device(on_gpu, [(), ()], options, rules) == expected


def test_chords_are_drawn_on_the_host_by_logits_of_the_device(short, tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    corpus = small_rolls(tmp_path, "chord")
    on_cpu, on_gpu = models(corpus)
    rules = chord_rules(corpus.vocabulary, 240)
    primers = [(), corpus.ids[:5].tolist(), (), (), ()]
    for options in (Options(seed=1), Options(limit=3 * BAR, temperature=3.0)):
        expected = sample(on_cpu, primers, options, rules)
        assert sample(on_gpu, primers, options, rules) == expected
        assert sample(on_gpu, primers[:1], options, rules) == expected[:1]


MUTATIONS = {
    "notes beyond the most that sound": ("> rules.most_notes", "> 127"),
    "a pitch struck again at once": ("STRUCK_BEFORE * (began != piece.now)", "STRUCK_BEFORE"),
    "a primer's word off by one": ("t < primed[n] ?", "t + 1 < primed[n] ?"),
    "a piece that remembers the one before": ("h[at] = 0, c[at] = 0;", ""),
}


EVENT_MUTATIONS = {
    "a place where the piece stands": ("longest[AFTER] < place &&", "longest[AFTER] <= place &&"),
    "a place where the bar ends": ("place < longest[BEFORE]", "place <= longest[BEFORE]"),
    "notes in any order": ("IN_ORDER * (note >= first_in_order(piece.rank, kind))", "IN_ORDER"),
    "bars without end": ("HEARD_LATELY * heard", "HEARD_LATELY"),
    "old notes that may not end": ("began + rules.rings", "began + rules.longest_note"),
}


@pytest.mark.slow(keep=1)
@pytest.mark.parametrize("mutation", [None, *MUTATIONS.values()], ids=["none", *MUTATIONS])
def test_bugs_planted_in_the_rules_are_caught(corpus, short, mutation):
    rules = message_rules(corpus.vocabulary, corpus.tokenizer.layout, 480, 1, 1)
    check_mutation(*models(corpus), rules, mutation)


@pytest.mark.slow(keep=1)
@pytest.mark.parametrize(
    "mutation", [None, *EVENT_MUTATIONS.values()], ids=["none", *EVENT_MUTATIONS]
)
def test_bugs_planted_in_the_rules_of_events_are_caught(short, mutation):
    rules, corpus = rules_and_words(EVENTS, 480, 2)
    check_mutation(*models(corpus), rules, mutation)


LENGTH_MUTATIONS = {
    "a pickup that is a bar": ("missing = piece.length;", "missing = 0;"),
    "a bar that is of 4/4": ("piece.length = piece.bar = length", "piece.length = length"),
    "bars before that are forgotten": ("piece.asked_bars - piece.bars_before", "piece.asked_bars"),
}


@pytest.mark.parametrize(
    "mutation", [None, *LENGTH_MUTATIONS.values()], ids=["none", *LENGTH_MUTATIONS]
)
def test_bugs_planted_in_bars_are_caught(short, mutation):
    rules, corpus = rules_and_words(EVENTS, 480, 2)
    upbeat = ("bar-240", "at-0", "on-60", "bar-480", "at-0", "off-60", "on-61")
    primers = [[corpus.vocabulary.id(word) for word in upbeat], *[()] * 7]
    options = Options(bars=4, temperature=5.0, seed=7)
    check_mutation(*models(corpus), rules, mutation, options, primers)


def test_a_bug_planted_in_primers_is_caught(corpus, short):
    rules = message_rules(corpus.vocabulary, corpus.tokenizer.layout, 480, 1, 4)
    options = Options(beyond=True, limit=240, temperature=5.0, seed=4)
    on_cpu = models(corpus)[0]
    primer = sample(on_cpu, [()], Options(length=9, seed=8), rules)[0]
    for mutation in (None, ("piece.notes == piece.primed_notes;", "piece.notes == 0;")):
        check_mutation(*models(corpus), rules, mutation, options, [primer] * 8)


def check_mutation(on_cpu, on_gpu, rules, mutation, options=None, primers=None):
    on_gpu.ops.xp.orders = ("ascending", "descending")
    planted = []

    def mutate(code):
        planted.append(mutation is not None and mutation[0] in code)
        return code.replace(*mutation) if planted[-1] else code

    on_gpu.ops.xp.mutate = mutate
    options = options or Options(length=120, temperature=5.0, seed=4)
    primers = primers or [(), sample(on_cpu, [()], Options(length=9, seed=8), rules)[0]]
    expected = sample(on_cpu, primers, options, rules)
    try:
        same = sample_on_device(on_gpu, primers, options, rules) == expected
    except AssertionError:
        same = False
    assert same == (mutation is None)
    assert any(planted) == (mutation is not None)
